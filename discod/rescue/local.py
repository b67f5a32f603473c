"""What this host knows of its own containers: their addresses, published ports, and bridges.

Rule: what a container had is remembered when it is gone, for who still writes to it; bounded, what
went first is forgotten first. What another container has now is never taken for the dead one's.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, TypeVar

from discod.model.endpoint import Address, Endpoint
from discod.model.rescue import Bridge, Place, Unit

REMEMBERED: Final = 8192
"""Addresses, and published places, of former containers; of each as many."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Moved:
    """From what was known of containers to what is known now."""

    addresses: frozenset[Address]
    """That some container has, and did not have before."""
    published: frozenset[Place]
    """Places on this host that lead elsewhere now, or nowhere."""
    any: bool
    """Whether anything is different."""


class Local:
    """Running containers and bridges of this host, and what former ones had."""

    def __init__(self) -> None:
        self.known = False
        """Whether `take` was called."""
        self.units: Mapping[str, Unit] = {}
        self.bridges: tuple[Bridge, ...] = ()
        self.published: dict[Place, tuple[str, Place]] = {}
        """Place on this host -> container, place in it."""
        self._fronts: dict[Place, set[Place]] = {}  # the other way round
        self._holders: dict[Address, set[str]] = {}
        self._networks: tuple[tuple[int, int, int], ...] = ()  # version, shift, shifted network
        self._backends: dict[tuple[str, Place], Place] = {}
        self._macs: dict[tuple[str, Address], bytes] = {}

    def take(self, units: Mapping[str, Unit], bridges: tuple[Bridge, ...]) -> Moved:
        """Take the containers, by full id, and bridges as they are now."""
        changed = not self.known or units != self.units
        if not changed and bridges == self.bridges:
            return Moved(frozenset(), frozenset(), any=False)
        self.known = True
        if bridges != self.bridges:
            self.bridges = bridges
            self._networks = tuple(_network(*n) for bridge in bridges for n in bridge.networks)
        if not changed:
            return Moved(frozenset(), frozenset(), any=True)
        had = {(a, unit.container) for unit in self.units.values() for a in unit.addresses}
        published = self.published
        self.units = dict(units)
        self._index()
        has = {(a, unit.container) for unit in self.units.values() for a in unit.addresses}
        return Moved(
            frozenset(address for address, _ in has - had),
            frozenset(dict(self.published.items() ^ published.items())),
            any=True,
        )

    def _index(self) -> None:
        self._holders, self.published, self._fronts = {}, {}, {}
        for unit in self.units.values():
            for address, mac in unit.addresses.items():
                self._holders.setdefault(address, set()).add(unit.container)
                if mac:
                    _remember(self._macs, (unit.container, address), mac)
            for front, inside in unit.published.items():
                self.published[front] = unit.container, inside
                self._fronts.setdefault(inside, set()).add(front)
                _remember(self._backends, (unit.container, front), inside)

    def held(self, address: Address, container: str) -> bool:
        """Whether another container than this one has an address."""
        holders = self._holders.get(address)
        return holders is not None and any(one != container for one in holders)

    def taken(self, place: Place, container: str) -> bool:
        """Whether another container than this one is at a place, or publishes it."""
        by = self.published.get(place)
        return (by is not None and by[0] != container) or self.held(place.address, container)

    def fronts(self, inside: Place) -> Iterable[Place]:
        """Places on this host that lead to one in a container now."""
        return self._fronts.get(inside, ())

    def inside(self, endpoint: Endpoint) -> Place | None:
        """Place in the container behind a published one of an endpoint of this host, now."""
        found = self.published.get(Place(*endpoint.place))
        if found is None or endpoint.container not in ("", found[0]):
            return None
        return found[1]

    def backend(self, place: Place, container: str) -> Place | None:
        """Where packets to a published place went while this container ran, or go."""
        return self._backends.get((container, place))

    def mac(self, address: Address, container: str) -> bytes:
        """Link-layer address that a container of this host had with an address on a bridge.

        Where it was never seen, that which Docker up to 27 derives from an IPv4 address; empty
        when nothing is known.
        """
        if not self.on_bridge(address):
            return b""
        known = self._macs.get((container, address), b"")
        if known or not isinstance(address, IPv4Address):
            return known
        return b"\x02\x42" + address.packed

    def on_bridge(self, address: Address) -> bool:
        """Whether an address is one of a bridge's own network."""
        version, number = address.version, int(address)
        return any(v == version and number >> s == n for v, s, n in self._networks)


def _network(address: Address, length: int) -> tuple[int, int, int]:
    shift = address.max_prefixlen - length
    return address.version, shift, int(address) >> shift


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
