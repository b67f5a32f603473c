"""Forwarding: against upstreams on loopback that answer, lie, cut short, or say nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
import trio

from discod.model.settings import DnsSettings, ListenAddress
from tests.forwarding import Rig, read, reply, running
from tests.resolving import errors, packet

Script = Callable[[Any, str], bytes | None]
"""(query as dnslib reads it, transport) -> reply, or None for silence."""

__all__ = ["Upstream", "reply", "upstreams"]

QUERY = packet("ExAmple.com", size=1232)


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


@contextlib.asynccontextmanager
async def asking(
    *scripts: Script, timeout: float = 20.0, **more: Any
) -> AsyncIterator[tuple[Rig, list[Upstream]]]:
    """A forwarder without a cache, and its upstreams."""
    more.setdefault("cache_size", 0)
    async with upstreams(*scripts) as made:
        servers = tuple(one.address for one in made)
        settings = DnsSettings(upstreams=servers, forward_timeout=timeout, **more)
        async with running(settings) as rig:
            yield rig, made


async def test_a_reply_comes_back_as_the_clients() -> None:
    async with asking(lambda q, _: reply(q)) as (rig, _):
        response = await rig.ask(QUERY)
    assert (response.header.id, str(response.q.qname)) == (4711, "ExAmple.com.")
    assert [str(rr.rdata) for rr in response.rr] == ["10.7.0.0"]
    assert [str(rr.rname) for rr in response.rr] == ["ExAmple.com."]
    assert (response.header.ra, response.header.aa) == (1, 1)
    assert rig.tries() == {"ok": 1}


async def test_ids_ports_and_case_are_new_for_each_query() -> None:
    async with asking(lambda q, _: reply(q)) as (rig, (up,)):
        for _ in range(40):
            await rig.ask(QUERY)
    assert len({query.header.id for _, query, _ in up.seen}) > 30
    assert len({source[1] for _, _, source in up.seen}) > 30
    assert len({str(query.q.qname) for _, query, _ in up.seen}) > 30


async def test_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dead = ListenAddress(ip_address("127.0.0.1"), port)
    async with running(DnsSettings(upstreams=(dead,), forward_timeout=20.0)) as rig:
        with trio.fail_after(10):  # an ICMP error ends a try before its deadline
            response = await rig.ask(QUERY)
    assert errors(response) == [23]
    assert rig.tries() == {"error": 2}


async def test_truncated_replies_are_fetched_over_tcp() -> None:
    def script(query: Any, transport: str) -> bytes:
        return reply(query, 0, tc=1) if transport == "udp" else reply(query, 100)

    async with asking(script) as (rig, (up,)):
        whole = await rig.ask(QUERY, 65535)
        cut = await rig.ask(QUERY, 1232)
    assert (len(whole.rr), whole.header.tc) == (100, 0)
    assert cut.header.tc == 1
    assert 60 < len(cut.rr) < 100
    assert [transport for transport, _, _ in up.seen] == ["udp", "tcp"] * 2


async def test_a_truncated_reply_is_passed_on_where_tcp_fails() -> None:
    async with asking(lambda q, t: reply(q, 3, tc=1) if t == "udp" else b"x") as (rig, _):
        response = await rig.ask(QUERY)
    assert (response.header.tc, len(response.rr)) == (1, 3)


async def test_a_client_that_goes_takes_nothing_along() -> None:
    async with asking(lambda q, _: None, timeout=60.0) as (rig, (up,)):
        with trio.move_on_after(0.1):
            await rig.ask(QUERY, client="192.0.2.9")
        assert rig.forwarder._waiting == 0 and not rig.forwarder._clients
        up.script = lambda q, _: reply(q)  # too late for the question that is under way
        with trio.move_on_after(0.1) as scope:
            await rig.ask(QUERY, client="192.0.2.9")
        assert scope.cancelled_caught
        assert len(up.seen) == 1


async def test_a_burst_of_different_questions() -> None:
    """256 at a time, and not one more: those are told so at once."""
    rcodes: list[int] = []

    async def one(rig: Rig, n: int) -> None:
        rcodes.append((await rig.ask(packet(f"n{n}.example"))).header.rcode)

    async with (
        asking(lambda q, _: reply(q)) as (rig, _),
        trio.open_nursery() as nursery,
    ):
        for n in range(300):
            nursery.start_soon(one, rig, n)
    assert sorted(rcodes) == [0] * 256 + [2] * 44


# Two that name each other ------------------------------------------------------------------------


class Front:
    """A UDP server before a forwarder, as small as can be."""

    def __init__(self) -> None:
        self.socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rig: Rig | None = None
        self.asked = 0

    async def run(self, *, task_status: trio.TaskStatus[ListenAddress]) -> None:
        with self.socket as sock:
            await sock.bind(("127.0.0.1", 0))
            at = ListenAddress(ip_address("127.0.0.1"), sock.getsockname()[1])
            async with trio.open_nursery() as nursery:
                task_status.started(at)
                while True:
                    raw, source = await sock.recvfrom(4096)
                    nursery.start_soon(self._answer, raw, source)

    async def _answer(self, raw: bytes, source: tuple[str, int]) -> None:
        assert self.rig is not None
        self.asked += 1
        done = await self.rig.forwarder.ask(read(raw), 1232, source[0])
        await self.socket.sendto(done.packet, source)


@pytest.mark.parametrize("count", [2, 3])
async def test_forwarders_in_a_circle_say_so_at_once(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    fronts = [Front() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        at = [await nursery.start(front.run) for front in fronts]
        settings = DnsSettings(forward_timeout=30.0, cache_size=0)
        for i, front in enumerate(fronts):
            named = replace(settings, upstreams=(at[(i + 1) % count],))
            front.rig = await stack.enter_async_context(running(named))
        first = fronts[0].rig
        assert first is not None
        with trio.fail_after(10):
            response = await first.ask(packet("www.example.com", size=1232))
            assert response.header.rcode == 2
            assert 0 in errors(response)

            # All at once, from all sides, so that questions meet others under way.
            async def one(rig: Rig) -> None:
                assert (await rig.ask(packet("x.example", size=1232))).header.rcode == 2

            async with trio.open_nursery() as asking_all:
                for _ in range(5):
                    for front in fronts:
                        assert front.rig is not None
                        asking_all.start_soon(one, front.rig)
        assert sum(front.asked for front in fronts) < 40
        assert "ask each other in a circle" in caplog.text
        nursery.cancel_scope.cancel()
