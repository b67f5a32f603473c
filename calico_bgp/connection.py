"""One TCP connection to a peer, from OPEN to its end (RFC 4271, section 8).

Rule: which message may come in which state is the table `EXPECTED` and nothing else; everything
else is an FSM Error (RFC 6608). What follows for the peer as a whole is `session`'s. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import Enum
from typing import Final

from calico_bgp.attribute_values import Context
from calico_bgp.capability import GracefulRestart
from calico_bgp.message import (
    KEEPALIVE,
    KEEPALIVE_OCTETS,
    NAMES,
    NOTIFICATION,
    OPEN,
    ROUTE_REFRESH,
    UPDATE,
    Message,
    Stream,
    read,
    write,
)
from calico_bgp.notification import (
    FSM_ERROR,
    HOLD_TIMER_EXPIRED,
    BgpError,
    Notification,
)
from calico_bgp.opening import Open, check_open
from calico_bgp.peer import Peer
from calico_bgp.prefix import Family

NEVER: Final = float("inf")
OPEN_TIME: Final = 30.0
"""Seconds that a peer has for its OPEN. RFC 4271, section 8.2.2, suggests 4 minutes, from when
processors took so long; until then the way is blocked for another try."""
DEAD_AFTER: Final = 1.5
"""KEEPALIVE times without a word, after which a new connection of the peer is believed to replace
the old one: with its jitter a peer that lives speaks more often."""


class State(Enum):
    """Of a session; a connection has the last three."""

    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


EXPECTED: Final = {
    State.OPEN_SENT: frozenset({OPEN, NOTIFICATION}),
    State.OPEN_CONFIRM: frozenset({KEEPALIVE, NOTIFICATION}),
    State.ESTABLISHED: frozenset({UPDATE, KEEPALIVE, NOTIFICATION, ROUTE_REFRESH}),
}
"""Types of messages by state."""
_UNEXPECTED: Final = {State.OPEN_SENT: 1, State.OPEN_CONFIRM: 2, State.ESTABLISHED: 3}
"""Subcodes of FSM Error."""


class Connection:
    """One connection; it begins when our OPEN is to be sent.

    Args:
        id_: what the caller calls it.
        outgoing: we connected.
        ours: the OPEN that is sent.
    """

    def __init__(
        self, id_: int, *, outgoing: bool, peer: Peer, ours: Open, rng: random.Random, now: float
    ) -> None:
        self.id, self.outgoing, self.ours = id_, outgoing, ours
        self.state = State.OPEN_SENT
        self.theirs: Open | None = None
        self.families: tuple[Family, ...] = ()
        self.hold_time = 0
        self.began = now
        self.heard = now
        """When the peer spoke last."""
        self.opened = NEVER
        """When its OPEN came."""
        self.greeted = False
        """Our OPEN was sent."""
        self.promised = False
        """Our KEEPALIVE was sent: the peer may take the session for established."""
        self.agreed = False
        """Its KEEPALIVE came."""
        self.hold_due = now + OPEN_TIME
        self.keepalive_due = NEVER
        self._peer, self._rng = peer, rng
        self._stream = Stream()
        self._context = Context(peer.external)

    @property
    def wide(self) -> bool:
        """Both have 4-octet AS numbers."""
        return self._context.wide

    @property
    def restart(self) -> GracefulRestart | None:
        """What the peer said of its restarts, where both have the capability."""
        if self.theirs is None or self.ours.can.graceful_restart is None:
            return None
        return self.theirs.can.graceful_restart

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return min(self.hold_due, self.keepalive_due)

    def opening(self) -> bytes:
        """What is sent first."""
        return write(self.ours)

    def receive(self, octets: bytes, now: float) -> Iterator[Message]:
        """The messages that are whole now; stop reading once the connection is given up.

        Raises:
            BgpError: the session ends with its NOTIFICATION.
        """
        for kind, body in self._stream.feed(octets):
            self.heard = now
            # Once KEEPALIVEs went both ways the peer may be in Established before we are.
            there = State.ESTABLISHED if self.promised and self.agreed else self.state
            if kind not in EXPECTED[there]:
                why = f"{NAMES[kind]} in {self.state.value}"
                raise BgpError(Notification(FSM_ERROR, _UNEXPECTED[self.state]), why)
            if self.state is not State.OPEN_SENT and self.hold_time:
                self.hold_due = now + self.hold_time
            yield read(kind, body, self._context, self.families)

    def confirm(self, theirs: Open, now: float) -> None:
        """The peer's OPEN is good; state is OpenConfirm then. `promise` tells the peer.

        Raises:
            BgpError: it is not.
        """
        peer = self._peer
        self.families = check_open(theirs, self.ours, peer.peer_asn, peer.required)
        self.theirs, self.opened = theirs, now
        wide = None not in (theirs.can.four_octet_as, self.ours.can.four_octet_as)
        self._context = Context(peer.external, wide)
        self.hold_time = min(theirs.hold_time, self.ours.hold_time)
        self.hold_due = now + (self.hold_time or OPEN_TIME)
        self.state = State.OPEN_CONFIRM

    def promise(self, now: float) -> bytes:
        """The KEEPALIVE that answers the peer's OPEN: this connection is to stay."""
        self.promised = True
        self.spoke(now)
        return KEEPALIVE_OCTETS

    def establish(self, now: float) -> None:
        """The peer's first KEEPALIVE came."""
        self.state = State.ESTABLISHED
        self.hold_due = now + self.hold_time if self.hold_time else NEVER

    def spoke(self, now: float) -> None:
        """A KEEPALIVE or an UPDATE was sent: the next one is due (RFC 4271, section 10)."""
        if self.hold_time and self.state is not State.OPEN_SENT:
            self.keepalive_due = now + self.hold_time / 3 * self._rng.uniform(0.75, 1.0)

    def tick(self, now: float) -> bytes:
        """What is to be sent now.

        Raises:
            BgpError: the hold timer expired.
        """
        if now >= self.hold_due:
            raise BgpError(Notification(HOLD_TIMER_EXPIRED), f"in {self.state.value}")
        if now < self.keepalive_due:
            return b""
        self.spoke(now)
        return KEEPALIVE_OCTETS

    def silent(self, now: float) -> bool:
        """Whether nothing was heard for longer than a peer that lives is silent."""
        usual = self.hold_time / 3 if self.hold_time else OPEN_TIME
        return now - self.heard > DEAD_AFTER * usual
