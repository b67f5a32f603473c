"""`Follower` as a pure class, and the pauses; `follow` against a store that fails by script."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from discod.backoff import FIRST, MOST, Backoff
from discod.store.base import (
    Commit,
    Compacted,
    Delta,
    KeyValue,
    Op,
    Put,
    Removed,
    Snapshot,
    StoreError,
    StoreRejected,
    StoreUnavailable,
    Unchanged,
)
from discod.store.follow import Follower, follow
from discod.store.memory import MemoryStore


def put(revision: int, key: str = "/k") -> KeyValue:
    return KeyValue(key, b"%d" % revision, revision)


def delta(*revisions: int) -> Delta:
    return Delta(revisions[-1], tuple(put(revision) for revision in revisions))


# Follower -------------------------------------------------------------------------------------


def test_a_follower_begins_with_a_snapshot() -> None:
    follower = Follower()
    assert follower.stale
    snapshot = Snapshot(7, (put(3),))
    assert follower.restart(snapshot) is snapshot
    assert not follower.stale
    assert follower.revision == 7


@pytest.mark.parametrize(
    ("given_", "delivered", "mark"),
    [
        (delta(8), delta(8), 8),
        (delta(8, 9), delta(8, 9), 9),
        (delta(6, 7), Delta(7), 7),
        (delta(7, 8), delta(8), 8),
        (Delta(9), Delta(9), 9),
        (Delta(3), Delta(7), 7),
        (Delta(9, (put(8),)), Delta(9, (put(8),)), 9),
    ],
)
def test_what_is_delivered_is_above_the_mark(given_: Delta, delivered: Delta, mark: int) -> None:
    follower = Follower()
    follower.restart(Snapshot(7, ()))
    assert follower.deliver(given_) == delivered
    assert follower.revision == mark


def test_only_a_snapshot_goes_back() -> None:
    follower = Follower()
    follower.restart(Snapshot(100, ()))
    follower.lost()
    assert follower.stale
    assert follower.revision == 100
    follower.restart(Snapshot(3, ()))
    assert follower.revision == 3
    assert follower.deliver(delta(4)) == delta(4)


@given(
    st.lists(st.integers(1, 30), max_size=30).map(sorted),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=20),
)
def test_each_event_once_and_in_order(revisions: list[int], watches: list[tuple[int, int]]) -> None:
    """Watches that deliver again from anywhere at or before the mark, in pieces of any size."""
    history = sorted(set(revisions))
    follower = Follower()
    follower.restart(Snapshot(0, ()))
    seen: list[int] = []
    for start, length in [*watches, (0, 31)]:
        begin = min(start, follower.revision)
        events = [r for r in history if r > begin][:length]
        if events:
            new = follower.deliver(delta(*events))
            assert new.revision == follower.revision
            seen += [event.revision for event in new.events]
    assert seen == history


# Backoff --------------------------------------------------------------------------------------


def test_backoff_doubles_up_to_its_limit_with_jitter() -> None:
    backoff = Backoff(random.Random(1))
    ceiling = FIRST
    waits = []
    for _ in range(12):
        waits.append(backoff.pause())
        assert ceiling / 2 <= waits[-1] <= ceiling <= MOST
        ceiling = min(MOST, ceiling * 2)
    assert len(set(waits)) == len(waits)
    backoff.reset()
    assert backoff.pause() <= FIRST


# follow ---------------------------------------------------------------------------------------


class Recorder:
    """An observer that writes down what it is told."""

    def __init__(self, stop_after: Callable[[list[object]], bool]) -> None:
        self.told: list[object] = []
        self.times: list[float] = []
        self.scope = trio.CancelScope()
        self._stop_after = stop_after

    def _tell(self, what: object) -> None:
        self.told.append(what)
        self.times.append(trio.current_time())
        if self._stop_after(self.told):
            self.scope.cancel()

    def snapshot(self, snapshot: Snapshot) -> None:
        self._tell(snapshot)

    def delta(self, delta: Delta) -> None:
        self._tell(delta)

    def contact(self, revision: int) -> None:
        self._tell(revision)

    def disconnected(self, error: StoreError) -> None:
        self._tell(error)


Step = Snapshot | Delta | Exception


class ScriptedStore(MemoryStore):
    """Snapshots and watches by script; an exception ends the snapshot or watch it meets."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self._steps = list(steps)
        self.watched: list[int] = []

    async def snapshot(self, prefixes: Sequence[str]) -> Snapshot:
        await trio.lowlevel.checkpoint()
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Snapshot)
        return step

    @asynccontextmanager
    async def watch(self, prefixes: Sequence[str], after: int) -> AsyncIterator[ScriptedWatch]:  # type: ignore[override]
        self.watched.append(after)
        yield ScriptedWatch(self._steps)


class ScriptedWatch:
    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def __aiter__(self) -> ScriptedWatch:
        return self

    async def __anext__(self) -> Delta:
        await trio.lowlevel.checkpoint()
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Delta)
        return step


