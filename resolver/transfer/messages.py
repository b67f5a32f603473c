"""The messages of a transfer: what asks for one, and what one is made of.

Rule: a message repeats the question, so that each is compressed against the same octet, and is
made only when the one before it has been taken. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from resolver.encode import opt
from resolver.record import IN, SOA
from resolver.transfer.content import Part, one, records
from resolver.transfer.journal import Difference
from resolver.transfer.tsig import expand
from resolver.wire import AA, HEADER, QR, RD, Malformed, Query, read_records, skip_name

MESSAGE: Final = 16_384
"""Octets of one message over TCP, its signature included: what a secondary's compression can point
to (RFC 1035, section 4.1.4), and a third of a millisecond of work. Larger only for one record."""

_FIXED_OF_SOA: Final = 20


def client_serial(packet: bytes, query: Query) -> int:
    """The serial that an IXFR request says its client has (RFC 1995, section 3).

    Raises:
        Malformed: the authority section has not just the SOA of the zone.
    """
    answers, authorities = HEADER.unpack_from(packet)[3:5]
    spans = read_records(packet, HEADER.size + len(query.question), answers + authorities)
    if authorities != 1:
        raise Malformed("authority section")
    span = spans[-1]
    owner, _ = expand(packet, span.start)
    if (owner, span.type, span.cls) != (query.name, SOA, IN):
        raise Malformed("authority section")
    at = skip_name(packet, skip_name(packet, span.rdata))
    if at + _FIXED_OF_SOA != span.end:
        raise Malformed("SOA")
    return int.from_bytes(packet[at : at + 4], "big")


def whole(soa: bytes, parts: Iterable[Part]) -> Iterator[Part]:
    """An AXFR response: the SOA, everything else, the SOA (RFC 5936, section 2.2)."""
    yield one(soa)
    yield from parts
    yield one(soa)


def incremental(soa: bytes, differences: Iterable[Difference]) -> Iterator[Part]:
    """An IXFR response (RFC 1995, section 4); of no difference at all, the SOA alone."""
    yield one(soa)
    some = False
    for difference in differences:
        some = True
        yield one(difference.old_soa)
        yield from (one(record) for record in difference.removed)
        yield one(difference.soa)
        yield from (one(record) for record in difference.added)
    if some:
        yield one(soa)


def messages(query: Query, parts: Iterable[Part], size: int, udp_size: int) -> Iterator[bytes]:
    """The records as messages of at most `size` octets, or of one record.

    OPT, with `udp_size`, goes into each of them where the request had one (RFC 6891).
    """
    tail = b""
    if query.edns is not None:
        tail = opt(udp_size, 0x8000 if query.edns.do else 0)
    room = size - HEADER.size - len(query.question) - len(tail)
    held: list[bytes] = []
    count = octets = 0
    for part in parts:
        whole = octets + len(part.wire) <= room
        for wire in (part.wire,) if whole else records(part):
            if count and octets + len(wire) > room:
                yield _message(query, count, held, tail)
                held, count, octets = [], 0, 0
            held.append(wire)
            count += part.size if whole else 1
            octets += len(wire)
    if count:
        yield _message(query, count, held, tail)


def _message(query: Query, count: int, wires: list[bytes], tail: bytes) -> bytes:
    header = HEADER.pack(query.id, QR | AA | query.flags & RD, 1, count, 0, 1 if tail else 0)
    return b"".join((header, query.question, *wires, tail))
