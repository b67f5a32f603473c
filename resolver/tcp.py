"""Serves DNS over TCP (RFC 7766).

Rule: a connection may ask many questions without waiting. Responses from memory keep their order;
forwarded ones come when they come. What a client can hold is bounded: connections (the one idle
for longest is closed for a new one), forwarded queries of a connection (it is not read meanwhile),
and the time between two whole queries or for taking a response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from discod.log import fields
from resolver.udp import Handle, Relay
from resolver.wire import Query

log = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 32
"""Forwarded queries of one connection."""
FLUSH_COUNT: Final = 32
FLUSH_OCTETS: Final = 65536
"""Responses are sent together up to these; other tasks get their turn then."""
RECEIVE: Final = 16384
"""Octets taken at once."""


@dataclass(eq=False, slots=True)
class _Connection:
    stream: trio.SocketStream
    client: str
    """Address."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    in_flight: int = 0
    slots: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(IN_FLIGHT_MAX))
    writing: trio.Lock = field(default_factory=trio.Lock)
    active: float = field(default_factory=trio.current_time)
    """When it last was other than idle, trio's clock."""


class TcpServer:
    """All TCP connections of the resolver, on whatever listener they came in.

    Args:
        changed: Told the number of open connections.
    """

    def __init__(self, handle: Handle, relay: Relay, changed: Callable[[int], None]) -> None:
        self._handle = handle
        self._relay = relay
        self._changed = changed
        self._open: dict[_Connection, None] = {}  # the one idle for longest first
        self.idle = 10.0
        self.connections_max = 256

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve a listener until cancelled; it is closed then."""
        await trio.serve_listeners(self._serve_one, [listener])

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        try:
            connection = _Connection(stream, stream.socket.getpeername()[0])
        except OSError:  # reset before we got to it
            await trio.aclose_forcefully(stream)
            return
        try:
            if len(self._open) >= self.connections_max and not self._make_room():
                return
            self._open[connection] = None
            self._changed(len(self._open))
            with connection.scope:
                await self._converse(connection)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection broke", extra=fields(error="reset by the client"))
        finally:
            if self._open.pop(connection, 0) is None:
                self._changed(len(self._open))
            await trio.aclose_forcefully(stream)

    def _make_room(self) -> bool:
        victim = next((c for c in self._open if not c.in_flight), None)
        if victim is None:
            return False
        del self._open[victim]
        victim.scope.cancel()
        return True

    def _touch(self, connection: _Connection) -> None:
        connection.active = trio.current_time()
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    async def _converse(self, connection: _Connection) -> None:
        buffer = bytearray()
        async with trio.open_nursery() as nursery:
            while True:
                chunk = None
                with trio.move_on_at(connection.active + self.idle):
                    chunk = await connection.stream.receive_some(RECEIVE)
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
        out: list[bytes] = []
        octets = 0
        at = 0
        while len(buffer) - at >= 2:
            end = at + 2 + int.from_bytes(buffer[at : at + 2], "big")
            if end > len(buffer):
                break
            response = self._handle(bytes(buffer[at + 2 : end]), connection.client, "tcp")
            at = end
            self._touch(connection)
            if response is None:
                await self._send(connection, out)
                return False
            if isinstance(response, bytes):
                out += (len(response).to_bytes(2, "big"), response)
                octets += len(response)
                if octets < FLUSH_OCTETS and len(out) < 2 * FLUSH_COUNT:
                    continue
            await self._send(connection, out)
            out, octets = [], 0
            if not isinstance(response, bytes):
                await connection.slots.acquire()
                connection.in_flight += 1
                nursery.start_soon(self._forward, connection, response)
        del buffer[:at]
        await self._send(connection, out)
        return True

    async def _forward(self, connection: _Connection, query: Query) -> None:
        try:
            response = await self._relay(query, "tcp")
            await self._send(connection, [len(response).to_bytes(2, "big"), response])
            self._touch(connection)
        finally:
            connection.in_flight -= 1
            connection.slots.release()

    async def _send(self, connection: _Connection, parts: list[bytes]) -> None:
        if not parts:
            return
        with trio.move_on_after(self.idle) as deadline:
            async with connection.writing:
                await connection.stream.send_all(b"".join(parts))
        if deadline.cancelled_caught:
            connection.scope.cancel()  # half a response may be out: nothing can follow it
