"""Places whose last answers may still be on their way. Pure: time is the caller's."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

from discod.model.rescue import Place

LATE: Final = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
"""Seconds after the end of a place's flows when what its answers have begun since is ended too.
Who stops goes on answering for a while (an engine allows it 10 s), and any of its answers may begin
something just while the entry goes by which it would have been one; so once more than once."""


class Late:
    """Of UDP: who answers by TCP can begin nothing."""

    def __init__(self) -> None:
        self.due = math.inf
        """When to `take`; infinite: there is nothing."""
        self._places: dict[Place, tuple[float, int]] = {}  # ended when, and taken how often since

    def add(self, places: Iterable[Place], now: float) -> None:
        """Note whose flows have just been ended."""
        self._places.update({place: (now, 0) for place in places if place.protocol == "udp"})
        self._plan()

    def leave(self, places: Iterable[Place]) -> None:
        """Note that places are in use again: what they begin is their own."""
        for place in places:
            self._places.pop(place, None)
        self._plan()

    def take(self, now: float) -> Collection[Place]:
        """Those that are due, each as often as `LATE` says."""
        if now < self.due:
            return ()
        taken = {place for place, (at, times) in self._places.items() if now >= at + LATE[times]}
        for place in taken:
            at, _ = self._places.pop(place)
            passed = sum(now >= at + after for after in LATE)  # some at once, if it is late itself
            if passed < len(LATE):
                self._places[place] = at, passed
        self._plan()
        return taken

    def _plan(self) -> None:
        waiting = self._places.values()
        self.due = min((at + LATE[times] for at, times in waiting), default=math.inf)
