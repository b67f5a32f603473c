"""The table of faults: filled by the tests, shown at the end of the run."""

from __future__ import annotations

import pytest

from tests.lab.faults.table import Table, lines

_table = Table()


@pytest.fixture
def faults() -> Table:
    """Where a test says what it has seen."""
    return _table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _table.rows:
        terminalreporter.section("faults")
        for line in lines(_table.rows):
            terminalreporter.write_line(line)
