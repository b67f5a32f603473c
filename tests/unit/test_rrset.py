"""The order of answers: random, by rank, the heavier the earlier, and only as many as asked for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from resolver.record import RR, A
from resolver.rrset import Plain, Record, RRset, additional, drawn, exponent, limit

OWNER = (b"s", b"test")


def records(*weights: int, ranks: Sequence[int] = ()) -> RRset:
    ranks = ranks or [0] * len(weights)
    return RRset(
        Record(RR(OWNER, A, i.to_bytes(4, "big")), exponent(w), (), rank)
        for i, (w, rank) in enumerate(zip(weights, ranks, strict=True))
    )


def number(record: Record) -> int:
    return int.from_bytes(record.rr.rdata, "big")


def chi_square(seen: Counter[int], expected: dict[int, float]) -> float:
    assert set(seen) <= set(expected)
    return sum((seen[k] - e) ** 2 / e for k, e in expected.items())


WEIGHTS = (1, 10, 100, 100, 300, 489)
LIMIT_5 = 20.5
"""Chi-square with 5 degrees of freedom is larger once in a thousand times."""


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("kind", [tuple, RRset])
def test_the_first_is_drawn_by_weight(most: int, kind: type) -> None:
    rng = random.Random(17)
    found = kind(records(*WEIGHTS))
    rounds = 20_000
    seen = Counter(number(drawn(found, rng, most)[0]) for _ in range(rounds))
    expected = {i: rounds * w / sum(WEIGHTS) for i, w in enumerate(WEIGHTS)}
    assert chi_square(seen, expected) < LIMIT_5


@pytest.mark.parametrize("most", [2, 3])
def test_the_second_is_drawn_by_weight_among_the_others(most: int) -> None:
    """Of few, of many by the quick way, and by the quick way that gives up half-way."""
    heavy, light, many = 4000, 1000, 100
    weights = (heavy, light, *[20] * (many - 2))
    rng = random.Random(3)
    seen = Counter[int]()
    rounds = 20_000
    found = records(*weights)
    for _ in range(rounds):
        first, second = map(number, drawn(found, rng, most)[:2])
        if first == 0:
            seen[min(second, 2)] += 1
    rest = sum(weights) - heavy
    total = sum(seen.values())
    expected = {1: total * light / rest, 2: total * (rest - light) / rest}
    assert total > rounds / 2
    assert chi_square(seen, expected) < 10.8  # one degree of freedom, once in a thousand times


@pytest.mark.parametrize("most", [0, 1, 5, 30, 100, 400, 1000])
def test_a_draw_is_part_of_the_set_and_as_long_as_asked(most: int) -> None:
    rng = random.Random(1)
    for found in (records(*[100] * 400), records(*[65535, *[1] * 399]), records(*[0] * 400)):
        got = [number(r) for r in drawn(found, rng, most)]
        assert len(got) == len(set(got)) == min(most or 400, 400)
        assert set(got) <= set(range(400))


@pytest.mark.parametrize("most", [0, 2])
def test_rank_goes_before_weight(most: int) -> None:
    found = records(1, 65535, 1, 65535, ranks=(11, 21, 11, 21))
    rng = random.Random(1)
    firsts = Counter[int]()
    for _ in range(200):
        got = [number(r) for r in drawn(found, rng, most)]
        assert set(got[:2]) == {0, 2}
        assert len(got) == (most or 4)
        firsts[got[0]] += 1
    assert min(firsts.values()) > 60


def test_weight_nought_comes_last_and_in_turn() -> None:
    rng = random.Random(1)
    found = records(0, 0, 1)
    seen = Counter(tuple(number(r) for r in drawn(found, rng)) for _ in range(1000))
    assert set(seen) == {(2, 0, 1), (2, 1, 0)}
    assert min(seen.values()) > 400


def test_the_same_seed_draws_the_same() -> None:
    found = records(*range(50))
    assert drawn(found, random.Random(5), 7) == drawn(found, random.Random(5), 7)


def test_one_and_none() -> None:
    rng = random.Random(1)
    assert drawn((), rng, 3) == ()
    one = records(5)
    assert drawn(one, rng, 3) == one


def test_each_target_brings_its_addresses_once() -> None:
    both = (RR(OWNER, A, b"1234"), RR(OWNER, A, b"5678"))
    other = (RR((b"t", b"test"), A, b"1234"),)
    base = records(1, 1, 1, 1)
    extras = (both, other, both, ())
    found = [r._replace(extra=extra) for r, extra in zip(base, extras, strict=True)]
    assert additional(found) == both + other


def test_the_limit_holds_where_a_name_is_limited_and_never_for_txt() -> None:
    class Limited(Plain):
        limited = True

    assert [limit(Limited({}), t, 3) for t in (1, 28, 33, 64, 65, 16)] == [3, 3, 3, 3, 3, 0]
    assert limit(Plain({}), 1, 3) == 0
