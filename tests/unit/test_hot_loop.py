"""The loop's counting of clients; its serving is in test_hot_supervisor and the lab."""

from __future__ import annotations

import socket
from contextlib import closing

from resolver.hot.loop import Loop
from resolver.hot.slots import SLOTS
from resolver.rrl import Limiter
from tests.hot import Hot
from tests.resolving import NAMED

CALM, LOUD = bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1))


def test_a_loud_client_does_not_count_against_the_calm_one() -> None:
    ends = socket.socketpair()
    with closing(ends[0]), closing(ends[1]):
        row = memoryview(bytearray(8 * SLOTS)).cast("Q")
        loop = Loop(Hot(NAMED["web"]).memo, row, (), *ends, lambda: True, lambda _: True)
        limiter = Limiter(5, 0, 0x9E3779B97F4A7C15)
        assert loop._above_rate(limiter, [CALM, LOUD] * 3) == frozenset()
        # The fourth to sixth of each: the loud one's come in one batch with two of the calm one's.
        assert loop._above_rate(limiter, [CALM] * 2 + [LOUD] * 3) == {LOUD}
        assert [limiter.verdict(LOUD, 0) for _ in range(3)] == ["pass", "pass", "drop"]
        assert limiter.verdict(CALM, 0) == "drop"  # five were its own
