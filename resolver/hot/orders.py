"""The orders that a few records can have, all of them, each as a function that puts them so.

Rule: what is chosen among here is as likely as where `resolver.rrset.drawn` draws. Pure.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from operator import itemgetter
from typing import Any, Final, TypeVar

T = TypeVar("T")

SPREAD: Final = 64
"""Places over which orders that are not all alike are spread at a time."""

Order = Callable[[Sequence[Any]], tuple[Any, ...]]
"""Puts records, or what belongs to each of them, in order."""


def rotations(count: int, rng: random.Random) -> list[Order]:
    """As many orders as records: each is first once, second once, and so on."""
    start = list(range(count))
    rng.shuffle(start)
    return [_order((*start[at:], *start[:at])) for at in range(count)]


@cache
def every(count: int) -> tuple[Order, ...]:
    """All of them (so `count` is to be small)."""
    return tuple(map(_order, permutations(range(count))))


def chances(weights: Sequence[float]) -> Sequence[float]:
    """How likely each of `every` is, added up: the heavier a record, the earlier on average.

    Each place is drawn from the records that are left, by their weights.

    Args:
        weights: One for each of two or three records, all above 0.
    """
    if len(weights) == 2:
        a, b = weights
        return array("d", (a / (a + b), 1.0))
    a, b, c = weights
    total = a + b + c
    first, second, third = a / total, b / total, c / total
    return array(
        "d",
        (
            first * b / (b + c),
            first,
            first + second * a / (a + c),
            first + second,
            first + second + third * a / (a + b),
            1.0,
        ),
    )


def spread(items: Sequence[T], chances: Sequence[float], rng: random.Random) -> tuple[T, ...]:
    """`SPREAD` times one of `items`, each as often as is likely, but for a part of one time.

    Over many calls there is no such part: what is left over falls to each by its chance.

    Args:
        items: One for each of `chances`.
        chances: As `chances` has them; the last is 1.
        rng: Source of chance.
    """
    start = rng.random()
    places: list[T] = []
    taken = 0
    for item, upto in zip(items, chances, strict=True):
        end = int(upto * SPREAD + start)
        places += [item] * (end - taken)
        taken = end
    return _SHUFFLES[int(rng.random() * len(_SHUFFLES))](places)


def _order(indices: tuple[int, ...]) -> Order:
    return itemgetter(*indices) if len(indices) > 1 else tuple


def _shuffle(rng: random.Random) -> Order:
    return _order(tuple(rng.sample(range(SPREAD), SPREAD)))


_SHUFFLES = tuple(map(_shuffle, map(random.Random, range(64))))
"""Ways to mix them: whoever asks at regular intervals shall not meet the same one each time."""
