"""What is fuzzed: each target takes octets and raises when discod does something wrong with them.

Rule: `make fuzz-dns` runs every target of `TARGETS`, and `test_crashes.py` replays for each what it
once failed on; whoever adds a way into the resolver adds a line here. `ANSWERERS` are all the ways
to turn a query into a response; each has to satisfy the same judge.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from discod.model.settings import DnsSettings
from resolver.answer import Responder, Transport
from resolver.forwarding.reply import read_reply, render
from resolver.forwarding.upstreams import parse
from resolver.transfer import tsig
from resolver.transfer.keys import Key
from resolver.transfer.messages import client_serial
from resolver.transfer.notice import answered
from resolver.wire import Malformed, Query, read_query
from tests.fuzz.judge import HANDED_ON, NOERROR, NXDOMAIN, SILENCE, judge, limit_of, question_of
from tests.fuzz.reader import Bad, Message, read_answer
from tests.fuzz.seeds import CATALOG, D, name, opt, query, record, seeds, signature
from tests.hot import SECRETS, Hot
from tests.resolving import zone_with

Exchange = Callable[[bytes, Transport], "bytes | str | None"]
"""(packet, transport) -> the response, None for silence, or `HANDED_ON`."""

ERROR_OCTETS = 128
"""What an error may have beyond its question: header, OPT, cookie, an explanation."""
CLIENT = "127.0.0.1"
NOW = 1_800_000_000
"""Unix seconds."""


def _slow(settings: DnsSettings) -> Exchange:
    to = Responder(zone_with(CATALOG, settings), settings, random.Random(1), SECRETS)
    to.ready = True

    def exchange(packet: bytes, transport: Transport) -> bytes | str | None:
        outcome = to.respond(packet, CLIENT, transport, NOW)
        return HANDED_ON if outcome.forward else outcome.packet

    return exchange


def _hot(settings: DnsSettings) -> Exchange:
    """As a worker does it: what its memory has no answer for is the daemon's."""
    hot, daemon = Hot(CATALOG, settings), _slow(settings)
    hot.memo.now = NOW

    def exchange(packet: bytes, transport: Transport) -> bytes | str | None:
        answer = hot.ask(packet) if transport == "udp" else None
        return daemon(packet, transport) if answer is None else answer or None

    return exchange


ANSWERERS: dict[str, Exchange] = {
    "slow path": _slow(DnsSettings(workers=0)),
    "worker": _hot(DnsSettings()),
}
"""Every way from a query about `CATALOG` under default settings to its response."""


def check(packet: bytes, exchange: Exchange, transport: Transport = "udp") -> str | int:
    """Ask, and compare with the judge; what became of the packet.

    Raises:
        AssertionError: the response is wrong. Whatever else: it could not be made at all.
    """
    right = judge(packet)
    response = exchange(packet, transport)
    if not isinstance(response, bytes):
        fate = SILENCE if response is None else HANDED_ON
        assert fate in right, f"{fate}, not one of {set(right)}: {packet.hex()}"
        return fate
    try:
        message = read_answer(response)
    except Bad as error:
        raise AssertionError(f"no message ({error}): {response.hex()} to {packet.hex()}") from None
    shown = f"{response[:100].hex()} to {packet[:200].hex()}"
    assert message.rcode in right, f"rcode {message.rcode}, not one of {set(right)}: {shown}"
    _form(packet, response, message, shown)
    limit = 65535 if transport == "tcp" else limit_of(packet)
    assert len(response) <= limit, f"{len(response)} octets, at most {limit}: {shown}"
    if message.rcode not in (NOERROR, NXDOMAIN):
        most = len(question_of(packet) or b"") + ERROR_OCTETS
        assert len(response) <= most, f"{len(response)} octets for an error: {shown}"
        assert not message.sections[0], shown
    return message.rcode


def _form(packet: bytes, response: bytes, message: Message, shown: str) -> None:
    """RFC 1035, section 4.1.1, and RFC 6891, section 7."""
    assert response[:2] == packet[:2], f"id: {shown}"
    assert message.flags & 0x8000, f"no response: {shown}"
    assert message.opcode == packet[2] >> 3 & 15, f"opcode: {shown}"
    assert bool(message.flags & 0x0100) == bool(packet[2] & 1), f"RD: {shown}"
    assert not message.flags & 0x0040, f"Z: {shown}"
    if message.counts[0]:
        asked = question_of(packet)
        assert asked is not None, f"a question that was not asked: {shown}"
        assert response[12 : 12 + len(asked)] == asked, f"another question: {shown}"
        assert message.question_end == 12 + len(asked), shown
    if message.opts:
        assert b"\0\0\x29" in packet, f"OPT to a client that does not speak it: {shown}"


def _queries(data: bytes) -> None:
    for exchange in ANSWERERS.values():
        check(data, exchange, "udp")
        check(data, exchange, "tcp")


# Replies of upstreams -----------------------------------------------------------------------


def _readable(packets: Iterable[bytes]) -> list[Query]:
    found = [read_query(packet) for packet in packets]
    assert all(found)
    return [one for one in found if one is not None]


