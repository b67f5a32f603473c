"""Three real etcd members that die, freeze, and come back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import trio

from discod.model.settings import StoreSettings
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
from discod.store.etcd import EtcdStore
from discod.store.etcd_errors import RpcFailure
from discod.store.follow import follow
from discod.store.opening import open_store
from tests.lab.etcd import EtcdCluster, EtcdMember, free_port

pytestmark = pytest.mark.lab

PREFIXES = ("/discod/v1/discod.internal/", "/skydns/internal/discod/")


class Recorder:
    """An observer that writes down what it is told, and when."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.deltas: list[Delta] = []
        self.errors: list[StoreError] = []
        self.heard = 0.0
        self.contacts = 0
        self.told_before = 0  # deltas before the last snapshot

    def snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.told_before = len(self.deltas)
        self.heard = trio.current_time()

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.heard = trio.current_time()

    def contact(self, revision: int) -> None:
        self.contacts += 1
        self.heard = trio.current_time()

    def disconnected(self, error: StoreError) -> None:
        self.errors.append(error)

    @property
    def revisions(self) -> list[int]:
        return [event.revision for delta in self.deltas for event in delta.events]

    def state(self) -> dict[str, bytes]:
        """The keys, as replayed from everything told since the last snapshot."""
        keys = {kv.key: kv.value for kv in self.snapshots[-1].items}
        for delta in self.deltas[self.told_before :]:
            for event in delta.events:
                if isinstance(event, KeyValue):
                    keys[event.key] = event.value
                else:
                    keys.pop(event.key, None)
        return keys


async def until(condition: Callable[[], object], within: float = 15.0) -> None:
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 (what is waited for is in other processes)
            await trio.sleep(0.01)


async def following(
    nursery: trio.Nursery, store: Store, recorder: Recorder, *, watching: bool = True
) -> None:
    """Start `follow`, and wait until its first watch is open."""
    nursery.start_soon(lambda: follow(store, PREFIXES, recorder, rng=random.Random(1)))
    if watching:
        await until(lambda: recorder.contacts)


async def put_for_sure(store: Store, key: str, value: bytes) -> int:
    """Put once, whatever it takes; the revision of the put."""
    while True:
        try:
            commit = await store.commit([Put(key, value)], [Unchanged(key, 0)])
        except StoreUnavailable:
            await trio.sleep(0.1)  # may have been applied: the guard tells
            continue
        if commit.applied:
            return commit.revision
        return (await snapshot_for_sure(store, key)).items[0].revision


async def snapshot_for_sure(store: Store, *prefixes: str) -> Snapshot:
    while True:
        try:
            return await store.snapshot(prefixes)
        except StoreUnavailable:
            await trio.sleep(0.1)


@pytest.fixture
def triple() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as cluster:
        yield cluster


@pytest.mark.parametrize("victim", ["preferred", "leader"])
async def test_calls_and_the_watch_go_on_when_one_member_dies(
    triple: EtcdCluster, victim: str
) -> None:
    dead: EtcdMember = triple.members[0]
    if victim == "leader":
        dead = await trio.to_thread.run_sync(lambda: triple.leader)
    recorder = Recorder()
    written: list[int] = []
    async with (
        open_store(StoreSettings(endpoints=triple.endpoints)) as store,
        trio.open_nursery() as nursery,
    ):
        lease = await store.grant(10)
        await following(nursery, store, recorder)
        for i in range(60):
            if i == 20:
                await trio.to_thread.run_sync(dead.kill)
            with trio.fail_after(15):
                written.append(await put_for_sure(store, f"{PREFIXES[i % 2]}{i}", b"%d" % i))
        await until(lambda: len(recorder.revisions) == 60)
        with trio.fail_after(5):
            assert await store.renew(lease) > 0
            left = await store.snapshot(PREFIXES)
        nursery.cancel_scope.cancel()
    assert recorder.revisions == written
    assert len(recorder.snapshots) == 1
    assert recorder.state() == {kv.key: kv.value for kv in left.items}


async def test_all_members_down_and_back(triple: EtcdCluster) -> None:
    recorder = Recorder()
    written: list[int] = []
    async with (
        open_store(StoreSettings(endpoints=triple.endpoints)) as store,
        trio.open_nursery() as nursery,
    ):
        await following(nursery, store, recorder)

        async def write() -> None:
            for i in range(150):
                written.append(await put_for_sure(store, f"{PREFIXES[i % 2]}{i}", b"%d" % i))
                await trio.sleep(0.01)

        async with trio.open_nursery() as writer:
            writer.start_soon(write)
            await until(lambda: len(recorder.revisions) >= 30)
            for member in triple.members:
                await trio.to_thread.run_sync(member.kill)
            await trio.sleep(3)
            assert recorder.errors
            for member in triple.members:
                member.start()
        await until(lambda: len(recorder.revisions) >= 150)
        nursery.cancel_scope.cancel()
    assert recorder.revisions == written
    assert len(recorder.snapshots) == 1


async def test_a_frozen_member_costs_one_deadline_only(triple: EtcdCluster) -> None:
    recorder = Recorder()
    async with (
        open_store(StoreSettings(endpoints=triple.endpoints, timeout=3.0)) as store,
        trio.open_nursery() as nursery,
    ):
        await following(nursery, store, recorder)
        await store.commit([Put(f"{PREFIXES[0]}a", b"")])
        await until(lambda: len(recorder.revisions) == 1)
        frozen = triple.members[0]
        leader = await trio.to_thread.run_sync(lambda: triple.leader)
        frozen.freeze()
        try:
            begun = trio.current_time()
            with trio.fail_after(3.5):  # a read takes a share of the deadline, and goes elsewhere
                while True:
                    try:
                        await store.snapshot(PREFIXES)
                        break
                    except StoreUnavailable:
                        # The frozen one was the leader: the others have to elect first.
                        assert leader is frozen
            first = trio.current_time() - begun
            begun = trio.current_time()
            for i in range(20):
                await put_for_sure(store, f"{PREFIXES[0]}{i}", b"")
            rest = trio.current_time() - begun
            await until(lambda: len(recorder.revisions) == 21, within=10)
        finally:
            frozen.thaw()
        assert first > 0.5
        assert rest < 3
        nursery.cancel_scope.cancel()
    assert len(set(recorder.revisions)) == 21


