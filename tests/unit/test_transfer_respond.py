"""Requests for the zone: who gets it, in what form, and what others get."""

from __future__ import annotations

import gc
import struct
from dataclasses import replace
from typing import Any

import dnslib
import pytest

from resolver.record import to_name
from resolver.transfer import respond
from resolver.transfer.keys import Key
from resolver.transfer.messages import MESSAGE, client_serial
from resolver.transfer.respond import TRANSFERS_MAX
from resolver.transfer.tsig import Signer, read, verify_response
from resolver.wire import Malformed, read_query
from tests.resolving import HOSTS, PUBLISHED, WEB, endpoint, packet
from tests.transferring import (
    AXFR,
    IXFR,
    NOW,
    SOA,
    TEST_NETS,
    D,
    Primary,
    Secondary,
    query_of,
    request,
    wanted,
)
from tests.unit.test_transfer_publisher import hosts, primary, put

CLIENT = "192.0.2.9"
KEY = Key(to_name("key.example"), (b"hmac-sha256",), b"0123456789abcdef")
BIG = [endpoint("big", f"i{n}", f"10.0.{n >> 8}.{n & 255}", tags=("t",)) for n in range(400)]


def ask(one: Primary, query: bytes, client: str = CLIENT, transport: str = "tcp") -> list[bytes]:
    return list(one.transfers.respond(query, query_of(query), client, transport))


def only(one: Primary, query: bytes, client: str = CLIENT, transport: str = "tcp") -> Any:
    (message,) = ask(one, query, client, transport)
    return dnslib.DNSRecord.parse(message)


def ede(response: Any) -> list[int]:
    return [
        int.from_bytes(option.data[:2], "big")
        for rr in response.ar
        if rr.rtype == 41
        for option in rr.rdata
        if option.code == 15
    ]


def keyed(one: Primary) -> Primary:
    one.transfers.configure(TEST_NETS, {KEY.name: KEY}, signed=True)
    return one


def big() -> Primary:
    one = primary()
    one.apply(put(*BIG), 8)
    one.publish()
    return one


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "client", "rcode", "codes", "result"),
    [
        (request(size=1232), "203.0.113.1", 5, [18], "refused"),
        (request(size=1232), "2001:db8::1", 5, [18], "refused"),
        (request(name="example.com", size=1232), CLIENT, 9, [], "notauth"),
        (request(name=f"web.{D}"), CLIENT, 9, [], "notauth"),
        (request(name="internal"), CLIENT, 9, [], "notauth"),
        (request(name="10.in-addr.arpa"), CLIENT, 9, [], "notauth"),
        (request(cls=3), CLIENT, 9, [], "notauth"),
        (request(IXFR), CLIENT, 1, [], "formerr"),  # without the SOA that it has
        (packet(D, AXFR, size=1232, version=1), CLIENT, 16, [], "formerr"),
    ],
)
def test_refusals(query: bytes, client: str, rcode: int, codes: list[int], result: str) -> None:
    one = primary()
    response = only(one, query, client)
    extended = sum(rr.ttl >> 24 << 4 for rr in response.ar if rr.rtype == 41)
    assert (response.header.rcode | extended, ede(response)) == (rcode, codes)
    assert not response.rr and not response.header.aa
    assert response.header.id == 77 or query[:2] != b"\0\x4d"
    assert one.counted == [("ixfr" if query_of(query).type == IXFR else "axfr", result)]


def test_the_case_of_the_zone_does_not_matter() -> None:
    query = request().replace(b"discod", b"DiScOd")
    (message,) = ask(primary(), query)
    assert b"DiScOd" in message
    assert len(dnslib.DNSRecord.parse(message).rr) > 10


def test_before_the_first_snapshot() -> None:
    one = Primary()
    response = only(one, request(size=1232))
    assert (response.header.rcode, ede(response)) == (2, [14])
    assert one.counted == [("axfr", "unready")]


def test_while_the_first_content_is_made() -> None:
    one = Primary()
    one.apply(hosts(*HOSTS) + put(*BIG), 7)
    assert only(one, request()).header.rcode == 2
    one.publish()
    assert ask(one, request())
    assert one.counted == [("axfr", "unready"), ("axfr", "whole")]


def test_nobody_may_until_somebody_is_named() -> None:
    one = primary()
    one.transfers.configure((), {}, signed=False)
    assert only(one, request(), "127.0.0.1").header.rcode == 5


