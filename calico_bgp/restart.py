"""How long routes of a lost peer are kept (RFC 4724, section 4.2; RFC 8538, section 4).

Rule: each wait has a bound of ours, whatever the peer asks for. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from calico_bgp.capability import GracefulRestart
from calico_bgp.connection import NEVER
from calico_bgp.notification import CEASE, HARD_RESET, Notification
from calico_bgp.peer import Peer
from calico_bgp.prefix import Family
from calico_bgp.rib import AdjRibIn, Change


class Retention:
    """The stale routes of one peer."""

    def __init__(self, peer: Peer, rib: AdjRibIn) -> None:
        self._peer, self._rib = peer, rib
        self.due = NEVER
        """When what is stale is forgotten."""

    def keeps(
        self, restart: GracefulRestart | None, end: Notification | None
    ) -> GracefulRestart | None:
        """What the peer promised, where it holds for this end; None: its routes end with it.

        Without a NOTIFICATION it holds, and where both said so with one that is no Hard Reset.
        """
        if restart is None or not restart.families:
            return None
        if end is None:
            return restart
        hard = (end.code, end.subcode) == (CEASE, HARD_RESET)
        both = restart.notification and self._peer.keep_on_notification
        return restart if both and not hard else None

    def lost(self, restart: GracefulRestart | None, now: float) -> Change:
        """An established session ended; `restart` is what `keeps` said."""
        if restart is None:
            self.due = NEVER
            return self._rib.clear()
        change = self._rib.mark_stale(family for family, _ in restart.families)
        self.due = now + min(restart.time, self._peer.stale_most) if self._rib.stale else NEVER
        return change

    def back(
        self, restart: GracefulRestart | None, families: Iterable[Family], now: float
    ) -> Change:
        """The peer is back: what it did not go on forwarding is forgotten."""
        if not self._rib.stale:
            self.due = NEVER
            return Change({})
        kept = {family for family, on in restart.families if on} if restart is not None else set()
        kept &= set(families)
        change = self._rib.sweep({family for family in self._peer.families if family not in kept})
        self.due = now + self._peer.stale_most if self._rib.stale else NEVER
        return change

    def told(self, family: Family) -> Change:
        """The peer's End-of-RIB: what it did not tell again is gone."""
        change = self._rib.sweep([family])
        if not self._rib.stale:
            self.due = NEVER
        return change

    def tick(self, now: float) -> Change:
        """Forget what is stale where it is time."""
        if now < self.due:
            return Change({})
        self.due = NEVER
        return self._rib.sweep()
