"""The worker processes of a daemon, together.

Rule: each has a `Lane` of its own, and they share nothing but the news. The daemon's part in an
answer is none while a worker serves; what workers count is read when somebody asks for it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from typing import Any

import trio

from discod.metrics import Metrics
from resolver.counts import Counts
from resolver.hot import spawn
from resolver.hot.lane import Lane, Reason
from resolver.hot.merge import Merger
from resolver.hot.sync import News
from resolver.udp import Handle, Relay


class Workers:
    """Serves UDP sockets by one process for each lane.

    Args:
        news: What the workers are told.
        lanes: The sockets of each worker, in the same order of addresses; they stay the caller's.
        handle: Answers what a worker does not.
        relay: Forwards.
        counts: Where to count what workers answered.
        metrics: For what is about the workers themselves.
        domain: Label of our own zone.
        rng: For the jitter of pauses.
        boot: Python source that a worker runs.
    """

    def __init__(
        self,
        news: News,
        lanes: Sequence[Sequence[socket.socket]],
        handle: Handle[Any],
        relay: Relay[Any],
        counts: Counts,
        metrics: Metrics,
        domain: str,
        *,
        rng: random.Random,
        boot: str = spawn.BOOT,
    ) -> None:
        self._metrics = metrics
        merger = Merger(counts, metrics, domain)
        self.lanes = tuple(
            Lane(
                sockets,
                news,
                handle,
                relay,
                merger,
                changed=self._count,
                replaced=self._replaced,
                rng=rng,
                boot=boot,
            )
            for sockets in lanes
        )
        for reason in ("ended", "frozen"):
            metrics.dns_worker_restarts.labels(reason)
        metrics.before_exposition(self._merge)

    @property
    def serving(self) -> int:
        """Workers that answer at the moment."""
        return sum(lane.serving for lane in self.lanes)

    async def settled(self) -> None:
        """Wait until all answers are of the present state; the deadline is the caller's.

        For those who tell others of a change, who then come and ask: it takes a millisecond or two.
        """
        while not all(lane.current for lane in self.lanes):  # noqa: ASYNC110 - told by memory only
            await trio.sleep(0.001)

    async def run(self) -> None:
        """Serve until cancelled; no process is left then."""
        async with trio.open_nursery() as nursery:
            for lane in self.lanes:
                nursery.start_soon(lane.run)

    def _count(self) -> None:
        self._metrics.dns_workers.set(self.serving)

    def _replaced(self, reason: Reason) -> None:
        self._metrics.dns_worker_restarts.labels(reason).inc()

    def _merge(self) -> None:
        for lane in self.lanes:
            lane.merge()