def soa_rr(rdata: bytes, name: bytes = b"\xc0\x0c", rtype: int = SOA, cls: int = 1) -> bytes:
    return name + struct.pack(">HHIH", rtype, cls, 0, len(rdata)) + rdata


TIMES = struct.pack(">5I", 7, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("authority", "count", "good"),
    [
        (soa_rr(b"\0\0" + TIMES), 1, True),
        (soa_rr(b"\xc0\x0c\1m\xc0\x0c" + TIMES), 1, True),  # compressed, as BIND sends it
        (soa_rr(b"\0\0" + TIMES, b"\6discod\xc0\x13"), 1, True),
        (soa_rr(b"\0\0" + TIMES, b"\6DISCOD\xc0\x13"), 1, True),
        (soa_rr(b"\0\0" + TIMES, b"\xc0\x13"), 1, False),  # of another zone
        (soa_rr(b"\0\0" + TIMES, rtype=16), 1, False),
        (soa_rr(b"\0\0" + TIMES, cls=3), 1, False),
        (soa_rr(b"\0\0" + TIMES[:-1]), 1, False),
        (soa_rr(b"\0\0" + TIMES + b"x"), 1, False),
        (soa_rr(b"\0"), 1, False),
        (soa_rr(b"\x3f"), 1, False),
        (soa_rr(b"\0\0" + TIMES) * 2, 2, False),
        (b"", 0, False),
    ],
)
def test_the_authority_section_of_ixfr(authority: bytes, count: int, good: bool) -> None:
    query = request(IXFR)
    whole = query[:8] + count.to_bytes(2, "big") + query[10:] + authority
    if good:
        assert client_serial(whole, query_of(whole)) == 7
    else:
        with pytest.raises(Malformed):
            client_serial(whole, query_of(whole))
        assert only(primary(), whole).header.rcode == 1


# What is given ----------------------------------------------------------------------------------


def test_a_large_zone_comes_in_many_messages() -> None:
    one, secondary = big(), Secondary()
    messages = ask(one, request(size=1400))
    assert len(messages) > 5
    assert all(len(message) <= MESSAGE for message in messages)
    assert all(len(message) > MESSAGE - 500 for message in messages[:-1])
    for message in messages:
        parsed = dnslib.DNSRecord.parse(message)
        assert parsed.header.id == 77 and str(parsed.q.qname) == f"{D}."
        assert [rr.rtype for rr in parsed.ar] == [41]
    assert secondary.take(messages) == "whole"
    assert secondary.records == wanted(one.catalog)
    assert not any(dnslib.DNSRecord.parse(m).ar for m in ask(one, request()))


@pytest.mark.parametrize(
    ("serial", "count"),
    [(8, 1), (9, 1), (2**31, 1), (6, None), (7, None), (8 + 2**31, None), (2**32 - 1, None)],
)
def test_who_has_it_gets_the_soa_alone(serial: int, count: int | None) -> None:
    """Equal or newer in serial arithmetic; where that is undefined, all of it."""
    one = big()
    found = [dnslib.DNSRecord.parse(m) for m in ask(one, request(IXFR, serial))]
    if count is None:
        assert len(found) > 1 and one.counted[-1][1] in ("incremental", "whole")
    else:
        assert [len(m.rr) for m in found] == [count]
        assert one.counted == [("ixfr", "current")]


def test_a_difference_larger_than_the_zone_is_not_sent() -> None:
    one, secondary = big(), Secondary()
    secondary.refresh(one.transfers)
    changed = [replace(e, weight=1) for e in BIG]
    one.apply(put(*changed), 9)
    one.publish()
    assert secondary.refresh(one.transfers) == "whole"
    assert secondary.records == wanted(one.catalog)


def test_udp() -> None:
    one = primary()
    assert only(one, request(), transport="udp").header.rcode == 1  # AXFR is not for UDP
    one.apply(put(PUBLISHED[0]), 8)
    small = ask(one, request(IXFR, 7, size=1232), transport="udp")
    assert len(small) == 1 and len(small[0]) <= 1232
    assert len(dnslib.DNSRecord.parse(small[0]).rr) > 4
    assert one.counted[-1] == ("ixfr", "incremental")
    one.apply(put(*BIG), 9)
    one.publish()
    for query in (request(IXFR, 7, size=4096), request(IXFR, 1), request(IXFR, 8)):
        alone = only(one, query, transport="udp")
        assert [rr.rtype for rr in alone.rr] == [SOA] and not alone.header.tc
        assert one.counted[-1] == ("ixfr", "soa")
    current = only(one, request(IXFR, 9), transport="udp")
    assert [rr.rtype for rr in current.rr] == [SOA]
    assert one.counted[-1] == ("ixfr", "current")