async def test_a_minority_member_is_left(triple: EtcdCluster) -> None:
    """It answers, but has no leader: neither calls nor the watch may hang on it."""
    recorder = Recorder()
    endpoints = triple.endpoints
    async with (
        open_store(StoreSettings(endpoints=endpoints[:1])) as store,
        trio.open_nursery() as nursery,
    ):
        await following(nursery, store, recorder)
        await store.commit([Put(f"{PREFIXES[0]}a", b"")])
        await until(lambda: len(recorder.revisions) == 1)
        for member in triple.members[1:]:
            await trio.to_thread.run_sync(member.kill)
        await until(lambda: recorder.errors)
        with pytest.raises(StoreUnavailable), trio.fail_after(4):
            await store.snapshot(PREFIXES)
        for member in triple.members[1:]:
            member.start()
        revision = await put_for_sure(store, f"{PREFIXES[0]}b", b"")
        await until(lambda: len(recorder.revisions) == 2)
        nursery.cancel_scope.cancel()
    assert recorder.revisions[-1] == revision
    assert len(recorder.snapshots) == 1


async def test_etcd_that_is_down_at_the_start() -> None:
    urls = (f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    begun = trio.current_time()
    async with open_store(StoreSettings(endpoints=urls)) as store:
        assert trio.current_time() - begun < 1
        with pytest.raises(StoreUnavailable) as caught, trio.fail_after(3.5):
            await store.commit([Put("/k", b"")])
        assert all(url in str(caught.value) for url in urls)


async def test_a_store_restored_from_an_older_backup(triple: EtcdCluster) -> None:
    """Revisions go back; the reader follows rather than wait for the future."""
    recorder = Recorder()
    async with (
        open_store(StoreSettings(endpoints=triple.endpoints)) as store,
        trio.open_nursery() as nursery,
    ):
        await following(nursery, store, recorder)
        for i in range(50):
            await store.commit([Put(f"{PREFIXES[0]}{i}", b"old")])
        await until(lambda: len(recorder.revisions) == 50)
        for member in triple.members:
            await trio.to_thread.run_sync(member.kill)
        for member in triple.members:
            member.wipe()
            member.start()
        await put_for_sure(store, f"{PREFIXES[0]}new", b"new")
        await until(
            lambda: recorder.snapshots and recorder.state() == {f"{PREFIXES[0]}new": b"new"}
        )
        nursery.cancel_scope.cancel()
    assert len(recorder.snapshots) == 2
    assert recorder.snapshots[1].revision < recorder.snapshots[0].revision + 50


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_frozen_preferred_member_and_a_commit(triple: EtcdCluster, guarded: bool) -> None:
    """With guards on all its keys it goes elsewhere, and what the frozen one does with the first
    copy later changes nothing; without (the control) it fails.

    As the announcer writes: absence alone would be no guard against a later deletion, so the
    deletion writes a second key that both copies are guarded by.
    """
    key, said = f"{PREFIXES[0]}k", f"{PREFIXES[1]}said"
    leader = await trio.to_thread.run_sync(lambda: triple.leader)
    frozen = next(member for member in triple.members if member is not leader)
    others = [member.client_url for member in triple.members if member is not frozen]
    settings = StoreSettings(endpoints=(frozen.client_url, *others), timeout=6.0)
    async with open_store(settings) as store:
        await store.commit([Put(f"{PREFIXES[0]}warm", b"")])
        frozen.freeze()
        try:
            if not guarded:
                with pytest.raises(StoreUnavailable):
                    await store.commit([Put(key, b"1")])
                return
            commit = await store.commit([Put(key, b"1")], [Unchanged(key, 0), Unchanged(said, 0)])
            assert commit.applied
            guards = [Unchanged(key, commit.revision), Unchanged(said, 0)]
            later = await store.commit([Delete(key), Put(said, b"1")], guards)
            assert later.applied
        finally:
            frozen.thaw()
        await trio.sleep(1.5)  # now it would execute what it was sent
        assert not (await store.snapshot([key])).items


async def test_a_commit_whose_answer_was_lost_is_known_as_done(triple: EtcdCluster) -> None:
    """The second copy finds the first one's work, and says so: applied, at that revision."""
    key, other = f"{PREFIXES[0]}k", f"{PREFIXES[1]}o"
    async with open_store(StoreSettings(endpoints=triple.endpoints)) as store:
        assert isinstance(store, EtcdStore)
        first = await store.commit([Put(key, b"1"), Delete(other)], [Unchanged(key, 0)])
        real = store._members[0].call

        async def deaf(name: str, request: object, timeout: float) -> object:
            await real(name, request, timeout)  # executed, and the answer is lost
            raise RpcFailure("DEADLINE_EXCEEDED", "lost")

        ops: list[Op] = [Put(key, b"2"), Delete(other)]
        guards = [Unchanged(key, first.revision), Unchanged(other, 0)]
        store._preferred = 0
        store._members[0].call = deaf  # type: ignore[method-assign]
        second = await store.commit(ops, guards)
        assert second == Commit(True, first.revision + 1)
        store._preferred = 0
        third = await store.commit([Put(key, b"3")], [Unchanged(key, first.revision)])
        assert not third.applied
