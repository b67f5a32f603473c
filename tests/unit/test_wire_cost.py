"""No packet, however crafted, is more work than a valid one: counted in lines run, not in time."""

from __future__ import annotations

import struct
import sys
from types import FrameType
from typing import Any

import pytest

from resolver.wire import OPTIONS_MAX, RECORDS_MAX, Query, read_query
from tests.resolving import packet

QUESTION = packet("web.discod.internal")[12:]
LONG = b"\1a" * 127 + b"\0"
RECORD = b"\0\1\0\1\0\0\0\0\0\0"
"""Type, class, TTL and length."""


def message(body: bytes, qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0) -> bytes:
    return struct.pack(">6H", 1, 0, qd, an, ns, ar) + body


def opt(options: bytes) -> bytes:
    return b"\0\0\x29\4\xd0\0\0\0\0" + struct.pack(">H", len(options)) + options


TSIG = b"\0\xfa\0\xff\0\0\0\0\0\0"
DEAREST = message(LONG + b"\0\1\0\1" + opt(b"\0\x64\0\0" * OPTIONS_MAX) + LONG + TSIG, ar=2)
"""A valid query: the longest name, many options, signed with a key of the longest name."""

CRAFTED = {
    "records": message(QUESTION + (b"\0" + RECORD) * 5900, an=0xFFFF, ns=0xFFFF, ar=0xFFFF),
    "few records with long owners": message(QUESTION + (LONG + RECORD) * 8, ar=RECORDS_MAX),
    "the last of them cut": message(QUESTION + ((LONG + RECORD) * 8)[:-1], ar=RECORDS_MAX),
    "a name without an end": message(b"\1a" * 32000),
    "an owner without an end": message(QUESTION + b"\1a" * 32000, ar=1),
    "pointers": message(QUESTION + (b"\xc0\x0c" + RECORD) * 5000, ar=5000),
    "pointers to pointers": message(QUESTION + b"\xc0\x0c" * 30000, ar=1),
    "options": message(QUESTION + opt(b"\0\x64\0\0" * 16000), ar=1),
    "the last option cut": message(QUESTION + opt(b"\0\x64\0\0" * 16000 + b"\0"), ar=1),
    "cookies": message(QUESTION + opt(b"\0\x0a\0\x08abcdefgh" * 5000), ar=1),
    "cookies without a question": message(opt(b"\0\x64\0\0" * 16000), qd=0, ar=1),
    "octets behind": message(QUESTION + bytes(60000)),
    "questions": message(QUESTION * 1500, qd=1500),
    "options of another version": message(
        QUESTION + b"\0\0\x29\4\xd0\0\1\0\0\xff\0" + bytes(0xFF00), ar=1
    ),
}


def lines(raw: bytes) -> tuple[int, Query | None]:
    """Lines of Python run to read a packet, and what was read."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        query = read_query(raw)
    finally:
        sys.settrace(before)
    return count, query


@pytest.mark.parametrize("raw", CRAFTED.values(), ids=CRAFTED.keys())
def test_no_packet_is_more_work_than_a_valid_one(raw: bytes) -> None:
    dearest, valid = lines(DEAREST)
    assert valid is not None and valid.fault == 0
    assert len(raw) < 65536
    # Half as much again: an owner that is one too many is read before it is counted.
    assert lines(raw)[0] <= 1.5 * dearest


def test_the_count_would_see_it() -> None:
    few, _ = lines(message(QUESTION + (b"\1a\0" + RECORD) * 2, ar=2))
    more, _ = lines(message(QUESTION + (LONG + RECORD) * 2, ar=2))
    assert more > few + 400
