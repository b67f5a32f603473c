"""Replies as bytes: what passes, what is touched, what is kept, for how long."""

from __future__ import annotations

import struct
from typing import Any

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.encode import Error
from resolver.forwarding.case import flipped, letters, lowered
from resolver.forwarding.reply import Reply, read_reply, render
from resolver.wire import Malformed, Query
from tests.forwarding import negative, read, reply
from tests.resolving import errors, packet, section

HEAD = struct.Struct(">6H")


def asked(query: bytes) -> Any:
    return dnslib.DNSRecord.parse(query)


def kept(raw: bytes, query: bytes) -> Reply:
    return read_reply(raw, read(query).question)


def shown(made: Reply, query: bytes, limit: int = 1232, **more: Any) -> Any:
    done = render(made, read(query), limit, 1400, **more)
    assert len(done.packet) <= limit
    response = dnslib.DNSRecord.parse(done.packet)
    assert bool(response.header.tc) == done.truncated
    return response


QUERY = packet("www.example", size=1232, id_=5)


def rich(query: Any, count: int = 2, extra: int = 1, opt: bool = True) -> bytes:
    made = dnslib.DNSRecord.parse(reply(query, count, ttl=300, aa=1))
    made.add_auth(dnslib.RR("example.", 2, ttl=200, rdata=dnslib.NS("ns.example.")))
    for i in range(extra):
        made.add_ar(dnslib.RR("ns.example.", 1, ttl=100, rdata=dnslib.A(f"10.8.0.{i}")))
    if opt:
        opts = [dnslib.EDNSOption(15, b"\0\6bad"), dnslib.EDNSOption(10, b"c" * 8)]
        made.add_ar(dnslib.EDNS0(udp_len=4000, opts=opts))
    return bytes(made.pack())


def test_records_pass_and_opt_does_not() -> None:
    raw = rich(asked(QUERY))
    response = shown(kept(raw, QUERY), QUERY)
    before = dnslib.DNSRecord.parse(raw)
    for there, here in ((before.rr, response.rr), (before.auth, response.auth)):
        assert [(str(r), r.ttl) for r in there] == [(str(r), r.ttl) for r in here]
    assert section(response.ar) == section(before.ar)
    (opt,) = (rr for rr in response.ar if rr.rtype == 41)
    assert opt.edns_len == 1400
    assert [o.code for o in opt.rdata] == [15] and errors(response) == [6]
    assert not any(rr.rtype == 41 for rr in shown(kept(raw, QUERY), packet("www.example")).ar)


@pytest.mark.parametrize("do", [True, False])
@pytest.mark.parametrize("ad", [True, False])
def test_ad_is_for_those_who_understand_it(do: bool, ad: bool) -> None:
    """RFC 6840, section 5.8."""
    raw = reply(asked(QUERY), ad=1)
    query = packet("www.example", size=1232, do=do)
    if ad:
        query = query[:3] + bytes((query[3] | 0x20,)) + query[4:]
    response = shown(kept(raw, QUERY), query)
    assert response.header.ad == (do or ad)


def test_cd_and_rd_are_the_clients_own() -> None:
    """RFC 4035, section 3.2.2."""
    raw = reply(asked(QUERY), rd=0, cd=0)
    query = QUERY[:3] + b"\x10" + QUERY[4:]
    header = shown(kept(raw, QUERY), query).header
    assert (header.rd, header.cd, header.ra, header.z) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("answers", "extra", "limit", "tc"), [(40, 0, 512, 1), (20, 30, 512, 0), (20, 30, 1232, 0)]
)
def test_a_response_is_cut_to_size(answers: int, extra: int, limit: int, tc: int) -> None:
    response = shown(kept(rich(asked(QUERY), answers, extra), QUERY), QUERY, limit)
    assert response.header.tc == tc
    if tc:
        assert 0 < len(response.rr) < answers
    else:
        assert len(response.rr) == answers
        assert len(response.ar) - 1 in (0, extra)
    assert sum(rr.rtype == 41 for rr in response.ar) == 1


def test_an_upstreams_long_words_do_not_make_a_response_too_long() -> None:
    made = dnslib.DNSRecord.parse(reply(asked(QUERY)))
    made.add_ar(dnslib.EDNS0(opts=[dnslib.EDNSOption(15, b"\0\6" + b"x" * 2000)]))
    response = shown(kept(bytes(made.pack()), QUERY), QUERY, 512)
    assert errors(response) == []


