"""Native speakers against each other, over a network in memory and in virtual time."""

from __future__ import annotations

import random
import socket
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import trio

from calico_bgp.attributes import GRACEFUL_SHUTDOWN
from calico_bgp.decision import Changed, LocRib
from calico_bgp.inflow import SLICE
from calico_bgp.listener import TcpTransport
from calico_bgp.packing import pack
from calico_bgp.peering import TELL, Peering
from calico_bgp.ports import Desired
from calico_bgp.prefix import IPV4, Prefix
from calico_bgp.rib import AdjRibOut, Change
from calico_bgp.session import Session
from calico_bgp.transport import Dial
from discod.model.bgp_settings import BgpSettings, PrefixRule
from discod.model.settings import ListenAddress
from tests.bgp import A, B, World, routes
from tests.bgp_speakers import ANY, Net, Rig, peer, prefixes, until, wish

A4, B4, C4 = "192.0.2.1", "192.0.2.2", "192.0.2.3"
A6, B6 = "2001:db8::1", "2001:db8::2"


class Two:
    """Two speakers, external to one another; a connects, b is passive."""

    def __init__(self, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> None:
        self.net = Net()
        to_b = peer(B4, 64513, **(a or {}))
        to_a = peer(A4, 64512, **{"passive": True, **(b or {})})
        self.a = Rig(self.net, BgpSettings(64512, peers=(to_b,)), "a", A4, A6)
        self.b = Rig(self.net, BgpSettings(64513, peers=(to_a,)), "b", B4, B6)

    async def up(self, nursery: trio.Nursery) -> Two:
        for rig in (self.a, self.b):
            rig.speaker.synced()
            nursery.start_soon(rig.run)
        await until(lambda: self.a.states == self.b.states == ["Established"])
        return self


async def test_routes_of_both_families_go_both_ways_and_away(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()
    two.a.speaker.want(wish("10.0.0.1/32", "2001:db8:a::1/128"))
    await two.up(nursery)
    two.b.speaker.want(wish("10.0.0.2/32"))
    await until(lambda: len(two.b.learned) == 2 and len(two.a.learned) == 1)
    assert two.b.hops("10.0.0.1/32") == [A4]
    assert two.b.hops("2001:db8:a::1/128") == [A6]
    assert two.a.hops("10.0.0.2/32") == [B4]
    two.a.speaker.want(wish("10.0.0.1/32"))
    await until(lambda: len(two.b.learned) == 1)
    assert two.b.hops("10.0.0.1/32") == [A4]
    status = two.b.speaker.peers()[0]
    assert (status.state, status.received, status.established) == ("Established", 1, 1)
    assert two.a.speaker.peers()[0].advertised == 1
    route = two.b.speaker.routes()[0]
    assert (route.prefix, route.next_hops, route.as_path) == ("10.0.0.1/32", (A4,), "64512")


async def test_several_wishes_in_one_pass_are_told_as_the_last(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two().up(nursery)
    before = two.a.speaker.counts()[ip_address(B4)].updates_sent
    for n in range(50):
        two.a.speaker.want(wish(f"10.0.0.{n}/32"))
    await until(lambda: two.b.learned.keys() == prefixes("10.0.0.49/32"))
    await trio.sleep(1)
    assert two.a.speaker.counts()[ip_address(B4)].updates_sent == before + 1
    assert len(two.b.calls) == 1


async def test_no_policy_means_nothing_to_and_from_an_external_peer(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two(a={"exports": None}, b={"exports": ANY})
    two.a.speaker.want(wish("10.0.0.1/32"))
    two.b.speaker.want(wish("10.0.0.2/32"))
    await two.up(nursery)
    await until(lambda: two.a.hops("10.0.0.2/32") == [B4])
    await trio.sleep(5)
    assert two.b.learned == {}


async def test_lost_routes_are_kept_with_graceful_restart_and_end_without(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    for on in (True, False):
        two = Two(a={"graceful_restart": on})
        two.a.speaker.want(wish("10.0.0.1/32"))
        async with trio.open_nursery() as own:
            await two.up(own)
            await until(lambda two=two: len(two.b.learned) == 1)  # type: ignore[misc]
            two.a.scope.cancel()  # as a daemon that is stopped: without a NOTIFICATION
            await until(lambda two=two: two.b.states != ["Established"])  # type: ignore[misc]
            await trio.sleep(5)
            assert bool(two.b.learned) is on
            assert two.b.speaker.peers()[0].retained is on
            assert two.b.speaker.counts()[ip_address(A4)].notifications_received == 0
            await trio.sleep(120)
            assert two.b.learned == {}, "kept for ever"
            own.cancel_scope.cancel()


async def test_a_successor_takes_over_without_a_route_lost(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()
    two.a.speaker.want(wish("10.0.0.1/32", "10.0.0.9/32"))
    await two.up(nursery)
    await until(lambda: len(two.b.learned) == 2)
    calls = len(two.b.calls)
    two.a.scope.cancel()
    await until(lambda: two.b.states != ["Established"])
    after = Rig(two.net, two.a.speaker._settings, "a", A4, A6)
    nursery.start_soon(after.run)
    await until(lambda: two.b.states == ["Established"])
    await trio.sleep(10)  # it does not know yet what it has to announce: no End-of-RIB
    assert len(two.b.calls) == calls
    after.speaker.want(wish("10.0.0.1/32"))
    await trio.sleep(1)
    assert len(two.b.calls) == calls
    after.speaker.synced()
    await until(lambda: len(two.b.calls) > calls)
    assert two.b.learned.keys() == prefixes("10.0.0.1/32")
    assert two.b.calls[-1] == dict.fromkeys(prefixes("10.0.0.9/32"), ())


async def test_shutdown_withdraws_and_says_why(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()
    two.a.speaker.want(wish("10.0.0.1/32"))
    await two.up(nursery)
    await until(lambda: len(two.b.learned) == 1)
    began = trio.current_time()
    await two.a.speaker.shutdown("moved to rack 7", 5.0)
    assert trio.current_time() - began < 4
    await trio.sleep(1)
    assert two.b.learned == {}
    status = two.b.speaker.peers()[0]
    assert status.last_error == 'received Cease/Administrative Shutdown: "moved to rack 7"'
    assert status.last_error_at > 0
    assert two.a.states == ["Idle"]
    await trio.sleep(60)
    assert two.a.states == ["Idle"], "it has come back"


async def test_a_shutdown_does_not_wait_for_a_peer_that_does_not_read(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two().up(nursery)

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    stream: Any = two.a.end.links[-1].stream
    stream.send_stream.send_all_hook = never
    began = trio.current_time()
    await two.a.speaker.shutdown("bye", 2.0)
    assert 1.9 < trio.current_time() - began < 2.5


async def test_a_peer_that_does_not_read_ends_its_session(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    """Although its KEEPALIVEs come (RFC 9687)."""
    two = await Two().up(nursery)

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    stream: Any = two.a.end.links[-1].stream
    stream.send_stream.send_all_hook = never
    # b would end it by its hold timer: let it have none.
    peering = two.b.speaker._peerings[ip_address(A4)]
    assert peering.session is not None and peering.session.established is not None
    peering.session.established.hold_time = 0
    peering.session.established.hold_due = float("inf")
    peering.session.established.keepalive_due = float("inf")

    async def alive() -> None:
        while peering.session is not None:
            for wire in peering._wires.values():
                wire.send(b"\xff" * 16 + b"\x00\x13\x04")
            await trio.sleep(2)

    nursery.start_soon(alive)
    await until(lambda: two.a.speaker.peers()[0].last_error != "", 60)
    assert two.a.speaker.peers()[0].last_error == "Send Hold Timer Expired"


async def test_what_waits_for_a_peer_is_bounded(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calico_bgp.wire.QUEUE_MAX", 3000)
    two = await Two(b={"max_prefixes": 0}).up(nursery)
    many = [f"10.{a}.{b}.1/32" for a in range(8) for b in range(200)]
    two.a.speaker.want(wish(*many))
    await until(lambda: two.a.speaker.counts()[ip_address(B4)].lost > 0)
    assert "does not read" in two.a.speaker.peers()[0].last_error


async def test_max_prefixes_end_the_session_and_its_routes(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two(b={"max_prefixes": 2, "max_prefixes_restart": 20.0}).up(nursery)
    two.a.speaker.want(wish("10.0.0.1/32", "10.0.0.2/32"))
    await until(lambda: len(two.b.learned) == 2)
    two.a.speaker.want(wish("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"))
    await until(lambda: two.b.learned == {})
    error = two.b.speaker.peers()[0].last_error
    assert error.startswith("sent Cease/Maximum Number of Prefixes Reached")
    two.a.speaker.want(wish("10.0.0.1/32"))
    await trio.sleep(15)
    assert two.b.learned == {}
    await until(lambda: len(two.b.learned) == 1)


async def test_draining_is_told_with_the_community(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two().up(nursery)
    two.a.speaker.want(wish("10.0.0.1/32"))
    await until(lambda: len(two.b.learned) == 1)

    def path() -> Any:
        return two.b.speaker.rib.chosen[next(iter(prefixes("10.0.0.1/32")))][0].attributes

    assert GRACEFUL_SHUTDOWN not in path().communities
    two.a.speaker.want(wish("10.0.0.1/32", draining=True))
    await until(lambda: GRACEFUL_SHUTDOWN in path().communities)
    assert path().local_pref == 0
    two.a.speaker.want(wish("10.0.0.1/32"))
    await until(lambda: GRACEFUL_SHUTDOWN not in path().communities)


async def test_own_prefixes_go_before_learned_ones(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    """An anycast address that is delivered here is not sent elsewhere."""
    two = await Two().up(nursery)
    two.a.speaker.want(wish("10.9.9.9/32"))
    await until(lambda: two.b.hops("10.9.9.9/32") == [A4])
    two.b.speaker.want(wish("10.9.9.9/32"))
    await until(lambda: two.b.learned == {})
    two.b.speaker.want(Desired())
    await until(lambda: two.b.hops("10.9.9.9/32") == [A4])


async def test_another_filter_does_not_end_the_session(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()
    two.a.speaker.want(wish("10.0.0.1/32", "10.1.0.1/32"))
    two.b.speaker.want(wish("10.0.0.2/32", "10.1.0.2/32"))
    await two.up(nursery)
    await until(lambda: len(two.a.learned) == len(two.b.learned) == 2)
    narrow = (PrefixRule(ip_network("10.1.0.0/16"), le=32),)
    settings = two.a.speaker._settings
    changed = replace(settings.peers[0], imports=narrow, exports=narrow, communities=("64512:7",))
    two.a.speaker.reconfigure(replace(settings, peers=(changed,)))
    await until(lambda: len(two.a.learned) == len(two.b.learned) == 1)
    assert two.a.hops("10.1.0.2/32") == [B4]
    assert two.b.hops("10.1.0.1/32") == [A4]
    await until(
        lambda: (
            two.b.speaker.rib.chosen[next(iter(two.b.learned))][0].attributes.communities
            == (64512 << 16 | 7,)
        )
    )
    assert two.a.speaker.peers()[0].established == 1


async def test_another_hold_time_begins_the_session_anew_and_others_are_not_touched(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    net = Net()
    a = Rig(net, BgpSettings(64512, peers=(peer(B4, 64513), peer(C4, 64514))), "a", A4)
    b = Rig(net, BgpSettings(64513, peers=(peer(A4, 64512, passive=True),)), "b", B4)
    c = Rig(net, BgpSettings(64514, peers=(peer(A4, 64512, passive=True),)), "c", C4)
    for rig in (a, b, c):
        nursery.start_soon(rig.run)
    await until(lambda: a.states == ["Established"] * 2)
    settings = a.speaker._settings
    slower = replace(settings.peers[0], hold_time=30)
    a.speaker.reconfigure(replace(settings, peers=(slower, settings.peers[1])))
    await until(lambda: [one.established for one in a.speaker.peers()] == [2, 1])
    assert b.speaker.peers()[0].last_error == "received Cease/Other Configuration Change"
    a.speaker.reconfigure(replace(settings, peers=(settings.peers[1],)))
    await until(lambda: b.states != ["Established"])
    assert b.speaker.peers()[0].last_error == "received Cease/Peer De-configured"
    assert [(one.address, one.established) for one in a.speaker.peers()] == [(C4, 1)]


async def test_a_stranger_is_refused(autojump_clock: trio.abc.Clock, nursery: trio.Nursery) -> None:
    net = Net()
    a = Rig(net, BgpSettings(64512, peers=(peer(B4, 64513),)), "a", A4)
    b = Rig(net, BgpSettings(64513), "b", B4)
    for rig in (a, b):
        nursery.start_soon(rig.run)
    await trio.sleep(30)
    assert a.states == ["Active"] or a.states == ["Connect"]
    assert b.end.strangers > 3
    assert b.speaker.totals().strangers == b.end.strangers
    assert a.end.attempts < 60, "no backoff"


async def test_a_fault_in_one_peer_leaves_the_others_alone(
    autojump_clock: trio.abc.Clock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Net()
    a = Rig(
        net,
        BgpSettings(64512, peers=(peer(B4, 64513, passive=True), peer(C4, 64514, passive=True))),
        "a",
        A4,
    )
    b = Rig(net, BgpSettings(64513, peers=(peer(A4, 64512),)), "b", B4)
    c = Rig(net, BgpSettings(64514, peers=(peer(A4, 64512),)), "c", C4)
    b.speaker.want(wish("10.0.0.2/32"))
    c.speaker.want(wish("10.0.0.3/32"))
    for rig in (a, b, c):
        nursery.start_soon(rig.run)
    await until(lambda: len(a.learned) == 2)
    received = Session.received

    def faulty(self: Session, now: float, id_: int, octets: bytes) -> Any:
        if self.peer.local_asn == 64512 and self.peer.peer_asn == 64513 and len(octets) > 25:
            raise ZeroDivisionError("a bug")
        return received(self, now, id_, octets)

    monkeypatch.setattr(Session, "received", faulty)
    b.speaker.want(wish("10.0.0.2/32", "10.0.0.4/32"))
    await until(lambda: a.speaker.counts()[ip_address(B4)].crashes > 0)
    assert a.learned.keys() == prefixes("10.0.0.3/32")
    assert "ZeroDivisionError" in caplog.text
    await trio.sleep(30)
    assert 2 < a.speaker.counts()[ip_address(B4)].crashes < 20, "no pause, or no end of it"
    assert "fault of discod: ZeroDivisionError" in a.speaker.peers()[0].last_error
    assert a.speaker.peers()[1].established == 1
    monkeypatch.undo()
    await until(lambda: len(a.learned) == 3, 90)


async def test_nonsense_of_one_peer_ends_its_session_only(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two().up(nursery)
    peering = two.a.speaker._peerings[ip_address(B4)]
    for wire in peering._wires.values():
        wire.send(random.Random(1).randbytes(4000))
    await until(lambda: "Message Header Error" in two.b.speaker.peers()[0].last_error)
    assert two.b.speaker.counts()[ip_address(A4)].crashes == 0
    await until(lambda: two.a.states == two.b.states == ["Established"])


async def test_a_handover_that_fails_is_no_peers_fault(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()

    def broken(_: object) -> None:
        raise OSError("no kernel")

    two.b.speaker._tell_learned = broken
    await two.up(nursery)
    two.a.speaker.want(wish("10.0.0.1/32"))
    await until(lambda: two.b.speaker.totals().handover_faults == 1)
    assert two.b.speaker.counts()[ip_address(A4)].crashes == 0
    assert two.b.states == ["Established"]


async def test_settled_once_all_peers_have_told_all(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = Two()
    for rig in (two.a, two.b):
        nursery.start_soon(rig.run)
    await until(lambda: two.a.states == two.b.states == ["Established"])
    await trio.sleep(10)
    two.b.speaker.synced()
    await trio.sleep(10)
    assert two.a.settled == two.b.settled == []
    two.a.speaker.synced()
    await until(lambda: len(two.a.settled) == len(two.b.settled) == 1, 2)


async def test_settled_after_its_bound_where_a_peer_is_away(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    net = Net()
    a = Rig(net, BgpSettings(64512, peers=(peer(B4, 64513),), stale=40.0), "a", A4)
    began = trio.current_time()
    nursery.start_soon(a.run)
    a.speaker.synced()
    await trio.sleep(39)
    assert a.settled == []
    await until(lambda: bool(a.settled), 3)
    assert a.settled[0] - began == pytest.approx(40, abs=0.1)
    assert a.speaker.peers()[0].last_error == "Connection refused"


async def test_without_peers_it_is_settled_at_once(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    a = Rig(Net(), BgpSettings(64512), "a", A4)
    nursery.start_soon(a.run)
    await trio.sleep(5)
    assert a.settled == []
    a.speaker.synced()
    await until(lambda: bool(a.settled), 1)


async def test_a_peer_without_its_password_is_not_talked_to(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    two = Two(a={"password_file": str(secret)})
    nursery.start_soon(two.a.run)
    await trio.sleep(5)
    assert two.a.end.attempts == 0 and two.a.states == []
    secret.write_text("geheim\n")
    two.a.speaker.reconfigure(two.a.speaker._settings)
    await until(lambda: two.a.end.attempts > 0)
    assert two.a.end.dials[ip_address(B4)].password == b"geheim"


async def test_a_peer_that_is_silent_is_given_up_and_the_tick_comes_after_its_octets(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    two = await Two().up(nursery)

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    stream: Any = two.b.end.links[-1].stream
    stream.send_stream.send_all_hook = never
    await until(lambda: "Hold Timer Expired" in two.a.speaker.peers()[0].last_error)
    await until(lambda: two.a.states == two.b.states == ["Established"])


async def test_many_routes_do_not_hold_up_the_loop(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told and learned in slices, between which everybody else has a turn."""
    two = await Two().up(nursery)
    many = frozenset(Prefix(IPV4, bytes((32, 10, 0, b, c))) for b in range(100) for c in range(100))
    told: list[int] = []
    learned: list[int] = []
    turns = 0
    tell, apply = Peering._tell_some, LocRib.apply

    def telling(self: Peering, some: list[Prefix]) -> None:
        told.append(len(some))
        turn_of["told"].append(turns)
        tell(self, some)

    def applying(self: LocRib, change: Change, *rest: Any, **more: Any) -> Changed:
        learned.append(len(change.announced) + len(change.withdrawn))
        turn_of["learned"].append(turns)
        return apply(self, change, *rest, **more)

    turn_of: dict[str, list[int]] = {"told": [], "learned": []}
    monkeypatch.setattr(Peering, "_tell_some", telling)
    monkeypatch.setattr(LocRib, "apply", applying)

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(others)
    for wanted in (many, frozenset[Prefix]()):
        two.a.speaker.want(Desired(announced=wanted))
        await until(lambda wanted=wanted: len(two.b.learned) == len(wanted), 60)  # type: ignore[misc]
    assert sum(told) == sum(learned) == 2 * len(many)
    assert max(told) <= TELL and max(learned) <= SLICE
    full = [turn for turn, size in zip(turn_of["learned"], learned, strict=True) if size == SLICE]
    for slices in turn_of["told"], full:
        # Who comes first in a round of the loop is chance, so two may be next to one another.
        assert slices and max(Counter(slices).values()) <= 2


def test_one_change_among_many_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's part: what is told is 10,000 routes, and one more touches none of them."""
    world = World().join(A, replace(B, passive=True)).start()
    world.a.do(
        world.a.session.desired(
            world.now, routes(*(f"10.0.{n >> 8}.{n & 255}/32" for n in range(10_000)))
        )
    )
    world.run(5)
    session = world.a.session
    assert len(session.advertised) == 10_000
    packed: list[tuple[int, int]] = []

    def counting(announced: Any, withdrawn: Any = (), *, wide: bool) -> Any:
        packed.append((len(announced), len(withdrawn)))
        return pack(announced, withdrawn, wide=wide)

    monkeypatch.setattr("calico_bgp.telling.pack", counting)
    monkeypatch.setattr(AdjRibOut, "set", None)  # which goes through all
    [(one, told)] = routes("10.99.0.1/32").items()
    session.change(world.now, {one: told}, ())
    session.change(world.now, {}, [one])
    assert packed == [(1, 0), (0, 1)]
    assert len(session.advertised) == 10_000


async def test_gtsm_of_the_listening_socket(nursery: trio.Nursery) -> None:
    """It has the loosest of all peers' bounds, and none while one peer has none (RFC 5082)."""
    transport = TcpTransport(random.Random(1))
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = ListenAddress(ip_address("127.0.0.1"), free.getsockname()[1])
    near, far = (Dial(ip_address(f"127.0.0.{n}"), gtsm=n - 1) for n in (2, 4))
    six = Dial(ip_address("::1"))

    def expect(*dials: Dial) -> None:
        transport.expect([endpoint], {dial.address: dial for dial in dials})

    def least() -> int:
        return int(transport._open[endpoint].getsockopt(socket.IPPROTO_IP, 21))  # IP_MINTTL

    expect(near, far, six)
    nursery.start_soon(transport.serve, lambda _: False)
    await until(lambda: endpoint in transport._open)
    assert least() == 253
    expect(near, six)
    assert least() == 255
    expect(near, far._replace(gtsm=0))
    assert least() == 0
    expect()
    assert least() == 0


def test_no_router_id_is_said() -> None:
    with pytest.raises(ValueError, match="router_id"):
        Rig(Net(), BgpSettings(64512), "a", A6)
    Rig(Net(), BgpSettings(64512, router_id=IPv4Address("10.0.0.1")), "a", A6)
