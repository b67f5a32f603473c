"""Batches of datagrams on real sockets of the loopback interface."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from resolver.hot.mmsg import IP_PKTINFO, RECEIVE_MAX, Batch, address_of, packed, piece

V4, V6 = socket.AF_INET, socket.AF_INET6


def bound(family: int, address: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if address == "0.0.0.0":
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    if address == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.bind((address, 0))
    return sock


@pytest.fixture
def pair() -> Iterator[tuple[Batch, socket.socket]]:
    with closing(bound(V4, "127.0.0.1")) as server, closing(bound(V4, "127.0.0.1")) as client:
        client.connect(server.getsockname())
        client.settimeout(5)
        yield Batch(server, 8), client


def wait(batch: Batch) -> int:
    assert select.select([batch.fd], [], [], 5)[0]
    return batch.receive()


LARGEST = 4096
HELD: list[bytes] = []


def own(body: bytes) -> bytes:
    HELD.append(body)  # whoever sends it holds it
    return piece((0, len(body), 8, body))


def test_nothing_there(pair: tuple[Batch, socket.socket]) -> None:
    assert pair[0].receive() == 0


def test_a_batch_there_and_back(pair: tuple[Batch, socket.socket]) -> None:
    batch, client = pair
    for i in range(5):
        client.send(b"I%d" % i + b"question" * i)
    assert wait(batch) == 5
    assert batch.packets(5) == [b"question" * i for i in range(5)]
    assert [batch.id(i) for i in range(5)] == [b"I%d" % i for i in range(5)]
    assert [packed(peer) for peer in batch.peers(5)] == [bytes((127, 0, 0, 1))] * 5
    assert batch.client(4) == bytes((127, 0, 0, 1))
    fixed = b"the same for all"
    shared = piece((address_of(fixed), len(fixed), 7, fixed))
    found = [own(b"own %d" % slot) if slot % 2 else shared for slot in range(5)]
    assert batch.fill(found) == bytearray((7, 8, 7, 8, 7))
    batch.send(0, 5)
    got = {client.recv(100) for _ in range(5)}
    assert got == {b"I0" + fixed, b"I1own 1", b"I2" + fixed, b"I3own 3", b"I4" + fixed}


def test_a_gap_is_not_sent(pair: tuple[Batch, socket.socket]) -> None:
    batch, client = pair
    for i in range(4):
        client.send(b"I%d" % i)
    assert wait(batch) == 4
    batch.fill([own(b"!") for slot in range(4)])
    batch.send(0, 1)
    batch.send(3, 4)
    assert [client.recv(100) for _ in range(2)] == [b"I0!", b"I3!"]
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)


def test_what_is_too_long_or_too_short(pair: tuple[Batch, socket.socket]) -> None:
    batch, client = pair
    client.send(b"xx" + b"y" * (RECEIVE_MAX - 2))
    client.send(b"xx" + b"y" * RECEIVE_MAX)
    client.send(b"x")
    client.send(b"")
    assert wait(batch) == 4
    assert [len(packet) for packet in batch.packets(4)] == [RECEIVE_MAX - 2, 0, 0, 0]


def test_the_largest_response(pair: tuple[Batch, socket.socket]) -> None:
    batch, client = pair
    client.send(b"II")
    assert wait(batch) == 1
    batch.fill([own(b"z" * LARGEST)])
    batch.send(0, 1)
    assert len(client.recv(65535)) == LARGEST + 2


def test_one_that_cannot_be_sent_does_not_stop_the_others(
    pair: tuple[Batch, socket.socket],
) -> None:
    batch, client = pair
    for _ in range(3):
        client.send(b"II")
    assert wait(batch) == 3
    found = [own(b"%d" % slot) for slot in range(3)]
    longest = b"z" * (1 << 20)  # more than a datagram holds: EMSGSIZE
    found[1] = piece((address_of(longest), len(longest), 0, longest))
    batch.fill(found)
    batch.send(0, 3)
    assert {client.recv(100) for _ in range(2)} == {b"II0", b"II2"}
    assert batch.failed == 1


@pytest.mark.parametrize(
    ("family", "wildcard", "asked"),
    [(V4, "0.0.0.0", "127.0.0.5"), (V4, "0.0.0.0", "127.0.0.1"), (V6, "::", "::1")],
)
def test_a_wildcard_answers_from_the_address_that_was_asked(
    family: int, wildcard: str, asked: str
) -> None:
    with closing(bound(family, wildcard)) as server, closing(bound(family, asked)) as client:
        batch = Batch(server, 4)
        client.settimeout(5)
        for turn in range(3):  # what the kernel wrote of one turn does no harm in the next
            for _ in range(turn + 1):
                client.sendto(b"II", (asked, server.getsockname()[1]))
            assert wait(batch) == turn + 1  # on loopback, what was sent is there
            assert batch.local(0)[:-4] == socket.inet_pton(family, asked)
            assert int.from_bytes(batch.local(0)[-4:], "little") > 0
            batch.fill([own(b"!") for slot in range(turn + 1)])
            batch.send(0, turn + 1)
            for _ in range(turn + 1):
                data, source = client.recvfrom(100)
                assert data == b"II!"
                assert source[0] == asked


def test_ipv6_clients() -> None:
    with closing(bound(V6, "::1")) as server, closing(bound(V6, "::1")) as client:
        batch = Batch(server, 2)
        client.sendto(b"II", server.getsockname()[:2])
        assert wait(batch) == 1
        assert [packed(peer) for peer in batch.peers(1)] == [bytes(15) + b"\1"]
        assert batch.local(0) == b""
        assert len(batch.source(0)) == 28
        batch.fill([own(b"!")])
        batch.send(0, 1)
        client.settimeout(5)
        assert client.recv(10) == b"II!"


def test_a_closed_socket_is_an_error() -> None:
    server = bound(V4, "127.0.0.1")
    batch = Batch(server, 2)
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.receive()
