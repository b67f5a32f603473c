"""Opens what is served: for each address TCP, and UDP as often as there are workers.

Rule: all or nothing. An address that cannot be bound is an error that names it, and so is a socket
that was handed to us and belongs to no address: nobody would read it, and it would swallow queries.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final, NamedTuple

from discod.model.settings import ListenAddress
from resolver import binding, udp

PORT_TRIES: Final = 20
"""Ports tried when the configuration leaves the port open (0) and UDP and TCP must share it."""


class Opened(NamedTuple):
    """The sockets of one address."""

    at: ListenAddress
    """With the port that it came to be."""
    datagrams: tuple[tuple[socket.socket, ...], ...]
    """For each lane its own; every socket is in one of them at least. Not blocking."""
    listeners: tuple[socket.socket, ...]
    """Not blocking."""


def open_all(
    listen: Iterable[ListenAddress],
    lanes: int,
    given: Sequence[socket.socket],
    stack: ExitStack,
) -> list[Opened]:
    """Open everything.

    Args:
        listen: Where; port 0 is any port.
        lanes: For how many workers, at least 1.
        given: Bound sockets that are served in place of new ones (systemd.socket(5)).
        stack: Closes what was opened and what was given.

    Raises:
        OSError: the message names the socket.
    """
    rest: dict[tuple[socket.SocketKind, ListenAddress], list[socket.socket]] = {}
    for sock in given:
        stack.callback(sock.close)
        type_ = socket.SocketKind(sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
        rest.setdefault((type_, _place(sock)), []).append(sock)
    opened = []
    for at in listen:
        listeners = rest.pop((socket.SOCK_STREAM, at), [])
        for listener in listeners:
            listener.setblocking(False)
        handed = rest.pop((socket.SOCK_DGRAM, at), [])
        for datagram in handed:
            udp.prepare(datagram, at.address)
        if not handed:
            at, listeners, handed = _open(at, lanes, listeners, stack)
        elif not listeners:
            listeners = [bind_tcp(at)]
            stack.callback(listeners[0].close)
        opened.append(Opened(at, _dealt(handed, lanes, stack), tuple(listeners)))
    for type_, place in rest:
        what = "udp" if type_ == socket.SOCK_DGRAM else "tcp"
        raise OSError(
            errno.EINVAL,
            f"{what} {place.address} port {place.port} was handed over, "
            "but dns.listen does not name it",
        )
    return opened


def by_lane(opened: Sequence[Opened]) -> list[list[socket.socket]]:
    """All UDP sockets of each lane."""
    lanes = zip(*(one.datagrams for one in opened), strict=True)
    return [[sock for dealt in lane for sock in dealt] for lane in lanes]


def _place(sock: socket.socket) -> ListenAddress:
    host, port = sock.getsockname()[:2]
    return ListenAddress(ip_address(host.partition("%")[0]), port)


def _dealt(
    datagrams: Sequence[socket.socket], lanes: int, stack: ExitStack
) -> tuple[tuple[socket.socket, ...], ...]:
    """Deal sockets to lanes; where there are fewer sockets, lanes share them."""
    if len(datagrams) >= lanes:
        return tuple(tuple(datagrams[lane::lanes]) for lane in range(lanes))
    dealt = []
    for lane in range(lanes):
        sock = datagrams[lane % len(datagrams)]
        if lane >= len(datagrams):
            # A descriptor of its own, since two tasks cannot wait for the same.
            sock = sock.dup()
            stack.callback(sock.close)
        dealt.append((sock,))
    return tuple(dealt)


def _open(
    at: ListenAddress, lanes: int, listeners: list[socket.socket], stack: ExitStack
) -> tuple[ListenAddress, list[socket.socket], list[socket.socket]]:
    """UDP, and TCP where there is none, on one port.

    Raises:
        OSError.
    """
    for left in reversed(range(PORT_TRIES)):
        with ExitStack() as mine:
            if not listeners:
                tcp = bind_tcp(at)
                mine.callback(tcp.close)
            else:
                tcp = listeners[0]
            place = ListenAddress(at.address, tcp.getsockname()[1])
            datagrams = []
            try:
                for _ in range(lanes):
                    datagrams.append(udp.bind(place, shared=lanes > 1))  # noqa: PERF401
            except OSError as error:
                for datagram in datagrams:
                    datagram.close()
                if at.port == 0 and left and error.errno == errno.EADDRINUSE:
                    continue  # somebody has that port for UDP: let the kernel choose another
                raise OSError(
                    error.errno, f"udp {at.address} port {place.port}: {error.strerror}"
                ) from error
            for datagram in datagrams:
                stack.callback(datagram.close)
            stack.push(mine.pop_all())
            return place, listeners or [tcp], datagrams
    raise AssertionError("unreachable")


def bind_tcp(at: ListenAddress) -> socket.socket:
    """A listening socket, not blocking.

    Raises:
        OSError: the message names the address.
    """
    v6 = at.address.version == 6
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        binding.bind(sock, at)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"tcp {at.address} port {at.port}: {error.strerror}") from error
    return sock
