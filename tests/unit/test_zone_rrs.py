"""What is told in transfers is what is answered, record by record and both ways."""

from __future__ import annotations

import gc
import random
import weakref
from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias, Endpoint
from discod.model.settings import DnsSettings
from resolver.record import (
    CNAME,
    NOERROR,
    NS,
    NXDOMAIN,
    RR,
    SERVFAIL,
    SOA,
    Name,
    fits,
    to_name,
)
from resolver.service import ServiceNames
from resolver.zone import Zone
from tests.resolving import NAMED, endpoint, made, zone_with

D = "discod.internal"
TYPES = (1, 2, 5, 6, 12, 16, 28, 33, 64, 65, 99, 257)

VIP = ip_address("10.96.0.7"), ip_address("2001:db8:96::7")

seeds = st.integers(0, 2**32)
"""Of random catalogs: composed by hypothesis from its own strategies each would cost 50 ms."""


def some_endpoint(rng: random.Random) -> Endpoint:
    one = rng.choice
    return Endpoint(
        service=one(["web", "api", "dc1", "i1"]),
        instance=one(["i1", "i2", "i3", "v1", "k", ""]),
        address=ip_address(one(["10.0.0.1", "192.0.2.1", "2001:db8::9"])),
        port=one([0, 80, 443]),
        protocol=one(["tcp", "udp"]),
        port_name=one(["", "http", "dns"]),
        tags=one([(), ("v1",), ("v1", "b"), ("tcp",), ("udp", "udp")]),
        attributes=one([(), (("k", "v"),), (("K", "V"), ("bad key", "x")), (("b", "v1"),)]),
        text=one(["", "t"]),
        host=one(["", "alpha", "beta"]),
        priority=one([0, 10, 20]),
        weight=one([0, 1, 100]),
        target=one(["", "i1", "t9"]),
        ttl=one([0, 5, 60]),
        alpn=one([(), ("h2",)]),
        prefer=one([None, "local", "none"]),
        vip=one([(), (), (), VIP, VIP[:1], VIP[1:], (ip_address("10.96.0.8"),)]),
    )


def some_alias(rng: random.Random) -> Alias:
    targets = [f"{n}.{D}" for n in ("web", "api", "db", "q", "i1.web")]
    return Alias(
        service=rng.choice(["web", "db", "q", "dc1"]),
        instance=rng.choice("ab"),
        target=rng.choice([*targets, "x.example", D, ""]),
        ttl=rng.choice([0, 5]),
    )


def some_catalog(rng: random.Random) -> Catalog:
    return made(
        [some_endpoint(rng) for _ in range(rng.randrange(7))],
        [some_alias(rng) for _ in range(rng.randrange(5))],
    )


def some_settings(rng: random.Random) -> DnsSettings:
    return DnsSettings(
        consul_names=rng.random() < 0.5,
        prefer=rng.choice(["none", "local", "zone"]),
        answer_limit=rng.randrange(2),
    )


LABELS = (
    *("web", "api", "db", "q", "i1", "i3", "t9", "v1", "v", "k", "b", "node", "alpha", "service"),
    *("_tcp", "_udp", "_http", "_dns", "_v1", "_web", "_headless"),
)


def changed(before: Catalog, after: Catalog) -> Change:
    return Change(
        frozenset(
            s
            for s in {*before.services, *after.services, *before.aliases, *after.aliases}
            if before.services.get(s) != after.services.get(s)
            or before.aliases.get(s) != after.aliases.get(s)
        ),
        False,
        (),
    )


def rrs(zone: Zone, catalog: Catalog) -> list[RR]:
    found = [*zone.apex_rrs(), *zone.host_rrs()]
    for service in sorted({*catalog.services, *catalog.aliases}):
        found += zone.service_rrs(service)
    return found


def lookup(zone: Zone, name: Name, qtype: int, seed: int = 1) -> Any:
    answer = zone.lookup(name, qtype, random.Random(seed))
    assert answer is not None
    return answer


@settings(deadline=None, max_examples=300)
@given(seeds, st.booleans())
def test_what_is_told_is_answered(seed: int, consul: bool) -> None:
    """Without preference and limit: exactly the RRset, at each name and type."""
    found = some_catalog(random.Random(seed))
    catalog = made(
        [replace(e, prefer=None) for e in found.endpoints()],
        [a for instances in found.aliases.values() for a in instances.values()],
    )
    zone = zone_with(catalog, DnsSettings(consul_names=consul))
    told = rrs(zone, catalog)
    assert len(told) == len(set(told))
    rrsets: defaultdict[tuple[Name, int], set[RR]] = defaultdict(set)
    for rr in told:
        assert fits(rr.owner)
        rrsets[rr.owner, rr.type].add(rr)
    for (owner, qtype), of in rrsets.items():
        assert set(lookup(zone, owner, qtype).answer) == of
    for owner in {owner for owner, qtype in rrsets if qtype == CNAME}:
        # A CNAME is alone at its name (RFC 1034, section 3.6.2).
        assert {qtype for o, qtype in rrsets if o == owner} == {CNAME}


