"""DNS messages: a strict reader of queries, and the encoder of responses.

Rule: nothing in a packet makes the reader do more work than the packet has octets; whatever is
wrong ends as `Malformed` or as the rcode that the query gets. Only this module imports dnslib, and
only to show messages to people: as a parser of hostile packets it is too trusting (it follows
chains of pointers until the stack ends, takes label types 01 and 10, refuses labels that are not
UTF-8, and skips a last option that is empty). Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import dnslib

from resolver.record import (
    BADVERS,
    FORMERR,
    IN,
    NAME_OCTETS,
    NOERROR,
    NOTIMP,
    OPT,
    RR,
    Name,
)

HEADER: Final = struct.Struct(">6H")
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080

UDP_PLAIN: Final = 512
"""Octets of a UDP response without EDNS (RFC 1035, section 4.2.1)."""
TCP_MAX: Final = 65535

EDE: Final = 15
"""Option code of Extended DNS Errors (RFC 8914)."""

_TYPE_CLASS = struct.Struct(">HH")
_FIXED = struct.Struct(">HHIH")
_OPTION = struct.Struct(">HH")
_QNAME = b"\xc0\x0c"


class Malformed(ValueError):
    """A message that breaks the rules of its format."""


class Edns(NamedTuple):
    """What an OPT record says (RFC 6891, section 6.1.3)."""

    size: int
    version: int
    do: bool


class Query(NamedTuple):
    """A query as far as it could be read."""

    id: int
    flags: int
    question: bytes
    """The question section as it came, for the response to echo; empty when it is unreadable."""
    name: Name
    type: int
    cls: int
    edns: Edns | None
    fault: int
    """The rcode that it gets for its form alone; NOERROR when the form is good."""

    @property
    def rd(self) -> bool:
        """Whether recursion is desired."""
        return bool(self.flags & RD)


class Error(NamedTuple):
    """An Extended DNS Error (RFC 8914)."""

    code: int
    text: str


def read_name(packet: bytes, at: int) -> tuple[Name, int]:
    """The uncompressed name at `at`, lower-cased, and the offset after it.

    Raises:
        Malformed: it does not end, is too long, or is compressed (there is nothing before a
            question that it could point to).
    """
    labels: list[bytes] = []
    start = at
    size = len(packet)
    while at < size:
        length = packet[at]
        at += 1
        if length == 0:
            if at - start > NAME_OCTETS:
                raise Malformed("name too long")
            return tuple(labels), at
        if length > 63:
            raise Malformed("label type")
        labels.append(packet[at : at + length].lower())
        at += length
    raise Malformed("name does not end")


def skip_name(packet: bytes, at: int) -> int:
    """The offset after a name that may be compressed; pointers are not followed.

    Raises:
        Malformed.
    """
    start = at
    size = len(packet)
    while at < size:
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            if at + 2 > size or (length & 0x3F) << 8 | packet[at + 1] >= start:
                raise Malformed("pointer")
            return at + 2
        if length > 63:
            raise Malformed("label type")
        at += 1 + length
    raise Malformed("name does not end")


class Span(NamedTuple):
    """Where one record of a message lies."""

    start: int
    rdata: int
    end: int
    type: int
    cls: int
    ttl: int


def read_records(packet: bytes, at: int, count: int) -> list[Span]:
    """The next `count` records from `at`; RDATA is not looked into.

    Raises:
        Malformed: the packet ends before.
    """
    spans = []
    size = len(packet)
    for _ in range(count):
        fixed = skip_name(packet, at)
        if fixed + 10 > size:
            raise Malformed("record does not end")
        type_, cls, ttl, length = _FIXED.unpack_from(packet, fixed)
        end = fixed + 10 + length
        if end > size:
            raise Malformed("record does not end")
        spans.append(Span(at, fixed + 10, end, type_, cls, ttl))
        at = end
    return spans


def read_options(rdata: bytes) -> list[tuple[int, bytes]]:
    """The options of an OPT record.

    Raises:
        Malformed: an option ends after the record.
    """
    options = []
    at = 0
    while at < len(rdata):
        if at + 4 > len(rdata):
            raise Malformed("option does not end")
        code, length = _OPTION.unpack_from(rdata, at)
        at += 4 + length
        if at > len(rdata):
            raise Malformed("option does not end")
        options.append((code, rdata[at - length : at]))
    return options


def read_query(packet: bytes) -> Query | None:
    """Read a query; None for what must not be answered: no whole header, or a response.

    What else is wrong is in `Query.fault` (RFC 8906 says that each deserves an answer).
    """
    if len(packet) < HEADER.size:
        return None
    id_, flags, questions, answers, authorities, additionals = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    blank = Query(id_, flags, b"", (), 0, 0, None, FORMERR)
    if questions != 1:
        return blank._replace(fault=FORMERR if _opcode(flags) == 0 else NOTIMP)
    try:
        name, at = read_name(packet, HEADER.size)
        if at + 4 > len(packet):
            raise Malformed("question does not end")
        type_, cls = _TYPE_CLASS.unpack_from(packet, at)
        at += 4
    except Malformed:
        return blank._replace(fault=FORMERR if _opcode(flags) == 0 else NOTIMP)
    question = packet[HEADER.size : at]
    if _opcode(flags) != 0:
        return blank._replace(question=question, name=name, type=type_, cls=cls, fault=NOTIMP)
    edns = None
    fault = NOERROR
    try:
        others = answers + authorities
        spans = read_records(packet, at, others + additionals)
        if (spans[-1].end if spans else at) != len(packet):
            raise Malformed("octets after the message")
        edns = _edns(packet, spans, others)
        if edns is not None and edns.version != 0:
            fault = BADVERS
    except Malformed:
        fault = FORMERR
    return Query(id_, flags, question, name, type_, cls, edns, fault)


def _opcode(flags: int) -> int:
    return flags >> 11 & 15


def _edns(packet: bytes, spans: list[Span], others: int) -> Edns | None:
    """The one OPT record in the additional section (RFC 6891, section 6.1.1)."""
    found = None
    for i, span in enumerate(spans):
        if span.type == OPT:
            if found is not None or i < others or packet[span.start] != 0:
                raise Malformed("OPT")
            found = span
    if found is None:
        return None
    version = found.ttl >> 16 & 255
    if version == 0:  # the RDATA of another version is not ours to judge
        read_options(packet[found.rdata : found.end])
    return Edns(found.cls, version, bool(found.ttl & 0x8000))


def opt(size: int, ttl: int, options: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """An OPT record; `ttl` is extended rcode, version and flags."""
    rdata = b"".join([_OPTION.pack(code, len(data)) + data for code, data in options])
    return b"\0" + _FIXED.pack(OPT, size, ttl, len(rdata)) + rdata


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
) -> tuple[bytes, bool]:
    """A response of at most `limit` octets, and whether it had to be truncated.

    With TC the answer holds as many records as fit, for clients that cannot ask again over TCP
    (RFC 2181, section 9: whoever sees TC should ask again). The additional section is cut at whole
    RRsets, silently. Owner names point into the question, so they come back in its case.
    """
    tail = b""
    if query.edns is not None:
        options = [(EDE, error.code.to_bytes(2, "big") + error.text.encode()) for error in errors]
        ttl = rcode >> 4 << 24 | (0x8000 if query.edns.do else 0)
        tail = opt(udp_size, ttl, options)
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
    return owners.wire(rr.owner) + _FIXED.pack(rr.type, IN, 0, len(rr.rdata)) + rr.rdata


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


def shown(message: bytes) -> tuple[str, ...]:
    """The answer and authority records of a message of ours in presentation format."""
    record = dnslib.DNSRecord.parse(message)
    return tuple(str(rr.toZone()) for rr in (*record.rr, *record.auth))
