"""Everything that a target, or a parser that we do not use for this reason, once failed on."""

from __future__ import annotations

import pytest

from tests.fuzz.crashes import FOLDER, saved
from tests.fuzz.registry import ALL

SAVED = [(target, path) for target in ALL for path in saved(target)]


@pytest.mark.parametrize(
    ("target", "name"), [(target, path.name) for target, path in SAVED], ids=str
)
def test_what_once_failed_is_right_now(target: str, name: str) -> None:
    ALL[target].run((FOLDER / target / name).read_bytes())


def test_there_are_some_and_each_belongs_to_a_target() -> None:
    assert len(SAVED) >= 4
    assert {path.name for path in FOLDER.iterdir()} <= set(ALL)
