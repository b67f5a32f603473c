"""Adds what workers count to the daemon's metrics, exactly once.

Rule: a row is only ever read; what is added is the difference to the last reading, so it does not
matter how often that happens. The last reading is made when the worker has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from discod.metrics import Metrics
from discod.metrics_buckets import FAST
from resolver.answer import Transport
from resolver.counts import Counts
from resolver.hot import slots

_BUCKETS: Final = slice(slots.BUCKETS, slots.BUCKETS + len(FAST) + 1)

_UNKNOWN: Final = -1
"""Type of queries that were dropped unread."""
_Add = Callable[[int], object]


class Merger:
    """Knows what each slot counts.

    Args:
        counts: Where to add.
        metrics: Where to add what `counts` does not know.
        domain: Label of our own zone, the only one that is answered from memory.
        transport: What the queries came over.
    """

    def __init__(
        self, counts: Counts, metrics: Metrics, domain: str, transport: Transport = "udp"
    ) -> None:
        self._duration = metrics.dns_duration.labels(domain)
        # A slot may count towards several metrics.
        self._adds: list[tuple[int, _Add]] = [
            (slots.SILENT_PACKETS, partial(counts.add_malformed, transport)),
            (slots.RATE_DROPPED, partial(counts.add_limited, "drop")),
            (slots.RATE_DROPPED, partial(counts.add_queries, "domain", transport, _UNKNOWN)),
            (slots.RATE_SLIPPED, partial(counts.add_limited, "slip")),
            (slots.COOKIES_VALID, partial(counts.add_cookies, "valid")),
            (slots.COOKIES_NEW, partial(counts.add_cookies, "new")),
            (slots.COOKIES_BAD, partial(counts.add_cookies, "bad")),
            (slots.OVERFLOW, metrics.dns_dropped.labels("overflow").inc),
            (slots.SEND_FAILED, metrics.dns_dropped.labels("unsent").inc),
        ]
        for slot in range(slots.KINDS, slots.SLOTS):
            type_, rcode, truncated = slots.kind_meaning(slot)
            self._adds.append((slot, partial(counts.add_queries, "domain", transport, type_)))
            self._adds.append((slot, partial(counts.add_responses, rcode, truncated)))

    def add(self, before: list[int], now: list[int]) -> None:
        """Add the difference between two readings of one row."""
        for slot, add in self._adds:
            more = now[slot] - before[slot]
            if more:
                add(more)
        counts = [n - b for n, b in zip(now[_BUCKETS], before[_BUCKETS], strict=True)]
        if any(counts):
            nanoseconds = now[slots.SECONDS] - before[slots.SECONDS]
            self._duration.add(counts, nanoseconds / 1e9)


class Reading:
    """One row, and what of it has been added.

    Args:
        merger: Where to add.
        row: As `resolver.hot.slots` has it.
    """

    def __init__(self, merger: Merger, row: memoryview) -> None:
        self._merger = merger
        self._row = row
        self._last = [0] * slots.SLOTS

    def merge(self) -> None:
        """Add what came since the last time."""
        now = self._row.tolist()
        self._merger.add(self._last, now)
        self._last = now
