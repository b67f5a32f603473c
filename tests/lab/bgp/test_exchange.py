"""The core and BIRD, FRR and GoBGP tell each other routes; what arrives is what was meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from calico_bgp.prefix import IPV4
from tests.lab.bgp.fabric import Fabric
from tests.lab.bgp.plain import Plain, peer
from tests.lab.bgp.router import Router, bare, passed, prefixes
from tests.lab.bgp.routers import ALL, Bird, Neighbor, Seen, Told
from tests.lab.daemon import until

pytestmark = pytest.mark.lab

OURS, THEIRS = 4_200_000_000, 65001
MANY = 1000
KINDS = [
    Told(),
    Told((65010,), 5),
    Told((65010, 4_200_000_001), 0xFFFFFFFF, frozenset({"65000:1"})),
    Told((64999,) * 20, None, frozenset({"65000:1", "65000:65535", "1:1"})),
    Told((), 0, frozenset(), frozenset({"4200000000:4294967295:0", "1:2:3"})),
]


@pytest.fixture(params=ALL, ids=lambda kind: str(kind.program))
def kind(request: pytest.FixtureRequest) -> type[Router]:
    """Each of the three."""
    found: type[Router] = request.param
    return found


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(2) as fabric:
        yield fabric


def told(number: int, first: int) -> dict[str, Told]:
    """So many routes of each family, of all kinds."""
    both = [*prefixes(number, 4, first), *prefixes(number, 6, first)]
    return {prefix: KINDS[i % len(KINDS)] for i, prefix in enumerate(both)}


def same(found: dict[str, Seen], wanted: dict[str, Told], *asns: int, hop: str) -> None:
    """All of them arrived, and as they were meant."""
    assert found.keys() == wanted.keys()
    for prefix, meant in wanted.items():
        mine, there = passed(meant, *asns), found[prefix]
        assert there.next_hop == hop
        # Some speakers show a MED of 0 and none alike.
        assert (there.med or 0) == (mine.med or 0), prefix
        assert (there.path, there.communities, there.large) == (
            mine.path, mine.communities, mine.large,
        ), prefix  # fmt: skip


def of(version: int, routes: dict[str, Told]) -> dict[str, Told]:
    return {prefix: told for prefix, told in routes.items() if (":" in prefix) == (version == 6)}


@pytest.mark.parametrize("session", [4, 6])
def test_a_thousand_routes_of_both_families_each_way(
    fabric: Fabric, kind: type[Router], session: int
) -> None:
    """Over one session, of either family."""
    ours, theirs = fabric.hosts
    here, there = (ours.ipv4, theirs.ipv4) if session == 4 else (ours.ipv6, theirs.ipv6)
    sent, wanted = told(MANY, 0), told(MANY, 5000)
    router = fabric.use(kind(theirs, THEIRS, [Neighbor(here, OURS, hold_time=90)], wanted))
    plain = fabric.use(Plain(ours, peer(ours, OURS, THEIRS, hold_time=90), there))
    plain.announce(sent)
    plain.start().until(lambda: plain.up, what="up")
    plain.until(lambda: len(plain.learned) == 2 * MANY, what="all learned")
    for version, hop in ((4, theirs.ipv4), (6, theirs.ipv6)):
        same(plain.routes(version), of(version, wanted), THEIRS, hop=hop)
    plain.until(
        lambda: all(router.count(here, version) == MANY for version in (4, 6)), what="all told"
    )
    for version, hop in ((4, ours.ipv4), (6, ours.ipv6)):
        same(router.routes(here, version), of(version, sent), OURS, hop=hop)
    # Half of it goes, on both sides, and the rest stays as it was.
    kept = dict(list(sent.items())[::2])
    plain.announce(kept)
    router.withdraw(list(wanted)[::2])
    plain.until(lambda: len(plain.learned) == MANY, what="half withdrawn")
    plain.until(
        lambda: all(router.count(here, version) == MANY // 2 for version in (4, 6)), what="half"
    )
    for version, hop in ((4, ours.ipv4), (6, ours.ipv6)):
        same(router.routes(here, version), of(version, kept), OURS, hop=hop)
    assert not [one for one in plain.actions if type(one).__name__ == "Faulty"]
    plain.stop("good night")
    until(lambda: router.count(here) == 0, what="withdrawn", deadline=5)


@pytest.mark.parametrize("session", [4, 6])
def test_inside_one_as_with_a_password(fabric: Fabric, kind: type[Router], session: int) -> None:
    """iBGP: LOCAL_PREF goes along, and nobody puts his number in front."""
    ours, theirs = fabric.hosts
    here, there = (ours.ipv4, theirs.ipv4) if session == 4 else (ours.ipv6, theirs.ipv6)
    secret = "k" * 80
    neighbor = Neighbor(here, 65001, password=secret)
    router = fabric.use(kind(theirs, 65001, [neighbor], told(5, 5000)))
    plain = fabric.use(Plain(ours, peer(ours, 65001, 65001), there, password=secret))
    plain.settings(local_pref=250)
    plain.announce(told(5, 0))
    plain.start().until(lambda: len(plain.learned) == 10, what="learned")
    for version, hop in ((4, ours.ipv4), (6, ours.ipv6)):
        plain.until(lambda v=version: router.count(here, v) == 5, what="told")  # type: ignore[misc]
        found = router.routes(here, version)
        same(found, of(version, told(5, 0)), hop=hop)
        assert {one.local_pref for one in found.values()} == {250}
        assert {one.local_pref for one in plain.routes(version).values()} == {100}
        assert all(
            bare(one).path == told(5, 5000)[p].path for p, one in plain.routes(version).items()
        )


def test_a_wrong_password_is_no_session(fabric: Fabric, kind: type[Router]) -> None:
    ours, theirs = fabric.hosts
    neighbor = Neighbor(ours.ipv4, OURS, password="right")
    router = fabric.use(kind(theirs, THEIRS, [neighbor]))
    plain = fabric.use(Plain(ours, peer(ours, OURS, THEIRS), theirs.ipv4, password="wrong"))
    plain.start().pump(3)
    assert not plain.up
    assert router.session(ours.ipv4) != "Established"


def test_an_old_speaker_between_us(fabric: Fabric) -> None:
    """RFC 6793: 2-octet numbers on both of its sides, and the whole path arrives all the same."""
    one, middle = fabric.hosts
    other = fabric.tor
    neighbors = [
        Neighbor(one.ipv4, 64701, wide=False),
        Neighbor(other.ipv4, 64702, wide=False),
    ]
    bird = fabric.use(Bird(middle, THEIRS, neighbors, transit=True))
    left = fabric.use(Plain(one, peer(one, 64701, THEIRS), middle.ipv4))
    right = fabric.use(Plain(other, peer(other, 64702, THEIRS), middle.ipv4))
    wanted = told(5, 0)
    left.announce(wanted)
    left.start().until(lambda: left.up, what="left up")
    right.start().until(lambda: len(right.learned) == 10, what="passed on")
    assert left.session.established is not None
    assert not left.session.established.wide
    same(right.routes(4), of(4, wanted), THEIRS, 64701, hop=one.ipv4)
    # The old speaker has it merged itself: our AS_PATH and AS4_PATH are of one mind.
    found = bird.routes(one.ipv4)
    same(found, of(4, wanted), 64701, hop=one.ipv4)


def test_a_speaker_without_capabilities(fabric: Fabric) -> None:
    """RFC 5492 is unknown to it: IPv4 unicast in 2-octet numbers is what is left."""
    ours, theirs = fabric.hosts
    neighbor = Neighbor(ours.ipv4, 64998, families=(4,), wide=False, capabilities=False)
    router = fabric.use(Bird(theirs, THEIRS, [neighbor], of(4, told(5, 5000))))
    plain = fabric.use(Plain(ours, peer(ours, 64998, THEIRS), theirs.ipv4))
    plain.announce(told(5, 0))
    plain.start().until(lambda: len(plain.learned) == 5, what="learned")
    same(plain.routes(), of(4, told(5, 5000)), THEIRS, hop=theirs.ipv4)
    plain.until(lambda: router.count(ours.ipv4) == 5, what="told")
    same(router.routes(ours.ipv4), of(4, told(5, 0)), 64998, hop=ours.ipv4)


def test_no_family_in_common(fabric: Fabric, kind: type[Router]) -> None:
    """Each side has one that the other lacks; both say what is missing, and it goes on trying."""
    ours, theirs = fabric.hosts
    fabric.use(kind(theirs, THEIRS, [Neighbor(ours.ipv4, OURS, families=(6,))]))
    us = peer(ours, OURS, THEIRS, families=(IPV4,), retry_first=0.1, retry_most=0.3)
    plain = fabric.use(Plain(ours, us, theirs.ipv4))
    plain.start().until(lambda: plain.downs, what="refused")
    plain.until(lambda: len(plain.downs) > 1, what="refused again")
    assert not any(one.was_up for one in plain.downs)
    said = [one.notification for one in plain.downs if one.notification is not None]
    assert any(one[:2] == (2, 7) for one in said), plain.downs
