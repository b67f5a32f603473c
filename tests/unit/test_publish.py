"""The publisher on the memory store: leases, retries, restarts."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing

from announcer.ledger import Leases, Ledger, Status
from announcer.publish import Publisher
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, EndpointId, Producer, Reason
from discod.model.schema import Keyspace, encode_endpoint
from discod.store.base import (
    Commit,
    Op,
    Put,
    Store,
    StoreRejected,
    StoreUnavailable,
    Unchanged,
)
from discod.store.follow import follow
from discod.store.memory import open_memory_store
from tests.observing import Into

KEYS = Keyspace()
E1 = Endpoint("web", "h1-1", ip_address("10.0.0.1"), 80, host="h1", producer=Producer.DOCKER)
RECORD = KEYS.record(E1.id)


class Flaky:
    """A store whose commits fail a given number of times."""

    def __init__(self, store: Store, failures: int) -> None:
        self._store = store
        self.failures = failures
        self.tries = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no leader")
        return await self._store.commit(ops, guards)


@asynccontextmanager
async def running(
    store: Store, lease_file: Path | None = None, lease_ttl: float = 10.0
) -> AsyncIterator[Publisher]:
    ledger = Ledger(KEYS, "h1")
    ledger.engine_listed()
    publisher = Publisher(
        store,
        ledger,
        keys=KEYS,
        lease_ttl=lease_ttl,
        history_ttl=100.0,
        lease_file=lease_file,
        metrics=Metrics(),
        rng=random.Random(1),
        clock=lambda: 1000.0 + trio.current_time(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        into = Into(publisher)

        async def following() -> None:
            await follow(store, KEYS.prefixes, into, rng=random.Random(2))

        nursery.start_soon(following)
        yield publisher
        nursery.cancel_scope.cancel()


async def keys_of(store: Store) -> dict[str, int]:
    return {item.key: item.lease for item in (await store.snapshot(KEYS.prefixes)).items}


def offer(publisher: Publisher, *statuses: Status) -> None:
    publisher.ledger.offer("u", statuses, gone=Reason.REMOVED, now=1000.0)
    publisher.wake()


async def test_a_record_is_written_and_kept_for_hours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        await publisher.settled()
        before = await keys_of(store)
        assert set(before) == {RECORD}
        await trio.sleep(7200)
        assert await keys_of(store) == before


async def test_without_renewal_it_ends_with_the_lease(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store:
        async with running(store) as publisher:
            offer(publisher, Status(E1))
            await publisher.settled()
        await trio.sleep(9.5)  # stopping renewed it once more
        assert set(await keys_of(store)) == {RECORD}
        await trio.sleep(3)
        assert await keys_of(store) == {}


async def test_a_withdrawal_expires_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        await publisher.settled()
        offer(publisher)
        await publisher.settled()
        assert set(await keys_of(store)) == {KEYS.withdrawn("h1", E1.id)}
        await trio.sleep(48)
        assert set(await keys_of(store)) == {KEYS.withdrawn("h1", E1.id)}
        await trio.sleep(60)
        assert await keys_of(store) == {}


async def test_failed_writes_are_repeated_with_growing_pauses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as memory:
        store = Flaky(memory, failures=5)
        async with running(store) as publisher:  # type: ignore[arg-type]
            began = trio.current_time()
            offer(publisher, Status(E1))
            await publisher.settled()
            assert store.tries == 6
            # 50, 100, 200, 400, 800 ms, each between a half and the whole of it
            assert 1.55 / 2 <= trio.current_time() - began <= 1.55
            assert publisher.error == ""


async def test_a_revoked_lease_is_noticed_and_all_is_written_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        await publisher.settled()
        lease = (await keys_of(store))[RECORD]
        await store.revoke(lease)
        await trio.sleep(4)  # a renewal comes at a third of the TTL
        after = await keys_of(store)
        assert set(after) == {RECORD}
        assert after[RECORD] != lease


async def test_a_revoked_history_lease_does_not_stop_withdrawals(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        await publisher.settled()
        assert publisher.leases is not None
        await store.revoke(publisher.leases.history)
        offer(publisher)
        await publisher.settled()
        assert set(await keys_of(store)) == {KEYS.withdrawn("h1", E1.id)}


async def test_a_writer_that_fights_with_us_does_not_load_the_store(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        await publisher.settled()
        first = (await store.snapshot([RECORD])).items[0]
        ours = first.value
        fights = 0

        async def fight() -> None:
            nonlocal fights
            async with store.watch([RECORD], first.revision - 1) as watch:
                async for delta in watch:
                    if any(getattr(event, "value", b"x") == ours for event in delta.events):
                        fights += 1
                        await store.commit([Put(RECORD, b"theirs")])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fight)
            await trio.sleep(100)
            assert 30 <= fights <= 60  # five in ten seconds
            offer(publisher, Status(E1), Status(replace(E1, instance="h1-2")))
            await trio.sleep(2)
            assert KEYS.record(EndpointId("web", "h1-2")) in await keys_of(store)
            nursery.cancel_scope.cancel()
        with trio.fail_after(30):
            await publisher.settled()
        assert (await store.snapshot([RECORD])).items[0].value == ours
        said = [r for r in caplog.records if "undone again" in r.message]
        assert 1 <= len(said) <= 2


async def test_everyone_who_waits_for_quiet_gets_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store() as store, running(store) as publisher:
        offer(publisher, Status(E1))
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(publisher.settled)


# In real time from here on: a clock that jumps would not wait for the threads that read files.


async def test_a_restart_adopts_lease_and_records(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    async with open_memory_store() as store:
        async with running(store, file) as publisher:
            offer(publisher, Status(E1))
            await publisher.settled()
            before = await store.snapshot(KEYS.prefixes)
        async with running(store, file) as publisher:
            offer(publisher, Status(E1))
            await publisher.settled()
            after = await store.snapshot(KEYS.prefixes)
        assert [(i.key, i.revision, i.lease) for i in after.items] == [
            (i.key, i.revision, i.lease) for i in before.items
        ]


async def test_an_unreadable_lease_file_only_costs_a_new_lease(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    for text in ("{", "[]", '{"lease": "x", "domain": "discod.internal"}', '{"lease": 99}'):
        file.write_text(text)
        async with open_memory_store() as store, running(store, file) as publisher:
            offer(publisher, Status(E1))
            await publisher.settled()
            assert json.loads(file.read_text())["lease"] == (await keys_of(store))[RECORD]


@pytest.mark.parametrize(
    ("changed", "adopted"),
    [
        ({}, True),
        ({"host": "h0"}, False),
        ({"prefix": "/old"}, False),
        ({"domain": "old.internal"}, False),
        ({"ttl": "77"}, False),
    ],
)
async def test_a_lease_of_another_configuration_is_left_to_end(
    tmp_path: Path, changed: dict[str, str], adopted: bool
) -> None:
    file = tmp_path / "lease.json"
    async with open_memory_store() as store:
        lease = await store.grant(100)
        file.write_text(
            json.dumps({"lease": lease, "domain": KEYS.domain, "prefix": KEYS.prefix} | changed)
        )
        async with running(store, file) as publisher:
            offer(publisher, Status(E1))
            await publisher.settled()
            assert ((await keys_of(store))[RECORD] == lease) is adopted


async def test_a_lease_file_that_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "full" / "lease.json"
    renewals = 0

    class Counting(Flaky):
        async def renew(self, lease: int) -> float:
            nonlocal renewals
            renewals += 1
            return await self._store.renew(lease)

    caplog.set_level("INFO", "announcer")
    async with (
        open_memory_store() as store,
        running(Counting(store, 0), file, lease_ttl=1.0) as publisher,  # type: ignore[arg-type]
    ):
        offer(publisher, Status(E1))
        await publisher.settled()
        with trio.fail_after(20):
            while renewals < 3:  # noqa: ASYNC110 - a thread writes the file
                await trio.sleep(0.05)
            assert caplog.text.count("lease file not written") == 1
            file.parent.mkdir()
            while "lease file written" not in caplog.text:  # noqa: ASYNC110 - as above
                await trio.sleep(0.05)
        assert json.loads(file.read_text())["lease"] == (await keys_of(store))[RECORD]


class Full:
    """A store whose space is used up: it grants single deletions, and nothing that puts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def grant(self, ttl: float) -> int:
        if self.full:
            raise StoreRejected("database space exceeded")
        return await self._store.grant(ttl)

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        if self.full and (len(ops) > 1 or isinstance(ops[0], Put)):
            raise StoreRejected("database space exceeded")
        return await self._store.commit(ops, guards)


