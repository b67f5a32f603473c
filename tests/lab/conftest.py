"""Fixtures of the lab, and the check that nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import sweep
from tests.lab.needs import missing
from tests.lab.rig import Lab


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without its real parts a lab test is left out, which `tests/conftest.py` forbids under CI."""
    if item.get_closest_marker("lab") and (lack := missing()):
        pytest.skip(f"the lab: {lack}")


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """After all tests no process, mount, namespace or folder of a lab of this run is there."""
    yield
    left = {name: found for name in Lab.built if (found := sweep.leftovers(name))}
    assert not left, f"the lab left things behind: {left}"


@pytest.fixture(scope="module")
def one() -> Iterator[Lab]:
    """One host with a one-member etcd."""
    with Lab(1) as lab:
        yield lab


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    """Three hosts with a three-member etcd."""
    with Lab(3) as lab:
        yield lab


@pytest.fixture(autouse=True)
def cleared(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take away every container after each test that had a lab, and wait until DNS is empty."""
    labs = [
        request.getfixturevalue(name) for name in ("one", "three") if name in request.fixturenames
    ]
    yield
    for lab in labs:
        lab.clear()
