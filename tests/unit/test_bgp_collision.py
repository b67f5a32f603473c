"""Both connect at once (RFC 4271, section 6.8): no session that is established is lost.

Octets of one connection keep their order, those of two do not; so each end of each connection has
a lag of its own here.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_bgp.actions import Action, Arm, Close, Down, Send, Up
from calico_bgp.collision import RESOLUTION, SETTLE, wins
from calico_bgp.connection import State
from calico_bgp.message import KEEPALIVE_OCTETS, write
from calico_bgp.packing import pack
from calico_bgp.rib import Import
from calico_bgp.session import Session
from tests.bgp import A, B, World, routes

HIGH = replace(A, router_id=IPv4Address("10.0.0.9"))
"""Above B's, which is 10.0.0.2; A is below."""
OURS, THEIRS = 1, 2
"""The connection that we began, and the peer's."""
REFUSAL = write(RESOLUTION)


class Literal(Session):
    """A speaker that follows section 6.8 by the letter, as others do: it waits for nothing."""

    def _settle(self, now: float) -> None:
        if self.established is not None:
            return
        known = [one for one in self._connections.values() if one.theirs is not None]
        if len(known) == 2:
            loser = known[1] if wins(known[0], known[1]) else known[0]
            known.remove(loser)
            self._end(loser, now, "connection collision", RESOLUTION, quiet=True)
        for one in known:
            if not one.promised:
                self._out.put(Send(one.id, one.promise(now)))
            if one.agreed:
                self._up(one, now)


def lost(made: World) -> int:
    """Established sessions that ended."""
    return sum(down.was_up for side in (made.a, made.b) for down in side.of(Down))


def meeting(seed: int, *, high: bool, a: bool, b: bool) -> World:
    """Both begin within 50 ms; `a`, `b`: whether that side is ours or `Literal`."""
    rng = random.Random(seed)
    made = World().join(HIGH if high else A, B)
    made.lag = lambda: rng.uniform(0.001, 0.05)
    for side, ours in ((made.a, a), (made.b, b)):
        if not ours:
            side.session = Literal(side.session.peer, Import(), side.rng)
        made.later(rng.uniform(0, 0.05), lambda side=side: side.do(side.session.start(made.now)))
    made.run(30)
    assert made.a.session.state is made.b.session.state is State.ESTABLISHED
    return made


@given(st.integers(0, 10**9), st.booleans(), st.sampled_from([(1, 1), (1, 0), (0, 1)]))
@settings(max_examples=300)
def test_no_established_session_is_lost(seed: int, high: bool, ours: tuple[int, int]) -> None:
    made = meeting(seed, high=high, a=bool(ours[0]), b=bool(ours[1]))
    assert lost(made) == 0
    assert len(made.a.of(Up)) == len(made.b.of(Up)) == 1
    assert len(made.a.ends) == len(made.b.ends) == 1


def test_by_the_letter_some_are_lost() -> None:
    """Or the test above would see nothing."""
    assert any(lost(meeting(seed, high=True, a=False, b=False)) for seed in range(200))


class Alone:
    """One session of ours with both connections, and a peer that is the test."""

    def __init__(self, *, high: bool, both: bool = True) -> None:
        self.now = 100.0
        self.session = Session(HIGH if high else A, Import(), random.Random(1))
        self.session.start(self.now)
        if both:
            self.session.connected(self.now, OURS, outgoing=True)
        self.session.connected(self.now, THEIRS, outgoing=False)

    def hears(self, connection: int, *messages: bytes) -> list[Action]:
        return self.session.received(self.now, connection, b"".join(messages))

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.session.tick(self.now)

    @property
    def up(self) -> int | None:
        """Which connection is established."""
        return None if self.session.established is None else self.session.established.id


OPEN = write(B.open(restarting=False))


