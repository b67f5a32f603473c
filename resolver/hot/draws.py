"""One RRset in many orders, cheaply.

Rule: a draw is what the responder would say, had it drawn the same order: the records are encoded
once, and only their order is new. Names in them point into the question alone, so the octets of a
record do not depend on where it stands. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby
from math import log
from operator import itemgetter
from typing import Final, NamedTuple

from resolver.encode import Owners, encode_record, encode_rrset
from resolver.hot.orders import Order, chances, every, rotations
from resolver.record import OPT, RR, Name
from resolver.rrset import Record
from resolver.wire import read_records

ROTATED_MAX: Final = 4
"""Records, at most, that are rotated instead of drawn, where all weigh the same: each is first, and
second, as often as the others, and half as many answers have to stay in the processor's caches as
if every order were kept (it is their misses that an answer from memory costs)."""

SAMPLED_MAX: Final = 3
"""Records, at most, of different weights of which every order is made, once; see `orders`. Of four
there are 24."""

_QUESTION_AND_NOTHING = b"\0\1"
_ID = b"\0\0"
_ARCOUNT = 8
"""Where the count of additional records stands in a body."""

_Target = tuple[tuple[bytes, int], ...]
"""RRsets: their octets, and how many records they are."""


class Frame(NamedTuple):
    """What stands around the records in a response to one kind of query."""

    flags: bytes
    tail: bytes
    """The OPT record, if any."""


def frame_of(body: bytes, end: int) -> Frame:
    """What stands around the records in a response without its id, whose question ends at `end`."""
    counts = [int.from_bytes(body[at : at + 2], "big") for at in (4, 6, _ARCOUNT)]
    spans = read_records(_ID + body, len(_ID) + end, sum(counts))
    opt = spans and spans[-1].type == OPT
    return Frame(body[:2], body[spans[-1].start - len(_ID) :] if opt else b"")


class Draws:
    """The orders of one RRset, as the answer to one question.

    Args:
        frame: Of the kind of query.
        question: As it is in the key.
        name: That was asked, in lower case.
        records: The whole RRset.
        rng: For the order in which orders come.
        limit: Octets that a response may have, the id included; what of the additional section does
            not fit is left out, as `resolver.encode` does it. The records themselves have to fit:
            see `least`.
    """

    __slots__ = (
        "_answers",
        "_beside",
        "_exponents",
        "_extras",
        "_left",
        "_limit",
        "_ranks",
        "_room",
        "_tail",
        "chances",
        "head",
        "least",
        "orders",
    )

    def __init__(
        self,
        frame: Frame,
        question: bytes,
        name: Name,
        records: Sequence[Record],
        rng: random.Random,
        limit: int,
    ) -> None:
        owners = Owners(name)
        self._answers = encode_rrset(owners, [record.rr for record in records])
        self._extras: list[_Target] | None = None
        additional = 1 if frame.tail else 0
        extra_size = 0
        if any(record.extra for record in records):
            targets: dict[int, _Target] = {}
            for record in records:
                extra = record.extra
                if id(extra) not in targets:
                    target = targets[id(extra)] = _rrsets(owners, extra)
                    additional += len(extra)
                    extra_size += sum([len(octets) for octets, _ in target])
            self._extras = [targets[id(record.extra)] for record in records]
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
        self.least = 2 + len(self.head) + sum(map(len, self._answers)) + len(frame.tail)
        """Octets of a response with nothing left in the additional section."""
        self._limit = limit
        room = limit - self.least
        self._room = room if extra_size > room else -1
        exponents = [record.exponent for record in records]
        self._ranks = [record.rank for record in records] if records[0].rank else None
        self._exponents = exponents
        self._left: list[Order] | None = None
        self.chances: Sequence[float] = ()
        """Where there are `orders`, and not all are alike: how likely each is, in the order in
        which they are drawn, added up."""
        alike = len(set(exponents)) == 1
        if self._ranks is None and alike and count <= ROTATED_MAX:
            self._left = rotations(count, rng)
        elif self._ranks is None and not alike and count <= SAMPLED_MAX:
            self._left = list(reversed(every(count)))
            self.chances = chances([1.0 / exponent for exponent in exponents])
        self.orders = len(self._left or ())
        """How many draws there are, all different; 0: they are without end."""
        # Octets of the targets, where each record has its own and all of them fit: they are put in
        # order as the records are.
        self._beside: list[bytes] | None = None
        extras = self._extras
        if self.orders and extras and self._room < 0 and len(set(map(id, extras))) == count:
            self._beside = [b"".join([rrset for rrset, _ in target]) for target in extras]

    @property
    def octets(self) -> int:
        """Of memory, about."""
        return 400 + sum(len(answer) + 70 for answer in self._answers)

    def frames(self, body: bytes) -> bool:
        """Whether a response to this very question has all of the records, as ours would."""
        return body[:_ARCOUNT] == self.head[:_ARCOUNT] and self.least <= self._limit

    def draw(self, rng: random.Random) -> bytes:
        """One order more, as `resolver.rrset.drawn` has them."""
        answers = self._answers
        order: Sequence[int]
        if self._left is not None:
            put = self._left.pop()
            if self._extras is None:
                return b"".join((self.head, *put(answers), self._tail))
            if self._beside is not None:
                return b"".join((self.head, *put(answers), *put(self._beside), self._tail))
            order = put(range(len(answers)))
        else:
            draw = rng.random
            keys = [log(1.0 - draw()) * exponent for exponent in self._exponents]
            ranks = self._ranks
            if ranks is None:
                order = sorted(range(len(answers)), key=keys.__getitem__, reverse=True)
            else:
                order = sorted(range(len(answers)), key=lambda i: (ranks[i], -keys[i]))
        pieces = [answers[i] for i in order]
        head = self.head
        if self._extras is not None:
            # Each target once, at its first place; those of two targets are never equal.
            extras = [rrset for t in dict.fromkeys([self._extras[i] for i in order]) for rrset in t]
            if self._room >= 0:
                extras = _fitting(extras, self._room)
                additional = sum([count for _, count in extras]) + (1 if self._tail else 0)
                head = head[:_ARCOUNT] + additional.to_bytes(2, "big") + head[_ARCOUNT + 2 :]
            pieces += [octets for octets, _ in extras]
        return b"".join((head, *pieces, self._tail))


def _rrsets(owners: Owners, rrs: Sequence[RR]) -> _Target:
    """The RRsets (neighbours of one owner and type) of a target."""
    if len(rrs) == 1:
        return ((encode_record(owners, rrs[0]), 1),)
    found = []
    for _, group in groupby(rrs, key=itemgetter(0, 1)):
        rrset = encode_rrset(owners, list(group))
        found.append((b"".join(rrset), len(rrset)))
    return tuple(found)


def _fitting(rrsets: Sequence[tuple[bytes, int]], room: int) -> list[tuple[bytes, int]]:
    """The first of them, up to one that does not fit."""
    found = []
    for rrset in rrsets:
        room -= len(rrset[0])
        if room < 0:
            break
        found.append(rrset)
    return found
