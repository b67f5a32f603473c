"""Whether the kernel of another host answers, when its daemon does not.

Rule: a closed port is the answer that is wanted. A TCP connect to it brings a reset, a UDP datagram
an ICMP "port unreachable", and both come from the kernel: no daemon needs to run, to be awake or to
have a share of the processor. So a daemon that restarts, hangs or starves is told apart from a host
that is gone. Firewalls that drop take this proof away and nothing else. No wait: `look` is called
when it suits.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from dataclasses import dataclass

from discod.model.endpoint import Address

OPEN_MAX = 128
"""Knocks under way at once; the oldest is given up for a new one."""
_ALIVE = frozenset({0, errno.ECONNREFUSED, errno.ECONNRESET})


@dataclass(frozen=True, slots=True)
class _Knock:
    host: str
    until: float
    sockets: tuple[socket.socket, ...]


class Knocks:
    """Knocks under way.

    Args:
        address: Ours, from which is knocked.
        wait: Seconds that an answer may take.
    """

    def __init__(self, address: Address, wait: float) -> None:
        self._address = address
        self._wait = wait
        self._open: deque[_Knock] = deque()

    def at(self, host: str, address: Address, port: int, now: float) -> None:
        """Knock at a host's UDP and TCP port."""
        while len(self._open) >= OPEN_MAX:
            _close(self._open.popleft())
        sockets = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = self._one(kind, (str(address), port))
            if sock is not None:
                sockets.append(sock)
        self._open.append(_Knock(host, now + self._wait, tuple(sockets)))

    def _one(self, kind: socket.SocketKind, to: tuple[str, int]) -> socket.socket | None:
        """A socket with a knock under way; closed, when the answer is here already."""
        family = socket.AF_INET6 if self._address.version == 6 else socket.AF_INET
        try:
            sock = socket.socket(family, kind)
        except OSError:  # no descriptors left: one proof less
            return None
        try:
            sock.setblocking(False)
            sock.bind((str(self._address), 0))
            if sock.connect_ex(to) in _ALIVE and kind == socket.SOCK_STREAM:
                sock.close()
            elif kind == socket.SOCK_DGRAM:
                sock.send(b"")
        except OSError:  # no route, or not our address any more: no answer will come
            pass
        return sock

    def look(self, now: float) -> list[str]:
        """Hosts that have answered since the last look; each knock is over then, or in time."""
        poll = select.poll()
        for knock in self._open:
            for sock in knock.sockets:
                if sock.fileno() >= 0:
                    poll.register(sock, select.POLLIN | select.POLLOUT)
        answered: list[str] = []
        ready = dict(poll.poll(0))
        left: deque[_Knock] = deque()
        for knock in self._open:
            if any(_answered(sock, ready.get(sock.fileno(), 0)) for sock in knock.sockets):
                _close(knock)
                answered.append(knock.host)
            elif knock.until <= now:
                _close(knock)
            else:
                left.append(knock)
        self._open = left
        return answered

    def close(self) -> None:
        """Give all up."""
        while self._open:
            _close(self._open.popleft())


def _answered(sock: socket.socket, events: int) -> bool:
    if sock.fileno() < 0:
        return True
    if not events:
        return False
    if sock.type == socket.SOCK_DGRAM:
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except OSError:  # nothing yet, or a router's word
            return False
        return True
    try:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0:
            sock.getpeername()  # it was read before, or never connected
    except OSError:
        return False
    return error in _ALIVE


def _close(knock: _Knock) -> None:
    for sock in knock.sockets:
        sock.close()
