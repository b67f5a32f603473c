"""When to connect to a peer, and when to leave it alone (RFC 4271, sections 8.1.1 and 8.2.2).

Rule: an attempt, a pause before the next one, an idle time: one of them at most is under way. Pure.
"""

from __future__ import annotations

import random
from typing import Final

from calico_bgp.actions import Cancel, Connect
from calico_bgp.connection import NEVER
from calico_bgp.peer import Peer
from discod.backoff import Backoff

CONNECT_TIME: Final = 5.0
"""Seconds that an attempt to connect has: three segments of a TCP that hears nothing."""


class Attempts:
    """Our side's tries of one session."""

    def __init__(self, peer: Peer, rng: random.Random) -> None:
        self._passive = peer.passive
        self._backoff = Backoff(rng, peer.retry_first, peer.retry_most)
        self._retry_due = self._idle_due = NEVER
        self.running = False
        """The operator wants the session."""
        self.idle = False
        """It rests after an error."""
        self.connecting = False

    @property
    def open(self) -> bool:
        """Whether connections are welcome."""
        return self.running and not self.idle

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return min(self._retry_due, self._idle_due)

    def start(self, now: float, *, free: bool) -> list[Connect | Cancel]:
        """Begin, out of an idle time too; `free`: there is no connection yet."""
        self.running, self.idle, self._idle_due = True, False, NEVER
        return [] if self.connecting else self._try(now, free=free)

    def stop(self) -> list[Connect | Cancel]:
        """The operator wants no session any more."""
        self.running = False
        self._idle_due = NEVER
        return self.cancel()

    def cancel(self) -> list[Connect | Cancel]:
        """No attempt is needed now."""
        self._retry_due = NEVER
        if not self.connecting:
            return []
        self.connecting = False
        return [Cancel()]

    def connected(self) -> None:
        """Our attempt succeeded."""
        self.connecting, self._retry_due = False, NEVER

    def established(self) -> list[Connect | Cancel]:
        """There is a session: pauses begin with the shortest next time."""
        self._backoff.reset()
        return self.cancel()

    def pause(self, now: float) -> None:
        """All is over for now: try again after a time that grows with each failure."""
        self.connecting = False
        if self.open:
            self._retry_due = now + self._backoff.pause()

    def rest(self, now: float, seconds: float | None) -> list[Connect | Cancel]:
        """Be idle for so long; None: until `start`."""
        self.idle = True
        self._idle_due = NEVER if seconds is None else now + seconds
        return self.cancel()

    def tick(self, now: float, *, free: bool) -> list[Connect | Cancel]:
        """What is due now."""
        if now >= self._idle_due:
            self.idle, self._idle_due = False, NEVER
            return self._try(now, free=free)
        if now >= self._retry_due:
            return [*self.cancel(), *self._try(now, free=free)]
        return []

    def _try(self, now: float, *, free: bool) -> list[Connect | Cancel]:
        if not free or self._passive:
            return []
        self.connecting = True
        self._retry_due = now + CONNECT_TIME
        return [Connect()]
