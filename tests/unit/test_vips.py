"""`discod.vips`: what is asked for is given out once, stays, and is told where it cannot be."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
import trio
from trio.testing import MockClock

from announcer.announcer import Announcer
from announcer.offer import Scope
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.endpoint import Address, Endpoint, EndpointId, Host
from discod.model.report import EndpointReport, ProducerReport
from discod.model.rescue_settings import VipSettings
from discod.model.schema import Keyspace, decode_record, encode_endpoint, encode_host
from discod.model.settings import AnnounceSettings, CheckSettings, ServiceSettings, StoreSettings
from discod.model.vip import VipRecord, VipWish
from discod.model.vip_records import encode_vip, encode_vip_owner
from discod.store.base import (
    Commit,
    Delete,
    Delta,
    KeyValue,
    Op,
    Put,
    Snapshot,
    Store,
    StoreError,
    StoreUnavailable,
    Unchanged,
)
from discod.store.follow import follow
from discod.store.memory import MemoryStore
from discod.vips import LOOK_AGAIN, RELEASE_TRIES, Vips
from tests.vips import WALL, VipHost, check_store, families, wish

KEYS = Keyspace()
POOL = ("10.96.0.0/24",)
BOTH = (*POOL, "fd00:96::/112")
A, B = ip_address("10.96.0.5"), ip_address("10.96.0.6")


class Counting(MemoryStore):
    """A store that counts, and that fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.failing = 0
        self.meanwhile: list[Op] = []
        """What somebody else does between a reading and what is written after it, once."""

    async def snapshot(self, prefixes: Sequence[str]) -> Snapshot:
        if list(prefixes) == [KEYS.vips]:
            self.reads += 1
        found = await super().snapshot(prefixes)
        if self.meanwhile and list(prefixes) == [KEYS.vips]:
            ops, self.meanwhile = self.meanwhile, []
            await super().commit(ops)
        return found

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable("no leader")
        return await super().commit(ops, guards)


def given(service: str, *addresses: Address) -> list[Op]:
    """What is written when a service gets addresses."""
    record = VipRecord(service, addresses, since=WALL)
    owners = [Put(KEYS.vip_owner(a), encode_vip_owner(service)) for a in addresses]
    return [Put(KEYS.vip(service), encode_vip(record)), *owners]


