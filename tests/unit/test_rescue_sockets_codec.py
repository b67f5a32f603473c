"""sock_diag as octets: the kernel's filter program, run here, agrees with what it stands for."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.kernel.attributes import attributes
from discod.model.endpoint import Address
from discod.model.rescue import Place
from discod.rescue import sockets_codec as codec
from discod.rescue.flows import Flow

ADDRESSES: list[Address] = [
    ip_address(text)
    for text in ("10.9.0.77", "10.9.0.78", "192.0.2.1", "2001:db8::77", "2001:db8::78")
]
addresses = st.sampled_from(ADDRESSES)
places = st.builds(Place, addresses, st.sampled_from([80, 81, 443]), st.just("tcp"))


def accepts(program: bytes, family: int, address: bytes, port: int) -> bool:
    """`inet_diag_bc_run` of the kernel, with the checks of `inet_diag_bc_audit`."""
    at, left = 0, len(program)
    while left > 0:
        code, yes, no = struct.unpack_from("=BBH", program, at)
        assert yes % 4 == no % 4 == 0
        assert 4 <= no <= left + 4
        if code == 1:
            step = no
        else:
            assert code == 8
            assert 4 <= yes <= left + 4
            of, bits, wanted = struct.unpack_from("=BBxxi", program, at + 4)
            assert bits == {2: 32, 10: 128}[of]
            host = program[at + 12 : at + 12 + bits // 8]
            assert yes == 12 + bits // 8
            mapped = bytes(10) + b"\xff\xff"
            same = of == family and host == address
            same |= of == 2 and family == 10 and address == mapped + host
            step = yes if same and wanted == port else no
        at, left = at + step, left - step
    return left == 0


def program_of(payload: bytes) -> bytes:
    return dict(attributes(payload, 60))[1]


@given(st.sets(places, max_size=12), addresses, st.sampled_from([80, 81, 443]), st.booleans())
def test_the_filter_accepts_just_these_places(
    wanted: set[Place], address: Address, port: int, mapped: bool
) -> None:
    family, octets = (2 if address.version == 4 else 10), address.packed
    if mapped and family == 2:
        family, octets = 10, bytes(10) + b"\xff\xff" + octets
    told = accepts(program_of(codec.dump(wanted)), family, octets, port)
    assert told == (Place(address, port, "tcp") in wanted)


def test_the_most_places_still_fit_and_more_are_not_filtered() -> None:
    def many(count: int) -> list[Place]:
        return [Place(IPv6Address(i), 80, "tcp") for i in range(count)]

    program = program_of(codec.dump(many(codec.FILTERED)))
    assert accepts(program, 10, IPv6Address(codec.FILTERED - 1).packed, 80)
    assert accepts(program, 10, IPv6Address(0).packed, 80)
    assert not accepts(program, 10, IPv6Address(codec.FILTERED).packed, 80)
    assert len(codec.dump(many(codec.FILTERED + 1))) == 60


def message(family: int, state: int, ends: tuple[str, int, str, int]) -> bytes:
    source, sport, destination, dport = ends
    a, b = ip_address(source).packed, ip_address(destination).packed
    return (
        bytes([family, state, 0, 0])
        + struct.pack(">HH16s16s", sport, dport, a, b)
        + struct.pack("=III", 0, 0x1234, 0x5678)
        + bytes(20)
    )


@pytest.mark.parametrize(
    ("family", "ends", "flow"),
    [
        (
            2,
            ("10.9.0.2", 4000, "10.9.0.77", 80),
            Flow(IPv4Address("10.9.0.2"), 4000, IPv4Address("10.9.0.77"), 80, "tcp"),
        ),
        (
            10,
            ("::ffff:10.9.0.2", 4000, "::ffff:10.9.0.77", 80),
            Flow(IPv4Address("10.9.0.2"), 4000, IPv4Address("10.9.0.77"), 80, "tcp"),
        ),
        (
            10,
            ("2001:db8::2", 4000, "2001:db8::77", 80),
            Flow(IPv6Address("2001:db8::2"), 4000, IPv6Address("2001:db8::77"), 80, "tcp"),
        ),
    ],
)
def test_a_socket_is_read_and_named_in_the_request(
    family: int, ends: tuple[str, int, str, int], flow: Flow
) -> None:
    payload = message(family, 1, ends)
    sock = codec.read(payload)
    assert sock is not None
    assert sock.flow == flow
    assert sock.waits
    assert sock.destroy[:2] == bytes([family, 6])
    assert sock.destroy[8:] == payload[4:52]
    assert codec.get(flow)[8:12] == payload[4:8]


@pytest.mark.parametrize(
    ("state", "waits"),
    [(1, True), (2, True), (4, True), (5, True), (6, False), (8, False), (9, False), (10, False)],
)
def test_only_who_waits_for_the_other_end_is_destroyed(state: int, waits: bool) -> None:
    sock = codec.read(message(2, state, ("10.9.0.2", 1, "10.9.0.77", 80)))
    assert sock is not None
    assert sock.waits is waits


@given(st.binary(max_size=200))
def test_garbage_is_no_socket_or_a_whole_one(data: bytes) -> None:
    sock = codec.read(data)
    assert sock is None or len(sock.destroy) == 56
    if sock is not None:
        assert sock.waits in (True, False)
