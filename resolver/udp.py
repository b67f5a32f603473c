"""Serves DNS over UDP.

Rule: a socket is drained in batches without leaving the task; a response that the kernel does not
take at once is dropped, as the network might have (the client asks again). A response leaves from
the address that was asked: a wildcard socket learns it for each packet (ip(7), IP_PKTINFO).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

import trio

from discod.log import fields
from discod.model.endpoint import Address
from discod.model.settings import ListenAddress
from resolver import binding
from resolver.answer import Transport

log = logging.getLogger(__name__)

BATCH: Final = 64
"""Datagrams taken before other tasks get their turn: a few milliseconds at most."""
RECEIVE_MAX: Final = 4096
"""Octets of a query; a longer one is malformed."""
BUFFER: Final = 4 * 1024 * 1024
"""Octets asked of the kernel for what waits: the default loses packets in bursts."""

_ANCILLARY = socket.CMSG_SPACE(20)  # struct in6_pktinfo, the larger of the two
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
IP_PKTINFO: Final = 8  # linux/in.h; named by Python from 3.14 on

Q = TypeVar("Q")
Handle = Callable[[bytes, str, Transport], "bytes | Iterator[bytes] | Q | None"]
"""(packet, client, transport) -> response, several of them, what takes time, or nothing."""
Relay = Callable[[Q, Transport], Awaitable[bytes]]
"""Does what takes time, as asking an upstream; always comes back with a response."""

Ancillary = list[tuple[int, int, bytes]]
"""Control data as recvmsg(2) gives it; empty unless the socket is a wildcard."""


def bind(at: ListenAddress, *, shared: bool = False) -> socket.socket:
    """A bound, non-blocking socket.

    Args:
        at: Where.
        shared: Others bind the same place, and the kernel spreads clients over them (socket(7),
            SO_REUSEPORT).

    Raises:
        OSError: the address is in use, or needs privileges.
    """
    v6 = at.address.version == 6
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        prepare(sock, at.address)
        binding.bind(sock, at)
    except BaseException:  # cleaned up, then raised on
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket, address: Address) -> None:
    """Set what serving needs, on a socket for `address`, whoever opened it.

    Raises:
        OSError: it is no UDP socket of that family.
    """
    sock.setblocking(False)
    if address.is_unspecified and address.version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif address.is_unspecified:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    with suppress(OSError):  # more than the system allows: then what it allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    with suppress(PermissionError):  # needs CAP_NET_ADMIN
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)


async def serve(
    sock: socket.socket, handle: Handle[Q], relay: Relay[Q], nursery: trio.Nursery
) -> None:
    """Answer what comes in on `sock` until cancelled; forwarded queries run in `nursery`."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        for _ in range(BATCH):
            try:
                packet, ancillary, _, source = sock.recvmsg(RECEIVE_MAX, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:  # an ICMP error of an earlier response; the socket is sound
                log.debug("receive failed", extra=fields(error=error))
                break
            # What is longer was cut (MSG_TRUNC): its end is missing, and it is answered so.
            answer(sock, packet, ancillary, source, handle, relay, nursery)


def answer(
    sock: socket.socket,
    packet: bytes,
    ancillary: Ancillary,
    source: Any,
    handle: Handle[Q],
    relay: Relay[Q],
    nursery: trio.Nursery,
) -> None:
    """Answer one packet, that came in on `sock` from `source`; a forwarded one in `nursery`."""
    response = handle(packet, source[0], "udp")
    if isinstance(response, Iterator):  # over UDP a transfer is one message (RFC 1995, section 2)
        response = next(response, None)
    if response is None:
        return
    if isinstance(response, bytes):
        send(sock, response, ancillary, source)
    else:
        nursery.start_soon(_forward, sock, response, relay, ancillary, source)


async def _forward(
    sock: socket.socket, query: Q, relay: Relay[Q], ancillary: Ancillary, source: Any
) -> None:
    send(sock, await relay(query, "udp"), ancillary, source)


def send(sock: socket.socket, response: bytes, ancillary: Ancillary, source: Any) -> None:
    """Send a response back to `source`, from the address that `ancillary` says was asked."""
    try:
        if ancillary:
            sock.sendmsg([response], _from_asked(ancillary), 0, source)
        else:
            sock.sendto(response, source)
    except BlockingIOError:
        pass  # the send buffer is full: see the rule above
    except OSError as error:  # no route back, or a firewall's word
        log.debug("send failed", extra=fields(client=source[0], error=error))


def _from_asked(ancillary: Ancillary) -> Ancillary:
    """Where a packet came in, as control data for its response.

    struct in_pktinfo is (interface, local address, header's address): the response's source is the
    *local address*, and the interface is the routing table's business.
    """
    control = []
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            control.append((level, kind, bytes(4) + data[4:8] + bytes(4)))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            # A link-local address needs its interface; for others 0 leaves it to the routes.
            scoped = data[:2] == b"\xfe\x80"
            control.append((level, kind, data if scoped else data[:16] + bytes(4)))
    return control
