"""Two sessions over a wire in virtual time: how they begin, live, end and come back."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_bgp import telling
from calico_bgp.actions import Action, Arm, Close, Connect, Down, EndOfRib, Faulty, Routes, Send, Up
from calico_bgp.attempts import CONNECT_TIME
from calico_bgp.attribute_values import Context
from calico_bgp.attributes import Attributes
from calico_bgp.capability import GracefulRestart
from calico_bgp.connection import EXPECTED, NEVER, OPEN_TIME, State
from calico_bgp.message import KEEPALIVE_OCTETS, RouteRefresh, Stream, frame, read, write
from calico_bgp.notification import RESET, Notification
from calico_bgp.opening import Open
from calico_bgp.packing import pack
from calico_bgp.peer import Peer
from calico_bgp.policy import Importer, Policy
from calico_bgp.prefix import IPV4, IPV6, Family, Prefix
from calico_bgp.restart import Retention
from calico_bgp.rib import AdjRibIn, Import
from calico_bgp.session import Session
from calico_bgp.update import Announced, Update
from tests.bgp import A, B, Side, World, prefix, route, routes
from tests.unit.test_bgp_rib import EBGP

EBGP_CONTEXT = Context(external=True)
PASSIVE = replace(B, passive=True)
OURS = routes("10.0.0.9/32", "10.0.0.8/32")
SIX = routes("2001:db8::9/128", told=route("2001:db8::1", 64512))


def world(a: Peer = A, b: Peer = PASSIVE) -> World:
    return World().join(a, b).start()


def up(a: Peer = A, b: Peer = PASSIVE, **told: Any) -> World:
    """Both established, `a` has told its routes."""
    made = world(a, b)
    made.a.do(made.a.session.desired(made.now, told.get("told", OURS)))
    made.run(1)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)
    return made


def states(made: World) -> tuple[State, State]:
    return made.a.session.state, made.b.session.state


def names(side: Side) -> list[str]:
    """How its sessions ended, by the RFCs' names."""
    return [down.notification.name if down.notification else down.why for down in side.of(Down)]


def hear(side: Side, octets: bytes) -> None:
    """As if the other side had sent this on the last connection."""
    side.do(side.session.received(side.world.now, max(side.ends), octets))


# Life -------------------------------------------------------------------------------------------


def test_they_meet_and_tell() -> None:
    made = up()
    assert made.b.routes == OURS == made.a.session.advertised
    [meeting] = made.a.of(Up)
    assert meeting.hold_time == 9
    assert meeting.families == (IPV4, IPV6)
    assert meeting.theirs.asn == 64513
    assert not made.b.of(Connect)


def test_a_session_is_there_within_four_messages() -> None:
    made = world()
    made.run(0.0045)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)


def test_it_lives_on_keepalives() -> None:
    made = up()
    before = len(made.a.of(Send))
    made.run(300)
    assert not made.a.of(Down)
    assert not made.b.of(Down)
    # A third of 9 s, less the jitter (RFC 4271, section 10).
    sent = len(made.a.of(Send)) - before
    assert 300 / 3 * 1.05 <= sent <= 300 / (3 * 0.75) + 3


def test_updates_are_signs_of_life_too() -> None:
    made = up()
    made.a.log.clear()
    for i in range(60):
        made.a.do(made.a.session.desired(made.now, routes(f"10.0.{i}.1/32")))
        made.run(1)
    assert KEEPALIVE_OCTETS not in [send.octets for send in made.a.of(Send)]
    assert made.b.routes == routes("10.0.59.1/32")


def test_hold_time_zero() -> None:
    """RFC 4271, section 4.2: no KEEPALIVEs, and no death of silence."""
    made = up(replace(A, hold_time=0))
    made.a.do(made.a.session.synced(made.now))
    made.run(1)
    made.b.deaf = True
    made.a.log.clear()
    made.run(1000)
    assert not made.a.of(Send)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)


def test_hold_timer() -> None:
    made = up(b=replace(PASSIVE, hold_time=30))
    made.a.deaf = made.b.deaf = True
    made.a.reachable = made.b.reachable = False
    made.run(5.9)
    assert not made.b.of(Down)
    made.run(2.5)
    [down] = made.b.of(Down)
    assert (down.notification, down.sent, down.was_up) == (Notification(4), True, True)
    assert made.b.routes == {}  # it expired by itself: nothing is kept (RFC 4724, section 4.2)
    assert states(made) == (State.IDLE, State.IDLE)


