"""Packets nobody should send: they never raise, and get what the RFCs say or nothing."""

from __future__ import annotations

import random
import struct

import dnslib
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resolver import relay
from resolver.upstreams import parse
from resolver.wire import Malformed, read_query
from tests.resolving import NAMED, packet, responder

D = "discod.internal"
TO = responder(NAMED["all"])
CORPUS = [
    packet(name, qtype, size=size, id_=id_)
    for id_, (name, qtype, size) in enumerate(
        (name, qtype, size)
        for name in (
            D,
            f"web.{D}",
            f"_http._tcp.web.{D}",
            f"v1.web.{D}",
            f"alpha.node.{D}",
            f"nope.{D}",
            "2.1.101.10.in-addr.arpa",
            "example.com",
            ".",
        )
        for qtype in ("A", "SRV", "ANY", "SOA", "PTR", "TXT")
        for size in (None, 512, 4096)
    )
]
assert len(CORPUS) == 9 * 6 * 3


def check(raw: bytes) -> None:
    for transport, limit in (("udp", 1232), ("tcp", 65535)):
        outcome = TO.respond(raw, "127.0.0.1", "tcp" if transport == "tcp" else "udp")
        if outcome.packet is None:
            unanswerable = len(raw) < 12 or raw[2] & 0x80
            assert unanswerable or outcome.query is not None
            continue
        got = outcome.packet
        assert 12 <= len(got) <= limit
        assert got[:2] == raw[:2]
        _, flags, questions, *_ = struct.unpack_from(">6H", got)
        assert flags & 0x8000
        assert flags >> 11 & 15 == raw[2] >> 3 & 15
        assert flags & 0x0100 == (raw[2] & 1) << 8
        assert questions <= 1
        assert outcome.query is not None
        if questions:
            question = outcome.query.question
            assert got[12 : 12 + len(question)] == question == raw[12 : 12 + len(question)]
        try:
            outcome.query.name and b".".join(outcome.query.name).decode()
        except UnicodeDecodeError:
            continue  # legal (RFC 2181, section 11), and beyond dnslib
        dnslib.DNSRecord.parse(got)


@given(st.binary(max_size=300))
@example(b"")
@settings(max_examples=1500)
def test_random_octets(raw: bytes) -> None:
    check(raw)


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3), st.integers(0, 65535))
@settings(max_examples=800)
def test_random_bodies_behind_a_sound_header(body: bytes, qd: int, ar: int, id_: int) -> None:
    check(struct.pack(">6H", id_, 0x0100, qd, 0, 0, ar) + body)


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut", "copy"]),
        st.integers(0, 400),
        st.integers(0, 255),
    ),
    max_size=6,
)


def mutated(raw: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(raw)
    for kind, at, value in changes:
        at %= len(data) + 1
        match kind:
            case "set" if at < len(data):
                data[at] = value
            case "insert":
                data[at:at] = bytes((value,))
            case "delete":
                del data[at : at + value % 8]
            case "cut":
                del data[at:]
            case "copy":
                data += data[at : at + value]
    return bytes(data)


@given(st.sampled_from(CORPUS), mutations)
@settings(max_examples=1500)
def test_mutated_queries(raw: bytes, changes: list[tuple[str, int, int]]) -> None:
    check(mutated(raw, changes))


def test_every_prefix_and_trailing_garbage() -> None:
    for raw in CORPUS[::7]:
        for end in range(len(raw) + 1):
            check(raw[:end])
        check(raw + b"\0")
        assert TO.respond(raw + b"\0", "127.0.0.1", "udp").rcode == 1


@given(st.sampled_from(CORPUS), st.integers(0, 60), st.integers(0, 60), mutations)
@settings(max_examples=800)
def test_mutated_replies_of_an_upstream(
    raw: bytes, answers: int, extra: int, changes: list[tuple[str, int, int]]
) -> None:
    query = read_query(raw)
    assert query is not None
    sent = relay.upstream_query(query, 77, 1232)
    reply = dnslib.DNSRecord.parse(sent).reply()
    for i in range(answers):
        reply.add_answer(dnslib.RR(f"a{i}.example", 1, rdata=dnslib.A("10.0.0.1")))
    for i in range(extra):
        reply.add_ar(dnslib.RR(f"b{i}.example", 1, rdata=dnslib.A("10.0.0.1")))
    got = mutated(bytes(reply.pack()), changes)
    if not relay.is_reply(got, query, 77):
        return
    try:
        done = relay.relayed(got, query, 512, 1232)
    except Malformed:
        return
    assert len(done.packet) <= 512
    assert done.packet[:2] == raw[:2]


@given(st.text(max_size=200))
def test_any_text_as_resolv_conf(text: str) -> None:
    assert len(parse(text).servers) <= 3
    assert len(parse(f"nameserver {text}\noptions timeout:{text}").servers) <= 3


def test_a_megabyte_of_labels_costs_no_more_than_its_octets() -> None:
    rng = random.Random(3)
    for _ in range(20):
        body = rng.randbytes(65000)
        check(struct.pack(">6H", 1, 0, 1, 0xFFFF, 0xFFFF, 0xFFFF) + packet(f"web.{D}")[12:] + body)
    pointers = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0" * 5000
    check(struct.pack(">6H", 1, 0, 1, 0, 0, 5000) + packet(f"web.{D}")[12:] + pointers)
