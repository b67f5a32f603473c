"""Many routes in few messages."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_bgp.attribute_values import Context
from calico_bgp.attributes import Attributes
from calico_bgp.message import MESSAGE_MAX, Stream
from calico_bgp.packing import TooLong, pack
from calico_bgp.prefix import Prefix, of_address
from calico_bgp.update import read_update
from tests.bgp import PREFIX4, PREFIX6, prefix, route

EBGP = Context(external=True)
FOUR, SIX = route("192.0.2.1", 64512), route("2001:db8::1", 64512)


def unpacked(messages: list[bytes]) -> tuple[dict[Prefix, Attributes], set[Prefix]]:
    """What a peer knows after these, and what was withdrawn."""
    known: dict[Prefix, Attributes] = {}
    gone: set[Prefix] = set()
    stream = Stream()
    for message in messages:
        assert len(message) <= MESSAGE_MAX
        [(_, body)] = stream.feed(message)
        update = read_update(body, EBGP)
        assert not update.faults
        assert update.end_of_rib is None
        gone |= set(update.withdrawn)
        for attributes, prefixes in update.announced:
            known.update(dict.fromkeys(prefixes, attributes))
    return known, gone


@given(
    st.dictionaries(PREFIX4 | PREFIX6, st.integers(0, 3), max_size=60),
    st.sets(PREFIX4 | PREFIX6, max_size=60),
)
@settings(max_examples=40)
def test_all_of_it_arrives(chosen: dict[Prefix, int], gone: set[Prefix]) -> None:
    told = {
        one: (FOUR if one.family.afi == 1 else SIX)._replace(med=med) for one, med in chosen.items()
    }
    assert unpacked(list(pack(told, gone, wide=True))) == (told, gone)


def test_nothing_is_no_message() -> None:
    """An empty UPDATE would be an End-of-RIB."""
    assert list(pack({}, wide=True)) == []


def hosts(count: int) -> dict[Prefix, Attributes]:
    return {of_address(IPv4Address(0x0A000000 + i)): FOUR for i in range(count)}


@pytest.mark.parametrize("start", [0x0A000000, 0x20010DB8 << 96])
def test_messages_are_full(start: int) -> None:
    """As few as 4096 octets allow."""
    kind, told = (IPv4Address, FOUR) if start < 2**32 else (IPv6Address, SIX)
    routes = {of_address(kind(start + i)): told for i in range(3000)}
    messages = list(pack(routes, wide=True))
    size = 5 if told is FOUR else 17
    assert all(len(message) > MESSAGE_MAX - size for message in messages[:-1])
    assert unpacked(messages) == (routes, set())
    gone = list(pack({}, routes, wide=True))
    assert all(len(message) > MESSAGE_MAX - size for message in gone[:-1])
    assert unpacked(gone) == ({}, set(routes))


def test_messages_are_full_to_the_last_octet() -> None:
    sizes = set()
    for count in range(1, 6):  # of 4 octets each: the room is of every size modulo 5 once
        told = FOUR._replace(communities=tuple(range(count)))
        messages = list(pack(dict.fromkeys(hosts(2000), told), wide=True))
        assert all(len(message) > MESSAGE_MAX - 5 for message in messages[:-1])
        sizes |= {len(message) for message in messages[:-1]}
    assert MESSAGE_MAX in sizes


def test_equal_attributes_share_messages() -> None:
    routes = {one: route("192.0.2.1", 64512) for one in hosts(100)}
    assert len(list(pack(routes, wide=True))) == 1


def test_withdrawals_come_first() -> None:
    [first, second] = pack(hosts(1), [prefix("10.9.9.9/32")], wide=True)
    assert first[19:21] != bytes(2)
    assert second[19:21] == bytes(2)


def test_attributes_without_room() -> None:
    told = FOUR._replace(communities=tuple(range(1100)))
    with pytest.raises(TooLong):
        list(pack(dict.fromkeys(hosts(1), told), wide=True))
    fitting = FOUR._replace(communities=tuple(range(1000)))
    assert unpacked(list(pack(dict.fromkeys(hosts(50), fitting), wide=True)))[0]


def test_a_hundred_thousand_routes_take_few_messages() -> None:
    assert len(list(pack(hosts(100_000), wide=True))) < 130
