"""One packet in, one decision out: headers, EDNS, sizes, the list of clients."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.endpoint import Alias
from discod.model.settings import DnsSettings
from resolver.answer import Responder
from resolver.encode import encode
from resolver.wire import Malformed, Query, read_name, read_query, skip_name
from tests.resolving import (
    NAMED,
    WEB,
    ask,
    catalog_of,
    endpoint,
    errors,
    made,
    packet,
    responder,
    section,
)

D = "discod.internal"
NAME = f"web.{D}"


def header(response: Any) -> dict[str, int]:
    h = response.header
    return {"qr": h.qr, "aa": h.aa, "tc": h.tc, "rd": h.rd, "ra": h.ra, "rcode": h.rcode}


@pytest.mark.parametrize("rd", [True, False])
@pytest.mark.parametrize("forward", [True, False])
def test_header_of_our_answers(rd: bool, forward: bool) -> None:
    to = responder(NAMED["web"], DnsSettings(forward=forward))
    response, _ = ask(to, packet(NAME, rd=rd))
    assert header(response) == {"qr": 1, "aa": 1, "tc": 0, "rd": rd, "ra": forward, "rcode": 0}
    assert response.header.id == 4711
    assert response.header.z == response.header.ad == 0


def test_the_question_comes_back_in_its_case() -> None:
    name = "wEb.DiScOd.INTERNAL"
    response, outcome = ask(responder(NAMED["web"]), packet(name))
    assert str(response.q.qname) == name + "."
    assert {str(rr.rname) for rr in response.rr} == {name + "."}
    assert outcome.packet is not None
    assert outcome.packet[12 : 12 + len(name)] == packet(name)[12 : 12 + len(name)]


@pytest.mark.parametrize(
    ("query", "rcode", "aa"),
    [
        (packet(NAME, cls=3), 5, 0),  # CH
        (packet(NAME, cls=255), 0, 0),
        (packet("nope." + D, cls=255), 3, 0),
        (packet("example.com", cls=255), 5, 0),
        (packet(NAME, cls=254), 5, 0),
        (packet("version.bind", "TXT", cls=3), 5, 0),
        (packet(NAME, "AXFR"), 5, 0),
        (packet(NAME, 251), 5, 0),
        (packet(NAME, "OPT"), 1, 0),
        (packet(NAME, 249), 1, 0),  # TKEY
        (packet(NAME, 250), 1, 0),  # TSIG
        (packet("example.com", rd=False), 5, 0),
        (packet("nope." + D), 3, 1),
    ],
)
def test_rcodes(query: bytes, rcode: int, aa: int) -> None:
    response, outcome = ask(responder(NAMED["web"]), query)
    assert (response.header.rcode, response.header.aa) == (rcode, aa)
    assert outcome.rcode == rcode
    assert len(response.questions) == 1


def change(query: bytes, **fields: int) -> bytes:
    """A query with other header fields."""
    names = ["id", "flags", "qd", "an", "ns", "ar"]
    values = dict(zip(names, struct.unpack(">6H", query[:12]), strict=True)) | fields
    return struct.pack(">6H", *values.values()) + query[12:]


PLAIN = packet(NAME)
WITH_EDNS = packet(NAME, size=1232)
OPT = WITH_EDNS[len(PLAIN) :]


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (change(PLAIN, qd=0), 1),
        (change(PLAIN, qd=2), 1),
        (change(PLAIN, qd=0)[:12], 1),
        (PLAIN[:-1], 1),
        (PLAIN[:20], 1),
        (PLAIN + b"x", 1),
        (change(PLAIN, ar=1), 1),
        (change(PLAIN, an=65535, ns=65535, ar=65535), 1),
        (change(WITH_EDNS + OPT, ar=2), 1),  # two OPT records
        (change(WITH_EDNS, ar=0, an=1), 1),  # OPT as an answer
        (change(PLAIN + b"\x01x" + OPT, ar=1), 1),  # OPT with an owner
        (change(PLAIN + OPT[:-2] + b"\0\5\0\3\0\3\0", ar=1), 1),  # an option that does not end
        (change(PLAIN + OPT[:-2] + b"\0\3\0\3\0", ar=1), 1),
        (change(PLAIN + b"\xc0\xff" + OPT[1:], ar=1), 1),  # a pointer forward
        (PLAIN[:12] + b"\xc0\x0c\0\1\0\1", 1),  # a question that points to itself
        (PLAIN[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", 1),  # label type 01
        (PLAIN[:12] + b"\x3f" + (b"x" * 63 + b"\x3f") * 4 + b"\0\0\1\0\1", 1),
        (change(PLAIN, flags=0x2000), 4),  # NOTIFY
        (change(PLAIN, flags=0x2800), 4),  # UPDATE
        (change(PLAIN, flags=0x1000, qd=0)[:12], 4),  # STATUS
        (change(PLAIN, flags=0x7800, qd=9), 4),
    ],
)
def test_malformed_queries_get_their_rcode(query: bytes, rcode: int) -> None:
    response, outcome = ask(responder(NAMED["web"]), query)
    assert response.header.rcode == rcode
    assert response.header.id == 4711
    assert not response.rr
    assert outcome.query is not None and outcome.query.fault


@pytest.mark.parametrize(
    "query", [b"", b"\0", PLAIN[:11], change(PLAIN, flags=0x8000), change(PLAIN, flags=0x8180)]
)
def test_what_gets_no_answer(query: bytes) -> None:
    outcome = responder(NAMED["web"]).respond(query, "127.0.0.1", "udp")
    assert outcome.packet is None and outcome.query is None


def test_harmless_oddities_are_answered() -> None:
    nsid = OPT[:-2] + b"\0\4\0\3\0\0"  # an empty option, as dig +nsid sends it
    other = b"\xc0\x0c\xff\x01\0\1\0\0\0\0\0\0"  # an unknown record without data
    for query in (
        change(PLAIN + nsid, ar=1),
        change(PLAIN + other + OPT, ar=2),
        change(PLAIN, flags=0x0130),  # AD and CD
        change(PLAIN, flags=0x0740),  # AA, TC and Z make no sense in a query, and do no harm
    ):
        response, _ = ask(responder(NAMED["web"]), query)
        assert response.header.rcode == 0 and len(response.rr) == 2


# EDNS -----------------------------------------------------------------------------------------


def opts(response: Any) -> list[Any]:
    return [rr for rr in response.ar if rr.rtype == 41]


@pytest.mark.parametrize("do", [True, False])
def test_edns_is_answered_in_kind(do: bool) -> None:
    response, _ = ask(
        responder(NAMED["web"], DnsSettings(udp_size=1400)), packet(NAME, size=4096, do=do)
    )
    (opt,) = opts(response)
    assert (opt.edns_len, opt.edns_ver, opt.edns_do) == (1400, 0, int(do))
    assert not opts(ask(responder(NAMED["web"]), packet(NAME))[0])


def test_other_versions_of_edns() -> None:
    response, outcome = ask(responder(NAMED["web"]), packet(NAME, size=1232, version=1))
    (opt,) = opts(response)
    assert (opt.edns_rcode, opt.edns_ver, response.header.rcode) == (1, 0, 0)  # BADVERS is 16
    assert outcome.rcode == 16 and not response.rr


@pytest.mark.parametrize("stale", [True, False])
@pytest.mark.parametrize(
    ("name", "code"),
    [(NAME, 3), (f"_tcp.{NAME}", 3), (f"nope.{D}", 19), ("2.1.101.10.in-addr.arpa", 3)],
)
def test_stale_answers_say_so(stale: bool, name: str, code: int) -> None:
    to = responder(NAMED["web"], stale=stale)
    qtype = "PTR" if name.endswith("arpa") else "A"
    response, _ = ask(to, packet(name, qtype, size=1232))
    assert errors(response) == ([code] if stale else [])
    response, _ = ask(to, packet(name, qtype))
    assert errors(response) == []


@pytest.mark.parametrize(
    "name", [D, NAME, f"nope.{D}", f"alpha.node.{D}", "1.1.101.10.in-addr.arpa"]
)
def test_before_the_first_snapshot_nothing_is_denied(name: str) -> None:
    settings = DnsSettings(reverse_zones=(ip_network("10.101.0.0/16"),))
    to = responder(NAMED["empty"], settings, ready=False)
    response, outcome = ask(to, packet(name, size=1232))
    assert (response.header.rcode, response.header.aa) == (2, 0)
    assert errors(response) == [14]
    assert outcome.zone == ("reverse" if name.endswith("arpa") else "domain")
    other = to.respond(packet("example.com"), "127.0.0.1", "udp")
    assert other.packet is None and other.query is not None  # forwarding works at once


# Clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "example.com"])
def test_strangers_are_refused(name: str) -> None:
    response, outcome = ask(responder(NAMED["web"]), packet(name, size=1232), client="203.0.113.9")
    assert header(response) == {"qr": 1, "aa": 0, "tc": 0, "rd": 1, "ra": 0, "rcode": 5}
    assert errors(response) == [18]
    assert outcome.refused and not response.rr


def test_what_is_not_ours_is_forwarded_or_refused() -> None:
    outcome = responder(NAMED["web"]).respond(packet("example.com"), "127.0.0.1", "udp")
    assert outcome.packet is None and outcome.query is not None
    for query, settings in (
        (packet("example.com", size=1232, rd=False), DnsSettings()),
        (packet("example.com", size=1232), DnsSettings(forward=False)),
        (packet(".", "NS", size=1232), DnsSettings(forward=False)),
    ):
        response, _ = ask(responder(NAMED["web"], settings), query)
        assert response.header.rcode == 5
        assert errors(response) == [20]


def test_forwarding_has_a_list_of_its_own() -> None:
    settings = DnsSettings(forward_allow=(ip_network("10.1.0.0/16"),))
    to = responder(NAMED["web"], settings)
    assert to.respond(packet("example.com"), "10.1.2.3", "udp").forward
    response, outcome = ask(to, packet("example.com", size=1232), client="10.2.0.1")
    assert header(response) == {"qr": 1, "aa": 0, "tc": 0, "rd": 1, "ra": 0, "rcode": 5}
    assert errors(response) == [18] and not outcome.refused
    assert len(ask(to, packet(NAME), client="10.2.0.1")[0].rr) == 2
    response, _ = ask(to, packet("example.com", size=1232, rd=False), client="10.2.0.1")
    assert errors(response) == [20]  # what it did not ask for needs no permission


# Aliases, transfers, signatures ---------------------------------------------------------------


def aliases(**more: Any) -> Responder:
    leads = (Alias("out", "a", "www.example.com"), Alias("loop", "a", f"loop.{D}"))
    settings = DnsSettings(**more)
    to = responder(NAMED["web"], settings)
    to.zone.update(made(WEB, leads), None)
    return to


def test_an_alias_that_leads_out_is_handed_on_to_whom_may_ask() -> None:
    query = packet(f"out.{D}", size=1232)
    to = aliases(forward_allow=(ip_network("10.1.0.0/16"),))
    response, outcome = ask(to, query, client="10.1.0.1")
    assert outcome.answer is not None
    assert outcome.answer.chase == (b"www", b"example", b"com")
    assert (outcome.limit, outcome.client) == (1232, "10.1.0.1")
    assert section(response.rr) == {f"out.{D} CNAME www.example.com."}
    for other in (
        ask(to, query, client="10.2.0.1"),
        ask(to, packet(f"out.{D}", rd=False), client="10.1.0.1"),
        ask(aliases(forward=False), query),
    ):
        assert other[1].answer is None
        assert section(other[0].rr) == {f"out.{D} CNAME www.example.com."}
        assert other[0].header.rcode == 0


def test_a_loop_of_aliases() -> None:
    response, outcome = ask(aliases(), packet(f"loop.{D}", size=1232))
    assert header(response) == {"qr": 1, "aa": 0, "tc": 0, "rd": 1, "ra": 1, "rcode": 2}
    assert errors(response) == [0] and outcome.rcode == 2


@pytest.mark.parametrize("qtype", ["AXFR", "IXFR"])
def test_transfers_are_told_and_refused(qtype: str) -> None:
    number = {"AXFR": 252, "IXFR": 251}[qtype]
    response, outcome = ask(responder(NAMED["web"]), packet(D, number), "tcp")
    assert outcome.transfer and response.header.rcode == 5
    response, outcome = ask(responder(NAMED["web"]), packet(D, number, cls=255), "tcp")
    assert not outcome.transfer and response.header.rcode == 5


SIGNATURE = (
    b"\x03key\0\0\xfa\0\xff\0\0\0\0"
    + struct.pack(">H", 13 + 6 + 4 + 32 + 6)
    + b"\x0bhmac-sha256\0"
    + bytes(6)
    + struct.pack(">HH", 300, 32)
    + bytes(32 + 6)
)


def test_a_signature_is_found() -> None:
    plain = packet(f"big.{D}", size=1232)
    signed = change(plain + SIGNATURE, ar=2)
    query = read(signed)
    assert query.fault == 0 and query.tsig is not None and query.edns is not None
    assert signed[query.tsig.start : query.tsig.end] == SIGNATURE
    assert read(plain).tsig is None
    _, outcome = ask(responder(NAMED["big"]), signed)
    assert outcome.packet is not None
    room = 1232 - len(outcome.packet)
    assert len(SIGNATURE) + 6 <= room < len(SIGNATURE) + 100


@pytest.mark.parametrize(
    "query",
    [
        change(packet(NAME) + SIGNATURE + packet(NAME, size=1232)[len(packet(NAME)) :], ar=2),
        change(packet(NAME) + SIGNATURE + SIGNATURE, ar=2),
        change(packet(NAME) + SIGNATURE, ns=1),
        change(packet(NAME) + SIGNATURE.replace(b"\xfa\0\xff", b"\xfa\0\x01"), ar=1),
    ],
    ids=["not last", "two", "as authority", "of class IN"],
)
def test_a_signature_out_of_place(query: bytes) -> None:
    response, _ = ask(responder(NAMED["web"]), query)
    assert response.header.rcode == 1


# Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "ours", "limit"),
    [(None, 1232, 512), (0, 1232, 512), (511, 1232, 512), (800, 1232, 800), (65535, 1232, 1232)],
)
def test_udp_limit(size: int | None, ours: int, limit: int) -> None:
    to = responder(NAMED["big"], DnsSettings(udp_size=ours))
    response, outcome = ask(to, packet(f"big.{D}", size=size))
    assert outcome.packet is not None
    assert limit - 16 < len(outcome.packet) <= limit  # as many of 16 octets each as fit
    assert response.header.tc == 1 and outcome.truncated
    assert response.rr and not response.auth
    assert len(opts(response)) == (size is not None)


def test_a_thousand_endpoints_over_tcp() -> None:
    response, _ = ask(responder(NAMED["big"]), packet(f"big.{D}"), "tcp")
    assert len(response.rr) == 1000 and response.header.tc == 0


@given(
    st.sampled_from([None, 512, 600, 700, 1000, 1232, 4096]),
    st.integers(0, 40),
    st.sampled_from(["A", "SRV", "TXT", "AAAA"]),
    st.sampled_from(["udp", "tcp"]),
    st.sampled_from([f"s.{D}", f"_http._tcp.s.{D}", f"v1.s.{D}"]),
)
def test_sizes_and_tc_are_honest(
    size: int | None, count: int, qtype: str, transport: Any, name: str
) -> None:
    found = [
        endpoint("s", f"host-{i}-80", f"10.0.0.{i}", attributes=(("n", str(i) * 9),), tags=("v1",))
        for i in range(count)
    ]
    to = responder(catalog_of(found))
    response, outcome = ask(to, packet(name, qtype, size=size), transport)
    whole, _ = ask(to, packet(name, qtype), "tcp")
    assert outcome.packet is not None
    if transport == "udp":
        assert len(outcome.packet) <= max(512, min(size or 512, 1232))

    def texts(rrs: Any) -> list[str]:
        return sorted(str(rr) for rr in rrs if rr.rtype != 41)

    if response.header.tc:
        assert len(response.rr) < len(whole.rr)
        assert not texts(response.ar)
    else:
        assert texts(response.rr) == texts(whole.rr)
        assert texts(response.auth) == texts(whole.auth)
    owners = {str(rr.rname) for rr in response.ar if rr.rtype != 41}
    for owner in owners:  # whole RRsets only
        assert [t for t in texts(response.ar) if t.startswith(owner)] == [
            t for t in texts(whole.ar) if t.startswith(owner)
        ]


# Reading --------------------------------------------------------------------------------------


def test_names_of_any_octets() -> None:
    labels = (bytes(range(1, 32)), b"\xff\x00.", b"AbC")
    raw = b"".join(bytes((len(x),)) + x for x in labels) + b"\0"
    assert read_name(raw, 0) == ((labels[0], labels[1], b"abc"), len(raw))


@pytest.mark.parametrize("octets", [255, 256])
def test_longest_name(octets: int) -> None:
    raw = b"\x3f" + b"x" * 63
    raw = raw * 3 + bytes((octets - 3 * 64 - 2,)) + b"y" * (octets - 3 * 64 - 2) + b"\0"
    assert len(raw) == octets
    if octets == 255:
        assert read_name(raw, 0)[1] == 255
    else:
        with pytest.raises(Malformed):
            read_name(raw, 0)


def test_chains_of_pointers_are_not_followed() -> None:
    chain = b"\0" + b"".join((0xC000 | max(2 * i - 1, 0)).to_bytes(2, "big") for i in range(8000))
    assert skip_name(chain, 15999) == 16001


# The rest -------------------------------------------------------------------------------------


def read(query: bytes) -> Query:
    found = read_query(query)
    assert found is not None
    return found


def test_a_root_question_can_be_encoded() -> None:
    query = read(packet(".", "NS"))
    raw, _ = encode(query, 2, limit=512, udp_size=1232)
    assert dnslib.DNSRecord.parse(raw).header.rcode == 2


def test_settings_can_be_changed() -> None:
    to = responder(NAMED["web"])
    to.configure(replace(DnsSettings(), allow=(), udp_size=600))
    response, _ = ask(to, packet(NAME, size=4096))
    assert response.header.rcode == 5
    assert opts(response)[0].edns_len == 600
