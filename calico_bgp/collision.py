"""Several connections with one peer: which one stays (RFC 4271, section 6.8).

Rule: identifiers alone decide, so both sides come to the same result; but an answer to an OPEN, our
KEEPALIVE, is a promise: whoever has it may take the session for established, and then that
connection is not to be ended any more. So no promise is made on the connection that is to lose
while the other one is under way, and where one was made before the other one was there, the peer's
word is waited for: it ends one of them, or tells routes on one. Both waits take `SETTLE` at most.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from calico_bgp.connection import NEVER, Connection
from calico_bgp.notification import CEASE, COLLISION, Notification

RESOLUTION: Final = Notification(CEASE, COLLISION)
SETTLE: Final = 2.0
"""Seconds: less than the shortest hold time, in which a peer gives up a connection that is held
back; long enough for an OPEN from a host that is busy."""


class Verdict(NamedTuple):
    """What is to be done while a session is established."""

    refused: bool
    """The new connection is closed, with `RESOLUTION`."""
    dead: Connection | None = None
    """The established one, which it replaces without a word: its peer is not there any more."""


class Settled(NamedTuple):
    """What is to be done while none is."""

    ended: tuple[Connection, ...] = ()
    """With `RESOLUTION`."""
    stays: Connection | None = None
    """Its OPEN is answered, and it is established once the peer's KEEPALIVE is there."""
    due: float = NEVER
    """When to ask again, if nothing comes before."""


def judge(new: Connection, established: Connection | None, now: float) -> Verdict:
    """Whether a connection whose OPEN has come replaces the established one."""
    if established is None or new is established:
        return Verdict(refused=False)
    if not _came_back(new) and not established.silent(now):
        return Verdict(refused=True)
    return Verdict(False, established)


def settle(connections: Sequence[Connection], now: float) -> Settled:
    """Which of the connections stays; none is established, and of each side there is one at most.

    Those whose OPEN has not come are left alone while there is time.
    """
    known = [one for one in connections if one.theirs is not None]
    if not known:
        return Settled()
    if len(connections) == 1:
        return Settled(stays=known[0])
    [other] = [one for one in connections if one is not known[0]]
    winner, loser = (known[0], other) if wins(known[0], other) else (other, known[0])
    if loser.theirs is None:
        return Settled(stays=winner)
    if winner.theirs is not None and not loser.promised:
        return Settled((loser,), winner)
    due = max(loser.opened, winner.began) + SETTLE
    if now < due:
        return Settled(due=due)
    if loser.promised and not loser.agreed:  # the peer has not answered it either
        return Settled() if winner.theirs is None else Settled((loser,), winner)
    return Settled((winner,), loser)


def _came_back(new: Connection) -> bool:
    """Whether the peer says that it has restarted (RFC 4724, section 4.2).

    Section 5 drops the old connection for any new one; then two speakers that connect to one
    another at a time could undo each other's session.
    """
    return new.restart is not None and new.restart.restarting


def wins(one: Connection, other: Connection) -> bool:
    """Whether of two connections the one whose OPEN is known stays.

    That of the speaker with the higher identifier, or with equal ones of the higher AS number
    (RFC 6286, section 2.3).
    """
    assert one.theirs is not None and one.outgoing != other.outgoing
    ours = (one.ours.router_id, one.ours.asn)
    theirs = (one.theirs.router_id, one.theirs.asn)
    return one.outgoing == (ours > theirs)
