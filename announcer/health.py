"""Own checks: from single results to up or down, with thresholds against flapping.

Rule: `rise` successes in a row make an endpoint up, `fall` failures in a row make it down; until
one of them is reached the state stays what it was, and it begins as neither. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from announcer.inspect import tame
from discod.model.settings import Check


@dataclass(frozen=True, slots=True)
class CheckState:
    """Where one check stands."""

    up: bool | None = None
    """None: starting, neither threshold was reached yet."""
    row: int = 0
    """Equal results in a row; negative for failures."""
    detail: str = "not checked yet"
    """Of the last result, one line of at most 200 characters, for people."""
    since: float = 0.0
    """When `up` took its value, Unix seconds; 0 while starting."""


def advance(state: CheckState, check: Check, success: bool, detail: str, now: float) -> CheckState:
    """The state after one more result.

    Args:
        state: The state before; ``CheckState()`` at first.
        check: Its thresholds count.
        success: The result.
        detail: The result in words.
        now: Unix seconds.
    """
    if success:
        row = min(max(state.row, 0) + 1, check.rise)
        up = True if row >= check.rise else state.up
    else:
        row = max(min(state.row, 0) - 1, -check.fall)
        up = False if -row >= check.fall else state.up
    after = replace(state, up=up, row=row, detail=tame(detail))
    return after if up == state.up else replace(after, since=now)
