"""Sockets to upstreams.

Rule: each exchange has a socket of its own, so that the kernel draws a new port for each (RFC 5452,
section 9.2) and drops what comes from elsewhere. The caller sets the deadline.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import trio

from discod.model.settings import ListenAddress
from resolver.wire import TCP_MAX, Malformed

RECEIVE: Final = 16_384
"""Octets of a UDP reply; we say that we take 4,096 at most."""

T = TypeVar("T")


class Exchange(Protocol):
    """How a query reaches an upstream."""

    async def udp(
        self, server: ListenAddress, packet: bytes, take: Callable[[bytes], T | None]
    ) -> T:
        """Send a datagram; the first that comes back and that `take` makes something of.

        Raises:
            OSError: the network says no.
        """
        ...

    async def tcp(self, server: ListenAddress, packet: bytes) -> bytes:
        """Send a message on a connection, and return the first that comes back.

        Raises:
            OSError, trio.BrokenResourceError: the network says no.
            Malformed: the connection was closed before the end of the message.
        """
        ...


class Sockets:
    """The network."""

    async def udp(
        self, server: ListenAddress, packet: bytes, take: Callable[[bytes], T | None]
    ) -> T:
        """See `Exchange`. Plain non-blocking calls: trio's own sockets take twice the time."""
        with socket.socket(_family(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(_sockaddr(server))
            sock.send(packet)
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    reply = sock.recv(RECEIVE)
                except BlockingIOError:  # it had a wrong checksum
                    continue
                taken = take(reply)
                if taken is not None:
                    return taken

    async def tcp(self, server: ListenAddress, packet: bytes) -> bytes:
        """See `Exchange` (RFC 7766)."""
        sock = trio.socket.socket(_family(server), socket.SOCK_STREAM)
        try:
            await sock.connect(_sockaddr(server))
            stream = trio.SocketStream(sock)
            await stream.send_all(len(packet).to_bytes(2, "big") + packet)
            received = bytearray()
            while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
                chunk = await stream.receive_some(TCP_MAX)
                if not chunk:
                    raise Malformed("connection closed early")
                received += chunk
            return bytes(received[2 : 2 + int.from_bytes(received[:2], "big")])
        finally:
            sock.close()


def _family(server: ListenAddress) -> int:
    return socket.AF_INET6 if server.address.version == 6 else socket.AF_INET


def _sockaddr(server: ListenAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    text, _, scope = str(server.address).partition("%")
    if server.address.version == 4:
        return text, server.port
    index = 0
    if scope:
        with suppress(OSError):  # no such interface: the connect says so
            index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return text, server.port, 0, index
