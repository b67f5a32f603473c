"""What one malformed UPDATE does to a session: ours, and for comparison that of real speakers.

RFC 7606: treat-as-withdraw wherever the prefixes can be told; session and other routes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.lab.bgp.fabric import Fabric, Site
from tests.lab.bgp.plain import Plain, peer
from tests.lab.bgp.raw import Raw
from tests.lab.bgp.router import Router
from tests.lab.bgp.routers import Bird, Frr, Neighbor
from tests.lab.daemon import until

pytestmark = pytest.mark.lab

OURS, RAW = 65100, 65001
ORIGIN, PATH = "40010100", "40020602010000fde9"
HIT, OTHER = "200a000001", "200a000002"
"""10.0.0.1/32 and 10.0.0.2/32."""

KEPT, GONE, RESET = "route stays", "route goes", "session ends"


class Case(NamedTuple):
    """One row: what comes after a good announcement of the same prefix, and what is to follow."""

    name: str
    attributes: str
    ours: str


def rows(hop: str) -> list[Case]:
    """The rows, with a next hop in hexadecimal."""
    good = ORIGIN + PATH + hop
    return [
        Case("ORIGIN of 2 octets", "4001020000" + PATH + hop, GONE),
        Case("ORIGIN 3", "40010103" + PATH + hop, GONE),
        Case("no ORIGIN", PATH + hop, GONE),
        Case("AS_PATH segment too long", ORIGIN + "40020602050000fde9" + hop, GONE),
        Case("no NEXT_HOP", ORIGIN + PATH, GONE),
        Case("MED of 3", good + "800403000000", GONE),
        Case("COMMUNITIES of 5", good + "c008050000000000", GONE),
        Case("LARGE_COMMUNITY of 11", good + "c0200b" + "00" * 11, GONE),
        Case("ORIGIN optional", "c0010100" + PATH + hop, GONE),
        Case("attribute does not end", good + "8004040000", GONE),
        Case("ATOMIC_AGGREGATE of 1", good + "40060100", KEPT),
        Case("LOCAL_PREF from outside", good + "40050400000064", KEPT),
        Case("MP_REACH of 4", "800e0400020110" + good, RESET),
        Case("unknown well-known", good + "40fe00", RESET),
    ]


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with Fabric(2) as fabric:
        yield fabric


def outcome(
    raw_site: Site,
    address: str,
    case: Case,
    has: Callable[[str], bool],
    turn: Callable[[], None],
    patience: float = 10,
) -> str:
    """Send a good UPDATE of two prefixes, then the bad one for one of them; what follows.

    `turn` lets some time pass where that is not by itself.
    """
    with Raw(raw_site, address, RAW) as raw:
        raw.open()
        hop = "400304" + bytes(int(part) for part in raw_site.ipv4.split(".")).hex()
        raw.update(ORIGIN + PATH + hop, HIT + OTHER)

        def listens(wanted: Callable[[], bool]) -> bool:
            turn()
            raw.listen(0.03)
            return wanted() or raw.closed

        until(lambda: listens(lambda: has("10.0.0.1/32")), what="good", deadline=patience)
        assert has("10.0.0.2/32"), (case.name, raw.told)
        raw.update(case.attributes, HIT)
        # The route that comes behind shows that the bad one has been dealt with.
        raw.update(ORIGIN + PATH + hop, "200a000003")
        until(lambda: listens(lambda: has("10.0.0.3/32")), what="next", deadline=patience)
        if raw.closed or raw.told is not None:
            return RESET
        assert has("10.0.0.2/32")
        return KEPT if has("10.0.0.1/32") else GONE


def hexed(site: Site) -> str:
    return "400304" + bytes(int(part) for part in site.ipv4.split(".")).hex()


@pytest.mark.parametrize("n", range(14))
def test_ours(fabric: Fabric, n: int) -> None:
    ours, raw_site = fabric.hosts
    case = rows(hexed(raw_site))[n]
    us = peer(ours, OURS, RAW, passive=True, hold_time=90)
    with Plain(ours, us, raw_site.ipv4) as plain:
        plain.start()
        found = outcome(
            raw_site, ours.ipv4, case, lambda p: p in plain.routes(), lambda: plain.pump(0.03)
        )
        assert found == case.ours
        assert (found == RESET) == bool(plain.downs)


EXCEPT: dict[tuple[str, str], str] = {
    ("frr", "ORIGIN of 2 octets"): RESET,
    ("frr", "ORIGIN 3"): RESET,
    ("frr", "AS_PATH segment too long"): RESET,
    ("frr", "ORIGIN optional"): RESET,
    ("frr", "attribute does not end"): RESET,
    ("bird", "unknown well-known"): GONE,
}
"""Where a real speaker of these versions does otherwise than we do: (program, row) -> what."""


@pytest.mark.parametrize("kind", [Bird, Frr], ids=["bird", "frr"])
def test_theirs(fabric: Fabric, kind: type[Router]) -> None:
    """The same script at the others: a difference is listed, so that a change is noticed."""
    theirs, raw_site = fabric.hosts
    differences = {}
    with kind(theirs, OURS, [Neighbor(raw_site.ipv4, RAW, passive=True, hold_time=90)]) as router:

        def has(prefix: str) -> bool:
            return prefix in router.routes(raw_site.ipv4)

        for case in rows(hexed(raw_site)):
            found = ""

            def done(case: Case = case) -> bool:
                # It may rest for some seconds after an error, and refuse.
                nonlocal found
                try:
                    found = outcome(raw_site, theirs.ipv4, case, has, lambda: None, patience=2)
                except (AssertionError, OSError):
                    return False
                return True

            until(done, deadline=30, step=0.2, what=case.name)
            if found != case.ours:
                differences[kind.program, case.name] = found
    assert differences == {key: how for key, how in EXCEPT.items() if key[0] == kind.program}