def test_over_udp_a_secondary_gets_there_too() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    one.apply(put(PUBLISHED[0]), 8)
    query = request(IXFR, 7, size=1232)
    assert secondary.take(ask(one, query, transport="udp")) == "incremental"
    assert secondary.records == wanted(one.catalog)


def test_later_changes_do_not_touch_a_transfer_under_way() -> None:
    one, whole, part = big(), Secondary(), Secondary()
    part.refresh(one.transfers)
    one.apply(put(*(replace(e, tags=("u",)) for e in BIG[:50])), 9)
    one.publish()
    nine = wanted(one.catalog)
    full = one.transfers.respond(request(), query_of(request()), CLIENT, "tcp")
    query = request(IXFR, 8)
    difference = one.transfers.respond(query, query_of(query), CLIENT, "tcp")
    first = [next(full)], [next(difference)]
    one.apply([(key, None) for key, _ in put(*BIG)], 10)
    one.publish()
    whole.take([*first[0], *full])
    part.take([*first[1], *difference])
    assert whole.serial == part.serial == 9
    assert whole.records == part.records == nine


def test_too_many_at_once_are_asked_to_come_again() -> None:
    one = big()

    def start() -> Any:
        return one.transfers.respond(request(), query_of(request()), CLIENT, "tcp")

    running = [start() for _ in range(TRANSFERS_MAX)]
    assert one.transfers.under_way == TRANSFERS_MAX
    busy = only(one, request(size=1232))
    assert (busy.header.rcode, ede(busy)) == (2, [0])
    assert one.counted[-1] == ("axfr", "busy")
    # Who has the newest serial is told so all the same.
    assert len(only(one, request(IXFR, 8)).rr) == 1
    list(running.pop())  # one ends
    last = start()
    next(last)
    assert one.transfers.under_way == TRANSFERS_MAX
    last.close()  # one is given up
    assert one.transfers.under_way == TRANSFERS_MAX - 1
    running.clear()  # the others are dropped
    gc.collect()
    assert one.transfers.under_way == 0
    assert Secondary().take(start()) == "whole"


def test_messages_are_made_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    one = big()
    made = 0
    real = Signer.sign

    def sign(self: Signer, message: bytes, now: float) -> bytes:
        nonlocal made
        made += 1
        return real(self, message, now)

    monkeypatch.setattr(Signer, "sign", sign)
    keyed(one)
    query = Signer(KEY).sign(request(), NOW)
    made = 0
    transfer = one.transfers.respond(query, query_of(query), CLIENT, "tcp")
    assert made == 0
    next(transfer)
    assert made == 1


# Signed -----------------------------------------------------------------------------------------


def check(messages: list[bytes], mac: bytes) -> None:
    """Every message is signed, each over the one before (an independent check of the first)."""
    assert verify_response(messages[0], KEY, mac, NOW)
    for message in messages:
        assert read(message) is not None


def test_with_keys_only_signed_requests_are_answered() -> None:
    one = keyed(big())
    unsigned = only(one, request(size=1232))
    assert (unsigned.header.rcode, ede(unsigned)) == (5, [18])
    signer = Signer(KEY)
    messages = ask(one, signer.sign(request(size=1232), NOW))
    assert len(messages) > 5 and all(len(m) <= MESSAGE for m in messages)
    check(messages, signer.mac)
    assert one.counted == [("axfr", "refused"), ("axfr", "whole")]


def test_without_keys_a_signature_is_of_no_known_key() -> None:
    query = Signer(KEY).sign(request(), NOW)
    assert only(primary(), query).header.rcode == 9