@asynccontextmanager
async def running(
    store: Store, *wishes: VipWish, pool: Sequence[str] = POOL
) -> AsyncIterator[VipHost]:
    host = VipHost(store, KEYS, pool, wishes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        yield host
        nursery.cancel_scope.cancel()


# Giving out -----------------------------------------------------------------------------------


async def test_an_address_is_given_out_once_and_stays(autojump_clock: MockClock) -> None:
    store = Counting()
    async with running(store, wish("web"), pool=BOTH) as host:
        held = await host.has(1)
        assert families(held["web"]) == [4, 6]
        assert host.learned[-1] == (dict(held), True)
        host.ask(wish("web"), wish("api"))
        more = await host.has(2)
        assert more["web"] == held["web"]
        reads = store.reads
        host.ask()
        await trio.sleep(3600)
        assert host.keeper.catalog.vips == more, "nobody asks, and they stay"
        assert store.reads == reads
    async with running(store, wish("web"), pool=BOTH) as again:
        await trio.sleep(1)
        assert again.keeper.catalog.vips == more
        assert store.reads == reads, "what is there need not be read"
    assert await check_store(store, KEYS) == more


async def test_a_family_that_the_pool_gets_is_added(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store, wish("web")) as host:
        (v4,) = (await host.has(1))["web"]
    async with running(store, wish("web"), pool=BOTH) as host:
        await trio.sleep(1)
        assert host.keeper.catalog.vips["web"][0] == v4
        assert families(host.keeper.catalog.vips["web"]) == [4, 6]
    await check_store(store, KEYS)


async def test_fixed_addresses_come_first(autojump_clock: MockClock) -> None:
    """Of one host: what another service is to have is not chosen for one that takes any."""
    store = MemoryStore()
    only = ("10.96.0.5/32", "10.96.0.6/32")
    async with running(store, wish("auto"), wish("web", (A,)), pool=only) as host:
        assert await host.has(2) == {"web": (A,), "auto": (B,)}
        assert not host.vips.faults


async def test_what_cannot_be_had_is_told_once_and_looked_at_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Counting()
    await store.commit(given("api", A))
    caplog.set_level(logging.ERROR, "discod.vips")
    outside = ip_address("10.97.0.1")
    async with running(store, wish("web", (A,)), wish("far", (outside,))) as host:
        assert await host.refused(2) == {
            "web": f"expected another address: service api has {A}",
            "far": f"expected an address inside vip.pool ({POOL[0]}), not {outside}",
        }
        assert len(caplog.records) == 2
        reads = store.reads
        for _ in range(100):
            host.vips.refresh()
            await trio.sleep(0.01)
        assert store.reads == reads, "the same wishes and the same store: nothing to read"
        await trio.sleep(LOOK_AGAIN + 1)
        assert store.reads == reads + 1
        assert len(caplog.records) == 2
        await store.commit([Delete(KEYS.vip("api")), Delete(KEYS.vip_owner(A))])
        assert await host.refused(1, 1.0) == {"far": host.vips.faults[host.wishes[1]].expected}
        await trio.sleep(0.1)
        assert host.keeper.catalog.vips == {"web": (A,)}
        host.ask()
        assert await host.refused(0, 1.0) == {}


async def test_a_service_keeps_what_it_has_whatever_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    await store.commit(given("web", A))
    async with running(store, wish("web", (B,)), wish("web")) as host:
        said = await host.refused(1)
        assert "expected 10.96.0.5, which service web has until it is released" in said["web"]
        assert host.keeper.catalog.vips == {"web": (A,)}


async def test_addresses_of_hosts_are_not_given_out(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store, wish("web")) as host:
        (first,) = (await host.has(1))["web"]
    store = MemoryStore()
    await store.commit([Put(KEYS.host("h1"), encode_host(Host("h1", (first,))))])
    async with running(store, wish("web")) as host:
        assert (await host.has(1))["web"] != (first,)


async def test_without_a_pool_here_others_may_have_given_out(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with running(store, wish("web"), pool=()) as host:
        assert "vip.pool of this host is empty" in (await host.refused(1))["web"]
        await store.commit(given("web", A))
        assert await host.refused(0) == {}
        assert host.learned[-1] == ({"web": (A,)}, True)


async def test_trouble_with_the_store_is_waited_out(autojump_clock: MockClock) -> None:
    store = Counting()
    store.failing = 7
    async with running(store, wish("web")) as host:
        await host.has(1)
    assert store.failing == 0


async def test_somebody_else_was_quicker(autojump_clock: MockClock) -> None:
    store = Counting()
    store.meanwhile = given("web", B)
    async with running(store, wish("web")) as host:
        assert await host.has(1) == {"web": (B,)}
        await trio.sleep(1)
    assert await check_store(store, KEYS) == {"web": (B,)}
    store = Counting()
    store.meanwhile = given("api", A)
    async with running(store, wish("web"), pool=("10.96.0.5/32", "10.96.0.6/32")) as host:
        await host.has(2)
    assert await check_store(store, KEYS) == {"api": (A,), "web": (B,)}


async def test_what_the_store_lost_is_written_again_as_it_was(autojump_clock: MockClock) -> None:
    """Though its hash would lead elsewhere; and producers are not told otherwise meanwhile."""
    store = MemoryStore()
    async with running(store, wish("web", (A,))) as host:
        await host.has(1)
        host.ask(wish("web"))
        told = len(host.learned)
        await store.commit([Delete(KEYS.vip("web")), Delete(KEYS.vip_owner(A))])
        await trio.sleep(1)
        assert host.keeper.catalog.vips == {"web": (A,)}
        assert host.vips.held == {"web": (A,)}
        assert len(host.learned) == told
    await check_store(store, KEYS)


async def test_what_was_lost_and_given_to_another_is_not_held_on_to(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with running(store, wish("web", (A,))) as host:
        await host.has(1)
        gone: list[Op] = [Delete(KEYS.vip("web")), *given("api", A)]
        await store.commit(gone)
        assert "service api has" in (await host.refused(1))["web"]
        assert host.vips.held == {"api": (A,)}
        assert host.learned[-1] == ({"api": (A,)}, True)


async def test_keys_that_cannot_be_read_do_not_stop_it(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    await store.commit(
        [
            Put(KEYS.vip("web"), b"junk"),
            Put(KEYS.vip_owner(A), b"junk"),
            Put(f"{KEYS.vips}address/junk", b"junk"),
            Put(f"{KEYS.vips}later/thing", b"junk"),
        ]
    )
    async with running(store, wish("web"), pool=("10.96.0.5/32", "10.96.0.6/32")) as host:
        assert await host.has(1) == {"web": (B,)}
        assert set(host.keeper.catalog.invalid) == {
            KEYS.vip_owner(A),
            f"{KEYS.vips}address/junk",
        }


async def test_others_addresses_are_learned_without_reading_anew(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with running(store) as host:
        await store.commit(given("api", A))
        await host.has(1)
        assert host.learned == [({"api": (A,)}, False)]


# Taking back ----------------------------------------------------------------------------------


async def test_release(autojump_clock: MockClock) -> None:
    store = Counting()
    e = Endpoint("web", "x", ip_address("192.0.2.1"), 80, host="h1")
    async with running(store, wish("web"), pool=BOTH) as host:
        with pytest.raises(ValueError, match="none is known yet"):
            await host.vips.release("web")
        held = await host.has(1)
        with pytest.raises(ValueError, match="on this host who asks for it: discod"):
            await host.vips.release("web")
        host.ask()
        await store.commit([Put(KEYS.record(e.id), encode_endpoint(e))])
        await trio.sleep(0.1)
        with pytest.raises(ValueError, match="web has 1"):
            await host.vips.release("web")
        await store.commit([Delete(KEYS.record(e.id))])
        await trio.sleep(0.1)
        with pytest.raises(LookupError, match="'api' has no address"):
            await host.vips.release("api")
        store.meanwhile = given("web", *held["web"])  # another revision: guarded, and tried again
        said = await host.vips.release("web")
        assert all(str(address) in said for address in held["web"])
        await host.has(0)
        assert (await store.snapshot([KEYS.vips])).items == ()
        with pytest.raises(LookupError):
            await host.vips.release("web")


async def test_a_release_that_the_store_refuses(autojump_clock: MockClock) -> None:
    store = Counting()
    await store.commit(given("web", A))
    async with running(store) as host:
        await host.has(1)
        store.failing = 1
        with pytest.raises(ValueError, match="no leader"):
            await host.vips.release("web")

        async def again_and_again(prefixes: Sequence[str]) -> Snapshot:
            found = await Counting.snapshot(store, prefixes)
            await store.commit(given("web", A))
            return found

        store.snapshot = again_and_again  # type: ignore[method-assign]
        reads = store.reads
        with pytest.raises(ValueError, match="changed by others"):
            await host.vips.release("web")
        assert store.reads == reads + RELEASE_TRIES


def test_reports_say_what_is_refused() -> None:
    async def main() -> None:
        async with running(MemoryStore(), wish("web"), pool=()) as host:
            await host.refused(1)
            (fault,) = host.vips.faults.values()
            told = host.vips.told([report("web"), report("api")])
            assert [one.warnings for one in told] == [(fault,), ()]
            assert (fault.subject, fault.value) == ("discod.vip", "auto")

    trio.run(main, clock=MockClock(autojump_threshold=0))


def report(service: str) -> ProducerReport:
    one = Endpoint(service, "x", ip_address("192.0.2.1"), 80)
    ends = (EndpointReport(one, True, None, "", 0.0, True),)
    return ProducerReport("static", service, service, "", "configured", ends)


# With the announcer ---------------------------------------------------------------------------


class Rig:
    """A host without Docker, with all that has to do with services' own addresses."""

    def __init__(self, store: Store) -> None:
        metrics = Metrics()
        self.records: list[Endpoint] = []
        """All that was ever written of it."""
        self.keeper = Keeper(KEYS, wall=lambda: WALL, monotonic=trio.current_time, metrics=metrics)
        scope = Scope(
            "h1", (ip_address("192.0.2.1"),), AnnounceSettings(docker=""), CheckSettings()
        )
        self.announcer = Announcer(
            store,
            StoreSettings(),
            KEYS,
            scope,
            self.keeper,
            metrics,
            lease_file=None,
            rng=random.Random(1),
            wall=lambda: WALL,
        )
        pool = VipSettings((ip_network(POOL[0]),))
        self.vips = Vips(pool, store, KEYS, self.announcer, rng=random.Random(2), wall=lambda: WALL)
        self.keeper.listen(self.vips.update)
        self.announcer.roster.units_changed = self.vips.refresh

    def snapshot(self, snapshot: Snapshot) -> None:
        self.keeper.snapshot(snapshot)
        self.announcer.publisher.snapshot(snapshot)

    def delta(self, delta: Delta) -> None:
        for event in delta.events:
            if isinstance(event, KeyValue) and event.key.startswith(KEYS.records):
                service, _, instance = event.key[len(KEYS.records) :].partition("/")
                found = decode_record(event.key, EndpointId(service, instance), event.value)
                assert isinstance(found, Endpoint)
                self.records.append(found)
        self.keeper.delta(delta)
        self.announcer.publisher.delta(delta)

    def contact(self, revision: int) -> None:
        pass

    def disconnected(self, error: StoreError) -> None:
        raise AssertionError(error)

    def up(self, service: str) -> Endpoint:
        (one,) = self.keeper.catalog.services[service].values()
        return one


@asynccontextmanager
async def announcing(store: Store, *services: ServiceSettings) -> AsyncIterator[Rig]:
    rig = Rig(store)
    rig.announcer.set_static(services)
    async with trio.open_nursery() as nursery:

        async def following() -> None:
            await follow(store, KEYS.prefixes, rig, rng=random.Random(3))

        nursery.start_soon(following)
        nursery.start_soon(rig.announcer.run)
        nursery.start_soon(rig.vips.run)
        await trio.sleep(1)
        yield rig
        nursery.cancel_scope.cancel()


WEB = ServiceSettings("web", 80, vip="auto", rescue=False, affinity=True)


async def test_endpoints_get_the_address_of_their_service(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with announcing(store, WEB, ServiceSettings("api", 81)) as rig:
        web, api = rig.up("web"), rig.up("api")
        assert web.vip == rig.keeper.catalog.vips["web"]
        assert families(web.vip) == [4]
        assert (web.rescue, web.affinity) == (False, True)
        assert (api.vip, api.rescue, api.affinity) == ((), True, False)
        async with rig.announcer.announce([ServiceSettings("cmd", 82, vip="auto")]) as announced:
            await trio.sleep(1)
            assert rig.up("cmd").vip == rig.keeper.catalog.vips["cmd"]
            await announced.withdraw()
            await store.commit(given("other", B))
            rig.announcer.learn_vips({**rig.vips.held, "web": (B,)}, ours=True)
            await trio.sleep(1)
            assert "cmd" not in rig.keeper.catalog.services, "a withdrawn command stays away"
        assert rig.up("web").vip == (B,)


async def test_one_that_cannot_have_it_stays_in_dns(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    await store.commit(given("api", A))
    async with announcing(store, ServiceSettings("web", 80, vip=(A,))) as rig:
        assert rig.up("web").vip == ()
        (told,) = rig.vips.told(rig.announcer.reports())
        assert [str(fault) for fault in told.warnings] == [
            f"vip = '{A}': expected another address: service api has {A}"
        ]


async def test_a_restart_never_writes_an_endpoint_without_it(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with announcing(store, WEB) as rig:
        before = rig.up("web")
        assert before.vip
    async with announcing(store, WEB) as rig:
        await trio.sleep(60)
        assert rig.up("web").vip == before.vip
        assert all(one.vip == before.vip for one in rig.records)
