"""Hints: the codec, what a Catalog makes of them, and the exchange between hosts."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.hints import LOOK, REPEATED_MIN, Hints, HintSettings, settings_for
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.catalog import CatalogState, What
from discod.model.endpoint import Endpoint, EndpointId, Host, Producer, Reason, Withdrawal
from discod.model.hint import (
    HOLD,
    KIND,
    SETTLED,
    SIZE_MAX,
    Down,
    Hint,
    HintError,
    decode,
    encode,
)
from discod.model.hinted import AHEAD_MAX
from discod.model.rescue import Place
from discod.model.schema import Keyspace, encode_endpoint, encode_host, encode_withdrawal
from discod.store.base import Delta, KeyValue, Removed, Snapshot

KEYS = Keyspace()
DOMAIN = KEYS.domain
KEY = bytes(range(32))
LOCALHOST = ip_address("127.0.0.1")


def endpoint(n: int = 1, host: str = "a") -> Endpoint:
    return Endpoint(
        "web",
        f"{host}-{n}",
        ip_address("10.0.0.0") + n,
        80,
        port_name="80",
        host=host,
        producer=Producer.DOCKER,
    )


def down(n: int = 1, revision: int = 5, host: str = "a") -> Down:
    return Down(endpoint(n, host).id, revision, Reason.CRASHED, "exit status 1", 1000.0)


def record(n: int, revision: int, host: str = "a") -> KeyValue:
    one = endpoint(n, host)
    return KeyValue(KEYS.record(one.id), encode_endpoint(one), revision)


# The codec ------------------------------------------------------------------------------------

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
DOWN = st.builds(
    Down,
    st.builds(EndpointId, LABEL, LABEL),
    st.integers(0, 2**63 - 1),
    st.sampled_from(Reason),
    st.text(max_size=120),
    st.floats(0, 1e10),
    st.none()
    | st.builds(Place, st.ip_addresses(), st.integers(0, 65535), st.sampled_from(["tcp", "udp"])),
)
HINT = st.builds(
    Hint,
    LABEL,
    st.lists(DOWN, max_size=40).map(tuple),
    st.lists(st.builds(EndpointId, LABEL, LABEL), max_size=40).map(tuple),
)


@given(HINT)
@settings(deadline=None)
def test_what_is_sent_is_what_is_read(hint: Hint) -> None:
    packets = list(encode(hint, DOMAIN, KEY))
    assert all(len(packet) <= SIZE_MAX for packet in packets)
    read = [decode(packet, DOMAIN, lambda _: KEY) for packet in packets]
    assert {part.host for part in read} <= {hint.host}
    found = [one for part in read for one in part.down]
    for unseen in (False, True):
        mine = [one for one in hint.down if (one.place is not None) is unseen]
        assert [one for one in found if (one.place is not None) is unseen] == mine
    assert tuple(id_ for part in read for id_ in part.back) == hint.back


def test_nothing_to_say_is_no_datagram() -> None:
    assert list(encode(Hint("a"), DOMAIN, KEY)) == []


[PACKET] = encode(Hint("a", (down(),), (EndpointId("web", "a-2"),)), DOMAIN, KEY)


@given(st.integers(0, len(PACKET) - 1), st.integers(1, 255))
@settings(deadline=None)
def test_one_octet_changed_is_refused(place: int, by: int) -> None:
    wrong = bytearray(PACKET)
    wrong[place] ^= by
    with pytest.raises(HintError):
        decode(bytes(wrong), DOMAIN, lambda host: KEY if host == "a" else None)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_anything_else_is_refused(data: bytes) -> None:
    for packet in (data, b"dsc1" + data, PACKET[: len(data)], PACKET + data + b"x"):
        with pytest.raises(HintError):
            decode(packet, DOMAIN, lambda _: KEY)


def test_other_keys_domains_and_strangers_are_refused() -> None:
    with pytest.raises(HintError, match="not signed"):
        decode(PACKET, DOMAIN, lambda _: bytes(32))
    with pytest.raises(HintError, match="not signed"):
        decode(PACKET, "other.internal", lambda _: KEY)
    keys: dict[str, bytes | None] = {"a": None}
    for known in (keys, {"a": b""}):
        with pytest.raises(HintError, match="not known"):
            decode(PACKET, DOMAIN, known.get)


# In the Catalog -------------------------------------------------------------------------------


@pytest.fixture
def state() -> CatalogState:
    state = CatalogState(KEYS)
    records = [record(1, 5), record(2, 6), record(3, 7, host="b")]
    state.reset([(r.key, r.value, r.revision) for r in records], 7, 1.0)
    return state


def names(state: CatalogState) -> set[str]:
    return set(state.catalog.services.get("web", {}))


def put(one: KeyValue) -> tuple[str, bytes, int]:
    return one.key, one.value, one.revision


def test_a_hint_takes_out_at_once_with_its_reason(state: CatalogState) -> None:
    change = state.hint([down(1)], "a", 2.0)
    assert [(e.what, e.reason) for e in change.entries] == [(What.WITHDRAWN, Reason.CRASHED)]
    assert names(state) == {"a-2", "b-3"}
    assert state.catalog.withdrawn[endpoint(1).id].detail == "exit status 1"


def test_the_stores_own_word_ends_it_without_news(state: CatalogState) -> None:
    state.hint([down(1)], "a", 2.0)
    said = Withdrawal(endpoint(1), Reason.CRASHED, "exit status 1", 1000.0)
    withdrawn = (KEYS.withdrawn("a", endpoint(1).id), encode_withdrawal(said), 8)
    change = state.apply([withdrawn, (record(1, 5).key, None, 8)], 8, 3.0)
    assert change.entries == ()
    assert not state.catalog.lost
    state.apply([put(record(1, 9))], 9, 4.0)
    assert "a-1" in names(state)


def test_the_same_version_once_more_stays_out_and_the_next_one_is_in(state: CatalogState) -> None:
    state.hint([down(1)], "a", 2.0)
    state.reset([put(record(1, 5)), put(record(2, 6)), put(record(3, 7, "b"))], 8, 3.0)
    assert "a-1" not in names(state)
    state.apply([put(record(1, 9))], 9, 4.0)
    assert "a-1" in names(state)


@pytest.mark.parametrize(
    ("hint", "host"),
    [
        (down(1, revision=4), "a"),  # replayed: an earlier version is meant
        (down(1), "b"),  # not its owner
        (down(3, host="b"), "a"),
        (down(9), "a"),  # no such record
    ],
)
def test_what_is_not_to_be_believed(state: CatalogState, hint: Down, host: str) -> None:
    assert state.hint([hint], host, 2.0).entries == ()
    assert names(state) == {"a-1", "a-2", "b-3"}


def test_a_hint_taken_back(state: CatalogState) -> None:
    state.hint([down(1)], "a", 2.0)
    assert [e.what for e in state.unhint([endpoint(1).id], 3.0).entries] == [What.ANNOUNCED]
    assert state.unhint([endpoint(1).id], 3.0).entries == ()
    assert names(state) == {"a-1", "a-2", "b-3"}


def test_a_hint_that_is_ahead_of_the_store(state: CatalogState) -> None:
    """A frozen member shows, all at once, what had long come and gone."""
    state.hint([down(9, revision=12)], "a", 2.0)
    state.hint([down(1, revision=14)], "a", 2.0)
    assert names(state) == {"a-2", "b-3"}, "an earlier version is no better"
    for one in (record(9, 12), record(1, 13), record(1, 14)):
        state.apply([put(one)], one.revision, 3.0)
        assert names(state) == {"a-2", "b-3"}
    state.apply([(record(1, 0).key, None, 15)], 15, 3.0)
    assert not state.catalog.lost
    state.apply([put(record(9, 16))], 16, 3.0)
    state.apply([put(record(1, 17))], 17, 3.0)
    assert names(state) == {"a-1", "a-2", "b-3", "a-9"}


def test_a_deletion_before_the_version_that_is_meant(state: CatalogState) -> None:
    state.hint([down(1, revision=14)], "a", 2.0)
    state.apply([(record(1, 0).key, None, 13)], 13, 3.0)
    state.apply([put(record(1, 14))], 14, 3.0)
    assert "a-1" not in names(state)


def test_a_hint_that_is_ahead_is_its_hosts_to_give_and_to_take_back(state: CatalogState) -> None:
    state.hint([down(9, revision=12)], "b", 2.0)
    state.apply([put(record(9, 12))], 12, 3.0)
    assert "a-9" in names(state), "not its owner"
    state.hint([down(8, revision=14)], "a", 2.0)
    state.unhint([endpoint(8).id], 2.0, "b")
    state.apply([put(record(8, 13))], 13, 3.0)
    assert "a-8" not in names(state)
    state.unhint([endpoint(8).id], 2.0, "a")
    assert "a-8" in names(state)


def unseen(n: int, revision: int) -> Down:
    return replace(down(n, revision), place=Place(*endpoint(n).place))


def test_what_its_host_has_not_seen_is_named_by_its_place(state: CatalogState) -> None:
    state.hint([unseen(1, 0)], "a", 2.0)
    state.hint([unseen(9, 0)], "a", 2.0)
    assert names(state) == {"a-2", "b-3"}
    state.apply([(record(1, 0).key, None, 8)], 8, 3.0)
    state.apply([put(record(9, 9))], 9, 3.0)
    assert names(state) == {"a-2", "b-3"}
    state.apply([put(record(1, 10)), put(record(9, 11))], 11, 3.0)
    assert names(state) == {"a-1", "a-2", "b-3", "a-9"}, "bound to the first that came"


def test_a_place_is_meant_beyond_the_revision_that_its_host_knew(state: CatalogState) -> None:
    """An older version stands, or has just gone, when the one that is meant comes."""
    state.hint([unseen(1, 5), unseen(2, 6)], "a", 2.0)
    assert names(state) == {"b-3"}
    state.apply([put(record(1, 8)), (record(2, 0).key, None, 9)], 9, 3.0)
    state.apply([put(record(2, 10))], 10, 3.0)
    assert names(state) == {"b-3"}


def test_a_version_at_another_place_is_not_meant(state: CatalogState) -> None:
    elsewhere = Place(ip_address("10.0.0.77"), 80, "tcp")
    state.hint([replace(down(1, 0), place=elsewhere)], "a", 2.0)
    state.hint([replace(down(9, 0), place=elsewhere)], "a", 2.0)
    state.apply([put(record(9, 9))], 9, 3.0)
    assert names(state) == {"a-1", "a-2", "b-3", "a-9"}


def test_who_reads_as_before_passes_over_what_is_unseen() -> None:
    [packet] = encode(Hint("a", (down(1), unseen(2, 0))), DOMAIN, KEY)
    said = json.loads(KIND.open(packet).body)
    assert [row[1] for row in said["down"]] == ["a-1"]
    assert said["back"] == []


@pytest.mark.parametrize(
    "row",
    [
        ["10.0.0.1", 80],
        ["10.0.0.999", 80, "tcp"],
        [1, 80, "tcp"],
        ["10.0.0.1", "80", "tcp"],
        ["10.0.0.1", 80, "sctp"],
    ],
)
def test_a_place_that_is_none_is_refused(row: list[object]) -> None:
    body = {"down": [], "back": [], "unseen": [["web", "a-1", 0, "crashed", "", 1.0, *row]]}
    packet = KIND.seal("a", json.dumps(body).encode(), DOMAIN, KEY)
    with pytest.raises(HintError, match="malformed"):
        decode(packet, DOMAIN, lambda _: KEY)


def test_hints_ahead_of_the_store_are_bounded(state: CatalogState) -> None:
    many = [down(n, revision=99) for n in range(10, 10 + AHEAD_MAX + 1)]
    state.hint(many, "a", 2.0)
    state.apply([put(record(n, 98)) for n in (10, 10 + AHEAD_MAX)], 98, 3.0)
    assert names(state) >= {f"a-{10 + AHEAD_MAX}"}
    assert "a-10" not in names(state)


STEP = st.tuples(
    st.sampled_from(["hint", "unhint", "put", "delete", "suppress", "unsuppress"]),
    st.sampled_from([1, 2]),
)


@given(st.lists(STEP, max_size=20))
@settings(deadline=None)
def test_every_hint_ends(steps: list[tuple[str, int]]) -> None:
    """Whatever came before: once hints and suppressions are over, what is stored is up."""
    state, revision = CatalogState(KEYS), 10
    stored: set[int] = set()
    for what, n in steps:
        revision += 1
        id_ = endpoint(n).id
        match what:
            case "hint":
                state.hint([down(n, revision)], "a", 1.0)
                assert f"a-{n}" not in names(state)
            case "unhint":
                state.unhint([id_], 1.0)
            case "put":
                state.apply([put(record(n, revision))], revision, 1.0)
                stored.add(n)
            case "delete":
                state.apply([(record(n, 0).key, None, revision)], revision, 1.0)
                stored.discard(n)
            case "suppress":
                said = Withdrawal(endpoint(n), Reason.CRASHED, "", 1.0)
                state.suppress([said], 1.0)
                assert f"a-{n}" not in names(state)
            case _:
                state.unsuppress([endpoint(n)], 1.0)
    ids = [endpoint(n).id for n in (1, 2)]
    state.unhint(ids, 1.0)
    state.unsuppress([endpoint(n) for n in (1, 2)], 1.0)
    assert names(state) == {f"a-{n}" for n in stored}


# Between hosts --------------------------------------------------------------------------------


class Pair:
    """Two daemons' keepers and hints over loopback, with a store that the test plays."""

    def __init__(self) -> None:
        self.metrics = [Metrics(), Metrics()]
        self.keepers = [
            Keeper(KEYS, wall=lambda: 1000.0, monotonic=lambda: 0.0, metrics=metrics)
            for metrics in self.metrics
        ]
        self.hints = [
            Hints(keeper, HintSettings(host, DOMAIN, LOCALHOST, 0), metrics)
            for host, keeper, metrics in zip("ab", self.keepers, self.metrics, strict=True)
        ]
        self.ports = [hints.bind() for hints in self.hints]
        hosts = [
            Host(host, (LOCALHOST,), hint_port=port, hint_key=hints.key)
            for host, port, hints in zip("ab", self.ports, self.hints, strict=True)
        ]
        items = [KeyValue(KEYS.host(h.name), encode_host(h), 2) for h in hosts]
        for keeper in self.keepers:
            keeper.snapshot(Snapshot(6, (record(1, 5), record(2, 6), *items)))

    def up(self, which: int) -> set[str]:
        return set(self.keepers[which].catalog.services.get("web", {}))

    async def until(self, which: int, expected: set[str]) -> None:
        with trio.fail_after(5):
            while self.up(which) != expected:
                await trio.testing.wait_all_tasks_blocked(0.005)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    async with trio.open_nursery() as nursery:
        for hints in made.hints:
            nursery.start_soon(hints.run)
        await trio.testing.wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()


