"""Records in the form in which they are transferred."""

from __future__ import annotations

import dnslib
import pytest

from resolver.record import RR, A, Name, to_name
from resolver.transfer.content import EMPTY, encode, one, records
from tests.resolving import NAMED, zone_of

APEX = to_name("discod.internal")


def under(*labels: bytes) -> Name:
    return (*labels, *APEX)


def test_owners_point_to_the_question() -> None:
    part = encode([RR(APEX, A, b"\1\2\3\4"), RR(under(b"web"), A, b"\5\6\7\10", 60)], APEX)
    assert part.size == 2
    assert part.wire == (
        b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4" + b"\3web\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\5\6\7\10"
    )


@pytest.mark.parametrize("catalog", ["web", "foreign", "all", "big"])
def test_a_message_made_of_them_reads_as_the_zone_says(catalog: str) -> None:
    zone = zone_of(NAMED[catalog])
    names = list(NAMED[catalog].services)
    rrs = [rr for name in names for rr in zone.service_rrs(name)][:400]
    assert rrs
    part = encode(rrs, zone.apex)
    question = b"\6discod\10internal\0\0\xfc\0\1"
    header = b"\0\1\x84\0\0\1" + len(rrs).to_bytes(2, "big") + bytes(4)
    parsed = dnslib.DNSRecord.parse(header + question + part.wire)
    read = [(tuple(rr.rname.label), rr.rtype, rr.ttl) for rr in parsed.rr]
    assert read == [(rr.owner, rr.type, rr.ttl) for rr in rrs]
    single = list(records(part))
    assert b"".join(single) == part.wire
    assert [len(one) for one in single] == [len(encode([rr], zone.apex).wire) for rr in rrs]


def test_no_records() -> None:
    assert encode([], APEX) == EMPTY
    assert records(EMPTY) == [] and EMPTY.size == 0
    assert records(one(b"abc")) == [b"abc"]