def test_no_open() -> None:
    made = World().join(A, PASSIVE)
    made.a.do(made.a.session.start(made.now))
    made.b.do = lambda actions: None  # type: ignore[method-assign]
    made.run(OPEN_TIME - 1)
    assert made.a.session.state is State.OPEN_SENT
    made.run(1.1)
    assert names(made.a) == ["Hold Timer Expired"]


def test_changes() -> None:
    made = up()
    made.a.do(made.a.session.desired(made.now, {**routes("10.0.0.8/32", "10.0.0.7/32"), **SIX}))
    made.run(0.1)
    assert made.b.routes == {**routes("10.0.0.8/32", "10.0.0.7/32"), **SIX}
    [last] = made.b.of(Routes)[-1:]
    assert last.change.withdrawn == {prefix("10.0.0.9/32")}


def test_a_family_of_one_only_is_not_told() -> None:
    made = up(b=replace(PASSIVE, families=(IPV4,)), told={**OURS, **SIX})
    assert made.b.routes == OURS
    assert not made.b.of(Down)


def test_ipv6_over_a_session_of_ipv6_only() -> None:
    made = up(replace(A, families=(IPV6,)), told={**OURS, **SIX})
    assert made.b.routes == SIX


def test_route_refresh() -> None:
    """RFC 2918."""
    made = up(told={**OURS, **SIX})
    made.a.log.clear()
    hear(made.a, write(RouteRefresh(IPV4)))
    [send] = made.a.of(Send)
    assert send.octets == b"".join(pack(OURS, wide=True))
    hear(made.a, write(RouteRefresh(IPV4, 1)) + write(RouteRefresh(Family(9, 9))))
    assert len(made.a.of(Send)) == 1


def test_many_route_refreshes_have_few_answers() -> None:
    made = up()
    made.a.do(made.a.session.synced(made.now))
    made.a.log.clear()
    hear(made.a, write(RouteRefresh(IPV4)) * 1000)
    made.run(0.9)
    hear(made.a, write(RouteRefresh(IPV4)))
    assert len(made.a.of(Send)) == 1
    made.run(0.2)
    assert len(made.a.of(Send)) == 2
    made.run(1.5)
    assert len([send for send in made.a.of(Send) if send.octets != KEEPALIVE_OCTETS]) == 2


def test_an_old_speaker() -> None:
    """RFC 5492, section 3: without capabilities where the peer does not know of any."""
    made = World().join(A, PASSIVE)
    made.a.do(made.a.session.start(made.now))
    refusal = write(Notification(2, 4))
    first = made.a.session
    first.connected(made.now, 1, outgoing=True)
    first.received(made.now, 1, refusal)
    [send, *_] = first.connected(made.now + 1, 2, outgoing=True)
    assert isinstance(send, Send)
    [(kind, body)] = Stream().feed(send.octets)
    assert read(kind, body, EBGP_CONTEXT) == Open(64512, 9, A.router_id, None)
    theirs = write(Open(64513, 90, B.router_id, None)) + KEEPALIVE_OCTETS
    actions = first.received(made.now + 1, 2, theirs)
    assert [one.families for one in actions if isinstance(one, Up)] == [(IPV4,)]
    wide = first.desired(made.now + 1, routes("10.0.0.9/32", told=route("192.0.2.1", 70000)))
    [sent] = [one.octets for one in wide if isinstance(one, Send)]
    assert bytes.fromhex("40020402015ba0") in sent  # AS_TRANS
    assert bytes.fromhex("c01106020100011170") in sent  # AS4_PATH


# Beginning --------------------------------------------------------------------------------------


def test_a_peer_that_is_away_is_tried_again() -> None:
    made = World().join(A, PASSIVE)
    made.b.reachable = False
    made.start()
    made.run(60)
    tries = len(made.a.of(Connect))
    assert 60 / 5 <= tries <= 60 / 2.5 + 6
    assert names(made.a)[0] == "Connection refused"
    made.b.reachable = True
    made.run(6)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)


def test_an_attempt_that_hangs() -> None:
    session = Session(A, Import(), random.Random(1))
    assert session.start(0.0) == [Connect(), Arm(CONNECT_TIME)]
    again = session.tick(CONNECT_TIME)
    assert [type(one).__name__ for one in again] == ["Cancel", "Connect", "Arm"]


