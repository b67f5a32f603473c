"""When things are done: what is used again first, the tables next, connections after them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
import trio
import trio.testing

from discod.keeper import Keeper
from discod.kernel.commands import CommandFailed
from discod.metrics import Metrics
from discod.model.endpoint import Address, Endpoint, Host, HostBgp, Producer, Reason, Withdrawal
from discod.model.keyspace import Keyspace
from discod.model.rescue import Bridge, Place, Plan, Result, Unit, Usage
from discod.model.rescue_settings import RescueSettings
from discod.model.schema import encode_endpoint, encode_host
from discod.model.settings import BrakeSettings
from discod.rescue.book import Book
from discod.rescue.flows import Flow
from discod.rescue.late import LATE
from discod.rescue.service import LOOK_PERIOD, Kernel, RescueService
from discod.store.base import Delta, KeyValue, Snapshot

KEYS = Keyspace()
NOW = 1_000_000.0
HERE, THERE = "alpha", "beta"
BRIDGE = Bridge("docker0", b"\x02\x42\0\0\0\1", ((ip_address("10.1.0.0"), 24),))
CLIENT = ip_address("10.1.0.9")


def endpoint(n: int, host: str = THERE, service: str = "web") -> Endpoint:
    return Endpoint(
        service, f"{host}-{service}{n}-80", ip_address(f"10.{1 if host == HERE else 2}.0.{n}"), 80,
        port_name="http", host=host, container=f"{n:064x}",
    )  # fmt: skip


@dataclass
class Fakes:
    """The kernel, in the order in which it is told things."""

    told: list[Any] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    fail: Exception | None = None
    lost: bool = False
    count_fault: Exception | None = None
    counts: tuple[Usage, ...] = ()
    wanted: Mapping[Address, bytes] = field(default_factory=dict)
    claimed: Callable[[Address], None] = lambda address: None
    flows: tuple[Flow, ...] = ()
    ended_late: list[tuple[float, frozenset[Place]]] = field(default_factory=list)

    async def apply(self, plan: Plan) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append("apply")
        if self.fail is not None:
            raise self.fail
        self.plans.append(plan)
        self.lost = False

    def revoke(self, places: Iterable[Place]) -> None:
        self.told.append(("revoke", tuple(places)))

    async def intact(self) -> bool:
        await trio.lowlevel.checkpoint()
        return not self.lost

    async def usage(self) -> tuple[Usage, ...]:
        await trio.lowlevel.checkpoint()
        if self.count_fault is not None:
            raise self.count_fault
        return self.counts

    async def busy(self) -> frozenset[Place]:
        await trio.lowlevel.checkpoint()
        return frozenset()

    def want(self, addresses: Mapping[Address, bytes], bridges: Sequence[Bridge]) -> None:
        del bridges
        self.wanted = dict(addresses)

    async def run(self) -> None:
        await trio.sleep_forever()

    def neighbours(self, claimed: Callable[[Address], None]) -> Fakes:
        self.claimed = claimed
        return self

    async def bridges(self) -> tuple[Bridge, ...]:
        await trio.lowlevel.checkpoint()
        return (BRIDGE,)

    async def cut(self, places: Collection[Place], pids: Iterable[int]) -> Sequence[Flow]:
        await trio.lowlevel.checkpoint()
        self.told.append(("cut", tuple(places), tuple(pids)))
        return self.flows

    async def late(self, places: Collection[Place]) -> None:
        await trio.lowlevel.checkpoint()
        self.ended_late.append((trio.current_time(), frozenset(places)))

    async def forget(self, places: Collection[Place]) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(("forget", tuple(places)))


class World:
    """A service, a keeper with a Catalog, and the fakes."""

    def __init__(self, *endpoints: Endpoint, settings: RescueSettings | None = None) -> None:
        self.fakes = Fakes()
        self.metrics = Metrics()
        self.units: dict[str, Unit] = {}
        self.keeper = Keeper(
            KEYS, wall=lambda: self.now, monotonic=trio.current_time, metrics=self.metrics,
            host=HERE, brake=BrakeSettings(enabled=False),
        )  # fmt: skip
        self.revision = 1
        fakes = self.fakes
        kernel = Kernel(fakes, fakes.neighbours, fakes.bridges, fakes.cut, fakes.late, fakes.forget)
        self.service = RescueService(
            settings or RescueSettings(enabled=True),
            Host(HERE, (ip_address("192.0.2.1"),)),
            "none",
            kernel,
            self.metrics,
            units=lambda: self.units,
            rng=random.Random(1),
            wall=lambda: self.now,
        )
        self.keeper.listen(self.service.update)
        own = KeyValue(KEYS.host(HERE), encode_host(Host(HERE, (ip_address("192.0.2.1"),))), 1)
        items = [KeyValue(KEYS.record(e.id), encode_endpoint(e), 1) for e in endpoints]
        self.keeper.snapshot(Snapshot(1, (own, *items)))

    @property
    def now(self) -> float:
        return NOW + trio.current_time()

    def apply(self, *events: tuple[str, bytes]) -> None:
        self.revision += 1
        told = tuple(KeyValue(key, value, self.revision) for key, value in events)
        self.keeper.delta(Delta(self.revision, told))

    def die(self, one: Endpoint, reason: Reason = Reason.CRASHED) -> None:
        self.keeper.suppress([Withdrawal(one, reason, "", self.now)])

    def up(self, one: Endpoint) -> None:
        self.apply((KEYS.record(one.id), encode_endpoint(one)))

    async def done(self) -> list[Any]:
        """What the kernel was told since the last time, once that is all."""
        await trio.testing.wait_all_tasks_blocked()
        told, self.fakes.told = self.fakes.told, []
        return told

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.service.run)
        await trio.testing.wait_all_tasks_blocked()
        world.service.begin(world.keeper.catalog)
        await world.done()
        yield world
        nursery.cancel_scope.cancel()


def place(one: Endpoint) -> Place:
    return Place(*one.place)


A, B = endpoint(2, HERE), endpoint(3)


async def test_tables_first_then_connections(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.units = {"f" * 64: Unit("f" * 64, "client", 77, {CLIENT: b""})}
        world.fakes.flows = (Flow(CLIENT, 40000, A.address, 80, "tcp"),)
        world.die(A)
        assert await world.done() == ["apply", ("cut", (place(A),), (77,))]
        (plan,) = world.fakes.plans[-1:]
        assert set(plan.stale) == {place(A)}
        assert set(plan.pools[plan.stale[place(A)].pool].slots) == {(B.address, 80)}
        assert world.fakes.wanted == {A.address: b"\x02\x42" + A.address.packed}
        assert world.metric("discod_rescue_sockets_cut_total", service="web") == 1
        assert world.metric("discod_rescue_entries") == 1


async def test_what_the_last_datagrams_began_is_ended_a_little_later(
    autojump_clock: object,
) -> None:
    served = replace(A, protocol="udp")
    async with running(World(served, B)) as world:
        world.die(served)
        await world.done()
        begun = trio.current_time()
        await trio.sleep(2 * LATE[-1])
        told = world.fakes.ended_late
        assert [places for _, places in told] == [{place(served)}] * len(LATE)
        assert [at - begun for at, _ in told] == pytest.approx(LATE, abs=LATE[0])
    async with running(World(A, B)) as world:
        world.die(A)
        await world.done()
        await trio.sleep(2 * LATE[-1])
        assert not world.fakes.ended_late  # of TCP nobody begins anything by answering


async def test_what_is_used_again_is_gone_before_anybody_hears(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.die(A)
        await world.done()
        heard: list[list[Any]] = []
        world.keeper.listen(lambda catalog, change: heard.append(list(world.fakes.told)))
        world.keeper.unsuppress([A])
        assert heard[0] == [("revoke", (place(A),))], "before listeners that come later"
        assert await world.done() == [("revoke", (place(A),)), "apply", ("forget", (place(A),))]
        assert not world.fakes.plans[-1].stale


async def test_a_container_here_takes_the_address(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.die(A)
        await world.done()
        world.units = {"e" * 64: Unit("e" * 64, "new", 78, {A.address: b""})}
        world.service.refresh()
        assert world.fakes.told == [("revoke", (place(A),))]
        await world.done()
        assert not world.fakes.plans[-1].stale


async def test_a_neighbour_that_answers(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.die(A)
        await world.done()
        world.fakes.claimed(A.address)
        assert world.fakes.told == [("revoke", (place(A),))]


async def test_a_kernel_that_fails_is_tried_again(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(World(A, B)) as world:
        world.fakes.fail = CommandFailed("nft: status 1: no")
        world.die(A)
        await world.done()
        assert world.metric("discod_rescue_fault") == 1
        assert world.service.status()["fault"] == "apply: nft: status 1: no"
        await trio.sleep(120)
        tries = world.fakes.told.count("apply")
        assert 3 < tries < 40, "with growing pauses"
        assert sum("does not follow" in r.message for r in caplog.records) == 1, "and said once"
        world.fakes.fail = None
        await trio.sleep(60)
        assert world.metric("discod_rescue_fault") == 0 and not world.service.status()["fault"]
        assert set(world.fakes.plans[-1].stale) == {place(A)}


async def test_each_fault_ends_with_its_own_cause(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.fakes.count_fault = CommandFailed("nft: list: no")
        await trio.sleep(2 * LOOK_PERIOD)
        world.die(A)
        await world.done()
        assert world.service.status()["fault"] == "usage: nft: list: no", "whatever else works"
        world.fakes.count_fault = None
        await trio.sleep(2 * LOOK_PERIOD)
        assert world.service.status()["fault"] == "" and world.metric("discod_rescue_fault") == 0


async def test_a_fault_of_ours_stops_nobody(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(World(A, B)) as world:
        with monkeypatch.context() as patch:
            patch.setattr(Book, "_die", lambda *_: 1 / 0)
            world.die(A)  # is not raised to the keeper, nor to the listeners after it
        assert "taken anew" in caplog.text
        await world.done()
        assert set(world.fakes.plans[-1].stale) == {place(A)}, "the Catalog tells it all"
        assert world.service.status()["fault"] == ""


async def test_a_fault_that_stays(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(World(A, B)) as world:
        with monkeypatch.context() as patch:
            patch.setattr(Book, "update", lambda *_: 1 / 0)
            world.die(A)
            assert world.service.status()["fault"] == "plan: division by zero"
            assert world.metric("discod_rescue_fault") == 1
        world.die(B)
        assert world.service.status()["fault"] == ""
        assert set(world.service._book.plan.stale) == {place(A), place(B)}


async def test_tables_that_somebody_took_away(autojump_clock: object) -> None:
    async with running(World(A, B)) as world:
        world.fakes.lost = True
        await trio.sleep(8 * LOOK_PERIOD)
        assert not world.fakes.lost, "put back"


async def test_who_still_uses_it(autojump_clock: object) -> None:
    hold = RescueSettings(enabled=True, hold=60)
    async with running(World(A, B, settings=hold)) as world:
        world.die(A)
        for n in range(1, 5):
            world.fakes.counts = (Usage(CLIENT, place(A), Result.RESCUED, n),)
            await trio.sleep(30)
        assert set(world.fakes.plans[-1].stale) == {place(A)}, "renewed while it is used"
        assert world.metric("discod_rescue_flows_total", service="web", result="rescued") == 4
        assert world.metric("discod_rescue_clients", service="web") == 1
        await trio.sleep(60 + 3 * LOOK_PERIOD)
        assert not world.fakes.plans[-1].stale, "and then no longer"
        assert world.metric("discod_rescue_clients", service="web") == 0


async def test_too_many(autojump_clock: object) -> None:
    few = RescueSettings(enabled=True, max_entries=2)
    dead = [endpoint(n, HERE) for n in range(10, 14)]
    async with running(World(B, *dead, settings=few)) as world:
        for one in dead:
            world.die(one)
        await trio.sleep(3 * LOOK_PERIOD)
        assert len(world.fakes.plans[-1].stale) == 2
        assert world.metric("discod_rescue_dropped_total") == 2


async def test_before_the_containers_are_known_nothing_is_done(autojump_clock: object) -> None:
    world = World(A, B)
    world.die(A)
    assert not world.fakes.told
    assert world.service.word(A) == ""


async def test_takeover_is_told(autojump_clock: object) -> None:
    settings = RescueSettings(enabled=True, takeover=True)
    far = replace(B, producer=Producer.DOCKER)
    router_id, networks = IPv4Address("192.0.2.1"), (ip_network("10.0.0.0/8"),)
    bgp = HostBgp(64512, router_id, router_id, networks=networks)
    async with running(World(A, far, settings=settings)) as world:
        taken: list[frozenset[Address]] = []
        world.service.took_over = taken.append
        for n, name in enumerate((HERE, THERE), 1):
            host = Host(name, (ip_address(f"192.0.2.{n}"),), bgp=bgp)
            world.apply((KEYS.host(name), encode_host(host)))
        world.keeper.silence(THERE, "no answer")
        assert taken[-1] == {far.address}
        world.keeper.unsilence(THERE)
        assert taken[-1] == frozenset()