def crash(n: int, revision: int = 0) -> Withdrawal:
    """As the roster says it: with the revision at which this host knows the record to be stored."""
    one = replace(endpoint(n), revision=revision)
    return Withdrawal(one, Reason.CRASHED, "exit status 1", 1000.0)


CRASH = crash(1, 5)


async def test_the_other_host_hears_at_once_and_keeps_the_stores_word() -> None:
    async with pair() as two:
        two.hints[0].suppress([CRASH])
        assert two.up(0) == {"a-2"}
        await two.until(1, {"a-2"})
        assert two.keepers[1].catalog.withdrawn[CRASH.endpoint.id].reason is Reason.CRASHED
        for keeper in two.keepers:
            keeper.delta(Delta(8, (Removed(record(1, 5).key, 8),)))
        assert two.up(1) == {"a-2"}


async def test_a_hint_taken_back_is_heard_too() -> None:
    async with pair() as two:
        two.hints[0].suppress([CRASH])
        await two.until(1, {"a-2"})
        two.hints[0].unsuppress([CRASH.endpoint])
        await two.until(1, {"a-1", "a-2"})


async def test_a_record_that_was_on_its_way_is_told_of_when_it_comes() -> None:
    """An end while the store is slow: the others would name it until the store takes it back."""
    async with pair() as two:
        two.hints[0].suppress([crash(4)])
        for keeper in two.keepers:
            keeper.delta(Delta(9, (record(4, 9),)))
        assert two.up(0) == {"a-1", "a-2"}
        await two.until(1, {"a-1", "a-2"})


