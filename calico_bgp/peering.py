"""One peer: the tasks around its session, and what is seen of it.

Rule: every input of the session goes through `feed`, whose actions are done before the next one and
without waiting; so the session is never entered twice. A fault of this program in there ends this
peer's session only, is logged with its traceback, and the peer is begun anew after a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

import trio

from calico_bgp import tcp
from calico_bgp.actions import (
    Action,
    Arm,
    Cancel,
    Close,
    Connect,
    Down,
    EndOfRib,
    Faulty,
    Routes,
    Send,
    Up,
)
from calico_bgp.counts import PeerCounts, updates
from calico_bgp.exporter import Exporter
from calico_bgp.hub import Hub
from calico_bgp.journal import Journal
from calico_bgp.notification import OTHER_CHANGE
from calico_bgp.plan import Plan
from calico_bgp.policy import Importer
from calico_bgp.prefix import IPV4, IPV6, Family, Prefix
from calico_bgp.session import Session
from calico_bgp.transport import Link
from calico_bgp.wire import CLOSE_TIME, Wire
from discod.backoff import Backoff

CONNECT_MOST: Final = 4.5
"""Seconds of one attempt: ends, with its reason, before the session begins the next one."""
WIRES_MOST: Final = 6
"""Connections with one peer at a time, closing ones included; more are refused."""
TELL: Final = 1000
"""Routes told in one go: some 3 ms."""
CRASH_FIRST, CRASH_MOST = 1.0, 60.0
"""Seconds until a peer is begun anew after a fault of this program."""
SEND_LEAST: Final = 20.0
"""Seconds in which a peer has to take what is sent, and twice the hold time at least. RFC 9687,
section 5, suggests 8 minutes; a host that is stuck is to be noticed sooner."""
QUIET: Final = 5.0
"""Seconds after which a peer without graceful restart, which tells no End-of-RIB, has told all."""


class Peering:
    """One peer; `run` is its task."""

    def __init__(self, plan: Plan, hub: Hub) -> None:
        self.plan = plan
        self.counts = PeerCounts()
        self.session: Session | None = None
        self.done = trio.Event()
        """It was stopped, and its connections are closed."""
        self.complete = False
        """It has told all it has, once."""
        self.journal = Journal(plan.name, plan.address, hub.wall)
        self._hub = hub
        self._next = plan
        self._stopped = False
        self._ending = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._failure: Exception | None = None
        self._ids = 0
        self._wires: dict[int, Wire] = {}
        """Of the session."""
        self._open: set[Wire] = set()
        """Those that are closing too."""
        self._closed = trio.Event()
        self._attempt = trio.CancelScope()
        self._armed = self._waited = float("inf")
        self._rearmed = trio.Event()
        self._link: Link | None = None
        self._router_id = plan.peer.router_id
        self._up_at = float("inf")
        self._left: set[Family] = set()
        self._dirty: dict[Prefix, None] = {}
        self._changed = trio.Event()
        self._synced = False
        self._exporter = self._make_exporter()

    # What the speaker calls ---------------------------------------------------------------------

    async def run(self) -> None:
        """Until stopped."""
        backoff = Backoff(self._hub.rng, CRASH_FIRST, CRASH_MOST)
        while not self._stopped:
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - a fault here must not end other peers
                self.counts.crashes += 1
                self._hub.forget(self.plan.address)
                pause = backoff.pause()
                self.journal.crashed(error, pause)
                with trio.move_on_after(pause):
                    await self._ending.wait()
        self.done.set()

    def stop(self, text: str, subcode: int) -> None:
        """End it for good: Cease with `text`; `done` tells when all is written."""
        self._stopped = True
        self.feed(lambda session, now: session.stop(now, text, subcode))
        self._ending.set()

    def adopt(self, plan: Plan) -> None:
        """Another plan: without touching the session where that can be."""
        old, self._next = self._next, plan
        self.journal.name = plan.name
        peer = replace(
            plan.peer,
            max_prefixes=old.peer.max_prefixes,
            max_prefixes_restart=old.peer.max_prefixes_restart,
        )
        if (peer, plan.dial) != (old.peer, old.dial):
            self.feed(lambda session, now: session.stop(now, "", OTHER_CHANGE))
            self._ending.set()
            return
        self.plan = plan
        if self.session is not None:
            self.session.peer = replace(
                self.session.peer,
                max_prefixes=plan.peer.max_prefixes,
                max_prefixes_restart=plan.peer.max_prefixes_restart,
            )
        importer = Importer(plan.policy, plan.peering)
        self.feed(lambda session, now: session.believe(importer))
        self.refresh()

    def accepted(self, link: Link) -> bool:
        """The peer has connected; False: it has too many connections already."""
        if self._nursery is None or self._ending.is_set() or len(self._open) >= WIRES_MOST:
            return False
        self._join(link, outgoing=False)
        return True

    def mark(self, prefixes: Iterable[Prefix]) -> None:
        """What is told of these may be another now. Bounded by how many prefixes there are."""
        self._dirty.update(dict.fromkeys(prefixes))
        self._changed.set()

    def refresh(self) -> None:
        """What is told of everything may be another now."""
        self._exporter = self._make_exporter()
        told = () if self.session is None else self.session.advertised
        self.mark((*told, *self._hub.everything()))

    def synced(self) -> None:
        """The first full sync is over."""
        self._changed.set()

    @property
    def planned(self) -> Plan:
        """The plan it has, or is about to begin anew with."""
        return self._next

    @property
    def interface(self) -> str:
        """Of the session, for link-local next hops; empty: not known."""
        return "" if self._link is None else tcp.interface_of(self._link.local)

    def has_told(self, now: float) -> bool:
        """Whether it has told all it has, as far as can be known."""
        if self.complete:
            return True
        established = None if self.session is None else self.session.established
        if established is not None and established.restart is None:
            self.complete = now >= self._up_at + QUIET
        return self.complete

    def feed(self, act: Callable[[Session, float], list[Action]]) -> None:
        """One input of the session."""
        session = self.session
        if session is None or self._failure is not None:
            return
        before = session.state
        try:
            for action in act(session, trio.current_time()):
                self._do(session, action)
        except Exception as error:  # noqa: BLE001 - whoever feeds it must not fall with it
            self._failure = error
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
        if session.state is not before:
            self.journal.state_changed()

    # One session --------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._ending = trio.Event()
        plan = self.plan = self._next
        peer = replace(plan.peer, restarting=self._hub.restarting and plan.peer.restart_time > 0)
        session = Session(peer, Importer(plan.policy, plan.peering), self._hub.rng)
        self._failure, self._synced = None, False
        self._wires, self._open = {}, set()
        self._armed = float("inf")
        self._dirty = {}
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self.session = nursery, session
                self.journal.state_changed()
                self.refresh()
                nursery.start_soon(self._tick)
                nursery.start_soon(self._tell)
                self.feed(lambda session, now: session.start(now))
                await self._ending.wait()
                with trio.move_on_after(CLOSE_TIME + 1):
                    while self._open:
                        await self._closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            # Cancelled from outside: no NOTIFICATION, as a successor may be coming.
            session.abandon()
            self._nursery = self.session = self._link = None
            self.journal.state_changed()
        if self._failure is not None:
            raise self._failure

    def _do(self, session: Session, action: Action) -> None:
        match action:
            case Send(id_, octets):
                self.counts.octets_sent += len(octets)
                self.counts.updates_sent += updates(octets)
                self._wires[id_].send(octets)
            case Routes(change):
                self._hub.inflow.put(
                    change, self.plan.address, self._router_id, external=self.plan.peer.external
                )
            case Arm(at):
                self._armed = float("inf") if at is None else at
                if self._armed < self._waited:
                    self._rearmed.set()
            case Connect():
                assert self._nursery is not None
                self._attempt = trio.CancelScope()
                self._nursery.start_soon(self._connect, self._attempt)
            case Cancel():
                self._attempt.cancel()
            case Close(id_):
                self._wires.pop(id_).close()
            case Up():
                self._up(session, action)
            case Down():
                self._down(action)
            case EndOfRib(family):
                self._hub.inflow.then(lambda: self._end_of_rib(family))
            case Faulty(faults):
                self.counts.faulty_updates += 1
                self.journal.faulty(faults)

    def _up(self, session: Session, up: Up) -> None:
        assert session.established is not None
        self.counts.established += 1
        self._router_id = up.theirs.router_id
        self._up_at = trio.current_time()
        self._left = set(up.families)
        wire = self._wires[session.established.id]
        self._link = wire.link
        wire.send_time = max(SEND_LEAST, 2 * up.hold_time)
        self.journal.up(up, wire.link.local)

    def _down(self, down: Down) -> None:
        if down.notification is not None:
            if down.sent:
                self.counts.notifications_sent += 1
            else:
                self.counts.notifications_received += 1
        if down.was_up:
            self.counts.lost += 1
        else:
            self.counts.failed += 1
        self.journal.down(down)

    def _end_of_rib(self, family: Family) -> None:
        self._left.discard(family)
        if not self._left:
            self.complete = True
            self._hub.told()

    # Tasks --------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self._rearmed, self._waited = trio.Event(), self._armed
            with trio.move_on_at(self._waited):
                await self._rearmed.wait()
            if trio.current_time() < self._armed:
                continue
            # What has arrived is heard first: readers that were woken with us, or before, have had
            # their turn then. Else a daemon that was held up would take its peers for dead.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if trio.current_time() >= self._armed:
                self._armed = float("inf")
                self.feed(lambda session, now: session.tick(now))

    async def _tell(self) -> None:
        while True:
            while some := list(islice(self._dirty, TELL)):
                for prefix in some:
                    del self._dirty[prefix]
                self._tell_some(some)
                if self._dirty:
                    await trio.lowlevel.checkpoint()
            if self._hub.first_sync and not self._synced:
                self._synced = True
                self.feed(lambda session, now: session.synced(now))
            self._changed = trio.Event()
            await self._changed.wait()

    def _tell_some(self, some: list[Prefix]) -> None:
        told, untold = self._exporter.of(some, self._hub.sources)
        self.feed(lambda session, now: session.change(now, told, untold))

    async def _connect(self, scope: trio.CancelScope) -> None:
        with scope:
            try:
                with trio.fail_after(CONNECT_MOST):
                    link = await self._hub.transport.connect(self.plan.dial)
            except trio.TooSlowError:
                why = "connection timed out"
            except OSError as error:
                why = tcp.why(error)
            else:
                self._join(link, outgoing=True)
                return
            self.feed(lambda session, now: session.connect_failed(now, why))

    def _join(self, link: Link, *, outgoing: bool) -> None:
        assert self._nursery is not None
        self._ids += 1
        id_ = self._ids
        wire = Wire(id_, link, self._received, self._lost, SEND_LEAST, self._hub.inflow.room)
        self._wires[id_] = wire
        self._open.add(wire)
        self._nursery.start_soon(self._serve, wire)
        family = IPV4 if link.local.version == 4 else IPV6
        if self._exporter.peering.next_hops.get(family) != link.local:
            # Before the session is up, so that it begins with the right next hop.
            self._link = link
            self.refresh()
        self.feed(lambda session, now: session.connected(now, id_, outgoing=outgoing))

    async def _serve(self, wire: Wire) -> None:
        await wire.run()
        self._open.discard(wire)
        self._closed.set()
        self._closed = trio.Event()

    def _received(self, id_: int, octets: bytes) -> None:
        self.counts.octets_received += len(octets)
        self.feed(lambda session, now: session.received(now, id_, octets))
        if self.session is not None:
            self.counts.updates_received += self.session.updates
            self.session.updates = 0

    def _lost(self, id_: int, why: str) -> None:
        if self._wires.pop(id_, None) is not None:
            self.feed(lambda session, now: session.lost(now, id_, why))

    def _make_exporter(self) -> Exporter:
        plan = self.plan
        peering = plan.peering
        if self._link is not None:
            local = self._link.local
            family = IPV4 if local.version == 4 else IPV6
            peering = peering._replace(next_hops={**peering.next_hops, family: local})
        policy = replace(plan.policy, draining=self._hub.draining)
        return Exporter(policy, peering, plan.address, plan.client)
