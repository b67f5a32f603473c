"""Aliases of ours that lead to names of others: what they lead to, and the whole response.

Rule: of an upstream's reply only the chain from the asked name counts; names in RDATA are written
out, since they are to stand in another message. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from resolver.encode import EDE, Error, encode
from resolver.forwarding.reply import Relayed
from resolver.record import (
    ANY,
    CNAME,
    IN,
    NAME_OCTETS,
    NOERROR,
    NS,
    NXDOMAIN,
    OPT,
    PTR,
    RR,
    SOA,
    SRV,
    Answer,
    Name,
)
from resolver.wire import HEADER, Malformed, Query, Span, read_name, read_options, read_records

DNAME, RRSIG = 39, 46
CHAIN_MAX: Final = 16
"""Aliases after one another; BIND and Unbound stop at 16 and 11."""

_NAMES = {
    NS: (0, 1),
    CNAME: (0, 1),
    SOA: (0, 2),
    PTR: (0, 1),
    15: (2, 1),  # MX
    17: (0, 2),  # RP
    18: (2, 1),  # AFSDB
    SRV: (6, 1),
    36: (2, 1),  # KX
    DNAME: (0, 1),
}
"""Type -> (octets before the names, names): where a reader must expect pointers (RFC 3597,
section 4)."""


class Resolved(NamedTuple):
    """What upstreams, or their kept answers, say of a name."""

    rcode: int
    answer: tuple[RR, ...] = ()
    """The chain of aliases, and the records of the type at its end."""
    authority: tuple[RR, ...] = ()
    """SOA, where the end has no such record."""
    errors: tuple[Error, ...] = ()


def read(packet: bytes, name: Name, qtype: int) -> Resolved:
    """What a response of the forwarder says of `name`.

    Raises:
        Malformed.
    """
    _, flags, _, answers, authorities, additionals = HEADER.unpack_from(packet)
    _, at = read_name(packet, HEADER.size)
    spans = read_records(packet, at + 4, answers + authorities + additionals)
    there = [_rr(packet, span) for span in spans[:answers] if span.cls == IN]
    chain = _chain(there, name, qtype)
    soas = [
        _rr(packet, span) for span in spans[answers : answers + authorities] if span.type == SOA
    ]
    negative = not any(rr.type == qtype or qtype == ANY for rr in chain)
    return Resolved(
        flags & 15,
        tuple(chain),
        tuple(soas[:1]) if negative else (),
        tuple(_errors(packet, spans[answers + authorities :])),
    )


def _chain(there: Iterable[RR], name: Name, qtype: int) -> list[RR]:
    by_owner: dict[Name, list[RR]] = {}
    for rr in there:
        by_owner.setdefault(rr.owner, []).append(rr)
    found: list[RR] = []
    at: Name | None = name
    for _ in range(CHAIN_MAX):
        if at is None:
            break
        for cut in range(1, len(at)):  # an alias of a whole subtree, and the CNAME made of it
            found += [rr for rr in by_owner.get(at[cut:], ()) if rr.type == DNAME]
        here = by_owner.pop(at, [])
        kept = [rr for rr in here if rr.type in (qtype, CNAME, RRSIG) or qtype == ANY]
        found += kept
        at = None
        if qtype not in (CNAME, ANY):
            for rr in kept:
                if rr.type == CNAME:
                    at = read_name(rr.rdata, 0)[0]
    return found


def _errors(packet: bytes, spans: Iterable[Span]) -> Iterable[Error]:
    for span in spans:
        if span.type == OPT:
            for code, data in read_options(packet[span.rdata : span.end]):
                if code == EDE and len(data) >= 2:
                    yield Error(
                        int.from_bytes(data[:2], "big"), data[2:].decode("utf-8", "replace")
                    )


def _rr(packet: bytes, span: Span) -> RR:
    owner, _ = written_out(packet, span.start)
    rdata = packet[span.rdata : span.end]
    if span.type in _NAMES:
        before, names = _NAMES[span.type]
        at = span.rdata + before
        parts = [packet[span.rdata : at]]
        for _ in range(names):
            part, at = written_out(packet, at)
            parts.append(part)
        if at > span.end:
            raise Malformed("name beyond its record")
        rdata = b"".join([*parts, packet[at : span.end]])
    return RR(read_name(owner, 0)[0], span.type, rdata, span.ttl)


def written_out(packet: bytes, at: int) -> tuple[bytes, int]:
    """The name at `at` without pointers, and the offset after it there.

    Raises:
        Malformed: it does not end, is too long, or a pointer leads anywhere but back.
    """
    parts: list[bytes] = []
    octets = 1
    after = -1
    before = at
    while at < len(packet):
        length = packet[at]
        if length == 0:
            return b"".join(parts) + b"\0", at + 1 if after < 0 else after
        if length >= 0xC0:
            if at + 2 > len(packet):
                break
            target = (length & 0x3F) << 8 | packet[at + 1]
            if target >= before:
                raise Malformed("pointer")
            if after < 0:
                after = at + 2
            at = before = target
            continue
        if length > 63:
            raise Malformed("label type")
        octets += 1 + length
        if octets > NAME_OCTETS:
            raise Malformed("name too long")
        parts.append(packet[at : at + 1 + length])
        at += 1 + length
    raise Malformed("name does not end")


def compose(
    query: Query,
    answer: Answer,
    resolved: Resolved,
    limit: int,
    udp_size: int,
    errors: Iterable[Error] = (),
) -> Relayed:
    """The response to a question that `answer` leads out of our zones (`Answer.chase`).

    The rcode is that of the end of the chain (RFC 6604, section 3). With `Answer.flatten` the
    records stand under the asked name, with the smallest TTL of the chain and at most `Answer.ttl`;
    that the target has none is no answer then, not NXDOMAIN, since the asked name exists.
    """
    rrs = (*answer.answer, *resolved.answer)
    rcode = resolved.rcode
    authority = resolved.authority
    additional = answer.additional
    if answer.flatten:
        found = [rr for rr in resolved.answer if rr.type == query.type]
        ttl = min([answer.ttl, *(rr.ttl for rr in resolved.answer)])
        rdatas = dict.fromkeys(rr.rdata for rr in found)
        rrs = tuple(RR(query.name, query.type, rdata, ttl) for rdata in rdatas)
        rcode = NOERROR if rcode == NXDOMAIN else rcode
        authority = () if rrs else answer.authority
        additional = ()
    packet, truncated = encode(
        query,
        rcode,
        limit=limit,
        udp_size=udp_size,
        aa=True,
        ra=True,
        answer=rrs,
        authority=authority,
        additional=additional,
        errors=(*errors, *resolved.errors),
    )
    return Relayed(packet, rcode, truncated)
