"""Forwarding: against upstreams on loopback that answer, lie, cut short, or say nothing."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
import trio

from discod.model.settings import ListenAddress
from resolver import forward
from resolver.forward import Forwarder
from resolver.upstreams import Upstreams
from resolver.wire import Query, read_query
from tests.resolving import errors, packet

Script = Callable[[Any, str], bytes | None]
"""(query as dnslib reads it, transport) -> reply, or None for silence."""


def reply(query: Any, count: int = 1, rcode: int = 0, **header: int) -> bytes:
    made = query.reply()
    made.header.set_rcode(rcode)
    for name, value in header.items():
        setattr(made.header, name, value)
    for i in range(count):
        rdata = dnslib.A(f"10.7.{i >> 8}.{i & 255}")
        made.add_answer(dnslib.RR(str(query.q.qname), 1, ttl=30, rdata=rdata))
    return bytes(made.pack())


class Upstream:
    """A name server that follows a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[tuple[str, Any, tuple[str, int]]] = []
        self.address = ListenAddress(ip_address("127.0.0.1"), 0)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            await udp.bind(("127.0.0.1", port))
            self.address = ListenAddress(ip_address("127.0.0.1"), port)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._tcp, [listener])
                task_status.started()
                while True:
                    raw, source = await udp.recvfrom(4096)
                    query = dnslib.DNSRecord.parse(raw)
                    self.seen.append(("udp", query, source))
                    answer = self.script(query, "udp")
                    if answer is not None:
                        await udp.sendto(answer, source)

    async def _tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            raw = await stream.receive_some(4096)
            query = dnslib.DNSRecord.parse(raw[2:])
            self.seen.append(("tcp", query, stream.socket.getpeername()))
            answer = self.script(query, "tcp")
            if answer is not None:
                framed = len(answer).to_bytes(2, "big") + answer
                await stream.send_all(framed[:5])
                await stream.send_all(framed[5:])


@contextlib.asynccontextmanager
async def upstreams(*scripts: Script) -> AsyncIterator[list[Upstream]]:
    made = [Upstream(script) for script in scripts]
    async with trio.open_nursery() as nursery:
        for one in made:
            await nursery.start(one.run)
        yield made
        nursery.cancel_scope.cancel()


class Rig:
    """A forwarder and what it counted."""

    def __init__(self, *servers: ListenAddress, attempts: int = 2) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.forwarder = Forwarder(lambda: Upstreams(servers, None, attempts), self._count)
        self.forwarder.timeout = 0.5

    def _count(self, upstream: str, result: str) -> None:
        self.counted[upstream, result] += 1

    def results(self) -> list[str]:
        return [result for _, result in self.counted.elements()]

    async def ask(self, query: bytes, limit: int = 1232) -> Any:
        done = await self.forwarder.ask(read(query), limit)
        assert len(done.packet) <= limit
        assert done.packet[:2] == query[:2]
        response = dnslib.DNSRecord.parse(done.packet)
        assert response.header.rcode == done.rcode
        return response


def read(query: bytes) -> Query:
    found = read_query(query)
    assert found is not None
    return found


QUERY = packet("ExAmple.com", size=1232)


async def test_a_reply_comes_back_as_the_clients() -> None:
    async with upstreams(lambda q, _: reply(q)) as (up,):
        rig = Rig(up.address)
        response = await rig.ask(QUERY)
    assert (response.header.id, str(response.q.qname)) == (4711, "ExAmple.com.")
    assert [str(rr.rdata) for rr in response.rr] == ["10.7.0.0"]
    assert (response.header.ra, response.header.aa) == (1, 1)
    assert rig.results() == ["ok"]


async def test_ids_and_ports_are_new_for_each_query() -> None:
    async with upstreams(lambda q, _: reply(q)) as (up,):
        rig = Rig(up.address)
        for _ in range(40):
            await rig.ask(QUERY)
    assert len({query.header.id for _, query, _ in up.seen}) > 30
    assert len({source[1] for _, _, source in up.seen}) > 30


async def test_the_next_upstream_is_asked_when_the_first_is_silent() -> None:
    async with upstreams(lambda q, _: None, lambda q, _: reply(q)) as (dumb, good):
        rig = Rig(dumb.address, good.address)
        assert (await rig.ask(QUERY)).rr
        assert rig.results() == ["timeout", "ok"]
        assert (await rig.ask(QUERY)).rr
        assert len(dumb.seen) == 1  # shunned for a while
        assert len(good.seen) == 2


async def test_a_single_upstream_is_asked_twice() -> None:
    calls: list[int] = []

    def script(query: Any, _: str) -> bytes | None:
        calls.append(1)
        return reply(query) if len(calls) == 2 else None

    async with upstreams(script) as (up,):
        assert (await Rig(up.address).ask(QUERY)).rr
        calls.clear()
        response = await Rig(up.address, attempts=1).ask(QUERY)  # resolv.conf says once
        assert response.header.rcode == 2


