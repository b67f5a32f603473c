"""How long the event loop was blocked: by code that does not let go, or since the process stood.

Rule: measures at the two moments of each turn of the loop, before and after it waits for news, and
so costs an idle daemon nothing. It can only speak afterwards; of a loop that never comes back the
service manager's watchdog learns by the silence (`discod.notify`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from discod.log import fields
from discod.metrics import Metrics

log = logging.getLogger(__name__)

BLOCKED = 1.0
"""Seconds from which on it is worth a warning: a third of the shortest sensible lease."""
SHOWN = 60.0
"""Seconds for which the gauge shows a peak at least (and at most twice as long), so that no scrape
misses it."""


class LoopLag(trio.abc.Instrument):
    """Measures the loop that it is added to (`trio.lowlevel.add_instrument`)."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._busy_since = clock()
        self._due = float("inf")
        self._peaks = [0.0, 0.0]  # of the last whole span, and of the present one
        self._span_ends = clock() + SHOWN
        metrics.loop_lag.set_function(lambda: self.peak)

    @property
    def peak(self) -> float:
        """Seconds, the longest that the loop was blocked lately."""
        self._turn(self._clock())
        return max(self._peaks)

    def before_io_wait(self, timeout: float) -> None:
        """All tasks that could run have run."""
        now = self._clock()
        self._note(now - self._busy_since, now)
        self._due = now + timeout

    def after_io_wait(self, timeout: float) -> None:
        """News, or it is time for something."""
        now = self._clock()
        self._note(now - self._due, now)
        self._busy_since = now

    def _note(self, blocked: float, now: float) -> None:
        if blocked > self._peaks[1]:
            self._turn(now)
            self._peaks[1] = max(self._peaks[1], blocked)
        if blocked > BLOCKED:
            self._metrics.loop_blocked.inc()
            log.warning("event loop was blocked", extra=fields(seconds=f"{blocked:.2f}"))

    def _turn(self, now: float) -> None:
        if now >= self._span_ends:
            gone = now >= self._span_ends + SHOWN
            self._peaks = [0.0 if gone else self._peaks[1], 0.0]
            self._span_ends = now + SHOWN
