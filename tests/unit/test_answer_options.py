"""What hangs on EDNS options and on the rate: cookies, limits, and what others' responses get."""

from __future__ import annotations

from typing import Any

import dnslib
import pytest

from discod.model.settings import DnsSettings
from resolver.answer import Outcome, Responder
from resolver.encode import add_options
from resolver.wire import Malformed
from tests.resolving import NAMED, packet, responder

D = "discod.internal"
NAME = f"web.{D}"
CLIENT = "10.9.8.7"
SECRETS = (b"s" * 16,)
NOW = 1_800_000_000.5


def query(*options: tuple[int, bytes], name: str = NAME, size: int = 1232) -> bytes:
    asked = dnslib.DNSRecord.parse(packet(name))
    asked.add_ar(dnslib.EDNS0(udp_len=size, opts=[dnslib.EDNSOption(c, d) for c, d in options]))
    return bytes(asked.pack())


def options_of(raw: bytes | None) -> dict[int, bytes]:
    assert raw is not None
    (opt,) = [rr for rr in dnslib.DNSRecord.parse(raw).ar if rr.rtype == 41]
    return {option.code: bytes(option.data) for option in opt.rdata}


def rcode(raw: bytes | None) -> int:
    assert raw is not None
    response = dnslib.DNSRecord.parse(raw)
    high = [rr.ttl >> 24 << 4 for rr in response.ar if rr.rtype == 41]
    return int(response.header.rcode) | int(sum(high))


def made(secrets: tuple[bytes, ...] = SECRETS, **settings: Any) -> Responder:
    to = responder(NAMED["all"])
    to.configure(DnsSettings(**settings), secrets)
    return to


def asked(to: Responder, raw: bytes, **more: Any) -> Outcome:
    call: dict[str, Any] = {"client": CLIENT, "transport": "udp", "now": NOW} | more
    return to.respond(raw, call["client"], call["transport"], call["now"])


# The rate -------------------------------------------------------------------------------------

FRESH = (10, b"12345678")
BAD = (10, b"12345678" + b"x" * 16)


def spent(**settings: Any) -> Responder:
    """A responder whose client has had its share of this second."""
    to = made(rate_limit=3, **settings)
    assert [asked(to, packet(NAME)).limited for _ in range(3)] == ["pass"] * 3
    return to


def test_above_the_rate_a_plain_client_is_sent_to_tcp() -> None:
    to = spent(rate_slip=1)
    outcome = asked(to, packet(f"big.{D}"))
    assert outcome.packet is not None and outcome.limited == "slip" and outcome.truncated
    response = dnslib.DNSRecord.parse(outcome.packet)
    assert response.header.tc == 1 and response.header.rcode == 0
    assert not (response.rr or response.auth or response.ar)
    assert len(outcome.packet) == len(packet(f"big.{D}"))  # amplifies nothing
    assert asked(to, packet(NAME), transport="tcp").limited == "pass"
    assert asked(to, packet(NAME), client="10.9.9.7").limited == "pass"
    assert asked(to, packet(NAME), now=NOW + 1).limited == "pass"


@pytest.mark.parametrize("cookie", [FRESH, BAD])
def test_above_the_rate_a_cookie_is_answered_with_the_right_one(cookie: tuple[int, bytes]) -> None:
    to = spent(rate_slip=1)
    outcome = asked(to, query(cookie, name=f"big.{D}"))
    assert (outcome.limited, outcome.rcode, rcode(outcome.packet)) == ("slip", 23, 23)
    told = options_of(outcome.packet)[10]
    again = asked(to, query((10, told)))
    assert (again.limited, again.cookie, rcode(again.packet)) == ("pass", "valid", 0)


def test_most_of_what_is_above_the_rate_is_dropped() -> None:
    to = spent(rate_slip=3)
    outcomes = [asked(to, packet(NAME)) for _ in range(9)]
    assert [o.limited for o in outcomes] == ["drop", "drop", "slip"] * 3
    dropped = outcomes[0]
    assert dropped.packet is None and dropped.query is not None and not dropped.forward
    to = spent(rate_slip=0)
    assert {asked(to, packet(NAME)).limited for _ in range(9)} == {"drop"}


def test_every_response_counts_whatever_it_says() -> None:
    for raw in (packet("example.com"), packet(f"no.{D}"), packet(NAME)[:-1], query((10, b"bad"))):
        to = made(rate_limit=2, rate_slip=1)
        assert [asked(to, raw).limited for _ in range(3)] == ["pass", "pass", "slip"]
    to = made(rate_limit=1, allow=())
    assert [asked(to, packet(NAME)).limited for _ in range(2)] == ["pass", "drop"]
    to = made(rate_limit=1)
    assert asked(to, packet(NAME)[:5]).limited == "pass"  # no response, nothing to count
    assert asked(to, packet(NAME)).limited == "pass"


def test_a_malformed_query_above_the_rate_is_told_so() -> None:
    to = spent(rate_slip=1)
    assert rcode(asked(to, packet(NAME)[:-1]).packet) == 1
    assert rcode(asked(to, query((10, b"bad"))).packet) == 1


def test_no_limit_by_default() -> None:
    to = made()
    assert {asked(to, packet(NAME)).limited for _ in range(5000)} == {"pass"}


def test_a_reload_keeps_the_count() -> None:
    to = spent(rate_slip=0)
    to.configure(DnsSettings(rate_limit=3, rate_slip=0, udp_size=600))
    assert asked(to, packet(NAME)).limited == "drop"
    to.configure(DnsSettings(rate_limit=4, rate_slip=0))
    assert asked(to, packet(NAME)).limited == "pass"


