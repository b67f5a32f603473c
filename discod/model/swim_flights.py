"""Pings and questions under way, ours and those done for others.

Rule: a nonce stands for one of them until it is answered or too old; what is unknown is nobody's.
Bounded: what is done for others by `RELAYS_MAX`, our own by what a step sends. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

RELAYS_MAX = 256
"""Questions of others under way at once; more are not taken, and the asker has other helpers."""


class Chance(Protocol):
    """What of `random.Random` is wanted here: unpredictable in life, seeded in tests."""

    def getrandbits(self, k: int, /) -> int:
        """A number of so many random bits."""
        ...

    def random(self) -> float:
        """A number from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Out:
    """A ping or a question under way."""

    host: str
    """Whom it is about."""
    at: float
    asker: str = ""
    """For whom it is done; empty: for ourselves."""
    theirs: int = 0
    """The asker's nonce."""


class Flights:
    """All of them, by nonce."""

    def __init__(self, rng: Chance) -> None:
        self._rng = rng
        self._out: dict[int, Out] = {}
        self._helping = 0

    @property
    def full(self) -> bool:
        """Whether no more can be done for others."""
        return self._helping >= RELAYS_MAX

    def start(self, out: Out) -> int:
        """Its nonce."""
        nonce = self._rng.getrandbits(62)
        self._out[nonce] = out
        self._helping += bool(out.asker)
        return nonce

    def get(self, nonce: int) -> Out | None:
        """What a nonce stands for."""
        return self._out.get(nonce)

    def end(self, nonce: int) -> Out | None:
        """Take it out."""
        out = self._out.pop(nonce, None)
        self._helping -= bool(out is not None and out.asker)
        return out

    def forget(self, before: float) -> None:
        """Give up what was sent before."""
        for nonce in [n for n, out in self._out.items() if out.at < before]:
            self.end(nonce)

    def done_for_others(self, host: str) -> list[Out]:
        """Take out all that was done for others about a host."""
        nonces = [n for n, out in self._out.items() if out.asker and out.host == host]
        return [out for n in nonces if (out := self.end(n)) is not None]
