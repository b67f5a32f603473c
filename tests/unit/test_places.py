"""Who gives a place up when there is none left."""

from __future__ import annotations

import random

import pytest

from discod.model.places import Places, holder_of


def table(**held: int) -> Places[str]:
    """A table where each client took its places one after the other."""
    places: Places[str] = Places()
    for client, count in held.items():
        for i in range(count):
            places.take(f"{client}{i}", client)
    return places


def always(_: str) -> bool:
    return True


def test_who_holds_most_gives_one_up() -> None:
    places = table(a=1, b=3, c=2)
    assert places.victim("a", always) == ("b0", "b")
    assert places.victim("d", always) == ("b0", "b")
    assert places.victim("b", always) == ("b0", "b")  # its own: it has most already
    places.give_up("b0", "b")
    places.give_up("b1", "b")
    assert places.victim("d", always) == ("c0", "c")


def test_the_one_idle_for_longest_goes() -> None:
    places = table(a=3)
    places.take("a0", "a")  # in use again
    assert places.victim("b", always) == ("a1", "a")
    every_one = table(a=1, b=1, c=1)
    every_one.take("a0", "a")
    assert every_one.victim("d", always) == ("b0", "b")


def never(_: str) -> bool:
    return False


def test_who_is_at_work_is_spared() -> None:
    places = table(a=2, b=2)
    assert places.victim("c", lambda place: place == "b1") == ("b1", "b")
    assert places.victim("a", lambda place: place.startswith("b")) is None
    assert table(a=1, b=1).victim("c", never) is None


def test_work_that_never_ends_keeps_nobody_out() -> None:
    places = table(a=1, b=5)
    assert places.victim("c", never) == ("b0", "b")
    assert places.victim("a", never) == ("b0", "b")
    assert places.victim("b", never) is None  # not at its own cost
    # Taking turns for ever would help nobody.
    assert table(a=1, b=2).victim("a", never) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8:0:0:ffff::", "2001:db8::2", True),
        ("2001:db8:0:1::1", "2001:db8::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
        ("no address: at all", "no address: at all", True),
    ],
)
def test_whom_a_connection_counts_for(one: str, other: str, same: bool) -> None:
    assert (holder_of(one) == holder_of(other)) is same


def test_a_place_is_given_up_once() -> None:
    places = table(a=1)
    assert places.give_up("a0", "a")
    assert not places.give_up("a0", "a")
    assert not places.give_up("x", "nobody")
    assert len(places) == 0
    assert places.victim("a", always) is None


def test_numbers_stay_right_over_any_history() -> None:
    rng = random.Random(5)
    places: Places[tuple[str, int]] = Places()
    model: dict[tuple[str, int], None] = {}
    for _ in range(5000):
        place = rng.choice("abcde"), rng.randrange(9)
        if rng.random() < 0.5:
            places.take(place, place[0])
            model.pop(place, None)
            model[place] = None
        else:
            assert places.give_up(place, place[0]) is (place in model)
            model.pop(place, None)
        assert len(places) == len(model)
        counts = {c: sum(p[0] == c for p in model) for c in "abcde"}
        found = places.victim("z", lambda p: True)
        if not model:
            assert found is None
        else:
            assert found is not None
            (victim, holder) = found
            assert counts[holder] == max(counts.values())
            assert victim == next(p for p in model if p[0] == holder)
