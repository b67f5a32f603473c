"""discod.rescue.book: which places are stale, when they stop to be, and what ends with them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from discod.model.endpoint import Host, Reason, Withdrawal
from discod.model.rescue import Bridge, Place, Plan, PoolId, Unit
from discod.model.rescue_settings import RescueSettings
from discod.model.schema import encode_endpoint, encode_host, encode_withdrawal
from discod.rescue import local
from discod.rescue.book import Book
from tests.rescue_world import BRIDGE, NOW, ON, World, endpoint, moved_to, place, reached, unit
from tests.resolving import BETA, KEYS, OWN

A = endpoint("web", "a", "10.101.1.2")
B = endpoint("web", "b", "10.101.2.2", host="beta")
DB = endpoint("db", "d", "10.101.1.2", 80)
"""At the same place as `A`, later."""
PA, PB = place("10.101.1.2:80"), place("10.101.2.2:80")
FRONT, INSIDE = "192.0.2.1:32768", "10.101.1.9:80"
P = endpoint("web", "p", "192.0.2.1", 32768)
"""Published on this host."""


def published(container: str = "p", front: str = FRONT, inside: str = INSIDE) -> Unit:
    return unit(container, inside.rpartition(":")[0], published={front: inside})


# Ends -----------------------------------------------------------------------------------------


def test_nothing_is_stale_while_all_are_up() -> None:
    world = World(A, B)
    assert world.plan == Plan()
    assert world.book.next_expiry is None


def test_a_withdrawn_endpoint_leaves_a_stale_place_that_leads_to_its_sibling() -> None:
    world = World(A, B)
    step = world.down(A)
    assert step.plan is world.plan
    stale = step.plan.stale[PA]
    assert (stale.place, stale.endpoint, stale.pool) == (PA, A.id, PoolId("web", "http", "tcp", 4))
    assert (stale.why, stale.since, stale.until) == ("crashed", NOW, NOW + ON.hold)
    assert reached(step.plan, PA) == {"10.101.2.2:80"}
    assert set(step.plan.pools) == {stale.pool}
    assert (step.revoked, step.cut) == ((), (PA,))
    assert world.book.next_expiry == NOW + ON.hold


def test_with_no_sibling_the_pool_is_there_and_empty() -> None:
    world = World(A)
    world.down(A)
    assert reached(world.plan, PA) == set()
    assert world.plan.refuse


def test_a_pool_follows_its_service() -> None:
    world = World(A, B)
    world.down(A)
    more = endpoint("web", "c", "10.101.2.3", host="beta")
    step = world.up(more)
    assert reached(step.plan, PA) == {"10.101.2.2:80", "10.101.2.3:80"}
    assert (step.revoked, step.cut) == ((), ())
    assert reached(world.down(B).plan, PA) == {"10.101.2.3:80"}


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        (Reason.CRASHED, True),
        (Reason.EXITED, True),
        (Reason.REMOVED, True),
        (Reason.PAUSED, True),
        (Reason.UNHEALTHY, True),
        (Reason.DISCONNECTED, True),
        (Reason.PRODUCER_LEFT, True),
        (Reason.STOPPING, False),
        (Reason.DRAINED, False),
        (Reason.UNOFFERED, False),
        (Reason.STARTING, False),
    ],
)
def test_which_ends_cut_established_connections(reason: Reason, cut: bool) -> None:
    world = World(A, B)
    step = world.down(B, reason=reason)
    assert (step.plan.stale[PB].cut, step.plan.stale[PB].why) == (cut, reason.value)
    assert step.cut == ((PB,) if cut else ())


def test_datagrams_go_elsewhere_at_once() -> None:
    world = World(A, one := replace(B, protocol="udp"))
    step = world.down(one, reason=Reason.STOPPING)
    assert step.cut == (Place(*one.place),)
    assert step.plan.stale[step.cut[0]].why == "stopping"


def test_a_lost_endpoint_and_all_of_a_silent_host_are_cut() -> None:
    other = endpoint("web", "c", "10.101.2.3", host="beta")
    world = World(A, B, other)
    step = world.vanish(A)
    assert (step.plan.stale[PA].why, step.cut) == ("lost", (PA,))
    step = world.silence("beta")
    assert step.plan.stale[PB].why == "host-silent"
    assert set(step.cut) == {PB, place("10.101.2.3:80")}
    step = world.unsilence("beta")
    assert set(step.revoked) == {PB, place("10.101.2.3:80")}
    assert world.stale() == {PA}


def test_a_silent_host_whose_lease_ends_is_the_same_end() -> None:
    world = World(A, B)
    world.silence("beta")
    before = world.plan.stale[PB]
    world.now += 9
    step = world.vanish(B)
    assert (step.cut, step.revoked) == ((), ())
    assert world.plan.stale[PB] == before
    world.book.reset(world.state.catalog, world.now)
    assert world.plan.stale[PB] == before


def test_one_that_goes_on_after_its_drain_and_then_dies_is_cut_then() -> None:
    world = World(A, B)
    world.down(B, reason=Reason.DRAINED)
    step = world.down(B, reason=Reason.EXITED)
    assert step.cut == (PB,)
    assert (step.plan.stale[PB].cut, step.plan.stale[PB].why) == (True, "exited")
    assert world.down(B, reason=Reason.CRASHED).cut == ()


def test_a_later_statement_that_is_milder_does_not_take_a_cut_back() -> None:
    world = World(A, B)
    world.down(B, reason=Reason.PAUSED)
    world.down(B, reason=Reason.DRAINED)
    assert world.plan.stale[PB].cut


def test_a_stopping_container_of_this_host_is_cut_when_it_has_gone() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    assert world.down(A, reason=Reason.STOPPING).cut == ()
    step = world.units()
    assert (step.cut, step.plan.stale[PA].cut) == ((PA,), True)
    assert world.units(unit("x", "10.101.1.77")).cut == ()


def test_a_stop_that_is_heard_of_after_the_container_has_gone_is_cut_at_once() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    world.units()
    assert world.down(A, reason=Reason.STOPPING).cut == (PA,)


def test_a_stopping_container_of_another_host_is_not_judged_by_ours() -> None:
    world = World(A, B)
    world.units()
    assert world.down(B, reason=Reason.STOPPING).cut == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"rescue": False}, "opted out"), ({"port": 0}, "no port")],
)
def test_never_stale(change: dict[str, object], why: str) -> None:
    one = replace(A, **change)  # type: ignore[arg-type]
    world = World(one, B)
    step = world.down(one)
    assert (step.plan.stale, step.cut) == ({}, ()), why


def test_nothing_is_stale_where_rescue_is_off() -> None:
    world = World(A, B, settings=RescueSettings())
    step = world.down(A)
    assert (step.plan.stale, step.cut) == ({}, ())


def test_one_that_never_was_up_is_not_stale() -> None:
    world = World(B)
    world.down(A, reason=Reason.STARTING)
    assert world.stale() == set()
    assert world.afresh().plan.stale == {}


# Use ------------------------------------------------------------------------------------------


def test_an_announcement_ends_it_first() -> None:
    world = World(A, B)
    world.down(A)
    step = world.up(A)
    assert (step.revoked, step.plan.stale, step.plan.pools) == ((PA,), {}, {})


def test_an_announcement_of_another_service_ends_it_too() -> None:
    world = World(A, B)
    world.down(A)
    assert world.up(DB).revoked == (PA,)
    assert world.stale() == set()


def test_of_two_dead_the_newest_has_the_place() -> None:
    world = World(A, B)
    world.down(A)
    world.up(DB)
    world.now += 5
    step = world.down(DB)
    assert step.plan.stale[PA].endpoint == DB.id
    assert reached(step.plan, PA) == set()
    assert world.afresh().plan.stale[PA].endpoint == DB.id


def test_whom_its_clients_mean_is_not_guessed() -> None:
    sibling = replace(DB, instance="db-other", address=ip_address("10.101.9.9"))
    world = World(A, B, sibling)
    world.down(A)
    assert not world.plan.stale[PA].shared
    world.up(DB)
    world.now += 5
    step = world.down(DB)
    assert step.plan.stale[PA].shared, "a client may have resolved either of the two services"
    assert world.afresh().plan.stale[PA].shared


def test_whoever_had_it_long_ago_has_no_clients_any_more() -> None:
    world = World(A, B)
    world.down(A)
    world.up(DB)
    world.now += ON.hold + 1
    world.book.expire(world.now)
    assert not world.down(DB).plan.stale[PA].shared


def test_two_lives_of_one_service_are_no_question() -> None:
    world = World(A, B)
    world.down(A)
    world.up(A)
    assert not world.down(A).plan.stale[PA].shared


def test_an_older_one_does_not_come_back_when_the_newest_opted_out() -> None:
    stateful = replace(DB, rescue=False)
    world = World(A, B)
    world.down(A)
    world.up(stateful)
    world.now += 5
    world.down(stateful)
    assert world.stale() == set()
    assert world.afresh().plan.stale == {}


def test_the_newest_is_who_came_last_not_of_whom_was_spoken_last() -> None:
    old, new = replace(A, since=NOW - 9), replace(DB, since=NOW - 5)
    world = World(old, B)
    world.down(old)
    world.up(new)
    world.down(new)
    world.now += 5
    world.down(old, reason=Reason.REMOVED)
    for book in (world.book, world.afresh()):
        assert book.plan.stale[PA].endpoint == DB.id


def test_a_start_at_the_place_of_an_older_one_keeps_it_out_at_a_reset() -> None:
    world = World(A, B)
    world.down(A)
    world.now += 5
    world.down(DB, reason=Reason.STARTING)
    assert world.afresh().plan.stale == {}


def test_a_place_that_another_still_has_is_not_stale() -> None:
    world = World(A, DB, B)
    assert world.down(A).cut == ()
    assert world.stale() == set()
    assert world.down(DB).cut == (PA,)
    assert world.stale() == {PA}


def test_one_that_takes_the_place_in_the_same_step() -> None:
    world = World(A, B)
    step = world.apply((KEYS.record(A.id), None), (KEYS.record(DB.id), encode_endpoint(DB)))
    assert (step.plan.stale, step.cut, step.revoked) == ({}, (), ())


def test_a_new_container_with_the_address_ends_it_for_good() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    world.down(A)
    world.units()
    step = world.units(unit("new", "10.101.1.2"))
    assert step.revoked == (PA,)
    assert step.plan.stale == {}
    world.units()
    assert world.stale() == set()
    world.book.reset(world.state.catalog, world.now)
    assert world.stale() == set(), "not even a reset takes it up again"
    world.up(A)
    world.now += 1
    world.down(A)
    assert world.stale() == {PA}, "a new life has a new end"


def test_one_that_ends_where_a_container_already_is_does_not_come_back_either() -> None:
    world = World(A, B)
    world.units(unit("new", "10.101.1.2"))
    assert world.down(A).cut == ()
    world.units()
    world.book.reset(world.state.catalog, world.now)
    assert world.stale() == set()


@pytest.mark.parametrize("reason", [Reason.PAUSED, Reason.UNHEALTHY, Reason.DRAINED])
def test_the_own_container_is_no_new_use(reason: Reason) -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    world.down(A, reason=reason)
    step = world.units(unit("a", "10.101.1.2"), unit("x", "10.101.1.3"))
    assert (step.revoked, set(step.plan.stale)) == ((), {PA})


def test_a_container_that_was_started_again_is_stale_until_it_is_announced() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    world.down(A)
    world.units()
    assert world.units(unit("a", "10.101.1.2")).revoked == ()
    world.down(A, reason=Reason.STARTING)
    assert world.stale() == {PA}
    world.book.reset(world.state.catalog, world.now)
    assert world.stale() == {PA}
    assert world.up(A).revoked == (PA,)


def test_a_container_that_publishes_the_place_ends_it() -> None:
    world = World(P, B)
    world.down(P)
    world.units(published())
    assert world.stale() == {place(FRONT)}
    step = world.units(published("other", inside="10.101.1.10:80"))
    assert step.revoked[0] == place(FRONT)
    assert world.stale() == set()


def test_a_neighbour_that_answers_ends_it_for_good() -> None:
    world = World(A, B)
    world.units()
    world.down(A)
    assert world.claimed("10.101.1.3").revoked == ()
    assert world.claimed("10.101.1.2").revoked == (PA,)
    assert world.claimed("10.101.1.2").revoked == ()
    world.book.reset(world.state.catalog, world.now)
    assert world.stale() == set()


def test_a_paused_container_answers_for_itself_and_nobody_for_other_networks() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2"))
    world.down(A, B, reason=Reason.PAUSED)
    assert world.claimed("10.101.1.2").revoked == ()
    assert world.claimed("10.101.2.2").revoked == ()
    assert world.stale() == {PA, PB}


def test_a_host_that_answers_says_nothing_of_its_published_ports() -> None:
    lan = Bridge("br0", b"\2\0\0\0\0\1", ((ip_address("192.0.2.0"), 24),))
    theirs = endpoint("web", "q", "192.0.2.2", 32768, host="beta")
    world = World(P, theirs)
    world.units(bridges=(lan,))
    world.down(P, theirs)
    assert world.claimed("192.0.2.1").revoked == ()
    assert world.claimed("192.0.2.2").revoked == ()
    assert [stale.mac for stale in world.plan.stale.values()] == [b"", b""]


# Places that move -----------------------------------------------------------------------------


def test_the_former_place_of_a_container_that_got_another_port_is_stale_and_cut() -> None:
    world = World(P, B)
    step = world.up(moved_to(P, "192.0.2.1", 32769))
    assert step.plan.stale[place(FRONT)].why == "moved"
    assert step.cut == (place(FRONT),)
    assert reached(step.plan, place(FRONT)) == {"192.0.2.1:32769", "10.101.2.2:80"}


def test_a_host_with_another_address_may_still_have_the_former() -> None:
    world = World(P, B)
    step = world.up(moved_to(P, "192.0.2.7"))
    assert (step.plan.stale[place(FRONT)].cut, step.cut) == (False, ())
    assert world.down(moved_to(P, "192.0.2.7")).cut == (place("192.0.2.7:32768"), place(FRONT))


def test_another_container_elsewhere_under_the_same_name() -> None:
    world = World(A, B)
    assert world.up(moved_to(A, "10.101.1.5", container="new")).cut == (PA,)


# Behind published ports, and link-layer addresses ---------------------------------------------


def test_the_place_in_the_container_is_remembered_and_cut_with_the_published_one() -> None:
    world = World(P, B)
    world.units(published())
    world.units()
    step = world.down(P)
    assert step.plan.stale[place(FRONT)].backend == place(INSIDE)
    assert step.plan.stale[place(FRONT)].mac == b""
    assert step.cut == (place(FRONT), place(INSIDE))
    assert world.up(P).revoked == (place(FRONT), place(INSIDE))


def test_it_is_learned_after_the_end_too() -> None:
    world = World(P, B)
    world.down(P, reason=Reason.PAUSED)
    assert world.plan.stale[place(FRONT)].backend is None
    world.units(published())
    assert world.plan.stale[place(FRONT)].backend == place(INSIDE)


def test_a_place_in_a_container_that_another_container_has_now_is_left_alone_first() -> None:
    world = World(P, B)
    world.units(published())
    world.units()
    world.down(P)
    step = world.units(unit("new", "10.101.1.9"))
    assert step.revoked == (place(INSIDE),)
    assert step.plan.stale[place(FRONT)].backend is None


def test_a_place_in_a_container_that_is_up_by_another_way_is_left_alone() -> None:
    world = World(P, B)
    world.units(published())
    moved = moved_to(P, "192.0.2.1", 32769)
    world.units(published(front="192.0.2.1:32769"))
    step = world.up(moved)
    assert step.plan.stale[place(FRONT)].backend is None
    assert step.cut == (place(FRONT),)


def test_a_second_way_to_it_that_is_announced_later() -> None:
    second = "192.0.2.1:32769"
    world = World(P, B)
    fronts = {FRONT: INSIDE, second: INSIDE}
    world.units(unit("p", "10.101.1.9", published=fronts))
    world.down(P, reason=Reason.UNHEALTHY)
    assert world.plan.stale[place(FRONT)].backend == place(INSIDE)
    step = world.up(endpoint("admin", "p2", "192.0.2.1", 32769, container="p"))
    assert (step.revoked, set(step.plan.stale)) == ((place(INSIDE),), {place(FRONT)})


def test_a_place_in_a_container_that_is_announced_itself_is_left_alone() -> None:
    direct = endpoint("direct", "p3", "10.101.1.9", container="p")
    world = World(P, direct)
    world.units(published())
    step = world.down(P, reason=Reason.UNHEALTHY)
    assert step.cut == (place(FRONT),)
    assert world.down(direct).cut == (place(INSIDE),)


def test_a_bridges_own_address_with_a_published_port_is_not_claimed() -> None:
    front = "10.101.1.1:32768"
    one = endpoint("web", "p", "10.101.1.1", 32768)
    world = World(one, B)
    world.units(published(front=front))
    world.units()
    world.down(one)
    assert world.claimed("10.101.1.1").revoked == ()
    assert world.stale() == {place(front)}


def test_a_published_sibling_of_this_host_is_reached_in_its_container() -> None:
    world = World(P, B)
    world.down(B)
    assert reached(world.plan, PB) == {FRONT}
    world.units(published())
    assert reached(world.plan, PB) == {INSIDE}
    world.units()
    assert reached(world.plan, PB) == {FRONT}


def test_the_link_layer_address_is_that_of_the_container_or_what_docker_makes_of_it() -> None:
    v6 = endpoint("web", "v6", "2001:db8:1::2")
    bridge = replace(BRIDGE, networks=(*BRIDGE.networks, (ip_address("2001:db8:1::"), 64)))
    unseen = endpoint("web", "u", "10.101.1.8")
    world = World(A, B, v6, unseen)
    world.units(
        unit("a", "10.101.1.2", mac=b"\1\2\3\4\5\6"),
        unit("v6", "2001:db8:1::2", mac=b"\6\5\4\3\2\1"),
        bridges=(bridge,),
    )
    world.units(bridges=(bridge,))
    world.down(A, B, v6, unseen)
    macs = {str(at.address): stale.mac for at, stale in world.plan.stale.items()}
    assert macs == {
        "10.101.1.2": b"\1\2\3\4\5\6",
        "10.101.2.2": b"",
        "2001:db8:1::2": b"\6\5\4\3\2\1",
        "10.101.1.8": b"\x02\x42\x0a\x65\x01\x08",
    }


def test_no_link_layer_address_without_a_bridge_or_for_another_container() -> None:
    world = World(A, B)
    world.units(unit("a", "10.101.1.2", mac=b"\1\2\3\4\5\6"), bridges=())
    world.down(A)
    assert world.plan.stale[PA].mac == b""
    world.units(unit("a", "10.101.1.2", mac=b"\1\2\3\4\5\6"))
    assert world.plan.stale[PA].mac == b"\1\2\3\4\5\6"
    assert world.plan.bridges == (BRIDGE,)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "REMEMBERED", 2)
    known = local.Local()
    for i in range(5):
        front = f"192.0.2.1:{i + 1}"
        one = unit(f"c{i}", f"10.101.1.{i}", mac=b"123456", published={front: INSIDE})
        known.take({one.container: one}, (BRIDGE,))
    assert [known.backend(place(f"192.0.2.1:{i + 1}"), f"c{i}") for i in (2, 3, 4)] == [
        None,
        place(INSIDE),
        place(INSIDE),
    ]
    assert known.mac(ip_address("10.101.1.4"), "c4") == b"123456"
    assert known.mac(ip_address("10.101.1.2"), "c2") == b"\x02\x42\x0a\x65\x01\x02"


# Time -----------------------------------------------------------------------------------------


def test_it_is_forgotten_when_nobody_used_it_for_long() -> None:
    world = World(A, B)
    world.down(A)
    assert world.book.expire(NOW + ON.hold - 1).plan.stale
    step = world.book.expire(NOW + ON.hold)
    assert (step.plan.stale, step.plan.pools, step.revoked) == ({}, {}, ())
    assert world.book.next_expiry is None


def test_use_keeps_it_but_not_for_ever() -> None:
    settings = replace(ON, hold=10, max_hold=25)
    world = World(A, B, settings=settings)
    world.down(A)
    for after, until in ((5, 15), (14, 24), (20, 25)):
        step = world.book.used([PA, PB], NOW + after)
        assert step.plan.stale[PA].until == NOW + until
    assert world.book.expire(NOW + 24).plan.stale
    assert world.book.next_expiry == NOW + 25
    assert world.book.expire(NOW + 25).plan.stale == {}
    assert world.book.used([PA], NOW + 26).plan.stale == {}


def test_the_next_expiry_is_never_too_late() -> None:
    settings = replace(ON, hold=10)
    world = World(A, B, settings=settings)
    world.down(A)
    world.now += 5
    world.down(B)
    assert world.book.next_expiry == NOW + 10
    world.book.used([PA], NOW + 9)
    world.book.expire(NOW + 10)
    assert world.book.next_expiry == NOW + 15
    assert world.stale() == {PA, PB}


def test_when_full_the_one_used_longest_ago_makes_room() -> None:
    three = [endpoint("web", f"c{i}", f"10.101.2.{i}", host="beta") for i in (1, 2, 3)]
    world = World(*three, settings=replace(ON, max_entries=2))
    for i, one in enumerate(three[:2]):
        world.now = NOW + i
        world.down(one)
    world.book.used([place("10.101.2.1:80")], NOW + 3)
    step = world.down(three[2])
    assert set(step.plan.stale) == {place("10.101.2.1:80"), place("10.101.2.3:80")}
    assert world.book.dropped == 1
    assert step.revoked == ()


def test_a_reset_takes_what_the_catalog_tells_but_not_what_is_long_over() -> None:
    world = World(A, B, endpoint("web", "c", "10.101.2.3", host="beta"))
    world.down(A)
    world.now += 500
    world.down(B, reason=Reason.DRAINED)
    world.now += 150
    book = world.afresh()
    (stale,) = book.plan.stale.values()
    assert (stale.place, stale.cut, stale.until) == (PB, False, NOW + 500 + ON.hold)
    assert reached(book.plan, PB) == {"10.101.2.3:80"}
    assert book.next_expiry == stale.until
    assert Book(ON, "alpha").update(world.state.catalog, None, world.now).cut == ()


def test_of_too_many_a_reset_takes_those_that_went_last() -> None:
    ones = [endpoint("web", f"c{i}", f"10.101.2.{i}", host="beta") for i in range(1, 9)]
    world = World(*ones, settings=replace(ON, max_entries=2))
    for one in (ones[i] for i in (4, 2, 7, 0, 5, 1, 6, 3)):
        world.now += 1
        world.down(one)
    last = {place("10.101.2.7:80"), place("10.101.2.4:80")}
    assert set(world.afresh().plan.stale) == world.stale() == last


@pytest.mark.parametrize("later", [True, False])
def test_what_an_update_without_a_change_hears_of_a_known_place(later: bool) -> None:
    world = World(replace(A, since=NOW - 5), B)
    world.down(replace(A, since=NOW - 5))
    other = replace(DB, since=NOW - 2 if later else NOW - 9)
    said = Withdrawal(other, Reason.CRASHED, "", NOW + 1)
    key = KEYS.withdrawn(other.host, other.id)
    world.state.apply([(key, encode_withdrawal(said), 9)], 9, NOW + 1)
    step = world.book.update(world.state.catalog, None, NOW + 1)
    assert step.plan.stale[PA].endpoint == (DB.id if later else A.id)
    assert (step.revoked, step.cut) == ((), (PA,) if later else ())


def test_the_first_catalog_cuts_what_ended_before_this_daemon_began() -> None:
    world = World(A, B)
    world.down(A)
    world.down(B, reason=Reason.DRAINED)
    book = Book(ON, "alpha")
    step = book.update(world.state.catalog, None, NOW)
    assert (set(step.plan.stale), step.cut, step.revoked) == ({PA, PB}, (PA,), ())


def test_a_statement_from_the_future_is_no_longer_life() -> None:
    world = World(B)
    world.now += 3600
    world.down(A)
    book = Book(ON, "alpha")
    book.reset(world.state.catalog, NOW)
    assert book.plan.stale[PA].until == NOW + ON.hold


def test_a_later_reset_forgets_nothing_that_still_holds() -> None:
    world = World(A, B)
    world.down(A)
    world.book.used([PA], NOW + 300)
    stale = world.plan.stale[PA]
    world.apply((KEYS.withdrawn(A.host, A.id), None))
    world.book.reset(world.state.catalog, NOW + 301)
    assert world.plan.stale == {PA: stale}


def test_an_update_without_a_change_finds_all_the_same() -> None:
    world = World(A, B, DB)
    sibling = endpoint("web", "c", "10.101.2.3", host="beta")
    world.state.apply([(KEYS.record(sibling.id), encode_endpoint(sibling), 8)], 8, NOW)
    world.state.apply([(KEYS.record(B.id), None, 9)], 9, NOW)
    step = world.book.update(world.state.catalog, None, NOW)
    assert set(step.plan.stale) == {PB}
    assert step.cut == (PB,)
    assert reached(step.plan, PB) == {"10.101.1.2:80", "10.101.2.3:80"}


# Settings -------------------------------------------------------------------------------------


def test_other_settings_take_effect_at_once() -> None:
    world = World(A, B)
    world.down(A)
    step = world.book.configure(replace(ON, refuse=False, hold=100), "none", "", NOW + 50)
    assert (step.plan.refuse, step.plan.stale[PA].until) == (False, NOW + 100)
    assert world.book.configure(RescueSettings(), "none", "", NOW + 50).plan.stale == {}
    step = world.book.configure(ON, "none", "", NOW + 50)
    assert set(step.plan.stale) == {PA}


def test_near_siblings_follow_the_hosts_zones() -> None:
    far = endpoint("web", "c", "10.101.3.2", host="gamma")
    world = World(A, B, far, prefer="zone", zone="r1")
    world.down(A)
    assert reached(world.plan, PA) == {"10.101.2.2:80", "10.101.3.2:80"}
    world.apply((KEYS.host("gamma"), encode_host(Host("gamma", (), zone="r1"))))
    assert reached(world.plan, PA) == {"10.101.3.2:80"}


def test_nothing_new_is_the_same_plan() -> None:
    world = World(A, B, hosts=(OWN, BETA))
    world.units(unit("a", "10.101.1.2"))
    world.down(A)
    before = world.plan
    world.units(unit("a", "10.101.1.2"))
    world.up(endpoint("other", "o", "10.101.2.9", host="beta"))
    world.claimed("10.101.1.77")
    world.book.expire(NOW + 1)
    world.book.reset(world.state.catalog, world.now)
    assert world.plan is before


def test_a_change_leaves_the_other_pools_alone() -> None:
    other = [endpoint("api", f"x{i}", f"10.101.2.{i + 10}", host="beta") for i in (1, 2)]
    world = World(A, B, *other)
    world.down(A, other[0])
    before = world.plan.pools[PoolId("web", "http", "tcp", 4)]
    world.up(endpoint("api", "x3", "10.101.2.13", host="beta"))
    assert world.plan.pools[PoolId("web", "http", "tcp", 4)] is before


# Service addresses ----------------------------------------------------------------------------

VIP, VIP6 = ip_address("198.51.100.1"), ip_address("2001:db8:ff::1")
VA, VB = replace(A, vip=(VIP,)), replace(B, vip=(VIP,))
AT = Place(VIP, 80, "tcp")


@pytest.mark.parametrize("settings", [ON, RescueSettings()])
def test_a_service_address_leads_to_the_endpoints(settings: RescueSettings) -> None:
    world = World(VA, VB, settings=settings)
    assert dict(world.plan.vips) == {AT: PoolId("web", "http", "tcp", 4)}
    assert reached(world.plan, AT) == {"10.101.1.2:80", "10.101.2.2:80"}
    step = world.down(VA)
    assert reached(step.plan, AT) == {"10.101.2.2:80"}
    assert step.cut == (PA,), "flows by the service address end, rescue or not"
    assert set(step.plan.stale) == ({PA} if settings.enabled else set())


def test_one_that_lingers_leaves_the_service_address_and_is_cut_when_it_has_gone() -> None:
    world = World(VA, VB, settings=RescueSettings())
    world.units(unit("a", "10.101.1.2"))
    step = world.down(VA, reason=Reason.STOPPING)
    assert (reached(step.plan, AT), step.cut) == ({"10.101.2.2:80"}, ())
    assert world.units().cut == (PA,)


def test_the_last_one_leaves_the_service_address_for_a_while_and_it_refuses() -> None:
    world = World(VA)
    world.down(VA)
    assert reached(world.plan, AT) == set()
    world.book.used([AT], NOW + 300)
    assert AT in world.afresh().plan.vips
    assert AT in world.book.expire(NOW + ON.hold).plan.vips
    assert world.book.expire(NOW + 300 + ON.hold).plan == Plan()
    assert world.book.next_expiry is None


def test_a_service_that_gives_its_address_up_keeps_it_for_a_while() -> None:
    world = World(VB)
    world.up(B)
    assert reached(world.plan, AT) == {"10.101.2.2:80"}
    assert world.book.next_expiry == NOW + ON.hold
    assert world.book.expire(NOW + ON.hold).plan == Plan()


def test_a_service_address_is_back_with_the_first_endpoint() -> None:
    world = World(VA)
    world.down(VA)
    step = world.up(VB)
    assert reached(step.plan, AT) == {"10.101.2.2:80"}
    assert AT in world.book.expire(NOW + 10 * ON.hold).plan.vips


def test_a_port_that_its_last_endpoint_left_goes_on_to_the_others() -> None:
    a = replace(P, vip=(VIP,))
    b = replace(B, vip=(VIP,), port=32770)
    world = World(a, b)
    world.down(a)
    for port in (32768, 32770):
        assert reached(world.plan, Place(VIP, port, "tcp")) == {"10.101.2.2:32770"}


def test_both_families_and_each_port() -> None:
    both = (VIP, VIP6)
    ones = [
        replace(A, vip=both),
        endpoint("web", "a6", "2001:db8:1::2", vip=both),
        endpoint("web", "dns", "10.101.1.2", 53, protocol="udp", port_name="dns", vip=both),
    ]
    world = World(*ones)
    assert reached(world.plan, AT) == {"10.101.1.2:80"}
    assert reached(world.plan, Place(VIP6, 80, "tcp")) == {"2001:db8:1::2:80"}
    assert reached(world.plan, Place(VIP, 53, "udp")) == {"10.101.1.2:53"}
    assert reached(world.plan, Place(VIP6, 53, "udp")) == set()


def test_the_word_of_one_endpoint_holds_for_the_service() -> None:
    world = World(A, VB)
    assert reached(world.plan, AT) == {"10.101.1.2:80", "10.101.2.2:80"}


def test_of_two_services_that_claim_an_address_one_has_it() -> None:
    thief = replace(DB, address=ip_address("10.101.1.4"), vip=(VIP,))
    world = World(VB, thief)
    assert world.plan.vips[AT].service == "db"
    world.down(thief)
    assert world.plan.vips[AT].service == "web"


def test_affinity_is_the_pools() -> None:
    world = World(replace(VA, affinity=True), VB)
    assert world.plan.pools[world.plan.vips[AT]].affinity
