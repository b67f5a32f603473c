"""The in-memory store: one host, no etcd, the same semantics.

Rule: no tasks and no queues. A change is appended to one bounded log; a watch is a position in that
log. Leases end by trio's clock: each call, and each waiting watch, first ends the leases whose time
is over, one transaction a lease, in the order of their deadlines. A process that stood still
(SIGSTOP, a debugger, a machine that swaps) ends no lease by it: who renews them stood still too.
Revisions begin at the time of day, so that what follows from them (the SOA's serial) does not go
back over a restart.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from discod.store.base import (
    Commit,
    Compacted,
    Delete,
    Delta,
    Event,
    KeyValue,
    LeaseNotFound,
    Op,
    Put,
    Removed,
    Snapshot,
    Unchanged,
)
from discod.store.ops import check_commit, normal_prefixes, whole_seconds

HISTORY = 10_000
"""Transactions kept for watches; a watch that falls further behind gets `Compacted`."""

PROGRESS_INTERVAL = 2.0
"""Seconds after which a quiet watch gives a sign of life."""

TICK = 1.0
"""Seconds between two signs that the process runs."""

STOOD = 2.0
"""Seconds since the last of them after which it must have stood still."""


@dataclass(slots=True)
class _Lease:
    ttl: int
    deadline: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """A `Store` in this process's memory; its content ends with the object."""

    def __init__(
        self,
        history: int = HISTORY,
        progress_interval: float = PROGRESS_INTERVAL,
        revision: int = 1,  # a fresh etcd's
    ):
        self._history = history
        self._progress_interval = progress_interval
        self._revision = revision
        self._keys: dict[str, KeyValue] = {}
        self._leases: dict[int, _Lease] = {}
        self._lease_ids = itertools.count(1)
        self._log: dict[int, tuple[Event, ...]] = {}
        self._news = trio.Event()
        self._ticked = float("inf")  # nobody keeps the time: standing still is not told

    async def keep_time(self) -> None:
        """Tell from now on when the process has stood still; until cancelled."""
        while True:
            self._forgive()
            self._ticked = trio.current_time()
            await trio.sleep(TICK)

    @property
    def kind(self) -> str:
        """``memory``."""
        return "memory"

    async def snapshot(self, prefixes: Sequence[str]) -> Snapshot:
        """All keys below `prefixes`, at one revision, sorted by key."""
        await trio.lowlevel.checkpoint()
        self._expire()
        wanted = normal_prefixes(prefixes)
        items = sorted((key, kv) for key, kv in self._keys.items() if key.startswith(wanted))
        return Snapshot(self._revision, tuple(kv for _, kv in items))

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        """Apply `ops` as one transaction if all `guards` hold.

        Raises:
            LeaseNotFound, StoreRejected.
        """
        check_commit(ops, guards)
        await trio.lowlevel.checkpoint()
        self._expire()
        for guard in guards:
            held = self._keys.get(guard.key)
            if guard.revision != (held.revision if held else 0):
                return Commit(False, self._revision)
        for op in ops:
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise LeaseNotFound(f"lease {op.lease:x} for key {op.key!r}")
        self._apply(ops)
        return Commit(True, self._revision)

    async def grant(self, ttl: float) -> int:
        """A new lease of `ttl` seconds, rounded up to whole ones."""
        await trio.lowlevel.checkpoint()
        self._expire()
        lease, seconds = next(self._lease_ids), whole_seconds(ttl)
        self._leases[lease] = _Lease(seconds, trio.current_time() + seconds)
        self._wake()  # a waiting watch may have a nearer deadline now
        return lease

    async def renew(self, lease: int) -> float:
        """Renew a lease; the seconds it now has.

        Raises:
            LeaseNotFound.
        """
        await trio.lowlevel.checkpoint()
        self._expire()
        held = self._leases.get(lease)
        if held is None:
            raise LeaseNotFound(f"lease {lease:x}")
        held.deadline = trio.current_time() + held.ttl
        return float(held.ttl)

    async def revoke(self, lease: int) -> None:
        """End a lease and delete what is attached to it; no fault when it is gone."""
        await trio.lowlevel.checkpoint()
        self._expire()
        self._end_lease(lease)

    @asynccontextmanager
    async def watch(self, prefixes: Sequence[str], after: int) -> AsyncIterator[MemoryWatch]:
        """Watch `prefixes` for everything that changes after revision `after`."""
        yield MemoryWatch(self, normal_prefixes(prefixes), after)

    def _read(self, after: int, prefixes: tuple[str, ...]) -> Delta:
        """The first transaction after `after` that touches `prefixes`, or how far there is none."""
        self._expire()
        oldest = self._revision - len(self._log)  # the newest revision that is not in the log
        if not oldest <= after <= self._revision:
            raise Compacted(f"revision {after} is not within {oldest} to {self._revision}")
        for revision in range(after + 1, self._revision + 1):
            events = tuple(e for e in self._log[revision] if e.key.startswith(prefixes))
            if events:
                return Delta(revision, events)
        return Delta(self._revision)

    def _apply(self, ops: Sequence[Op]) -> None:
        revision = self._revision + 1
        events: list[Event] = []
        for op in ops:
            before = self._keys.pop(op.key, None)
            if before is not None and before.lease in self._leases:
                self._leases[before.lease].keys.discard(op.key)
            if isinstance(op, Put):
                after = KeyValue(op.key, bytes(op.value), revision, op.lease)
                self._keys[op.key] = after
                if op.lease:
                    self._leases[op.lease].keys.add(op.key)
                events.append(after)
            elif before is not None:
                events.append(Removed(op.key, revision))
        if events:
            self._revision = revision
            self._log[revision] = tuple(events)
            self._log.pop(revision - self._history, None)
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _forgive(self) -> None:
        """Give every lease the time that the process stood still."""
        late = trio.current_time() - self._ticked
        if late > STOOD:
            for held in self._leases.values():
                held.deadline += late
            self._ticked += late

    def _expire(self) -> None:
        self._forgive()
        now = trio.current_time()
        over = [(held.deadline, lease) for lease, held in self._leases.items()]
        for deadline, lease in sorted(over):
            if deadline > now:
                break
            self._end_lease(lease)

    def _end_lease(self, lease: int) -> None:
        held = self._leases.get(lease)
        if held is not None:
            self._apply([Delete(key) for key in sorted(held.keys)])
            del self._leases[lease]

    def _next_deadline(self) -> float:
        return min((held.deadline for held in self._leases.values()), default=float("inf"))


