"""Aliases of the configuration, from the announcer to the Catalog, on the memory store."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from announcer.aliases import aliases_of
from announcer.announcer import Announcer
from announcer.offer import Scope
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.endpoint import Producer
from discod.model.names import is_label
from discod.model.schema import Keyspace
from discod.model.settings import AnnounceSettings, CheckSettings, ServiceSettings, StoreSettings
from discod.store.base import Delete, Delta, Snapshot, Store, StoreError
from discod.store.follow import follow
from discod.store.memory import open_memory_store

KEYS = Keyspace()
NAMES = (("db", "postgres"), ("search", "www.example.com"))
WALL = 1_764_000_000.0


@pytest.mark.parametrize("host", ["h1", "h" * 63])
def test_what_a_host_announces(host: str) -> None:
    found = aliases_of(NAMES, host=host, domain="discod.internal", since=lambda _: 5.0)
    assert [(a.service, a.target, a.host, a.since, a.ttl) for a in found] == [
        ("db", "postgres.discod.internal", host, 5.0, 0),
        ("search", "www.example.com", host, 5.0, 0),
    ]
    assert is_label(found[0].instance)
    again = aliases_of(NAMES, host=host, domain="discod.internal", since=lambda _: 5.0)
    assert again == found


def test_two_hosts_never_share_a_record() -> None:
    one, other = (
        aliases_of(NAMES, host=host, domain="a.b", since=lambda _: 0.0)
        for host in ("h" * 62 + "1", "h" * 62 + "2")
    )
    assert not {alias.id for alias in one} & {alias.id for alias in other}


class Rig:
    """A host without Docker: announcer and keeper on one store."""

    def __init__(self, store: Store, announce: AnnounceSettings) -> None:
        metrics = Metrics()
        self.keeper = Keeper(KEYS, wall=lambda: WALL, monotonic=trio.current_time, metrics=metrics)
        self.scope = Scope("h1", (ip_address("192.0.2.1"),), announce, CheckSettings())
        self.announcer = Announcer(
            store,
            StoreSettings(),
            KEYS,
            self.scope,
            self.keeper,
            metrics,
            lease_file=None,
            rng=random.Random(1),
            wall=lambda: WALL + trio.current_time(),
        )

    def snapshot(self, snapshot: Snapshot) -> None:
        self.keeper.snapshot(snapshot)
        self.announcer.publisher.snapshot(snapshot)

    def delta(self, delta: Delta) -> None:
        self.keeper.delta(delta)
        self.announcer.publisher.delta(delta)

    def contact(self, revision: int) -> None:
        pass

    def disconnected(self, error: StoreError) -> None:
        raise AssertionError(error)

    @property
    def aliases(self) -> dict[str, str]:
        """What the Catalog has: service -> target."""
        return {
            alias.service: alias.target
            for instances in self.keeper.catalog.aliases.values()
            for alias in instances.values()
        }


@asynccontextmanager
async def running(store: Store, *names: tuple[str, str]) -> AsyncIterator[Rig]:
    rig = Rig(store, AnnounceSettings(docker="", aliases=names))
    async with trio.open_nursery() as nursery:

        async def following() -> None:
            await follow(store, KEYS.prefixes, rig, rng=random.Random(2))

        nursery.start_soon(following)
        nursery.start_soon(rig.announcer.run)
        await trio.sleep(1)
        yield rig
        nursery.cancel_scope.cancel()


async def test_aliases_follow_the_configuration(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_store() as store, running(store, *NAMES) as rig:
        assert rig.aliases == {"db": "postgres.discod.internal", "search": "www.example.com"}
        first = rig.keeper.catalog.alias("search")
        assert first is not None
        assert (first.host, first.since) == ("h1", WALL)
        await trio.sleep(60)
        assert rig.keeper.catalog.alias("search") is first, "nothing is written again"
        scope = replace(
            rig.scope, announce=replace(rig.scope.announce, aliases=(("search", "s.example"),))
        )
        rig.announcer.rescope(scope, ())
        await trio.sleep(1)
        assert rig.aliases == {"search": "s.example"}
        assert not rig.keeper.catalog.withdrawn
        assert not rig.keeper.catalog.lost


async def test_a_deleted_alias_is_restored(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_store() as store, running(store, *NAMES) as rig:
        alias = rig.keeper.catalog.alias("search")
        assert alias is not None
        await store.commit([Delete(KEYS.record(alias.id))])
        await trio.sleep(1)
        assert rig.keeper.catalog.alias("search") == alias


async def test_aliases_live_over_a_restart_and_die_with_their_host(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store:
        async with running(store, *NAMES):
            pass
        async with running(store, NAMES[0]) as rig:
            assert rig.aliases == {"db": "postgres.discod.internal"}
        await trio.sleep(60)
        snapshot = await store.snapshot(KEYS.prefixes)
        assert [item.key for item in snapshot.items if item.key.startswith(KEYS.records)] == []


async def test_a_drained_host_keeps_its_aliases(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_store() as store, running(store, *NAMES) as rig:
        rig.announcer.set_drained("by hand", {})
        await trio.sleep(1)
        assert set(rig.aliases) == {"db", "search"}


async def test_static_services_carry_what_their_answers_shall_be_like(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = ServiceSettings("web", 443, ttl=30, alpn=("h2",), prefer="local")
    async with open_memory_store() as store, running(store) as rig:
        rig.announcer.set_static([service])
        await trio.sleep(1)
        (one,) = rig.keeper.catalog.endpoints()
        assert (one.ttl, one.alpn, one.prefer) == (30, ("h2",), "local")
        rig.announcer.set_static([replace(service, ttl=0)])
        await trio.sleep(1)
        (one,) = rig.keeper.catalog.endpoints()
        assert (one.ttl, one.producer) == (0, Producer.STATIC)
