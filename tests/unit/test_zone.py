"""Names and sections: questions to named catalogs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias, Endpoint
from discod.model.settings import DnsSettings
from resolver import record
from resolver.hosts import NAME_SERVERS_MAX
from resolver.record import ANY, HINFO, NOERROR, NXDOMAIN, Answer, to_name
from resolver.service import ServiceNames
from resolver.text import TXT_MAX
from resolver.zone import Zone
from tests.resolving import (
    KEYS,
    NAMED,
    OWN,
    WEB,
    ask,
    catalog_of,
    endpoint,
    items,
    made,
    packet,
    responder,
    section,
    state_of,
    zone_of,
    zone_with,
)

D = "discod.internal"
SOA = f"{D} SOA alpha.node.{D}. hostmaster.{D}. 7 60 10 86400 0"
NODATA: tuple[int, set[str], set[str]] = (0, set(), set())
NX: tuple[int, set[str], set[str]] = (3, set(), set())

C1 = f"alpha-c1-80.web.{D}"
C2 = f"beta-c2-80.web.{D}"
C2D = f"beta-c2-53-udp.web.{D}"
EXTRA1 = {f"{C1} A 10.101.1.2", f"{C1} AAAA 2001:db8:1::2"}
EXTRA2 = {f"{C2} A 10.101.2.2"}


def srv(owner: str, weight: int, port: int, target: str) -> str:
    return f"{owner} SRV 10 {weight} {port} {target}."


TABLE: list[tuple[str, str, str, tuple[int, set[str], set[str]]]] = [
    # Service.
    ("web", f"web.{D}", "A", (0, {f"web.{D} A 10.101.1.2", f"web.{D} A 10.101.2.2"}, set())),
    ("web", f"web.{D}", "AAAA", (0, {f"web.{D} AAAA 2001:db8:1::2"}, set())),
    (
        "web",
        f"web.{D}",
        "SRV",
        (
            0,
            {
                srv(f"web.{D}", 100, 80, C1),
                srv(f"web.{D}", 50, 80, C2),
                srv(f"web.{D}", 100, 53, C2D),
            },
            EXTRA1 | EXTRA2 | {f"{C2D} A 10.101.2.2"},
        ),
    ),
    ("web", f"web.{D}", "TXT", (0, {f'web.{D} TXT "env=prod"'}, set())),
    ("web", f"web.{D}", "MX", NODATA),
    ("web", f"web.{D}", "TYPE65280", NODATA),
    ("web", f"web.{D}", "NS", NODATA),
    # Ports.
    (
        "web",
        f"_http._tcp.web.{D}",
        "SRV",
        (
            0,
            {srv(f"_http._tcp.web.{D}", 100, 80, C1), srv(f"_http._tcp.web.{D}", 50, 80, C2)},
            EXTRA1 | EXTRA2,
        ),
    ),
    (
        "web",
        f"_dns._udp.web.{D}",
        "SRV",
        (0, {srv(f"_dns._udp.web.{D}", 100, 53, C2D)}, {f"{C2D} A 10.101.2.2"}),
    ),
    ("web", f"_http._tcp.web.{D}", "A", NODATA),
    ("web", f"_tcp.web.{D}", "SRV", NODATA),
    ("web", f"_udp.web.{D}", "ANY", NODATA),
    ("published", f"_udp.api.{D}", "SRV", NX),
    ("web", f"_dns._tcp.web.{D}", "SRV", NX),
    ("web", f"_http._udp.web.{D}", "SRV", NX),
    ("web", f"_https._tcp.web.{D}", "SRV", NX),
    ("web", f"x._http._tcp.web.{D}", "SRV", NX),
    # Instances.
    ("web", C1, "A", (0, {f"{C1} A 10.101.1.2"}, set())),
    ("web", C1, "AAAA", (0, {f"{C1} AAAA 2001:db8:1::2"}, set())),
    ("web", C1, "SRV", (0, {srv(C1, 100, 80, C1)}, EXTRA1)),
    ("web", C1, "TXT", (0, {f'{C1} TXT "env=prod"'}, set())),
    ("web", C2, "AAAA", NODATA),
    ("web", C2, "TXT", NODATA),
    ("web", f"alpha-c1-80-v6.web.{D}", "A", NODATA),
    (
        "web",
        f"alpha-c1-80-v6.web.{D}",
        "AAAA",
        (0, {f"alpha-c1-80-v6.web.{D} AAAA 2001:db8:1::2"}, set()),
    ),
    ("web", f"gone.web.{D}", "A", NX),
    ("web", f"x.{C1}", "A", NX),
    # Tags.
    ("web", f"v1.web.{D}", "A", (0, {f"v1.web.{D} A 10.101.1.2"}, set())),
    ("web", f"blue.web.{D}", "AAAA", (0, {f"blue.web.{D} AAAA 2001:db8:1::2"}, set())),
    ("web", f"v2.web.{D}", "SRV", (0, {srv(f"v2.web.{D}", 50, 80, C2)}, EXTRA2)),
    ("web", f"v2.web.{D}", "AAAA", NODATA),
    ("web", f"v1.web.{D}", "TXT", NODATA),
    ("web", f"v3.web.{D}", "A", NX),
    # Hosts.
    ("web", f"alpha.node.{D}", "A", (0, {f"alpha.node.{D} A 192.0.2.1"}, set())),
    ("web", f"alpha.node.{D}", "AAAA", (0, {f"alpha.node.{D} AAAA 2001:db8::1"}, set())),
    ("web", f"beta.node.{D}", "AAAA", NODATA),
    ("web", f"gamma.node.{D}", "A", NX),
    ("web", f"x.alpha.node.{D}", "A", NX),
    ("web", f"node.{D}", "A", NODATA),
    ("web", f"node.{D}", "ANY", NODATA),
    ("empty", f"alpha.node.{D}", "A", (0, {f"alpha.node.{D} A 192.0.2.1"}, set())),
    ("foreign", f"x.node.{D}", "A", NX),  # a service cannot take the hosts' subtree
    # Apex.
    ("web", D, "SOA", (0, {SOA}, set())),
    (
        "web",
        D,
        "NS",
        (
            0,
            {f"{D} NS alpha.node.{D}.", f"{D} NS beta.node.{D}."},
            {
                f"alpha.node.{D} A 192.0.2.1",
                f"alpha.node.{D} AAAA 2001:db8::1",
                f"beta.node.{D} A 192.0.2.2",
            },
        ),
    ),
    ("web", D, "A", NODATA),
    # Others' records.
    (
        "foreign",
        f"legacy.{D}",
        "A",
        (0, {f"legacy.{D} A 10.9.9.9", f"legacy.{D} A 10.9.9.8"}, set()),
    ),
    (
        "foreign",
        f"legacy.{D}",
        "SRV",
        (
            0,
            {srv(f"legacy.{D}", 100, 99, f"legacy.{D}")},
            {f"legacy.{D} A 10.9.9.8", f"legacy.{D} A 10.9.9.9"},
        ),
    ),
    ("foreign", f"noport.legacy.{D}", "SRV", NODATA),
    ("foreign", f"noport.legacy.{D}", "TXT", (0, {f'noport.legacy.{D} TXT "hello"'}, set())),
    ("foreign", f"_tcp.legacy.{D}", "SRV", NX),
    # Nothing there.
    ("web", f"nope.{D}", "A", NX),
    ("web", f"*.{D}", "A", NX),
    ("web", f"*.web.{D}", "A", NX),
    ("web", f"any.{D}", "A", NX),
    ("empty", f"web.{D}", "A", NX),
]


@pytest.mark.parametrize(("catalog", "name", "qtype", "expected"), TABLE)
def test_question(
    catalog: str, name: str, qtype: str, expected: tuple[int, set[str], set[str]]
) -> None:
    number: Any = 65280 if qtype == "TYPE65280" else qtype
    response, _ = ask(responder(NAMED[catalog]), packet(name, number, size=4096), "tcp")
    rcode, answer, additional = expected
    assert (response.header.rcode, section(response.rr)) == (rcode, answer)
    assert section(response.ar) == additional
    assert response.header.aa == 1
    negative = not answer
    soa = SOA.replace(f"alpha.node.{D}", f"alpha.node.{D}")
    assert section(response.auth) == ({soa} if negative else set())
    for rr in (*response.rr, *response.auth, *response.ar):
        assert rr.rtype == 41 or rr.ttl == 0


def test_any_gets_one_record() -> None:
    answer = zone_of(NAMED["web"]).lookup(to_name(f"web.{D}"), ANY, random.Random(1))
    assert answer is not None
    assert [rr.type for rr in answer.answer] == [HINFO]  # RFC 8482, section 4.2
    assert answer.answer[0].rdata == b"\x07RFC8482\x00"


@pytest.mark.parametrize(
    "name", ["", "internal", "discod", "xdiscod.internal", "web.example.com", "arpa"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert zone_of(NAMED["all"]).lookup(to_name(name), 1, random.Random(1)) is None


@pytest.mark.parametrize(
    ("revision", "serial"), [(0, 1), (7, 7), (2**32 - 1, 2**32 - 1), (2**32, 1), (2**32 + 5, 5)]
)
def test_serial_follows_the_revision(revision: int, serial: int) -> None:
    zone = zone_of(Catalog(D, revision=revision))
    answer = zone.lookup(to_name(D), record.SOA, random.Random(1))
    assert answer is not None
    assert int.from_bytes(answer.answer[0].rdata[-20:-16], "big") == serial


def test_at_most_eight_name_servers_with_glue() -> None:
    hosts = [type(OWN)(f"h{i:02}", (ip_address(f"192.0.2.{i + 1}"),)) for i in reversed(range(20))]
    answer = zone_of(catalog_of(hosts=hosts)).lookup(to_name(D), record.NS, random.Random(1))
    assert answer is not None
    assert len(answer.answer) == len(answer.additional) == NAME_SERVERS_MAX
    assert {rr.owner[0] for rr in answer.additional} == {f"h{i:02}".encode() for i in range(8)}


def test_own_host_is_the_name_server_of_an_empty_catalog() -> None:
    response, _ = ask(responder(NAMED["empty"]), packet(D, "NS"))
    assert section(response.rr) == {f"{D} NS alpha.node.{D}."}


def test_the_order_rotates_and_heavy_ones_come_first() -> None:
    zone = zone_of(
        catalog_of(
            [
                endpoint("s", "a", "10.0.0.1", weight=300),
                endpoint("s", "b", "10.0.0.2", weight=100),
                endpoint("s", "c", "10.0.0.3", weight=0),
            ]
        )
    )
    rng = random.Random(5)
    first: Counter[bytes] = Counter()
    for _ in range(2000):
        answer = zone.lookup(to_name(f"s.{D}"), record.A, rng)
        assert answer is not None and len(answer.answer) == 3
        first[answer.answer[0].rdata[-1:]] += 1
    assert 1350 < first[b"\1"] < 1650  # three quarters
    assert first[b"\3"] < 20


def test_the_same_target_and_port_is_one_srv_record() -> None:
    answer = zone_of(NAMED["web"]).lookup(to_name(f"alpha-c1-80.web.{D}"), 33, random.Random(1))
    assert answer is not None
    assert len(answer.answer) == 1
    assert [rr.type for rr in answer.additional] == [record.A, record.AAAA]


def test_two_ports_of_one_target_bring_its_addresses_once() -> None:
    both = [
        endpoint("s", "x", "10.0.0.1", 80),
        endpoint("s", "y", "10.0.0.1", 81, target="x", port_name="admin"),
    ]
    answer = zone_of(catalog_of(both)).lookup(to_name(f"s.{D}"), 33, random.Random(1))
    assert answer is not None
    assert len(answer.answer) == 2
    assert len(answer.additional) == 1


def test_an_instance_goes_before_a_tag_of_its_name() -> None:
    zone = zone_of(
        catalog_of(
            [endpoint("s", "canary", "10.0.0.1"), endpoint("s", "b", "10.0.0.2", tags=("canary",))]
        )
    )
    answer = zone.lookup(to_name(f"canary.s.{D}"), 1, random.Random(1))
    assert answer is not None
    assert [rr.rdata for rr in answer.answer] == [bytes((10, 0, 0, 1))]


@pytest.mark.parametrize(
    ("attributes", "text", "strings"),
    [
        ((("a", "1"), ("b", "")), "", [[b"a=1", b"b="]]),
        ((("k", "ä"),), "", [["k=ä".encode()]]),
        ((("k", "x" * 253),), "", [[b"k=" + b"x" * 253]]),
        ((("k", "x" * 254),), "", []),  # does not fit one string: left out
        ((("bad=key", "1"), ("ü", "1"), ("", "1"), ("n\n", "1")), "", []),
        ((), "y" * 300, [[b"y" * 255, b"y" * 45]]),
        ((), "\ud800", [[b"?"]]),
    ],
)
def test_txt_strings(
    attributes: tuple[tuple[str, str], ...], text: str, strings: list[list[bytes]]
) -> None:
    one = endpoint("s", "a", "10.0.0.1", attributes=attributes, text=text)
    node = ServiceNames(to_name(f"s.{D}"), [one]).node(())
    assert node is not None
    rdata = [r.rr.rdata for r in node.get(record.TXT) or ()]
    assert rdata == [record.txt(s) for s in strings]


def test_txt_is_bounded() -> None:
    one = endpoint("s", "a", "10.0.0.1", text="z" * 100_000)
    node = ServiceNames(to_name(f"s.{D}"), [one]).node(())
    assert node is not None
    assert len((node.get(record.TXT) or ())[0].rr.rdata) <= TXT_MAX


def test_names_too_long_for_the_wire_are_left_out() -> None:
    domain = ".".join(["d" * 60] * 3)
    name = ("s" * 63).encode(), *to_name(domain)
    node = ServiceNames(name, [endpoint("s" * 63, "i" * 63, "10.0.0.1")]).node(())
    assert node is not None
    assert node.get(record.SRV) == ()
    assert node.get(record.A)


def test_a_change_is_seen_and_leaves_the_rest_alone() -> None:
    state = state_of(items(WEB))
    zone = zone_of(state.catalog)
    rng = random.Random(1)

    def a(name: str) -> Answer:
        found = zone.lookup(to_name(name), 1, rng)
        assert found is not None
        return found

    assert len(a(f"web.{D}").answer) == 2
    gone = state.apply([(KEYS.record(WEB[0].id), None, 8)], 8, 0.0)
    zone.update(state.catalog, gone)
    assert len(a(f"web.{D}").answer) == 1
    assert a(f"v1.web.{D}").answer == ()  # the IPv6 half still has the tag
    for leaving in WEB[1:]:
        gone = state.apply([(KEYS.record(leaving.id), None, 9)], 9, 0.0)
        zone.update(state.catalog, gone)
    assert a(f"web.{D}").rcode == NXDOMAIN
    assert a(f"v1.web.{D}").rcode == NXDOMAIN
    assert int.from_bytes(a(f"web.{D}").authority[0].rdata[-20:-16], "big") == 9


def test_random_names_are_not_remembered() -> None:
    names = ServiceNames(to_name(f"web.{D}"), WEB)
    for i in range(1000):
        assert names.node((f"x{i}".encode(),)) is None
    assert not names._nodes
    zone = zone_of(NAMED["web"])
    for i in range(1000):
        zone.lookup(to_name(f"x{i}.{D}"), 1, random.Random(1))
    assert not zone._domain._compiled


def test_questions_and_changes_look_at_their_own_service_only() -> None:
    """Who answers may keep services packed until they are asked for."""

    class Watched(dict[str, Any]):
        touched: set[str] = set()

        def __getitem__(self, service: str) -> Any:
            self.touched.add(service)
            return super().__getitem__(service)

        def get(self, service: str, default: Any = None) -> Any:
            return self[service] if service in self.keys() else default

        def items(self) -> Any:
            raise AssertionError("all of them")

        values = __iter__ = __len__ = items

    found = [endpoint(s, "i", "10.0.0.1", 80) for s in ("a", "b", "c")]
    catalog = made(found, (Alias("d", "x", f"a.{D}"), Alias("e", "x", f"b.{D}")))
    watched = replace(catalog, services=Watched(catalog.services), aliases=Watched(catalog.aliases))
    zone = zone_with(watched, DnsSettings(consul_names=True))
    zone.update(watched, Change(frozenset("abcde"), True, ()))
    assert Watched.touched == set()
    for name in ("d", "_http._tcp.d", "d.service", "nope", "_x._tcp", "service"):
        assert zone.lookup(to_name(f"{name}.{D}"), 33, random.Random(1)) is not None
    assert Watched.touched == {"a", "d"}


def test_compiled_services_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolver.domain.COMPILED_MAX", 10)
    zone = zone_of(
        catalog_of(endpoint(f"s{i}", f"i{j}", "10.0.0.1") for i in range(9) for j in "abc")
    )
    for i in range(9):
        answer = zone.lookup(to_name(f"s{i}.{D}"), 1, random.Random(1))
        assert answer is not None and answer.answer
    assert len(zone._domain._compiled) == 3
    assert zone._domain._compiled_size == 9


# Properties -----------------------------------------------------------------------------------

labels = st.sampled_from(["a", "b", "web", "v1", "i1", "i2"])
endpoints = st.builds(
    Endpoint,
    service=st.sampled_from(["web", "api", "a"]),
    instance=st.sampled_from(["i1", "i2", "i3", "v1", ""]),
    address=st.sampled_from([ip_address(x) for x in ("10.0.0.1", "192.0.2.1", "2001:db8::9")]),
    port=st.sampled_from([0, 80, 443]),
    protocol=st.sampled_from(["tcp", "udp"]),
    port_name=st.sampled_from(["", "http", "dns"]),
    tags=st.sampled_from([(), ("v1",), ("v1", "b")]),
    attributes=st.sampled_from([(), (("k", "v"),)]),
    target=st.sampled_from(["", "i1", "t9"]),
)
asked = st.lists(
    st.sampled_from(
        ["a", "b", "web", "api", "i1", "i3", "t9", "v1", "_tcp", "_http", "node", "alpha"]
    ),
    max_size=4,
)
TYPES = (1, 2, 6, 16, 28, 33, 99)


@settings(deadline=None, max_examples=300)
@given(st.lists(endpoints, max_size=6), asked)
def test_nxdomain_and_nodata_agree(found: list[Endpoint], below: list[str]) -> None:
    zone = zone_of(catalog_of({e.id: e for e in found}.values()))
    name = to_name(".".join([*below, D]))
    rng = random.Random(1)

    def codes(of: record.Name) -> set[int]:
        answers = [zone.lookup(of, t, rng) for t in TYPES]
        assert all(a is not None for a in answers)
        for a in answers:
            assert a is not None
            assert bool(a.answer) != bool(a.authority)
            assert all(rr.owner == of for rr in a.answer)
        return {a.rcode for a in answers if a is not None}

    assert len(codes(name)) == 1  # of one name all types agree that it exists
    if codes(name) == {NOERROR}:
        for i in range(1, len(below) + 1):
            assert codes(name[i:]) == {NOERROR}  # RFC 8020


@settings(deadline=None, max_examples=200)
@given(st.lists(endpoints, max_size=5), st.lists(endpoints, max_size=5), asked)
def test_the_path_to_a_catalog_does_not_matter(
    before: list[Endpoint], after: list[Endpoint], below: list[str]
) -> None:
    old = {e.id: e for e in before}
    new = {e.id: e for e in after}
    state = state_of(items(old.values()))
    walked = zone_of(state.catalog)
    questions = [to_name(".".join([*below, D])), to_name("1.0.0.10.in-addr.arpa")]

    def answers(zone: Zone) -> list[object]:
        found: list[object] = []
        for name in questions:
            for qtype in (*TYPES, 12):
                answer = zone.lookup(name, qtype, random.Random(1))
                found.append(
                    answer and (answer.rcode, sorted(answer.answer), sorted(answer.additional))
                )
        return found

    answers(walked)  # so that there is something to forget
    change = state.reset(items(new.values()), 8, 0.0)
    walked.update(state.catalog, change)
    assert answers(walked) == answers(zone_of(state.catalog))


def test_dnslib_reads_every_record_we_make() -> None:
    for qtype in ("A", "AAAA", "SRV", "TXT"):
        response, _ = ask(responder(NAMED["all"]), packet(f"web.{D}", qtype), "tcp")
        assert response.rr
        assert all(rr.rtype == getattr(dnslib.QTYPE, qtype) for rr in response.rr)
