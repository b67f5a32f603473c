"""What is at a name: RRsets, and the order in which one is told.

Rule: a node and its RRsets are made from one state of the Catalog and never altered; chance enters
only in `drawn`, by the caller's `rng`. Pure.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from heapq import nlargest
from itertools import accumulate
from math import log
from typing import NamedTuple

from resolver.record import RR, TXT


class Record(NamedTuple):
    """One record of an RRset, with what it takes to answer with it."""

    rr: RR
    exponent: float = 1.0
    """Weight for the order of answers, as the exponent of a uniform draw: small comes early."""
    extra: tuple[RR, ...] = ()
    """Addresses of its target, for the additional section. Records with one target share one
    tuple: `additional` takes each once."""
    rank: int = 0
    """Priority, where those of the RRset differ (then none is 0): the smaller goes first, whatever
    was drawn."""


class Node:
    """A name that exists; this one without any record, for the sake of the names below it."""

    limited = False
    """Whether ``dns.answer_limit`` holds here; see `limit`."""

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        """The RRset of a type as answers show it; empty or None when there is none."""
        return None

    def __len__(self) -> int:
        """0: there are no records at all."""
        return 0


EMPTY = Node()


class Plain(Node):
    """A name with a few records that need no view."""

    def __init__(self, records: Mapping[int, tuple[Record, ...]]) -> None:
        self._records = records

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        """The RRset of a type."""
        return self._records.get(type_)

    def __len__(self) -> int:
        """Number of RRsets."""
        return len(self._records)


def limit(node: Node, type_: int, answer_limit: int) -> int:
    """Most records of a type in an answer; 0: no limit.

    Nothing is chosen among TXT records: each says something else.
    """
    return answer_limit if node.limited and type_ != TXT else 0


@cache  # bounded: weights have 16 bits
def exponent(weight: int) -> float:
    """The exponent of a weight (Efraimidis and Spirakis: draw ** (1 / weight), largest first).

    Weight 0 comes after all others, save once in millions (RFC 2782: "a very small chance").
    """
    return 100.0 / weight if weight else 1e9


class RRset(tuple[Record, ...]):
    """Many records of one owner and type, of which often only a few are drawn."""

    @cached_property
    def cumulative(self) -> Sequence[float]:
        """Sums of the weights up to each record."""
        return tuple(accumulate(1.0 / record.exponent for record in self))


def drawn(records: Sequence[Record], rng: random.Random, most: int = 0) -> Sequence[Record]:
    """The records in random order, by rank, then the heavier the earlier on average.

    Args:
        records: One RRset.
        rng: Source of chance.
        most: Return only the first so many of that order; 0: all.
    """
    size = len(records)
    if size < 2:
        return records
    if records[0].rank:
        keys = _keys(records, rng)
        order = sorted(range(size), key=lambda i: (records[i].rank, -keys[i]))
        return [records[i] for i in (order[:most] if most else order)]
    if 0 < most < size:
        first = _first(records, rng, most) if isinstance(records, RRset) else []
        if len(first) < most:
            rest = [r for i, r in enumerate(records) if i not in set(first)] if first else records
            keys = _keys(rest, rng)
            best = nlargest(most - len(first), range(len(rest)), key=keys.__getitem__)
            return [*[records[i] for i in first], *[rest[i] for i in best]]
        return [records[i] for i in first]
    keys = _keys(records, rng)
    return [records[i] for i in sorted(range(size), key=keys.__getitem__, reverse=True)]


def _keys(records: Sequence[Record], rng: random.Random) -> list[float]:
    """The logarithms of draw ** exponent: the same order, and no two zeros for weight 0."""
    draw = rng.random
    return [log(1.0 - draw()) * record.exponent for record in records]


def _first(records: RRset, rng: random.Random, most: int) -> list[int]:
    """Indices of the first records of a draw, at most `most`, without looking at the others.

    Draws with replacement and skips what it has already: the next new one is distributed as if the
    others were not there. Gives up, with what it has, where a few heavy ones come again and again;
    that depends on what was drawn so far and not on what comes next, so it favours nobody.
    """
    if 4 * most > len(records):
        return []  # looking at all of them is as quick
    sums = records.cumulative
    total = sums[-1]
    draw = rng.random
    found: dict[int, None] = {}
    for _ in range(2 * most):
        found[bisect_right(sums, draw() * total, hi=len(sums) - 1)] = None
        if len(found) == most:
            break
    return list(found)


def additional(records: Iterable[Record]) -> tuple[RR, ...]:
    """The extra records of an answer, those of each target once."""
    sets = {id(record.extra): record.extra for record in records if record.extra}
    return tuple([rr for extra in sets.values() for rr in extra])
