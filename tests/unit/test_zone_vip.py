"""Services with addresses of their own: what stands for the endpoints, where, and what does not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import dnslib
import pytest

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias, Endpoint
from discod.model.settings import DnsSettings
from resolver import shown
from resolver.record import (
    AAAA,
    CNAME,
    HTTPS,
    NOERROR,
    NXDOMAIN,
    PTR,
    SOA,
    SRV,
    SVCB,
    TXT,
    A,
    Answer,
    name_wire,
    to_name,
)
from resolver.zone import Zone
from tests.hot import Hot
from tests.resolving import ask, endpoint, made, packet, responder, section, zone_with

D = "discod.internal"
V4, V6 = ip_address("10.96.0.7"), ip_address("2001:db8:96::7")
BOTH = (
    endpoint(
        "web",
        "a-80",
        "10.0.0.1",
        tags=("blue",),
        attributes=(("env", "prod"),),
        weight=10,
        priority=20,
        alpn=("h3", "h2"),
        vip=(V4, V6),
    ),
    endpoint("web", "a-80-v6", "2001:db8::1", target="a-80", alpn=("h2", "h3"), vip=(V4, V6)),
    endpoint("web", "b-80", "10.0.0.2", weight=50, host="beta", alpn=("h2",), vip=(V4, V6)),
    endpoint("web", "b-80-v6", "2001:db8::2", target="b-80", alpn=("h2",), vip=(V4, V6)),
)
"""Two dual-stack containers behind one service address of each family."""
ONLY4 = tuple(replace(e, vip=(V4,)) for e in BOTH)


def bare(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return [replace(e, vip=()) for e in endpoints]


def zone_of(endpoints: Iterable[Endpoint], *aliases: Alias, **more: Any) -> Zone:
    return zone_with(made(endpoints, aliases), DnsSettings(**more))


def lookup(zone: Zone, name: str, qtype: int = A, seed: int = 1) -> Answer:
    full = name if name.endswith(".arpa") else f"{name}.{D}"
    answer = zone.lookup(to_name(full), qtype, random.Random(seed))
    assert answer is not None
    return answer


def addresses(zone: Zone, name: str, qtype: int = A) -> set[str]:
    answer = lookup(zone, name, qtype)
    assert answer.rcode == NOERROR
    return {str(ip_address(rr.rdata)) for rr in answer.answer if rr.type == qtype}


def services(zone: Zone, name: str) -> set[tuple[int, int, int, str]]:
    """SRV: priority, weight, port, target without the domain."""
    found = set()
    for rr in lookup(zone, name, SRV).answer:
        head = [int.from_bytes(rr.rdata[i : i + 2], "big") for i in (0, 2, 4)]
        labels, at = [], 6
        while rr.rdata[at]:
            labels.append(rr.rdata[at + 1 : at + 1 + rr.rdata[at]].decode())
            at += 1 + rr.rdata[at]
        found.add((*head, ".".join(labels).removesuffix("." + D)))
    return found  # type: ignore[return-value]


def targets(zone: Zone, name: str) -> set[tuple[int, str]]:
    """SRV: port, and ``web`` or the instance of it."""
    return {(port, target.removesuffix(".web")) for _, _, port, target in services(zone, name)}


# Addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        ("web", A, {str(V4)}),
        ("web", AAAA, {str(V6)}),
        ("_headless.web", A, {"10.0.0.1", "10.0.0.2"}),
        ("_headless.web", AAAA, {"2001:db8::1", "2001:db8::2"}),
        ("a-80.web", A, {"10.0.0.1"}),
        ("a-80.web", AAAA, {"2001:db8::1"}),
        ("blue.web", A, {"10.0.0.1"}),
        ("prod.env.web", A, {"10.0.0.1"}),
    ],
)
def test_addresses(name: str, qtype: int, expected: set[str]) -> None:
    assert addresses(zone_of(BOTH), name, qtype) == expected


def test_a_family_without_one_keeps_the_endpoints() -> None:
    zone = zone_of(ONLY4)
    assert addresses(zone, "web") == {str(V4)}
    assert addresses(zone, "web", AAAA) == {"2001:db8::1", "2001:db8::2"}
    assert addresses(zone_of(bare(BOTH)), "web") == {"10.0.0.1", "10.0.0.2"}


def test_a_family_without_endpoints_has_no_address() -> None:
    """Nobody would answer there."""
    zone = zone_of([e for e in BOTH if e.address.version == 4])
    answer = lookup(zone, "web", AAAA)
    assert (answer.rcode, answer.answer) == (NOERROR, ())
    assert [rr.type for rr in answer.authority] == [SOA]
    assert addresses(zone, "web") == {str(V4)}
    zone = zone_of([replace(e, vip=(V6,)) for e in BOTH if e.address.version == 4])
    assert addresses(zone, "web") == {"10.0.0.1", "10.0.0.2"}
    assert targets(zone, "web") == {(80, "a-80"), (80, "b-80")}


def test_one_word_is_enough_and_the_first_counts_in_each_family() -> None:
    other = ip_address("10.96.0.9")
    words: list[tuple[Any, ...]] = [(), (V6,), (other, V6), (V4,)]
    found = [replace(e, vip=w) for e, w in zip(BOTH, words, strict=True)]
    for order in (found, found[::-1]):
        zone = zone_of(order)
        assert addresses(zone, "web") == {str(other)}
        assert addresses(zone, "web", AAAA) == {str(V6)}


def test_when_all_are_down_there_is_no_name() -> None:
    zone = zone_of(BOTH)
    assert addresses(zone, "web") == {str(V4)}
    zone.update(made(), Change(frozenset({"web"}), False, ()))
    assert lookup(zone, "web").rcode == NXDOMAIN
    assert lookup(zone, "_headless.web").rcode == NXDOMAIN


def test_it_comes_and_goes() -> None:
    zone = zone_of(bare(BOTH))
    change = Change(frozenset({"web"}), False, ())
    for endpoints, expected in ((BOTH, {str(V4)}), (bare(BOTH), {"10.0.0.1", "10.0.0.2"})):
        zone.update(made(endpoints), change)
        assert addresses(zone, "web") == expected


def test_it_has_the_ttl_of_the_service() -> None:
    zone = zone_of([*BOTH[:3], replace(BOTH[3], ttl=0)])
    assert {rr.ttl for rr in lookup(zone, "web").answer} == {0}
    zone = zone_of(replace(e, ttl=20) for e in BOTH)
    for name, qtype in (("web", A), ("web", SRV), ("_headless.web", A), ("web", HTTPS)):
        answer = lookup(zone, name, qtype)
        assert {rr.ttl for rr in (*answer.answer, *answer.additional)} == {20}


@pytest.mark.parametrize("more", [{"prefer": "local"}, {"prefer": "zone"}, {"answer_limit": 1}])
def test_preference_and_limit_are_the_kernels_there(more: dict[str, Any]) -> None:
    zone = zone_of([*BOTH, endpoint("web", "b-81", "10.0.0.2", 81, host="beta")], **more)
    assert addresses(zone, "web") == {str(V4)}
    assert addresses(zone, "_headless.web") == {"10.0.0.1", "10.0.0.2"}
    if more.get("prefer"):
        # The port is served at the service's address, though by nobody near.
        zone = zone_of([*[e for e in BOTH if e.address.version == 4], OTHER_PORT], **more)
        assert targets(zone, "web") == {(80, "web"), (81, "web")}


OTHER_PORT = endpoint("web", "b-81", "10.0.0.2", 81, host="beta", vip=(V4, V6))

# Ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web", "_http._tcp.web"])
def test_srv_names_the_service(name: str) -> None:
    """With the best priority and the highest weight of those behind it."""
    response, _ = ask(responder(made(BOTH)), packet(f"{name}.{D}", "SRV", size=1232))
    assert section(response.rr) == {f"{name}.{D} SRV 10 100 80 web.{D}."}
    assert section(response.ar) == {f"web.{D} A {V4}", f"web.{D} AAAA {V6}"}


@pytest.mark.parametrize("name", ["_headless.web", "_http._tcp._headless.web"])
def test_headless_srv_names_the_endpoints(name: str) -> None:
    response, _ = ask(responder(made(BOTH)), packet(f"{name}.{D}", "SRV", size=1232))
    bare_response, _ = ask(responder(made(bare(BOTH))), packet(f"web.{D}", "SRV", size=1232))
    assert {rr.replace(f"{name}.{D} SRV", "") for rr in section(response.rr)} == {
        rr.replace(f"web.{D} SRV", "") for rr in section(bare_response.rr)
    }
    assert section(response.ar) == section(bare_response.ar)
    assert (len(response.rr), len(section(response.ar))) == (2, 4)


def test_names_that_select_name_those_that_they_select() -> None:
    zone = zone_of(BOTH)
    assert targets(zone, "blue.web") == {(80, "a-80")}
    assert targets(zone, "prod.env.web") == {(80, "a-80")}
    assert targets(zone, "b-80.web") == {(80, "b-80")}


def test_one_record_a_port_whatever_it_speaks() -> None:
    found = [
        endpoint("dns", "a-53", "10.0.0.1", 53, port_name="dns", weight=5, vip=(V4,)),
        endpoint("dns", "a-53-udp", "10.0.0.1", 53, protocol="udp", port_name="dns", vip=(V4,)),
        endpoint("dns", "a-80", "10.0.0.1", 80, priority=0, vip=(V4,)),
        endpoint("dns", "a-0", "10.0.0.1", 0, port_name="", vip=(V4,)),
    ]
    zone = zone_of(found)
    assert services(zone, "dns") == {(10, 100, 53, "dns"), (0, 100, 80, "dns")}
    assert services(zone, "_dns._tcp.dns") == {(10, 5, 53, "dns")}
    assert services(zone, "_dns._udp.dns") == {(10, 100, 53, "dns")}
    assert [rr.rdata[:2] for rr in lookup(zone, "dns", SRV).answer] == [b"\0\0", b"\0\n"]


@pytest.mark.parametrize(
    ("vip", "ports", "expected"),
    [
        # Each address of the service's name serves the port: the kernel's, and all others.
        ((V4,), {"10.0.0.1": (80,), "10.0.0.2": (81,)}, {80: "web", 81: "web"}),
        ((V4,), {"10.0.0.1": (80,), "2001:db8::1": (80,)}, {80: "web"}),
        ((V4, V6), {"10.0.0.1": (80,), "2001:db8::1": (80,)}, {80: "web"}),
        # 81 is not served at the service's IPv6 address.
        ((V4, V6), {"10.0.0.1": (80, 81), "2001:db8::1": (80,)}, {80: "web", 81: "i1"}),
        # Neither do all addresses serve a port where the endpoints stand for themselves.
        (
            (V4,),
            {"10.0.0.1": (80,), "2001:db8::1": (80,), "2001:db8::2": (81,)},
            {80: "i0 i1", 81: "i2"},
        ),
    ],
)
def test_a_port_that_is_not_served_everywhere_names_its_endpoints(
    vip: Any, ports: dict[str, tuple[int, ...]], expected: dict[int, str]
) -> None:
    pairs = [(address, port) for address, some in ports.items() for port in some]
    found = [
        endpoint("web", f"i{i}", address, port, vip=vip) for i, (address, port) in enumerate(pairs)
    ]
    wanted = {(port, t) for port, some in expected.items() for t in some.split()}
    for name in ("web", "_http._tcp.web"):
        zone = zone_of(found)
        assert targets(zone, name) == wanted
        # And whoever follows a record finds nobody but who serves it, or the service's own.
        for port, target in wanted:
            label = target if target == "web" else f"{target}.web"
            for qtype in (A, AAAA):
                for address in addresses(zone, label, qtype):
                    assert (address, port) in pairs or ip_address(address) in vip


def test_ranks_hold_beside_those_that_name_endpoints() -> None:
    found = [
        endpoint("web", "a", "10.0.0.1", 80, priority=20, vip=(V4, V6)),
        endpoint("web", "a6", "2001:db8::1", 80, priority=20, vip=(V4, V6)),
        endpoint("web", "b", "10.0.0.2", 81, priority=5, vip=(V4, V6)),
    ]
    for seed in range(20):
        rrs = lookup(zone_of(found), "web", SRV, seed).answer
        assert [rr.rdata[:2] for rr in rrs] == [b"\0\5", b"\0\x14"]


def test_protocols_tell_of_the_names_below_them() -> None:
    zone = zone_of(BOTH)
    for name in ("_tcp.web", "_tcp._headless.web"):
        answer = lookup(zone, name, SRV)
        assert (answer.rcode, answer.answer, len(answer.authority)) == (NOERROR, (), 1)


@pytest.mark.parametrize(
    "name",
    [
        "_udp._headless.web",
        "_dns._tcp._headless.web",
        "x._headless.web",
        "a-80._headless.web",
        "blue._headless.web",
        "_headless._headless.web",
        "x._http._tcp._headless.web",
        "_headless._http._tcp.web",
        "_http._tcp._headless",
        "_headless",
    ],
)
def test_names_that_do_not_exist(name: str) -> None:
    for qtype in (A, SRV):
        answer = lookup(zone_of(BOTH), name, qtype)
        assert (answer.rcode, answer.answer) == (NXDOMAIN, ())


def test_without_one_nothing_is_below_headless() -> None:
    zone = zone_of(bare(BOTH))
    assert lookup(zone, "_headless.web", SVCB).answer == ()
    for name in ("_tcp._headless.web", "_http._tcp._headless.web"):
        assert lookup(zone, name, SRV).rcode == NXDOMAIN


# SVCB and HTTPS -------------------------------------------------------------------------------


def https(endpoints: Iterable[Endpoint], name: str, qtype: str = "HTTPS") -> list[str]:
    response, _ = ask(responder(made(endpoints)), packet(f"{name}.{D}", qtype, size=1232))
    assert all(isinstance(rr.rdata, dnslib.HTTPS) for rr in response.rr)
    return sorted(str(rr.rdata) for rr in response.rr)


def test_https_names_the_service_and_says_what_all_behind_it_speak() -> None:
    (only,) = https(BOTH, "web")
    assert only.startswith(f"10 web.{D}. ")
    assert "alpn=h2 " in only
    assert f"ipv4hint={V4}" in only and f"ipv6hint={V6}" in only
    assert len(https(BOTH, "_headless.web")) == 2
    # One that does not speak it may be the one that the kernel takes.
    silent = [replace(BOTH[0], alpn=()), *BOTH[1:]]
    assert https(silent, "web") == []
    assert len(https(silent, "_headless.web")) == 2


def test_https_tells_of_tcp_and_udp_together() -> None:
    found = [
        endpoint("web", "a", "10.0.0.1", 443, alpn=("h2",), vip=(V4,)),
        endpoint("web", "a-udp", "10.0.0.1", 443, protocol="udp", alpn=("h3",), vip=(V4,)),
    ]
    (only,) = https(found, "web")
    assert "alpn=h2,h3 " in only


def test_svcb_names_the_service() -> None:
    for name in ("web", "_http._tcp.web"):
        (rr,) = lookup(zone_of(BOTH), name, SVCB).answer
        assert rr.rdata[2:].startswith(name_wire(to_name(f"web.{D}")))
    assert len(lookup(zone_of(BOTH), "_http._tcp._headless.web", SVCB).answer) == 2


def test_txt_is_the_endpoints() -> None:
    zone, plain = zone_of(BOTH), zone_of(bare(BOTH))
    said = lookup(plain, "web", TXT).answer
    assert said and lookup(zone, "web", TXT).answer == said
    assert [rr.rdata for rr in lookup(zone, "_headless.web", TXT).answer] == [
        rr.rdata for rr in said
    ]


# Other names for it ---------------------------------------------------------------------------


def test_aliases_lead_to_it() -> None:
    alias = Alias("db", "a", f"web.{D}")
    zone = zone_of(BOTH, alias)
    assert [rr.type for rr in lookup(zone, "db").answer] == [CNAME, A]
    assert addresses(zone, "db") == {str(V4)}
    assert lookup(zone, "_http._tcp.db", SRV).answer[-1].rdata[6:] == name_wire(to_name(f"web.{D}"))
    flat = zone_of(BOTH, alias, flatten=True)
    assert [rr.type for rr in lookup(flat, "db").answer] == [A]
    assert addresses(flat, "db") == {str(V4)}


def test_consuls_names_lead_to_it() -> None:
    udp = endpoint("web", "b-53", "10.0.0.2", 53, protocol="udp", port_name="dns", vip=(V4,))
    zone = zone_of([*[e for e in BOTH if e.address.version == 4], udp], consul_names=True)
    for below in ("", ".dc1"):
        assert addresses(zone, f"web.service{below}") == {str(V4)}
        assert targets(zone, f"web.service{below}") == {(80, "web"), (53, "web")}
        assert targets(zone, f"_web._tcp{below}") == {(80, "web"), (53, "web")}
        assert targets(zone, f"_web._udp.service{below}") == {(53, "web")}
        # Tags select.
        assert addresses(zone, f"blue.web.service{below}") == {"10.0.0.1"}
        assert targets(zone, f"_web._blue{below}") == {(80, "a-80")}
    tagged = zone_of([udp, replace(BOTH[0], tags=("udp",))], consul_names=True)
    assert targets(tagged, "_web._udp") == {(53, "b-53"), (80, "a-80")}


# Reverse --------------------------------------------------------------------------------------


def test_its_own_name() -> None:
    zone = zone_of(BOTH)
    for address in (V4, V6):
        (rr,) = lookup(zone, address.reverse_pointer, PTR).answer
        assert rr.rdata == name_wire(to_name(f"web.{D}"))
    (rr,) = lookup(zone, ip_address("10.0.0.1").reverse_pointer, PTR).answer
    assert rr.rdata == name_wire(to_name(f"a-80.web.{D}"))


def test_its_own_name_comes_and_goes_with_the_service() -> None:
    zone = zone_of(bare(BOTH), reverse_zones=(ip_network("10.96.0.0/16"),))

    def rcodes() -> tuple[int, int]:
        name, above = V4.reverse_pointer, "96.10.in-addr.arpa"
        return lookup(zone, name, PTR).rcode, lookup(zone, f"0.{above}", PTR).rcode

    assert rcodes() == (NXDOMAIN, NXDOMAIN)
    change = Change(frozenset({"web"}), False, ())
    moved = [replace(e, vip=(ip_address("10.96.0.9"),)) for e in BOTH]
    steps: list[tuple[Iterable[Endpoint], int]] = [
        (BOTH, NOERROR),
        (BOTH[:1], NOERROR),
        (bare(BOTH), NXDOMAIN),
        ([*bare(BOTH[:3]), BOTH[3]], NOERROR),  # one word is enough
        (moved, NXDOMAIN),
        (BOTH, NOERROR),
        ((), NXDOMAIN),
    ]
    for endpoints, rcode in steps:
        endpoints = list(endpoints)
        zone.update(made(endpoints), change)
        above = NOERROR if any(e.vip for e in endpoints) else NXDOMAIN
        assert rcodes() == (rcode, above)


def test_an_address_of_several() -> None:
    """Nobody should, but a hand can write it."""
    zone = zone_of(
        [
            *BOTH,
            endpoint("api", "a", "10.0.0.1", vip=(V4,)),
            endpoint("odd", "", str(V4), vip=(V4,)),
            endpoint("host", "a", "10.0.0.9", vip=(ip_address("192.0.2.1"),)),
        ]
    )
    found = {rr.rdata for rr in lookup(zone, V4.reverse_pointer, PTR).answer}
    assert found == {name_wire(to_name(f"{n}.{D}")) for n in ("web", "api", "odd")}
    assert len(lookup(zone, V4.reverse_pointer, PTR).answer) == 3
    (rr,) = lookup(zone, "1.2.0.192.in-addr.arpa", PTR).answer
    assert rr.rdata == name_wire(to_name(f"alpha.node.{D}"))
    zone.update(made(BOTH), Change(frozenset({"api", "odd", "host"}), False, ()))
    (rr,) = lookup(zone, V4.reverse_pointer, PTR).answer
    assert rr.rdata == name_wire(to_name(f"web.{D}"))


# Whoever else tells it ------------------------------------------------------------------------


def test_transfers_and_explain_say_the_same() -> None:
    zone = zone_of(BOTH)
    told = zone.service_rrs("web")
    at = {rr.rdata for rr in told if rr.owner == to_name(f"web.{D}") and rr.type in (A, AAAA)}
    assert at == {V4.packed, V6.packed}
    below = {rr.owner for rr in told if rr.owner[-4:-3] == (b"_headless",)}
    assert below == {to_name(f"_headless.web.{D}"), to_name(f"_http._tcp._headless.web.{D}")}
    lines = shown.answers(zone, f"web.{D}", random.Random(1))
    assert sum(str(V4) in line and " A " in line for line in lines) == 1
    assert any(f"10 100 80 web.{D}." in line for line in lines)
    assert not any("a-80" in line for line in lines)
    assert any(f"web.{D}." in line for line in shown.answers(zone, str(V4), random.Random(1)))


@pytest.mark.parametrize("qtype", ["A", "AAAA", "SRV", "HTTPS", "TXT"])
def test_workers_say_the_same_through_changes(qtype: str) -> None:
    steps = [bare(BOTH), list(BOTH), [*bare(BOTH[:3]), BOTH[3]], list(ONLY4), bare(BOTH), []]
    hot = Hot(made(steps[0]))
    for step, endpoints in enumerate(steps):
        catalog: Catalog = made(endpoints, revision=8 + step)
        hot.tell(catalog, {"web"})
        plain = responder(catalog)
        for name in ("web", "_http._tcp.web", "_headless.web", "_http._tcp._headless.web"):
            for _ in range(3):
                query = packet(f"{name}.{D}", qtype, size=4096)
                got = hot.ask(query)
                assert got is not None
                mine = dnslib.DNSRecord.parse(got)
                theirs, _ = ask(plain, query)
                assert mine.header.rcode == theirs.header.rcode
                assert section(mine.rr) == section(theirs.rr)
                assert section(mine.ar) == section(theirs.ar)
