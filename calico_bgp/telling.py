"""What a peer is told, and when it has been told all (RFC 4724, section 4.1).

Rule: the caller says what the peer is to know; what goes out is the difference to what it knows.
End-of-RIB waits for the first full sync of this process, and for its bound at most. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from calico_bgp.attributes import Attributes
from calico_bgp.connection import NEVER, Connection
from calico_bgp.message import UPDATE, frame
from calico_bgp.packing import pack
from calico_bgp.peer import Peer
from calico_bgp.prefix import Family, Prefix
from calico_bgp.rib import AdjRibOut, Change, amend
from calico_bgp.update import write_end_of_rib

REFRESH_GAP: Final = 1.0
"""Seconds between two answers to a ROUTE-REFRESH: it has 23 octets, and its answer may have a
million."""
SLICE: Final = 1000
"""Routes told in one go where a session begins: some 3 ms; the rest follows tick by tick."""


class Telling:
    """The outward half of one session; what it returns is to be sent on the established one."""

    def __init__(self, peer: Peer) -> None:
        self._most = peer.end_of_rib_most
        self._desired: dict[Prefix, Attributes] = {}
        self._out = AdjRibOut()
        self._on: Connection | None = None
        self._first: Iterator[Prefix] | None = None
        """What is yet to be told of what was desired when the session began."""
        self._now = NEVER
        self._synced = False
        self.restarting = peer.restarting
        """Said in our OPENs until a peer has had its End-of-RIB."""
        self._end_due = NEVER
        self._asked: dict[Family, float] = {}
        self._answered: dict[Family, float] = {}
        """ROUTE-REFRESHes: when the answer is due, and when the last one was."""

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        end_due = self._end_due if self._first is None else self._now
        return min(end_due, *self._asked.values(), NEVER)

    @property
    def told(self) -> Mapping[Prefix, Attributes]:
        """What the peer knows."""
        return self._out.advertised

    def up(self, one: Connection, now: float) -> bytes:
        """A session is established, and its peer knows nothing."""
        self.down()
        self._on, self._end_due = one, now + self._most
        self._first = iter(list(self._desired))
        return self._begin(now)

    def _begin(self, now: float) -> bytes:
        """Go on telling a peer that knows nothing; End-of-RIB is behind all of it."""
        assert self._first is not None
        desired, told = self._desired, self._out.advertised
        some = list(islice(self._first, SLICE))
        routes = self._tell(
            self._out.change({p: desired[p] for p in some if p in desired and p not in told}, ())
        )
        if len(told) < len(desired) and len(some) == SLICE:
            self._now = now
            return routes
        self._all_told()
        return routes + self._end_of_rib() if self._synced or now >= self._end_due else routes

    def _all_told(self) -> None:
        """From now on what is told and what is desired are one and the same mapping."""
        self._first, self._out.advertised = None, self._desired

    def down(self) -> None:
        """It has ended."""
        self._on, self._out, self._end_due = None, AdjRibOut(), NEVER
        self._first = None
        self._asked, self._answered = {}, {}

    def want(self, routes: Mapping[Prefix, Attributes]) -> bytes:
        """What the peer is to know from now on."""
        self._desired = dict(routes)
        if self._on is None:
            return b""
        octets = self._tell(self._out.set(self._desired))
        if self._first is None:
            return octets
        self._first = None
        return octets + self._end_of_rib() if self._synced else octets

    def change(self, announced: Mapping[Prefix, Attributes], withdrawn: Iterable[Prefix]) -> bytes:
        """The same as a difference to what was wanted before."""
        if self._on is None:
            amend(self._desired, announced, withdrawn)
            return b""
        if self._first is not None:
            withdrawn = list(withdrawn)
            amend(self._desired, announced, withdrawn)
        return self._tell(self._out.change(announced, withdrawn))

    def farewell(self) -> bytes:
        """Everything is withdrawn; what is desired stays so, for another session."""
        self._first = None
        return self._tell(self._out.set({}))

    def again(self, family: Family, now: float) -> bytes:
        """The peer asks for all of a family (RFC 2918, section 4)."""
        earliest = self._answered.get(family, now - REFRESH_GAP) + REFRESH_GAP
        self._asked.setdefault(family, max(now, earliest))
        return self.tick(now)

    def synced(self) -> bytes:
        """What is desired is all there is."""
        self._synced = True
        waits = self._end_due != NEVER and self._first is None
        return self._end_of_rib() if waits else b""

    def tick(self, now: float) -> bytes:
        """What is due now."""
        parts = []
        if self._first is not None:
            parts.append(self._begin(now))
        elif now >= self._end_due:
            parts.append(self._end_of_rib())
        for family in [family for family, due in self._asked.items() if now >= due]:
            del self._asked[family]
            self._answered[family] = now
            parts.append(self._tell(Change(self._out.of(family))))
        return b"".join(parts)

    def _end_of_rib(self) -> bytes:
        self._end_due, self.restarting = NEVER, False
        if self._on is None:
            return b""
        return b"".join([frame(UPDATE, write_end_of_rib(one)) for one in self._on.families])

    def _tell(self, change: Change) -> bytes:
        if self._on is None or not change:
            return b""
        agreed = self._on.families
        announced = {p: told for p, told in change.announced.items() if p.family in agreed}
        withdrawn = [prefix for prefix in change.withdrawn if prefix.family in agreed]
        return b"".join(pack(announced, withdrawn, wide=self._on.wide))
