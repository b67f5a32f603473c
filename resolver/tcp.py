"""Serves DNS over TCP (RFC 7766) and over TLS (RFC 7858).

Rule: a connection may ask many questions without waiting. Responses from memory keep their order;
those that take time come when they come. What a client can hold is bounded: connections (see
`discod.model.places`), responses under way of a connection (it is not read meanwhile), and the time
for a handshake, between two whole queries, or for taking a response.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic

import trio

from discod.log import fields
from discod.model.places import Places, holder_of
from resolver.answer import Transport
from resolver.hot.recall import Recall
from resolver.pipe import Pipe
from resolver.udp import Handle, Q, Relay

log = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 32
"""Responses of one connection that are waited for: forwarded queries and zone transfers."""
FLUSH_PARTS: Final = 192
FLUSH_OCTETS: Final = 65536
"""Responses are sent together up to these (a response has three parts at most); other tasks get
their turn then."""
RECEIVE: Final = 16384
"""Octets taken at once."""
HANDSHAKE_MAX: Final = 5.0
"""Seconds for the handshake of TLS, if `TcpServer.idle` is not less."""
CLOSE_MAX: Final = 0.5
"""Seconds to say good-bye over TLS."""


@dataclass(eq=False, slots=True)
class _Connection:
    stream: trio.abc.Stream
    client: str
    """Address."""
    transport: Transport
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    in_flight: int = 0
    slots: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(IN_FLIGHT_MAX))
    writing: trio.Lock = field(default_factory=trio.Lock)
    active: float = field(default_factory=trio.current_time)
    """When it last was other than idle, trio's clock."""
    holder: str = field(init=False)
    """Whom its place counts for."""
    pipe: Pipe = field(init=False)

    def __post_init__(self) -> None:
        self.holder = holder_of(self.client)
        self.pipe = Pipe(self.stream)


