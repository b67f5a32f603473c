"""What users saw of each fault, for the table at the end of the run.

Rule: a row is what a test has measured and asserted; nothing is added for what did not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One fault; of several clients and hosts the worst."""

    fault: str
    wrong: float | None
    """Seconds in which an answer named something dead, beyond the moment it died; None: not looked
    at, as nothing died."""
    missing: float | None
    """Seconds in which an answer lacked something that was alive all the time, or none came; None:
    not looked at, as nothing lived."""
    converged: float | None
    """Seconds from the end of the fault until everything was as it should be; None: nothing was to
    come back."""
    control: str
    """What the negative control saw: the same with the protection switched off; or where it is, if
    it is another test. Empty: none."""


class Table:
    """The rows of one run."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self,
        fault: str,
        *,
        wrong: float | None = None,
        missing: float | None = None,
        converged: float | None = None,
        control: str = "",
    ) -> None:
        """Add what a test has seen."""
        self.rows.append(Row(fault, wrong, missing, converged, control))


HEADINGS = ("fault", "wrong s", "missing s", "converged s", "negative control")


def lines(rows: Iterable[Row]) -> list[str]:
    """The table as text, a line a row."""
    cells = [HEADINGS]
    for row in rows:
        wrong, missing, back = map(_shown, (row.wrong, row.missing, row.converged))
        cells.append((row.fault, wrong, missing, back, row.control or "-"))
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