async def test_an_end_is_told_of_what_this_host_has_not_seen_stored() -> None:
    """Cut off while it wrote: the others have the record, and this host learns nothing of it."""
    async with pair() as two:
        two.keepers[1].delta(Delta(9, (record(4, 9),)))
        two.hints[0].suppress([crash(4)])
        await two.until(1, {"a-1", "a-2"})
        two.hints[0].unsuppress([endpoint(4)])  # up again, and nobody has seen a deletion
        await two.until(1, {"a-1", "a-2", "a-4"})


async def test_a_second_end_is_told_though_nothing_was_seen_of_it(
    deaf: tuple[Keeper, Deaf], autojump_clock: trio.testing.MockClock
) -> None:
    """It flaps while this host is cut off: each end has a version of its own."""
    keeper, hints = deaf
    async with running(hints):
        hints.suppress([CRASH])
        hints.unsuppress([endpoint(1)])  # its deletion was confirmed, the watch is silent
        again = replace(crash(1), at=1001.0)
        hints.suppress([again])
        place = Place(*endpoint(1).place)
        assert hints.sent[-1].down == (replace(down(1), at=1001.0, place=place),)
        keeper.delta(Delta(12, (record(1, 12),)))
        assert hints.sent[-1].down == (replace(down(1, 12), at=1001.0),), "what was on its way"
        sent = len(hints.sent)
        keeper.delta(Delta(13, (record(2, 13),)))
        assert len(hints.sent) == sent


