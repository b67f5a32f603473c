"""discod.model.shards against dicts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.shards import SHARDS, Kept, Shards, regrouped

KEYS = st.integers(0, 40).map(lambda n: n * (SHARDS // 4))  # several in one shard
STEPS = st.lists(st.dictionaries(KEYS, st.none() | st.integers(), max_size=6), max_size=12)


@given(STEPS)
def test_every_version_is_the_dict_of_its_time(steps: list[dict[int, int | None]]) -> None:
    plain: dict[int, int] = {}
    shards = Shards[int, int]()
    versions = [(shards, dict(plain))]
    for step in steps:
        for key, value in step.items():
            if value is None:
                plain.pop(key, None)
            else:
                plain[key] = value
        shards = shards.changed(step)
        versions.append((shards, dict(plain)))
    for found, expected in versions:
        assert found == expected
        assert len(found) == len(expected)
        assert dict(found.items()) == {key: found[key] for key in found} == expected
        assert sorted(found.values()) == sorted(expected.values())
        for key in range(0, 41 * (SHARDS // 4), SHARDS // 4):
            assert (key in found) == (key in expected)
            assert found.get(key) == expected.get(key)
            assert found.get(key, "none") == expected.get(key, "none")


def test_an_absent_key_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Shards[str, int]()["x"]


def test_only_the_shards_that_differ_are_new() -> None:
    before = Shards[int, str]().changed({n: str(n) for n in range(SHARDS)})
    assert before.changed({}) is before
    after = before.changed({3: "x", 3 + SHARDS: "y"})
    differing = [
        at
        for at, pair in enumerate(zip(before._shards, after._shards, strict=True))
        if pair[0] is not pair[1]
    ]
    assert differing == [3]


def test_groups_come_change_and_go() -> None:
    empty = Shards[str, Mapping[str, int]]()
    one = regrouped(empty, [(("a", "x"), 1), (("a", "y"), 2), (("b", "x"), 3)])
    assert one == {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    two = regrouped(one, [(("a", "x"), None), (("b", "x"), None), (("c", "z"), None)])
    assert two == {"a": {"y": 2}}
    assert one == {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    with pytest.raises(TypeError):
        two["a"]["y"] = 5  # type: ignore[index]


def test_a_kept_map_is_copied_only_after_a_change() -> None:
    kept = Kept[str, int]()
    kept.put("a", 1)
    first = kept.view()
    assert kept.view() is first
    kept.drop("b")
    assert kept.view() is first
    kept.drop("a")
    assert (dict(first), dict(kept.view())) == ({"a": 1}, {})
