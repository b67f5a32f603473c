"""ARP and Neighbour Discovery as octets, and the filter programs, run here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.endpoint import Address
from discod.rescue.neighbours_codec import (
    ARP,
    IPV6,
    NOTHING,
    SELECTED,
    Heard,
    answer,
    checksum,
    heard,
    on_bridge,
    socket_filter,
)

CLIENT, DEAD = bytes.fromhex("0242 0a09 0005"), bytes.fromhex("0242 0a09 0077")
A4, D4 = IPv4Address("10.9.0.5"), IPv4Address("10.9.0.119")
A6, D6 = IPv6Address("2001:db8:9::5"), IPv6Address("2001:db8:9::77")


def arp(does: int, mac: bytes, sender: Address, target: Address) -> bytes:
    return (
        b"\xff" * 6 + mac + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, does)
        + mac + sender.packed + bytes(6) + target.packed
    )  # fmt: skip


def ndp(
    kind: int, source: Address, target: Address, options: bytes = b"", hops: int = 255
) -> bytes:
    group = IPv6Address("ff02::1:ff00:77").packed
    body = bytes([kind, 0, 0, 0]) + bytes(4) + target.packed + options
    body = body[:2] + checksum(source.packed, group, body).to_bytes(2, "big") + body[4:]
    head = struct.pack(">IHBB", 6 << 28, len(body), 58, hops)
    return b"\x33\x33\xff\0\0\x77" + CLIENT + b"\x86\xdd" + head + source.packed + group + body


LINK = b"\1\1" + CLIENT


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (arp(1, CLIENT, A4, D4), Heard((A4,), D4, A4, CLIENT)),
        (arp(1, CLIENT, IPv4Address(0), D4), Heard((D4,))),
        (arp(1, CLIENT, D4, D4), Heard((D4,))),
        (arp(2, CLIENT, D4, A4), Heard((D4,))),
        (arp(3, CLIENT, D4, A4), NOTHING),
        (arp(1, b"\xff" * 6, A4, D4), NOTHING),
        (arp(1, bytes(6), A4, D4), NOTHING),
        (arp(1, CLIENT, A4, D4)[:41], NOTHING),
        (ndp(135, A6, D6, LINK), Heard((A6,), D6, A6, CLIENT)),
        (ndp(135, A6, D6), Heard((A6,), D6, A6, CLIENT)),
        (ndp(135, IPv6Address(0), D6), Heard((D6,))),
        (ndp(136, D6, D6), Heard((D6,))),
        (ndp(135, A6, D6, LINK, hops=254), NOTHING),
        (ndp(134, A6, D6, LINK), NOTHING),
        (ndp(135, A6, IPv6Address("ff02::1"), LINK), NOTHING),
        (ndp(135, A6, D6, b"\1\0" + CLIENT), NOTHING),
        (ndp(135, A6, D6, b"\1\2" + CLIENT), NOTHING),
        (ndp(135, A6, D6, b"\1\1" + b"\xff" * 6), NOTHING),
        (ndp(135, A6, D6, LINK)[:-1], NOTHING),
        (ndp(135, A6, D6, LINK)[:-1] + b"\x55", NOTHING),
    ],
)
def test_frames_are_read(frame: bytes, what: Heard) -> None:
    assert heard(frame) == what


@pytest.mark.parametrize("frame", [arp(1, CLIENT, A4, D4), ndp(135, A6, D6, LINK)])
def test_an_answer_goes_to_who_asked_and_is_no_probe(frame: bytes) -> None:
    question = heard(frame)
    reply = answer(question, DEAD)
    assert reply[:6] == CLIENT
    assert reply[6:12] == DEAD
    assert question.wants
    assert heard(reply) == Heard((question.wants,))
    assert DEAD in reply[12:]
    with pytest.raises(ValueError, match="asks for nothing"):
        answer(heard(reply), DEAD)


def test_the_checksum_of_an_echo_request() -> None:
    source, destination = IPv6Address("::1").packed, IPv6Address("::1").packed
    body = bytes.fromhex("8000 0000 0001 0001")
    # Worked out by hand from RFC 1071: 1 + 1 + 8 + 0x3a + 0x8000 + 1 + 1 = 0x8046.
    assert checksum(source, destination, body) == 0xFFFF - 0x8046
    assert checksum(source, destination, bytes.fromhex("8000 7fb9 0001 0001")) == 0


def passes(program: bytes, frame: bytes) -> bool:
    """Classic BPF, as far as it is used here; loads beyond the frame drop it."""
    steps: Sequence[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", program))
    assert len(steps) <= 4096
    at, value = 0, 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x06:
            return bool(k)
        if code == 0x15:
            at += yes if value == k else no
        else:
            size = {0x20: 4, 0x30: 1}[code]
            if k + size > len(frame):
                return False
            value = int.from_bytes(frame[k : k + size], "big")


@pytest.mark.parametrize(
    ("kind", "wanted", "asking", "claiming", "others"),
    [
        (
            ARP,
            D4,
            arp(1, CLIENT, A4, D4),
            [arp(1, CLIENT, D4, A4), arp(1, CLIENT, IPv4Address(0), D4), arp(2, CLIENT, D4, A4)],
            [arp(1, CLIENT, A4, IPv4Address("10.9.0.1")), b"\0" * 20],
        ),
        (
            IPV6,
            D6,
            ndp(135, A6, D6, LINK),
            [ndp(135, IPv6Address(0), D6), ndp(136, D6, D6), ndp(135, D6, A6, LINK)],
            [
                ndp(135, A6, IPv6Address("2001:db8:9::1"), LINK),
                ndp(133, A6, D6, LINK),
                ndp(135, A6, D6, LINK, hops=1),
                bytes(100),
            ],
        ),
    ],
)
def test_the_filter_passes_questions_and_claims_only(
    kind: int, wanted: Address, asking: bytes, claiming: list[bytes], others: list[bytes]
) -> None:
    second = type(wanted)(int(wanted) + 9)
    program = socket_filter(kind, [wanted, second])
    assert passes(program, asking)
    assert all(passes(program, frame) for frame in claiming)
    assert not any(passes(program, frame) for frame in others)
    assert not passes(socket_filter(kind, []), asking)
    assert not passes(socket_filter(kind, [second]), asking)
    most = [type(wanted)(int(wanted) + i) for i in range(1, SELECTED + 1)]
    assert not passes(socket_filter(kind, most), asking)
    assert passes(socket_filter(kind, [*most, type(wanted)(1)]), asking)


@given(st.binary(max_size=300))
def test_garbage_is_nothing_or_has_an_answer(data: bytes) -> None:
    for frame in (
        data, CLIENT * 2 + b"\x08\x06" + data, CLIENT * 2 + b"\x86\xdd" + data,
        CLIENT * 2 + b"\x08\x06\0\1\x08\0\6\4\0\1" + data,
    ):  # fmt: skip
        what = heard(frame)
        if what.wants is not None:
            assert heard(answer(what, DEAD)).claims == (what.wants,)


@given(st.binary(max_size=80))
def test_options_of_any_kind_do_no_harm(options: bytes) -> None:
    what = heard(ndp(135, A6, D6, options))
    assert what == NOTHING or what.wants == D6


@pytest.mark.parametrize(
    ("address", "there"),
    [("10.9.0.255", True), ("10.9.1.0", False), ("10.8.255.255", False), ("0.0.0.9", False)],
)
def test_whose_network_it_is(address: str, there: bool) -> None:
    networks: list[tuple[Address, int]] = [
        (IPv4Address("10.9.0.0"), 24),
        (IPv6Address("2001:db8::"), 64),
    ]
    assert on_bridge(IPv4Address(address), networks) is there
    assert on_bridge(IPv6Address("2001:db8::ffff"), networks)
    assert not on_bridge(IPv6Address("2001:db8:0:1::"), networks)
    assert on_bridge(IPv4Address(address), [(IPv4Address(0), 0)])
