"""One real etcd: history, sizes, threads and cancellation."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from discod.model.settings import StoreSettings
from discod.store.base import MAX_OPS, Put, StoreRejected
from discod.store.etcd import PAGE
from discod.store.follow import follow
from discod.store.opening import open_store
from tests.lab.etcd import EtcdCluster
from tests.lab.test_etcd_failures import PREFIXES, Recorder, following, until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture
def settings(cluster: EtcdCluster) -> StoreSettings:
    return StoreSettings(endpoints=cluster.endpoints)


async def threads_gone(before: set[threading.Thread]) -> None:
    await until(lambda: set(threading.enumerate()) <= before, within=3)


async def test_compaction_while_following(cluster: EtcdCluster, settings: StoreSettings) -> None:
    """The reader is away, misses changes, and their history is compacted: it reads anew."""
    member = cluster.members[0]
    recorder = Recorder()
    async with open_store(settings) as store, trio.open_nursery() as nursery:
        await following(nursery, store, recorder)
        await until(lambda: recorder.snapshots)
        await store.commit([Put(f"{PREFIXES[0]}before", b"")])
        await until(lambda: recorder.revisions)
        # Without the reader: the member forgets its stream, and changes before the reader is back.
        await trio.to_thread.run_sync(member.kill)
        await until(lambda: recorder.errors)
        await trio.to_thread.run_sync(member.restart)
        await until(lambda: trio.current_time() - recorder.heard < 0.5)
        errors = len(recorder.errors)
        member.freeze()
        await until(lambda: len(recorder.errors) > errors, within=12)
        member.thaw()
        commit = await store.commit([Put(f"{PREFIXES[1]}missed", b"")])
        await trio.to_thread.run_sync(member.etcdctl, "compact", str(commit.revision))
        after = await store.commit([Put(f"{PREFIXES[0]}after", b"")])
        await until(
            lambda: {f"{PREFIXES[1]}missed", f"{PREFIXES[0]}after"} <= recorder.state().keys()
        )
        nursery.cancel_scope.cancel()
    assert recorder.revisions == sorted(recorder.revisions)
    assert max([*recorder.revisions, recorder.snapshots[-1].revision]) == after.revision


async def test_more_keys_and_octets_than_one_answer_holds(
    cluster: EtcdCluster, settings: StoreSettings
) -> None:
    count, value = PAGE + 321, b"x" * 600  # over 6 MB; gRPC's default limit is 4 MB
    async with open_store(settings) as store:
        keys = [f"/big/{i % 2}/{i:06}" for i in range(count)]
        for i in range(0, count, MAX_OPS):
            last = await store.commit([Put(key, value) for key in keys[i : i + MAX_OPS]])
        snapshot = await store.snapshot(["/big/1/", "/big/0/"])
        assert snapshot.revision == last.revision
        assert [kv.key for kv in snapshot.items] == sorted(keys)
        assert {kv.value for kv in snapshot.items} == {value}
        start = last.revision - 50
        seen: list[str] = []
        async with store.watch(["/big/1/", "/big/0/"], start) as watch:
            with trio.fail_after(10):
                while len(seen) < 49 * MAX_OPS + (count % MAX_OPS or MAX_OPS):
                    seen += [event.key for event in (await anext(watch)).events]
        assert seen == keys[-len(seen) :]
        for key in ("/big/0/", "/big/1/"):
            await trio.to_thread.run_sync(cluster.members[0].etcdctl, "del", "--prefix", key)


async def test_a_value_that_is_too_large_is_refused(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        with pytest.raises(StoreRejected, match="too large"):
            await store.commit([Put("/huge", b"x" * 2_000_000)])


async def test_closing_leaves_no_thread(settings: StoreSettings) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        async with open_store(settings) as store:
            start = await store.snapshot(PREFIXES)
            async with store.watch(PREFIXES, start.revision) as watch:
                await anext(watch)
                await store.commit([Put(f"{PREFIXES[0]}k", b"")])
            await threads_gone(before)  # already when the watch ends
    await threads_gone(before)


async def test_cancelled_watches_leave_no_thread_and_end_at_once(settings: StoreSettings) -> None:
    before = set(threading.enumerate())
    took: list[float] = []
    async with open_store(settings) as store:
        start = await store.snapshot(PREFIXES)
        for i in range(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    lambda: follow(store, PREFIXES, Recorder(), rng=random.Random(1))
                )
                await trio.sleep(i * 0.001)  # in every phase of its opening
                begun = trio.current_time()
                nursery.cancel_scope.cancel()
            took.append(trio.current_time() - begun)
            await threads_gone(before)
        assert (await store.snapshot(PREFIXES)).revision >= start.revision
    assert sorted(took)[len(took) // 2] < 0.02
    assert max(took) < 0.5


async def test_a_call_is_cancelled_at_once_while_etcd_is_frozen(
    cluster: EtcdCluster, settings: StoreSettings
) -> None:
    before = set(threading.enumerate())
    member = cluster.members[0]
    async with open_store(settings) as store:
        start = await store.snapshot(PREFIXES)
        member.freeze()
        try:
            async with store.watch(PREFIXES, start.revision) as watch:
                calls: list[Callable[[], Awaitable[object]]] = [
                    lambda: store.snapshot(PREFIXES),
                    lambda: store.commit([Put(f"{PREFIXES[0]}k", b"")]),
                    lambda: anext(watch),
                ]
                for call in calls:
                    begun = trio.current_time()
                    with trio.move_on_after(0.3) as scope:
                        await call()
                    assert scope.cancelled_caught
                    assert trio.current_time() - begun < 0.5
        finally:
            member.thaw()
        with trio.fail_after(5):
            await store.snapshot(PREFIXES)
    await threads_gone(before)