async def told_by(*steps: Step) -> tuple[list[object], ScriptedStore, Recorder]:
    """What `follow` tells over a script that ends when its last step was told."""
    store = ScriptedStore(*steps)
    recorder = Recorder(lambda _: not store._steps)
    with recorder.scope:
        await follow(store, ["/"], recorder, rng=random.Random(1))
    return recorder.told, store, recorder


async def test_snapshot_then_watch(autojump_clock: MockClock) -> None:
    first = Snapshot(5, (put(5),))
    told, store, _ = await told_by(first, delta(6), Delta(8), delta(9, 10))
    assert told == [first, delta(6), 8, delta(9, 10)]
    assert store.watched == [5]


async def test_a_broken_watch_is_resumed_after_what_was_delivered(
    autojump_clock: MockClock,
) -> None:
    first, gone = Snapshot(5, ()), StoreUnavailable("gone")
    told, store, _ = await told_by(first, delta(6), gone, delta(7), Delta(9), gone, delta(10))
    assert told == [first, delta(6), gone, delta(7), 9, gone, delta(10)]
    assert store.watched == [5, 6, 9]


async def test_a_resumed_watch_that_repeats_itself(autojump_clock: MockClock) -> None:
    told, _, _ = await told_by(
        Snapshot(5, ()), delta(6, 7), StoreUnavailable("gone"), delta(6, 7, 8), delta(9)
    )
    assert [d for d in told if isinstance(d, Delta)] == [delta(6, 7), delta(8), delta(9)]


async def test_failing_for_long_backs_off_and_recovers(autojump_clock: MockClock) -> None:
    gone = StoreUnavailable("gone")
    rejected = StoreRejected("wrong password")
    told, _, recorder = await told_by(*[gone] * 8, rejected, Snapshot(5, ()), gone, delta(6))
    assert told == [*[gone] * 8, rejected, Snapshot(5, ()), gone, delta(6)]
    pauses = [b - a for a, b in zip(recorder.times, recorder.times[1:], strict=False)]
    assert 0.02 < pauses[0] <= FIRST
    assert MOST / 2 <= pauses[7] <= MOST
    assert sum(pauses) < 10


async def test_success_resets_the_backoff(autojump_clock: MockClock) -> None:
    gone = StoreUnavailable("gone")
    _, _, recorder = await told_by(*[gone] * 8, Snapshot(5, ()), delta(6), gone, delta(7))
    assert recorder.times[-1] - recorder.times[-2] <= FIRST


async def test_compacted_takes_a_new_snapshot(autojump_clock: MockClock) -> None:
    first, second = Snapshot(5, ()), Snapshot(50, (put(44),))
    told, store, _ = await told_by(first, Compacted("gone"), second, delta(51))
    assert told == [first, second, delta(51)]
    assert store.watched == [5, 50]


async def test_a_store_that_was_set_back_does_not_wedge(autojump_clock: MockClock) -> None:
    first, second = Snapshot(1000, ()), Snapshot(3, ())
    told, _, _ = await told_by(
        first, StoreUnavailable("restored"), Compacted("at revision 3"), second, delta(4)
    )
    assert told[-2:] == [second, delta(4)]


async def test_compaction_without_end_does_not_spin(autojump_clock: MockClock) -> None:
    steps: list[Step] = []
    for revision in range(20):
        steps += [Snapshot(revision, ()), Compacted("again")]
    _, _, recorder = await told_by(*steps, Snapshot(30, ()))
    assert recorder.times[-1] - recorder.times[0] > 10


async def test_other_exceptions_are_bugs(autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        await told_by(Snapshot(5, ()), ZeroDivisionError())


async def test_on_the_memory_store(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    recorder = Recorder(lambda told: sum(isinstance(what, Delta) for what in told) == 20)

    async def write() -> None:
        for i in range(10):
            ops: list[Op] = [Put(f"/a/{i}", b""), Put(f"/b/{i}", b"")]
            commit: Commit = await store.commit(ops, [Unchanged(f"/a/{i}", 0)])
            assert commit.applied
            await trio.sleep(1)
        lease = await store.grant(5)
        for i in range(9):
            await store.commit([Put(f"/a/{i}", b"leased", lease)])
        await trio.sleep(6)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        with recorder.scope:
            await follow(store, ["/a/", "/b/"], recorder, rng=random.Random(1))
        nursery.cancel_scope.cancel()
    deltas = [what for what in recorder.told if isinstance(what, Delta)]
    assert [d.revision for d in deltas] == list(range(deltas[0].revision, deltas[0].revision + 20))
    assert deltas[-1].events == tuple(Removed(f"/a/{i}", deltas[-1].revision) for i in range(9))
    marks = [what if isinstance(what, int) else what.revision for what in recorder.told]  # type: ignore[attr-defined]
    assert marks == sorted(marks)