@pytest.mark.parametrize("higher", ["a", "b"])
def test_collision(higher: str) -> None:
    """RFC 4271, section 6.8: the connection of the higher identifier stays, on both sides."""
    ids = (
        {"a": "10.0.0.9", "b": "10.0.0.2"} if higher == "a" else {"a": "10.0.0.1", "b": "10.0.0.2"}
    )
    made = world(
        replace(A, router_id=IPv4Address(ids["a"])), replace(B, router_id=IPv4Address(ids["b"]))
    )
    made.run(30)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)
    for side, name in ((made.a, "a"), (made.b, "b")):
        assert len(side.of(Up)) == 1
        assert len(side.of(Connect)) == 1
        assert side.session.established is not None
        assert side.session.established.outgoing == (higher == name)
        assert not any(down.was_up for down in side.of(Down))
    assert len(made.a.ends) == len(made.b.ends) == 1


def test_collision_of_equal_identifiers() -> None:
    """RFC 6286, section 2.3: the higher AS number's stays."""
    same = IPv4Address("10.0.0.7")
    made = world(replace(A, router_id=same), replace(B, router_id=same))
    made.run(30)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)
    assert made.b.session.established is not None
    assert made.b.session.established.outgoing


@given(st.floats(0, 0.01), st.booleans())
@settings(max_examples=60)
def test_they_meet_once_whoever_begins(delay: float, swapped: bool) -> None:
    made = World().join(A, B) if swapped else World().join(replace(A, peer_asn=64513), B)
    made.a.do(made.a.session.start(made.now))
    made.later(delay, lambda: made.b.do(made.b.session.start(made.now)))
    made.run(20)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)
    assert len(made.a.ends) == len(made.b.ends) == 1
    assert len(made.a.of(Up)) == len(made.b.of(Up)) == 1


def test_who_is_stopped_takes_no_connection() -> None:
    session = Session(B, Import(), random.Random(1))
    assert session.state is State.IDLE
    assert session.connected(0.0, 5, outgoing=False) == [Close(5)]


def test_another_connection_does_not_end_a_session_that_lives() -> None:
    made = up()
    made.b.do(made.b.session.connected(made.now, 99, outgoing=False))
    made.b.do(made.b.session.received(made.now, 99, write(A.open(restarting=False))))
    [send] = [one for one in made.b.of(Send) if one.connection == 99]
    assert send.octets == write(Notification(6, 7))
    assert Close(99) in made.b.log
    made.run(30)
    assert not made.b.of(Down)


def test_it_ends_one_whose_peer_says_that_it_restarted() -> None:
    made = up()
    made.b.do(made.b.session.connected(made.now, 99, outgoing=False))
    made.b.do(made.b.session.received(made.now, 99, write(A.open(restarting=True))))
    [down] = made.b.of(Down)
    assert down.retained
    assert made.b.routes == OURS
    made.b.do(made.b.session.received(made.now, 99, KEEPALIVE_OCTETS))
    assert len(made.b.of(Up)) == 2


def test_it_ends_one_that_is_silent() -> None:
    made = up()
    made.a.deaf = made.b.deaf = True
    made.run(5)
    made.b.do(made.b.session.connected(made.now, 99, outgoing=False))
    made.b.do(made.b.session.received(made.now, 99, write(A.open(restarting=False))))
    made.b.do(made.b.session.received(made.now, 99, KEEPALIVE_OCTETS))
    assert len(made.b.of(Up)) == 2
    assert made.b.routes == OURS


def test_who_waits_for_our_open_has_it_once_the_session_is_lost() -> None:
    made = up()
    made.b.do(made.b.session.connected(made.now, 99, outgoing=False))
    opening = Send(99, write(B.open(restarting=False)))
    assert opening not in made.b.log
    made.a.drop()
    assert opening in made.b.log


# Errors -----------------------------------------------------------------------------------------

WRONG = [
    (replace(A, peer_asn=64999), PASSIVE, "OPEN Message Error/Bad Peer AS"),
    (A, replace(PASSIVE, router_id=IPv4Address(0)), "OPEN Message Error/Bad BGP Identifier"),
    (
        replace(A, required=(IPV6,)),
        replace(PASSIVE, families=(IPV4,)),
        "OPEN Message Error/Unsupported Capability",
    ),
    (
        replace(A, families=(IPV4,)),
        replace(PASSIVE, families=(IPV6,)),
        "OPEN Message Error/Unsupported Capability",
    ),
    (A, replace(PASSIVE, hold_time=2), "OPEN Message Error/Unacceptable Hold Time"),
]


