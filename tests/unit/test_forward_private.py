"""Names that no upstream hears of (RFC 6303, 6761, 7686, 7793)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from trio.testing import MockClock

from discod.model.settings import DnsSettings, Route
from resolver.forwarding import private
from resolver.record import to_name
from tests.forwarding import OTHER, UP, Net, reply, running
from tests.resolving import packet

SETTINGS = DnsSettings(upstreams=(UP,))

PREFIXES = [
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/8", "127.0.0.0/8"),
    *("169.254.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    *("255.255.255.255/32", "100.64.0.0/10"),
    *("::/128", "::1/128", "fd00::/8", "fe80::/10", "2001:db8::/32"),
]


def zone(text: str, reverse: bool = True) -> str | None:
    found = private.zone_of(to_name(text), reverse=reverse)
    return b".".join(found).decode() if found is not None else None


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_whole_prefix_and_no_more(prefix: str) -> None:
    network = ip_network(prefix)
    bits = network.max_prefixlen
    inside = {network[0], network[-1], network[network.num_addresses // 2]}
    for address in inside:
        assert zone(address.reverse_pointer) is not None, address
        assert zone(f"x.{address.reverse_pointer}") is not None
        assert zone(address.reverse_pointer, reverse=False) is None
    for value in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= value < 2**bits:
            address = ip_address(value) if bits == 32 else ip_address(value.to_bytes(16, "big"))
            other = any(
                address in ip_network(p) for p in PREFIXES if ip_network(p).max_prefixlen == bits
            )
            assert (zone(address.reverse_pointer) is not None) == other, address


@pytest.mark.parametrize(
    "name",
    [
        *(".", "arpa", "in-addr.arpa", "ip6.arpa", "172.in-addr.arpa", "100.in-addr.arpa"),
        *("168.192.in-addr.arpa.example", "15.172.in-addr.arpa", "32.172.in-addr.arpa"),
        *("c.f.ip6.arpa", "b.d.0.1.0.0.2.ip6.arpa", "0.0.ip6.arpa"),
        *("ipv4only.arpa", "home.arpa", "resolver.arpa", "test", "local", "example"),
        *("localhost.example", "xlocalhost", "10.in-addr.arpa.localhost.example"),
    ],
)
def test_what_an_upstream_may_know(name: str) -> None:
    assert zone(name) is None


def test_there_are_as_many_zones_as_the_registry_has() -> None:
    # RFC 6303: RFC 1918, then sections 4.2 to 4.6; RFC 7793.
    assert len(private.REVERSE) == len(set(private.REVERSE)) == 18 + 7 + 2 + 1 + 4 + 1 + 64


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "answer", "soa"),
    [
        ("1.2.3.10.in-addr.arpa", "PTR", 3, [], True),
        ("3.10.in-addr.arpa", "PTR", 3, [], True),
        ("10.in-addr.arpa", "PTR", 0, [], True),
        ("10.in-addr.arpa", "NS", 0, ["10.in-addr.arpa."], False),
        ("10.in-addr.arpa", "ANY", 0, ["\\# 9 075246433834383200"], False),
        ("d.f.ip6.arpa", "TXT", 0, [], True),
        ("localhost", "A", 0, ["127.0.0.1"], False),
        ("a.b.LocalHost", "A", 0, ["127.0.0.1"], False),
        ("localhost", "AAAA", 0, ["::1"], False),
        ("localhost", "MX", 0, [], True),
        ("invalid", "A", 3, [], True),
        ("x.invalid", "SOA", 3, [], True),
        ("something.onion", "A", 3, [], True),
    ],
)
async def test_answers(
    autojump_clock: MockClock, name: str, qtype: str, rcode: int, answer: list[str], soa: bool
) -> None:
    async with running(SETTINGS, Net({})) as rig:  # asking anybody would be a KeyError
        response = await rig.ask(packet(name, qtype, size=1232))
    assert response.header.rcode == rcode
    assert (response.header.aa, response.header.ra) == (1, 1)
    assert [str(rr.rdata) for rr in response.rr] == answer
    assert [rr.rtype for rr in response.auth] == [6] * soa
    assert {rr.ttl for rr in (*response.rr, *response.auth)} == {0}


async def test_soa_is_that_of_rfc_6303(autojump_clock: MockClock) -> None:
    async with running(SETTINGS, Net({})) as rig:
        response = await rig.ask(packet("168.192.in-addr.arpa", "SOA"))
    soa = str(response.rr[0].rdata)
    assert soa == "168.192.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 0"


async def test_the_parents_word_on_delegation_is_asked_for(autojump_clock: MockClock) -> None:
    """A validator needs the proof that the zone is not signed."""
    net = Net({UP: lambda q, _: reply(q, 0)})
    async with running(SETTINGS, net) as rig:
        await rig.ask(packet("10.in-addr.arpa", "DS"))
        assert len(net.seen) == 1
        assert (await rig.ask(packet("3.10.in-addr.arpa", "DS"))).header.rcode == 3
    assert len(net.seen) == 1


async def test_a_route_knows_better(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: reply(q), OTHER: lambda q, _: reply(q, 2)})
    routes = (Route("1.10.in-addr.arpa", (OTHER,)), Route("onion", (OTHER,)))
    async with running(replace(SETTINGS, routes=routes), net) as rig:
        for name, count in (
            ("5.5.1.10.in-addr.arpa", 2),
            ("x.onion", 2),
            ("5.5.2.10.in-addr.arpa", 0),
        ):
            assert len((await rig.ask(packet(name))).rr) == count


async def test_it_can_be_switched_off(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: reply(q)})
    async with running(replace(SETTINGS, private_reverse=False), net) as rig:
        assert (await rig.ask(packet("1.2.3.10.in-addr.arpa"))).rr
        assert (await rig.ask(packet("x.invalid"))).header.rcode == 3  # that stays
    assert len(net.seen) == 1
