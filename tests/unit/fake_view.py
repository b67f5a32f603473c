"""A daemon that is none: what the API sees, with every fact set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import trio

from discod.model.catalog import Catalog, CatalogState, Change
from discod.model.endpoint import (
    Endpoint,
    Fault,
    Host,
    Producer,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.report import EndpointReport, PartReport, ProducerReport, SilentHost
from discod.model.schema import (
    Keyspace,
    encode_endpoint,
    encode_host,
    encode_refusal,
    encode_withdrawal,
)
from discod.model.settings import ServiceSettings
from discod.view import BgpView, RescueView, StoreReport

KEYS = Keyspace()
NOW = 1_795_000_000.0
ID = {name: (digit * 64) for name, digit in (("web-1", "a"), ("web-2", "b"), ("db-1", "c"))}


def endpoint(
    service: str = "web",
    host: str = "alpha",
    container: str = "web-1",
    address: str = "10.101.1.2",
    port: int = 80,
    tags: tuple[str, ...] = ("blue", "v2"),
    port_name: str = "http",
) -> Endpoint:
    """An endpoint of a container."""
    id_ = ID.get(container, "d" * 64)
    return Endpoint(
        service=service,
        instance=f"{host}-{id_[:12]}-{port}",
        address=ip_address(address),
        port=port,
        port_name=port_name,
        tags=tags,
        attributes=(("path", "/m"), ("team.name", "core")),
        host=host,
        container=id_,
        container_name=container,
        producer=Producer.DOCKER,
        since=NOW - 300,
    )


WEB1 = endpoint()
WEB2 = endpoint(host="beta", container="web-2", address="2001:db8:2::2", tags=())
WEB3 = endpoint(container="web-3", address="10.101.1.9")
DB1 = endpoint("db", "beta", "db-1", "10.101.2.7", 5432, (), "postgres")
CACHE = endpoint("cache", "gamma", "cache-1", "10.101.3.3", 6379, (), "redis")
FOREIGN = Endpoint("legacy", "x1", ip_address("192.0.2.9"), 0)


def sample() -> CatalogState:
    """web: two up and one withdrawn; db: withdrawn; cache: lost; a refusal, an invalid record."""
    state = CatalogState(KEYS)
    hosts = [
        Host("alpha", (ip_address("192.0.2.1"), ip_address("2001:db8::1")), "0.1.0", "m1", NOW - 9),
        Host("beta", (ip_address("192.0.2.2"),), "0.1.0", "m2", NOW - 99, drained=NOW - 60),
    ]
    crash = Withdrawal(WEB3, Reason.CRASHED, "exit status 137", NOW - 20)
    drained = Withdrawal(DB1, Reason.DRAINED, "host beta is drained", NOW - 60)
    refusal = Refusal(
        "beta", "e" * 64, "api-1", (Fault("discod.port", "http", "expected 1 to 65535"),), NOW - 5
    )
    items = [(KEYS.record(e.id), encode_endpoint(e), 5) for e in (WEB1, WEB2, CACHE, FOREIGN)]
    items += [(KEYS.host(h.name), encode_host(h), 6) for h in hosts]
    items += [
        (KEYS.withdrawn("alpha", WEB3.id), encode_withdrawal(crash), 7),
        (KEYS.withdrawn("beta", DB1.id), encode_withdrawal(drained), 8),
        (KEYS.refused("beta", "e" * 64), encode_refusal(refusal), 9),
        (KEYS.records + "queue/one", b"{nonsense", 10),
    ]
    state.reset(items, 10, NOW - 30)
    state.apply([(KEYS.record(CACHE.id), None, 11)], 11, NOW - 10)
    return state


def reports() -> tuple[ProducerReport, ...]:
    """What host alpha knows of its own."""
    return (
        ProducerReport(
            "docker",
            ID["web-1"],
            "web-1",
            "web:1",
            "running (healthy)",
            (EndpointReport(WEB1, True, None, "", NOW - 300, True, "http :80/health every 5s"),),
        ),
        ProducerReport(
            "docker",
            WEB3.container,
            "web-3",
            "web:1",
            "exited (137)",
            (EndpointReport(WEB3, False, Reason.CRASHED, "exit status 137", NOW - 20, True),),
        ),
        ProducerReport("docker", "1" * 64, "batch_1", "b:1", "running", silent="it has no port"),
        ProducerReport(
            "docker",
            "2" * 64,
            "shop-1",
            "s:1",
            "running",
            faults=(Fault("SERVICE_NAME", "Shop!", "expected a DNS label"),),
        ),
    )


@dataclass
class FakeAnnouncement:
    """Says what the test tells it to."""

    services: tuple[ServiceSettings, ...]
    statuses_out: trio.MemorySendChannel[str]
    statuses: trio.MemoryReceiveChannel[str]
    withdrawn: int = 0
    ended: trio.Event = field(default_factory=trio.Event)

    async def status(self) -> str:
        return await self.statuses.receive()

    async def withdraw(self) -> None:
        await trio.lowlevel.checkpoint()
        self.withdrawn += 1


@dataclass
class FakeView:
    """Everything is an attribute."""

    state: CatalogState = field(default_factory=sample)
    host: str = "alpha"
    store: StoreReport = field(default_factory=lambda: StoreReport("etcd", True, 0.2, ""))
    part_reports: tuple[PartReport, ...] = (PartReport("store", True, "", NOW - 100),)
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    announcements: list[FakeAnnouncement] = field(default_factory=list)
    watchers: list[trio.MemorySendChannel[Change]] = field(default_factory=list)
    refuse: str = ""
    change_delay: float = 0.0
    silent: dict[str, SilentHost] = field(default_factory=dict)
    bgp: BgpView | None = None
    rescue: RescueView | None = None

    @property
    def catalog(self) -> Catalog:
        return self.state.catalog

    def producers(self) -> tuple[ProducerReport, ...]:
        return reports()

    def parts(self) -> tuple[PartReport, ...]:
        return self.part_reports

    def answers(self, name: str) -> tuple[str, ...]:
        return (f"{name}. 0 IN A 192.0.2.1",) if name.startswith("web.") else ("NXDOMAIN",)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[trio.MemoryReceiveChannel[Change]]:
        send, receive = trio.open_memory_channel[Change](16)
        self.watchers.append(send)
        try:
            with send, receive:
                yield receive
        finally:
            self.watchers.remove(send)

    async def drain(self, container: str | None) -> str:
        return await self._change("drain", container)

    async def undrain(self, container: str | None) -> str:
        return await self._change("undrain", container)

    async def release_vip(self, service: str) -> str:
        await trio.sleep(self.change_delay)
        if service == "nobody":
            raise LookupError("expected a service that has an address of its own")
        if service in self.state.catalog.services:
            raise ValueError("expected a service without an endpoint that is up")
        self.calls.append(("release_vip", service))
        return f"{service} released"

    async def _change(self, what: str, container: str | None) -> str:
        await trio.sleep(self.change_delay)
        if container == "nobody":
            raise LookupError("no such container here")
        self.calls.append((what, container))
        return f"{what} done"

    @asynccontextmanager
    async def announce(
        self, services: tuple[ServiceSettings, ...]
    ) -> AsyncIterator[FakeAnnouncement]:
        if self.refuse:
            raise ValueError(self.refuse)
        send, receive = trio.open_memory_channel[str](16)
        one = FakeAnnouncement(services, send, receive)
        send.send_nowait("up")
        self.announcements.append(one)
        try:
            with send, receive:
                yield one
        finally:
            one.ended.set()