def test_a_large_rcode_needs_edns() -> None:
    made = dnslib.DNSRecord.parse(reply(asked(QUERY), 0))
    made.add_ar(dnslib.EDNS0(ext_rcode=1))
    found = kept(bytes(made.pack()), QUERY)
    assert found.rcode == 16
    assert shown(found, packet("www.example"), 512).header.rcode == 2
    (opt,) = shown(found, QUERY).ar
    assert opt.edns_rcode == 1


def test_what_follows_opt_is_of_this_hop_too() -> None:
    made = dnslib.DNSRecord.parse(rich(asked(QUERY)))
    made.add_ar(dnslib.RR("sig.", 250, 255, 0, rdata=dnslib.RD(b"x" * 16)))
    response = shown(kept(bytes(made.pack()), QUERY), QUERY)
    assert [rr.rtype for rr in response.ar] == [1, 41]


@pytest.mark.parametrize("place", ["answer", "twice"])
def test_opt_in_a_wrong_place_is_malformed(place: str) -> None:
    made = dnslib.DNSRecord.parse(reply(asked(QUERY), 0))
    opt = dnslib.EDNS0(udp_len=1232)
    if place == "answer":
        made.rr.append(opt)
    else:
        made.ar += [opt, opt]
    with pytest.raises(Malformed):
        kept(bytes(made.pack()), QUERY)


def test_every_prefix_of_a_reply_is_malformed() -> None:
    raw = rich(asked(QUERY))
    for end in range(12 + len(read(QUERY).question), len(raw)):
        with pytest.raises(Malformed):
            kept(raw[:end], QUERY)


# TTLs -----------------------------------------------------------------------------------------


def test_ttls_count_down_and_never_below_zero() -> None:
    found = kept(rich(asked(QUERY)), QUERY)
    assert found.lifetime == 100  # the shortest
    for age, ttls in ((0, (300, 200, 100)), (99, (201, 101, 1)), (250, (50, 0, 0))):
        response = shown(found, QUERY, age=age)
        got = {rr.ttl for rr in response.rr}, response.auth[0].ttl, response.ar[0].ttl
        assert got == ({ttls[0]}, ttls[1], ttls[2])
        assert response.header.aa == 0


def test_long_ttls_are_cut_to_a_day() -> None:
    found = kept(reply(asked(QUERY), ttl=10**6), QUERY)
    assert found.lifetime == 86400
    assert [rr.ttl for rr in shown(found, QUERY).rr] == [10**6]  # the first client gets the word
    assert [rr.ttl for rr in shown(found, QUERY, age=400).rr] == [86000]


def test_a_ttl_with_the_highest_bit_is_zero() -> None:
    """RFC 2181, section 8."""
    found = kept(reply(asked(QUERY), ttl=2**31), QUERY)
    assert found.lifetime == 0
    assert [rr.ttl for rr in shown(found, QUERY).rr] == [0]


def test_stale_answers_have_a_ttl_of_their_own() -> None:
    found = kept(rich(asked(QUERY)), QUERY)
    response = shown(found, QUERY, age=0, stale_ttl=30, errors=(Error(3, "x"),))
    assert {rr.ttl for rr in (*response.rr, *response.auth, response.ar[0])} == {30}
    assert errors(response) == [3, 6]


@pytest.mark.parametrize(
    ("ttl", "minimum", "expected"), [(600, 20, 20), (20, 600, 20), (10**5, 10**5, 3600), (0, 9, 0)]
)
@pytest.mark.parametrize("rcode", [0, 3])
def test_lifetime_of_negative_answers(rcode: int, ttl: int, minimum: int, expected: int) -> None:
    """RFC 2308, section 5."""
    found = kept(negative(asked(QUERY), rcode, ttl, minimum), QUERY)
    assert found.lifetime == expected
    assert shown(found, QUERY).auth[0].ttl == min(ttl, minimum)


def with_alias(query: bytes, end: bool, soa: bool) -> bytes:
    made = dnslib.DNSRecord.parse(reply(asked(query), 0))
    made.add_answer(dnslib.RR("www.example.", 5, ttl=50, rdata=dnslib.CNAME("web.example.")))
    if end:
        for i in range(3):
            made.add_answer(dnslib.RR("web.example.", 1, ttl=40, rdata=dnslib.A(f"10.0.0.{i}")))
    if soa:
        rdata = dnslib.SOA("ns.example.", "r.example.", (1, 2, 3, 4, 25))
        made.add_auth(dnslib.RR("example.", 6, ttl=90, rdata=rdata))
    return bytes(made.pack())


