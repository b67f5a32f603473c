"""Views: TTL, preference, limits, headless and attribute names."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host
from discod.model.settings import DnsSettings
from resolver.record import (
    AAAA,
    HTTPS,
    NOERROR,
    NXDOMAIN,
    SOA,
    SRV,
    SVCB,
    TXT,
    A,
    Answer,
    to_name,
)
from resolver.zone import Zone
from tests.resolving import endpoint, made, zone_with

D = "discod.internal"
ALPHA = Host("alpha", (ip_address("192.0.2.1"),), zone="east")
BETA = Host("beta", (ip_address("192.0.2.2"),), zone="east")
GAMMA = Host("gamma", (ip_address("192.0.2.3"),), zone="west")
HOSTS = (ALPHA, BETA, GAMMA)


def lookup(zone: Zone, name: str, qtype: int = A, rng: random.Random | None = None) -> Answer:
    answer = zone.lookup(to_name(f"{name}.{D}"), qtype, rng or random.Random(1))
    assert answer is not None
    return answer


def last(answer: Answer) -> set[int]:
    """Last octets of the addresses."""
    return {rr.rdata[-1] for rr in answer.answer}


def zone_of(catalog: Catalog, **more: Any) -> Zone:
    return zone_with(catalog, DnsSettings(**more), ALPHA)


# TTL ------------------------------------------------------------------------------------------


def test_the_ttl_is_the_smallest_and_that_of_every_record_of_the_service() -> None:
    found = [
        endpoint("s", "a", "10.0.0.1", 80, ttl=60, tags=("t",), attributes=(("k", "v"),)),
        endpoint("s", "b", "10.0.0.2", 80, ttl=20, alpn=("h2",)),
        endpoint("t", "a", "10.0.0.3", 80),
    ]
    zone = zone_of(made(found))
    asked = [("s", t) for t in (A, SRV, TXT, SVCB, HTTPS)]
    asked += [("a.s", A), ("t.s", A), ("v.k.s", A), ("_headless.s", A), ("_http._tcp.s", SRV)]
    for name, qtype in asked:
        answer = lookup(zone, name, qtype)
        assert answer.answer
        assert {rr.ttl for rr in (*answer.answer, *answer.additional)} == {20}
    assert {rr.ttl for rr in lookup(zone, "t").answer} == {0}
    for name, qtype in (("s", AAAA), ("x.s", A)):
        (soa,) = lookup(zone, name, qtype).authority
        assert (soa.type, soa.ttl, soa.rdata[-4:]) == (SOA, 0, bytes(4))
    assert {rr.ttl for rr in zone.service_rrs("s")} == {20}


# Preference -----------------------------------------------------------------------------------

THREE = (
    endpoint("s", "a", "10.0.0.1", host="alpha", tags=("t",), attributes=(("k", "v"),)),
    endpoint("s", "b", "10.0.0.2", host="beta", tags=("t",), port_name="admin"),
    endpoint("s", "c", "10.0.0.3", host="gamma", tags=("far",), attributes=(("k", "v"),)),
)


@pytest.mark.parametrize(
    ("prefer", "name", "expected"),
    [
        ("none", "s", {1, 2, 3}),
        ("local", "s", {1}),
        ("zone", "s", {1, 2}),
        ("local", "t.s", {1}),
        ("local", "far.s", {3}),  # nobody near has the tag
        ("zone", "far.s", {3}),
        ("zone", "t.s", {1, 2}),
        ("local", "v.k.s", {1}),
        ("local", "b.s", {2}),  # an instance is asked for by name
        ("local", "_headless.s", {1, 2, 3}),
        ("zone", "_headless.s", {1, 2, 3}),
    ],
)
def test_preference(prefer: str, name: str, expected: set[int]) -> None:
    zone = zone_of(made(THREE, hosts=HOSTS), prefer=prefer)
    assert last(lookup(zone, name)) == expected
    targets = {rr.rdata[7:8] for rr in lookup(zone, name, SRV).answer}
    assert targets == {b"abc"[i - 1 : i] for i in expected}


def test_ports_are_preferred_too_and_fall_back() -> None:
    zone = zone_of(made(THREE, hosts=HOSTS), prefer="local")
    assert len(lookup(zone, "_http._tcp.s", SRV).answer) == 1
    (only,) = lookup(zone, "_admin._tcp.s", SRV).answer
    assert only.rdata[7:8] == b"b"
    assert [rr.rdata for rr in lookup(zone, "_admin._tcp.s", SRV).additional] == [b"\n\0\0\2"]


def test_a_service_says_for_itself() -> None:
    mixed = (
        endpoint("s", "b", "10.0.0.2", host="beta", prefer="local"),
        endpoint("s", "a", "10.0.0.1", host="alpha"),
        endpoint("s", "c", "10.0.0.3", host="gamma", prefer="zone"),
        endpoint("t", "b", "10.0.0.2", host="beta", prefer="none"),
        endpoint("t", "a", "10.0.0.1", host="alpha"),
    )
    catalog = made(mixed, hosts=HOSTS)
    assert last(lookup(zone_of(catalog), "s")) == {1}  # b speaks first, by name
    assert last(lookup(zone_of(catalog, prefer="zone"), "s")) == {1}
    assert last(lookup(zone_of(catalog, prefer="local"), "t")) == {1, 2}


def test_a_host_without_a_zone_prefers_nobody() -> None:
    hosts = (Host("alpha", ALPHA.addresses), Host("beta", BETA.addresses))
    zone = zone_with(made(THREE, hosts=hosts), DnsSettings(prefer="zone"), hosts[0])
    assert last(lookup(zone, "s")) == {1, 2, 3}


def test_hosts_and_settings_that_change_change_the_view() -> None:
    zone = zone_of(made(THREE, hosts=HOSTS), prefer="zone")
    assert last(lookup(zone, "s")) == {1, 2}
    moved = (ALPHA, Host("beta", BETA.addresses, zone="west"), Host("gamma", (), zone="east"))
    zone.update(made(THREE, hosts=moved), Change(frozenset(), True, ()))
    assert last(lookup(zone, "s")) == {1, 3}
    zone.configure(DnsSettings(prefer="local"))
    assert last(lookup(zone, "s")) == {1}
    zone.configure(DnsSettings())
    assert last(lookup(zone, "s")) == {1, 2, 3}


def test_the_own_zone_is_what_this_host_says_itself() -> None:
    """Its record in the store may be of its last life."""
    old = Host("alpha", ALPHA.addresses, zone="west")
    zone = zone_of(made(THREE, hosts=(old, BETA, GAMMA)), prefer="zone")
    assert last(lookup(zone, "s")) == {1, 2}


def test_preference_never_makes_a_name_vanish() -> None:
    zone = zone_of(made(THREE[2:], hosts=HOSTS), prefer="local")
    assert last(lookup(zone, "s")) == {3}
    zone = zone_of(
        made((THREE[0], endpoint("s", "x", "2001:db8::1", host="beta")), hosts=HOSTS),
        prefer="local",
    )
    answer = lookup(zone, "s", AAAA)  # the local one is up, and has no IPv6
    assert (answer.rcode, answer.answer) == (NOERROR, ())


# Limits ---------------------------------------------------------------------------------------

MANY = tuple(
    endpoint(
        "s",
        f"i{i}",
        f"10.0.0.{i}",
        tags=("t",),
        alpn=("h2",),
        weight=1 + 99 * (i == 1),
        text=str(i),
    )
    for i in range(1, 21)
)


@pytest.mark.parametrize(
    ("name", "qtype", "count"),
    [
        ("s", A, 3),
        ("s", SRV, 3),
        ("s", SVCB, 3),
        ("s", HTTPS, 3),
        ("s", TXT, 20),
        ("t.s", A, 3),
        ("_http._tcp.s", SRV, 3),
        ("_headless.s", A, 20),
        ("_headless.s", SRV, 20),
        ("i3.s", A, 1),
    ],
)
def test_limits(name: str, qtype: int, count: int) -> None:
    answer = lookup(zone_of(made(MANY), answer_limit=3), name, qtype)
    assert len(answer.answer) == count
    if qtype in (SRV, SVCB, HTTPS):  # of those in the answer, and of nobody else
        assert len(answer.additional) == count


def test_the_limit_takes_after_the_draw() -> None:
    zone = zone_of(made(MANY), answer_limit=2)
    rng = random.Random(2)
    seen = Counter(i for _ in range(500) for i in last(lookup(zone, "s", A, rng)))
    assert set(seen) == set(range(1, 21))
    assert seen[1] > 450  # of weight 100 among nineteen of weight 1


def test_the_limit_keeps_the_best_priority() -> None:
    found = [
        endpoint(
            "s", f"i{i}", f"10.0.0.{i}", priority=10 if i < 4 else 20, weight=1 if i < 4 else 9
        )
        for i in range(1, 10)
    ]
    zone = zone_of(made(found), answer_limit=3)
    for seed in range(50):
        answer = lookup(zone, "s", SRV, random.Random(seed))
        assert {int.from_bytes(rr.rdata[:2], "big") for rr in answer.answer} == {10}


def test_what_is_of_no_use_is_not_drawn() -> None:
    zone = zone_of(made(MANY))
    name = to_name(f"s.{D}")
    counts = []
    for most in (0, 5, 100):
        answer = zone.lookup(name, A, random.Random(1), most)
        assert answer is not None
        counts.append(len(answer.answer))
    assert counts == [20, 5, 20]
    zone.configure(DnsSettings(answer_limit=3))
    answer = zone.lookup(name, A, random.Random(1), 2)
    assert answer is not None and len(answer.answer) == 2


def test_weights_count_in_address_answers() -> None:
    found = [endpoint("s", f"i{w}", f"10.0.0.{w}", weight=w * 100) for w in (1, 2, 3, 4)]
    zone = zone_of(made(found))
    rng = random.Random(11)
    rounds = 10_000
    seen = Counter(lookup(zone, "s", A, rng).answer[0].rdata[-1] for _ in range(rounds))
    expected = {w: rounds * w / 10 for w in (1, 2, 3, 4)}
    assert sum((seen[w] - e) ** 2 / e for w, e in expected.items()) < 16.3  # 3 degrees, 1 in 1000


# Headless and attributes ----------------------------------------------------------------------

ATTRIBUTES = (
    endpoint(
        "s",
        "a",
        "10.0.0.1",
        attributes=(("Region", "EU-West"), ("path", "/x"), ("ver", "1.2"), ("\u212aey", "v")),
    ),
    endpoint("s", "b", "10.0.0.2", attributes=(("region", "eu-west"), ("tier", "db"))),
    endpoint("s", "tier", "10.0.0.3", attributes=(("b", "x"), ("_http", "_tcp"))),
    endpoint("s", "c", "2001:db8::1", tags=("zone",), attributes=(("zone", "east"),)),
)


@pytest.mark.parametrize(
    ("name", "rcode", "expected"),
    [
        ("eu-west.region.s", NOERROR, {1, 2}),
        ("region.s", NOERROR, set()),
        ("db.tier.s", NOERROR, {2}),
        ("tier.s", NOERROR, {3}),  # an instance of that name has its own records
        ("x.b.s", NOERROR, {3}),
        ("east.zone.s", NOERROR, set()),
        ("1.2.ver.s", NXDOMAIN, set()),
        ("ver.s", NXDOMAIN, set()),
        ("path.s", NXDOMAIN, set()),
        ("key.s", NXDOMAIN, set()),
        ("v.key.s", NXDOMAIN, set()),
        ("us.region.s", NXDOMAIN, set()),
        ("region.eu-west.s", NXDOMAIN, set()),
        ("x.eu-west.region.s", NXDOMAIN, set()),
        ("_headless.s", NOERROR, {1, 2, 3}),
        ("x._headless.s", NXDOMAIN, set()),
    ],
)
def test_attribute_and_headless_names(name: str, rcode: int, expected: set[int]) -> None:
    answer = lookup(zone_of(made(ATTRIBUTES)), name)
    assert (answer.rcode, last(answer)) == (rcode, expected)


def test_types_at_attribute_and_headless_names() -> None:
    zone = zone_of(made(ATTRIBUTES))
    assert len(lookup(zone, "east.zone.s", AAAA).answer) == 1
    assert len(lookup(zone, "eu-west.region.s", SRV).answer) == 2
    assert len(lookup(zone, "eu-west.region.s", SRV).additional) == 2
    assert lookup(zone, "eu-west.region.s", TXT).answer == ()
    assert len(lookup(zone, "_headless.s", TXT).answer) == 4
    assert len(lookup(zone, "_headless.s", AAAA).answer) == 1