@settings(deadline=None, max_examples=300)
@given(seeds)
def test_what_is_answered_is_told(seed: int) -> None:
    """Whatever is preferred or chosen; and a name exists when one at or below it is told of."""
    rng = random.Random(seed)
    catalog, given = some_catalog(rng), some_settings(rng)
    zone = zone_with(catalog, given)
    told = set(rrs(zone, catalog))
    exist = {rr.owner[i:] for rr in told for i in range(len(rr.owner))}
    own = [rr.owner[: -len(zone.apex)] for rr in sorted(told)]
    for _ in range(10):
        below = [rng.choice(LABELS) for _ in range(rng.randrange(5))]
        name = to_name(".".join([*below, D]))
        if own and rng.random() < 0.5:  # a name that exists, or one near it
            name = (*rng.choice(own)[rng.randrange(2) :], *zone.apex)
        for qtype in TYPES:
            answer = lookup(zone, name, qtype)
            assert set(answer.answer) <= told
            assert set(answer.additional) <= told
            if any(rr.type == CNAME for rr in answer.answer):
                assert name in exist
                assert answer.rcode != SERVFAIL or len(answer.answer) == 8
            elif answer.rcode == NOERROR:
                # With Consul's names, "service" and _<protocol or tag> need none below them.
                last = name[: -len(zone.apex)][-1:]
                empty = last == (b"service",) or (last and last[0][:1] == b"_")
                assert name in exist or (given.consul_names and empty)
            else:
                assert (answer.rcode, name in exist) == (NXDOMAIN, False)


@settings(deadline=None, max_examples=200)
@given(seeds, seeds)
def test_the_path_does_not_matter(seed: int, other: int) -> None:
    rng = random.Random(seed)
    before, given, after = some_catalog(rng), some_settings(rng), some_catalog(random.Random(other))
    walked = zone_with(before, given)
    rrs(walked, before)
    for qtype in TYPES:
        lookup(walked, to_name(f"web.{D}"), qtype)
    walked.affected(())
    walked.update(after, changed(before, after))
    fresh = zone_with(after, given)
    assert rrs(walked, after) == rrs(fresh, after)
    for service in {*after.services, *after.aliases, "x"}:
        assert walked.affected({service}) == fresh.affected({service})
        for qtype in TYPES:
            name = to_name(f"{service}.{D}")
            assert lookup(walked, name, qtype) == lookup(fresh, name, qtype)


@settings(deadline=None, max_examples=200)
@given(seeds, seeds, st.booleans())
def test_only_what_is_affected_changes(seed: int, other: int, consul: bool) -> None:
    """So a journal that asks again for `affected` alone misses nothing."""
    before, after = some_catalog(random.Random(seed)), some_catalog(random.Random(other))
    zone = zone_with(before, DnsSettings(consul_names=consul))
    every = {*before.services, *after.services, *before.aliases, *after.aliases}
    old = {s: zone.service_rrs(s) for s in every}
    change = changed(before, after)
    zone.affected(())  # so that there is something to keep up to date
    zone.update(after, change)
    for service in every - zone.affected(change.services):
        assert zone.service_rrs(service) == old[service]


def test_order_and_apex() -> None:
    zone = zone_with(NAMED["all"], DnsSettings())
    apex = zone.apex_rrs()
    assert [rr.type for rr in apex] == [SOA, NS, NS]
    assert all(rr.owner == zone.apex for rr in apex)
    assert [(rr.owner[0], rr.type) for rr in zone.host_rrs()] == [
        (b"alpha", 1),
        (b"alpha", 28),
        (b"beta", 1),
    ]
    again = zone_with(NAMED["all"], DnsSettings())
    assert zone.service_rrs("web") == again.service_rrs("web")
    assert zone.service_rrs("nope") == ()


def test_no_names_too_long_for_the_wire_are_told() -> None:
    domain = ".".join(["d" * 63] * 3)
    found = [
        endpoint("s", "i" * 63, "10.0.0.1", tags=("t" * 63,), attributes=(("k" * 10, "v" * 63),))
    ]
    told = ServiceNames(to_name(f"s.{domain}"), found).rrs()
    assert {rr.owner[0] for rr in told} == {b"s", b"_headless"}
    assert {rr.type for rr in told if rr.owner[0] == b"s"} == {1, 16}


@pytest.mark.parametrize("consul", [True, False])
def test_what_changed_is_freed_without_the_collector(consul: bool) -> None:
    """The processes that answer run without it."""
    catalog = made([endpoint("s", f"i{i}", f"10.0.0.{i}", alpn=("h2",)) for i in range(5)])
    zone = zone_with(catalog, DnsSettings(consul_names=consul))
    enabled = gc.isenabled()
    gc.disable()
    try:
        for rr in zone.service_rrs("s"):
            lookup(zone, rr.owner, rr.type)
        lookup(zone, to_name("1.0.0.10.in-addr.arpa"), 12)
        freed = weakref.ref(zone._domain._compiled["s"])
        zone.update(made(), Change(frozenset({"s"}), False, ()))
        assert freed() is None
    finally:
        if enabled:
            gc.enable()
