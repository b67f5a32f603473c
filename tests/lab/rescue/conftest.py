"""Three hosts for all tests here, with rescue or without, and the table of what clients saw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.rescue.site import ON, Site, drop_servers, site
from tests.lab.rescue.table import Table, lines

_table = Table()


@pytest.fixture
def seen() -> Table:
    """Where a test says what clients saw."""
    return _table


@pytest.fixture(scope="package")
def place() -> Iterator[Site]:
    """Three hosts, built once; a test says what discod is to be configured as."""
    with site() as made:
        yield made


@pytest.fixture(scope="package", params=["off", "on"])
def rescue(request: pytest.FixtureRequest) -> str:
    """Whether rescue is there: all tests without it come first."""
    return str(request.param)


@pytest.fixture
def switched(place: Site, rescue: str) -> Site:
    """The hosts, with rescue or without."""
    place.become(ON if rescue == "on" else {})
    return place


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """No servers of the three hosts after each test."""
    used = request.getfixturevalue("place") if "place" in request.fixturenames else None
    yield
    if used is not None:
        drop_servers(used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _table.rows or _table.notes:
        terminalreporter.section("rescue")
        for line in [*(lines(_table.rows) if _table.rows else []), *_table.notes]:
            terminalreporter.write_line(line)
