"""AS_PATH: its codec in both widths, its length, and what old speakers make of it (RFC 6793).

Rule: inside there are 4-octet numbers only; the width is a matter of the peer. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from calico_bgp.opening import AS_TRANS

AS_SET: Final = 1
AS_SEQUENCE: Final = 2
_CONFEDERATION: Final = (3, 4)
"""AS_CONFED_SEQUENCE and AS_CONFED_SET (RFC 5065, section 3)."""
SEGMENT_MAX: Final = 255
"""Numbers in one segment."""


class Segment(NamedTuple):
    """A part of a path (RFC 4271, section 4.3)."""

    kind: int
    asns: tuple[int, ...]


AsPath = tuple[Segment, ...]


class BadPath(ValueError):
    """Malformed in the sense of RFC 7606, section 7.2."""


def write_path(path: AsPath, *, wide: bool) -> bytes:
    """The value of AS_PATH, or with `wide` of AS4_PATH.

    Without `wide`, numbers that do not fit are AS_TRANS (RFC 6793, section 4.2.2). A sequence that
    is too long for a segment takes several.
    """
    parts = []
    for kind, asns in path:
        for at in range(0, len(asns), SEGMENT_MAX):
            some = asns[at : at + SEGMENT_MAX]
            if wide:
                octets = struct.pack(f">{len(some)}I", *some)
            else:
                fitting = [asn if asn < 0x10000 else AS_TRANS for asn in some]
                octets = struct.pack(f">{len(some)}H", *fitting)
            parts.append(bytes((kind, len(some))) + octets)
    return b"".join(parts)


def read_path(value: bytes, *, wide: bool, beside: bool = False) -> AsPath:
    """The path in the value of an AS_PATH, or with `beside` of an AS4_PATH.

    In AS_PATH segments of confederations are as malformed as unknown ones: this speaker is never in
    one (RFC 5065, section 4). In AS4_PATH they alone are left out (RFC 6793, section 6). AS 0 is
    malformed (RFC 7607, section 2).

    Raises:
        BadPath.
    """
    width, letter = (4, "I") if wide else (2, "H")
    path = []
    at, size = 0, len(value)
    while at < size:
        if at + 2 > size:
            raise BadPath("segment does not end")
        kind, count = value[at], value[at + 1]
        if kind not in (AS_SET, AS_SEQUENCE) and not (beside and kind in _CONFEDERATION):
            raise BadPath(f"segment of type {kind}")
        if count == 0:
            raise BadPath("segment without a number")
        at += 2 + count * width
        if at > size:
            raise BadPath("segment does not end")
        if kind in _CONFEDERATION:
            continue
        asns = struct.unpack(f">{count}{letter}", value[at - count * width : at])
        if 0 in asns:
            raise BadPath("AS 0")
        path.append(Segment(kind, asns))
    return tuple(path)


def length(path: AsPath) -> int:
    """As the choice of routes counts: a set is one (RFC 4271, section 9.1.2.2 a)."""
    return sum(len(asns) if kind == AS_SEQUENCE else 1 for kind, asns in path)


def numbers(path: AsPath) -> Iterator[int]:
    """Every number of it."""
    for _, asns in path:
        yield from asns


def first(path: AsPath) -> int | None:
    """The neighbour it came from; None: it is empty or begins with a set."""
    return path[0].asns[0] if path and path[0].kind == AS_SEQUENCE else None


def is_wide(path: AsPath) -> bool:
    """Whether 2 octets are not enough for it."""
    return any(asn > 0xFFFF for asn in numbers(path))


def prepend(path: AsPath, asn: int, times: int = 1) -> AsPath:
    """The path with `asn` in front (RFC 4271, section 5.1.2)."""
    ours = (asn,) * times
    if path and path[0].kind == AS_SEQUENCE and len(path[0].asns) + times <= SEGMENT_MAX:
        return (Segment(AS_SEQUENCE, ours + path[0].asns), *path[1:])
    return (Segment(AS_SEQUENCE, ours), *path)


def merge(path: AsPath, as4: AsPath) -> AsPath:
    """The whole path out of an old speaker's AS_PATH and the AS4_PATH that came through it.

    As many numbers of `path` as `as4` lacks come first; an `as4` that is the longer one is not of
    this path and is ignored (RFC 6793, section 4.2.3).
    """
    lead = length(path) - length(as4)
    if lead < 0:
        return path
    front: list[Segment] = []
    for segment in path:
        if lead == 0:
            break
        if segment.kind == AS_SEQUENCE:
            front.append(Segment(AS_SEQUENCE, segment.asns[:lead]))
            lead -= len(front[-1].asns)
        else:
            front.append(segment)
            lead -= 1
    if front and as4 and front[-1].kind == as4[0].kind == AS_SEQUENCE:
        joined = front[-1].asns + as4[0].asns
        if len(joined) <= SEGMENT_MAX:
            return (*front[:-1], Segment(AS_SEQUENCE, joined), *as4[1:])
    return (*front, *as4)


def shown(path: AsPath) -> str:
    """As people write it: ``65001 65002 {65003,65004}``."""
    return " ".join(
        " ".join(map(str, asns)) if kind == AS_SEQUENCE else f"{{{','.join(map(str, asns))}}}"
        for kind, asns in path
    )
