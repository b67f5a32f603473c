"""The loop: whole batches, and what is not as usual in them."""

from __future__ import annotations

import random
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from resolver.hot.loop import Loop
from resolver.hot.memo import Memo, settle
from resolver.hot.mmsg import Batch, address_of, piece
from resolver.hot.protocol import read_delegated
from resolver.hot.slots import (
    DELEGATED,
    KINDS,
    QUERIES,
    RATE_DROPPED,
    SILENT_PACKETS,
    SLOTS,
    kind,
)
from resolver.record import AAAA, NOERROR, NXDOMAIN, A
from resolver.rrl import Limiter
from tests.hot import SECRETS, Hot
from tests.resolving import NAMED, packet

CALM, LOUD = bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1))


class Bench:
    """A loop on a socket of loopback, turned by hand."""

    def __init__(self, stack: ExitStack) -> None:
        self.hot = Hot(NAMED["web"])
        hot = self.hot
        self.memo: Memo[bytes] = Memo(
            hot._respond, hot._limited, address_of, piece, hot.zone, random.Random(3)
        )
        settle(self.memo, hot.settings, SECRETS)
        self.memo.labels, self.memo.aliases = hot.replica.labels, hot.replica.aliases
        self.slots = memoryview(bytearray(8 * SLOTS)).cast("Q")
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind(("127.0.0.1", 0))
        self.client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.client.connect(server.getsockname())
        self.client.settimeout(5)
        control, _ = map(stack.enter_context, socket.socketpair())
        queries, self.handed_on = map(
            stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        )
        self.handed_on.setblocking(False)
        self.server = server
        self.batch = Batch(server)
        self.loop = Loop(
            self.memo, self.slots, [self.batch], control, queries, lambda: True, lambda _: True
        )
        self.loop.ready = True

    def serve(self, *queries: bytes) -> dict[int, bytes]:
        """Send all, serve one batch; responses by id."""
        for query in queries:
            self.client.send(query)
        assert select.select([self.server], [], [], 5)[0]  # on loopback, what was sent is there
        self.loop._serve(0, self.batch)
        self.client.setblocking(False)
        found: dict[int, bytes] = {}
        while True:
            try:
                response = self.client.recv(4096)
            except BlockingIOError:
                return found
            found[int.from_bytes(response[:2], "big")] = response

    def delegated(self) -> list[bytes]:
        """Packets that were handed on."""
        found = []
        while True:
            try:
                found.append(read_delegated(self.handed_on.recv(4096)).packet)
            except BlockingIOError:
                return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def asked(number: int, name: str, qtype: str = "A") -> bytes:
    return number.to_bytes(2, "big") + packet(f"{name}.discod.internal", qtype)[2:]


def test_a_batch_of_all_kinds(bench: Bench) -> None:
    reverse = b"\0\x09" + packet("1.0.0.127.in-addr.arpa", "PTR")[2:]
    response = b"\0\x08\x80\0" + bytes(8)
    sent = (
        asked(1, "web"),
        response,
        asked(2, "nothing"),
        asked(3, "web", "TXT"),
        reverse,
        asked(4, "web", "SOA"),
        asked(5, "wEb"),
        asked(6, "web"),
    )
    for turn in range(1, 4):  # first all of it is new, then most of it is remembered
        found = bench.serve(*sent)
        assert set(found) == {1, 2, 3, 4, 5, 6}
        for query in sent:
            number = int.from_bytes(query[:2], "big")
            if number in found:
                assert found[number][2] & 0x80 and query[12:] in found[number]
        assert found[2][3] & 15 == NXDOMAIN
        assert bench.delegated() == [reverse]
        assert bench.slots[QUERIES] == 8 * turn
        assert bench.slots[SILENT_PACKETS] == bench.slots[DELEGATED] == turn
        kinds = Counter(
            {slot: bench.slots[slot] for slot in range(KINDS, SLOTS) if bench.slots[slot]}
        )
        assert kinds[kind(A, NOERROR, False)] == 3 * turn
        assert kinds[kind(A, NXDOMAIN, False)] == turn
        assert kinds.total() == 6 * turn
        assert not bench.memo.retired


def test_a_batch_of_what_is_remembered_asks_nobody(bench: Bench) -> None:
    bench.serve(*[asked(n, "web", t) for n, t in enumerate(("A", "AAAA", "A"))])
    slow = bench.memo.slow
    found = bench.serve(*[asked(n, "web", t) for n, t in enumerate(("A", "AAAA") * 20)])
    assert len(found) == 40
    assert bench.memo.slow == slow
    assert bench.slots[kind(AAAA, NOERROR, False)] == 21


def test_the_same_question_many_times_in_one_batch_is_rotated(bench: Bench) -> None:
    found = bench.serve(*[asked(n, "web") for n in range(100)])
    assert len(found) == 100
    orders = Counter(body[2:] for body in found.values())
    assert len(orders) == 2  # of two addresses; one weighs twice as much as the other
    assert min(orders.values()) > 5


def test_nothing_is_answered_before_there_is_a_catalog(bench: Bench) -> None:
    bench.loop.ready = False
    assert bench.serve(asked(1, "web"), asked(2, "web")) == {}
    assert bench.delegated() == [asked(1, "web"), asked(2, "web")]


def test_above_the_rate_only_some_are_answered(bench: Bench) -> None:
    bench.batch.peers = lambda count: [LOUD] * count  # type: ignore[method-assign]
    bench.loop.limiter = Limiter(3, 0, 0x9E3779B97F4A7C15)
    found = bench.serve(*[asked(n, "web") for n in range(10)])
    assert len(found) == 3
    assert bench.slots[RATE_DROPPED] == 7
    assert bench.slots[kind(A, NOERROR, False)] == 3


def test_a_loud_client_does_not_count_against_the_calm_one(bench: Bench) -> None:
    loop = bench.loop
    limiter = Limiter(5, 0, 0x9E3779B97F4A7C15)
    assert loop._above_rate(limiter, Counter([CALM, LOUD] * 3)) == frozenset()
    # The fourth to sixth of each: the loud one's come in one batch with two of the calm one's.
    assert loop._above_rate(limiter, Counter([CALM] * 2 + [LOUD] * 3)) == {LOUD}
    assert [limiter.verdict(LOUD, 0) for _ in range(3)] == ["pass", "pass", "drop"]
    assert limiter.verdict(CALM, 0) == "drop"  # five were its own
