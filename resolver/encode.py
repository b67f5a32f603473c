"""DNS messages: the encoder of responses.

Rule: a response is never longer than its limit, and says so honestly when something had to go.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from resolver.record import IN, OPT, RR, Name
from resolver.wire import AA, FIXED, HEADER, OPTION, QR, RA, RD, TC, Query

UDP_PLAIN: Final = 512
"""Octets of a UDP response without EDNS (RFC 1035, section 4.2.1)."""
EDE: Final = 15
"""Option code of Extended DNS Errors (RFC 8914)."""

_QNAME = b"\xc0\x0c"


class Error(NamedTuple):
    """An Extended DNS Error (RFC 8914)."""

    code: int
    text: str


def opt(size: int, ttl: int, options: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """An OPT record; `ttl` is extended rcode, version and flags."""
    rdata = b"".join([OPTION.pack(code, len(data)) + data for code, data in options])
    return b"\0" + FIXED.pack(OPT, size, ttl, len(rdata)) + rdata


def limit(query: Query, udp_size: int) -> int:
    """Octets that a UDP response to `query` may have (RFC 6891, section 6.2.5)."""
    if query.edns is None:
        return UDP_PLAIN
    return max(UDP_PLAIN, min(query.edns.size, udp_size))


class _Owners:
    """Owner names, compressed against the question."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._known: dict[Name, bytes] = {name: _QNAME if name else b"\0"}

    def wire(self, owner: Name) -> bytes:
        found = self._known.get(owner)
        if found is None:
            found = self._known[owner] = self._compress(owner)
        return found

    def _compress(self, owner: Name) -> bytes:
        name = self._name
        common = 0
        for ours, asked in zip(reversed(owner), reversed(name), strict=False):
            if ours != asked:
                break
            common += 1
        head = b"".join([bytes((len(x),)) + x for x in owner[: len(owner) - common]])
        if not common:
            return head + b"\0"
        offset = HEADER.size + sum([len(x) + 1 for x in name[: len(name) - common]])
        return head + (0xC000 | offset).to_bytes(2, "big")


def encode(
    query: Query,
    rcode: int,
    *,
    limit: int,
    udp_size: int,
    aa: bool = False,
    ra: bool = False,
    answer: Iterable[RR] = (),
    authority: Iterable[RR] = (),
    additional: Iterable[RR] = (),
    errors: Iterable[Error] = (),
    options: Iterable[tuple[int, bytes]] = (),
) -> tuple[bytes, bool]:
    """A response of at most `limit` octets, and whether it had to be truncated.

    With TC the answer holds as many records as fit, for clients that cannot ask again over TCP
    (RFC 2181, section 9: whoever sees TC should ask again). The additional section is cut at whole
    RRsets, silently. Owner names point into the question, so they come back in its case.
    """
    tail = b""
    if query.edns is not None:
        said = [(EDE, error.code.to_bytes(2, "big") + error.text.encode()) for error in errors]
        ttl = rcode >> 4 << 24 | (0x8000 if query.edns.do else 0)
        tail = opt(udp_size, ttl, [*options, *said])
    room = limit - HEADER.size - len(query.question) - len(tail)
    parts: list[bytes] = []
    owners = _Owners(query.name)
    counts = [0, 0, 0]
    truncated = False
    for section, rrs in enumerate((answer, authority)):
        for rr in rrs:
            piece = _record(owners, rr)
            if len(piece) > room:
                truncated = True
                break
            room -= len(piece)
            parts.append(piece)
            counts[section] += 1
        if truncated:
            break
    if not truncated:
        counts[2] = _additional(owners, additional, room, parts)
    flags = QR | query.flags & (0x7800 | RD) | rcode & 15
    flags |= (AA if aa else 0) | (RA if ra else 0) | (TC if truncated else 0)
    header = HEADER.pack(
        query.id,
        flags,
        1 if query.question else 0,
        counts[0],
        counts[1],
        counts[2] + (1 if tail else 0),
    )
    return b"".join([header, query.question, *parts, tail]), truncated


def _record(owners: _Owners, rr: RR) -> bytes:
    return owners.wire(rr.owner) + FIXED.pack(rr.type, IN, rr.ttl, len(rr.rdata)) + rr.rdata


def _additional(owners: _Owners, rrs: Iterable[RR], room: int, parts: list[bytes]) -> int:
    """Append the whole RRsets (neighbours of one owner and type) that fit; how many records."""
    count = 0
    rrset: list[bytes] = []
    last: tuple[Name, int] | None = None
    for rr in rrs:
        key = rr.owner, rr.type
        if key != last:
            count += len(rrset)
            parts += rrset
            rrset, last = [], key
        piece = _record(owners, rr)
        room -= len(piece)
        if room < 0:
            return count
        rrset.append(piece)
    parts += rrset
    return count + len(rrset)
