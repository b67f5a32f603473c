"""One worker's place: its sockets, the process that serves them, and the next when that is gone.

Rule: there is somebody to answer at any time. The worker does while it serves; the daemon does
itself before, after and in between. For a moment both may: a packet is taken by one of them, and
either is right.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import trio

from discod.backoff import Backoff
from discod.log import fields
from resolver import udp
from resolver.hot import delegated, spawn
from resolver.hot.merge import Merger, Reading
from resolver.hot.pulse import LOOK, Pulse
from resolver.hot.slots import APPLIED, HEARTBEAT, SERVING, STATE
from resolver.hot.spawn import Worker
from resolver.hot.sync import Feed, News
from resolver.udp import Handle, Relay

log = logging.getLogger(__name__)

STARTING_LOOK: Final = 0.01
"""Seconds between two looks at a worker that is to serve soon: so much sooner it relieves us."""
STEADY: Final = 10.0
"""Seconds of life after which an end is news, not the next one of a row: restart at once."""
PAUSE_FIRST, PAUSE_MOST = 0.1, 10.0
"""Seconds between the starts of a worker that keeps ending."""

Reason = Literal["ended", "frozen"]


class Lane:
    """Keeps its sockets served.

    Args:
        sockets: UDP; they stay the caller's.
        news: What to tell the worker.
        handle: Answers what the worker does not, and all while there is none.
        relay: Forwards.
        merger: Where the worker's counters go.
        changed: Called when a worker begins or ceases to serve.
        replaced: Called when a worker is to be replaced.
        rng: For the jitter of pauses.
        boot: Python source that the worker runs.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        news: News,
        handle: Handle[Any],
        relay: Relay[Any],
        merger: Merger,
        *,
        changed: Callable[[], None],
        replaced: Callable[[Reason], None],
        rng: random.Random,
        boot: str = spawn.BOOT,
    ) -> None:
        self._sockets = sockets
        self._news = news
        self._handle, self._relay = handle, relay
        self._merger = merger
        self._changed, self._replaced = changed, replaced
        self._rng = rng
        self._boot = boot
        self._reading: Reading | None = None
        self._feed: Feed | None = None
        self._slots: memoryview | None = None
        self._untold = trio.Event()
        self._up, self._down = trio.Event(), trio.Event()
        self.pid = 0
        """Of the present worker; 0: there is none."""
        self.serving = False
        """Whether the worker answers, not the daemon."""

    @property
    def current(self) -> bool:
        """Whether what is answered is the present state (the daemon's own answers always are)."""
        if not self.serving or self._feed is None or self._slots is None:
            return True
        return self._feed.idle and self._slots[APPLIED] == self._feed.number

    def merge(self) -> None:
        """Bring the metrics up to date."""
        if self._reading is not None:
            self._reading.merge()

    async def run(self) -> None:
        """Serve until cancelled; nothing is left of the worker then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stand_in, nursery)
            await self._keep(nursery)

    async def _stand_in(self, forwards: trio.Nursery) -> None:
        """Answer while no worker does."""
        while True:
            async with trio.open_nursery() as nursery:
                for sock in self._sockets:
                    nursery.start_soon(udp.serve, sock, self._handle, self._relay, forwards)
                await self._up.wait()  # for as long as it takes: everything is answered
                nursery.cancel_scope.cancel()
            await self._down.wait()  # as long as a worker serves

    async def _keep(self, forwards: trio.Nursery) -> None:
        """Start a worker, and the next when it is gone: at once, or after a growing pause."""
        backoff = Backoff(self._rng, PAUSE_FIRST, PAUSE_MOST)
        failures = 0
        while True:
            begun = trio.current_time()
            try:
                worker = await spawn.start(self._sockets, self._boot)
            except OSError as error:
                log.error("worker cannot be started", extra=fields(error=error))
            else:
                self._replaced(await self._life(worker, forwards))
            if trio.current_time() - begun >= STEADY:
                failures = 0
                backoff.reset()
            failures += 1
            if failures > 1:
                await trio.sleep(backoff.pause())

    async def _life(self, worker: Worker, forwards: trio.Nursery) -> Reason:
        """All of one worker's life; why it is over."""
        self.pid = worker.pid
        self._reading = Reading(self._merger, worker.row.slots)
        self._slots = worker.row.slots
        self._feed = feed = self._news.feed(self._wake)
        frozen = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, worker, feed)
                nursery.start_soon(
                    delegated.serve,
                    worker.queries,
                    self._sockets,
                    self._handle,
                    self._relay,
                    forwards,
                )
                nursery.start_soon(self._mourn, worker, nursery.cancel_scope)
                await self._watch(worker)
                frozen = True
                nursery.cancel_scope.cancel()
        finally:
            self._serves(False)
            self._news.leave(feed)
            if not await worker.end(kill=frozen):
                log.error("worker does not die", extra=fields(pid=worker.pid, state=worker.state()))
            self._reading.merge()
            self._reading = self._feed = self._slots = None
            worker.close()
            self.pid = 0
        return "frozen" if frozen else "ended"

    async def _mourn(self, worker: Worker, scope: trio.CancelScope) -> None:
        status = await worker.ended()
        log.error("worker ended", extra=fields(pid=worker.pid, status=status))
        scope.cancel()

    async def _watch(self, worker: Worker) -> None:
        """Follow the worker's state until it is frozen."""
        slots = worker.row.slots
        pulse = Pulse(time.monotonic())

        def sign() -> object:
            return slots[HEARTBEAT], slots[APPLIED]

        while True:
            serves = slots[STATE] == SERVING
            # Its memory is the only place where this is told, and it is cheap to look at.
            await trio.sleep(LOOK if serves else STARTING_LOOK)
            verdict = pulse.look(time.monotonic(), sign, serves, worker.state)
            if verdict == "frozen":
                log.error(
                    "worker is frozen",
                    extra=fields(
                        pid=worker.pid, state=worker.state(), silent=f"{pulse.silence:.2f}"
                    ),
                )
                return
            if verdict == "starved" and self.serving:
                log.warning("worker is starved of processor time", extra=fields(pid=worker.pid))
            self._serves(verdict == "well" and slots[STATE] == SERVING)

    async def _tell(self, worker: Worker, feed: Feed) -> None:
        """Tell the worker what is new, and then wait for more, for as long as there is none."""
        while True:
            self._untold = trio.Event()
            while frames := feed.frames():
                if not await _send(worker.control, frames):
                    return  # it is about to end
            await self._untold.wait()

    def _wake(self) -> None:
        self._untold.set()

    def _serves(self, yes: bool) -> None:
        if yes == self.serving:
            return
        self.serving = yes
        if yes:
            log.info("worker serves", extra=fields(pid=self.pid))
            self._down = trio.Event()
            self._up.set()
        else:
            self._up = trio.Event()
            self._down.set()
        self._changed()


async def _send(control: socket.socket, data: bytes) -> bool:
    """Send it all; False when nobody reads any more.

    Waits for as long as it takes: a worker that does not read does not live, which is noticed by
    its pulse.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[control.send(left) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(control)
        except ConnectionError:
            return False
    await trio.lowlevel.checkpoint()
    return True
