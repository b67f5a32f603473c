from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.report import PartReport
from discod.readiness import Gate

NAMES = ("store", "docker", "dns", "announcer", "config")


def part(name: str, ready: bool = True) -> PartReport:
    return PartReport(name, ready, "" if ready else f"{name} is away", 0.0)


def test_nothing_is_not_ready() -> None:
    assert not Gate().look([]).ready


def test_at_the_start_every_part_counts() -> None:
    gate = Gate()
    state = gate.look([part("store", False), part("docker", False), part("dns")])
    assert not state.ready
    assert [one.name for one in state.blocking] == ["store", "docker"]
    assert gate.look([part("store"), part("docker", False), part("dns")]).ready is False
    # The store may leave again before Docker came: each part has to be complete once, not together.
    assert gate.look([part("store", False), part("docker"), part("dns")]).ready is True


@pytest.mark.parametrize(("name", "ready"), [("store", True), ("docker", True), ("dns", False)])
def test_later_only_critical_parts_count(name: str, ready: bool) -> None:
    gate = Gate()
    assert gate.look(part(one) for one in NAMES).ready
    state = gate.look(part(one, one != name) for one in NAMES)
    assert state.ready is ready
    assert [one.name for one in (state.away if ready else state.blocking)] == [name]
    assert gate.look(part(one) for one in NAMES).ready


def test_a_part_that_comes_later_has_to_be_complete_once() -> None:
    gate = Gate()
    assert gate.look([part("store")]).ready
    assert not gate.look([part("store"), part("docker", False)]).ready


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.booleans(), min_size=1), min_size=1))
def test_ready_exactly_when_nothing_blocks(history: list[dict[str, bool]]) -> None:
    gate, complete = Gate(), set[str]()
    for present in history:
        complete |= {name for name, ready in present.items() if ready}
        state = gate.look(part(name, ready) for name, ready in present.items())
        assert state.ready == (not state.blocking)
        expected = set(present) <= complete and present.get("dns", True)
        assert state.ready == expected
        broken = {name for name, ready in present.items() if not ready}
        assert {one.name for one in (*state.blocking, *state.away)} == broken
