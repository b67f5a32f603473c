"""Who gives a place up when there is none left."""

from __future__ import annotations

import random

from resolver.places import Places


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


def test_nobody_is_taken_from_at_work() -> None:
    places = table(a=2, b=2)
    assert places.victim("c", lambda place: place == "b1") == ("b1", "b")
    assert places.victim("c", lambda place: False) is None
    assert places.victim("a", lambda place: place.startswith("b")) is None


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
