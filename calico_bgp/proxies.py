"""Addresses of containers that this host answers for on its uplinks, and anycast ones that it has.

Rule: entries carry our protocol number, as routes do, and only those are ever taken away. Proxy
entries are for single addresses: the host never answers for anything that it was not told of.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from calico_bgp import route_codec as codec
from calico_bgp.prefix import FAMILIES, IPV4, Address, of_address
from calico_bgp.route_codec import KernelHop, KernelRoute, ProxyNeighbour
from calico_bgp.routes_kernel import Change, Routes
from discod.kernel.netlink import F_CREATE, F_REPLACE, Netlink, Request, name_of

LOOPBACK = 1
"""The index of ``lo`` in every namespace."""


async def proxies(wanted: Iterable[ProxyNeighbour], protocol: int) -> int:
    """Have exactly these proxy entries of a protocol number; how many were added or removed.

    Raises:
        OSError: the kernel refused one; the others are as wanted.
    """
    with Netlink() as kernel:
        there = set()
        for family in FAMILIES:
            for message in await kernel.dump(codec.GETNEIGH, codec.pack_proxy_filter(family)):
                entry = codec.read_proxy(message.payload)
                if entry is not None and entry.protocol == protocol:
                    there.add(entry)
        need = {entry._replace(protocol=protocol) for entry in wanted}
        changes = [
            *((codec.DELNEIGH, 0, entry) for entry in there - need),
            *((codec.NEWNEIGH, F_CREATE | F_REPLACE, entry) for entry in need - there),
        ]
        results = await kernel.batch(
            [Request(kind, flags, codec.pack_proxy(entry)) for kind, flags, entry in changes]
        )
    for (kind, _, entry), result in zip(changes, results, strict=True):
        if result and not (kind == codec.DELNEIGH and result == errno.ENOENT):
            raise OSError(result, f"proxy entry {entry.address}: {name_of(result)}")
    return len(changes)


async def own_addresses(wanted: Iterable[Address], protocol: int) -> int:
    """Have exactly these anycast addresses delivered here; how many were added or removed.

    As local routes, which need no interface of their own and are nobody's source address.

    Raises:
        OSError: the kernel refused one; the others are as wanted.
    """
    kernel = Routes(codec.TABLE_LOCAL, protocol)
    try:
        there = {route.prefix: route for route in await kernel.read()}
        need = {}
        for address in wanted:
            prefix = of_address(address)
            # 1024 is what IPv6 makes of 0.
            metric = 0 if prefix.family == IPV4 else 1024
            hops = (KernelHop(None, LOOPBACK),)
            need[prefix] = KernelRoute(
                prefix, hops, metric, codec.TABLE_LOCAL, protocol, codec.LOCAL
            )
        changes = [Change(there[p], there=True, delete=True) for p in there if p not in need]
        changes += [Change(need[p], there=False) for p in need if p not in there]
        results = await kernel.write(changes)
    finally:
        kernel.close()
    for change, result in zip(changes, results, strict=True):
        # EEXIST: the host has it as an address of its own.
        if result not in (0, errno.EEXIST):
            raise OSError(result, f"own address {change.route.prefix}: {name_of(result)}")
    return len(changes)
