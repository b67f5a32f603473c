"""What this host is, as far as a route must not contradict it: own addresses, its links' networks.

Rule: answers whether a destination may be routed at all, and how a gateway is reached. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from calico_bgp.ports import Hop, Hops
from calico_bgp.prefix import Prefix
from calico_bgp.route_codec import KernelHop


class Connected(NamedTuple):
    """A network that is directly on one of our interfaces."""

    network: Prefix
    interface: int


class NoInterface(Exception):
    """All next hops name interfaces that this host has not, or that are down."""


def _number(prefix: Prefix) -> int:
    return int.from_bytes(prefix.nlri[1:].ljust(prefix.family.octets, b"\0"))


class Surroundings:
    """One look at the host.

    Args:
        local: Own addresses, and prefixes that are delivered here.
        connected: Networks of the interfaces.
        links: Name -> index of each interface.
    """

    def __init__(
        self,
        local: Iterable[Prefix] = (),
        connected: Iterable[Connected] = (),
        links: Mapping[str, int] | None = None,
    ) -> None:
        self.local = frozenset(local)
        self.connected = frozenset(connected)
        self.links = dict(links or {})
        # (afi, shift, first bits, length, interface), the longest first.
        self._networks = sorted(
            (
                (
                    on.network.family.afi,
                    on.network.family.octets * 8 - on.network.bits,
                    _number(on.network),
                    on.network.bits,
                    on.interface,
                )
                for on in self.connected
            ),
            key=lambda row: row[1],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Surroundings):
            return NotImplemented
        return (self.local, self.connected, self.links) == (
            other.local,
            other.connected,
            other.links,
        )

    __hash__ = None  # type: ignore[assignment]

    def _on(self, afi: int, number: int, bits: int) -> int | None:
        """The interface whose network has this in it; None: no such network."""
        for family, shift, first, length, interface in self._networks:
            if family == afi and length <= bits and number >> shift == first >> shift:
                return interface
        return None

    def interface_of(self, prefix: Prefix) -> int | None:
        """The interface whose network has this destination in it; None: none has."""
        return self._on(prefix.family.afi, _number(prefix), prefix.bits)

    def kernel_hops(self, hops: Hops) -> tuple[KernelHop, ...]:
        """Next hops with indices, sorted.

        The kernel takes all of them or none; so where some cannot be reached now, the others are
        given alone. A gateway that no address makes a neighbour is one by the word of whoever named
        its interface.

        Raises:
            NoInterface: none names an interface that is there.
        """
        found = [
            self._kernel_hop(hop)
            for hop in hops
            if not hop.interface or hop.interface in self.links
        ]
        if not found:
            raise NoInterface(f"no such interface, or it is down: {hops[0].interface}")
        if len(found) > 1:
            found = [hop for hop in found if self._reached(hop)] or found
        return tuple(sorted(found, key=_order))

    def _reached(self, hop: KernelHop) -> bool:
        gateway = hop.gateway
        if hop.interface or gateway is None:
            return True
        afi = 1 if gateway.version == 4 else 2
        return self._on(afi, int(gateway), gateway.max_prefixlen) is not None

    def _kernel_hop(self, hop: Hop) -> KernelHop:
        gateway, name = hop
        if not name:
            return KernelHop(gateway)
        index = self.links[name]
        onlink = (
            not gateway.is_link_local
            and self._on(1 if gateway.version == 4 else 2, int(gateway), gateway.max_prefixlen)
            != index
        )
        return KernelHop(gateway, index, onlink)

    def forbids(self, prefix: Prefix, hops: tuple[KernelHop, ...]) -> str:
        """Why this must never be a route here, in words; empty: it may.

        An address of our own is ours; and what is in a network of one of our interfaces is not
        looked for behind another: a peer cannot take a local container's traffic away.
        """
        if prefix in self.local:
            return "it is an address of this host"
        on = self._on(prefix.family.afi, _number(prefix), prefix.bits)
        if on is None:
            return ""
        if any(c.network == prefix for c in self.connected):
            return "it is directly connected"
        for hop in hops:
            by = hop.interface
            if not by and hop.gateway is not None:
                afi = 1 if hop.gateway.version == 4 else 2
                by = self._on(afi, int(hop.gateway), hop.gateway.max_prefixlen) or 0
            if by and by != on:
                return "it is in a network of another interface"
        return ""


def _order(hop: KernelHop) -> tuple[int, bytes, int]:
    packed = b"" if hop.gateway is None else hop.gateway.packed
    return len(packed), packed, hop.interface


def same(wanted: tuple[KernelHop, ...], there: tuple[KernelHop, ...]) -> bool:
    """Whether the kernel's next hops are those; an interface that was not named is any."""
    if len(wanted) != len(there):
        return False
    for want, have in zip(wanted, sorted(there, key=_order), strict=True):
        if want.gateway != have.gateway or (want.interface and want.interface != have.interface):
            return False
    return True
