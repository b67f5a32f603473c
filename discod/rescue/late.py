"""Places whose last answers may still be on their way. Pure: time is the caller's."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

from discod.model.rescue import Place

LATE: Final = 0.05
"""Seconds after the end of a place's flows until what its last answers began is ended too."""


class Late:
    """Of UDP: who answers by TCP can begin nothing."""

    def __init__(self) -> None:
        self.due = math.inf
        """When to `take`; infinite: there is nothing."""
        self._places: set[Place] = set()

    def add(self, places: Iterable[Place], now: float) -> None:
        """Note whose flows are being ended; what is there already waits no longer for it."""
        some = {place for place in places if place.protocol == "udp"}
        if some:
            self._places |= some
            self.due = min(self.due, now + LATE)

    def leave(self, places: Iterable[Place]) -> None:
        """Note that places are in use again: what they begin is their own."""
        self._places.difference_update(places)

    def take(self, now: float) -> Collection[Place]:
        """All of them, once; none before they are due."""
        if now < self.due:
            return ()
        taken, self._places, self.due = self._places, set(), math.inf
        return taken
