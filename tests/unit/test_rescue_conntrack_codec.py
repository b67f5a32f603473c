"""Entries of connection tracking as octets."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.kernel.attributes import NESTED, attribute, attributes
from discod.model.endpoint import Address, Protocol
from discod.model.rescue import Place
from discod.rescue import conntrack_codec as codec
from discod.rescue.conntrack_codec import Side, Sieve, walks
from discod.rescue.flows import Flow

fours = st.integers(0x0A090001, 0x0A090006).map(IPv4Address)
sixes = st.integers(1, 6).map(IPv6Address)
ports = st.integers(80, 84)
protocols: st.SearchStrategy[Protocol] = st.sampled_from(["tcp", "udp"])
places = st.builds(Place, fours | sixes, ports, protocols)
versions: st.SearchStrategy[Literal[4, 6]] = st.sampled_from([4, 6])


def ends(kind: int, a: Address, p: int, b: Address, q: int, protocol: Protocol) -> bytes:
    first = 1 if a.version == 4 else 3
    return attribute(
        kind | NESTED,
        attribute(1 | NESTED, attribute(first, a.packed) + attribute(first + 1, b.packed))
        + attribute(
            2 | NESTED,
            attribute(1, bytes([6 if protocol == "tcp" else 17]))
            + attribute(2, struct.pack(">H", p))
            + attribute(3, struct.pack(">H", q)),
        ),
    )


def entry(flow: Flow, answers: Place, *, state: int = 3, status: int = 0xE) -> bytes:
    translated = answers != flow.place
    data = struct.pack("=BBH", 2 if flow.address.version == 4 else 10, 0, 0)
    data += ends(1, *flow)
    data += ends(2, answers.address, answers.port, flow.client, flow.client_port, flow.protocol)
    data += attribute(3, struct.pack(">I", status | 0x20 * translated))
    if flow.protocol == "tcp":
        data += attribute(4 | NESTED, attribute(1 | NESTED, attribute(1, bytes([state]))))
    return data + attribute(12, b"\1\2\3\4")


@st.composite
def entries(draw: st.DrawFn, version: Literal[4, 6]) -> tuple[Flow, Place]:
    hosts: st.SearchStrategy[Address] = fours if version == 4 else sixes
    protocol = draw(protocols)
    flow = Flow(draw(hosts), draw(ports), draw(hosts), draw(ports), protocol)
    return flow, draw(st.just(flow.place) | st.builds(Place, hosts, ports, st.just(protocol)))


@given(versions.flatmap(entries))
def test_an_entry_is_read_back(pair: tuple[Flow, Place]) -> None:
    flow, answers = pair
    payload = entry(flow, answers)
    read = codec.read(payload)
    assert read is not None
    assert read.flow == flow
    assert read.answers == answers
    assert read.translated == (answers != flow.place)
    assert not read.opening
    assert read.delete.endswith(attribute(12, b"\1\2\3\4"))
    assert codec.lookup(flow) == read.delete[: -len(attribute(12, b"\1\2\3\4"))]


@pytest.mark.parametrize(("state", "opening"), [(1, True), (2, True), (9, True), (3, False)])
def test_a_connection_that_is_being_opened(state: int, opening: bool) -> None:
    flow = Flow(IPv4Address(1), 1, IPv4Address(2), 2, "tcp")
    read = codec.read(entry(flow, flow.place, state=state))
    assert read is not None
    assert read.opening is opening


@given(versions.flatmap(entries), st.sets(places), st.sampled_from(["asked", "answers"]))
def test_the_sieve_never_drops_what_is_about_the_places(
    pair: tuple[Flow, Place], wanted: set[Place], side: Side
) -> None:
    flow, answers = pair
    place = flow.place if side == "asked" else answers
    sieve = Sieve(wanted, side, flow.address.version)
    there = place.address in {one.address for one in wanted}
    assert sieve.drops(entry(flow, answers)) == (not there)


@given(st.binary(max_size=200), versions, st.sampled_from(["asked", "answers"]))
def test_garbage_is_not_dropped_but_read_and_nothing(
    data: bytes, version: Literal[4, 6], side: Side
) -> None:
    sieve = Sieve({Place(IPv4Address(1), 1, "udp")}, side, version)
    assert codec.read(data) is None
    assert not sieve.drops(data)


@given(versions.flatmap(entries), st.integers(0, 150), st.integers(0, 255))
def test_a_damaged_entry_does_no_harm(pair: tuple[Flow, Place], at: int, value: int) -> None:
    data = bytearray(entry(*pair))
    data[at % len(data)] = value
    codec.read(bytes(data))
    codec.read(bytes(data[:at]))


@given(st.sets(places, max_size=40))
def test_walks_are_few_and_pass_no_place_by(wanted: set[Place]) -> None:
    found = walks(wanted)
    for place in wanted:
        assert any(
            walk.version == place.address.version
            and walk.address in (None, place.address)
            and (walk.protocol, walk.port) in ((None, None), (place.protocol, place.port))
            for walk in found
        )
    for version in (4, 6):
        some = [walk for walk in found if walk.version == version]
        assert len(some) <= codec.WALKS
        if len(some) == 1 and len([p for p in wanted if p.address.version == version]) == 1:
            assert some[0].port is not None
            assert (some[0].address is not None) == (version == 4)


def test_a_dump_is_filtered_by_what_its_walk_names() -> None:
    (walk,) = walks([Place(IPv4Address("10.9.0.77"), 80, "tcp")])
    for side, kind, flags in (("asked", 1, (42, 0)), ("answers", 2, (0, 25))):
        parts = dict(attributes(codec.dump(walk, side), 4))  # type: ignore[arg-type]
        given_ = dict(attributes(parts[25]))
        assert tuple(struct.unpack("=I", given_[i])[0] for i in (1, 2)) == flags
        assert kind in parts
        assert IPv4Address("10.9.0.77").packed in parts[kind]
    # Many places of many ports: everything, by family.
    many = [Place(IPv4Address(n), n, "tcp") for n in range(1, 100)]
    (walk,) = walks(many)
    assert codec.dump(walk, "asked") == b"\2\0\0\0"