@pytest.mark.parametrize(
    ("key", "now", "error"),
    [
        (replace(KEY, secret=b"another secret"), NOW, 16),
        (replace(KEY, name=(b"nobody",)), NOW, 17),
        (replace(KEY, algorithm=(b"hmac-sha512",)), NOW, 17),
        (KEY, NOW - 301, 18),
    ],
)
def test_bad_signatures(key: Key, now: float, error: int) -> None:
    one = keyed(primary())
    signer = Signer(key)
    query = signer.sign(request(), now)
    (message,) = ask(one, query)
    tsig = read(message)
    assert tsig is not None and tsig.error == error
    parsed = dnslib.DNSRecord.parse(message[: tsig.start][:10] + b"\0\0" + message[12 : tsig.start])
    assert parsed.header.rcode == 9 and not parsed.rr
    assert bool(tsig.mac) is (error == 18)
    assert one.counted == [("axfr", "notauth")]


def test_the_list_of_clients_holds_for_keys_as_well() -> None:
    query = Signer(KEY).sign(request(), NOW)
    assert only(keyed(primary()), query, "203.0.113.1").header.rcode == 5


@pytest.mark.parametrize(
    ("query", "transport", "rcode"),
    [
        (request(name="example.com"), "tcp", 9),
        (request(), "udp", 1),
        (request(IXFR), "tcp", 1),
        (request(IXFR, 7), "udp", 0),
        (request(IXFR, 7), "tcp", 0),
    ],
)
def test_whatever_is_said_to_a_signed_request_is_signed(
    query: bytes, transport: str, rcode: int
) -> None:
    one = keyed(primary())
    signer = Signer(KEY)
    (message,) = ask(one, signer.sign(query, NOW), transport=transport)
    assert message[3] & 15 == rcode
    check([message], signer.mac)


def test_a_signature_fits_into_udp_too() -> None:
    one = keyed(primary())
    count = 0
    for n in range(40):  # more and more changes: up to the size, and beyond
        one.apply(put(replace(WEB[0], attributes=(("k" * n, "v"),))), 8 + n)
        signer = Signer(KEY)
        (message,) = ask(one, signer.sign(request(IXFR, 7, size=512), NOW), transport="udp")
        assert len(message) <= 512
        check([message], signer.mac)
        count += 1
    assert count == 40


def test_whatever_comes_is_answered() -> None:
    """Each octet altered, each length: one whole response to each, and no transfer to a forger."""
    one = keyed(primary())
    good = Signer(KEY).sign(request(IXFR, 6, size=1232), NOW)
    changed = [good[:n] for n in range(len(good))]
    for at in range(len(good)):
        for value in (0, 0xC0, 0xFF, good[at] ^ 1):
            changed += (good[:at] + bytes((value,)) + good[at + 1 :],)
    answered = 0
    for query in changed:
        asked = read_query(query)
        if asked is None or asked.type not in (AXFR, IXFR):
            continue
        for transport in ("udp", "tcp"):
            messages = list(one.transfers.respond(query, asked, CLIENT, transport))
            answered += 1
            assert messages and (transport == "tcp" or len(messages) == 1)
            rcodes = {message[3] & 15 for message in messages}
            assert rcodes <= {0, 1, 5, 9}
            if rcodes == {0}:  # the id, or a name's case
                assert len(query) == len(good) and query.lower()[2:] == good.lower()[2:]
    assert answered > 500


def test_queries_of_other_types_are_verified_and_signed() -> None:
    """Secondaries sign their refresh queries, and want signed answers."""
    one = keyed(primary())
    signer = Signer(KEY)
    query = signer.sign(packet(D, "SOA", size=1232), NOW)
    verdict = one.transfers.verify(query, query_of(query))
    assert isinstance(verdict, Signer)
    plain = bytes(dnslib.DNSRecord.parse(packet(D, "SOA")).reply().pack())
    response = one.transfers.sign(plain, verdict)
    assert len(response) <= len(plain) + verdict.octets
    check([response], signer.mac)
    bad = Signer(replace(KEY, secret=b"another one")).sign(packet(D, "SOA"), NOW)
    error = one.transfers.verify(bad, query_of(bad))
    assert isinstance(error, bytes) and error[3] & 15 == 9
    assert one.transfers.verify(packet(D), query_of(packet(D))) is None


def test_what_is_little_is_published_at_once() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    one.apply(put(*BIG[: respond.AT_ONCE - 10]), 8)
    secondary.refresh(one.transfers)
    assert secondary.serial == 8
    one.apply(put(*BIG), 9)  # more than a request may wait for
    assert secondary.refresh(one.transfers) == "current"
    one.publish()
    secondary.refresh(one.transfers)
    assert secondary.serial == 9
