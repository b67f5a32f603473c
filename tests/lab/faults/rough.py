"""A bad line: delay and loss between one host and the LAN, where the kernel has no netem.

Rule: stands in the cable as two packet sockets and a thread that holds frames back; only what
belongs to the given TCP ports is delayed and lost, all else passes at once. Frames travel with the
kernel's own header of offloads (packet(7), PACKET_VNET_HDR), so that unfinished checksums and large
segments stay what they are. Chance is seeded. Bounded: a frame too many is lost, as in any queue.
"""

from __future__ import annotations

import heapq
import itertools
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Collection
from types import TracebackType

from tests.lab import netns

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
ETH_P_ALL = 3
ETH_P_IP = 0x0800
VNET_HEADER = 10
FRAME_MAX = 1 << 17
QUEUE_MAX = 4096
"""Frames held back at most."""


class RoughLine:
    """A context: the host's cable is bad inside it, and whole again after it.

    Args:
        leg: Whose.
        delay: Seconds, each way.
        loss: Share of frames, each way.
        ports: TCP ports, at either end, that are meant.
        seed: Of the losses.
    """

    def __init__(
        self, leg: netns.Leg, *, delay: float, loss: float, ports: Collection[int], seed: int = 1
    ) -> None:
        self._leg = leg
        self._delay = delay
        self._loss = loss
        self._ports = frozenset(ports)
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rough line", daemon=True)
        self.meant = 0
        """Frames that were meant."""
        self.lost = 0
        """Of these, lost."""

    def __enter__(self) -> RoughLine:
        lan, port = self._leg.lan, self._leg.port
        lan.ip(
            "link add rough type veth peer name roughlan",
            "link set rough up",
            "link set roughlan master lan",
            "link set roughlan up",
        )
        self._host = self._open(port)
        self._lan = self._open("rough")
        lan.ip(f"link set {port} nomaster")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._host.close()
        self._lan.close()
        self._leg.lan.ip("link del rough")
        self._leg.mend()
        if self._error is not None and error is None:
            raise self._error

    def _open(self, device: str) -> socket.socket:
        sock = netns.inside(
            self._leg.lan.path,
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)),
        )
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((device, ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def _run(self) -> None:
        try:
            self._relay()
        except BaseException as error:  # noqa: BLE001 - raised again by __exit__
            self._error = error

    def _relay(self) -> None:
        held: list[tuple[float, int, socket.socket, bytes]] = []
        serial = itertools.count()
        with selectors.DefaultSelector() as selector:
            selector.register(self._host, selectors.EVENT_READ, self._lan)
            selector.register(self._lan, selectors.EVENT_READ, self._host)
            while not self._stop.is_set():
                wait = min(0.1, held[0][0] - time.monotonic()) if held else 0.1
                for key, _ in selector.select(max(0.0, wait)):
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    for frame in _frames(source):
                        if not self._means(frame):
                            _send(target, frame)
                            continue
                        self.meant += 1
                        if self._rng.random() < self._loss or len(held) >= QUEUE_MAX:
                            self.lost += 1
                            continue
                        due = time.monotonic() + self._delay
                        heapq.heappush(held, (due, next(serial), target, frame))
                while held and held[0][0] <= time.monotonic():
                    _, _, target, frame = heapq.heappop(held)
                    _send(target, frame)

    def _means(self, frame: bytes) -> bool:
        at = VNET_HEADER + 14
        if len(frame) < at + 24 or struct.unpack_from("!H", frame, at - 2)[0] != ETH_P_IP:
            return False
        if frame[at + 9] != socket.IPPROTO_TCP:
            return False
        ports = struct.unpack_from("!HH", frame, at + (frame[at] & 15) * 4)
        return not self._ports.isdisjoint(ports)


def _frames(sock: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < 256:
        try:
            frame, address = sock.recvfrom(FRAME_MAX)
        except BlockingIOError:
            break
        if address[2] != PACKET_OUTGOING:  # else what this very relay has sent
            found.append(frame)
    return found


def _send(sock: socket.socket, frame: bytes) -> None:
    try:
        sock.send(frame)
    except (BlockingIOError, InterruptedError):  # a full queue loses frames
        return
