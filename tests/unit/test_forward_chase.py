"""Aliases of ours that lead to names of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from discod.model.settings import DnsSettings
from resolver.encode import Error
from resolver.forwarding import chase
from resolver.forwarding.chase import CHAIN_MAX, Resolved, compose, written_out
from resolver.record import AAAA, CNAME, IN, RR, SOA, A, Answer, cname, name_wire, to_name
from resolver.wire import Malformed, read_name
from tests.forwarding import UP, Net, negative, read, reply, running
from tests.resolving import errors, packet

ALIAS = to_name("search.discod.internal")
TARGET = to_name("www.example")
QUERY = packet("Search.discod.internal", size=1232)
ANSWER = Answer("domain", 0, (cname(ALIAS, TARGET, 7),), chase=TARGET)
SETTINGS = DnsSettings(upstreams=(UP,))


def message(
    *rrs: Any, rcode: int = 0, auth: tuple[Any, ...] = (), name: str = "www.example"
) -> bytes:
    made = dnslib.DNSRecord(dnslib.DNSHeader(qr=1, rcode=rcode), q=dnslib.DNSQuestion(name))
    for rr in rrs:
        made.add_answer(rr)
    for rr in auth:
        made.add_auth(rr)
    return bytes(made.pack())


def message_to(query: Any, answer: Any) -> bytes:
    made = query.reply()
    made.add_answer(answer)
    return bytes(made.pack())


def rr(owner: str, rdata: Any, ttl: int = 60) -> Any:
    return dnslib.RR(owner, getattr(dnslib.QTYPE, type(rdata).__name__), ttl=ttl, rdata=rdata)


def owners(found: Resolved) -> list[str]:
    return [b".".join(one.owner).decode() for one in found.answer]


def test_the_chain_and_nothing_else() -> None:
    raw = message(
        rr("www.example.", dnslib.CNAME("a.example.")),
        rr("other.example.", dnslib.A("10.0.0.9")),
        rr("a.example.", dnslib.CNAME("B.example.")),
        rr("b.example.", dnslib.A("10.0.0.1"), 9),
        rr("b.example.", dnslib.TXT("no")),
        rr("b.example.", dnslib.A("10.0.0.2"), 9),
    )
    found = chase.read(raw, TARGET, A)
    assert owners(found) == ["www.example", "a.example", "b.example", "b.example"]
    assert [one.type for one in found.answer] == [CNAME, CNAME, A, A]
    assert [one.ttl for one in found.answer] == [60, 60, 9, 9]
    assert found.answer[1].rdata == b"\1B\7example\0"  # written out, in its case
    assert found.rcode == 0 and found.authority == ()


def test_an_alias_that_leads_to_its_own_parent() -> None:
    raw = message(
        rr("www.example.", dnslib.CNAME("example.")), rr("example.", dnslib.A("10.0.0.1"))
    )
    assert owners(chase.read(raw, TARGET, A)) == ["www.example", "example"]


def test_a_circle_ends() -> None:
    raw = message(
        rr("www.example.", dnslib.CNAME("a.example.")),
        rr("a.example.", dnslib.CNAME("www.example.")),
    )
    assert len(chase.read(raw, TARGET, A).answer) == 2
    raw = message(*(rr(f"n{i}.example.", dnslib.CNAME(f"n{i + 1}.example.")) for i in range(40)))
    assert len(chase.read(raw, to_name("n0.example"), A).answer) == CHAIN_MAX


def test_negative_answers_bring_their_soa() -> None:
    soa = rr("example.", dnslib.SOA("ns.example.", "r.example.", (1, 2, 3, 4, 5)), 5)
    found = chase.read(message(rcode=3, auth=(soa,)), TARGET, A)
    assert (found.rcode, found.answer) == (3, ())
    (only,) = found.authority
    assert (only.type, only.ttl, only.owner) == (SOA, 5, (b"example",))
    assert only.rdata == name_wire(to_name("ns.example")) + name_wire(
        to_name("r.example")
    ) + bytes.fromhex("0000000100000002000000030000000400000005")


@pytest.mark.parametrize(
    "rdata",
    [
        dnslib.MX("mx.www.example.", 10),
        dnslib.SRV(1, 2, 3, "t.www.example."),
        dnslib.NS("ns.www.example."),
        dnslib.PTR("p.www.example."),
        dnslib.SOA("ns.www.example.", "r.www.example.", (1, 2, 3, 4, 5)),
        dnslib.TXT("www.example"),
    ],
)
def test_rdata_stands_on_its_own(rdata: Any) -> None:
    """Moved to another message, it still says the same."""
    qtype = getattr(dnslib.QTYPE, type(rdata).__name__)
    found = chase.read(message(rr("www.example.", rdata)), TARGET, qtype)
    query = read(packet("some.other.name.altogether", qtype))
    answer = Answer("domain", 0, ())
    done = compose(query, answer, found, 1232, 1232)
    (moved,) = dnslib.DNSRecord.parse(done.packet).rr
    assert str(moved.rdata) == str(rdata)


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x0c", b"\x01a\xc0\x0c", b"\xc0\xff", b"\xc0", b"\x05ab", b"\x41", b"\x01a" * 130],
)
def test_bad_pointers_and_names(name: bytes) -> None:
    with pytest.raises(Malformed):
        written_out(bytes(12) + name, 12)


@given(st.binary(max_size=80), st.integers(0, 80))
@settings(max_examples=500)
def test_any_octets_as_a_name(raw: bytes, at: int) -> None:
    try:
        name, after = written_out(raw, at)
    except Malformed:
        return
    assert at < after <= len(raw)
    assert read_name(name, 0)[1] == len(name) <= 255


# The whole response ---------------------------------------------------------------------------


def composed(answer: Answer, found: Resolved, query: bytes = QUERY, limit: int = 1232) -> Any:
    done = compose(read(query), answer, found, limit, 1232)
    assert len(done.packet) <= limit
    response = dnslib.DNSRecord.parse(done.packet)
    assert (response.header.aa, response.header.ra) == (1, 1)
    assert response.header.rcode == done.rcode
    return response


ADDRESSES = tuple(RR(TARGET, A, bytes((10, 0, 0, n)), 40 + n) for n in range(3))


def test_an_alias_and_what_it_leads_to() -> None:
    response = composed(ANSWER, Resolved(0, ADDRESSES))
    assert [(str(r.rname), r.rtype, r.ttl) for r in response.rr] == [
        ("Search.discod.internal.", 5, 7),
        *(("www.example.", 1, 40 + n) for n in range(3)),
    ]


@pytest.mark.parametrize("rcode", [2, 3])
def test_the_rcode_is_that_of_the_end(rcode: int) -> None:
    """RFC 6604, section 3."""
    soa = RR((b"example",), SOA, bytes(22), 5)
    found = Resolved(rcode, (), (soa,), (Error(22, ""),))
    response = composed(ANSWER, found)
    assert response.header.rcode == rcode
    assert [r.rtype for r in response.rr] == [5]
    assert [str(r.rname) for r in response.auth] == ["example."]
    assert errors(response) == [22]


FLAT = Answer(
    "domain",
    0,
    ANSWER.answer,
    (RR(ALIAS[1:], SOA, bytes(22)),),
    chase=TARGET,
    flatten=True,
    ttl=41,
)


def test_flattened() -> None:
    chain = (cname(TARGET, to_name("cdn.example"), 300), *ADDRESSES, ADDRESSES[0])
    response = composed(FLAT, Resolved(0, chain))
    assert [(str(r.rname), r.ttl, str(r.rdata)) for r in response.rr] == [
        ("Search.discod.internal.", 40, f"10.0.0.{n}") for n in range(3)
    ]
    assert not response.auth
    zero = composed(replace(FLAT, ttl=0), Resolved(0, ADDRESSES))
    assert {r.ttl for r in zero.rr} == {0}


@pytest.mark.parametrize(("rcode", "expected"), [(0, 0), (3, 0), (2, 2)])
def test_flattened_to_nothing(rcode: int, expected: int) -> None:
    """The asked name exists, so there is no NXDOMAIN."""
    outside = RR((b"example",), SOA, bytes(22), 5)
    response = composed(FLAT, Resolved(rcode, (), (outside,)))
    assert response.header.rcode == expected and not response.rr
    assert [str(r.rname) for r in response.auth] == ["discod.internal."]


def test_a_long_response_is_cut() -> None:
    many = tuple(RR(TARGET, A, bytes((10, 0, n >> 8, n & 255)), 9) for n in range(200))
    response = composed(ANSWER, Resolved(0, many), limit=512)
    assert response.header.tc == 1 and len(response.rr) > 10


# Through the forwarder ------------------------------------------------------------------------


async def test_resolve(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: reply(q, 2)})
    query = read(QUERY)
    async with running(SETTINGS, net) as rig:
        assert rig.forwarder.try_resolve(TARGET, A, query) is None
        found = await rig.forwarder.resolve(TARGET, A, query, "192.0.2.9")
        assert owners(found) == ["www.example"] * 2
        assert {one.owner for one in found.answer} == {TARGET}
        kept = rig.forwarder.try_resolve(TARGET, A, query)
        assert kept is not None and set(kept.answer) == set(found.answer)
        assert net.seen[0][2].q.qclass == IN
        response = composed(ANSWER, kept)
        assert len(response.rr) == 3
        assert (await rig.ask(packet("www.example"))).rr  # the same entry
    assert len(net.seen) == 1


async def test_resolve_without_success(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: negative(q, 3, 60, 60)})
    async with running(SETTINGS, net) as rig:
        found = await rig.forwarder.resolve((b"no", b"example"), AAAA, read(QUERY))
        assert (found.rcode, found.answer, len(found.authority)) == (3, (), 1)
        net.scripts[UP] = lambda q, _: None
        found = await rig.forwarder.resolve((b"yes", b"example"), AAAA, read(QUERY))
        assert (found.rcode, found.answer) == (2, ())
        assert [error.code for error in found.errors] == [22]


async def test_resolve_of_what_cannot_be_read(autojump_clock: MockClock) -> None:
    """A pointer inside of a record that leads nowhere: clients may get it, we do not follow it."""

    def script(query: Any, _: str) -> bytes:
        return message_to(query, dnslib.RR("www.example.", 5, rdata=dnslib.RD(b"\xff\xff")))

    async with running(SETTINGS, Net({UP: script})) as rig:
        for _ in range(2):
            found = await rig.forwarder.resolve(TARGET, A, read(QUERY))
            assert (found.rcode, found.answer) == (2, ())
            assert [error.code for error in found.errors] == [0]


async def test_resolve_localhost(autojump_clock: MockClock) -> None:
    async with running(SETTINGS, Net({})) as rig:
        found = rig.forwarder.try_resolve((b"localhost",), A, read(QUERY))
        assert found is not None and found.answer[0].rdata == b"\x7f\0\0\1"
