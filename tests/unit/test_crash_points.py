"""The publisher killed at every one of its store calls: the next run always ends with the truth.

`tests/lab/faults/test_daemon.py` does it to a whole daemon, at the calls of one start; here it is
each call of a life with announcements, withdrawals and removals, done and not done.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
import trio
import trio.testing

from announcer.ledger import Ledger, Status
from announcer.publish import Publisher
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, Producer, Reason
from discod.model.schema import Keyspace
from discod.store.base import Store
from discod.store.follow import follow
from discod.store.memory import MemoryStore, open_memory_store
from tests.observing import Into

KEYS = Keyspace()
TTL = 10.0
HOST_KEY = KEYS.host("h1")


def endpoint(n: int) -> Endpoint:
    return Endpoint(
        "web", f"h1-{n}", ip_address(f"10.0.0.{n}"), 80, host="h1", producer=Producer.DOCKER
    )


World = Mapping[int, Reason | None]
"""Containers that exist -> why they are not up."""
LIFE: Sequence[World] = (
    {1: None, 2: None},
    {1: Reason.CRASHED, 2: None},
    {1: None, 3: None},
    {3: Reason.UNHEALTHY},
)
"""What one run of the daemon sees, one after the other."""
AFTER: Sequence[World] = ({1: None, 2: None, 3: None}, {2: Reason.PAUSED, 3: None}, {})
"""What the next run finds."""


class Mortal:
    """A store whose caller is killed at its `step`-th call, when it was `done` or before."""

    def __init__(self, store: MemoryStore, step: int, *, done: bool) -> None:
        self._store = store
        self._step = step
        self._done = done
        self.calls = 0
        self.killed = trio.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._wrapped(found) if name in ("commit", "grant", "renew", "snapshot") else found

    def _wrapped(self, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def wrapped(*args: object) -> object:
            self.calls += 1
            if self.calls < self._step or not self._step:
                return await call(*args)
            if self.calls == self._step and self._done:
                await call(*args)
            self.killed.set()
            await trio.sleep_forever()  # the dead hear no answer, and ask no more
            raise AssertionError

        return wrapped


class Remembering(Publisher):
    """Keeps the lease id in the test: the file's thread and a clock that jumps do not mix."""

    memory: dict[str, int]

    async def _remembered(self) -> int:
        return self.memory.get("lease", 0)

    async def _remember(self, lease: int) -> None:
        self.memory["lease"] = lease


@asynccontextmanager
async def running(store: Store, memory: dict[str, int]) -> AsyncIterator[Publisher]:
    publisher = Remembering(
        store,
        Ledger(KEYS, "h1"),
        keys=KEYS,
        lease_ttl=TTL,
        history_ttl=100.0,
        lease_file=None,
        metrics=Metrics(),
        rng=random.Random(1),
        clock=lambda: 1000.0 + trio.current_time(),
    )
    publisher.memory = memory
    publisher.ledger.keep(HOST_KEY, b"{}")

    async def following() -> None:
        await follow(store, KEYS.prefixes, Into(publisher), rng=random.Random(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        nursery.start_soon(following)
        yield publisher
        nursery.cancel_scope.cancel()


def show(publisher: Publisher, world: World) -> None:
    """Tell it how each container stands, as the roster does."""
    for n in (1, 2, 3):
        statuses = [Status(endpoint(n), world[n], "", 1000.0)] if n in world else []
        publisher.ledger.offer(f"u{n}", statuses, gone=Reason.REMOVED, now=1000.0)
    publisher.ledger.engine_listed()
    publisher.wake()


async def live(store: Mortal, memory: dict[str, int]) -> None:
    """One run of the daemon, to its end or until it is killed."""
    async with trio.open_nursery() as nursery:

        async def reaper() -> None:
            await store.killed.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(reaper)
        async with running(store, memory) as publisher:
            for world in LIFE:
                show(publisher, world)
                await publisher.settled()
        nursery.cancel_scope.cancel()


async def verify(store: MemoryStore, world: World, memory: dict[str, int]) -> None:
    found = {item.key: item for item in (await store.snapshot(KEYS.prefixes)).items}
    up = {KEYS.record(endpoint(n).id) for n, reason in world.items() if reason is None}
    down = {KEYS.record(endpoint(n).id) for n in (1, 2, 3)} - up
    assert found.keys() & (up | down) == up
    assert {found[key].lease for key in up | {HOST_KEY}} == {memory["lease"]}
    hidden = {KEYS.withdrawn("h1", endpoint(n).id) for n, why in world.items() if why is None}
    assert not hidden & found.keys(), "a withdrawal of what is there"
    said = {KEYS.withdrawn("h1", endpoint(n).id) for n, why in world.items() if why is not None}
    assert said <= found.keys()


@pytest.mark.parametrize("booted", [False, True], ids=["restart", "boot"])
@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("after", AFTER, ids=["all-up", "mixed", "none"])
async def test_killed_at_every_store_call(
    autojump_clock: trio.testing.MockClock, after: World, done: bool, booted: bool
) -> None:
    step = 0
    while True:
        step += 1
        memory: dict[str, int] = {}
        async with open_memory_store() as store:
            mortal = Mortal(store, step, done=done)
            await live(mortal, memory)
            if booted:
                memory.clear()  # the runtime directory does not outlive a boot
            async with running(store, memory) as publisher:
                show(publisher, after)
                await publisher.settled()
                await verify(store, after, memory)
                await trio.sleep(3 * TTL)  # and no lease of the dead takes anything along
                await verify(store, after, memory)
        if not mortal.killed.is_set():
            break
    assert step > 7, "a snapshot, two leases, a renewal at the end, and a write for each change"
