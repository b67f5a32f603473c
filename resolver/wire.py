"""DNS messages: a strict reader.

Rule: nothing in a packet makes the reader do more work than the packet has octets; whatever is
wrong ends as `Malformed` or as the rcode that the query gets. Only this module imports dnslib, and
only to show messages to people: as a parser of hostile packets it is too trusting (it follows
chains of pointers until the stack ends, takes label types 01 and 10, refuses labels that are not
UTF-8, and skips a last option that is empty). Pure.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import dnslib

from resolver.cookies import COOKIE
from resolver.record import (
    ANY,
    BADVERS,
    FORMERR,
    NAME_OCTETS,
    NOERROR,
    NOTIMP,
    OPT,
    TSIG,
    Name,
)

HEADER: Final = struct.Struct(">6H")
QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE: Final = 0x7800
RECORDS_MAX: Final = 8
"""Records that a query may have beside its question: OPT, TSIG, the SOA of IXFR, and some to spare.
More is FORMERR unread, or a query could cost more than its answer."""
OWNERS_MAX: Final = 2 * NAME_OCTETS
"""Octets of all owner names of these records: two of the longest."""
OPTIONS_MAX: Final = 16
"""EDNS options that are read; what follows is passed over, as unknown ones are."""
TCP_MAX: Final = 65535
"""Octets of a message over TCP: its length has 16 bits."""

_TYPE_CLASS = struct.Struct(">HH")
FIXED = struct.Struct(">HHIH")
OPTION = struct.Struct(">HH")


class Malformed(ValueError):
    """A message that breaks the rules of its format."""


class Edns(NamedTuple):
    """What an OPT record says (RFC 6891, section 6.1.3)."""

    size: int
    version: int
    do: bool
    options: tuple[tuple[int, bytes], ...] = ()
    """(code, data) as they came; none where the version is not 0."""


class Span(NamedTuple):
    """Where one record of a message lies."""

    start: int
    rdata: int
    end: int
    type: int
    cls: int
    ttl: int


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
    tsig: Span | None = None
    """The TSIG record, the last one (RFC 8945); not looked into."""

    @property
    def rd(self) -> bool:
        """Whether recursion is desired."""
        return bool(self.flags & RD)


def read_name(packet: bytes, at: int) -> tuple[Name, int]:
    """The uncompressed name at `at`, lower-cased, and the offset after it.

    Raises:
        Malformed: it does not end, is too long, or is compressed (there is nothing before a
            question that it could point to).
    """
    labels: list[bytes] = []
    # Octets of length are at most 63 and no letters: the name can be lower-cased as a whole.
    name = packet[at : at + NAME_OCTETS].lower()
    size = len(name)
    i = 0
    while i < size:
        length = name[i]
        i += 1
        if length == 0:
            return tuple(labels), at + i
        if length > 63:
            raise Malformed("label type")
        labels.append(name[i : i + length])
        i += length
    raise Malformed("name does not end, or too late")


def skip_name(packet: bytes, at: int) -> int:
    """The offset after a name that may be compressed; pointers are not followed.

    Raises:
        Malformed.
    """
    start = at
    size = min(len(packet), at + NAME_OCTETS)
    while at < size:
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            if at + 2 > len(packet) or (length & 0x3F) << 8 | packet[at + 1] >= start:
                raise Malformed("pointer")
            return at + 2
        if length > 63:
            raise Malformed("label type")
        at += 1 + length
    raise Malformed("name does not end, or too late")


def read_records(packet: bytes, at: int, count: int, owners: int = TCP_MAX) -> list[Span]:
    """The next `count` records from `at`; RDATA is not looked into.

    Raises:
        Malformed: the packet ends before, or their owner names take more than `owners` octets.
    """
    spans = []
    size = len(packet)
    for _ in range(count):
        fixed = skip_name(packet, at)
        owners -= fixed - at
        if fixed + 10 > size or owners < 0:
            raise Malformed("record does not end, or owners too long")
        type_, cls, ttl, length = FIXED.unpack_from(packet, fixed)
        end = fixed + 10 + length
        if end > size:
            raise Malformed("record does not end")
        spans.append(Span(at, fixed + 10, end, type_, cls, ttl))
        at = end
    return spans


def read_options(rdata: bytes, most: int = TCP_MAX) -> list[tuple[int, bytes]]:
    """The options of an OPT record, the first `most` of them.

    Raises:
        Malformed: an option ends after the record.
    """
    options: list[tuple[int, bytes]] = []
    at = 0
    while at < len(rdata) and len(options) < most:
        if at + 4 > len(rdata):
            raise Malformed("option does not end")
        code, length = OPTION.unpack_from(rdata, at)
        at += 4 + length
        if at > len(rdata):
            raise Malformed("option does not end")
        options.append((code, rdata[at - length : at]))
    return options


def read_query(packet: bytes) -> Query | None:
    """Read a query; None for what must not be answered: no whole header, or a response.

    What else is wrong is in `Query.fault` (RFC 8906 says that each deserves an answer). A query
    without a question is sound where it asks for a cookie (RFC 7873, section 5.4); its `question`
    is empty.
    """
    if len(packet) < HEADER.size:
        return None
    id_, flags, questions, answers, authorities, additionals = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    fault = NOTIMP if flags & OPCODE else NOERROR
    name: Name = ()
    at = HEADER.size
    type_ = cls = 0
    if questions:
        try:
            if questions > 1:  # RFC 9619
                raise Malformed("questions")
            name, at = read_name(packet, at)
            if at + 4 > len(packet):
                raise Malformed("question does not end")
        except Malformed:
            return Query(id_, flags, b"", (), 0, 0, None, fault or FORMERR)
        type_, cls = _TYPE_CLASS.unpack_from(packet, at)
        at += 4
    question = packet[HEADER.size : at]
    edns = tsig = None
    others = answers + authorities
    if others or additionals or at != len(packet):
        try:
            edns, tsig = _rest(packet, at, others, additionals)
            if edns is not None and edns.version != 0:
                fault = BADVERS
        except Malformed:
            fault = fault or FORMERR
    if not questions and not fault and (edns is None or not _has_cookie(edns)):
        fault = FORMERR
    return Query(id_, flags, question, name, type_, cls, edns, fault, tsig)


def _has_cookie(edns: Edns) -> bool:
    return any(code == COOKIE for code, _ in edns.options)


def _rest(packet: bytes, at: int, others: int, additionals: int) -> tuple[Edns | None, Span | None]:
    """The one OPT record (RFC 6891, section 6.1.1), and TSIG behind all (RFC 8945, section 5.2)."""
    count = others + additionals
    if count > RECORDS_MAX:
        raise Malformed("too many records")
    spans = read_records(packet, at, count, OWNERS_MAX)
    if (spans[-1].end if spans else at) != len(packet):
        raise Malformed("octets after the message")
    edns = tsig = None
    for i, span in enumerate(spans):
        if span.type == OPT:
            if edns is not None or i < others or packet[span.start] != 0:
                raise Malformed("OPT")
            edns = _edns(packet, span)
        elif span.type == TSIG:
            if i != count - 1 or i < others or span.cls != ANY:
                raise Malformed("TSIG")
            tsig = span
    return edns, tsig


def _edns(packet: bytes, opt: Span) -> Edns:
    version = opt.ttl >> 16 & 255
    # The RDATA of another version is not ours to judge.
    options = () if version else tuple(read_options(packet[opt.rdata : opt.end], OPTIONS_MAX))
    return Edns(opt.cls, version, bool(opt.ttl & 0x8000), options)


def shown(message: bytes) -> tuple[str, ...]:
    """The answer and authority records of a message of ours in presentation format."""
    record = dnslib.DNSRecord.parse(message)
    return tuple(str(rr.toZone()) for rr in (*record.rr, *record.auth))
