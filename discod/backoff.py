"""Pauses between the repetitions of a call that failed. Pure: randomness is handed in."""

from __future__ import annotations

import random

FIRST = 0.05
"""Seconds, the bound of the first pause; doubles with each failure up to `MOST`. A broken
connection takes no time to mend, an election in etcd about a second."""
MOST = 2.0
"""Seconds: how much later than what is awaited one may be back."""


class Backoff:
    """Growing pauses, each from half of the present bound to the whole of it.

    The jitter keeps many hosts from coming back in step.
    """

    def __init__(self, rng: random.Random, first: float = FIRST, most: float = MOST) -> None:
        self._rng, self._first, self._most = rng, first, most
        self._bound = first

    def reset(self) -> None:
        """The call worked: begin with the shortest pause next time."""
        self._bound = self._first

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        bound = self._bound
        self._bound = min(bound * 2, self._most)
        return self._rng.uniform(bound / 2, bound)
