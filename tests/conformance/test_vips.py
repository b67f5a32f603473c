"""Many hosts give out services' own addresses at once, on both stores: nobody gets another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from discod.model.schema import Keyspace
from discod.model.settings import StoreSettings
from discod.store.base import Store
from discod.store.opening import open_store
from tests.vips import VipHost, check_store, families, wish

HOSTS = 6
SERVICES = 40
WITHIN = 20.0
"""Seconds, for what takes a second or two at most."""


@pytest.fixture
def keys(prefix: str) -> Keyspace:
    """A domain of this test's own: the keys of addresses lie beside the records' prefix."""
    return Keyspace(f"vips{prefix.strip('/').replace('/', '-')}.internal", f"{prefix}dns")


@asynccontextmanager
async def hosts(
    store: Store, settings: StoreSettings, keys: Keyspace, pool: tuple[str, ...], count: int = HOSTS
) -> AsyncIterator[list[VipHost]]:
    """Running hosts; on etcd each with connections of its own."""
    async with AsyncExitStack() as stack:
        found = []
        for n in range(count):
            own = store
            if settings.endpoints:
                own = await stack.enter_async_context(open_store(settings))
            found.append(VipHost(own, keys, pool, seed=n))
        async with trio.open_nursery() as nursery:
            for host in found:
                nursery.start_soon(host.run)
            yield found
            nursery.cancel_scope.cancel()


async def test_all_ask_for_the_same_services_at_once(
    store: Store, settings: StoreSettings, keys: Keyspace
) -> None:
    pool = ("10.96.0.0/24", "fd00:96::/112")
    async with hosts(store, settings, keys, pool) as all_:
        for host in all_:
            host.ask(*(wish(f"s{n}") for n in range(SERVICES)))
        seen = [await host.has(SERVICES, WITHIN) for host in all_]
        for held in seen:
            assert held == seen[0]
        assert all(families(one) == [4, 6] for one in seen[0].values())
        assert await check_store(store, keys) == seen[0]
        for host in all_:
            assert await host.refused(0) == {}


async def test_all_ask_for_different_services_of_a_pool_that_is_just_enough(
    store: Store, settings: StoreSettings, keys: Keyspace
) -> None:
    """60 of 62 addresses: nearly every choice meets another's."""
    each = 10
    async with hosts(store, settings, keys, ("10.96.0.0/26",)) as all_:
        for index, host in enumerate(all_):
            host.ask(*(wish(f"h{index}s{n}") for n in range(each)))
        for host in all_:
            await host.has(HOSTS * each, WITHIN)
        assert len(await check_store(store, keys)) == HOSTS * each


async def test_a_pool_that_is_too_small_is_used_up_and_said_to_be(
    store: Store, settings: StoreSettings, keys: Keyspace
) -> None:
    async with hosts(store, settings, keys, ("10.96.0.0/28",)) as all_:
        for host in all_:
            host.ask(*(wish(f"s{n}") for n in range(20)))
        for host in all_:
            await host.has(14, WITHIN)
            refused = await host.refused(6, WITHIN)
            assert all("10.96.0.0/28): all taken" in words for words in refused.values())
        held = await check_store(store, keys)
        assert len(held) == 14
        # What is released goes to one that waits, at once.
        gone = min(held)
        for host in all_:
            host.ask(*(one for one in host.wishes if one.service != gone))
        await all_[0].vips.release(gone)
        for host in all_:
            await host.refused(5, WITHIN)
        after = await check_store(store, keys)
        assert len(after) == 14
        assert gone not in after


async def test_two_services_that_want_one_fixed_address(
    store: Store, settings: StoreSettings, keys: Keyspace
) -> None:
    from ipaddress import ip_address

    one = ip_address("10.96.0.80")
    async with hosts(store, settings, keys, ("10.96.0.0/24",), 4) as all_:
        for index, host in enumerate(all_):
            host.ask(wish(f"s{index}", (one,)))
        for host in all_:
            await host.has(1, WITHIN)
        (winner,) = await check_store(store, keys)
        for host in all_:
            (asked,) = host.wishes
            if asked.service == winner:
                assert await host.refused(0) == {}
            else:
                said = await host.refused(1, WITHIN)
                assert said == {
                    asked.service: f"expected another address: service {winner} has {one}"
                }
