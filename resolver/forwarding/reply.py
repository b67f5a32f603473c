"""An upstream's reply as it is kept, and as clients get it.

Rule: records pass as they came (RFC 5625, section 4.1), compression included, since the question in
front of them always has the same length; only TTLs, the case of the asked name and the order of
addresses are touched. OPT belongs to one hop and does not pass (RFC 6891, section 6.1.1). Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from resolver.encode import EDE, Error, encode, opt
from resolver.forwarding.case import lowered
from resolver.record import AAAA, ANY, NOERROR, NXDOMAIN, OPT, SERVFAIL, SOA, A
from resolver.wire import (
    AA,
    HEADER,
    QR,
    RA,
    RD,
    TC,
    Malformed,
    Query,
    Span,
    read_options,
    read_records,
)

TTL_MAX: Final = 86_400
"""Seconds that an answer is kept at most (RFC 8767, section 4, allows a week)."""
NEGATIVE_MAX: Final = 3_600
"""Seconds for NXDOMAIN and NODATA (RFC 2308, section 5, suggests one to three hours)."""
COOKIE: Final = 10
"""Option code of DNS Cookies (RFC 7873)."""
ERRORS_MAX: Final = 4
"""Extended errors of an upstream that are passed on."""

_AD, _CD = 0x0020, 0x0010
_TTL = struct.Struct(">I")
_TTL_AT = 6
"""A TTL starts so many octets before RDATA."""


class Relayed(NamedTuple):
    """A response for the client."""

    packet: bytes
    rcode: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upstream said to a question."""

    flags: int
    rcode: int
    """With its extension, 12 bits."""
    counts: tuple[int, int, int]
    """Records of the three sections, OPT left out."""
    body: bytes
    """The records."""
    ttls: tuple[int, ...]
    """Where in the body TTLs are."""
    owners: tuple[tuple[int, int, int], ...]
    """Where the name that was asked, or an end of it, is spelt out in the body, and may so be in
    the case that we asked in: (offset, length, offset in the question)."""
    cycle: tuple[int, int, int]
    """Addresses that may take turns: (offset, octets of a record, records); zeros for none."""
    errors: tuple[bytes, ...]
    """Its extended errors (RFC 8914), as option data."""
    edns: bool
    cookie: bytes
    """Option data; empty for none."""
    lifetime: int
    """Seconds for which it may be kept; 0: not at all."""

    @property
    def truncated(self) -> bool:
        """Whether it says that there is more."""
        return bool(self.flags & TC)


def read_reply(packet: bytes, question: bytes) -> Reply:
    """Read a reply to `question`, which has been found to be one.

    Raises:
        Malformed: the records cannot be read, or OPT is where it cannot be.
    """
    _, flags, _, answers, authorities, additionals = HEADER.unpack_from(packet)
    at = HEADER.size + len(question)
    spans = read_records(packet, at, answers + authorities + additionals)
    kept, found = _without_opt(spans, answers + authorities)
    errors: tuple[bytes, ...] = ()
    cookie = b""
    rcode = flags & 15
    if found is not None:
        rcode |= found.ttl >> 24 << 4
        options = read_options(packet[found.rdata : found.end])
        errors = tuple([data for code, data in options if code == EDE][:ERRORS_MAX])
        cookie = next((data for code, data in options if code == COOKIE), b"")
    end = kept[-1].end if kept else at
    body = bytearray(packet[at:end])
    lifetime = 0 if flags & TC else _lifetime(packet, kept, rcode, answers, authorities, question)
    for i, span in enumerate(kept):
        ttl = 0 if span.ttl >= 1 << 31 else span.ttl  # RFC 2181, section 8
        if span.type == SOA and i >= answers:  # RFC 2308, section 5: that is how long "no" holds
            ttl = min(ttl, _minimum(packet, span))
        if ttl != span.ttl:
            _TTL.pack_into(body, span.rdata - _TTL_AT - at, ttl)
    return Reply(
        flags,
        rcode,
        (answers, authorities, len(kept) - answers - authorities),
        bytes(body),
        tuple([span.rdata - _TTL_AT - at for span in kept]),
        tuple(_owners(packet, kept, at, question)),
        _cycle(packet, kept[:answers], at),
        errors,
        found is not None,
        cookie,
        lifetime,
    )


