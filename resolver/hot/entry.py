"""One remembered question, and the answers to it in turn.

Rule: over many answers every order comes up as often as it should. Where all orders there are were
made, they are used one after the other, or chosen as often as each is likely; else some are used as
often as each other, and are replaced little by little by new ones. Pure.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, repeat
from typing import Final, Generic, TypeVar

from resolver.answer import Outcome
from resolver.hot.draws import Draws
from resolver.hot.orders import spread
from resolver.hot.slots import kind

T = TypeVar("T")
U = TypeVar("U")

OCTETS_MAX: Final = 28 * 1024 * 1024
"""Octets of all answers remembered, with what they take beside; beyond it the oldest go."""
ENTRY_OCTETS: Final = 950
DRAW_OCTETS: Final = 140
CHANCES_OCTETS: Final = 750
"""Octets of memory that a key, each answer to it, and the choice among answers that are not all
alike take, beside the answers' own (measured; a test compares)."""
DRAWS_MAX: Final = 8
"""Orders of one answer kept."""
ROUNDS: Final = 16
"""How often all draws are used before some of them are replaced; while there are fewer than
`DRAWS_MAX`, each question gets one of its own."""
SPARING: Final = 4
"""How often those that the responder made, which takes up to half a millisecond."""
REDRAWN: Final = 2
"""Draws replaced at a time."""

Found = tuple[int, int, int, bytes]
"""(address, length, kind, body): an answer without its id. Address 0: it is of this query alone,
and has to be copied to where it is sent from."""

SILENT: Final[Found] = (0, 0, -1, b"")
"""Not to be answered at all: its kind is below 0."""

NOTHING: Final[Found] = (0, 0, 0, b"")
"""Not at hand: what the first tier gives where the answer has to be found, of no kind."""


class Answers(dict[bytes, Iterator[T]], Generic[T]):
    """The first tier: keys, each with its answers one after the other, without end.

    Those of a key that is not there are nothing.

    Args:
        nothing: What stands for `NOTHING`: whoever gets it has to look elsewhere.
    """

    def __init__(self, nothing: T) -> None:
        self.nothing = nothing
        self._none = repeat(nothing)

    def __missing__(self, key: bytes) -> Iterator[T]:
        return self._none


def told(body: bytes, type_: int, outcome: Outcome) -> Found:
    """An answer of one query alone."""
    return 0, len(body), kind(type_, outcome.rcode, outcome.truncated), body


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One key and the answers to it.

    `T` is the form in which the first tier gives an answer to whoever sends it.
    """

    norm: bytes
    """The key."""
    labels: tuple[bytes, ...]
    """What it depends on."""
    kind: int
    source: Draws | None = None
    """Where more orders come from; None: from the responder, which takes longer."""
    complete: bool = False
    """There are no orders but those that are kept."""
    chances: Sequence[float] = ()
    """How likely each of those is, added up; empty: all alike."""
    bodies: list[bytes] = field(default_factory=list)
    forms: list[T] = field(default_factory=list)
    """The draws, and what the first tier gives for each."""
    octets: int = 0
    """Of memory."""
    asleep: bool = False
    """Nobody has asked since it was made anew after a change."""
    alive: bool = True
    _last: int = -1  # the draw that came last
    _others: Iterator[bytes | None] | None = None

    def others(self, rng: random.Random) -> list[bytes]:
        """All orders but the one that was drawn first, where they are few: there are no more."""
        source = self.source
        if self.complete or source is None or not source.orders:
            return []
        self.complete, self.chances = True, source.chances
        return [source.draw(rng) for _ in range(source.orders - 1)]

    def begin(self, bodies: Sequence[bytes], forms: Sequence[T]) -> int:
        """Take the first draws; what they take of memory, and what is kept to draw more."""
        self.bodies += bodies
        self.forms += forms
        if self.complete:
            self.source = None
        octets = self.source.octets if self.source is not None else 0
        octets += CHANCES_OCTETS if self.chances else 0
        return octets + sum(map(len, bodies)) + DRAW_OCTETS * len(bodies)

    def latest(self, rng: random.Random) -> bytes:
        """For who asked when draws were made: the one that came last."""
        if self.chances:
            return self.bodies[bisect_right(self.chances, rng.random())]
        return self.bodies[self._last]

    @property
    def wanted(self) -> int:
        """How many draws are to be made when all were used: as many as there are, then some."""
        if self.complete:
            return 0
        if self.source is None:
            return 1
        have = len(self.bodies)
        return min(have, DRAWS_MAX - have) or REDRAWN

    def add(self, body: bytes, form: T) -> bytes | None:
        """Take a draw; the one that it replaces, if any."""
        if len(self.bodies) < DRAWS_MAX:
            self._last = len(self.bodies)
            self.bodies.append(body)
            self.forms.append(form)
            return None
        at = self._last = (self._last + 1) % DRAWS_MAX
        replaced = self.bodies[at]
        self.bodies[at], self.forms[at] = body, form
        return replaced

    def deal(self, nothing: T, rng: random.Random) -> Iterator[T]:
        """The draws in turn, from behind the latest on, then `nothing`: it is time for others."""
        self._others = None
        return self._in_turn(self.forms, nothing, rng)

    def turn(self, rng: random.Random) -> bytes | None:
        """The next draw for a question in another form; None: it is time for others.

        These take their turns by themselves: who asks in one form sees nothing of the other.
        """
        if self._others is None:
            self._others = self._in_turn(self.bodies, None, rng)
        return next(self._others)

    def _in_turn(self, draws: Sequence[U], end: U, rng: random.Random) -> Iterator[U]:
        """Never exhausted: at the end comes `end`, over and over."""
        if self.chances:
            return chain(spread(draws, self.chances, rng), repeat(end))
        first = self._last + 1
        draws = (*draws[first:], *draws[:first])
        if self.complete:
            return cycle(draws) if len(draws) > 1 else repeat(draws[0])
        enough = ROUNDS if len(draws) == DRAWS_MAX else 0
        rounds = SPARING if self.source is None else enough
        return chain.from_iterable(chain(repeat(draws, rounds), repeat((end,))))