def test_the_losing_one_is_held_back() -> None:
    """The peer's OPEN and KEEPALIVE on its connection overtake its OPEN on ours."""
    peer = Alone(high=True)
    done = peer.hears(THEIRS, OPEN, KEEPALIVE_OCTETS)
    assert Send(THEIRS, KEEPALIVE_OCTETS) not in done
    assert peer.up is None
    done = peer.hears(OURS, OPEN)
    assert done[:3] == [Send(THEIRS, REFUSAL), Close(THEIRS), Send(OURS, KEEPALIVE_OCTETS)]
    peer.hears(OURS, KEEPALIVE_OCTETS)
    assert peer.up == OURS


@pytest.mark.parametrize("late", [False, True])
def test_not_for_ever(late: bool) -> None:
    """A peer that never says its OPEN on ours has the session on its own connection."""
    peer = Alone(high=True)
    peer.hears(THEIRS, OPEN, *([] if late else [KEEPALIVE_OCTETS]))
    assert not [one for one in peer.after(SETTLE - 0.01) if isinstance(one, Send)]
    done = peer.after(0.02)
    assert done[:3] == [Send(OURS, REFUSAL), Close(OURS), Send(THEIRS, KEEPALIVE_OCTETS)]
    if late:
        peer.hears(THEIRS, KEEPALIVE_OCTETS)
    assert peer.up == THEIRS


def test_it_goes_on_at_once_when_the_other_one_ends() -> None:
    peer = Alone(high=True)
    peer.hears(THEIRS, OPEN, KEEPALIVE_OCTETS)
    assert Send(THEIRS, KEEPALIVE_OCTETS) in peer.session.lost(peer.now, OURS)
    assert peer.up == THEIRS


def test_the_winning_one_is_not_held_back() -> None:
    peer = Alone(high=False)
    peer.hears(THEIRS, OPEN, KEEPALIVE_OCTETS)
    assert peer.up == THEIRS


@pytest.mark.parametrize("says", ["routes", "end of ours", "end of theirs", "nothing"])
def test_after_a_promise_the_peer_chooses(says: str) -> None:
    """Our connection, which is to win, came after we had answered the peer's."""
    peer = Alone(high=True, both=False)
    assert Send(THEIRS, KEEPALIVE_OCTETS) in peer.hears(THEIRS, OPEN)
    peer.session.connected(peer.now, OURS, outgoing=True)
    peer.hears(OURS, OPEN)
    peer.hears(THEIRS, KEEPALIVE_OCTETS)
    assert peer.up is None
    match says:
        case "routes":  # only who is in Established sends them
            told = routes("10.0.0.1/32")
            peer.hears(THEIRS, *pack(told, wide=True))
            assert peer.session.rib.received
        case "end of ours":
            peer.hears(OURS, REFUSAL)
        case "end of theirs":
            peer.hears(THEIRS, REFUSAL)
            peer.hears(OURS, KEEPALIVE_OCTETS)
        case _:
            peer.after(SETTLE + 0.01)
    assert peer.up == (OURS if says == "end of theirs" else THEIRS)
    assert len(peer.session._connections) == 1


def test_a_promise_that_is_not_answered_does_not_bind() -> None:
    peer = Alone(high=True, both=False)
    peer.hears(THEIRS, OPEN)
    peer.session.connected(peer.now, OURS, outgoing=True)
    peer.hears(OURS, OPEN)
    done = peer.after(SETTLE + 0.01)
    assert done[:3] == [Send(THEIRS, REFUSAL), Close(THEIRS), Send(OURS, KEEPALIVE_OCTETS)]


def test_a_stop_leaves_nothing_to_wait_for() -> None:
    peer = Alone(high=True)
    peer.hears(THEIRS, OPEN)
    done = peer.session.stop(peer.now)
    assert [one for one in done if isinstance(one, Arm)] == [Arm(None)]


def test_routes_on_a_connection_that_was_not_answered_are_a_fault() -> None:
    peer = Alone(high=True)
    peer.hears(THEIRS, OPEN, KEEPALIVE_OCTETS, *pack(routes("10.0.0.1/32"), wide=True))
    assert peer.up is None
    assert peer.session.last is not None and peer.session.last.notification is not None
    assert peer.session.last.notification.name.startswith("Finite State Machine Error")