@pytest.mark.parametrize(("a", "b", "why"), WRONG)
def test_opens_that_are_refused(a: Peer, b: Peer, why: str) -> None:
    made = world(a, b)
    made.run(0.1)
    assert why in (*names(made.a), *names(made.b))
    assert not made.a.ends
    tries = len(made.a.of(Connect))
    made.run(20)
    # It rests after each, and tries again.
    assert 3 <= len(made.a.of(Connect)) - tries <= 20
    assert not made.a.of(Up)


@pytest.mark.parametrize("state", EXPECTED, ids=lambda state: state.value)
@pytest.mark.parametrize("kind", [1, 2, 4, 5])
def test_messages_at_the_wrong_time(state: State, kind: int) -> None:
    """RFC 6608: a subcode for each state."""
    messages = {
        1: write(B.open(restarting=False)),
        2: b"".join(pack(routes("10.0.0.1/32", told=route("192.0.2.9", 64513)), wide=True)),
        4: KEEPALIVE_OCTETS,
        5: write(RouteRefresh(IPV4)),
    }
    session = Session(A, Import(), random.Random(1))
    session.start(0.0)
    session.connected(0.0, 1, outgoing=True)
    if state is not State.OPEN_SENT:
        session.received(0.0, 1, messages[1])
    if state is State.ESTABLISHED:
        session.received(0.0, 1, messages[4])
    assert session.state is state
    actions = session.received(0.0, 1, messages[kind])
    sent = [one.octets for one in actions if isinstance(one, Send)]
    if kind in EXPECTED[state]:
        assert session.established or state is not State.ESTABLISHED
        assert not any(isinstance(one, Down) for one in actions)
    else:
        subcode = list(EXPECTED).index(state) + 1
        assert sent == [write(Notification(5, subcode))]
        assert Close(1) in actions
        assert session.state is State.IDLE


def test_a_malformed_update_keeps_the_session() -> None:
    """RFC 7606: its routes are withdrawn, the others stay."""
    made = up(told={})
    sound, other = (prefix(f"10.1.0.{n}/32") for n in (1, 2))
    told = routes("10.1.0.1/32", "10.1.0.2/32", told=route("192.0.2.9", 64512))
    hear(made.b, b"".join(pack(told, wide=True)))
    assert made.b.routes == told
    field = bytes.fromhex("400101 07 400206 0201 0000fc00 400304 c0000209")
    body = b"\0\0" + len(field).to_bytes(2, "big") + field + other.nlri
    hear(made.b, frame(2, body))
    [faulty] = made.b.of(Faulty)
    assert [str(fault.action) for fault in faulty.faults] == ["treat-as-withdraw"]
    assert made.b.routes.keys() == {sound}
    made.run(60)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)


def test_an_update_that_cannot_be_told_ends_it() -> None:
    made = up()
    hear(made.b, frame(2, b"\0\0\0\0\x21\x0a\0\0\0\0"))
    assert names(made.b) == ["UPDATE Message Error/Invalid Network Field"]
    made.run(0.01)
    assert names(made.a) == ["UPDATE Message Error/Invalid Network Field"]
    assert made.b.routes == {}
    assert made.b.session.state is State.IDLE
    made.run(10)
    assert states(made) == (State.ESTABLISHED, State.ESTABLISHED)
    assert made.b.routes == OURS


def test_nonsense_after_a_message_of_the_same_read() -> None:
    made = up()
    hear(made.b, KEEPALIVE_OCTETS + bytes(19) + KEEPALIVE_OCTETS)
    assert names(made.b) == ["Message Header Error/Connection Not Synchronized"]
    assert made.b.session.received(made.now, 1, KEEPALIVE_OCTETS) == []


def test_too_many_prefixes() -> None:
    made = up(b=replace(PASSIVE, max_prefixes=2))
    made.a.do(made.a.session.desired(made.now, routes(*(f"10.0.0.{n}/32" for n in range(3)))))
    made.run(1)
    [down] = made.b.of(Down)
    assert down.notification == Notification(6, 1, bytes.fromhex("0001 01 00000002"))
    assert "3 prefixes of ipv4, at most 2" in down.why
    assert made.b.routes == {}
    made.run(600)
    assert made.b.session.state is State.IDLE
    made.a.do(made.a.session.desired(made.now, OURS))
    made.b.do(made.b.session.start(made.now))
    made.run(10)
    assert made.b.routes == OURS


