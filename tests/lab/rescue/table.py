"""What clients that ignore the TTL saw of each fault, as a table at the end of the run.

Rule: a row is what was measured, with rescue and without; of several runs none is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.lab.rescue.clients import Track

HEADINGS = ("fault", "rescue", "client", "flow", "requests", "failed", "why", "longest gap", "late")


class Table:
    """The rows of one run."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.notes: list[str] = []

    def add(self, fault: str, rescue: str, track: Track, since: float) -> None:
        """Add what one flow of requests saw from `since` on."""
        failed = track.failed(since)
        why = " ".join(f"{n}x{e[1:]}" for e, n in sorted(track.errors(since).items()))
        self.rows.append(
            (
                fault, rescue, track.client, str(track.task),
                str(sum(1 for one in track.requests if one.end >= since)),
                str(len(failed)), why or "-",
                milliseconds(track.gap(since)), milliseconds(track.late),
            )
        )  # fmt: skip

    def note(self, text: str) -> None:
        """A figure that is no row."""
        self.notes.append(text)
        print(text)


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1e3:.0f} ms"


def lines(rows: Iterable[Sequence[str]]) -> list[str]:
    """The table as text, a line a row."""
    cells = [HEADINGS, *rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