_ASKED = _readable(
    (
        query("www.example", "A"),
        query("www.example", "A", extra=(opt(),)),
        query("WWW.example", "TXT", extra=(opt(size=4096, ttl=0x8000),)),
    )
)


def _replies(data: bytes) -> None:
    """The first octet chooses who asked; the rest is what an upstream says behind the question."""
    asked = _ASKED[data[0] % len(_ASKED)] if data else _ASKED[0]
    reply = data[1:13] + asked.question + data[13:]
    if len(data) < 13:
        return
    try:
        kept = read_reply(reply, asked.question)
    except Malformed:
        return
    for limit in (512, 1232, 65535):
        for age, turn in ((None, 0), (0, 1), (10**6, 7)):
            done = render(kept, asked, limit, 1232, age=age, turn=turn)
            assert len(done.packet) <= limit
            id_, flags, questions, *_ = struct.unpack_from(">6H", done.packet)
            assert id_ == asked.id and flags & 0x8000 and not flags & 0x7840
            assert questions == 1
            assert done.packet[12 : 12 + len(asked.question)] == asked.question
            assert bool(flags & 0x0200) == done.truncated
            if asked.edns is None:
                assert flags & 15 == done.rcode or done.rcode > 15


def _reply_seeds() -> list[bytes]:
    found = []
    soa = name("ns.example") + name("mail.example") + struct.pack(">5I", 1, 2, 3, 4, 5)
    for i in range(len(_ASKED)):
        for answers, extra in ((0, 0), (1, 0), (40, 1), (3, 60)):
            parts = [
                bytes((i,)),
                struct.pack(">6H", 77, 0x8180, 1, answers, 1, extra + 1),
                *(record(b"\xc0\x0c", 1, 1, 60, bytes((10, 0, 0, n))) for n in range(answers)),
                record(name("example"), 6, 1, 60, soa),
                *(record(b"\xc0\x0c", 28, 1, 60, bytes(15) + bytes((n,))) for n in range(extra)),
                opt(b"\0\x0f\0\x02\0\x03", size=4096),
            ]
            found.append(b"".join(parts))
    return found


# Zone transfer ------------------------------------------------------------------------------


_KEY = Key((b"key", b"example"), (b"hmac-sha256",), bytes(32))


def _signed(data: bytes) -> None:
    """A request with a signature, good or bad; and the same as a response."""
    checked = tsig.verify(data, {_KEY.name: _KEY}, float(NOW))
    if isinstance(checked, tsig.Failure):
        response = data[:2] + b"\x80\0" + bytes(8)
        finished = checked.finish(response, float(NOW))
        assert finished[:2] == response[:2]
        assert checked.rcode in (1, 9)
    elif checked is not None:
        assert tsig.read(data) is not None
    assert not tsig.verify_response(data, _KEY, bytes(32), float(NOW)) or len(data) > 60


def _signed_seeds() -> list[bytes]:
    owners = (name("key.example"), name("other.example"))
    found = [query(D, "SOA", extra=(signature(owner),)) for owner in owners]
    found += [
        query(D, "AXFR", extra=(opt(), signature(owners[0], mac=bytes(16)))),
        query(D, "SOA", extra=(signature(owners[0], seconds=1),)),
        query(D, "SOA", extra=(signature(owners[0]), signature(owners[0]))),
    ]
    good = query(D, "SOA")
    found.append(tsig.Signer(_KEY, b"").sign(good, float(NOW)))
    return found


def _ixfr(data: bytes) -> None:
    asked = read_query(data)
    if asked is None or asked.fault or not asked.question:
        return
    try:
        assert 0 <= client_serial(data, asked) < 2**32
    except Malformed:
        return


def _notify(data: bytes) -> None:
    """What a secondary sends back."""
    sent = query(D, "SOA", flags=0x2400)
    got = answered(data, sent)
    assert got is None or (data[:2] == sent[:2] and data[2] & 0x80 and got == data[3] & 15)


# The rest -----------------------------------------------------------------------------------


def _resolv_conf(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert len(parse(text).servers) <= 3


class Target(NamedTuple):
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    """Raises when something is wrong."""
    seeds: Callable[[], Iterable[bytes]]
    weight: int = 1
    """Its share of the time."""


TARGETS: dict[str, Target] = {
    "query": Target(_queries, seeds, 8),
    "reply": Target(_replies, _reply_seeds, 4),
    "tsig": Target(_signed, _signed_seeds, 2),
    "ixfr": Target(_ixfr, lambda: [seed for seed in seeds() if b"\0\xfb\0\1" in seed]),
    "notify": Target(
        _notify,
        lambda: [query(D, "SOA", flags=0xA400), query(D, "SOA", flags=0xA405)[:12]],
    ),
    "resolv-conf": Target(
        _resolv_conf,
        lambda: [
            b"nameserver 192.0.2.53\noptions timeout:3 attempts:2\n",
            b"nameserver fe80::1%lo",
        ],
    ),
}