def test_too_many_prefixes_and_another_chance() -> None:
    made = up(b=replace(PASSIVE, max_prefixes=2, max_prefixes_restart=30.0))
    made.a.do(made.a.session.desired(made.now, routes(*(f"10.0.0.{n}/32" for n in range(3)))))
    made.run(1)
    made.a.do(made.a.session.desired(made.now, OURS))
    made.run(28)
    assert made.b.session.state is State.IDLE
    made.run(10)
    assert made.b.routes == OURS


# Ends -------------------------------------------------------------------------------------------


def test_stopping_withdraws_and_says_why() -> None:
    made = up()
    made.b.log.clear()
    made.a.do(made.a.session.stop(made.now, "new kernel"))
    made.run(0.01)
    assert made.b.routes == {}
    gone, down = [one for one in made.b.log if isinstance(one, Routes | Down)]
    assert isinstance(gone, Routes)
    assert str(down.notification) == 'Cease/Administrative Shutdown: "new kernel"'  # type: ignore[union-attr]
    made.run(60)
    assert made.a.session.state is State.IDLE
    assert not made.a.of(Connect)[1:]
    made.a.do(made.a.session.start(made.now))
    made.run(1)
    assert made.b.routes == OURS


def test_an_administrative_reset() -> None:
    made = up()
    made.a.do(made.a.session.stop(made.now, subcode=RESET))
    made.run(0.01)
    assert names(made.b) == ["Cease/Administrative Reset"]


def test_without_graceful_restart_a_loss_ends_routes() -> None:
    """The negative control."""
    made = up(b=replace(PASSIVE, restart_time=0))
    made.a.die()
    made.run(0.01)
    assert made.b.routes == {}
    [down] = made.b.of(Down)
    assert (down.why, down.retained) == ("connection lost", False)


# Graceful restart (RFC 4724) --------------------------------------------------------------------


def test_a_restart_is_not_seen() -> None:
    made = up()
    made.a.die()
    made.run(1)
    assert made.b.of(Down)[-1].retained
    assert made.b.routes == OURS
    made.b.log.clear()
    made.a.reborn(replace(A, restarting=True))
    made.a.do(made.a.session.desired(made.now, routes("10.0.0.9/32")))
    made.a.do(made.a.session.start(made.now))
    made.run(5)
    [meeting] = made.b.of(Up)
    assert meeting.theirs.can.graceful_restart.restarting
    assert made.b.routes == OURS  # one of them is not told again, but not all has been told
    assert not made.b.of(EndOfRib)
    made.a.do(made.a.session.synced(made.now))
    made.run(0.01)
    assert made.b.of(EndOfRib) == [EndOfRib(IPV4), EndOfRib(IPV6)]
    # What is about a family comes before its end: a kernel may be swept then.
    gone, *_ = [one for one in made.b.log if isinstance(one, Routes | EndOfRib)]
    assert isinstance(gone, Routes)
    assert made.b.routes == routes("10.0.0.9/32")
    assert not made.a.session.peer.open(restarting=False).can.graceful_restart.restarting  # type: ignore[union-attr]


def test_the_end_of_rib_is_bounded() -> None:
    """kube-router#1323: peers of one that never ends hear nothing."""
    made = up()
    made.run(A.end_of_rib_most - 2)
    assert not made.b.of(EndOfRib)
    made.run(2)
    assert len(made.b.of(EndOfRib)) == 2
    made.run(120)
    assert len(made.b.of(EndOfRib)) == 2


def test_who_does_not_come_back_is_forgotten() -> None:
    made = up(replace(A, restart_time=30))
    made.a.die()
    made.run(29)
    assert made.b.routes == OURS
    made.run(2)
    assert made.b.routes == {}


def test_the_restart_time_of_the_peer_is_bounded() -> None:
    """calico#7144: a peer that is down holds its routes."""
    made = up(replace(A, restart_time=4000), replace(PASSIVE, stale_most=20.0))
    made.a.die()
    made.run(19)
    assert made.b.routes == OURS
    made.run(2)
    assert made.b.routes == {}


