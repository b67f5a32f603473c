"""What is known of one upstream, and whom to ask first.

Rule: an upstream that did not answer, and nothing else meanwhile, is down, and asked only when all
are, until it has answered a probe; how it answers otherwise (its time, whether it keeps case, takes
EDNS, has cookies) is remembered for a while, since it may change. Pure: `now` and chance are the
caller's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, Literal

from discod.model.settings import ListenAddress

WEIGHT: Final = 0.2
"""Of the newest response time in the moving average."""
EXPLORE: Final = 0.05
"""Share of questions that go to another than the fastest upstream, to keep knowing the others."""
FORGET: Final = 3_600.0
"""Seconds after which an upstream that lacked something is tried with it again."""


class Upstream:
    """One name server."""

    def __init__(self, server: ListenAddress, cookie: bytes) -> None:
        address = server.address
        at = f"[{address}]" if address.version == 6 else str(address)
        self.server = server
        self.label = f"{at}:{server.port}"
        self.client = str(address)
        """As a client that is this server would look."""
        self.private = address.is_private or address.is_loopback or address.is_link_local
        self.down = False
        self.failed_at = self.answered_at = float("-inf")
        self.average: float | None = None
        """Moving average of its response times, seconds; None: not known."""
        self.cookie = cookie
        """Ours towards it (RFC 7873, section 4.1): 8 octets that nobody else knows."""
        self.server_cookie = b""
        """Its last one for us; empty: it is not known to have any."""
        self._no_case = self._no_edns = float("-inf")

    def answered(self, seconds: float, now: float) -> None:
        """It answered, after so long."""
        self.down = False
        self.answered_at = now
        old = self.average
        self.average = seconds if old is None else old + WEIGHT * (seconds - old)

    def failed(self, now: float, asked: float) -> bool:
        """It did not answer what it was asked at `asked`; whether it is down only now.

        It is not when it has answered others since: then that one question was lost, or takes the
        upstream long itself, since those it asks are down.
        """
        if self.answered_at >= asked:
            return False
        news = not self.down
        self.down, self.failed_at = True, now
        return news

    def keeps_case(self, now: float) -> bool:
        """Whether its replies are expected in the very case of the question."""
        return now >= self._no_case

    def lost_case(self, now: float) -> None:
        """It replied to the right question in another case."""
        self._no_case = now + FORGET

    def takes_edns(self, now: float) -> bool:
        """Whether it may be asked with EDNS."""
        return now >= self._no_edns

    def refused_edns(self, now: float) -> None:
        """It called a query with EDNS wrong (RFC 6891, section 7)."""
        self._no_edns = now + FORGET


def order(
    upstreams: Iterable[Upstream], policy: Literal["order", "fastest"], rng: random.Random
) -> list[Upstream]:
    """Whom to ask, the best first; those that are down last, the one that failed first ahead."""
    up: list[Upstream] = []
    down: list[Upstream] = []
    for one in upstreams:
        (down if one.down else up).append(one)
    down.sort(key=lambda one: one.failed_at)
    if policy == "fastest" and len(up) > 1:
        up.sort(key=lambda one: one.average or 0.0)  # who was never asked comes first
        if rng.random() < EXPLORE:
            up.insert(0, up.pop(rng.randrange(1, len(up))))
    return up + down