async def test_what_nobody_has_seen_is_told_until_the_store_says_so_too(
    deaf: tuple[Keeper, Deaf], autojump_clock: trio.testing.MockClock
) -> None:
    keeper, hints = deaf
    async with running(hints):
        hints.suppress([crash(4)])
        await trio.sleep(30.5)
        assert len(hints.sent) == 31
        said = encode_withdrawal(crash(4))
        key = KEYS.withdrawn("a", endpoint(4).id)
        keeper.delta(Delta(12, (KeyValue(key, said, 12),)))
        await trio.sleep(10)
        assert len(hints.sent) == 31


async def test_what_is_written_and_not_yet_seen_is_told_by_its_revision() -> None:
    """The store's answer to the writer may be ahead of its watch."""
    async with pair() as two:
        two.hints[0].suppress([crash(4, 9)])
        two.keepers[1].delta(Delta(9, (record(4, 9),)))
        two.hints[0].suppress([crash(2, 6)])  # comes behind it
        await two.until(1, {"a-1"})
        two.keepers[1].delta(Delta(10, (record(4, 10),)))
        assert two.up(1) == {"a-1", "a-4"}, "the next version is not meant"
        two.hints[0].unsuppress([replace(endpoint(4), revision=9)])
        two.hints[0].unsuppress([replace(endpoint(2), revision=6)])
        await two.until(1, {"a-1", "a-2", "a-4"})


