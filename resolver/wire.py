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

from resolver.record import (
    BADVERS,
    FORMERR,
    NAME_OCTETS,
    NOERROR,
    NOTIMP,
    OPT,
    Name,
)

HEADER: Final = struct.Struct(">6H")
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
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
        type_, cls, ttl, length = FIXED.unpack_from(packet, fixed)
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
        code, length = OPTION.unpack_from(rdata, at)
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
    # The RDATA of another version is not ours to judge.
    options = () if version else tuple(read_options(packet[found.rdata : found.end]))
    return Edns(found.cls, version, bool(found.ttl & 0x8000), options)


def shown(message: bytes) -> tuple[str, ...]:
    """The answer and authority records of a message of ours in presentation format."""
    record = dnslib.DNSRecord.parse(message)
    return tuple(str(rr.toZone()) for rr in (*record.rr, *record.auth))