def test_who_is_back_and_never_ends_is_bounded_too() -> None:
    made = up(b=replace(PASSIVE, stale_most=20.0))
    made.a.die()
    made.a.reborn(replace(A, restarting=True, end_of_rib_most=1000.0))
    made.a.do(made.a.session.start(made.now))
    made.run(15)
    assert made.b.routes == OURS
    made.run(10)
    assert made.b.routes == {}


def test_who_is_back_without_graceful_restart_is_forgotten() -> None:
    made = up()
    made.a.die()
    made.a.reborn(replace(A, restart_time=0))
    made.a.do(made.a.session.start(made.now))
    made.run(5)
    assert made.b.routes == {}


def test_who_did_not_go_on_forwarding_is_forgotten() -> None:
    """RFC 4724, section 4.2: by family."""
    rib = AdjRibIn(Import())
    rib.apply(
        Update((Announced(route(), tuple(OURS)), Announced(route("2001:db8::1"), tuple(SIX))))
    )
    retention = Retention(B, rib)
    restart = GracefulRestart(30, ((IPV4, True), (IPV6, True)))
    assert not retention.lost(retention.keeps(restart, None), 100.0)
    assert retention.due == 130.0
    back = restart._replace(families=((IPV4, True), (IPV6, False)))
    assert retention.back(back, (IPV4, IPV6), 110.0).withdrawn == SIX.keys()
    assert retention.due == 110.0 + B.stale_most
    assert retention.told(IPV4).withdrawn == OURS.keys()
    assert retention.due == NEVER


def test_who_is_synced_ends_at_once() -> None:
    made = World().join(A, PASSIVE)
    made.a.do(made.a.session.synced(made.now))
    made.start()
    made.run(0.1)
    assert made.b.of(EndOfRib) == [EndOfRib(IPV4), EndOfRib(IPV6)]


def test_a_notification_ends_routes() -> None:
    made = up()
    hear(made.b, write(Notification(6, 4)))
    assert made.b.routes == {}


@pytest.mark.parametrize(
    ("end", "kept"), [(Notification(4), True), (Notification(6, 9, b"\6\2"), False)]
)
def test_notifications_that_keep_routes(end: Notification, kept: bool) -> None:
    """RFC 8538: all but a Hard Reset, where both said so."""
    made = up(replace(A, keep_on_notification=True), replace(PASSIVE, keep_on_notification=True))
    hear(made.b, write(end))
    assert made.b.of(Down)[-1].retained == kept
    assert made.b.routes == (OURS if kept else {})


def test_a_shutdown_is_a_hard_reset_then() -> None:
    made = up(replace(A, keep_on_notification=True), replace(PASSIVE, keep_on_notification=True))
    made.a.do(made.a.session.stop(made.now, "bye"))
    made.run(0.01)
    [down] = made.b.of(Down)
    assert str(down.notification).startswith("Cease/Hard Reset (Cease/Administrative Shutdown")
    assert not down.retained


def test_making_room_for_a_successor_touches_no_route() -> None:
    made = up()
    made.b.do(made.b.session.desired(made.now, routes("10.2.0.1/32")))
    made.run(0.01)
    made.a.do(made.a.session.abandon())
    made.run(0.01)
    assert made.a.routes == routes("10.2.0.1/32")
    assert made.b.routes == OURS
    assert made.b.of(Down)[-1].retained


# Policy -----------------------------------------------------------------------------------------


def test_an_import_policy_may_change_while_it_runs() -> None:
    made = up()
    made.b.do(made.b.session.believe(Importer(Policy(), EBGP)))
    assert made.b.routes == {}
    made.b.do(made.b.session.believe(Import()))
    assert made.b.routes == OURS


# Anything ---------------------------------------------------------------------------------------

EVENTS = ("start", "stop", "in", "out", "failed", "lost", "open", "keepalive", "update", "tick")
WEIGHTS = (3, 1, 3, 3, 1, 2, 8, 8, 6, 3)
OCTETS = {
    "open": write(A.open(restarting=False)),
    "keepalive": KEEPALIVE_OCTETS,
    "update": b"".join(pack(OURS, wide=True)),
}


