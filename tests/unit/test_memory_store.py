"""What is particular to the memory store; the rest is in `tests/conformance`."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from discod.store.base import Compacted, Delta, KeyValue, LeaseNotFound, Put, Removed
from discod.store.memory import HISTORY, PROGRESS_INTERVAL, MemoryStore, open_memory_store


async def test_revisions_go_on_where_an_earlier_store_may_have_ended() -> None:
    earlier = int(time.time())
    async with open_memory_store() as store:
        snapshot = await store.snapshot([""])
        commit = await store.commit([Put("/k", b"")])
    assert snapshot.items == ()
    assert earlier <= snapshot.revision <= time.time()
    assert commit.revision == snapshot.revision + 1
    assert 0 < commit.revision < 2**32, "it is a serial as it stands"


async def test_leases_end_in_the_order_of_their_deadlines(autojump_clock: MockClock) -> None:
    """Even when nobody looked in between, each is a transaction of its own."""
    store = MemoryStore()
    leases = {ttl: await store.grant(ttl) for ttl in (5, 3, 4)}
    for ttl, lease in leases.items():
        await store.commit([Put(f"/{ttl}", b"", lease), Put(f"/{ttl}/b", b"", lease)])
    await trio.sleep(60)
    async with store.watch(["/"], 4) as watch:
        deltas = [await anext(watch) for _ in range(3)]
    assert deltas == [
        Delta(revision, (Removed(f"/{ttl}", revision), Removed(f"/{ttl}/b", revision)))
        for revision, ttl in ((5, 3), (6, 4), (7, 5))
    ]


async def test_a_waiting_watch_sees_a_lease_end_in_time(autojump_clock: MockClock) -> None:
    store = MemoryStore(progress_interval=1000)
    async with store.watch(["/"], 1) as watch, trio.open_nursery() as nursery:

        async def grant_later() -> None:
            await trio.sleep(1)
            lease = await store.grant(3)
            await store.commit([Put("/k", b"", lease)])

        nursery.start_soon(grant_later)
        assert await anext(watch) == Delta(2, (KeyValue("/k", b"", 2, 1),))
        assert await anext(watch) == Delta(3, (Removed("/k", 3),))
    assert (await store.snapshot(["/"])).revision == 3


async def test_a_lease_ends_exactly_at_its_deadline(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    lease = await store.grant(2)
    await trio.sleep(1.999)
    assert await store.renew(lease) == 2
    await trio.sleep(2)
    with pytest.raises(LeaseNotFound):
        await store.renew(lease)


async def test_an_empty_lease_leaves_no_trace(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    await store.grant(1)
    await trio.sleep(5)
    assert (await store.snapshot(["/"])).revision == 1
    assert store._leases == {}


@pytest.mark.parametrize(("behind", "gone"), [(HISTORY, False), (HISTORY + 1, True)])
async def test_how_far_a_watch_may_fall_behind(behind: int, gone: bool) -> None:
    store = MemoryStore()
    async with store.watch(["/"], 1) as watch:
        for _ in range(behind):
            await store.commit([Put("/k", b"")])
        if gone:
            with pytest.raises(Compacted):
                await anext(watch)
        else:
            assert (await anext(watch)).revision == 2
    assert len(store._log) == HISTORY


async def test_a_quiet_watch_does_not_fall_behind_while_others_write(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore(history=10)
    async with store.watch(["/mine/"], 1) as watch, trio.open_nursery() as nursery:

        async def others() -> None:
            for _ in range(100):
                await store.commit([Put("/others", b"")])
                await trio.sleep(0.01)
            await store.commit([Put("/mine/k", b"")])

        nursery.start_soon(others)
        assert await anext(watch) == Delta(102, (KeyValue("/mine/k", b"", 102),))


async def test_signs_of_life_tell_how_far(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with store.watch(["/mine/"], 1) as watch:
        await store.commit([Put("/others", b"")])
        start = trio.current_time()
        assert await anext(watch) == Delta(2)
        assert trio.current_time() - start == pytest.approx(PROGRESS_INTERVAL)
        assert await anext(watch) == Delta(2)
        assert trio.current_time() - start == pytest.approx(2 * PROGRESS_INTERVAL)


async def test_a_process_that_stood_still_loses_no_lease(
    autojump_clock: MockClock,
) -> None:
    async with open_memory_store() as store:
        kept = await store.grant(10)
        await store.commit([Put("/k", b"v", kept)])
        await trio.sleep(4.5)
        autojump_clock.jump(60)  # nothing runs meanwhile
        assert len((await store.snapshot(["/k"])).items) == 1
        await trio.sleep(4.4)  # what was left of it is left
        assert await store.renew(kept) == 10
        await trio.sleep(10.1)
        assert not (await store.snapshot(["/k"])).items, "it ends all the same when not renewed"
        with pytest.raises(LeaseNotFound):
            await store.renew(kept)