def _without_opt(spans: list[Span], others: int) -> tuple[list[Span], Span | None]:
    """The records that pass, and OPT. What comes after OPT (a signature of this hop) goes too."""
    at = [i for i, span in enumerate(spans) if span.type == OPT]
    if not at:
        return spans, None
    if len(at) > 1 or at[0] < others:
        raise Malformed("OPT")
    return spans[: at[0]], spans[at[0]]


def _minimum(packet: bytes, span: Span) -> int:
    """The last field of SOA, how long its negative answers hold."""
    if span.end - span.rdata < 22:
        raise Malformed("SOA")
    return int(_TTL.unpack_from(packet, span.end - 4)[0])


def _lifetime(
    packet: bytes, spans: list[Span], rcode: int, answers: int, authorities: int, question: bytes
) -> int:
    """How long a reply may be kept: as its shortest record, a negative one as its SOA says.

    A negative answer without SOA is not kept (RFC 2308, section 5), and a referral is no answer.
    """
    if rcode not in (NOERROR, NXDOMAIN) or not spans:
        return 0
    qtype = int.from_bytes(question[-4:-2], "big")
    shortest = min([0 if span.ttl >= 1 << 31 else span.ttl for span in spans])
    if rcode == NOERROR and any(span.type == qtype for span in spans[:answers]):
        return min(shortest, TTL_MAX)
    if rcode == NOERROR and answers and qtype == ANY:
        return min(shortest, TTL_MAX)
    for span in spans[answers : answers + authorities]:
        if span.type == SOA:
            return min(shortest, _minimum(packet, span), NEGATIVE_MAX)
    return 0


def _owners(
    packet: bytes, spans: list[Span], at: int, question: bytes
) -> Iterable[tuple[int, int, int]]:
    """Owner names that spell out the asked name or an end of it, instead of pointing there."""
    name = b""
    for span in spans:
        length = packet[span.start]
        if length == 0 or length >= 0xC0:
            continue
        end = span.start
        while 0 < packet[end] < 64:
            end += 1 + packet[end]
        spelt = packet[span.start : end].lower()
        rest = b"\0"
        if packet[end]:
            target = (packet[end] & 0x3F) << 8 | packet[end + 1]
            if not HEADER.size <= target < at - 4:
                continue  # it goes on in another record: none of ours
            rest = packet[target : at - 4].lower()
        name = name or lowered(question)[:-4]
        offset = len(name) - len(spelt) - len(rest)
        if offset >= 0 and name[offset:] == spelt + rest and _is_border(name, offset):
            yield span.start - at, len(spelt), offset


def _is_border(name: bytes, offset: int) -> bool:
    at = 0
    while at < offset:
        at += 1 + name[at]
    return at == offset


def _cycle(packet: bytes, answers: list[Span], at: int) -> tuple[int, int, int]:
    """The first run of addresses of one owner that is a pointer: nothing can point into them."""
    first = 0
    while first < len(answers):
        start = answers[first]
        owner = packet[start.start : start.start + 2]
        last = first + 1
        if start.type in (A, AAAA) and owner[0] >= 0xC0:
            size = start.end - start.start
            while (
                last < len(answers)
                and answers[last].type == start.type
                and answers[last].end - answers[last].start == size
                and packet.startswith(owner, answers[last].start)
            ):
                last += 1
            if last - first > 1:
                return start.start - at, size, last - first
        first = last
    return 0, 0, 0


