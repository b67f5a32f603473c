"""What goes to an upstream and what comes back of it, as bytes.

Rule: the question and the records pass unchanged (RFC 5625, section 4.1); OPT does not, as it
belongs to one hop (RFC 6891, section 6.1.1). Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from resolver.encode import EDE, Error, encode, opt
from resolver.record import OPT, SERVFAIL
from resolver.wire import (
    HEADER,
    QR,
    RA,
    RD,
    TC,
    Malformed,
    Query,
    Span,
    read_name,
    read_options,
    read_records,
)

_AD_CD = 0x0030


class Relayed(NamedTuple):
    """A response for the client."""

    packet: bytes
    rcode: int
    truncated: bool


def upstream_query(query: Query, id_: int, udp_size: int) -> bytes:
    """The query to send for a client's; with EDNS if the client speaks it."""
    flags = RD | query.flags & _AD_CD
    tail = opt(udp_size, 0x8000 if query.edns.do else 0) if query.edns is not None else b""
    return HEADER.pack(id_, flags, 1, 0, 0, 1 if tail else 0) + query.question + tail


def is_reply(packet: bytes, query: Query, id_: int) -> bool:
    """Whether a packet answers `upstream_query(query, id_, ...)` by id and question (RFC 5452)."""
    if len(packet) < HEADER.size:
        return False
    got, flags, questions, *_ = HEADER.unpack_from(packet)
    if got != id_ or not flags & QR or flags & 0x7800 or questions != 1:
        return False
    try:
        name, at = read_name(packet, HEADER.size)
    except Malformed:
        return False
    return name == query.name and packet[at : at + 4] == query.question[-4:]


def is_truncated(packet: bytes) -> bool:
    """Whether a reply carries TC."""
    return bool(HEADER.unpack_from(packet)[1] & TC)


def rcode(packet: bytes) -> int:
    """The rcode in a reply's header."""
    return int(HEADER.unpack_from(packet)[1]) & 15


def relayed(packet: bytes, query: Query, limit: int, udp_size: int) -> Relayed:
    """Make an upstream's reply the client's: its id, its question's case, its size.

    Raises:
        Malformed: the records of the reply cannot be read.
    """
    _, flags, _, answers, authorities, additionals = HEADER.unpack_from(packet)
    at = HEADER.size + len(query.question)
    spans = read_records(packet, at, answers + authorities + additionals)
    counts = [answers, authorities, additionals]
    tail = b""
    if spans and spans[-1].type == OPT and additionals:
        tail = _own_opt(packet, spans.pop(), query, udp_size)
        counts[2] -= 1
    elif query.edns is not None and not any(span.type == OPT for span in spans):
        tail = opt(udp_size, 0x8000 if query.edns.do else 0)
    room = limit - len(tail)
    end = spans[-1].end if spans else at
    if end > room:  # the additional section goes first, without TC (RFC 2181, section 9)
        spans = spans[: answers + authorities]
        counts[2] = 0
        end = spans[-1].end if spans else at
    if end > room:
        flags |= TC
        fitting = [span for span in spans[:answers] if span.end <= room]
        counts = [len(fitting), 0, 0]
        end = fitting[-1].end if fitting else at
    header = HEADER.pack(
        query.id, flags | RA, 1, counts[0], counts[1], counts[2] + (1 if tail else 0)
    )
    whole = b"".join([header, query.question, packet[at:end], tail])
    return Relayed(whole, flags & 15, bool(flags & TC))


def _own_opt(packet: bytes, span: Span, query: Query, udp_size: int) -> bytes:
    """Our OPT in place of the upstream's; it keeps the extended rcode and the extended errors."""
    if query.edns is None:
        return b""
    options = read_options(packet[span.rdata : span.end])
    ttl = span.ttl & 0xFF000000 | (0x8000 if query.edns.do else 0)
    return opt(udp_size, ttl, [option for option in options if option[0] == EDE][:4])


def failed(query: Query, limit: int, udp_size: int, error: Error) -> Relayed:
    """SERVFAIL with the reason, for when no upstream answers."""
    packet, truncated = encode(
        query, SERVFAIL, limit=limit, udp_size=udp_size, ra=True, errors=(error,)
    )
    return Relayed(packet, SERVFAIL, truncated)
