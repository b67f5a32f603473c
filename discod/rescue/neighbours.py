"""On the bridges of this host, who asks for the link-layer address of a dead container is answered.

Rule: with the address that the container had, so that nobody's cache is wrong when Docker gives it
to the next one; and only until somebody else shows up with the IP address. The kernel's own proxy
entries do not answer within a subnet. `packet(7)`; needs CAP_NET_RAW.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import random
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import trio

from discod.backoff import Backoff
from discod.log import fields
from discod.model.endpoint import Address
from discod.model.rescue import Bridge
from discod.rescue.neighbours_codec import ARP, IPV6, answer, heard, on_bridge, socket_filter

log = logging.getLogger(__name__)

RATE: Final = 500.0
"""Frames a second for one bridge and family that are looked at, after a burst of as many. Those
beyond wait in the socket's buffer, and are dropped by the kernel when that is full: who asked asks
again after a second."""
BUFFER: Final = 1 << 16
"""Octets of frames that wait; some 80 of them."""
STEADY: Final = 5.0
"""Seconds after which a socket that fails is a new fault."""
_FRAME: Final = 256
"""Octets of a frame that are read; neither protocol has longer ones here."""
_SO_ATTACH_FILTER: Final = 26


class Port(NamedTuple):
    """A bridge, and which of the two protocols."""

    bridge: str
    kind: int


class Neighbours:
    """Answers for dead addresses; `run` does it, `want` says for which.

    Args:
        claimed: Called when somebody sends from a wanted address, or probes whether it is free: it
            is in use, or about to be. It is not answered for any more until the next `want`. What
            this host itself sends is not heard.
        rng: For the pauses before a bridge is looked for again.
    """

    def __init__(self, claimed: Callable[[Address], None], rng: random.Random) -> None:
        self._claimed, self._rng = claimed, rng
        self._wanted: dict[Port, dict[Address, bytes]] = {}
        self._open: dict[Port, socket.socket] = {}
        self._changed = trio.Event()
        self.frames = 0
        """Looked at so far."""
        self.answered = 0
        """Questions answered so far."""

    def want(self, addresses: Mapping[Address, bytes], bridges: Iterable[Bridge]) -> None:
        """From now on answer for these, and no others.

        Args:
            addresses: Dead address -> link-layer address that it had, 6 octets; one whose is not
                known, or that is in the network of no bridge, is left out. Name an address only
                when its container is gone: a paused or stopping one answers itself, and what it
                asks for would be taken as a claim.
            bridges: Those there are.
        """
        wanted: dict[Port, dict[Address, bytes]] = {}
        for bridge in bridges if addresses else ():
            for address, mac in addresses.items():
                if len(mac) == 6 and on_bridge(address, bridge.networks):
                    port = Port(bridge.name, ARP if address.version == 4 else IPV6)
                    wanted.setdefault(port, {})[address] = mac
        before, self._wanted = self._wanted, wanted
        for port, found in wanted.items():
            if port in self._open and before.get(port, {}).keys() != found.keys():
                _attach(self._open[port], port, found)
        if before.keys() != wanted.keys():
            self._changed.set()

    async def run(self) -> None:
        """Serve for ever; a bridge has a socket for as long as there is something to answer."""
        serving: dict[Port, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for port in serving.keys() - self._wanted.keys():
                    serving.pop(port).cancel()
                for port in self._wanted.keys() - serving.keys():
                    serving[port] = trio.CancelScope()
                    nursery.start_soon(self._serve, port, serving[port])
                await self._changed.wait()

    async def _serve(self, port: Port, scope: trio.CancelScope) -> None:
        backoff = Backoff(self._rng, most=1.0)
        last = ""
        with scope:
            while True:
                since = trio.current_time()
                try:
                    with _opened(port, self._wanted.get(port, {})) as raw:
                        self._open[port] = raw
                        try:
                            await self._listen(port, raw)
                        finally:
                            if self._open.get(port) is raw:  # not that of who serves it since
                                del self._open[port]
                except OSError as error:
                    # The bridge is not there: taken down, or about to be made again.
                    if trio.current_time() - since > STEADY:
                        backoff.reset()
                        last = ""
                    if str(error) != last:
                        log.warning(
                            "no answers for dead neighbours",
                            extra=fields(bridge=port.bridge, error=error),
                        )
                    last = str(error)
                await trio.sleep(backoff.pause())

    async def _listen(self, port: Port, raw: socket.socket) -> None:
        """Answer until the bridge is not the one that it was.

        Raises:
            OSError: it is not.
        """
        allowance, before = RATE, trio.current_time()
        while True:
            await trio.lowlevel.wait_readable(raw)
            try:
                frame = raw.recv(_FRAME)
            except BlockingIOError:
                continue
            except OSError as error:
                # Down is not gone: when it is up again, so is the socket.
                if error.errno != errno.ENETDOWN or raw.getsockname()[0] != port.bridge:
                    raise
                continue
            self._handle(port, raw, frame)
            now = trio.current_time()
            allowance = min(RATE, allowance + (now - before) * RATE) - 1
            before = now
            if allowance < 0:
                await trio.sleep(-allowance / RATE)

    def _handle(self, port: Port, raw: socket.socket, frame: bytes) -> None:
        self.frames += 1
        what = heard(frame)
        wanted = self._wanted.get(port, {})
        for address in what.claims:
            if wanted.pop(address, None) is not None:
                log.info(
                    "dead address is in use again",
                    extra=fields(address=address, bridge=port.bridge),
                )
                self._claimed(address)
        mac = wanted.get(what.wants) if what.wants else None
        if mac is None:
            return
        try:
            raw.send(answer(what, mac))
        except OSError as error:
            # Full, or down: who asked asks again.
            log.debug("neighbour not answered", extra=fields(bridge=port.bridge, error=error))
        else:
            self.answered += 1


def _opened(port: Port, wanted: Mapping[Address, bytes]) -> socket.socket:
    """A packet socket that hears nothing but what `socket_filter` selects.

    Raises:
        OSError: no such bridge, or no right to it.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    raw = socket.socket(socket.AF_PACKET, kind, 0)  # 0: hears nothing before it is bound
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        _attach(raw, port, wanted)
        raw.bind((port.bridge, port.kind))
    except BaseException:  # cleaned up, then raised on
        raw.close()
        raise
    return raw


def _attach(raw: socket.socket, port: Port, wanted: Mapping[Address, bytes]) -> None:
    program = socket_filter(port.kind, wanted)
    steps = ctypes.create_string_buffer(program, len(program))
    where = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)