async def test_nobody_answers() -> None:
    async with upstreams(lambda q, _: None) as (up,):
        rig = Rig(up.address)
        response = await rig.ask(QUERY)
    assert (response.header.rcode, response.header.ra) == (2, 1)
    assert errors(response) == [22]
    assert rig.results() == ["timeout"] * 2


async def test_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rig = Rig(ListenAddress(ip_address("127.0.0.1"), port))
    with trio.fail_after(0.14):  # an ICMP error ends a try before its deadline
        response = await rig.ask(QUERY)
    assert errors(response) == [23]
    assert rig.results() == ["error"] * 2


async def test_no_upstream_at_all() -> None:
    response = await Rig().ask(QUERY)
    assert response.header.rcode == 2
    assert errors(response) == [22]
    assert not (await Rig().ask(packet("example.com"), 512)).ar  # no EDNS, no reason


async def test_truncated_replies_are_fetched_over_tcp() -> None:
    def script(query: Any, transport: str) -> bytes:
        return reply(query, 0, tc=1) if transport == "udp" else reply(query, 100)

    async with upstreams(script) as (up,):
        whole = await Rig(up.address).ask(QUERY, 65535)
        cut = await Rig(up.address).ask(QUERY, 1232)
    assert (len(whole.rr), whole.header.tc) == (100, 0)
    assert cut.header.tc == 1
    assert 60 < len(cut.rr) < 100
    assert [transport for transport, _, _ in up.seen] == ["udp", "tcp"] * 2


async def test_a_truncated_reply_is_passed_on_where_tcp_fails() -> None:
    def script(query: Any, transport: str) -> bytes | None:
        return reply(query, 3, tc=1) if transport == "udp" else None

    async with upstreams(script) as (up,):
        response = await Rig(up.address).ask(QUERY)
    assert (response.header.tc, len(response.rr)) == (1, 3)


@pytest.mark.parametrize("rcode", [2, 4, 5])
async def test_another_upstream_may_know_better(rcode: int) -> None:
    async with upstreams(lambda q, _: reply(q, 0, rcode), lambda q, _: reply(q)) as (no, yes):
        rig = Rig(no.address, yes.address)
        assert (await rig.ask(QUERY)).header.rcode == 0
        alone = Rig(no.address)
        assert (await alone.ask(QUERY)).header.rcode == rcode
        assert alone.results() == ["refused"]


async def test_nxdomain_is_an_answer() -> None:
    async with upstreams(lambda q, _: reply(q, 0, 3), lambda q, _: reply(q)) as (first, second):
        assert (await Rig(first.address, second.address).ask(QUERY)).header.rcode == 3
        assert not second.seen


@pytest.mark.parametrize("lie", ["id", "question", "short", "query", "garbage"])
async def test_false_replies_are_passed_over(lie: str) -> None:
    def script(query: Any, _: str) -> bytes:
        good = reply(query)
        match lie:
            case "id":
                return bytes((good[0] ^ 1,)) + good[1:]
            case "question":
                return good.replace(b"\x07", b"\x06", 1)
            case "short":
                return good[:11]
            case "query":
                return bytes(query.pack())
        return b"\xff" * 64

    async with upstreams(script, lambda q, _: reply(q)) as (liar, honest):
        rig = Rig(liar.address, honest.address)
        assert len((await rig.ask(QUERY)).rr) == 1
    assert rig.results() == ["timeout", "ok"]


async def test_an_unreadable_reply_counts_as_malformed() -> None:
    async with upstreams(lambda q, _: reply(q)[:-2], lambda q, _: reply(q)) as (bad, good):
        rig = Rig(bad.address, good.address)
        assert (await rig.ask(QUERY)).rr
    assert rig.results() == ["malformed", "ok"]


async def test_queries_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "IN_FLIGHT_MAX", 3)
    rcodes: list[int] = []
    async with upstreams(lambda q, _: None) as (up,):
        rig = Rig(up.address)

        async def one() -> None:
            rcodes.append((await rig.ask(QUERY)).header.rcode)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        assert rcodes == [2] * 10
        assert len(up.seen) == 6  # three queries, two tries each
        await one()
        assert len(up.seen) == 8  # the places are free again


async def test_cancelled_queries_free_their_place() -> None:
    async with upstreams(lambda q, _: None) as (up,):
        rig = Rig(up.address)
        rig.forwarder.timeout = 60
        with trio.move_on_after(0.05):
            await rig.ask(QUERY)
        assert rig.forwarder._in_flight == 0
