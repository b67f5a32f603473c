"""A Catalog, a host's containers and the Book that follows both, for the tests of rescue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from discod.model.catalog import CatalogState
from discod.model.endpoint import Address, Endpoint, Host, Prefer, Reason, Withdrawal
from discod.model.rescue import Bridge, Place, Plan, Unit
from discod.model.rescue_settings import RescueSettings
from discod.model.schema import encode_endpoint, encode_host, encode_withdrawal
from discod.rescue.book import Book, Step
from tests.resolving import BETA, KEYS, OWN
from tests.resolving import endpoint as plain_endpoint

NOW = 1_764_000_000.0
ON = RescueSettings(enabled=True)
BRIDGE = Bridge("docker0", b"\x02\x42\0\0\0\1", ((ip_address("10.101.1.0"), 24),))
EMPTY: tuple[Place, ...] = ()


def endpoint(service: str, instance: str, address: str, port: int = 80, **more: Any) -> Endpoint:
    """One of a container that has the instance's name as its id."""
    more.setdefault("container", instance)
    return plain_endpoint(service, instance, address, port, **more)


def place(text: str, protocol: Any = "tcp") -> Place:
    address, _, port = text.rpartition(":")
    return Place(ip_address(address), int(port), protocol)


def unit(
    container: str, *addresses: str, mac: bytes = b"", published: dict[str, str] | None = None
) -> Unit:
    ports = {place(front): place(inside) for front, inside in (published or {}).items()}
    return Unit(container, container, 1, {ip_address(a): mac for a in addresses}, ports)


class World:
    """`book` is told of everything at once; each method returns the Step."""

    def __init__(
        self,
        *endpoints: Endpoint,
        settings: RescueSettings = ON,
        hosts: Iterable[Host] = (OWN, BETA),
        prefer: Prefer = "none",
        zone: str = "",
    ) -> None:
        self.now = NOW
        self.revision = 1
        self.state = CatalogState(KEYS, "alpha")
        items = [(KEYS.record(e.id), encode_endpoint(e), 1) for e in endpoints]
        items += [(KEYS.host(host.name), encode_host(host), 1) for host in hosts]
        self.state.reset(items, 1, self.now)
        self.book = Book(settings, "alpha", prefer, zone)
        self.book.reset(self.state.catalog, self.now)

    @property
    def plan(self) -> Plan:
        return self.book.plan

    def stale(self) -> set[Place]:
        return set(self.plan.stale)

    def apply(self, *events: tuple[str, bytes | None]) -> Step:
        self.revision += 1
        change = self.state.apply(
            [(*event, self.revision) for event in events], self.revision, self.now
        )
        return self.book.update(self.state.catalog, change, self.now)

    def up(self, *endpoints: Endpoint) -> Step:
        events: list[tuple[str, bytes | None]] = []
        for one in endpoints:
            events.append((KEYS.record(one.id), encode_endpoint(one)))
            events.append((KEYS.withdrawn(one.host, one.id), None))
        return self.apply(*events)

    def down(self, *endpoints: Endpoint, reason: Reason = Reason.CRASHED) -> Step:
        events: list[tuple[str, bytes | None]] = []
        for one in endpoints:
            said = Withdrawal(one, reason, "", self.now)
            events.append((KEYS.record(one.id), None))
            events.append((KEYS.withdrawn(one.host, one.id), encode_withdrawal(said)))
        return self.apply(*events)

    def vanish(self, *endpoints: Endpoint) -> Step:
        return self.apply(*((KEYS.record(one.id), None) for one in endpoints))

    def silence(self, host: str) -> Step:
        change = self.state.silence(host, "", self.now)
        return self.book.update(self.state.catalog, change, self.now)

    def unsilence(self, host: str) -> Step:
        change = self.state.unsilence(host, self.now)
        return self.book.update(self.state.catalog, change, self.now)

    def units(self, *units: Unit, bridges: tuple[Bridge, ...] = (BRIDGE,)) -> Step:
        return self.book.units({one.container: one for one in units}, bridges, self.now)

    def claimed(self, address: str) -> Step:
        return self.book.claimed(ip_address(address), self.now)

    def afresh(self) -> Book:
        """A Book that knows the present only."""
        book = Book(self.book._settings, "alpha", self.book._prefer, self.book._zone)
        book.reset(self.state.catalog, self.now)
        local = self.book._local
        if local.known:
            book.units(local.units, local.bridges, self.now)
        return book


def reached(plan: Plan, at: Place) -> set[str]:
    """Where connections to a stale place or a service address go."""
    pool = plan.stale[at].pool if at in plan.stale else plan.vips[at]
    return {f"{address}:{port}" for address, port in plan.pools[pool].slots}


def moved_to(one: Endpoint, address: str, port: int | None = None, **more: Any) -> Endpoint:
    to: Address = ip_address(address)
    return replace(one, address=to, port=one.port if port is None else port, **more)
