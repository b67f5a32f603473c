"""Known connections to an anycast address whose container is gone: the kernel forgets them.

Rule: only connections that were opened to an address of ours, and answered by what is not one of
its targets any more. Their next packet is delivered to a container that is there (and a TCP client
is told by its reset). `linux/netfilter/nfnetlink_conntrack.h`. Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Set
from ipaddress import ip_address

import trio

from calico_bgp.prefix import Address
from discod.kernel.attributes import NESTED, attribute, attributes
from discod.kernel.netlink import NETFILTER, Netlink, Request

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _IP, _ID, _ZONE = 1, 2, 1, 12, 18
_SOURCE, _DESTINATION = (1, 3), (2, 4)
_SLICE = 512


def _end(tuple_: bytes, which: tuple[int, int]) -> Address | None:
    for kind, value in attributes(tuple_, 0):
        if kind == _IP:
            for inner, octets in attributes(value, 0):
                if inner in which and len(octets) in (4, 16):
                    return ip_address(octets)
    return None


def stale(payload: bytes, targets: Mapping[Address, Set[Address]]) -> bytes | None:
    """The payload that deletes a connection of a dump; None: it may stay."""
    parts = dict(attributes(payload, 4))
    original, reply = parts.get(_ORIGINAL), parts.get(_REPLY)
    if original is None or reply is None:
        return None
    wanted = targets.get(_end(original, _DESTINATION))  # type: ignore[arg-type]
    if wanted is None or _end(reply, _SOURCE) in wanted:
        return None
    delete = payload[:4] + attribute(_ORIGINAL | NESTED, original)
    for kind in (_ID, _ZONE):
        if kind in parts:
            delete += attribute(kind, parts[kind])
    return delete


async def forget(targets: Mapping[Address, Set[Address]]) -> int:
    """Delete the connections to each address that none of its targets answers; how many.

    Raises:
        OSError: no connection tracking, or no right to it.
    """
    gone = 0
    with Netlink(NETFILTER) as kernel:
        for version, af in ((4, 2), (6, 10)):
            if not any(address.version == version for address in targets):
                continue
            requests = []
            found = await kernel.dump(_GET, struct.pack("=BBH", af, 0, 0))
            for i, message in enumerate(found):
                if i % _SLICE == _SLICE - 1:
                    await trio.lowlevel.checkpoint()
                payload = stale(message.payload, targets)
                if payload is not None:
                    requests.append(Request(_DELETE, 0, payload))
            gone += (await kernel.batch(requests)).count(0)
    return gone
