"""What a zone answers, in the form in which zones are written (RFC 1035, section 5.1).

Rule: it is shown by the way of the wire, so that what a person reads is what a client would get.
Pure.
"""

from __future__ import annotations

import random
from ipaddress import ip_address

from resolver import encode, record, wire
from resolver.wire import Query
from resolver.zone import Zone

_TYPES = (
    record.A,
    record.AAAA,
    record.SRV,
    record.TXT,
    record.PTR,
    record.SVCB,
    record.HTTPS,
)
_AT_APEX = (record.SOA, record.NS)


def answers(zone: Zone, name: str, rng: random.Random) -> tuple[str, ...]:
    """What a client that we answer would get for `name`, in presentation format.

    One line a record; or one word: the rcode, ``NODATA``, or ``FORWARDED``. `name` may be an
    address, for its PTR.

    Raises:
        ValueError: `name` cannot be asked.
    """
    try:
        asked = record.to_name(str(ip_address(name).reverse_pointer))
    except ValueError:
        asked = record.to_name(name)
    if not record.fits(asked) or any(not 0 < len(label) <= 63 for label in asked):
        raise ValueError(f"{name!r} is no DNS name")
    lines: dict[str, None] = {}
    for type_ in (*_TYPES, *_AT_APEX):
        if lines and type_ == _AT_APEX[0]:
            break
        answer = zone.lookup(asked, type_, rng)
        if answer is None:
            return ("FORWARDED",)
        if answer.rcode == record.NXDOMAIN and not answer.answer:
            return ("NXDOMAIN",)
        if answer.rcode == record.SERVFAIL:
            return ("SERVFAIL",)
        question = record.name_wire(asked) + type_.to_bytes(2, "big") + b"\0\1"
        query = Query(0, 0, question, asked, type_, record.IN, None, 0)
        packet, _ = encode.encode(
            query, answer.rcode, limit=wire.TCP_MAX, udp_size=0, answer=answer.answer
        )
        for line in wire.shown(packet):
            lines[line] = None  # an alias comes with each type
    return tuple(lines) or ("NODATA",)
