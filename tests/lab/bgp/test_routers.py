"""The rig itself: BIRD, FRR and GoBGP among themselves, told and asked through the same calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.bgp.fabric import Fabric
from tests.lab.bgp.router import bare, passed, prefixes
from tests.lab.bgp.routers import ALL, Bird, Neighbor, Router, Told

pytestmark = pytest.mark.lab

RICH = Told((65010, 4200000001), 77, frozenset({"65000:1"}), frozenset({"65000:1:2"}))


@pytest.fixture(scope="module")
def ring() -> Iterator[list[Router]]:
    """All three in a ring, each in an AS of its own, with a password between two of them."""
    with Fabric(3) as fabric:
        routers = []
        for site, kind in zip(fabric.hosts, ALL, strict=True):
            others = [other for other in fabric.hosts if other is not site]
            neighbors = [
                Neighbor(one.ipv4, 65000 + one.n, password=_password(site.n, one.n))
                for one in others
            ]
            routers.append(fabric.use(kind(site, 65000 + site.n, neighbors)))
        for router in routers:
            router.established()
        yield routers


def _password(one: int, other: int) -> str:
    return "a secret" if {one, other} == {1, 3} else ""


@pytest.mark.parametrize("n", [0, 1, 2])
def test_each_tells_the_others(ring: list[Router], n: int) -> None:
    teller = ring[n]
    wanted: dict[str, Told] = {}
    for version in (4, 6):
        plain, rich = prefixes(2, version, n * 10)
        wanted |= {plain: Told(), rich: RICH}
    teller.announce(wanted)
    for other in ring:
        if other is teller:
            continue
        for version in (4, 6):
            other.counts(teller.site.ipv4, 2, version)
            seen = other.routes(teller.site.ipv4, version)
            for prefix, told in wanted.items():
                if (":" in prefix) == (version == 6):
                    mine = passed(told, teller.asn)
                    assert bare(seen[prefix]).path == mine.path
                    assert bare(seen[prefix]).communities == mine.communities
                    assert bare(seen[prefix]).large == mine.large
                    assert (seen[prefix].med or 0) == (mine.med or 0)
                    own = teller.site.ipv4 if version == 4 else teller.site.ipv6
                    assert seen[prefix].next_hop == own
    teller.withdraw(list(wanted))
    for other in ring:
        if other is not teller:
            for version in (4, 6):
                other.counts(teller.site.ipv4, 0, version)


def test_bfd_notices_a_cut_cable_and_the_kernel_follows() -> None:
    with Fabric(1) as fabric:
        [host], tor = fabric.hosts, fabric.tor
        one = fabric.use(Bird(host, 65001, [Neighbor(tor.ipv4, 65254, bfd=True)]))
        top = fabric.use(Bird(tor, 65254, [Neighbor(host.ipv4, 65001, bfd=True)], install=True))
        one.established()
        one.announce(prefixes(3))
        top.counts(host.ipv4, 3)
        assert all(tor.has(prefix) for prefix in prefixes(3))
        host.cut()
        # The hold time is 9 s: within 5 s it was BFD.
        top.counts(host.ipv4, 0, deadline=5)
