"""NOTIFY: what is said, when, and what counts as an answer. The network is a fake one."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
import trio

from discod.metrics import Metrics
from discod.model.settings import ListenAddress
from resolver.record import to_name
from resolver.transfer import notice
from resolver.transfer.keys import Key
from resolver.transfer.notice import NEVER, Notice, answered, notify
from resolver.transfer.notifier import Notifier
from resolver.transfer.tsig import Signer, verify
from tests.transferring import D, Primary
from tests.unit.test_transfer_publisher import primary

APEX = to_name(D)
KEY = Key(to_name("key.example"), (b"hmac-sha256",), b"0123456789abcdef")


def soa() -> bytes:
    return primary().publisher.soa


# The message ------------------------------------------------------------------------------------


def test_the_message() -> None:
    parsed = dnslib.DNSRecord.parse(notify(4711, APEX, soa()))
    header = parsed.header
    assert (header.id, header.opcode, header.qr, header.aa, header.rd) == (4711, 4, 0, 1, 0)
    assert (str(parsed.q.qname), parsed.q.qtype, parsed.q.qclass) == (f"{D}.", 6, 1)
    assert [(str(rr.rname), rr.rtype, str(rr.rdata).split()[2]) for rr in parsed.rr] == [
        (f"{D}.", 6, "7")
    ]


SENT = notify(4711, APEX, soa())


def reply(sent: bytes = SENT, **changes: Any) -> bytes:
    parsed = dnslib.DNSRecord.parse(sent)
    header = dnslib.DNSHeader(id=parsed.header.id, qr=1, opcode=4, aa=1, rd=0)
    answer = dnslib.DNSRecord(header, q=parsed.q)
    for key, value in changes.items():
        setattr(header, key, value)
    return bytes(answer.pack())


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (reply(), 0),
        (reply(rcode=9), 9),
        (reply()[:12].replace(b"\0\1\0\0", b"\0\0\0\0", 1), 0),  # without the question
        (reply().replace(b"discod", b"DISCOD"), 0),
        (reply(id=4712), None),
        (reply(qr=0), None),
        (reply(opcode=0), None),
        (reply().replace(b"discod", b"discom"), None),
        (reply()[:11], None),
        (b"", None),
    ],
)
def test_answers(packet: bytes, rcode: int | None) -> None:
    assert answered(packet, SENT) == rcode


# When -------------------------------------------------------------------------------------------


def test_at_once_then_at_most_every_gap() -> None:
    one = Notice(random.Random(1))
    assert one.due == NEVER
    one.changed(10.0)
    assert one.due == 10.0
    one.sent(10.0)
    one.changed(10.01)
    assert one.due == 10.0 + notice.GAP
    one.changed(50.0)
    assert one.due == 50.0


def test_again_with_growing_pauses() -> None:
    one = Notice(random.Random(1))
    now = 0.0
    one.changed(now)
    pauses = []
    for _ in range(12):
        one.sent(now)
        pauses.append(one.due - now)
        now = one.due
    assert one.tries == 12
    for number, pause in enumerate(pauses):
        bound = min(notice.FIRST * 2**number, notice.MOST)
        assert bound / 2 <= pause <= bound
    assert one.done(0) == "ok" and one.due == NEVER
    one.changed(now)
    one.sent(now)
    assert one.due - now <= notice.FIRST and one.tries == 1


def test_an_answer_about_an_older_serial_ends_nothing() -> None:
    """It may have come, unread as yet, before the change did."""
    one = Notice(random.Random(1))
    one.changed(10.0)
    one.sent(10.0)
    one.changed(10.01)
    assert one.done(0) == "ok"
    assert one.due == 10.0 + notice.GAP
    one.sent(one.due)
    one.done(0)
    assert one.due == NEVER


@pytest.mark.parametrize(("rcode", "result"), [(0, "ok"), (4, "refused"), (5, "refused")])
def test_an_answer_ends_it_whatever_it_says(rcode: int, result: str) -> None:
    one = Notice(random.Random(1))
    one.changed(0.0)
    one.sent(0.0)
    assert one.done(rcode) == result
    assert one.due == NEVER


# On a fake network ------------------------------------------------------------------------------

Answerer = Callable[[bytes], "list[bytes]"]


@dataclass
class Network(trio.abc.SocketFactory):
    """UDP without a kernel: what is sent to an address is given to a function."""

    at: dict[tuple[str, int], Answerer] = field(default_factory=dict)
    sent: list[tuple[float, tuple[str, int], bytes]] = field(default_factory=list)

    def socket(self, family: Any = 0, type: Any = 0, proto: int = 0) -> Any:  # noqa: A002
        assert type == socket.SOCK_DGRAM
        return FakeSocket(self)

    def times(self, secondary: tuple[str, int]) -> list[float]:
        return [at for at, to, _ in self.sent if to == secondary]


class FakeSocket:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.send_answer, self.answers = trio.open_memory_channel[bytes](10)

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *args: object) -> None:
        self.send_answer.close()
        self.answers.close()

    async def connect(self, to: tuple[str, int]) -> None:
        self.to = to

    async def send(self, packet: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.network.sent.append((trio.current_time(), self.to, packet))
        if self.to not in self.network.at:
            raise ConnectionRefusedError
        for answer in self.network.at[self.to](packet):
            self.send_answer.send_nowait(answer)

    async def recv(self, size: int) -> bytes:
        return await self.answers.receive()


ONE, TWO = ("192.0.2.53", 53), ("2001:db8::53", 5353)


def silent(packet: bytes) -> list[bytes]:
    return []


def acknowledge(packet: bytes) -> list[bytes]:
    return [reply(packet)]


@asynccontextmanager
async def notifying(
    network: Network, *secondaries: tuple[str, int], key: Key | None = None
) -> AsyncIterator[tuple[Notifier, Callable[..., float]]]:
    metrics = Metrics()
    addresses = [ListenAddress(ip_address(host), port) for host, port in secondaries]
    notifier = Notifier(addresses, APEX, key, metrics, random.Random(1))

    def value(result: str, secondary: tuple[str, int] = ONE) -> float:
        labels = {"secondary": "{}:{}".format(*secondary), "result": result}
        return metrics.registry.get_sample_value("discod_dns_notifies_total", labels) or 0.0

    trio.socket.set_custom_socket_factory(network)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.testing.wait_all_tasks_blocked()
        yield notifier, value
        nursery.cancel_scope.cancel()


def serials(network: Network, secondary: tuple[str, int]) -> list[int]:
    found = []
    for _, to, packet in network.sent:
        if to == secondary:
            (rr,) = dnslib.DNSRecord.parse(packet).rr
            found.append(int(str(rr.rdata).split()[2]))
    return found


def soas() -> tuple[Primary, Callable[[int], bytes]]:
    one = primary()

    def at(serial: int) -> bytes:
        one.apply([], serial)
        one.publish()
        return one.publisher.soa

    return one, at


async def test_all_are_told_once(autojump_clock: trio.testing.MockClock) -> None:
    network = Network({ONE: acknowledge, TWO: acknowledge})
    async with notifying(network, ONE, TWO, ONE) as (notifier, value):
        notifier.changed(soa())
        await trio.sleep(600)
        assert network.times(ONE) == network.times(TWO) == [0.0]
        assert value("ok") == value("ok", TWO) == 1
        assert serials(network, ONE) == [7]
    assert dnslib.DNSRecord.parse(network.sent[0][2]).ar == []


async def test_a_burst_is_told_in_two(autojump_clock: trio.testing.MockClock) -> None:
    network = Network({ONE: acknowledge})
    _, at = soas()
    async with notifying(network, ONE) as (notifier, value):
        for serial in range(8, 28):
            notifier.changed(at(serial))
            await trio.sleep(0.001)
        await trio.sleep(600)
    assert network.times(ONE) == [0.0, pytest.approx(notice.GAP)]
    assert serials(network, ONE) == [8, 27]
    assert value("ok") == 2


async def test_a_silent_one_is_told_again_and_holds_nobody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network({ONE: silent, TWO: acknowledge})
    _, at = soas()
    async with notifying(network, ONE, TWO) as (notifier, value):
        notifier.changed(at(8))
        await trio.sleep(20)
        first = network.times(ONE)
        assert 5 <= len(first) <= 7
        assert network.times(TWO) == [0.0]
        notifier.changed(at(9))  # supersedes, and begins with short pauses
        await trio.sleep(0.05)
        network.at[ONE] = acknowledge
        await trio.sleep(600)
        assert serials(network, ONE) == [8] * len(first) + [9, 9]
        assert 20.5 <= network.times(ONE)[-1] <= 21.1
        assert value("timeout") >= len(first) and value("ok") == 1


async def test_nobody_listens_yet(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network = Network()
    async with notifying(network, ONE) as (notifier, value):
        notifier.changed(soa())
        await trio.sleep(10)
        assert value("error") == len(network.times(ONE)) >= 3
        network.at[ONE] = acknowledge
        await trio.sleep(60)
        assert value("ok") == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == ["secondary does not take NOTIFY", "secondary takes NOTIFY again"]


async def test_a_refusal_is_counted_and_not_repeated(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network({ONE: lambda packet: [reply(packet, rcode=5)]})
    async with notifying(network, ONE) as (notifier, value):
        notifier.changed(soa())
        await trio.sleep(600)
        assert network.times(ONE) == [0.0]
        assert value("refused") == 1 and value("ok") == 0


async def test_strangers_answers_do_not_count(autojump_clock: trio.testing.MockClock) -> None:
    def stranger(packet: bytes) -> list[bytes]:
        id_ = int.from_bytes(packet[:2], "big")
        return [b"", reply(packet, id=id_ ^ 1), reply(packet, opcode=0)]

    network = Network({ONE: stranger})
    async with notifying(network, ONE) as (notifier, value):
        notifier.changed(soa())
        await trio.sleep(3)
        assert value("ok") == 0 and len(network.times(ONE)) >= 2


async def test_signed_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    answers: list[str] = []

    def secondary(packet: bytes) -> list[bytes]:
        import time

        signer = verify(packet, {KEY.name: KEY}, time.time())
        assert isinstance(signer, Signer)
        answers.append("unsigned" if not answers else "signed")
        plain = reply(packet[:10] + b"\0\0" + packet[12 : len(packet) - signer.octets + 6])
        return [plain if answers[-1] == "unsigned" else signer.sign(plain, time.time())]

    network = Network({ONE: secondary})
    async with notifying(network, ONE, key=KEY) as (notifier, value):
        notifier.changed(soa())
        await trio.sleep(600)
        assert answers == ["unsigned", "signed"]
        assert value("timeout") == 1 and value("ok") == 1


async def test_nobody_to_tell(autojump_clock: trio.testing.MockClock) -> None:
    network = Network()
    async with notifying(network) as (notifier, _):
        notifier.changed(soa())
        await trio.sleep(10)
    assert network.sent == []