async def test_a_full_store_still_loses_what_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The withdrawal is refused, the deletion is not; its reason follows when there is space."""
    other = replace(E1, instance="h1-2")
    async with open_memory_store() as memory:
        store = Full(memory)
        async with running(store) as publisher:  # type: ignore[arg-type]
            offer(publisher, Status(E1), Status(other))
            await publisher.settled()
            store.full = True
            offer(publisher, Status(other), Status(replace(E1, instance="h1-3")))
            await trio.sleep(2)
            assert set(await keys_of(memory)) == {KEYS.record(other.id)}
            assert "space" in publisher.error
            store.full = False
            await publisher.settled()
            assert KEYS.withdrawn("h1", E1.id) in await keys_of(memory)


async def test_a_full_store_loses_what_ended_before_the_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without a lease for its reason, an orphan of the last run goes all the same."""
    async with open_memory_store() as memory:
        lease = await memory.grant(1000)
        await memory.commit([Put(RECORD, encode_endpoint(E1), lease)])
        store = Full(memory)
        async with running(store) as publisher:  # type: ignore[arg-type]
            publisher._host_lease = lease
            store.full = True
            publisher._history_lease = 0
            await trio.sleep(1)
            await publisher._only_delete(Leases(lease, 0))
            assert RECORD not in await keys_of(memory)


class Late:
    """A store that executes a copy of one transaction again, long after it answered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sent: list[tuple[list[Op], list[Unchanged]]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        self.sent.append((list(ops), list(guards)))
        return await self._store.commit(ops, guards)


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_late_copy_of_a_transaction_changes_nothing(
    autojump_clock: trio.testing.MockClock, guarded: bool
) -> None:
    """And without its guards (the control) it brings the dead one back."""
    async with open_memory_store() as memory:
        store = Late(memory)
        async with running(store) as publisher:  # type: ignore[arg-type]
            offer(publisher, Status(E1))
            await publisher.settled()
            ops, guards = store.sent[0]
            assert {guard.key for guard in guards} == {RECORD, KEYS.withdrawn("h1", E1.id)}
            offer(publisher)
            await publisher.settled()
        late = await memory.commit(ops, guards if guarded else [])
        assert late.applied is not guarded
        assert (RECORD in await keys_of(memory)) is not guarded


async def test_a_strangers_value_under_our_key_does_not_stop_us(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No guard can name its revision: after a moment it is written over."""
    async with open_memory_store() as store:
        await store.commit([Put(RECORD, b'{"host":"192.0.2.9"}')])
        async with running(store) as publisher:
            offer(publisher, Status(E1))
            with trio.fail_after(2):
                await publisher.settled()
            assert (await keys_of(store))[RECORD] != 0