def render(
    reply: Reply,
    query: Query,
    limit: int,
    udp_size: int,
    *,
    age: int | None = None,
    stale_ttl: int | None = None,
    turn: int = 0,
    errors: Iterable[Error] = (),
) -> Relayed:
    """Make a reply the client's: its id, its question's case, its size (`limit`, octets).

    `udp_size` is what OPT says that we take; `age` how many seconds ago the reply came (None: just
    now); `stale_ttl` the TTL of all records, for a reply that is past its own; `turn` how far to
    move the addresses round; `errors` are added to the upstream's.
    """
    body: bytes | bytearray = reply.body
    if age is not None or reply.owners or turn:
        body = _changed(reply, query, age or 0, stale_ttl, turn)
    edns = query.edns
    flags = QR | RA | query.flags & (RD | _CD) | reply.flags & (AA | TC) | reply.rcode & 15
    if age is not None:
        flags &= ~AA  # no authority said so just now
    if reply.flags & _AD and (query.flags & _AD or (edns is not None and edns.do)):
        flags |= _AD  # RFC 6840, section 5.8
    tail = b""
    if edns is not None:
        said = [(EDE, e.code.to_bytes(2, "big") + e.text.encode()) for e in errors]
        said += [(EDE, data) for data in reply.errors]
        tail = opt(udp_size, reply.rcode >> 4 << 24 | (0x8000 if edns.do else 0), said)
    elif reply.rcode > 15:
        flags = flags & ~15 | SERVFAIL  # there is no room for the whole of it
    answers, authorities, additionals = reply.counts
    if HEADER.size + len(query.question) + len(body) + len(tail) > limit:
        return _cut(reply, query, flags, body, tail, limit)
    count = additionals + (1 if tail else 0)
    header = HEADER.pack(query.id, flags, 1, answers, authorities, count)
    whole = b"".join([header, query.question, body, tail])
    return Relayed(whole, reply.rcode, bool(flags & TC))


def _changed(reply: Reply, query: Query, age: int, stale_ttl: int | None, turn: int) -> bytearray:
    body = bytearray(reply.body)
    for at in reply.ttls:
        if stale_ttl is not None:
            _TTL.pack_into(body, at, stale_ttl)
        elif age:
            _TTL.pack_into(body, at, max(0, min(_TTL.unpack_from(body, at)[0], TTL_MAX) - age))
    for at, length, asked in reply.owners:
        body[at : at + length] = query.question[asked : asked + length]
    start, size, count = reply.cycle
    if count and (first := turn % count):
        end = start + size * count
        middle = start + size * first
        body[start:end] = body[middle:end] + body[start:middle]
    return body


def _cut(
    reply: Reply, query: Query, flags: int, body: bytes | bytearray, tail: bytes, limit: int
) -> Relayed:
    """What fits: the additional section goes first, without TC (RFC 2181, section 9)."""
    answers, authorities, additionals = reply.counts
    at = HEADER.size + len(query.question)
    packet = bytes(at) + body
    if at + len(tail) > limit:
        tail = tail[:9] + b"\0\0"  # OPT without the texts of an upstream
    spans = read_records(packet, at, answers + authorities + additionals)
    room = limit - len(tail)
    counts = [answers, authorities, 0]
    spans = spans[: answers + authorities]
    end = spans[-1].end if spans else at
    if end > room:
        flags |= TC
        fitting = [span for span in spans[:answers] if span.end <= room]
        counts = [len(fitting), 0, 0]
        end = fitting[-1].end if fitting else at
    header = HEADER.pack(query.id, flags, 1, counts[0], counts[1], 1 if tail else 0)
    whole = b"".join([header, query.question, packet[at:end], tail])
    return Relayed(whole, reply.rcode, bool(flags & TC))


def failed(query: Query, limit: int, udp_size: int, *errors: Error) -> Relayed:
    """SERVFAIL with the reasons, for when no upstream answers."""
    packet, truncated = encode(
        query, SERVFAIL, limit=limit, udp_size=udp_size, ra=True, errors=errors
    )
    return Relayed(packet, SERVFAIL, truncated)
