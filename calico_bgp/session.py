"""The session with one peer: the state machine of RFC 4271, section 8, without I/O.

Rule: every input returns what is to be done, in order (`actions`). Times are seconds of any one
clock that does not go back; hand in what was received before `tick`, or a daemon that was held up
takes its peer for dead. A session has at most one attempt to connect (`attempts`) and a few
connections (`connection`), of which one at most is established. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

from calico_bgp.actions import Action, Close, Down, EndOfRib, Faulty, Send, Up
from calico_bgp.attempts import Attempts
from calico_bgp.attribute_fault import Action as Todo
from calico_bgp.attributes import Attributes
from calico_bgp.collision import RESOLUTION, judge, settle
from calico_bgp.connection import NEVER, Connection, State
from calico_bgp.message import Keepalive, Message, RouteRefresh, write
from calico_bgp.notification import (
    CEASE,
    MAX_PREFIXES,
    OPEN_MESSAGE_ERROR,
    SHUTDOWN,
    UNSUPPORTED_PARAMETER,
    BgpError,
    Notification,
    hard_reset,
    shutdown,
)
from calico_bgp.opening import Open
from calico_bgp.outbox import Outbox
from calico_bgp.peer import Peer
from calico_bgp.prefix import Family, Prefix
from calico_bgp.restart import Retention
from calico_bgp.rib import AdjRibIn, Import
from calico_bgp.telling import Telling
from calico_bgp.update import Update


class Session:
    """One peer. It begins stopped, with nothing to tell.

    Raises, from whichever input tells routes: `packing.TooLong` for attributes of ours that no
    message has room for.
    """

    def __init__(self, peer: Peer, policy: Import, rng: random.Random) -> None:
        self.peer = peer
        self.established: Connection | None = None
        self.last: Down | None = None
        """How the last session or attempt ended."""
        self.updates = 0
        """UPDATE messages received."""
        self.rib = AdjRibIn(policy)
        self._rng = rng
        self._attempts = Attempts(peer, rng)
        self._telling = Telling(peer)
        self._retention = Retention(peer, self.rib)
        self._connections: dict[int, Connection] = {}
        self._settle_due = NEVER
        self._plain = False
        self._out = Outbox()

    @property
    def state(self) -> State:
        """Of the connection that is farthest; without one, of the attempts at one."""
        for state in (State.ESTABLISHED, State.OPEN_CONFIRM, State.OPEN_SENT):
            if any(one.state is state for one in self._connections.values()):
                return state
        if not self._attempts.open:
            return State.IDLE
        return State.CONNECT if self._attempts.connecting else State.ACTIVE

    @property
    def advertised(self) -> Mapping[Prefix, Attributes]:
        """What the peer was told and knows."""
        return self._telling.told

    # Inputs -------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The operator wants the session (ManualStart); ends an idle time too."""
        self._out.put(*self._attempts.start(now, free=not self._connections))
        return self._done()

    def stop(self, now: float, text: str = "", subcode: int = SHUTDOWN) -> list[Action]:
        """The operator does not (ManualStop): what was told is withdrawn, then Cease with `text`.

        What the peer told is withdrawn too.
        """
        self._out.put(*self._attempts.stop())
        self._send(self.established, self._telling.farewell(), now)
        for one in list(self._connections.values()):
            self._end(one, now, "stopped", self._final(one, shutdown(text, subcode)))
        self._out.change(self._retention.lost(None, now))
        return self._done()

    def abandon(self) -> list[Action]:
        """A successor of this process is coming: no NOTIFICATION, and no route is touched.

        A peer that has graceful restart keeps ours, and the kernel keeps its (RFC 4724, section
        4.1). The session is of no use afterwards.
        """
        self._out.put(*self._attempts.stop())
        self._out.put(*map(Close, self._connections))
        self._connections.clear()
        self.established = None
        return self._done()

    def connected(self, now: float, id_: int, *, outgoing: bool) -> list[Action]:
        """There is a connection: our attempt succeeded, or the peer's was accepted.

        `id_` is any number that no other connection of the session has had.
        """
        if outgoing:
            self._attempts.connected()
        if not self._attempts.open or (outgoing and self.established):
            self._out.put(Close(id_))
            return self._done()
        ours = self.peer.open(restarting=self._telling.restarting, plain=self._plain)
        one = Connection(id_, outgoing=outgoing, peer=self.peer, ours=ours, rng=self._rng, now=now)
        self._connections[id_] = one
        for other in list(self._connections.values()):
            # Whoever connects again has given up what he began before.
            if other.outgoing == outgoing and other not in (one, self.established):
                self._end(other, now, "replaced by a new connection", RESOLUTION, quiet=True)
        if self.established is None:
            self._greet(one)
        # Else the peer's OPEN comes first, as with DelayOpen (RFC 4271, section 8.1.1): ours could
        # make it end the connection that is established here, before our KEEPALIVE is read there.
        self._settle(now)
        return self._done()

    def connect_failed(self, now: float, why: str) -> list[Action]:
        """Our attempt did not succeed."""
        if self._attempts.connecting:
            self._attempts.pause(now)
            self.last = Down(why)
            self._out.put(self.last)
        return self._done()

    def lost(self, now: float, id_: int, why: str = "connection lost") -> list[Action]:
        """A connection ended without our doing."""
        if (one := self._connections.get(id_)) is not None:
            self._end(one, now, why, None)
            self._settle(now)
        return self._done()

    def received(self, now: float, id_: int, octets: bytes) -> list[Action]:
        """Octets came."""
        if (one := self._connections.get(id_)) is None:
            return []
        try:
            for message in one.receive(octets, now):
                self._handle(one, message, now)
                self._settle(now)
                if id_ not in self._connections:
                    break
        except BgpError as error:
            self._fail(one, now, error)
            self._settle(now)
        return self._done()

    def desired(self, now: float, routes: Mapping[Prefix, Attributes]) -> list[Action]:
        """All that the peer is to be told, as `policy.export` made it."""
        self._send(self.established, self._telling.want(routes), now)
        return self._done()

    def change(
        self, now: float, announced: Mapping[Prefix, Attributes], withdrawn: Iterable[Prefix] = ()
    ) -> list[Action]:
        """What of it has changed: costs what changes, however much there is."""
        self._send(self.established, self._telling.change(announced, withdrawn), now)
        return self._done()

    def synced(self, now: float) -> list[Action]:
        """The first full sync is done: `desired` is all there is, and End-of-RIB may go out."""
        self._send(self.established, self._telling.synced(), now)
        return self._done()

    def believe(self, policy: Import) -> list[Action]:
        """Another import policy, for what is there too."""
        self._out.change(self.rib.judge_again(policy))
        return self._done()

    def tick(self, now: float) -> list[Action]:
        """The time of the last `Arm` has come."""
        for one in list(self._connections.values()):
            try:
                if octets := one.tick(now):
                    self._out.put(Send(one.id, octets))
            except BgpError as error:
                self._fail(one, now, error)
        self._settle(now)
        self._send(self.established, self._telling.tick(now), now)
        self._out.change(self._retention.tick(now))
        self._out.put(*self._attempts.tick(now, free=not self._connections))
        self._out.fired()
        return self._done()

    # What follows -------------------------------------------------------------------------------

    def _done(self) -> list[Action]:
        return self._out.take(min(self._dues()))

    def _dues(self) -> Iterator[float]:
        yield from (self._attempts.due, self._telling.due, self._retention.due)
        if self._connections:
            yield self._settle_due
        for one in self._connections.values():
            yield one.due

    def _send(self, one: Connection | None, octets: bytes, now: float) -> None:
        """Send UPDATEs."""
        if one is not None and octets:
            self._out.put(Send(one.id, octets))
            one.spoke(now)

    def _handle(self, one: Connection, message: Message, now: float) -> None:
        if one.state is State.OPEN_CONFIRM and isinstance(message, Update | RouteRefresh):
            self._up(one, now)  # the peer is in Established: it has chosen this connection
        match message:
            case Open():
                self._opened(one, message, now)
            case Keepalive():
                one.agreed = True
            case Update():
                self._update(one, message, now)
            case RouteRefresh(family, 0) if family in one.families:
                self._send(one, self._telling.again(family, now), now)
            case Notification():
                # A peer from before RFC 5492 does not know the parameter: once more without it.
                unknown = message[:2] == (OPEN_MESSAGE_ERROR, UNSUPPORTED_PARAMETER)
                self._plain = unknown and not self._plain
                quiet = message[:2] == RESOLUTION[:2] and len(self._connections) > 1
                self._end(one, now, "the peer said so", message, received=True, quiet=quiet)

    def _opened(self, one: Connection, theirs: Open, now: float) -> None:
        """Accept an OPEN unless a session is established (RFC 4271, section 6.8)."""
        one.confirm(theirs, now)
        verdict = judge(one, self.established, now)
        if verdict.refused:
            self._end(one, now, "connection collision", RESOLUTION, quiet=True)
        elif verdict.dead is not None:
            self._end(verdict.dead, now, "replaced by a new connection", None, close=True)

    def _greet(self, one: Connection) -> None:
        one.greeted = True
        self._out.put(Send(one.id, one.opening()))

    def _settle(self, now: float) -> None:
        """Go on with the connection that stays, once that is known."""
        self._settle_due = NEVER
        if self.established is not None or not self._connections:
            return
        for one in self._connections.values():
            if not one.greeted:
                self._greet(one)
        verdict = settle(tuple(self._connections.values()), now)
        self._settle_due = verdict.due
        for other in verdict.ended:
            self._end(other, now, "connection collision", RESOLUTION, quiet=True)
        if (stays := verdict.stays) is not None:
            if not stays.promised:
                self._out.put(Send(stays.id, stays.promise(now)))
            if stays.agreed:
                self._up(stays, now)

    def _up(self, one: Connection, now: float) -> None:
        assert one.theirs is not None
        one.establish(now)
        self.established, self._plain = one, False
        self._out.put(*self._attempts.established())
        for other in list(self._connections.values()):
            if other is not one:
                self._end(other, now, "connection collision", RESOLUTION, quiet=True)
        self._out.put(Up(one.theirs, one.families, one.hold_time))
        change = self._retention.back(one.restart, one.families, now)
        self._out.change(change)
        self._send(one, self._telling.up(one, now), now)

    def _update(self, one: Connection, update: Update, now: float) -> None:
        self.updates += 1
        if (worst := update.action) is not None:
            if worst.action == Todo.SESSION_RESET:
                raise BgpError(worst.notification, str(worst))
            self._out.put(Faulty(update.faults))
        self._out.change(self.rib.apply(update))
        if (family := update.end_of_rib) is not None:
            self._out.change(self._retention.told(family))
            self._out.flush()  # whoever sweeps at an End-of-RIB has to know all before it
            self._out.put(EndOfRib(family))
        if most := self.peer.max_prefixes:
            for family, count in self.rib.received.items():
                if count > most:
                    self._too_many(one, family, count, now)
                    return

    def _too_many(self, one: Connection, family: Family, count: int, now: float) -> None:
        """RFC 4486, section 4: with the family and the maximum."""
        most = self.peer.max_prefixes
        data = bytes((0, family.afi, family.safi)) + most.to_bytes(4, "big")
        why = f"{count} prefixes of {family}, at most {most}"
        self._end(one, now, why, self._final(one, Notification(CEASE, MAX_PREFIXES, data)))
        self._out.put(*self._attempts.rest(now, self.peer.max_prefixes_restart))

    def _final(self, one: Connection, end: Notification) -> Notification:
        """The same, so that routes end with it (RFC 8538, section 3)."""
        kept = one.restart is not None and one.restart.notification
        return hard_reset(end) if kept and self.peer.keep_on_notification else end

    def _fail(self, one: Connection, now: float, error: BgpError) -> None:
        """The peer broke the protocol, or is silent."""
        self._end(one, now, error.why, error.notification)
        if not self._connections:
            self._out.put(*self._attempts.rest(now, self.peer.idle_hold))

    def _end(
        self,
        one: Connection,
        now: float,
        why: str,
        end: Notification | None,
        *,
        received: bool = False,
        close: bool = False,
        quiet: bool = False,
    ) -> None:
        """A connection ends: with a NOTIFICATION of ours, or one that was received, or none.

        Without one it was lost and needs no `close`. With `quiet` another one goes on in its
        place, and it is nothing to speak of.
        """
        del self._connections[one.id]
        sent = end is not None and not received
        if end is not None and sent:
            self._out.put(Send(one.id, write(end)))
        if end is not None or close:
            self._out.put(Close(one.id))
        retained = None
        if was_up := one is self.established:
            self.established = None
            self._telling.down()
            retained = self._retention.keeps(one.restart, end)
            self._out.change(self._retention.lost(retained, now))
        if not quiet:
            self.last = Down(why, end, sent, was_up, retained is not None)
            self._out.put(self.last)
        if not self._connections and not self._attempts.connecting:
            self._attempts.pause(now)
