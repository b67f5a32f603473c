"""DNS messages: the encoder of responses.

Rule: a response is never longer than its limit, and says so honestly when something had to go.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from resolver.record import IN, OPT, RR, Name
from resolver.wire import (
    AA,
    CD,
    FIXED,
    HEADER,
    OPCODE,
    OPTION,
    QR,
    RA,
    RD,
    TC,
    Query,
    read_records,
    skip_name,
)

UDP_PLAIN: Final = 512
"""Octets of a UDP response without EDNS (RFC 1035, section 4.2.1)."""
EDE: Final = 15
"""Option code of Extended DNS Errors (RFC 8914)."""
PADDING: Final = 12
"""Option code of padding (RFC 7830)."""
PADDED_TO: Final = 468
"""Octets: responses are padded to multiples of this (RFC 8467, section 4.1)."""

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


class Owners:
    """Owner names, compressed against the question."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._known: dict[Name, bytes] = {name: _QNAME if name else b"\0"}

    def wire(self, owner: Name) -> bytes:
        """An owner name in wire form."""
        found = self._known.get(owner)
        if found is None:
            found = self._known[owner] = self._compress(owner)
        return found

    def _compress(self, owner: Name) -> bytes:
        if () not in self._known:  # the name's ends, once
            at = HEADER.size
            for i, label in enumerate(self._name):
                self._known[self._name[i:]] = (0xC000 | at).to_bytes(2, "big")
                at += 1 + len(label)
            self._known[()] = b"\0"
            return self.wire(owner)
        return bytes((len(owner[0]),)) + owner[0] + self.wire(owner[1:])


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
    cls: int = IN,
    tc: bool = False,
    padded: bool = False,
) -> tuple[bytes, bool]:
    """A response of at most `limit` octets, and whether it had to be truncated.

    `cls` is the class of all records; `tc` sets TC whatever fits; `padded` fills the response up to
    a multiple of `PADDED_TO` octets, where it has an OPT record.

    CD comes back from where a recursive server answers (RFC 4035, section 3.2.2), not from where
    we speak with authority (section 3.1.6); AD and Z never. With TC the answer holds as many
    records as fit, for clients that cannot ask again over TCP (RFC 2181, section 9: whoever sees TC
    should ask again). The additional section is cut at whole RRsets, silently. Owner names point
    into the question, so they come back in its case.
    """
    tail = b""
    if query.edns is not None:
        said = [(EDE, error.code.to_bytes(2, "big") + error.text.encode()) for error in errors]
        ttl = rcode >> 4 << 24 | (0x8000 if query.edns.do else 0)
        tail = opt(udp_size, ttl, [*options, *said])
    room = limit - HEADER.size - len(query.question) - len(tail)
    parts: list[bytes] = []
    owners = Owners(query.name)
    counts = [0, 0, 0]
    truncated = False
    for section, rrs in enumerate((answer, authority)):
        for rr in rrs:
            piece = encode_record(owners, rr, cls)
            if len(piece) > room:
                truncated = True
                break
            room -= len(piece)
            parts.append(piece)
            counts[section] += 1
        if truncated:
            break
    if not truncated:
        counts[2] = _additional(owners, additional, cls, room, parts)
    flags = QR | query.flags & (OPCODE | RD) | rcode & 15
    flags |= AA if aa else query.flags & CD if ra else 0
    flags |= (RA if ra else 0) | (TC if truncated or tc else 0)
    header = HEADER.pack(
        query.id,
        flags,
        1 if query.question else 0,
        counts[0],
        counts[1],
        counts[2] + (1 if tail else 0),
    )
    if padded and tail:
        used = HEADER.size + len(query.question) + sum(map(len, parts)) + len(tail)
        tail = _with_options(tail, _padding(used, limit))
    return b"".join([header, query.question, *parts, tail]), truncated


def add_options(
    message: bytes, options: Iterable[tuple[int, bytes]], limit: int, padded: bool = False
) -> bytes:
    """A whole response with more options in its OPT record, where that is its last record.

    For responses that others made (an upstream's); without an OPT record, or where they do not fit
    into `limit` octets, it stays as it is.

    Raises:
        Malformed: the message cannot be read.
    """
    _, _, questions, *counts = HEADER.unpack_from(message)
    at = HEADER.size
    for _ in range(questions):
        at = skip_name(message, at) + 4
    spans = read_records(message, at, sum(counts))
    if not spans or not counts[2] or spans[-1].type != OPT:
        return message
    start = spans[-1].start
    whole = message[:start] + _with_options(message[start:], options)
    if padded:
        whole = whole[:start] + _with_options(whole[start:], _padding(len(whole), limit))
    return whole if len(whole) <= limit else message


def _with_options(opt_record: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    more = b"".join([OPTION.pack(code, len(data)) + data for code, data in options])
    length = int.from_bytes(opt_record[9:11], "big") + len(more)
    return opt_record[:9] + length.to_bytes(2, "big") + opt_record[11:] + more


def _padding(used: int, limit: int) -> list[tuple[int, bytes]]:
    """The option that fills a message of `used` octets up, as far as `limit` allows."""
    room = limit - used - OPTION.size
    return [(PADDING, bytes(min(-(limit - room) % PADDED_TO, room)))] if room >= 0 else []


def encode_record(owners: Owners, rr: RR, cls: int = IN) -> bytes:
    """One record of a response whose owners are `owners`."""
    return owners.wire(rr.owner) + FIXED.pack(rr.type, cls, rr.ttl, len(rr.rdata)) + rr.rdata


def encode_rrset(owners: Owners, rrs: Sequence[RR]) -> list[bytes]:
    """The records of one RRset, which have their owner, type and TTL in common."""
    first = rrs[0]
    head = owners.wire(first.owner) + FIXED.pack(first.type, IN, first.ttl, 0)[:-2]
    return [head + len(rr.rdata).to_bytes(2, "big") + rr.rdata for rr in rrs]


def _additional(owners: Owners, rrs: Iterable[RR], cls: int, room: int, parts: list[bytes]) -> int:
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
        piece = encode_record(owners, rr, cls)
        room -= len(piece)
        if room < 0:
            return count
        rrset.append(piece)
    parts += rrset
    return count + len(rrset)