class TcpServer(Generic[Q]):
    """All connections of the resolver, on whatever listener they came in.

    Args:
        handle: Answers one packet.
        relay: Does what `handle` leaves to be done.
        changed: Told the number of open connections.
    """

    def __init__(self, handle: Handle[Q], relay: Relay[Q], changed: Callable[[int], None]) -> None:
        self._handle = handle
        self._relay = relay
        self._changed = changed
        self._places: Places[_Connection] = Places()
        self.idle = 10.0
        self.connections_max = 256
        self.recall: Recall | None = None
        """Answers from memory, before `handle` is asked."""
        self.tls: ssl.SSLContext | None = None
        """For `serve_tls`; a new one counts from the next connection on."""

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve a listener until cancelled; it is closed then."""
        await trio.serve_listeners(self._serve_tcp, [listener])

    async def serve_tls(self, listener: trio.SocketListener) -> None:
        """Serve DNS over TLS until cancelled, with the certificate of `tls`."""
        await trio.serve_listeners(self._serve_tls, [listener])

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        await self.serve_stream(stream, _peer(stream), "tcp")

    async def _serve_tls(self, stream: trio.SocketStream) -> None:
        if self.tls is None:
            await trio.aclose_forcefully(stream)
            return
        # The TCP end of a message tells it whole, as its length does: see RFC 7858, section 3.4.
        secure = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        await self.serve_stream(secure, _peer(stream), "tls")

    async def serve_stream(
        self, stream: trio.abc.Stream, client: str, transport: Transport
    ) -> None:
        """Serve one connection to its end; `client` is the peer's address, empty: it has gone."""
        connection = _Connection(stream, client, transport)
        try:
            if not client or not self._admit(connection):
                return
            with connection.scope:
                if isinstance(stream, trio.SSLStream):
                    with trio.move_on_after(min(HANDSHAKE_MAX, self.idle)) as deadline:
                        await stream.do_handshake()
                    if deadline.cancelled_caught:
                        return
                    self._touch(connection)
                await self._converse(connection)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection broke", extra=fields(client=client, proto=transport))
        finally:
            if self._places.give_up(connection, connection.holder):
                self._changed(len(self._places))
            await _close(stream)

    def _admit(self, connection: _Connection) -> bool:
        """Give it a place, another's if need be."""
        if len(self._places) >= self.connections_max:
            found = self._places.victim(connection.holder, lambda c: not c.in_flight)
            if found is None:
                return False
            victim, holder = found
            self._places.give_up(victim, holder)
            victim.scope.cancel()
        self._places.take(connection, connection.holder)
        self._changed(len(self._places))
        return True

    def _touch(self, connection: _Connection) -> None:
        connection.active = trio.current_time()
        if not connection.scope.cancel_called:
            self._places.take(connection, connection.holder)

    async def _converse(self, connection: _Connection) -> None:
        buffer = bytearray()
        async with trio.open_nursery() as nursery:
            while True:
                chunk = None
                with trio.move_on_at(connection.active + self.idle):
                    chunk = await connection.pipe.receive(RECEIVE)
                if chunk is None and connection.in_flight and not buffer:
                    connection.active = trio.current_time()  # it is we who keep it waiting
                    continue
                if not chunk:
                    return  # idle for too long, or the client is done; what is in flight goes out
                buffer += chunk
                if not await self._answer_all(connection, buffer, nursery):
                    return

    async def _answer_all(
        self, connection: _Connection, buffer: bytearray, nursery: trio.Nursery
    ) -> bool:
        """Take the whole messages out of `buffer`; False: the client talks something else."""
        data = bytes(buffer)
        at = 0
        out: list[bytes] = []
        while True:
            at = self._from_memory(connection, data, at, out)
            end = _end(data, at)
            response: bytes | Iterator[bytes] | Q | None = b""
            if end and len(out) < FLUSH_PARTS and sum(map(len, out)) < FLUSH_OCTETS:
                response = self._handle(data[at + 2 : end], connection.client, connection.transport)
                at = end
                if isinstance(response, bytes):
                    out += (len(response).to_bytes(2, "big"), response)
                    continue
            if at:
                self._touch(connection)
            await self._send(connection, out)
            out = []
            if response is None:
                return False
            if not isinstance(response, bytes):
                await connection.slots.acquire()
                connection.in_flight += 1
                nursery.start_soon(self._later, connection, response)
            if not end:
                break
            await trio.lowlevel.checkpoint()  # there is more to answer, and others wait as well
        del buffer[:at]
        if at:
            self._touch(connection)  # sending may have taken its time
        return True

    def _from_memory(self, connection: _Connection, data: bytes, at: int, out: list[bytes]) -> int:
        """Answer the messages from `at` on as far as memory goes; where that is."""
        recall = self.recall
        client = connection.client
        if recall is None or not recall.usable(client, int(time.time())):
            return at
        start = time.perf_counter_ns()
        keys, ids, ends = _frames(data, at, (FLUSH_PARTS - len(out)) // 3)
        found = recall.find_all(keys, client, FLUSH_OCTETS) if keys else ()
        if not found:
            return at
        # Where not all were found, `ids` goes on.
        answered = zip(found, ids, strict=False)
        out += [part for (size, body, _), id_ in answered for part in (size, id_, body)]
        recall.told(connection.transport, found, time.perf_counter_ns() - start)
        return ends[len(found) - 1]

    async def _later(self, connection: _Connection, response: Iterator[bytes] | Q) -> None:
        try:
            if isinstance(response, Iterator):
                await self._stream(connection, response)
            else:
                message = await self._relay(response, connection.transport)
                await self._send(connection, [len(message).to_bytes(2, "big"), message])
            self._touch(connection)
        finally:
            connection.in_flight -= 1
            connection.slots.release()

    async def _stream(self, connection: _Connection, messages: Iterator[bytes]) -> None:
        """Send messages one by one; they are made no faster than the client takes them."""
        try:
            for message in messages:
                await self._send(connection, [len(message).to_bytes(2, "big"), message])
                await trio.lowlevel.checkpoint()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:  # a fault of ours over one transfer must not end the service
            log.exception(
                "transfer failed by a fault of discod", extra=fields(client=connection.client)
            )
            connection.scope.cancel()  # the client sees that it is not whole
        finally:
            close = getattr(messages, "close", None)
            if close is not None:
                close()

    async def _send(self, connection: _Connection, parts: list[bytes]) -> None:
        if not parts:
            return
        data = b"".join(parts)
        mine = not connection.writing.locked()
        if mine:
            data = data[connection.pipe.write(data) :]
            if not data:
                return
            connection.writing.acquire_nowait()  # before anybody else has a turn
        with trio.move_on_after(self.idle) as deadline:
            if not mine:
                await connection.writing.acquire()
            try:
                await connection.stream.send_all(data)
            finally:
                connection.writing.release()
        if deadline.cancelled_caught:
            connection.scope.cancel()  # half a response may be out: nothing can follow it


def _frames(data: bytes, at: int, most: int) -> tuple[list[bytes], list[bytes], list[int]]:
    """The whole messages from `at` on without their ids, the ids, and where each message ends."""
    keys: list[bytes] = []
    ids: list[bytes] = []
    ends: list[int] = []
    size = len(data)
    while len(keys) < most and size - at >= 2:
        end = at + 2 + (data[at] << 8 | data[at + 1])
        if end > size:
            break
        keys.append(data[at + 4 : end])
        ids.append(data[at + 2 : at + 4])
        ends.append(end)
        at = end
    return keys, ids, ends


def _end(data: bytes, at: int) -> int:
    """Where the message that begins at `at` ends; 0 when it is not whole."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return end if at + 2 <= len(data) and end <= len(data) else 0


def _peer(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # reset before we got to it
        return ""


async def _close(stream: trio.abc.Stream) -> None:
    """Close it; over TLS with a word, if that is quickly said."""
    if isinstance(stream, trio.SSLStream):
        with trio.move_on_after(CLOSE_MAX) as scope:
            scope.shield = True
            try:
                await stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("connection broke before its end")
    await trio.aclose_forcefully(stream)
