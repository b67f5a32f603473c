"""Answers what a worker hands back: other names, and whatever is not of the usual shape.

Rule: as `resolver.udp` does it, through the same functions and on the very socket that the query
came in on; only the way in is another one. A datagram here is a worker's, so it is well-formed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

import trio

from resolver import udp
from resolver.hot.protocol import QUERY_MAX, read_delegated
from resolver.udp import Ancillary, Handle, Relay

BATCH: Final = udp.BATCH
"""Queries taken before other tasks get their turn."""

_INET = struct.Struct(">2xH4s8x")
_INET6 = struct.Struct(">2xHL16s")
_SCOPE = struct.Struct("@I")

Source = tuple[str, int] | tuple[str, int, int, int]


async def serve(
    queries: socket.socket,
    sockets: Sequence[socket.socket],
    handle: Handle[Any],
    relay: Relay[Any],
    nursery: trio.Nursery,
) -> None:
    """Answer what comes in on `queries`, until its worker ends; forwarded ones run in `nursery`."""
    while True:
        await trio.lowlevel.wait_readable(queries)
        for _ in range(BATCH):
            try:
                datagram = queries.recv(QUERY_MAX)
            except BlockingIOError:
                break
            except ConnectionError:
                return
            if not datagram:
                return  # the other end is closed
            query = read_delegated(datagram)
            udp.answer(
                sockets[query.socket],
                query.packet,
                ancillary_of(query.local),
                source_of(query.source),
                handle,
                relay,
                nursery,
            )


def source_of(raw: bytes) -> Source:
    """A client, from its struct sockaddr_in or sockaddr_in6, as Python's sockets have it."""
    if len(raw) == _INET.size:
        port, packed = _INET.unpack(raw)
        return socket.inet_ntop(socket.AF_INET, packed), port
    port, flow, packed = _INET6.unpack_from(raw)
    (scope,) = _SCOPE.unpack_from(raw, _INET6.size)
    return socket.inet_ntop(socket.AF_INET6, packed), port, flow, scope


def ancillary_of(local: bytes) -> Ancillary:
    """`Delegated.local`, the address that was asked and its interface, as recvmsg(2) tells them."""
    if len(local) == 8:  # struct in_pktinfo: interface, local address, the header's address
        data = local[4:] + local[:4] + local[:4]
        return [(socket.IPPROTO_IP, udp.IP_PKTINFO, data)]
    if local:  # struct in6_pktinfo: address, interface
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local)]
    return []
