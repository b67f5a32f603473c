"""Snapshot, then watch, for ever: how a reader stays equal to the store.

Rule: the decisions are `Follower`'s, which is pure; `follow` only carries them out. What is
delivered never goes back in revision, except by a fresh snapshot.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import NoReturn, Protocol

import trio

from discod.backoff import Backoff
from discod.log import fields
from discod.store.base import (
    Compacted,
    Delta,
    Snapshot,
    Store,
    StoreError,
    StoreRejected,
    StoreUnavailable,
)

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told. None of these may block or raise."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Forget everything; this is the store now. Its revision may be lower than the last."""
        ...

    def delta(self, delta: Delta) -> None:
        """Changes, in the store's order, each exactly once; never without events."""
        ...

    def contact(self, revision: int) -> None:
        """A sign of life: everything up to `revision` has been delivered."""
        ...

    def disconnected(self, error: StoreError) -> None:
        """The store was lost, or is still lost; the next of the other calls ends that."""
        ...


class Follower:
    """Merges one snapshot and the watches after it into one history.

    Protocol of use:

    1. While `stale`, take a snapshot of the store and hand it to `restart`.
    2. Else open a watch after `revision`, and hand each of its Deltas to `deliver`, which returns
       what is new in it.
    3. When a watch breaks, go on with 2. When it says `Compacted`, call `lost` and go on with 1.

    `revision` is the high-water mark: everything up to it has been delivered, nothing above it.
    Only `restart` may lower it: that happens when the store itself was set back (an etcd restored
    from an older backup), which its watch reports as `Compacted`.
    """

    def __init__(self) -> None:
        self.stale = True
        self.revision = 0

    def restart(self, snapshot: Snapshot) -> Snapshot:
        """Begin a new history; whatever was delivered before no longer counts."""
        self.stale = False
        self.revision = snapshot.revision
        return snapshot

    def lost(self) -> None:
        """The watch cannot be resumed after `revision`."""
        self.stale = True

    def deliver(self, delta: Delta) -> Delta:
        """What of `delta` is above the mark (perhaps no event at all); raises the mark."""
        assert not self.stale
        events = delta.events
        if events and events[0].revision <= self.revision:  # in the store's order: a prefix
            events = tuple(event for event in events if event.revision > self.revision)
        self.revision = max(self.revision, delta.revision)
        return Delta(self.revision, events)


async def follow(
    store: Store, prefixes: Sequence[str], observer: Observer, *, rng: random.Random
) -> NoReturn:
    """Tell `observer` everything below `prefixes`, and go on through every failure of the store.

    Retried for ever: `StoreUnavailable` and `StoreRejected` (credentials can be put right without
    a restart), after a pause of 50 ms to 2 s with jitter. Other exceptions are bugs and propagate.
    """
    follower = Follower()
    backoff = Backoff(rng)
    failing = False

    def well() -> None:
        nonlocal failing
        if failing:
            log.info("store regained", extra=fields(revision=follower.revision))
        failing = False
        backoff.reset()

    while True:
        try:
            if follower.stale:
                observer.snapshot(follower.restart(await store.snapshot(prefixes)))
            async with store.watch(prefixes, follower.revision) as watch:
                async for delta in watch:
                    new = follower.deliver(delta)
                    if new.events:
                        observer.delta(new)
                    else:
                        observer.contact(new.revision)
                    well()
            raise StoreUnavailable("the watch ended without saying why")
        except Compacted as error:
            follower.lost()
            log.info("store history lost, reading anew", extra=fields(error=error))
            # A store that compacts faster than we read must not make us spin.
            await trio.sleep(backoff.pause())
        except (StoreUnavailable, StoreRejected) as error:
            if not failing:
                log.warning("store lost, trying again", extra=fields(error=error))
            failing = True
            observer.disconnected(error)
            await trio.sleep(backoff.pause())
