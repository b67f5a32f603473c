"""The watch over hosts, in simulated clusters: who is taken as lost, when, and who never is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.seal import SIZE_MAX, Sealed
from discod.model.swim_message import (
    KIND,
    NAMES_MAX,
    Ack,
    Ask,
    Message,
    MessageError,
    Ping,
    Seen,
    Word,
    decode,
    encode,
)
from discod.model.swim_ring import WATCHED, targets
from tests.unit.swim_world import STEP, World, pings

BOUND = 15 * STEP
"""Seconds: two steps to the ping, one until it is missed, five rounds, two to confirm, and a word
on its way; each step is up to a tenth longer here, and rounds start between steps."""
KEY = bytes(range(32))


def names(count: int) -> list[str]:
    return [f"h{n}" for n in range(count)]


def settled(count: int, seed: int = 0, loss: float = 0.0) -> World:
    world = World(names(count), seed, loss)
    world.run(2.0)
    return world


# Deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 5, 10, 40])
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.05]), wait=st.floats(0, 0.3))
@settings(max_examples=8, deadline=None)
def test_a_death_is_known_to_all_within_the_bound(
    count: int, seed: int, loss: float, wait: float
) -> None:
    world = settled(count, seed, loss)
    world.run(wait)
    at = world.now
    world.nodes["h0"].dead = True
    world.run(3.0)
    out = world.taken_out("h0")
    assert out.keys() == set(names(count)) - {"h0"}
    assert max(out.values()) - at < BOUND
    assert {whom for _, _, _, whom in world.history} == {"h0"}
    world.nodes["h0"].dead = False
    world.run(6.0)
    assert not world.taken_out("h0")


def test_of_two_hosts_the_one_witness_takes_twice_the_time() -> None:
    world = settled(2)
    at = world.now
    world.nodes["h0"].dead = True
    world.run(3.0)
    assert 1.0 < world.taken_out("h0")["h1"] - at < BOUND + 5 * STEP


def test_several_deaths_that_are_less_than_half() -> None:
    world = settled(10, loss=0.05)
    dead = {"h1", "h2", "h3", "h4"}
    for name in dead:
        world.nodes[name].dead = True
    world.run(6.0)
    for name in dead:
        assert world.taken_out(name).keys() >= set(names(10)) - dead


# No deaths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "seconds"), [(3, 120.0), (10, 120.0), (100, 10.0)])
def test_lost_packets_alone_take_nobody_out(count: int, seconds: float) -> None:
    world = World(names(count), seed=7, loss=0.05)
    world.run(seconds)
    assert world.history == []


@given(
    seed=st.integers(0, 2**32),
    count=st.sampled_from([3, 4, 10]),
    stops=st.lists(st.tuples(st.integers(0, 9), st.floats(0.05, 5.0)), min_size=1, max_size=6),
    loss=st.sampled_from([0.0, 0.05]),
)
@settings(max_examples=40, deadline=None)
def test_daemons_that_stop_starve_or_restart_are_no_dead_hosts(
    seed: int, count: int, stops: list[tuple[int, float]], loss: float
) -> None:
    world = settled(count, seed, loss)
    for number, seconds in stops:
        name = f"h{number % count}"
        world.stop(name)
        world.later(seconds, lambda n=name: world.go_on(n))  # type: ignore[misc]
        world.run(0.4)
    world.run(6.0)
    assert world.history == []


def test_without_knocks_a_stopped_daemon_is_taken_for_a_dead_host() -> None:
    """The negative control of the test above."""
    world = settled(3)
    world.drops_knocks = True
    world.stop("h0")
    world.run(3.0)
    assert world.taken_out("h0").keys() == {"h1", "h2"}
    world.go_on("h0")
    world.run(1.0)
    assert not world.taken_out("h0")


def test_all_daemons_stop_for_a_while_and_nobody_blames_another() -> None:
    world = settled(10)
    world.drops_knocks = True
    for name in names(10):
        world.stop(name)
    world.run(5.0)
    for name in names(10):
        world.go_on(name)
    world.run(5.0)
    assert world.history == []
    assert world.noted["late"] >= 10


@pytest.mark.parametrize("count", [3, 10])
def test_a_third_that_sees_both_keeps_both(count: int) -> None:
    world = settled(count, loss=0.02)
    world.walls = {("h0", "h1")}
    world.run(10.0)
    world.walls = {("h0", "h1"), ("h1", "h0")}
    world.run(10.0)
    assert world.history == []


def test_who_is_cut_off_blames_nobody() -> None:
    world = settled(5)
    world.split({"h0"}, {"h1", "h2", "h3", "h4"})
    world.run(5.0)
    assert world.taken_out("h0").keys() == {"h1", "h2", "h3", "h4"}
    assert world.nodes["h0"].swim.isolated
    assert not world.nodes["h0"].silenced
    world.walls = set()
    world.run(2.0)
    assert not world.taken_out("h0")
    assert not world.nodes["h0"].swim.isolated


@pytest.mark.parametrize(("count", "less"), [(4, 2), (10, 5), (10, 4)])
def test_the_smaller_part_of_a_split_keeps_the_last_good_answers(count: int, less: int) -> None:
    world = settled(count)
    one, other = set(names(count)[:less]), set(names(count)[less:])
    world.split(one, other)
    world.run(8.0)
    assert not any(world.nodes[name].silenced for name in one)
    both = 2 * less == count
    for name in one:
        assert world.taken_out(name).keys() == (set() if both else other)
    world.walls = set()
    world.run(6.0)
    assert not any(node.silenced for node in world.nodes.values())


def test_a_liar_alone_takes_nobody_out_and_two_are_refuted_by_the_living() -> None:
    world = settled(10)
    for _ in range(40):
        for node in world.nodes.values():
            for liar in ("h8", "h9"):
                if node.swim.me != liar:
                    word = Word(silent=(("h0", 5000),))
                    node_name = node.swim.me
                    world._do(node_name, node.swim.take(liar, word, world.now))
        world.run(0.1)
    assert world.history == []
    assert world.noted["refuted"]


# Load, and who watches whom -------------------------------------------------------------------


def test_the_load_of_a_host_does_not_grow_with_the_cluster() -> None:
    ten, hundred = pings(settled(10), 5.0), pings(settled(100), 5.0)
    assert ten <= 32  # 3 pings and 3 acks, five times a second
    assert hundred <= ten * 1.1


@given(st.sets(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=40))
def test_each_host_watches_as_many_as_watch_it(hosts: set[str]) -> None:
    watched = {host: targets(host, hosts, ()) for host in hosts}
    wanted = min(WATCHED, len(hosts) - 1)
    for host in hosts:
        assert len(watched[host]) == wanted
        assert host not in watched[host]
        assert sum(host in others for others in watched.values()) == wanted


def test_a_silent_host_takes_no_place_away() -> None:
    ring = targets("h0", names(20), ())
    beyond = targets("h0", names(20), {ring[1]})
    assert set(ring) < set(beyond)
    assert len(beyond) == WATCHED + 1


def test_a_host_without_its_record_is_let_go_after_a_while() -> None:
    world = settled(3)
    world.nodes["h0"].dead = True
    world.run(2.0)
    swim = world.nodes["h1"].swim
    assert "h0" in swim.silenced
    swim.members(["h1", "h2"], world.now)
    world.run(1.0)
    assert "h0" in swim.silenced
    world.run(5.0)
    assert "h0" not in swim.silenced
    assert "h0" not in world.nodes["h1"].silenced


# Messages -------------------------------------------------------------------------------------

NUMBER = st.integers(0, 2**63 - 1)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
MESSAGE: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, NUMBER),
    st.builds(Ack, NUMBER),
    st.builds(Ask, NUMBER, LABEL),
    st.builds(Seen, NUMBER),
    st.builds(
        Word,
        st.lists(st.tuples(LABEL, NUMBER), max_size=NAMES_MAX // 2).map(tuple),
        st.lists(LABEL, max_size=NAMES_MAX // 2).map(tuple),
    ),
)


@given(MESSAGE, NUMBER, LABEL)
def test_messages_come_back_as_they_were(message: Message, number: int, host: str) -> None:
    packet = encode(message, number, host, "discod.internal", KEY)
    assert len(packet) <= SIZE_MAX
    sealed = KIND.open(packet)
    assert sealed.host == host
    assert decode(sealed) == (number, message)
    assert KIND.verified(sealed, "discod.internal", KEY)
    assert not KIND.verified(sealed, "discod.test", KEY)
    assert not KIND.verified(sealed, "discod.internal", KEY[::-1])
    assert not KIND.verified(sealed, "discod.internal", None)


def test_an_answer_is_no_longer_than_its_question() -> None:
    ping = encode(Ping(2**62), 1, "a", "discod.internal", KEY)
    assert len(encode(Ack(2**62), 1, "a", "discod.internal", KEY)) <= len(ping)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", b'[1,"ping"]', b'[1,"ping",-1]', b'[1,"ping",true]', b'["1","ping",1]',
     b'[1,"ask",1,"No Host"]', b'[1,"word",[],1]', b'[1,"word",[["a"]],[]]', b"[" * 1000,
     b'[1,"word",[],["a"' + b',"a"' * NAMES_MAX + b"]]", b'[1,"else",1]', b"\xff"],
)  # fmt: skip
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        decode(Sealed("a", b"", body))


@given(st.binary(max_size=200))
def test_garbage_never_does_more_than_be_refused(body: bytes) -> None:
    try:
        decode(Sealed("a", b"", body))
    except MessageError:
        return
