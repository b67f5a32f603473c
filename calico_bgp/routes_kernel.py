"""Routes with our protocol number in the kernel: read, written in batches, watched.

Rule: a route of another protocol is never written over. What we believe is there is replaced in
place (no gap for packets); what we believe is not is made exclusively (NLM_F_EXCL), so that a
stranger's route of the same destination and metric ends it with EEXIST. Deleting names destination,
metric, table and protocol, which the kernel matches all.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import trio

from calico_bgp import route_codec as codec
from calico_bgp.prefix import FAMILIES, IPV4, Prefix
from calico_bgp.route_codec import KernelRoute
from calico_bgp.surroundings import Connected, Surroundings
from discod.kernel import netlink
from discod.kernel.netlink import MissedNotifications, Netlink, Request

GROUPS = (1, 5, 7, 9, 11)
"""RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""
SLICE = 256
"""Routes read between two yields to the loop: about 2 ms."""
_ROUTES = (codec.NEWROUTE, codec.DELROUTE)


class Change(NamedTuple):
    """One thing to do."""

    route: KernelRoute
    there: bool
    """Whether a route of ours is believed to be there."""
    delete: bool = False


class Noticed(NamedTuple):
    """What others changed."""

    routes: tuple[tuple[Prefix, KernelRoute | None], ...] = ()
    """Of ours: as it is now; None: gone."""
    surroundings: bool = False
    """Links, addresses, own or connected networks are others."""
    missed: bool = False
    """Anything may be different."""


class RouteKernel(Protocol):
    """The kernel as `forwarding` and `exported` see it."""

    async def read(self) -> list[KernelRoute]:
        """All routes of our protocol and table."""
        ...

    async def surroundings(self) -> Surroundings:
        """Look at the host."""
        ...

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all; 0 or an errno for each, in order."""
        ...

    async def noticed(self) -> Noticed:
        """Wait for what others change."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def request(change: Change) -> Request:
    """The message for one change."""
    if change.delete:
        return Request(codec.DELROUTE, 0, codec.pack_route(change.route, delete=True))
    flags = netlink.F_CREATE | (netlink.F_REPLACE if change.there else netlink.F_EXCL)
    return Request(codec.NEWROUTE, flags, codec.pack_route(change.route))


class Routes:
    """`RouteKernel` of this network namespace.

    Args:
        table: Of our routes.
        protocol: Of our routes.

    Raises:
        OSError: no netlink.
    """

    def __init__(self, table: int, protocol: int) -> None:
        self._table, self._protocol = table, protocol
        self._ask = Netlink()
        try:
            self._hear = Netlink(groups=GROUPS)
            self._hear.ignore(self._ask.port)
        except BaseException:  # cancelled too: closed, then raised on
            self._ask.close()
            raise

    def close(self) -> None:
        """Give the sockets back."""
        self._ask.close()
        self._hear.close()

    async def read(self) -> list[KernelRoute]:
        """All routes of our protocol and table, both families.

        Raises:
            NetlinkFailed: the kernel did not tell.
        """
        found = []
        for family in FAMILIES:
            found += await self._dump(codec.pack_route_filter(family, self._table, self._protocol))
        # Where the kernel does not filter, as before 4.20.
        return [r for r in found if r.protocol == self._protocol and r.table == self._table]

    async def _dump(self, payload: bytes) -> list[KernelRoute]:
        routes = []
        for i, message in enumerate(await self._ask.dump(codec.GETROUTE, payload)):
            if i % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()
            route = codec.read_route(message.payload)
            if route is not None:
                routes.append(route)
        return routes

    async def surroundings(self) -> Surroundings:
        """Own addresses (the kernel's and our anycast ones), connected networks, interfaces.

        Raises:
            NetlinkFailed: the kernel did not tell.
        """
        links = [
            codec.read_link(message.payload)
            for message in await self._ask.dump(codec.GETLINK, codec.pack_link_filter())
        ]
        local: list[Prefix] = []
        connected: list[Connected] = []
        for family in FAMILIES:
            own = codec.pack_route_filter(family, codec.TABLE_LOCAL, 0, codec.LOCAL)
            local += [r.prefix for r in await self._dump(own) if r.type == codec.LOCAL]
            for protocol in codec.LINK_PROTOCOLS:
                links_of = codec.pack_route_filter(family, codec.TABLE_MAIN, protocol)
                connected += filter(None, map(_connected, await self._dump(links_of)))
        return Surroundings(local, connected, {link.name: link.number for link in links if link.up})

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all; a route that is to go and is not there is gone."""
        results = await self._ask.batch([request(change) for change in changes])
        return [
            0 if change.delete and result == errno.ESRCH else result
            for change, result in zip(changes, results, strict=True)
        ]

    async def noticed(self) -> Noticed:
        """Wait for something that others changed; what we did ourselves is not told."""
        try:
            while True:
                noticed = self._sort(await self._hear.changes())
                if noticed.routes or noticed.surroundings:
                    return noticed
        except MissedNotifications:
            return Noticed(surroundings=True, missed=True)

    def _sort(self, found: list[netlink.Message]) -> Noticed:
        routes: list[tuple[Prefix, KernelRoute | None]] = []
        around = False
        for message in found:
            if message.type not in _ROUTES:
                around = True
            elif message.port != self._ask.port:
                protocol, table = codec.glance(message.payload)
                if table == codec.TABLE_LOCAL or protocol in codec.LINK_PROTOCOLS:
                    around = True
                elif protocol == self._protocol:
                    route = codec.read_route(message.payload)
                    if route is not None and route.table == self._table:
                        gone = message.type == codec.DELROUTE
                        routes.append((route.prefix, None if gone else route))
        return Noticed(tuple(routes), around)


def _connected(route: KernelRoute) -> Connected | None:
    """The network that a route puts on a link; None: none."""
    if len(route.hops) != 1 or route.hops[0].gateway is not None or route.type != codec.UNICAST:
        return None
    # Every link has fe80::/64; and a default route without a gateway is no network.
    if not route.prefix.bits or (
        route.prefix.family != IPV4 and route.prefix.network.is_link_local
    ):
        return None
    return Connected(route.prefix, route.hops[0].interface)


async def remove_all(
    table: int, protocol: int, open_kernel: Callable[[int, int], RouteKernel] | None = None
) -> int:
    """Remove every route of a protocol from a table, and say how many went.

    Raises:
        OSError: the kernel did not tell, or refused one.
    """
    kernel = (open_kernel or Routes)(table, protocol)
    try:
        routes = await kernel.read()
        results = await kernel.write([Change(route, there=True, delete=True) for route in routes])
    finally:
        kernel.close()
    for route, result in zip(routes, results, strict=True):
        if result:
            raise OSError(result, f"route {route.prefix} not removed: {netlink.name_of(result)}")
    return len(routes)
