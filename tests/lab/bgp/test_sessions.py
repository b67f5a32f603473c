"""How sessions of the core with BIRD, FRR and GoBGP begin, end and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from calico_bgp.notification import CEASE, HOLD_TIMER_EXPIRED, MAX_PREFIXES
from tests.lab.bgp.fabric import Fabric
from tests.lab.bgp.plain import Plain, peer
from tests.lab.bgp.router import PLAIN, Router, prefixes
from tests.lab.bgp.routers import ALL, Bird, Frr, Neighbor
from tests.lab.daemon import until

pytestmark = pytest.mark.lab

OURS, THEIRS = 65100, 65001


@pytest.fixture(params=ALL, ids=lambda kind: str(kind.program))
def kind(request: pytest.FixtureRequest) -> type[Router]:
    """Each of the three."""
    found: type[Router] = request.param
    return found


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(2) as fabric:
        yield fabric


@pytest.mark.parametrize("higher", ["ours", "theirs"])
def test_both_connect_at_once(fabric: Fabric, kind: type[Router], higher: str) -> None:
    """RFC 4271, section 6.8: one session is left, and none that was established is lost."""
    ours, theirs = fabric.hosts
    router_id = "192.0.2.250" if higher == "ours" else "192.0.2.1"
    us = peer(ours, OURS, THEIRS, router_id=router_id)
    plain = fabric.use(Plain(ours, us, theirs.ipv4))
    router = fabric.use(kind(theirs, THEIRS, [Neighbor(ours.ipv4, OURS)]))
    # It has connected and said its OPEN; we have not looked yet, and connect as well.
    until(lambda: router.session(ours.ipv4) == "OpenSent", what="its OPEN", deadline=20)
    plain.announce(dict.fromkeys(prefixes(3), PLAIN))
    plain.start()
    plain.until(
        lambda: plain.up and len(plain.outgoing) == 1 and router.count(ours.ipv4) == 3,
        what="one session",
    )
    plain.pump(4)
    assert plain.up
    assert len(plain.outgoing) == 1
    assert not [one for one in plain.downs if one.was_up]
    assert router.count(ours.ipv4) == 3


@pytest.mark.parametrize("kind", [Bird, Frr], ids=["bird", "frr"], indirect=False)
def test_it_hangs_and_the_hold_time_ends_the_session(fabric: Fabric, kind: type[Router]) -> None:
    ours, theirs = fabric.hosts
    neighbor = Neighbor(ours.ipv4, OURS, hold_time=3, graceful_restart=False)
    router = fabric.use(kind(theirs, THEIRS, [neighbor], dict.fromkeys(prefixes(3), PLAIN)))
    plain = fabric.use(Plain(ours, peer(ours, OURS, THEIRS, hold_time=3), theirs.ipv4))
    plain.start().until(lambda: len(plain.learned) == 3, what="learned")
    plain.pump(4)
    assert plain.up  # no false alarm
    router.freeze()
    plain.until(lambda: not plain.up, deadline=5, what="noticed")
    assert plain.downs[-1].notification is not None
    assert plain.downs[-1].notification.code == HOLD_TIMER_EXPIRED
    assert not plain.learned
    router.thaw()
    plain.until(lambda: len(plain.learned) == 3, deadline=25, what="back")


def test_we_hang_and_it_ends_the_session(fabric: Fabric, kind: type[Router]) -> None:
    ours, theirs = fabric.hosts
    neighbor = Neighbor(ours.ipv4, OURS, hold_time=3, graceful_restart=False)
    router = fabric.use(kind(theirs, THEIRS, [neighbor]))
    plain = fabric.use(Plain(ours, peer(ours, OURS, THEIRS, hold_time=3), theirs.ipv4))
    plain.announce(dict.fromkeys(prefixes(3), PLAIN))
    plain.start().until(lambda: router.count(ours.ipv4) == 3, what="told")
    # Nobody lets our time pass.
    until(lambda: router.session(ours.ipv4) != "Established", deadline=8, what="it noticed")
    plain.until(lambda: bool(plain.downs), what="we heard of it")
    assert plain.downs[0].notification is not None
    assert plain.downs[0].notification.code == HOLD_TIMER_EXPIRED
    assert not plain.downs[0].sent
    plain.until(lambda: router.count(ours.ipv4) == 3, deadline=25, what="back")


def test_it_tells_too_much(fabric: Fabric, kind: type[Router]) -> None:
    ours, theirs = fabric.hosts
    router = fabric.use(
        kind(theirs, THEIRS, [Neighbor(ours.ipv4, OURS)], dict.fromkeys(prefixes(10), PLAIN))
    )
    us = peer(ours, OURS, THEIRS, max_prefixes=10, max_prefixes_restart=1.0)
    plain = fabric.use(Plain(ours, us, theirs.ipv4))
    plain.start().until(lambda: len(plain.learned) == 10, what="as many as it may")
    router.announce(prefixes(1, 4, 500))
    plain.until(lambda: not plain.up, what="one more")
    said = plain.downs[-1].notification
    assert said is not None
    assert said == (CEASE, MAX_PREFIXES, b"\0\1\1\0\0\0\n")
    assert not plain.learned
    router.withdraw(prefixes(1, 4, 500))
    plain.until(lambda: len(plain.learned) == 10, deadline=30, what="back")


def test_we_tell_too_much(fabric: Fabric, kind: type[Router]) -> None:
    ours, theirs = fabric.hosts
    router = fabric.use(kind(theirs, THEIRS, [Neighbor(ours.ipv4, OURS, max_prefixes=10)]))
    plain = fabric.use(Plain(ours, peer(ours, OURS, THEIRS), theirs.ipv4))
    plain.announce(dict.fromkeys(prefixes(10), PLAIN))
    plain.start().until(lambda: router.count(ours.ipv4) == 10, what="as many as we may")
    for number in (11, 12):  # FRR looks before it counts the one that came
        plain.announce(dict.fromkeys(prefixes(number), PLAIN))
        plain.pump(0.3)
    plain.until(lambda: bool(plain.downs), what="it ends the session")
    said = plain.downs[0].notification
    assert said is not None
    assert said[:2] == (CEASE, MAX_PREFIXES)
    assert "Maximum Number of Prefixes Reached" in str(said)


@pytest.mark.parametrize("graceful", [True, False], ids=["graceful", "not"])
def test_it_restarts(fabric: Fabric, kind: type[Router], graceful: bool) -> None:
    """RFC 4724, section 4.2: killed and started again; without graceful restart its routes go."""
    ours, theirs = fabric.hosts
    neighbor = Neighbor(ours.ipv4, OURS, graceful_restart=graceful)
    router = fabric.use(kind(theirs, THEIRS, [neighbor], dict.fromkeys(prefixes(50), PLAIN)))
    us = peer(ours, OURS, THEIRS, retry_first=0.1, retry_most=0.5)
    plain = fabric.use(Plain(ours, us, theirs.ipv4))
    plain.start().until(lambda: len(plain.learned) == 50, what="learned")
    plain.pump(1)
    router.kill()
    plain.until(lambda: not plain.up, what="noticed")
    assert plain.downs[-1].retained == graceful
    assert len(plain.learned) == (50 if graceful else 0)
    router.announced = dict.fromkeys(prefixes(40), PLAIN)
    router.start()
    plain.until(lambda: plain.up, what="up again", deadline=25)
    # The ten that it does not tell again end with its End-of-RIB, all others never did.
    plain.until(lambda: len(plain.learned) == 40, what="swept", deadline=30)
    assert plain.gone == (10 if graceful else 50)


@pytest.mark.parametrize("graceful", [True, False], ids=["graceful", "not"])
@pytest.mark.parametrize("kind", [Bird, Frr], ids=["bird", "frr"], indirect=False)
def test_we_restart(fabric: Fabric, kind: type[Router], graceful: bool) -> None:
    """Its kernel keeps our routes without a gap, and drops those that we do not tell again.

    With graceful restart off, the same probe sees them go.
    """
    ours, theirs = fabric.hosts
    router = fabric.use(kind(theirs, THEIRS, [Neighbor(ours.ipv4, OURS)], install=True))
    time_ = 60 if graceful else 0
    first = fabric.use(Plain(ours, peer(ours, OURS, THEIRS, restart_time=time_), theirs.ipv4))
    first.announce(dict.fromkeys(prefixes(20), PLAIN))
    first.start().until(lambda: router.count(ours.ipv4) == 20, what="told")
    kept, left_out = prefixes(20)[0], prefixes(20)[-1]
    first.until(lambda: theirs.has(kept) and theirs.has(left_out), what="installed")
    first.pump(1)
    first.abandon()
    until(lambda: router.session(ours.ipv4) != "Established", deadline=5, what="it noticed")
    there = [theirs.has(kept) for _ in range(10)]
    us = peer(ours, OURS, THEIRS, restart_time=time_, restarting=graceful)
    second = fabric.use(Plain(ours, us, theirs.ipv4))
    second.announce(dict.fromkeys(prefixes(19), PLAIN))
    second.start()

    def back() -> bool:
        there.append(theirs.has(kept))
        return second.up and not theirs.has(left_out)

    second.until(back, deadline=25, what="back, and the one left out is gone")
    second.until(lambda: theirs.has(kept), what="installed")
    assert all(there) == graceful
    assert router.count(ours.ipv4) == 19
