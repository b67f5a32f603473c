"""PTR, and the reverse zones that are ours."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.endpoint import Endpoint
from discod.model.settings import DnsSettings
from resolver.record import PTR, to_name
from resolver.reverse import OwnedZones, ReverseIndex, ReverseName, parse, reverse_name
from tests.resolving import (
    KEYS,
    NAMED,
    WEB,
    ask,
    endpoint,
    items,
    packet,
    responder,
    section,
    state_of,
    zone_of,
)

D = "discod.internal"
ZONES = tuple(ip_network(n) for n in ("10.101.0.0/16", "192.0.2.0/30", "2001:db8:1::/48"))
V6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
V6_OTHER = "3" + V6[1:]
APEX6 = "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
HOST6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


@given(st.ip_addresses())
def test_names_of_addresses(address: object) -> None:
    made = ip_address(str(address))
    name = reverse_name(made)
    assert name == to_name(made.reverse_pointer)
    meaning = parse(name)
    assert meaning is not None and meaning.whole
    assert (meaning.family, meaning.value) == (made.version, int(made))


@pytest.mark.parametrize(
    ("name", "bits", "junk"),
    [
        ("in-addr.arpa", 0, False),
        ("10.in-addr.arpa", 8, False),
        ("1.2.3.10.in-addr.arpa", 32, False),
        ("01.2.3.10.in-addr.arpa", 24, True),
        ("256.10.in-addr.arpa", 8, True),
        ("x.1.2.3.10.in-addr.arpa", 32, True),
        ("-1.10.in-addr.arpa", 8, True),
        ("a.b.ip6.arpa", 8, False),
        ("10.b.ip6.arpa", 4, True),
    ],
)
def test_partial_and_malformed(name: str, bits: int, junk: bool) -> None:
    meaning = parse(to_name(name))
    assert meaning is not None
    assert (meaning.bits, meaning.junk) == (bits, junk)


@pytest.mark.parametrize("name", ["arpa", "1.2.3.10.in-addr.arpa.discod.internal", "e164.arpa", ""])
def test_no_reverse_names(name: str) -> None:
    assert parse(to_name(name)) is None


@pytest.mark.parametrize(
    ("network", "name", "apex"),
    [
        ("10.0.0.0/8", "4.3.2.10.in-addr.arpa", "10.in-addr.arpa"),
        ("10.0.0.0/8", "10.in-addr.arpa", "10.in-addr.arpa"),
        ("10.0.0.0/8", "in-addr.arpa", None),
        ("10.0.0.0/8", "4.3.2.11.in-addr.arpa", None),
        ("10.1.4.0/22", "9.6.1.10.in-addr.arpa", "6.1.10.in-addr.arpa"),
        ("10.1.4.0/22", "9.8.1.10.in-addr.arpa", None),
        ("10.1.4.0/22", "1.10.in-addr.arpa", None),
        ("10.1.4.4/32", "4.4.1.10.in-addr.arpa", "4.1.10.in-addr.arpa"),
        ("10.1.4.4/32", "4.1.10.in-addr.arpa", None),
        ("0.0.0.0/0", "4.4.1.10.in-addr.arpa", "in-addr.arpa"),
        ("2001:db8::/30", "8.b.d.0.1.0.0.2.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_apex(network: str, name: str, apex: str | None) -> None:
    meaning = parse(to_name(name))
    assert meaning is not None
    found = OwnedZones([ip_network(network)]).apex(to_name(name), meaning)
    assert found == (None if apex is None else to_name(apex))


WITH_ZONES = [
    # name, rcode, PTR targets, apex of the SOA in the authority section
    ("2.1.101.10.in-addr.arpa", 0, {f"alpha-c1-80.web.{D}."}, None),
    ("2.2.101.10.in-addr.arpa", 0, {f"beta-c2-80.web.{D}.", f"beta-c2-53-udp.web.{D}."}, None),
    (V6, 0, {f"alpha-c1-80-v6.web.{D}."}, None),
    ("1.2.0.192.in-addr.arpa", 0, {f"alpha.node.{D}."}, None),  # the host's name alone
    ("3.2.0.192.in-addr.arpa", 3, set(), "2.0.192.in-addr.arpa"),
    ("9.1.101.10.in-addr.arpa", 3, set(), "101.10.in-addr.arpa"),
    ("1.101.10.in-addr.arpa", 0, set(), "101.10.in-addr.arpa"),  # has a name below it
    ("7.101.10.in-addr.arpa", 3, set(), "101.10.in-addr.arpa"),
    ("101.10.in-addr.arpa", 0, set(), "101.10.in-addr.arpa"),
    ("x.1.101.10.in-addr.arpa", 3, set(), "101.10.in-addr.arpa"),
    ("1.2.1.101.10.in-addr.arpa", 3, set(), "101.10.in-addr.arpa"),
    (V6_OTHER, 3, set(), APEX6),
    (APEX6, 0, set(), APEX6),
    ("0.0." + APEX6, 0, set(), APEX6),
    ("f." + APEX6, 3, set(), APEX6),
    # Not in the zones, but known; the rest is not ours.
    (HOST6, 0, {f"alpha.node.{D}."}, None),
]


@pytest.mark.parametrize(("name", "rcode", "targets", "apex"), WITH_ZONES)
def test_ptr(name: str, rcode: int, targets: set[str], apex: str | None) -> None:
    to = responder(NAMED["all"], DnsSettings(reverse_zones=ZONES))
    response, outcome = ask(to, packet(name, "PTR"))
    assert outcome.zone == "reverse"
    assert (response.header.rcode, response.header.aa) == (rcode, 1)
    assert section(response.rr) == {f"{name} PTR {target}" for target in targets}
    assert [str(rr.rname) for rr in response.auth] == ([] if apex is None else [apex + "."])


@pytest.mark.parametrize(
    "name",
    ["9.1.101.10.in-addr.arpa", "1.101.10.in-addr.arpa", "in-addr.arpa", V6_OTHER, "ip6.arpa"],
)
def test_unknown_names_outside_our_zones_are_forwarded(name: str) -> None:
    outcome = responder(NAMED["all"]).respond(packet(name, "PTR"), "127.0.0.1", "udp")
    assert outcome.packet is None and outcome.query is not None


def test_a_known_address_in_anothers_zone_claims_its_name_only() -> None:
    name = "2.1.101.10.in-addr.arpa"
    response, _ = ask(responder(NAMED["web"]), packet(name, "A"))
    assert response.header.rcode == 0
    assert [str(rr.rname) for rr in response.auth] == [name + "."]
    response, _ = ask(responder(NAMED["web"]), packet("x." + name, "PTR"))
    assert response.header.rcode == 3


def test_apex_has_soa_and_ns() -> None:
    to = responder(NAMED["web"], DnsSettings(reverse_zones=ZONES))
    apex = "101.10.in-addr.arpa"
    response, _ = ask(to, packet(apex, "SOA"))
    assert [str(rr.rname) for rr in response.rr] == [apex + "."]
    response, _ = ask(to, packet(apex, "NS"))
    assert section(response.rr) == {f"{apex} NS alpha.node.{D}.", f"{apex} NS beta.node.{D}."}


def test_upper_case_nibbles() -> None:
    response, _ = ask(responder(NAMED["web"]), packet(V6.upper(), "PTR"))
    assert len(response.rr) == 1


def test_an_address_follows_its_endpoints() -> None:
    state = state_of(items(WEB))
    zone = zone_of(state.catalog, *ZONES)
    name = to_name("2.2.101.10.in-addr.arpa")
    parent = name[1:]

    def count(of: tuple[bytes, ...]) -> tuple[int, int]:
        answer = zone.lookup(of, PTR, random.Random(1))
        assert answer is not None
        return answer.rcode, len(answer.answer)

    assert count(name) == (0, 2)
    assert count(parent) == (0, 0)
    change = state.apply([(KEYS.record(WEB[2].id), None, 8)], 8, 0.0)
    zone.update(state.catalog, change)
    assert count(name) == (0, 1)
    change = state.apply([(KEYS.record(WEB[3].id), None, 9)], 9, 0.0)
    zone.update(state.catalog, change)
    assert count(name) == (3, 0)
    assert count(parent) == (3, 0)


def test_a_host_that_goes_takes_its_name_along() -> None:
    state = state_of(items(WEB))
    zone = zone_of(state.catalog)
    name = to_name("2.2.0.192.in-addr.arpa")
    assert zone.lookup(name, PTR, random.Random(1)) is not None
    change = state.apply([(KEYS.host("beta"), None, 8)], 8, 0.0)
    zone.update(state.catalog, change)
    assert zone.lookup(name, PTR, random.Random(1)) is None


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_an_index_that_changed_is_one_made_anew(seed: int) -> None:
    rng = random.Random(seed)
    domain = to_name(D)
    services: dict[str, dict[str, Endpoint]] = {}
    walked = ReverseIndex(domain, services)
    prefixes = ["10.0.0", "10.0.1", "10.1", "10"]
    for step in range(rng.randrange(1, 30)):
        service = rng.choice("abc")
        before = services.get(service, {})
        after = {i: e for i, e in before.items() if rng.random() < 0.7}
        for _ in range(rng.randrange(3)):
            address = rng.choice([f"10.{rng.randrange(2)}.{rng.randrange(2)}.1", "2001:db8::1"])
            vip = rng.choice([(), (), (ip_address("10.0.0.1"),), (ip_address("10.1.9.9"),)])
            made = endpoint(service, f"i{rng.randrange(4)}", address, vip=vip)
            after[made.instance] = made
        walked.change(before, after)
        services[service] = after
        if step % 3 == 0:  # so that there is something sorted to keep up to date
            walked.any_in(meaning_of("10"))
            walked.any_in(meaning_of("0.1.0.0.2", "ip6"))
    fresh = ReverseIndex(domain, services)
    for e in (e for instances in services.values() for e in instances.values()):
        meaning = parse(reverse_name(e.address))
        assert meaning is not None
        assert walked.names(meaning) == fresh.names(meaning)
        assert (e.instance.encode(), e.service.encode(), *domain) in walked.names(meaning)
        for own in e.vip:
            meaning = parse(reverse_name(own))
            assert meaning is not None
            assert walked.names(meaning) == fresh.names(meaning)
            assert (e.service.encode(), *domain) in walked.names(meaning)
    for of in prefixes:
        meaning = meaning_of(".".join(reversed(of.split("."))))
        assert walked.any_in(meaning) == fresh.any_in(meaning)
    assert walked.any_in(meaning_of("0.1.0.0.2", "ip6")) == fresh.any_in(
        meaning_of("0.1.0.0.2", "ip6")
    )


def meaning_of(prefix: str, family: str = "in-addr") -> ReverseName:
    meaning = parse(to_name(f"{prefix}.{family}.arpa"))
    assert meaning is not None
    return meaning
