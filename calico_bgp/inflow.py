"""Learned routes on their way from the sessions to the chosen paths.

Rule: in the order in which they came, a slice at a time, so that 100,000 routes that come or go at
once do not hold up anybody else; a small change is done at once. Bounded: a peer's connection is
not read on while more than `FULL` prefixes wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import islice
from typing import Final, NamedTuple

import trio

from calico_bgp.decision import Changed, LocRib
from calico_bgp.prefix import Address
from calico_bgp.rib import Change

SLICE: Final = 500
"""Prefixes in one go: some 3 ms of work."""
FULL: Final = 20_000
"""Prefixes that wait before readers do. One peer's loss adds all it had, which is bounded by what
was read (max_prefixes)."""


class _Item(NamedTuple):
    change: Change
    peer: Address
    router_id: IPv4Address
    external: bool


class Inflow:
    """The way into the Loc-RIB; `changed` is told what comes out, and does not raise."""

    def __init__(self, rib: LocRib, changed: Callable[[Changed], None]) -> None:
        self.rib = rib
        self._changed = changed
        self._queue: deque[_Item | Callable[[], None]] = deque()
        self._waiting = 0
        self._wake = trio.Event()
        self._room = trio.Event()

    def put(self, change: Change, peer: Address, router_id: IPv4Address, *, external: bool) -> None:
        """Take a change of one peer's routes."""
        size = len(change.announced) + len(change.withdrawn)
        if not self._queue and size <= SLICE:
            self._apply(_Item(change, peer, router_id, external))
            return
        withdrawn = iter(change.withdrawn)
        while gone := frozenset(islice(withdrawn, SLICE)):
            self._queue.append(_Item(Change({}, gone), peer, router_id, external))
        announced = iter(change.announced.items())
        while some := dict(islice(announced, SLICE)):
            self._queue.append(_Item(Change(some), peer, router_id, external))
        self._waiting += size
        self._wake.set()

    def then(self, call: Callable[[], None]) -> None:
        """Call it behind all that waits now; it does not raise."""
        if not self._queue:
            call()
            return
        self._queue.append(call)
        self._wake.set()

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self._waiting > FULL:
            await self._room.wait()

    async def run(self) -> None:
        """Work off what waits."""
        while True:
            while self._queue:
                item = self._queue[0]
                if isinstance(item, _Item):
                    self._apply(item)
                    self._waiting -= len(item.change.announced) + len(item.change.withdrawn)
                else:
                    item()
                # Only now: what comes meanwhile must not overtake it.
                self._queue.popleft()
                if self._waiting <= FULL:
                    self._room.set()
                    self._room = trio.Event()
                await trio.lowlevel.checkpoint()
            self._wake = trio.Event()
            await self._wake.wait()

    def _apply(self, item: _Item) -> None:
        change, peer, router_id, external = item
        self._changed(self.rib.apply(change, peer, router_id, external=external))
