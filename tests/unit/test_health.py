"""`announcer.health`: rise and fall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from announcer.health import CheckState, advance
from discod.model.settings import Check


def run(results: str, *, rise: int = 1, fall: int = 2) -> list[bool | None]:
    """States after each result; ``+`` is a success."""
    check, state, states = Check("tcp", rise=rise, fall=fall), CheckState(), []
    for at, result in enumerate(results, 1):
        state = advance(state, check, result == "+", result, float(at))
        states.append(state.up)
    return states


@pytest.mark.parametrize(
    ("results", "rise", "fall", "states"),
    [
        ("+", 1, 2, "+"),
        ("-", 1, 2, "?"),
        ("--", 1, 2, "?-"),
        ("-+", 1, 2, "?+"),
        ("+-+-+", 1, 2, "+++++"),
        ("+--+", 1, 2, "++-+"),
        ("++", 2, 1, "?+"),
        ("+-", 2, 1, "?-"),
        ("-++-", 2, 1, "--+-"),
        ("++---++-+++", 3, 3, "????------+"),
        ("+++--+---", 3, 3, "??++++++-"),
    ],
)
def test_thresholds(results: str, rise: int, fall: int, states: str) -> None:
    words = {None: "?", True: "+", False: "-"}
    assert "".join(words[s] for s in run(results, rise=rise, fall=fall)) == states


def test_since_is_the_time_of_the_change() -> None:
    check, state = Check("tcp", fall=2), CheckState()
    assert (state.up, state.since) == (None, 0.0)
    for at, success, since in [
        (1, True, 1),
        (2, True, 1),
        (3, False, 1),
        (4, False, 4),
        (5, True, 5),
    ]:
        state = advance(state, check, success, "", float(at))
        assert state.since == since


def test_detail_is_one_tame_line() -> None:
    state = advance(CheckState(), Check("tcp"), False, "refused\n\x1b[0m" + "x" * 999, 1.0)
    assert state.detail.startswith("refused [0mxxx")
    assert len(state.detail) == 200


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_only_whole_rows_change_the_state(results: list[bool], rise: int, fall: int) -> None:
    check, state = Check("tcp", rise=rise, fall=fall), CheckState()
    for n, result in enumerate(results):
        after = advance(state, check, result, "", float(n))
        assert -fall <= after.row <= rise
        if after.up != state.up:
            needed = rise if after.up else fall
            assert results[max(n + 1 - needed, 0) : n + 1] == [after.up] * needed
        state = after
    if len(results) >= rise and all(results[-rise:]):
        assert state.up is True
    if len(results) >= fall and not any(results[-fall:]):
        assert state.up is False
