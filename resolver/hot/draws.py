"""One RRset in many orders, cheaply.

Rule: a draw is what the responder would say, had it drawn the same order: the records are encoded
once, and only their order is new. Names in them point into the question alone, so the octets of a
record do not depend on where it stands. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log
from typing import Final, NamedTuple

from resolver.encode import Owners, encode_record
from resolver.record import Name
from resolver.rrset import Record

ROTATED_MAX: Final = 4
"""Records, at most, that are rotated instead of drawn, where all weigh the same: each is first, and
second, as often as the others, and half as many answers have to stay in the processor's caches as
if every order were kept (it is their misses that an answer from memory costs)."""

_QUESTION_AND_NOTHING = b"\0\1"


class Frame(NamedTuple):
    """What stands around the records in a response to one kind of query."""

    flags: bytes
    tail: bytes
    """The OPT record, if any."""


class Draws:
    """The orders of one RRset, as the answer to one question.

    Args:
        frame: Of the kind of query.
        question: As it is in the key.
        name: That was asked, in lower case.
        records: The whole RRset.
        rng: For the order in which orders come.
    """

    __slots__ = ("_answers", "_even", "_exponents", "_extras", "_left", "_ranks", "_tail", "head")

    def __init__(
        self,
        frame: Frame,
        question: bytes,
        name: Name,
        records: Sequence[Record],
        rng: random.Random,
    ) -> None:
        owners = Owners(name)
        self._answers = [encode_record(owners, record.rr) for record in records]
        self._extras: list[bytes] | None = None
        additional = 1 if frame.tail else 0
        if any(record.extra for record in records):
            extras: dict[int, bytes] = {}
            for record in records:
                extra = record.extra
                if id(extra) not in extras:
                    extras[id(extra)] = b"".join([encode_record(owners, rr) for rr in extra])
                    additional += len(extra)
            self._extras = [extras[id(record.extra)] for record in records]
        count = len(records)
        self.head = b"".join(
            (
                frame.flags,
                _QUESTION_AND_NOTHING,
                count.to_bytes(2, "big"),
                b"\0\0",
                additional.to_bytes(2, "big"),
                question,
            )
        )
        self._tail = frame.tail
        exponents = [record.exponent for record in records]
        self._ranks = [record.rank for record in records] if records[0].rank else None
        self._even = self._ranks is None and len(set(exponents)) == 1
        self._exponents = exponents
        self._left: list[tuple[int, ...]] | None = None
        if self._even and count <= ROTATED_MAX:
            order = list(range(count))
            rng.shuffle(order)
            self._left = [(*order[i:], *order[:i]) for i in range(count)]

    @property
    def orders(self) -> int:
        """How many draws there are, all different; 0: they are without end."""
        return len(self._answers) if self._left is not None else 0

    @property
    def size(self) -> int:
        """Octets of a response, the id included."""
        extras = sum(map(len, dict.fromkeys(self._extras))) if self._extras is not None else 0
        return 2 + len(self.head) + sum(map(len, self._answers)) + extras + len(self._tail)

    @property
    def octets(self) -> int:
        """Of memory, about."""
        return 400 + sum(len(answer) + 70 for answer in self._answers)

    def draw(self, rng: random.Random) -> bytes:
        """One order more, as `resolver.rrset.drawn` has them."""
        answers = self._answers
        order: Sequence[int]
        if self._left is not None:
            order = self._left.pop()
        else:
            draw = rng.random
            keys = [log(1.0 - draw()) * exponent for exponent in self._exponents]
            ranks = self._ranks
            if ranks is None:
                order = sorted(range(len(answers)), key=keys.__getitem__, reverse=True)
            else:
                order = sorted(range(len(answers)), key=lambda i: (ranks[i], -keys[i]))
        pieces = [answers[i] for i in order]
        if self._extras is not None:
            # Of each target once, at its first place; pieces of two targets are never equal.
            pieces += dict.fromkeys([self._extras[i] for i in order])
        return b"".join((self.head, *pieces, self._tail))
