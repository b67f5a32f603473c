"""The forwarder's share of the metrics.

Rule: label values come from closed sets: the configured upstreams (or those of resolv.conf), and
the results named here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from discod.metrics import Metrics

Look = Literal["hit", "stale", "failed", "miss", "shared"]
"""How a question fared with the cache. ``failed``: a failure that was kept. ``shared``: the same
question was under way already."""
Tried = Literal["ok", "timeout", "error", "refused", "malformed"]


class Tally:
    """Counts tries, look-ups and response times."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        looks: tuple[Look, ...] = ("hit", "stale", "failed", "miss", "shared")
        self._looks = {look: metrics.dns_cache.labels(look).inc for look in looks}

    def tried(self, upstream: str, result: str) -> None:
        """Count one try at an upstream; `result` is one of `Tried`."""
        self._metrics.dns_forwards.labels(upstream, result).inc()

    def looked(self, look: Look) -> None:
        """Count one question."""
        self._looks[look]()

    def entries(self, count: int) -> None:
        """Set the number of answers that are kept."""
        self._metrics.dns_cache_entries.set(count)

    def seconds(self, upstream: str, average: float) -> None:
        """Set an upstream's moving average."""
        self._metrics.dns_upstream_seconds.labels(upstream).set(average)

    def forget(self, upstream: str) -> None:
        """Take away the gauge of an upstream that is none any more."""
        with suppress(KeyError):  # it never answered
            self._metrics.dns_upstream_seconds.remove(upstream)
