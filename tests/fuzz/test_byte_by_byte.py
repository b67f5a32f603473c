"""Every seed, wrong in every place: each gets the rcode that the RFCs want, or silence."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from resolver.answer import Transport
from tests.fuzz.judge import FORMERR, NOERROR, NOTIMP, NXDOMAIN, REFUSED, SILENCE, judge
from tests.fuzz.reader import Bad, read
from tests.fuzz.seeds import COOKIE, RD, D, name, opt, option, query, record, seeds
from tests.fuzz.targets import ANSWERERS, Exchange, check

SEEDS = seeds()
QUESTION = name(f"web.{D}") + b"\0\1\0\1"


@pytest.fixture(params=sorted(ANSWERERS))
def exchange(request: pytest.FixtureRequest) -> Exchange:
    """Each way to an answer."""
    return ANSWERERS[request.param]


def test_the_seeds_are_of_many_kinds(exchange: Exchange) -> None:
    fates = Counter(check(seed, exchange) for seed in SEEDS)
    assert {NOERROR, NXDOMAIN, FORMERR, REFUSED, 16, "handed on"} <= fates.keys()
    assert fates[NOERROR] >= 40


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_each_octet_set_to_other_values(exchange: Exchange, transport: Transport) -> None:
    fates: Counter[str | int] = Counter()
    # Over TCP only the size differs: a part of them will do.
    for seed in SEEDS if transport == "udp" else SEEDS[::7]:
        for at, octet in enumerate(seed):
            values = {0, 1, 63, 64, 128, 192, 255, octet ^ 1, octet ^ 32, octet ^ 128}
            for value in values - {octet}:
                changed = seed[:at] + bytes((value,)) + seed[at + 1 :]
                fates[check(changed, exchange, transport)] += 1
    assert fates.total() > (40_000 if transport == "udp" else 4_500)
    assert {NOERROR, NXDOMAIN, FORMERR, NOTIMP, REFUSED, 16, SILENCE, "handed on"} <= fates.keys()


def test_cut_off_at_every_length(exchange: Exchange) -> None:
    for seed in SEEDS:
        for end in range(len(seed)):
            fate = check(seed[:end], exchange)
            if end < 12:
                assert fate == SILENCE
            elif seed[2] & 0x78 == 0:
                # No part of a query is a query: its counts promise what is cut off.
                assert fate == FORMERR, (seed[:end].hex(), fate)


def test_octets_behind_the_message(exchange: Exchange) -> None:
    for seed in SEEDS:
        for tail in (b"\0", b"\xff" * 3, seed):
            check(seed + tail, exchange)


@pytest.mark.parametrize("opcode", range(16))
def test_opcodes(exchange: Exchange, opcode: int) -> None:
    for seed in SEEDS:
        changed = seed[:2] + bytes((seed[2] & 0x87 | opcode << 3,)) + seed[3:]
        fate = check(changed, exchange)
        if opcode not in (0, 4, 5) and b"\0\0\x29\4\xd0\0\1" not in seed:  # EDNS version 1
            assert fate == NOTIMP


@pytest.mark.parametrize("count", [0, 2, 3, 255, 65535])
def test_question_counts(exchange: Exchange, count: int) -> None:
    for seed in SEEDS:
        if seed[4:6] != b"\0\1" or seed[2] & 0x78:
            continue
        head = seed[:4] + struct.pack(">H", count) + seed[6:12]
        assert check(head + seed[12:], exchange) == FORMERR
        if count == 2:
            assert (
                check(seed[:4] + b"\0\2" + seed[6:12] + QUESTION + seed[12:], exchange) == FORMERR
            )


@pytest.mark.parametrize("section", [6, 8, 10])
@pytest.mark.parametrize("count", [1, 2, 255, 65535])
def test_records_that_are_promised_and_do_not_come(
    exchange: Exchange, section: int, count: int
) -> None:
    packet = bytearray(query())
    packet[section : section + 2] = struct.pack(">H", count)
    assert check(bytes(packet), exchange) == FORMERR


def named(labels: bytes) -> bytes:
    return struct.pack(">6H", 9, RD, 1, 0, 0, 0) + labels + b"\0\1\0\1"


@pytest.mark.parametrize(
    ("labels", "fate"),
    [
        pytest.param(b"\xc0\x0c", FORMERR, id="a pointer to itself"),
        pytest.param(b"\xc0\x0d\xc0\x0c", FORMERR, id="two pointers in a circle"),
        pytest.param(b"\3web\xc0\x0c", FORMERR, id="a pointer to its own beginning"),
        pytest.param(b"\xc0\x00", FORMERR, id="a pointer into the header"),
        pytest.param(b"\xc0\xff", FORMERR, id="a pointer beyond the end"),
        pytest.param(b"\xc0", FORMERR, id="half a pointer"),
        pytest.param(b"\x40web", FORMERR, id="label type 01"),
        pytest.param(b"\x80web", FORMERR, id="label type 10"),
        pytest.param(b"\x41\1\0", FORMERR, id="a bit-string label"),
        pytest.param(b"\1a" * 255 + b"\0", FORMERR, id="255 labels"),
        pytest.param(b"\1a" * 128 + b"\0", FORMERR, id="257 octets"),
        pytest.param(b"\1a" * 127 + b"\0", "handed on", id="127 labels, 255 octets"),
        pytest.param((b"\x3f" + b"a" * 63) * 4 + b"\0", FORMERR, id="four labels of 63"),
        pytest.param(b"\1a" * 30_000, FORMERR, id="60,000 octets of labels"),
        pytest.param(b"\3web" + name(D), NOERROR, id="the control: a good name"),
        pytest.param(b"\3w\0b" + name(D), NXDOMAIN, id="a zero octet within a label"),
        pytest.param(b"\3\xff\xfe." + name(D), NXDOMAIN, id="octets that are no text"),
    ],
)
def test_names(exchange: Exchange, labels: bytes, fate: str | int) -> None:
    assert check(named(labels), exchange, "tcp") == fate
    assert check(named(labels), exchange, "udp") == fate


@pytest.mark.parametrize(
    ("extra", "fate"),
    [
        pytest.param((b"\xc0\x0c" * 9,), FORMERR, id="nothing but pointers"),
        pytest.param((opt(), opt()), FORMERR, id="two OPT"),
        pytest.param((record(b"\1a\0", 41, 1232, 0, b""),), FORMERR, id="OPT with an owner"),
        pytest.param((opt(b"\0"),), FORMERR, id="a quarter of an option"),
        pytest.param((opt(b"\0\x0a\0\x09" + COOKIE),), FORMERR, id="an option that is too long"),
        pytest.param((opt(option(10)),), FORMERR, id="an empty cookie"),
        pytest.param((opt(option(10, bytes(9))),), FORMERR, id="a cookie of 9 octets"),
        pytest.param((opt(option(10, bytes(15))),), FORMERR, id="a cookie of 15 octets"),
        pytest.param((opt(option(10, bytes(41))),), FORMERR, id="a cookie of 41 octets"),
        pytest.param((opt(option(10, COOKIE)),), NOERROR, id="a cookie"),
        pytest.param((opt(option(99, bytes(1000))),), NOERROR, id="an unknown option"),
        pytest.param((opt(ttl=1 << 16),), 16, id="EDNS version 1"),
        pytest.param((opt(b"\0", ttl=255 << 16),), 16, id="EDNS version 255, whatever it means"),
        pytest.param((opt(ttl=0x7FFF),), NOERROR, id="all flags but DO"),
        pytest.param((opt(ttl=255 << 24),), NOERROR, id="an extended rcode in a query"),
    ],
)
def test_additional_records(exchange: Exchange, extra: tuple[bytes, ...], fate: str | int) -> None:
    assert check(query(extra=extra), exchange) == fate


@pytest.mark.parametrize("cls", [0, 1, 2, 3, 4, 254, 255, 65535])
def test_every_type_and_class(cls: int) -> None:
    """All ways to an answer agree, and with the judge, whatever is asked of whichever name."""
    for text in (D, f"web.{D}", f"nope.{D}", f"x.web.{D}", f"a.b.nope.{D}", f"node.{D}", "example"):
        for qtype in (*range(300), 1234, 32768, 65280, 65535):
            for flags in (0, RD):
                head = struct.pack(">6H", 9, flags, 1, 0, 0, 0)
                packet = head + name(text) + struct.pack(">HH", qtype, cls)
                fates = {way: check(packet, ANSWERERS[way]) for way in ANSWERERS}
                assert len(set(fates.values())) == 1, f"{fates}: {packet.hex()}"


@pytest.mark.parametrize("bit", range(16))
def test_each_bit_of_the_flags(exchange: Exchange, bit: int) -> None:
    """TC, AA, RA, Z, AD, CD and a rcode in a query change nothing (RFC 8906, section 3.1.4)."""
    fate = check(query(flags=RD ^ 1 << bit), exchange)
    if bit == 15:
        assert fate == SILENCE
    elif 11 <= bit <= 14:
        assert fate != NOERROR
    else:
        assert fate == NOERROR


def test_the_judge_and_its_reader_tell_right_from_wrong() -> None:
    """The controls: what decides above would notice."""
    assert judge(query()) == {NOERROR}
    assert judge(query(f"web2.{D}")) == {NXDOMAIN}
    assert judge(query()[:-1]) == {FORMERR}
    wrong: list[Exchange] = [
        lambda packet, _: packet,  # no response
        lambda packet, _: b"\0\0" + b"\x81\x80" + packet[4:],  # another's id
        lambda packet, _: packet[:2] + b"\x81\x83" + packet[4:],  # NXDOMAIN
        lambda packet, _: packet[:2] + b"\x81\x80" + packet[4:] + b"\0",  # something behind it
        lambda packet, _: None,
        lambda packet, _: packet[:2] + b"\x81\x80" + packet[4:12] + b"\3WEB" + packet[16:],
        lambda packet, _: packet[:2] + b"\x81\x80" + packet[4:10] + b"\0\1" + packet[12:] + opt(),
    ]
    for exchange in wrong:
        with pytest.raises(AssertionError):
            check(query(), exchange)
    for bad in (b"", bytes(11), query()[:-1], named(b"\xc0\x0c")):
        with pytest.raises(Bad):
            read(bad)