@pytest.mark.parametrize(
    ("end", "soa", "expected"), [(True, False, 40), (False, True, 25), (False, False, 0)]
)
def test_lifetime_of_aliases(end: bool, soa: bool, expected: int) -> None:
    assert kept(with_alias(QUERY, end, soa), QUERY).lifetime == expected


def test_lifetime_of_other_rcodes_and_any() -> None:
    for rcode in (1, 2, 4, 5, 6):
        assert kept(reply(asked(QUERY), 1, rcode), QUERY).lifetime == 0
    query = packet("www.example", "ANY")
    assert kept(reply(asked(query), 1), query).lifetime == 30
    assert kept(reply(asked(query), 0), query).lifetime == 0


# Order and case -------------------------------------------------------------------------------


def test_addresses_behind_an_alias_take_turns_too() -> None:
    found = kept(with_alias(QUERY, True, False), QUERY)
    seen = []
    for turn in range(4):
        response = shown(found, QUERY, age=0, turn=turn)
        assert response.rr[0].rtype == 5 and str(response.rr[1].rname) == "web.example."
        seen.append([str(rr.rdata)[-1] for rr in response.rr[1:]])
    assert seen == [list("012"), list("120"), list("201"), list("012")]


def test_records_with_names_inside_keep_their_order() -> None:
    """They may be what a later name points to."""
    query = packet("www.example", "MX")
    made = dnslib.DNSRecord.parse(reply(asked(query), 0))
    for i in range(3):
        rdata = dnslib.MX(f"mx{i}.example.", i)
        made.add_answer(dnslib.RR("www.example.", 15, ttl=9, rdata=rdata))
    found = kept(bytes(made.pack()), query)
    orders = [[str(rr.rdata) for rr in shown(found, query, turn=t).rr] for t in range(3)]
    assert orders[0] == orders[1] == orders[2]


def spelt(query: bytes, owner: bytes) -> bytes:
    """A reply whose record spells its owner out."""
    question = read(query).question
    fixed = struct.pack(">HHIH", 1, 1, 60, 4) + b"\x0a\0\0\1"
    return HEAD.pack(5, 0x8180, 1, 1, 0, 0) + question + owner + fixed


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (b"\3wWw\7eXAMPLE\0", "WWW.Example."),
        (b"\7eXAMPLE\0", "Example."),
        (b"\3wWw\xc0\x10", "WWW.Example."),
        (b"\3oTh\7eXAMPLE\0", "oTh.eXAMPLE."),
        (b"\2Ww\7eXAMPLE\0", "Ww.eXAMPLE."),
        (b"\xc0\x0c", "WWW.Example."),
    ],
)
def test_names_that_are_spelt_out_get_the_clients_case(owner: bytes, name: str) -> None:
    sent, client = packet("wWw.eXAMPLE"), packet("WWW.Example")
    response = shown(kept(spelt(sent, owner), sent), client)
    assert [str(rr.rname) for rr in response.rr] == [name]


NAMES = st.lists(st.binary(min_size=1, max_size=12), max_size=8)


@given(NAMES, st.integers(0), st.integers(0, 65535))
def test_case(labels: list[bytes], bits: int, qtype: int) -> None:
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    question = name + struct.pack(">HH", qtype, 1)
    other = flipped(question, bits % (1 << 8 * len(name)))
    assert len(other) == len(question) and other[-4:] == question[-4:]
    assert lowered(other) == lowered(question)
    assert flipped(question, 0) == question
    whole = flipped(question, (1 << 8 * len(name)) - 1)
    assert sum(a != b for a, b in zip(whole, question, strict=True)) == letters(question)


mutations = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)


@given(st.integers(0, 12), st.integers(0, 12), mutations, st.integers(0, 20), st.booleans())
@settings(max_examples=200)
def test_mutated_replies(
    answers: int, extra: int, changes: list[tuple[int, int]], cut: int, opt: bool
) -> None:
    raw = bytearray(rich(asked(QUERY), answers, extra, opt))
    at = 12 + len(read(QUERY).question)
    for where, value in changes:
        raw[(2 if where < 10 else at) + where % (len(raw) - at)] = value
    try:
        found = kept(bytes(raw[: len(raw) - cut]), QUERY)
    except Malformed:
        return
    query: Query = read(packet("WWW.Example", size=1232))
    for limit in (512, 1232):
        for age, turn in ((None, 0), (5, 3)):
            done = render(found, query, limit, 1232, age=age, turn=turn)
            assert len(done.packet) <= limit
            assert done.packet[12:at] == query.question
