"""The octets of a connection, over real sockets and over anything else."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from resolver.pipe import Pipe
from resolver.tcp import TcpServer
from tests.unit.test_tcp import framed, receive

MANY = bytes(range(256)) * 8192
"""More than a socket takes at once."""


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ends = [trio.SocketStream(trio.socket.from_stdlib_socket(s)) for s in (ours, theirs)]
    async with ends[0], ends[1]:
        yield ends[0], ends[1]


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    found = b""
    async for chunk in stream:
        found += chunk
    return found


async def test_what_is_sent_is_received() -> None:
    async with connected() as (ours, theirs):
        pipe = Pipe(theirs)
        await ours.send_all(b"abcdef")
        assert await pipe.receive(4) == b"abcd"
        assert await pipe.receive(4) == b"ef"
        await ours.send_eof()
        assert await pipe.receive(4) == b""
        assert pipe.write(b"ghi") == 3
        assert await ours.receive_some(9) == b"ghi"


async def test_as_much_is_written_as_the_kernel_takes_at_once() -> None:
    async with connected() as (ours, theirs):
        pipe = Pipe(theirs)
        taken, some = 0, 1
        while some:
            some = pipe.write(MANY)
            taken += some
        assert taken > 0
        await theirs.send_eof()
        with trio.fail_after(60):
            assert len(await everything(ours)) == taken


async def test_waiting_ends_with_its_scope() -> None:
    async with connected() as (_ours, theirs):
        with trio.move_on_after(0.01) as scope:
            await Pipe(theirs).receive(4)
        assert scope.cancelled_caught


async def test_a_connection_that_was_reset_is_broken() -> None:
    async with connected() as (ours, theirs):
        pipe = Pipe(theirs)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await ours.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await pipe.receive(4)
        with pytest.raises(trio.BrokenResourceError):
            pipe.write(b"x")


async def test_any_other_stream_will_do() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    pipe = Pipe(theirs)
    await ours.send_all(b"abc")
    assert await pipe.receive(9) == b"abc"
    assert pipe.write(b"def") == 0


# Below a server -------------------------------------------------------------------------------


class Served:
    """Answers each message in capitals, and remembers who asked in which order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = trio.Event()
        self.first: Callable[[], object] = lambda: None
        """Called when the first question comes."""

    def handle(self, packet: bytes, client: str, _transport: str) -> bytes | str:
        if not self.asked:
            self.first()
        self.asked.append(client)
        return "later" if packet == b"later" else packet.upper()

    async def relay(self, what: str, _transport: str) -> bytes:
        await self.release.wait()
        return what.encode() * 10_000


async def test_a_client_that_asks_much_at_once_lets_others_have_their_turn() -> None:
    served = Served()
    server: TcpServer[str] = TcpServer(served.handle, served.relay, lambda _: None)
    async with connected() as (much, one), connected() as (little, two):
        await much.send_all(framed(b"x") * 5000)
        served.first = partial(os.write, little.socket.fileno(), framed(b"y"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, one, "much", "tcp")
            nursery.start_soon(server.serve_stream, two, "little", "tcp")
            assert await receive(little) == b"Y"
            got = b""
            while len(got) < 3 * 5000:
                got += await much.receive_some(65536)
            nursery.cancel_scope.cancel()
        assert got == framed(b"X") * 5000
        assert served.asked.index("little") < 2500


async def test_messages_stay_whole_where_the_client_takes_them_slowly() -> None:
    served = Served()
    server: TcpServer[str] = TcpServer(served.handle, served.relay, lambda _: None)
    big = b"z" * 60_000
    async with connected() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs, "192.0.2.1", "tcp")

        @nursery.start_soon
        async def ask() -> None:
            for _ in range(8):
                await ours.send_all(framed(b"later", big, b"a"))
            served.release.set()

        found = [await receive(ours) for _ in range(24)]
        nursery.cancel_scope.cancel()
    assert sorted(set(found), key=str) == [b"A", big.upper(), b"later" * 10_000]
    assert [found.count(one) for one in (b"A", big.upper(), b"later" * 10_000)] == [8, 8, 8]