class MemoryWatch:
    """A position in the store's log."""

    def __init__(self, store: MemoryStore, prefixes: tuple[str, ...], after: int) -> None:
        self._store = store
        self._prefixes = prefixes
        self._position = after
        self._spoke = trio.current_time()

    def __aiter__(self) -> MemoryWatch:
        """Itself."""
        return self

    async def __anext__(self) -> Delta:
        """The next changes or sign of life.

        Raises:
            Compacted: the position is no longer, or not yet, in the store's history.
        """
        await trio.lowlevel.checkpoint()
        while True:
            delta = self._store._read(self._position, self._prefixes)
            quiet_until = self._spoke + self._store._progress_interval
            self._position = delta.revision
            if delta.events or trio.current_time() >= quiet_until:
                self._spoke = trio.current_time()
                return delta
            with trio.CancelScope(deadline=min(quiet_until, self._store._next_deadline())):
                await self._store._news.wait()


@asynccontextmanager
async def open_memory_store() -> AsyncIterator[MemoryStore]:
    """A fresh, empty store, whose revisions follow those of any store opened before.

    That holds while the earlier one changed less than once a second on average, and the clock of
    the host was not set back.
    """
    store = MemoryStore(revision=int(time.time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.keep_time)
        yield store
        nursery.cancel_scope.cancel()
