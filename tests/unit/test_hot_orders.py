"""Orders of a few records: as likely as where each answer is drawn, and evenly spread."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise, permutations

import pytest

from resolver.hot.orders import SPREAD, chances, every, rotations, spread
from resolver.record import RR, A
from resolver.rrset import Record, drawn, exponent

WEIGHTS = [(1, 200), (300, 100), (1, 2, 3), (100, 100, 1), (65535, 1, 1), (5, 0, 0), (7, 0, 3)]


def shares(weights: tuple[int, ...]) -> list[float]:
    found = chances([1.0 / exponent(weight) for weight in weights])
    return [after - before for before, after in pairwise((0.0, *found))]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_in_rotations_each_has_every_place_once(count: int) -> None:
    orders = [order(range(count)) for order in rotations(count, random.Random(1))]
    assert len(orders) == count
    for place in range(count):
        assert {order[place] for order in orders} == set(range(count))


@pytest.mark.parametrize("count", [2, 3])
def test_every_order_is_there_once(count: int) -> None:
    assert [order(range(count)) for order in every(count)] == list(permutations(range(count)))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_order_is_as_likely_as_where_each_answer_is_drawn(weights: tuple[int, ...]) -> None:
    records = [
        Record(RR((b"x",), A, bytes(3) + bytes((i,)), 0), exponent(weight))
        for i, weight in enumerate(weights)
    ]
    rng = random.Random(2)
    rounds = 20_000
    found = Counter(tuple(records.index(r) for r in drawn(records, rng)) for _ in range(rounds))
    for order, share in zip(permutations(range(len(weights))), shares(weights), strict=True):
        # Four standard errors, and one for what hardly ever comes.
        error = 4 * (share * (1 - share) / rounds) ** 0.5 + 1 / rounds
        assert abs(found[order] / rounds - share) <= error


@pytest.mark.parametrize("weights", WEIGHTS)
def test_all_places_are_taken_by_whom_they_fall_to(weights: tuple[int, ...]) -> None:
    likely = shares(weights)
    summed = chances([1.0 / exponent(weight) for weight in weights])
    rng = random.Random(3)
    total: Counter[int] = Counter()
    rounds = 3000
    for _ in range(rounds):
        places = spread(range(len(likely)), summed, rng)
        assert len(places) == SPREAD
        found = Counter(places)
        for item, share in enumerate(likely):
            assert abs(found[item] - share * SPREAD) < 1 + 1e-6
        total += found
    for item, share in enumerate(likely):
        assert abs(total[item] / rounds - share * SPREAD) < 0.05


def test_who_asks_each_second_time_meets_all() -> None:
    rng = random.Random(4)
    found = Counter(
        item for _ in range(200) for item in spread("ab", chances((1.0, 1.0)), rng)[::2]
    )
    assert abs(found["a"] / found.total() - 0.5) < 0.03


def test_what_cannot_come_gets_no_place() -> None:
    rng = random.Random(5)
    assert all("b" not in spread("ab", [1.0, 1.0], rng) for _ in range(1000))
