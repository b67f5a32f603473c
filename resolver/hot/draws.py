"""One RRset in many orders, cheaply.

Rule: a draw is what the responder would say, had it drawn the same order: the records are encoded
once, and only their order is new. Names in them point into the question alone, so the octets of a
record do not depend on where it stands. Whether all of that holds is looked at once, against an
answer of the responder's own; where it does not, there are no draws. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log

from resolver.encode import Owners, encode_record
from resolver.record import Name
from resolver.rrset import Record


class Draws:
    """The orders of one RRset, and all that stands around it in a response."""

    def __init__(
        self, head: bytes, tail: bytes, answers: Sequence[bytes], records: Sequence[Record]
    ) -> None:
        self._head = head
        self._tail = tail
        self._answers = answers
        self._exponents = [record.exponent for record in records]
        self._ranks = [record.rank for record in records] if records[0].rank else None
        self._even = self._ranks is None and len(set(self._exponents)) == 1
        self._extras: list[bytes] | None = None

    @classmethod
    def of(cls, name: Name, records: Sequence[Record], body: bytes, start: int) -> Draws | None:
        """Draws of `records`, asked at `name`, if `body` is nothing but them in some order.

        Args:
            name: That was asked.
            records: The whole RRset.
            body: A response of the responder's without its id.
            start: Where its first record is.
        """
        owners = Owners(name)
        answers = [encode_record(owners, record.rr) for record in records]
        made = cls(body[:start], b"", answers, records)
        size = start + sum(map(len, answers))
        extras: dict[int, bytes] = {}
        for record in records:
            if record.extra and id(record.extra) not in extras:
                extras[id(record.extra)] = b"".join(
                    [encode_record(owners, rr) for rr in record.extra]
                )
        if extras:
            made._extras = [extras.get(id(record.extra), b"") for record in records]
            size += sum(map(len, extras.values()))
        if int.from_bytes(body[4:6], "big") != len(records) or size > len(body):
            return None
        made._tail = body[size:]
        drawn = body[start:size]
        if any(piece not in drawn for piece in (*answers, *extras.values())):
            return None
        return made

    def draw(self, rng: random.Random) -> bytes:
        """One order, as `resolver.rrset.drawn` has them."""
        answers = self._answers
        order = list(range(len(answers)))
        if self._even:
            rng.shuffle(order)
        else:
            draw = rng.random
            keys = [log(1.0 - draw()) * exponent for exponent in self._exponents]
            ranks = self._ranks
            if ranks is None:
                order.sort(key=keys.__getitem__, reverse=True)
            else:
                order.sort(key=lambda i: (ranks[i], -keys[i]))
        extras = self._extras
        middle: Sequence[bytes] = ()
        if extras is not None:
            # Of each target once, at its first place; pieces of two targets are never equal.
            middle = list(dict.fromkeys([extras[i] for i in order]))
        return b"".join([self._head, *[answers[i] for i in order], *middle, self._tail])