class Caller:
    """Does what it is told, and holds the session to the rules of `actions`."""

    def __init__(self) -> None:
        self.session = Session(B, Import(), random.Random(1))
        self.now, self.ids = 0.0, 0
        self.alive: set[int] = set()
        self.routes: dict[Prefix, Attributes] = {}
        self.seen: Counter[str] = Counter()

    def give(self, event: str, pick: int) -> list[Action]:
        id_ = sorted(self.alive)[pick % len(self.alive)] if self.alive else 0
        self.now += 0.5 * pick
        match event:
            case "start":
                return self.session.start(self.now)
            case "stop":
                return self.session.stop(self.now)
            case "out" if self.session.state is not State.CONNECT:
                return []
            case "in" | "out":
                self.ids += 1
                self.alive.add(self.ids)
                return self.session.connected(self.now, self.ids, outgoing=event == "out")
            case "failed":
                return self.session.connect_failed(self.now, "refused")
            case "lost":
                self.alive.discard(id_)
                return self.session.lost(self.now, id_)
            case "tick":
                return self.session.tick(self.now)
        return self.session.received(self.now, id_, OCTETS[event])

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            self.seen[type(action).__name__] += 1
            match action:
                case Close(id_):
                    self.alive.remove(id_)
                case Send(id_, octets):
                    assert id_ in self.alive
                    assert octets
                case Routes(change):
                    for gone in change.withdrawn:
                        del self.routes[gone]
                    self.routes.update(change.announced)
        session = self.session
        assert (session.state is State.ESTABLISHED) == (session.established is not None)
        assert session.rib.accepted == self.routes
        if session.established is None and not session.rib.stale:
            assert not self.routes


def test_no_order_of_inputs_breaks_it() -> None:
    rng = random.Random(7)
    seen: Counter[str] = Counter()
    for _ in range(600):
        caller = Caller()
        for event in rng.choices(EVENTS, WEIGHTS, k=40):
            caller.do(caller.give(event, rng.randrange(1, 5)))
        seen += caller.seen
    kinds = ("Up", "Down", "Routes", "Connect", "Cancel", "Close")
    assert min(seen[kind] for kind in kinds) >= 30, seen


FAULTS = ("routes", "change", "drop", "die", "stop", "deaf", "nonsense", "wait")


@pytest.mark.parametrize("passive", [True, False])
@pytest.mark.parametrize("restart_time", [0, 20])
@pytest.mark.parametrize("at_once", [2, telling.SLICE])
def test_after_any_faults_the_peer_knows_what_it_should(
    passive: bool, restart_time: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left depends on the present state, never on how it came about."""
    monkeypatch.setattr(telling, "SLICE", at_once)
    for seed in range(40):
        rng = random.Random(seed)
        a = replace(A, restart_time=restart_time)
        made = world(a, replace(B, passive=passive, restart_time=restart_time))
        want: dict[Prefix, Attributes] = {}
        for fault in rng.choices(FAULTS, k=8):
            match fault:
                case "routes":
                    want = routes(*(f"10.0.0.{n}/32" for n in rng.sample(range(9), 4)))
                    made.a.do(made.a.session.desired(made.now, want))
                    made.a.do(made.a.session.synced(made.now))
                case "change":
                    new = routes(*(f"10.0.0.{n}/32" for n in rng.sample(range(9), 2)))
                    gone = [one for one in want if one not in new][:2]
                    want = {one: told for one, told in want.items() if one not in gone} | new
                    made.a.do(made.a.session.change(made.now, new, gone))
                case "drop":
                    made.a.drop()
                case "die":
                    made.a.die()
                    made.run(rng.uniform(0, 3))
                    made.a.reborn(replace(a, restarting=True))
                    made.a.do(made.a.session.desired(made.now, want))
                    made.a.do(made.a.session.start(made.now))
                case "stop":
                    made.a.do(made.a.session.stop(made.now))
                    made.run(rng.uniform(0, 3))
                    made.a.do(made.a.session.start(made.now))
                case "deaf":
                    made.a.deaf = True
                    made.run(rng.uniform(0, 20))
                    made.a.deaf = False
                    made.a.drop()  # a stream with a hole does not go on
                case "nonsense" if made.b.ends:
                    hear(made.b, rng.randbytes(40))
            made.run(rng.choice((0.0005, 0.002, 0.5, 12.0)))
        made.run(90)
        assert states(made) == (State.ESTABLISHED, State.ESTABLISHED), seed
        assert made.b.routes == want, seed
        assert len(made.a.ends) == len(made.b.ends) == 1, seed
        assert made.b.session.rib.stale == 0