# Cookies --------------------------------------------------------------------------------------


def test_secrets_can_be_changed() -> None:
    to = made()
    _, old = asked(to, query(FRESH)), options_of(asked(to, query(FRESH)).packet)[10]
    to.configure(DnsSettings())  # as before
    assert asked(to, query((10, old))).cookie == "valid"
    to.configure(DnsSettings(), (b"t" * 16, *SECRETS))
    outcome = asked(to, query((10, old)))
    assert outcome.cookie == "valid" and options_of(outcome.packet)[10] != old
    to.configure(DnsSettings(), (b"t" * 16,))
    assert asked(to, query((10, old))).cookie == "bad"
    to.configure(DnsSettings(cookies=False))
    assert asked(to, query((10, old))).cookie is None
    to.configure(DnsSettings())
    assert asked(to, query((10, old))).cookie == "bad"


@pytest.mark.parametrize("option", [(10, b""), (10, b"x" * 15), (10, b"x" * 41)])
def test_a_malformed_cookie_is_no_query(option: tuple[int, bytes]) -> None:
    outcome = asked(made(), query(option))
    assert (outcome.cookie, rcode(outcome.packet)) == ("malformed", 1)
    assert options_of(outcome.packet) == {}
    off = asked(made(cookies=False), query(option))  # who speaks no cookies knows their length
    assert (off.cookie, rcode(off.packet)) == ("malformed", 1)


def test_a_cookie_is_of_the_address_not_of_how_it_is_written() -> None:
    to = made(allow=DnsSettings().allow)
    told = options_of(asked(to, query(FRESH)).packet)[10]
    assert asked(to, query((10, told)), client=f"::ffff:{CLIENT}").cookie == "valid"
    assert asked(to, query((10, told)), client="10.9.8.8").cookie == "bad"


def test_strangers_get_a_cookie_and_nothing_else() -> None:
    to = made(allow=(), server_id="ns")
    outcome = asked(to, query(FRESH, (3, b"")))
    assert outcome.refused
    assert set(options_of(outcome.packet)) == {10, 15}


def test_all_options_at_once_fit_and_are_told() -> None:
    to = made(server_id="n" * 64)
    raw = query((3, b""), FRESH, (11, b""), (12, b"\0" * 100), (8, b"\0\1\0\0"), name=f"big.{D}")
    assert set(options_of(asked(to, raw).packet)) == {3, 10}
    assert set(options_of(asked(to, raw, transport="tcp").packet)) == {3, 10, 11}
    secure = asked(to, raw, transport="tls").packet
    assert secure is not None and len(secure) % 468 == 0
    assert set(options_of(secure)) == {3, 10, 11, 12}
    small = asked(to, query((3, b""), FRESH, name=f"big.{D}", size=512)).packet
    assert small is not None and len(small) <= 512 and set(options_of(small)) == {3, 10}


# Responses of others ----------------------------------------------------------------------------


def test_a_forwarded_query_says_what_its_response_needs() -> None:
    to = made(server_id="ns")
    outcome = asked(to, query((3, b""), FRESH, name="example.com"))
    assert outcome.forward and outcome.client == CLIENT
    assert outcome.limit == 1232 - (4 + 2) - (4 + 24)
    assert [code for code, _ in outcome.options] == [3, 10]
    plain = asked(to, packet("example.com"))
    assert (plain.limit, plain.options, plain.padded) == (512, (), False)
    secure = asked(to, query((12, b""), name="example.com"), transport="tls")
    assert secure.padded and secure.limit == 65535


def reply(records: int, *, edns: bool = True) -> bytes:
    response = dnslib.DNSRecord.parse(packet("example.com")).reply()
    for i in range(records):
        response.add_answer(dnslib.RR("example.com", 1, ttl=60, rdata=dnslib.A(f"10.0.0.{i}")))
    if edns:
        response.add_ar(dnslib.EDNS0(udp_len=1232, opts=[dnslib.EDNSOption(15, b"\0\3")]))
    return bytes(response.pack())


@pytest.mark.parametrize("records", [0, 1, 30])
def test_options_are_added(records: int) -> None:
    raw = reply(records)
    got = add_options(raw, [(10, b"c" * 24), (3, b"ns")], 1232)
    assert options_of(got) == {15: b"\0\3", 10: b"c" * 24, 3: b"ns"}
    before, after = dnslib.DNSRecord.parse(raw), dnslib.DNSRecord.parse(got)
    assert [str(rr) for rr in before.rr] == [str(rr) for rr in after.rr]
    assert len(got) == len(raw) + 28 + 6
    padded = add_options(raw, [(3, b"ns")], 65535, padded=True)
    assert len(padded) % 468 == 0 and {3, 12} < set(options_of(padded))


def test_what_does_not_fit_is_not_added() -> None:
    raw = reply(30)
    assert add_options(raw, [(3, b"x")], len(raw) + 5) != raw
    assert add_options(raw, [(3, b"x")], len(raw) + 4) == raw
    for room in range(40):
        got = add_options(raw, [(3, b"x")], len(raw) + room, padded=True)
        assert len(got) <= len(raw) + room
        dnslib.DNSRecord.parse(got)


def test_without_edns_nothing_is_added() -> None:
    raw = reply(2, edns=False)
    assert add_options(raw, [(3, b"x")], 1232, padded=True) == raw
    with pytest.raises(Malformed):
        add_options(reply(2)[:-1], [(3, b"x")], 1232)
