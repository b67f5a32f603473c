"""One connection's octets, in and out.

Rule: reads a little at a time and hands it on at once; writes from a queue that is bounded in
octets and in time, so a peer that does not read ends its own session and holds nobody up. After
`close` everything queued goes out, then the peer's end is awaited for `CLOSE_TIME` at most: closing
with unread octets would reset the connection, and the NOTIFICATION with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from calico_bgp import tcp
from calico_bgp.transport import Link

RECEIVE: Final = 8192
"""Octets at a time: up to 1,600 routes, some 10 ms of work; then it is others' turn."""
SEND: Final = 65536
"""Octets at a time: what has to be taken by the peer in one `send_time`."""
QUEUE_MAX: Final = 32 << 20
"""Octets that may wait for a peer: about five million /32 of one kind. Full: the peer does not
keep up, and its connection ends."""
CLOSE_TIME: Final = 3.0
"""Seconds for what is left to be written, and for the peer to close."""


class Wire:
    """One connection.

    Args:
        id_: what the session calls it.
        received: is handed octets; does not raise.
        lost: is called once if the connection ends without our `close`, with why.
        send_time: seconds in which the peer has to take something (RFC 9687).
        room: returns once there is room for more of what is received.
    """

    def __init__(
        self,
        id_: int,
        link: Link,
        received: Callable[[int, bytes], None],
        lost: Callable[[int, str], None],
        send_time: float,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self.id, self.link = id_, link
        self.send_time = send_time
        self.waiting = 0
        """Octets queued."""
        self._received, self._lost, self._room = received, lost, room
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._closing = False
        self._why = ""

    def send(self, octets: bytes) -> None:
        """Write behind all that is queued."""
        if self._why:
            return
        self._queue.append(octets)
        self.waiting += len(octets)
        if self.waiting > QUEUE_MAX:
            self._end(f"the peer does not read: {self.waiting} octets wait")
        self._wake.set()

    def close(self) -> None:
        """Write what is queued, then close; nothing is reported any more."""
        self._closing = True
        self._scope.deadline = trio.current_time() + CLOSE_TIME
        self._wake.set()

    async def run(self) -> None:
        """Until the connection is over."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
        finally:
            # Forcefully: does not wait, and runs when cancelled too.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self.link.stream)
        if not self._closing:
            self._lost(self.id, self._why or "connection lost")

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._scope.cancel()

    async def _read(self) -> None:
        try:
            while octets := await self.link.stream.receive_some(RECEIVE):
                if not self._closing:
                    self._received(self.id, bytes(octets))
                    await self._room()
            self._end("closed by the peer")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(_why(error))

    async def _write(self) -> None:
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                octets = self._take()
                with trio.move_on_after(self.send_time) as scope:
                    await self.link.stream.send_all(octets)
                if scope.cancelled_caught:
                    self._end("Send Hold Timer Expired")  # RFC 9687, section 3
                    return
            await self.link.stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(_why(error))

    def _take(self) -> bytes:
        """The next octets, `SEND` of them at most."""
        parts: list[bytes] = []
        room = SEND
        while self._queue and room:
            part = self._queue.popleft()
            if len(part) > room:
                self._queue.appendleft(part[room:])
                part = part[:room]
            parts.append(part)
            room -= len(part)
        octets = b"".join(parts)
        self.waiting -= len(octets)
        return octets


def _why(error: Exception) -> str:
    cause = error.__cause__
    return tcp.why(cause) if isinstance(cause, OSError) else "connection broken"
