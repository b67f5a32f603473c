"""What every store does: each sentence of `discod/store/base.py`, on both implementations."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from discod.store.base import (
    MAX_OPS,
    Compacted,
    Delete,
    Delta,
    KeyValue,
    LeaseNotFound,
    Op,
    Put,
    Removed,
    Store,
    StoreRejected,
    Unchanged,
    Watch,
)
from tests.conformance.conftest import Compact

WITHIN = 5.0
"""Seconds, for what should take milliseconds."""


async def next_events(watch: Watch) -> Delta:
    """The next Delta with events; signs of life are passed over."""
    with trio.fail_after(WITHIN):
        while True:
            delta = await anext(watch)
            if delta.events:
                return delta


async def test_kind(store: Store, kind: str) -> None:
    assert store.kind == kind


# Snapshots ------------------------------------------------------------------------------------


async def test_snapshot_of_nothing(store: Store, prefix: str) -> None:
    snapshot = await store.snapshot([prefix])
    assert snapshot.items == ()
    assert snapshot.revision >= 1


async def test_snapshot_is_sorted_and_only_below_the_prefixes(store: Store, prefix: str) -> None:
    names = ["b/2", "a/1", "b/1", "c", "a/10", "b0", "ä/ö"]
    commit = await store.commit([Put(prefix + name, name.encode()) for name in names])
    await store.commit([Put(prefix.rstrip("/") + "x", b"a sibling of the prefix")])

    snapshot = await store.snapshot([prefix])
    assert [kv.key for kv in snapshot.items] == sorted(prefix + name for name in names)
    assert all(kv == KeyValue(kv.key, kv.value, commit.revision) for kv in snapshot.items)
    assert snapshot.revision == commit.revision + 1

    part = await store.snapshot([f"{prefix}b/", f"{prefix}a/", f"{prefix}b/1"])
    assert [kv.key.removeprefix(prefix) for kv in part.items] == ["a/1", "a/10", "b/1", "b/2"]


async def test_snapshot_shows_value_revision_and_lease(store: Store, prefix: str) -> None:
    lease = await store.grant(60)
    value = bytes(range(256))
    commit = await store.commit([Put(prefix + "k", value, lease)])
    snapshot = await store.snapshot([prefix])
    assert snapshot.items == (KeyValue(prefix + "k", value, commit.revision, lease),)


async def test_no_prefix_is_a_mistake(store: Store) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        await store.snapshot([])


# Transactions ---------------------------------------------------------------------------------


async def test_each_transaction_that_changes_something_raises_the_revision_by_one(
    store: Store, prefix: str
) -> None:
    key = prefix + "k"
    first = await store.commit([Put(key, b"1"), Put(prefix + "other", b"1")])
    same_value = await store.commit([Put(key, b"1")])
    deleted = await store.commit([Delete(key)])
    absent = await store.commit([Delete(key)])
    empty = await store.commit([])
    assert all(c.applied for c in (first, same_value, deleted, absent, empty))
    assert same_value.revision == first.revision + 1
    assert deleted.revision == first.revision + 2
    assert absent.revision == empty.revision == deleted.revision


@pytest.mark.parametrize(
    ("present", "guard", "holds"),
    [
        (False, 0, True),
        (False, 1, False),
        (True, 0, False),
        (True, "its own", True),
        (True, "one less", False),
    ],
)
async def test_guards(
    store: Store, prefix: str, present: bool, guard: int | str, holds: bool
) -> None:
    key = prefix + "k"
    before = (await store.commit([Put(prefix + "x", b"")])).revision
    if present:
        before = (await store.commit([Put(key, b"old")])).revision
    revision = {"its own": before, "one less": before - 1}.get(str(guard), guard)
    assert isinstance(revision, int)
    commit = await store.commit([Put(key, b"new")], [Unchanged(key, revision)])
    assert commit.applied is holds
    assert commit.revision == before + holds
    items = {kv.key: kv.value for kv in (await store.snapshot([key])).items}
    assert items.get(key) == (b"new" if holds else b"old" if present else None)


async def test_all_guards_must_hold(store: Store, prefix: str) -> None:
    commit = await store.commit(
        [Put(prefix + "k", b"")], [Unchanged(prefix + "a", 0), Unchanged(prefix + "b", 7)]
    )
    assert not commit.applied
    assert (await store.snapshot([prefix])).items == ()


async def test_a_guard_may_be_on_a_key_that_is_not_written(store: Store, prefix: str) -> None:
    commit = await store.commit([Put(prefix + "k", b"")], [Unchanged(prefix + "other", 0)])
    assert commit.applied


async def test_as_many_operations_as_allowed(store: Store, prefix: str) -> None:
    ops = [Put(f"{prefix}{i:03}", b"") for i in range(MAX_OPS)]
    guards = [Unchanged(op.key, 0) for op in ops]
    commit = await store.commit(ops, guards)
    snapshot = await store.snapshot([prefix])
    assert len(snapshot.items) == MAX_OPS
    assert {kv.revision for kv in snapshot.items} == {commit.revision}


@pytest.mark.parametrize(
    "ops",
    [
        [Put(f"{i}", b"") for i in range(MAX_OPS + 1)],
        [Put("k", b"1"), Put("k", b"2")],
        [Put("k", b"1"), Delete("k")],
        [Delete("k"), Delete("k")],
    ],
    ids=["too many", "put twice", "put and delete", "delete twice"],
)
async def test_refused_transactions(store: Store, prefix: str, ops: list[Op]) -> None:
    placed: list[Op] = [
        Put(prefix + op.key, op.value) if isinstance(op, Put) else Delete(prefix + op.key)
        for op in ops
    ]
    with pytest.raises(StoreRejected):
        await store.commit(placed)
    assert (await store.snapshot([prefix])).items == ()


async def test_an_empty_key_is_refused(store: Store) -> None:
    with pytest.raises(StoreRejected):
        await store.commit([Put("", b"")])


# Leases ---------------------------------------------------------------------------------------


async def test_a_put_with_a_lease_that_is_gone_changes_nothing(store: Store, prefix: str) -> None:
    lease = await store.grant(60)
    await store.revoke(lease)
    before = (await store.snapshot([prefix])).revision
    with pytest.raises(LeaseNotFound):
        await store.commit([Put(prefix + "a", b""), Put(prefix + "b", b"", lease)])
    after = await store.snapshot([prefix])
    assert after.items == ()
    assert after.revision == before


async def test_a_lease_lasts_at_least_what_was_asked(store: Store) -> None:
    lease = await store.grant(4.2)
    assert lease > 0
    assert await store.renew(lease) >= 5


async def test_leases_are_different(store: Store) -> None:
    assert len({await store.grant(60) for _ in range(5)}) == 5


async def test_renewing_a_lease_that_is_gone(store: Store) -> None:
    lease = await store.grant(60)
    await store.revoke(lease)
    with pytest.raises(LeaseNotFound):
        await store.renew(lease)


async def test_revoking_a_lease_that_is_gone(store: Store) -> None:
    lease = await store.grant(60)
    await store.revoke(lease)
    await store.revoke(lease)


async def test_revoking_deletes_what_is_attached_in_one_delta(store: Store, prefix: str) -> None:
    lease = await store.grant(60)
    other = await store.grant(60)
    start = await store.commit(
        [
            Put(prefix + "b", b"", lease),
            Put(prefix + "a", b"", lease),
            Put(prefix + "detached", b"", lease),
            Put(prefix + "moved", b"", lease),
        ]
    )
    moved = await store.commit([Put(prefix + "detached", b""), Put(prefix + "moved", b"", other)])
    async with store.watch([prefix], moved.revision) as watch:
        await store.revoke(lease)
        delta = await next_events(watch)
    revision = moved.revision + 1
    assert start.revision == moved.revision - 1
    assert delta == Delta(
        revision, (Removed(prefix + "a", revision), Removed(prefix + "b", revision))
    )
    left = (await store.snapshot([prefix])).items
    assert [kv.key.removeprefix(prefix) for kv in left] == ["detached", "moved"]


async def test_a_deleted_key_leaves_its_lease(store: Store, prefix: str) -> None:
    lease = await store.grant(60)
    await store.commit([Put(prefix + "k", b"1", lease)])
    await store.commit([Delete(prefix + "k")])
    await store.commit([Put(prefix + "k", b"2")])
    await store.revoke(lease)
    assert [kv.value for kv in (await store.snapshot([prefix])).items] == [b"2"]


async def test_a_lease_ends_when_it_is_not_renewed(
    store: Store, prefix: str, clock: trio.abc.Clock | None
) -> None:
    lease = await store.grant(2)
    commit = await store.commit([Put(prefix + "k", b"", lease)])
    granted = trio.current_time()
    for _ in range(3):
        await trio.sleep(0.8)
        await store.renew(lease)
    renewed = trio.current_time()
    async with store.watch([prefix], commit.revision) as watch:
        with trio.fail_after(8):
            while not (delta := await anext(watch)).events:
                pass
    ended = trio.current_time()
    assert delta.events == (Removed(prefix + "k", delta.revision),)
    assert delta.revision == commit.revision + 1
    assert ended - granted > 3
    assert 1.9 <= ended - renewed <= 6  # etcd looks for ended leases about twice a second
    assert (await store.snapshot([prefix])).items == ()
    with pytest.raises(LeaseNotFound):
        await store.renew(lease)


# Watches --------------------------------------------------------------------------------------


async def test_a_watch_begins_after_its_revision(store: Store, prefix: str) -> None:
    key = prefix + "k"
    first, *rest = [await store.commit([Put(key, b"%d" % i)]) for i in range(4)]
    events: list[object] = []
    async with store.watch([prefix], first.revision) as watch:
        while len(events) < 4:
            events += (await next_events(watch)).events
            if len(events) == 3:
                rest.append(await store.commit([Delete(key)]))
    assert events == [
        KeyValue(key, b"1", rest[0].revision),
        KeyValue(key, b"2", rest[1].revision),
        KeyValue(key, b"3", rest[2].revision),
        Removed(key, rest[3].revision),
    ]


async def test_only_what_is_below_the_prefixes(store: Store, prefix: str) -> None:
    start = await store.snapshot([prefix])
    async with store.watch([f"{prefix}a/", f"{prefix}c/"], start.revision) as watch:
        await store.commit([Put(f"{prefix}b/1", b""), Put(f"{prefix}z", b""), Put("/0", b"")])
        commit = await store.commit(
            [Put(f"{prefix}c/1", b""), Put(f"{prefix}b/1", b""), Put(f"{prefix}a/1", b"")]
        )
        delta = await next_events(watch)
    assert delta == Delta(
        commit.revision,
        (
            KeyValue(f"{prefix}c/1", b"", commit.revision),
            KeyValue(f"{prefix}a/1", b"", commit.revision),
        ),
    )


async def test_all_events_of_a_revision_are_in_one_delta(store: Store, prefix: str) -> None:
    """A withdrawal: the record goes and its reason comes, never one without the other."""
    dns, own = f"{prefix}skydns/", f"{prefix}discod/"
    rounds = 100
    start = await store.commit([Put(f"{dns}{i}", b"") for i in range(rounds)])
    seen: list[Delta] = []
    async with store.watch([dns, own], start.revision) as watch, trio.open_nursery() as nursery:

        async def write() -> None:
            for i in range(rounds):
                await store.commit([Delete(f"{dns}{i}"), Put(f"{own}{i}", b"why")])

        nursery.start_soon(write)
        while sum(len(delta.events) for delta in seen) < 2 * rounds:
            seen.append(await next_events(watch))
    by_revision: dict[int, list[str]] = {}
    for delta in seen:
        for event in delta.events:
            by_revision.setdefault(event.revision, []).append(event.key)
        assert len(delta.events) % 2 == 0
        assert delta.revision == delta.events[-1].revision
    assert list(by_revision.values()) == [[f"{dns}{i}", f"{own}{i}"] for i in range(rounds)]
    assert list(by_revision) == list(range(start.revision + 1, start.revision + 1 + rounds))


async def test_overlapping_prefixes_deliver_once(store: Store, prefix: str) -> None:
    start = await store.snapshot([prefix])
    async with store.watch([prefix, f"{prefix}a/", prefix], start.revision) as watch:
        await store.commit([Put(f"{prefix}a/1", b"")])
        assert len((await next_events(watch)).events) == 1


async def test_every_watch_gets_everything(store: Store, prefix: str) -> None:
    start = await store.snapshot([prefix])
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(store.watch([prefix], start.revision)) for _ in range(5)
        ]
        commit = await store.commit([Put(f"{prefix}k", b"v")])
        for watch in watches:
            delta = await next_events(watch)
            assert delta == Delta(commit.revision, (KeyValue(f"{prefix}k", b"v", commit.revision),))


async def test_signs_of_life_while_nothing_happens(
    store: Store, prefix: str, clock: trio.abc.Clock | None
) -> None:
    commit = await store.commit([Put(f"{prefix}k", b"")])
    async with store.watch([prefix], commit.revision) as watch:
        for _ in range(3):
            with trio.fail_after(3):
                assert await anext(watch) == Delta(commit.revision)


async def test_signs_of_life_while_others_are_busy(
    store: Store, prefix: str, clock: trio.abc.Clock | None
) -> None:
    start = await store.snapshot([prefix])
    async with (
        store.watch([f"{prefix}a/", f"{prefix}c/"], start.revision) as watch,
        trio.open_nursery() as nursery,
    ):

        async def others() -> None:
            while True:
                await store.commit([Put(f"{prefix}b/", b"")])
                await trio.sleep(0.1)

        nursery.start_soon(others)
        revisions = []
        for _ in range(3):
            with trio.fail_after(3):
                delta = await anext(watch)
            assert delta.events == ()
            revisions.append(delta.revision)
        assert revisions == sorted(revisions)
        assert revisions[-1] > start.revision
        nursery.cancel_scope.cancel()


async def test_a_watch_whose_history_is_gone(store: Store, prefix: str, compact: Compact) -> None:
    start = await store.snapshot([prefix])
    await store.commit([Put(f"{prefix}k", b"")])
    await compact()
    async with store.watch([prefix], start.revision) as watch:
        with pytest.raises(Compacted), trio.fail_after(WITHIN):
            while True:
                await anext(watch)
    again = await store.snapshot([prefix])
    assert [kv.key for kv in again.items] == [f"{prefix}k"]
    async with store.watch([prefix], again.revision) as watch:
        commit = await store.commit([Put(f"{prefix}k", b"2")])
        assert (await next_events(watch)).revision == commit.revision


async def test_a_watch_from_the_future(store: Store, prefix: str) -> None:
    """The store was set back since: what the caller holds is no part of its history."""
    start = await store.snapshot([prefix])
    async with store.watch([prefix], start.revision + 1_000_000) as watch:
        with pytest.raises(Compacted), trio.fail_after(WITHIN):
            await anext(watch)


async def test_a_slow_reader_loses_nothing(store: Store, prefix: str) -> None:
    start = await store.snapshot([prefix])
    count = 600  # more than any queue of ours holds
    async with store.watch([prefix], start.revision) as watch:
        with trio.move_on_after(0.3):
            await anext(watch)  # open it
        for i in range(count):
            await store.commit([Put(f"{prefix}k", b"%d" % i)])
        values: list[int] = []
        while len(values) < count:
            values += [
                int(e.value) for e in (await next_events(watch)).events if isinstance(e, KeyValue)
            ]
    assert values == list(range(count))


# Cancellation ---------------------------------------------------------------------------------


async def test_a_watch_is_cancelled_at_once_and_goes_on(store: Store, prefix: str) -> None:
    start = await store.snapshot([prefix])
    async with store.watch([prefix], start.revision) as watch:
        for i in range(20):
            with trio.move_on_after(0.002):
                while True:
                    await anext(watch)
            commit = await store.commit([Put(f"{prefix}k", b"%d" % i)])
            assert await next_events(watch) == Delta(
                commit.revision, (KeyValue(f"{prefix}k", b"%d" % i, commit.revision),)
            )


async def test_every_call_can_be_cancelled(store: Store, prefix: str) -> None:
    lease = await store.grant(60)
    for call in (
        lambda: store.snapshot([prefix]),
        lambda: store.commit([Put(f"{prefix}k", b"")]),
        lambda: store.grant(60),
        lambda: store.renew(lease),
        lambda: store.revoke(lease),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
            pytest.fail("not cancelled")
        assert scope.cancelled_caught
    assert (await store.snapshot([prefix])).revision > 0
