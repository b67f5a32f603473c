"""One world for all tests of a file; after each the packet filter is as it was before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.lab.rescue_table.world import VIP, World


@pytest.fixture(scope="module")
def built() -> Iterator[World]:
    """Built, with three servers."""
    with World() as world:
        for name in ("s", "t", "far"):
            world.serve(name)
        yield world


@pytest.fixture
def world(built: World) -> Iterator[World]:
    """As if just built."""
    before = built.ruleset()
    yield built
    trio.run(built.table.remove)
    assert built.ruleset() == before
    built.restart()
    built.bridge_nf(0)
    built.host.sh("conntrack", "-F", check=False)
    for address in VIP.values():
        built.host.sh("ip", "route", "del", address, check=False)