async def test_what_the_store_has_confirmed_is_not_taken_back() -> None:
    """It is up again elsewhere: the version that the other host may still see is over for good."""
    async with pair() as two:
        two.hints[0].suppress([CRASH])
        await two.until(1, {"a-2"})
        two.keepers[0].delta(Delta(8, (Removed(record(1, 5).key, 8),)))
        two.hints[0].unsuppress([endpoint(1)])
        two.hints[0].suppress([crash(2, 6)])  # comes behind it
        await two.until(1, set())


async def test_nobody_can_speak_for_another_host() -> None:
    async with pair() as two:
        two.hints[1].suppress([CRASH])  # b withdraws what is a's
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert two.up(0) == {"a-1", "a-2"}


async def test_garbage_is_counted_and_does_no_harm() -> None:
    async with pair() as two:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            rng = random.Random(1)
            for size in (0, 1, 4, 5, 100, SIZE_MAX, SIZE_MAX + 1, 9000):
                await sock.sendto(rng.randbytes(size), ("127.0.0.1", two.ports[1]))
            await sock.sendto(PACKET, ("127.0.0.1", two.ports[1]))  # another key
        two.hints[0].suppress([CRASH])
        await two.until(1, {"a-2"})
        counted = two.metrics[1].registry.get_sample_value
        assert counted("discod_hints_received_total", {"result": "refused"}) == 9


@asynccontextmanager
async def running(hints: Hints) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hints.run)
        yield
        nursery.cancel_scope.cancel()


class Deaf(Hints):
    """Hints whose datagrams go nowhere but into a list."""

    sent: list[Hint]

    def _send(self, hint: Hint) -> None:
        self.sent.append(hint)


