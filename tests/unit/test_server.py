"""The resolver on real sockets of loopback: UDP, TCP, forwarding, metrics, reload."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
import trio

from discod.metrics import Metrics
from discod.model.settings import DnsSettings, ListenAddress
from resolver import tcp
from resolver.server import Bound, Resolver
from tests.resolving import KEYS, NAMED, OWN, WEB, errors, items, packet, state_of
from tests.unit.test_forward import Upstream, reply, upstreams

D = "discod.internal"
NAME = f"web.{D}"


def settings(*addresses: str, **more: Any) -> DnsSettings:
    listen = tuple(ListenAddress(ip_address(a), 0) for a in addresses or ("127.0.0.1",))
    more.setdefault("forward", False)
    more.setdefault("workers", 0)  # those are in test_hot_supervisor
    return DnsSettings(listen=listen, **more)


class Rig:
    """A served resolver."""

    def __init__(self, made: DnsSettings) -> None:
        self.metrics = Metrics()
        self.resolver = Resolver(made, OWN, self.metrics, rng=random.Random(1))
        self.resolver.update(NAMED["all"], None)
        self.resolver.set_stale(stale=False, ready=True)
        self.bound: list[Bound] = []

    @property
    def port(self) -> int:
        return self.bound[0].port

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def udp(self, query: bytes, address: str = "127.0.0.1") -> Any:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            await sock.connect((address, self.port))  # takes replies from this address only
            await sock.send(query)
            with trio.fail_after(5):
                return dnslib.DNSRecord.parse(await sock.recv(65535))

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def served(made: DnsSettings) -> AsyncIterator[Rig]:
    rig = Rig(made)
    async with trio.open_nursery() as nursery:
        rig.bound = await nursery.start(rig.resolver.serve)
        yield rig
        nursery.cancel_scope.cancel()


def framed(*queries: bytes) -> bytes:
    return b"".join(len(q).to_bytes(2, "big") + q for q in queries)


async def receive(stream: trio.SocketStream) -> Any:
    """The next response; None when the server closed."""
    with trio.fail_after(5):
        head = await exactly(stream, 2)
        if head is None:
            return None
        body = await exactly(stream, int.from_bytes(head, "big"))
        assert body is not None
        return dnslib.DNSRecord.parse(body)


async def exactly(stream: trio.SocketStream, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        try:
            chunk = await stream.receive_some(count - len(data))
        except trio.BrokenResourceError:
            return None
        if not chunk:
            return None
        data += chunk
    return data


async def test_udp_and_tcp_share_each_port() -> None:
    async with served(settings("127.0.0.1", "127.0.0.2", "::1")) as rig:
        assert [(b.transport, str(b.address)) for b in rig.bound] == [
            (transport, address)
            for address in ("127.0.0.1", "127.0.0.2", "::1")
            for transport in ("udp", "tcp")
        ]
        assert all(a.port == b.port for a, b in zip(rig.bound[::2], rig.bound[1::2], strict=True))
        assert len((await rig.udp(packet(NAME))).rr) == 2


@pytest.mark.parametrize(("listen", "asked"), [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
async def test_a_wildcard_answers_from_the_address_asked(listen: str, asked: str) -> None:
    async with served(settings(listen)) as rig:
        assert len((await rig.udp(packet(NAME), asked)).rr) == 2


async def test_nothing_to_listen_on() -> None:
    rig = Rig(DnsSettings(listen=(), workers=1))
    with trio.move_on_after(0.05) as scope:
        await rig.resolver.serve()
    assert scope.cancelled_caught


async def test_an_address_in_use_is_named() -> None:
    async with served(settings()) as rig:
        taken = ListenAddress(ip_address("127.0.0.1"), rig.port)
        other = Rig(replace(settings(), listen=(taken,)))
        with pytest.raises(OSError, match=f"tcp 127.0.0.1 port {rig.port}"):
            await other.resolver.serve()


async def test_a_burst_is_answered_whole() -> None:
    async with served(settings()) as rig:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", rig.port))
            for i in range(200):
                await sock.send(packet(NAME, id_=i))
            ids: set[int] = set()
            with trio.fail_after(5):
                while len(ids) < 200:
                    ids.add(int.from_bytes((await sock.recv(4096))[:2], "big"))


async def test_malformed_datagrams_do_no_harm() -> None:
    async with served(settings()) as rig:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for raw in (b"", b"x", b"\xff" * 40, b"y" * 5000, packet(NAME)[:-3]):
                await sock.sendto(raw, ("127.0.0.1", rig.port))
        assert (await rig.udp(packet(NAME))).rr
        assert rig.value("discod_dns_malformed_total", proto="udp") == 5


async def test_changes_of_the_catalog_are_served() -> None:
    state = state_of(items(WEB))
    async with served(settings()) as rig:
        rig.resolver.update(state.catalog, None)
        assert len((await rig.udp(packet(NAME))).rr) == 2
        gone = state.apply([(KEYS.record(WEB[0].id), None, 8)], 8, 0.0)
        rig.resolver.update(state.catalog, gone)
        assert len((await rig.udp(packet(NAME))).rr) == 1
        rig.resolver.set_stale(stale=True, ready=True)
        assert errors(await rig.udp(packet(NAME, size=1232))) == [3]
        rig.resolver.set_stale(stale=True, ready=False)
        assert (await rig.udp(packet(NAME))).header.rcode == 2


async def test_a_fault_of_ours_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(settings()) as rig:
        respond = rig.resolver._responder.respond

        def faulty(raw: bytes, *more: Any) -> Any:
            if raw.startswith(b"\0\1"):
                raise KeyError("boom")
            return respond(raw, *more)

        monkeypatch.setattr(rig.resolver._responder, "respond", faulty)
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.sendto(packet(NAME, id_=1), ("127.0.0.1", rig.port))
        assert (await rig.udp(packet(NAME))).rr


# TCP ------------------------------------------------------------------------------------------


async def test_pipelined_queries_are_answered_in_order() -> None:
    async with served(settings()) as rig, await rig.connect() as stream:
        await stream.send_all(framed(*(packet(NAME, id_=i) for i in range(500))))
        for i in range(500):
            response = await receive(stream)
            assert response.header.id == i and len(response.rr) == 2
        assert rig.value("discod_dns_tcp_connections") == 1


async def test_queries_byte_by_byte() -> None:
    async with served(settings()) as rig, await rig.connect() as stream:
        for byte in framed(packet(NAME, id_=1), packet(D, "SOA", id_=2)):
            await stream.send_all(bytes((byte,)))
        assert (await receive(stream)).header.id == 1
        assert (await receive(stream)).header.id == 2


async def test_large_answers_and_half_closed_connections() -> None:
    async with served(settings()) as rig, await rig.connect() as stream:
        rig.resolver.update(NAMED["big"], None)
        await stream.send_all(framed(*(packet(f"big.{D}", id_=i) for i in range(20))))
        await stream.send_eof()
        for i in range(20):
            response = await receive(stream)
            assert response.header.id == i and len(response.rr) == 1000
        assert await receive(stream) is None


@pytest.mark.parametrize("sent", [b"", b"\0", framed(packet(NAME))[:9]])
async def test_idle_and_stuck_connections_are_closed(sent: bytes) -> None:
    async with served(settings(tcp_idle=0.1)) as rig, await rig.connect() as stream:
        await stream.send_all(sent)
        assert await receive(stream) is None
        assert rig.value("discod_dns_tcp_connections") == 0


@pytest.mark.parametrize("sent", [b"\0\0", b"\0\3abc", framed(b"\xff" * 20)])
async def test_what_is_no_query_closes_the_connection(sent: bytes) -> None:
    async with served(settings()) as rig, await rig.connect() as stream:
        await stream.send_all(framed(packet(NAME)) + sent + framed(packet(NAME)))
        assert (await receive(stream)).rr
        assert await receive(stream) is None
        assert rig.value("discod_dns_malformed_total", proto="tcp") == 1


async def test_the_connection_idle_for_longest_makes_room() -> None:
    async with (
        served(settings(tcp_connections=2)) as rig,
        await rig.connect() as a,
        await rig.connect() as b,
    ):
        for stream in (a, b, a):
            await stream.send_all(framed(packet(NAME)))
            assert (await receive(stream)).rr
        async with await rig.connect() as c:
            await c.send_all(framed(packet(NAME)))
            assert (await receive(c)).rr
            assert await receive(b) is None
            await a.send_all(framed(packet(NAME)))
            assert (await receive(a)).rr
            assert rig.value("discod_dns_tcp_connections") == 2


async def test_a_client_that_does_not_read_is_let_go() -> None:
    async with served(settings(tcp_idle=0.3)) as rig, await rig.connect() as stream:
        rig.resolver.update(NAMED["big"], None)
        query = framed(packet(f"big.{D}", "SRV")) * 400  # 26 MB of answers
        await stream.send_all(query)
        with trio.fail_after(20):
            while rig.value("discod_dns_tcp_connections") != 0:  # noqa: ASYNC110 - it is a gauge
                await trio.sleep(0.05)
        assert (await rig.udp(packet(f"big.{D}", size=1232))).rr


async def test_a_reset_connection_does_no_harm() -> None:
    async with served(settings()) as rig:
        for _ in range(5):
            stream = await rig.connect()
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.send_all(framed(*[packet(NAME)] * 50))
            await trio.aclose_forcefully(stream)
        assert (await rig.udp(packet(NAME))).rr


# Forwarding -----------------------------------------------------------------------------------


def towards(*made: Upstream, timeout: float = 10.0, **more: Any) -> DnsSettings:
    """Settings with these upstreams; the time-out is only for those that never answer."""
    return settings(
        forward=True, upstreams=tuple(u.address for u in made), forward_timeout=timeout, **more
    )


async def test_forwarding_over_both_transports() -> None:
    def script(query: Any, transport: str) -> bytes:
        return reply(query, 0, tc=1) if transport == "udp" else reply(query, 200)

    async with upstreams(script) as (up,), served(towards(up, cache_size=0)) as rig:
        response = await rig.udp(packet("big.example", size=4096))
        assert response.header.tc == 1 and len(response.rr) > 60
        async with await rig.connect() as stream:
            await stream.send_all(framed(packet("big.example")))
            assert len((await receive(stream)).rr) == 200
        assert (
            rig.value(
                "discod_dns_forwards_total", upstream=f"127.0.0.1:{up.address.port}", result="ok"
            )
            == 2
        )
        assert rig.value("discod_dns_responses_total", rcode="NOERROR") == 2


async def test_ours_do_not_wait_for_forwarded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "IN_FLIGHT_MAX", 4)

    def script(query: Any, _: str) -> bytes | None:
        return None if str(query.q.qname).lower().startswith("slow") else reply(query)

    async with upstreams(script) as (up,), served(towards(up, timeout=0.3)) as rig:
        async with await rig.connect() as stream:
            await stream.send_all(
                framed(
                    packet("slow.example", id_=1),
                    packet("fast.example", id_=2),
                    packet(NAME, id_=3),
                )
            )
            got = [await receive(stream) for _ in range(3)]
        assert got[-1].header.id == 1
        assert {r.header.id: r.header.rcode for r in got} == {1: 2, 2: 0, 3: 0}


async def test_we_are_not_our_own_upstream() -> None:
    rig = Rig(settings(forward=True))
    async with trio.open_nursery() as nursery:
        (bound, _) = await nursery.start(rig.resolver.serve)
        rig.bound = [bound]
        itself = ListenAddress(bound.address, bound.port)
        assert rig.resolver.reload(replace(settings(forward=True), upstreams=(itself,))) == ()
        response = await rig.udp(packet("example.com", size=1232))
        assert response.header.rcode == 2 and errors(response) == [22]
        assert rig.value("discod_dns_requests_total", zone=".", proto="udp", type="A") == 1
        nursery.cancel_scope.cancel()


# The rest -------------------------------------------------------------------------------------


async def test_metrics() -> None:
    async with served(settings()) as rig:
        for query in (
            packet(NAME),
            packet(NAME, "SRV"),
            packet(NAME, 65280),
            packet(NAME, 65281),
            packet("1.2.0.192.in-addr.arpa", "PTR"),
            packet(f"nope.{D}"),
            packet("example.com"),
        ):
            await rig.udp(query)
        count = "discod_dns_requests_total"
        assert rig.value(count, zone=D, proto="udp", type="A") == 2
        assert rig.value(count, zone=D, proto="udp", type="SRV") == 1
        assert rig.value(count, zone=D, proto="udp", type="other") == 2
        assert rig.value(count, zone="reverse", proto="udp", type="PTR") == 1
        assert rig.value(count, zone=".", proto="udp", type="A") == 1
        for rcode, times in (("NOERROR", 5), ("NXDOMAIN", 1), ("REFUSED", 1)):
            assert rig.value("discod_dns_responses_total", rcode=rcode) == times
        assert rig.value("discod_dns_request_duration_seconds_count", zone=D) == 5


async def test_reload() -> None:
    made = settings()
    async with served(made) as rig:
        changed = replace(made, allow=(), domain="other.example", listen=(), workers=3)
        assert rig.resolver.reload(changed) == ("listen", "domain", "workers")
        assert rig.resolver.reload(changed) == ("listen", "domain", "workers")  # still not in force
        assert (await rig.udp(packet(NAME))).header.rcode == 5
        assert rig.value("discod_dns_acl_refused_total") == 1
        assert rig.resolver.reload(made) == ()
        assert (await rig.udp(packet(NAME))).rr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"alpha.node.{D}", ["A 192.0.2.1", "AAAA 2001:db8::1"]),
        ("192.0.2.1", [f"PTR alpha.node.{D}."]),
        (f"node.{D}", ["NODATA"]),
        (f"nope.{D}.", ["NXDOMAIN"]),
        ("example.com", ["FORWARDED"]),
    ],
)
def test_explain(name: str, expected: list[str]) -> None:
    lines = Rig(settings()).resolver.explain(name)
    assert [" ".join(line.split()[3:]) or line for line in lines] == expected


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "a." * 200, ".a"])
def test_explain_refuses_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="no DNS name"):
        Rig(settings()).resolver.explain(name)


async def test_an_address_that_is_not_here_yet_is_bound_in_advance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # TEST-NET-3 (RFC 5737): no host has it.
    from resolver.udp import bind

    with bind(ListenAddress(ip_address("203.0.113.77"), 0)) as sock:
        assert sock.getsockname()[0] == "203.0.113.77"
    with bind(ListenAddress(ip_address("2001:db8:ffff::77"), 0)) as sock:
        assert sock.getsockname()[0] == "2001:db8:ffff::77"
    assert [r.message for r in caplog.records] == [
        "this host has no such address yet, served as soon as it has"
    ] * 2
