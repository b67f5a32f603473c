"""The engine's events on their way from the reading thread to trio.

Rule: the thread never waits for trio, since the engine drops events that nobody reads for 100 ms
(weave#3705, moby#36928). What trio does not take in time is replaced by one `Resync`, so the reader
always knows that something is missing, though not what.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Self

import trio

from announcer.errors import EngineUnavailable
from announcer.events import EngineEvent, Resync, parse_event
from discod.log import fields

log = logging.getLogger(__name__)

QUEUE_MAX = 4096
"""Events that may wait for trio: 1,000 containers that all start and stop at once make about as
many, and take the engine far longer than trio is ever away."""
LINE_MAX = 1 << 20
"""Octets of one event; its attributes hold all labels of the container."""


class EventStream:
    """Events in the engine's order. One task iterates; the other methods are for the engine."""

    def __init__(self, token: trio.lowlevel.TrioToken, limit: int = QUEUE_MAX) -> None:
        self._token = token
        self._limit = limit
        self._items: deque[EngineEvent | Resync] = deque()
        self._lossy = False  # the last item is a Resync for a full queue; only the thread asks
        self._rest = b""
        self._skipping = False
        self._wake = trio.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._end = ""
        self.ready = trio.Event()
        """Set when the engine has accepted the request, or the stream ended before."""
        self.accepted = False
        """Whether the engine has ever accepted the request."""
        self.read = 0
        """Chunks read so far: a sign of life."""

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> EngineEvent | Resync:
        """The next event, in the engine's order.

        Raises:
            EngineUnavailable: the stream ended; nothing more will come.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            self.raise_if_ended()
            self._wake = trio.Event()
            # What the thread adds from here on sets this Event after the wait has begun.
            await self._wake.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self._items.popleft()

    def raise_if_ended(self) -> None:
        """Raise EngineUnavailable if nothing more will come from the engine."""
        if self._end:
            raise EngineUnavailable(self._end)

    # From any thread --------------------------------------------------------------------------

    def opened(self, connection: socket.socket) -> None:
        """The engine accepted; `connection` is what `close` has to cut."""
        with self._lock:
            self._socket = connection
            self.accepted = True
            if self._end:
                self._cut()
        self._soon(self.ready.set)

    def feed(self, chunk: bytes) -> None:
        """Take octets of the engine's stream: JSON documents, each ended by a newline."""
        self.read += 1
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False  # the end of the line that was too long
            elif line.strip():
                self._line(line)
        if len(rest) > LINE_MAX:
            self._malformed(f"longer than {LINE_MAX} octets", rest)
            self._skipping = True
        self._rest = b"" if self._skipping else rest

    def end(self, reason: str) -> None:
        """No more events, for `reason`; the first one given counts."""
        with self._lock:
            self._end = self._end or reason
            self._cut()
        self._soon(self.ready.set)
        self._soon(self._wake_up)

    def _cut(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reading thread
            except OSError:
                log.debug("event connection was closed already")
            self._socket = None

    def _line(self, line: bytes) -> None:
        try:
            event = parse_event(line)
        except ValueError as error:
            self._malformed(str(error), line)
        else:
            if event is not None:
                self._put(event)

    def _malformed(self, error: str, line: bytes) -> None:
        log.warning(
            "engine event skipped as malformed", extra=fields(error=error, event=line[:200])
        )
        self._put(Resync("malformed event"))

    def _put(self, item: EngineEvent | Resync) -> None:
        if len(self._items) < self._limit:
            self._items.append(item)
            self._lossy = False
        elif not self._lossy:
            self._items.append(Resync("more events than could be handled"))
            self._lossy = True
        self._soon(self._wake_up)

    def _wake_up(self) -> None:
        self._wake.set()

    def _soon(self, what: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(what, idempotent=True)
        except trio.RunFinishedError:
            log.debug("event after the end")