@pytest.fixture
def deaf() -> Iterator[tuple[Keeper, Deaf]]:
    def clock() -> float:
        try:
            return trio.current_time()
        except RuntimeError:  # the fixture itself runs outside of trio
            return 0.0

    keeper = Keeper(KEYS, wall=lambda: 1000.0, monotonic=clock, metrics=Metrics())
    hints = Deaf(keeper, HintSettings("a", DOMAIN, LOCALHOST, 0), Metrics())
    hints.sent = []
    hints.bind()
    peer = Host("b", (LOCALHOST,), hint_port=1, hint_key=KEY.hex())
    keeper.snapshot(
        Snapshot(
            9,
            (record(1, 5), record(3, 7, "b"), KeyValue(KEYS.host("b"), encode_host(peer), 8)),
        )
    )
    yield keeper, hints
    if hints._socket is not None:
        hints._socket.close()


async def test_what_the_store_does_not_confirm_is_repeated(
    deaf: tuple[Keeper, Deaf], autojump_clock: trio.testing.MockClock
) -> None:
    keeper, hints = deaf
    async with running(hints):
        hints.suppress([CRASH])
        await trio.sleep(3.5)
        assert [one.down for one in hints.sent] == [(down(1),)] * 4
        keeper.delta(Delta(10, (Removed(record(1, 5).key, 10),)))
        await trio.sleep(10)
        assert len(hints.sent) == 4
        keeper.delta(Delta(11, (record(2, 11),)))
        hints.suppress([crash(2, 11)])
        await trio.sleep(1.5)
        keeper.delta(Delta(12, (Removed(record(2, 6).key, 12),)))
        await trio.sleep(10)
        # Confirmed here, but another host's store may be away, and a datagram be lost.
        assert len(hints.sent) == 4 + 1 + REPEATED_MIN


async def test_a_hint_that_nobody_stands_by_is_let_go(
    deaf: tuple[Keeper, Deaf], autojump_clock: trio.testing.MockClock
) -> None:
    keeper, hints = deaf
    [packet] = encode(Hint("b", (down(3, 7, host="b"),)), DOMAIN, KEY)

    def up() -> bool:
        return keeper.catalog.endpoint(endpoint(3, "b").id) is not None

    async with running(hints):
        hints._take(packet)
        await trio.sleep(HOLD - 0.1)
        keeper.contact(9)
        hints._take(packet)  # repeated: it holds on
        for _ in range(6):
            await trio.sleep(0.5)
            assert not up()
            keeper.contact(9)
        await trio.sleep(SETTLED + 2 * LOOK)
        assert up()


async def test_a_hint_holds_while_the_store_is_silent(
    deaf: tuple[Keeper, Deaf], autojump_clock: trio.testing.MockClock
) -> None:
    keeper, hints = deaf
    [packet] = encode(Hint("b", (down(3, 7, host="b"),)), DOMAIN, KEY)

    def up() -> bool:
        return keeper.catalog.endpoint(endpoint(3, "b").id) is not None

    async with running(hints):
        keeper.contact(9)
        hints._take(packet)
        await trio.sleep(SETTLED / 2)
        keeper.contact(9)  # of the same moment: the withdrawal may be right behind it
        await trio.sleep(600)
        assert not up()
        keeper.contact(9)
        await trio.sleep(SETTLED / 2)
        assert not up()
        await trio.sleep(SETTLED)
        assert up()


def test_a_port_that_is_taken_costs_only_the_hints(
    deaf: tuple[Keeper, Deaf], caplog: pytest.LogCaptureFixture
) -> None:
    keeper, first = deaf
    assert first._socket is not None
    port = first._socket.getsockname()[1]
    second = Hints(keeper, HintSettings("a", DOMAIN, LOCALHOST, port), Metrics())
    assert second.bind() == 0
    assert "no hints" in caplog.text
    second.suppress([CRASH])  # still the local Catalog
    assert keeper.catalog.endpoint(CRASH.endpoint.id) is None


@pytest.mark.parametrize(
    ("addresses", "port", "store"),
    [((LOCALHOST,), 0, "etcd"), ((LOCALHOST,), 9354, "memory"), ((), 9354, "etcd")],
)
def test_where_hints_are_off(addresses: tuple[object, ...], port: int, store: str) -> None:
    assert settings_for("a", DOMAIN, addresses, port, store) is None  # type: ignore[arg-type]
