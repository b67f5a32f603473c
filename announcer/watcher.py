"""Watches the containers of one Docker engine and keeps the roster in step.

Rule: the engine's own list is the truth. An event means "look at that container now"; of a few
(``kill``, ``die``, ``pause``, ``health_status``) the meaning is also taken at once, and the look
that follows corrects it. What a process did is told by its pidfd, which needs no engine. While the
engine is away nothing is withdrawn on its account (FIELD 1, 2, 3, 6, 11).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

from announcer.container import Container, Healthcheck, Status
from announcer.engine import Engine
from announcer.errors import EngineError
from announcer.events import EngineEvent, Resync
from announcer.offer import Scope
from announcer.pidfd import Pidfds
from announcer.reading import read
from announcer.roster import Roster, Unit
from announcer.stream import EventStream
from announcer.summary import Summary
from announcer.tracked import LIVE, Run, Tracked, basis_of, find, run_of, unit_key
from announcer.verdict import judge
from discod.backoff import Backoff
from discod.log import fields
from discod.metrics import Metrics
from discod.model.endpoint import Reason

log = logging.getLogger(__name__)

SIGKILL = 9
LOOK_AFTER_DEATH = 1.0
"""Seconds; in case the engine's own event is lost."""
MANY = 256
MANY_PAUSE = 1.0
"""After so many events the list is compared once more, so many seconds later: of a reader that was
too slow the engine drops events without a word, once about 1,000 wait for it."""
RETRY_MOST = 1.0
"""Seconds between two tries to reach the engine, at most: what changes with its return is to be in
DNS within 2 s."""


class Watcher:
    """The containers of this host."""

    def __init__(
        self,
        engine: Engine,
        pidfds: Pidfds,
        roster: Roster,
        scope: Scope,
        metrics: Metrics,
        *,
        rng: random.Random,
        wall: Callable[[], float],
        on_listed: Callable[[], None],
    ) -> None:
        self._wall = wall
        self._engine = engine
        self._pidfds = pidfds
        self._roster = roster
        self.scope = scope  # whoever changes it alone means what is read from then on
        self._metrics = metrics
        self._rng = rng
        self._on_listed = on_listed
        self._tracked: dict[str, Tracked] = {}
        self._summaries: dict[str, Summary] = {}
        self._looking: set[str] = set()
        self._again: set[str] = set()
        self._heard = 0  # events since the last comparison for that reason
        self._nursery: trio.Nursery | None = None
        self._timers: trio.Nursery | None = None
        self.connected = False
        self.listed = False
        """Whether the engine's list was complete once."""
        self.answered = trio.Event()
        """Set when the first try ended, well or not."""
        self.error = "not asked yet"
        self.since = wall()
        """Since when `connected` is as it is, Unix seconds."""

    # What the daemon says -----------------------------------------------------------------------

    def rescope(self, scope: Scope) -> None:
        """The settings changed: read every container anew."""
        self.scope = scope
        for tracked in list(self._tracked.values()):
            self._update(tracked.container)

    def find(self, text: str) -> str:
        """The id of the one container with this name or id prefix.

        Raises:
            LookupError: there is none, or more than one.
        """
        return find((tracked.container for tracked in self._tracked.values()), text)

    def living(self) -> list[Container]:
        """The containers that have a main process."""
        return [tracked.container for tracked in self._tracked.values() if tracked.living]

    # Tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled; come back whenever the engine does."""
        backoff = Backoff(self._rng, first=0.1, most=RETRY_MOST)
        async with trio.open_nursery() as self._timers:
            while True:
                try:
                    await self._session(backoff)
                except* EngineError as group:
                    error = group.exceptions[0]
                    while isinstance(error, BaseExceptionGroup):
                        error = error.exceptions[0]
                    self._away(str(error))
                self._looking.clear()
                self._again.clear()
                await trio.sleep(backoff.pause())

    def _away(self, error: str) -> None:
        if self.connected or error != self.error:
            log.warning(
                "docker away, nothing is withdrawn on its account; trying again",
                extra=fields(error=error),
            )
        if self.connected:
            self.since = self._wall()
        self.connected, self.error = False, error
        self.answered.set()
        self._metrics.docker_connected.set(0)

    async def _session(self, backoff: Backoff) -> None:
        """One connection to the engine: events first, then the list, so that nothing falls between.

        Ends only by an exception.
        """
        await self._engine.ping()
        async with self._engine.events() as events, trio.open_nursery() as self._nursery:
            try:
                self._heard = 0
                await self._compare()
                self.connected, self.error = True, ""
                self.answered.set()
                self.since = self._wall()
                self._metrics.docker_connected.set(1)
                backoff.reset()
                log.info("docker connected", extra=fields(containers=len(self._tracked)))
                self._nursery.start_soon(self._compare_periodically)
                await self._read(events, self._nursery)
            finally:
                # Before the connection is let go, which takes time: a look that is due meanwhile
                # must not find a nursery that takes nothing any more.
                self._nursery = None

    async def _read(self, events: EventStream, nursery: trio.Nursery) -> None:
        async for event in events:
            if isinstance(event, Resync):
                log.warning(
                    "engine events missing, comparing with its list",
                    extra=fields(reason=event.reason),
                )
                nursery.start_soon(self._compare)
            else:
                self._event(event)
                self._heard += 1
                if self._heard == MANY:
                    nursery.start_soon(self._compare_after_many)

    async def _compare_after_many(self) -> None:
        await trio.sleep(MANY_PAUSE)
        self._heard = 0
        await self._compare()

    async def _compare_periodically(self) -> None:
        while True:
            await trio.sleep(self.scope.announce.resync * self._rng.uniform(0.9, 1.1))
            await self._compare()

    async def _compare(self) -> None:
        """Compare with the engine's whole list, and look at each container that differs."""
        self._metrics.docker_resyncs.inc()
        summaries = await self._engine.summaries()
        for id_ in self._tracked.keys() - summaries.keys():
            # Made or removed while the list was on its way: ask for it by name.
            await self._look(id_)
        async with trio.open_nursery() as nursery:
            for id_, summary in summaries.items():
                if self._summaries.get(id_) != summary or self._unwatched(id_):
                    nursery.start_soon(self._look, id_)
        self._summaries = dict(summaries)
        if not self.listed:
            self.listed = True
            self._on_listed()

    def _unwatched(self, id_: str) -> bool:
        """Whether a container is unknown, or runs without its pidfd (descriptors had run out)."""
        tracked = self._tracked.get(id_)
        if tracked is None:
            return True
        pid = tracked.living
        return pid > 0 and not self._pidfds.watches(id_, pid) and self._pidfds.available

    # Events -------------------------------------------------------------------------------------

    def _event(self, event: EngineEvent) -> None:
        self._metrics.docker_events.labels(event.action).inc()
        tracked = self._tracked.get(event.container)
        if event.kind == "container" and event.action == "destroy":
            self._forget(event.container)
            if event.container in self._looking:
                self._again.add(event.container)  # the answer on its way is out of date
            return
        # An event of an earlier run, read late, says nothing of this one.
        if (
            event.kind == "container"
            and tracked is not None
            and event.time >= tracked.container.started
        ):
            self._take(event, tracked)
        self._ask(event.container)

    def _take(self, event: EngineEvent, tracked: Tracked) -> None:
        """Believe what an event says before the look that follows it."""
        container = tracked.container
        match event.action:
            case "kill" if event.signal in (container.stop_signal_number, SIGKILL):
                self._stopping(tracked)
            case "die" if not self._pidfds.watches(container.id):
                self._dead(container.id, run_of(container))
            case "pause":
                self._show(replace(container, status=Status.PAUSED), tracked)
            case "health_status: unhealthy":
                self._show(replace(container, health=Healthcheck.UNHEALTHY), tracked)
            case "health_status: healthy":
                self._show(replace(container, health=Healthcheck.HEALTHY), tracked)

    def _stopping(self, tracked: Tracked) -> None:
        """The engine sent the stop signal: withdraw now, or after the configured drain."""
        if tracked.stopping == tracked.container.started or self._timers is None:
            return
        if tracked.timer is not None:
            tracked.timer.cancel()
        tracked.timer = trio.CancelScope()
        self._timers.start_soon(self._stop_timer, tracked, tracked.timer)
        if not self.scope.announce.drain:
            self._mark_stopping(tracked)

    def _mark_stopping(self, tracked: Tracked) -> None:
        tracked.stopping = tracked.container.started
        self._show(tracked.container, tracked)

    async def _stop_timer(self, tracked: Tracked, scope: trio.CancelScope) -> None:
        announce, run = self.scope.announce, tracked.container.started
        with scope:
            if announce.drain:
                await trio.sleep(announce.drain)
                self._mark_stopping(tracked)
            await trio.sleep(announce.stop_grace)
            if tracked.stopping == run == tracked.container.started:
                log.warning(
                    "container still runs long after its stop signal, offered again",
                    extra=fields(container=tracked.container.name, grace=announce.stop_grace),
                )
                tracked.stopping = 0.0
                self._show(tracked.container, tracked)

    def _dead(self, id_: str, run: Run) -> None:
        """The main process of a run ended."""
        tracked = self._tracked.get(id_)
        if tracked is None or run_of(tracked.container) != run or tracked.dead == run:
            return
        tracked.dead = run
        self._show(tracked.container, tracked)
        if self._timers is not None:
            self._timers.start_soon(self._look_later, id_)

    # Looks --------------------------------------------------------------------------------------

    def _ask(self, id_: str) -> None:
        """Look at a container soon; one look at a time each, and one more if asked meanwhile."""
        assert self._nursery is not None
        self._nursery.start_soon(self._look, id_)

    async def _look_later(self, id_: str) -> None:
        """Look at a container that has ended, for its exit status.

        Not at once: the engine learns of an end 20 to 50 ms after the kernel, and tells then.
        """
        await trio.sleep(LOOK_AFTER_DEATH)
        if self._nursery is not None and id_ in self._tracked:
            self._ask(id_)

    async def _look(self, id_: str) -> None:
        if id_ in self._looking:
            self._again.add(id_)
            return
        self._looking.add(id_)
        try:
            while True:
                self._again.discard(id_)
                container = await self._engine.inspect(id_)
                if container is None:
                    self._forget(id_)
                elif self._update(container):
                    continue  # a new process: verify that the pid opened is still its own
                if id_ not in self._again:
                    break
        finally:
            self._looking.discard(id_)

    def _update(self, container: Container) -> bool:
        """Take a container as inspected; True when a process was seen for the first time."""
        tracked = self._tracked.get(container.id)
        if tracked is None:
            tracked = self._tracked[container.id] = Tracked(container)
        fresh = False
        if container.status in LIVE and container.pid:
            known = tracked.dead == run_of(container)
            if not known and not self._pidfds.watches(container.id, container.pid):
                fresh = self._open(container)
        else:
            self._pidfds.unwatch(container.id)
        gone = Reason.UNOFFERED
        if container.status in LIVE:
            attached = frozenset(a.network for a in container.attachments)
            if tracked.attached - attached:
                gone = Reason.DISCONNECTED
            tracked.attached = attached
        self._show(container, tracked, gone=gone)
        for other in list(self._tracked.values()):
            if other.container.network_mode == f"container:{container.id}":
                self._show(other.container, other)
        return fresh

    def _open(self, container: Container) -> bool:
        if not self._pidfds.available:
            return False
        dead = partial(self._dead, container.id, run_of(container))
        try:
            self._pidfds.watch(container.id, container.pid, dead)
        except ProcessLookupError:
            self._tracked[container.id].dead = run_of(container)
        return True

    def _show(
        self, container: Container, tracked: Tracked, *, gone: Reason = Reason.UNOFFERED
    ) -> None:
        """Tell the roster how a container stands."""
        tracked.container = container
        if container.status not in LIVE and tracked.timer is not None:
            tracked.timer.cancel()
            tracked.timer = None
        lender = self._tracked.get(container.network_mode.removeprefix("container:"))
        borrowed = lender.container if lender else None
        basis = (*basis_of(container), borrowed and basis_of(borrowed), self.scope)
        if basis != tracked.basis:  # an end changes none of it, and must not wait for it
            tracked.basis = basis
            tracked.reading = read(container, self.scope, borrowed=borrowed)
        reading = tracked.reading
        if container.status in LIVE or reading.faults or not tracked.offers:
            tracked.offers = reading.offers
        dead = bool(container.pid) and tracked.dead == run_of(container)
        health = "" if container.health is Healthcheck.NONE else f" ({container.health})"
        unit = Unit(
            key=unit_key(container.id),
            kind="docker",
            id=container.id,
            name=container.name,
            judge=lambda check, drained: judge(
                container,
                dead=dead,
                stopping=tracked.stopping == container.started != 0.0,
                drained=drained,
                check=check,
            ),
            image=container.image,
            status=f"{container.status}{health}",
            offers=tracked.offers,
            faults=reading.faults,
            silent="" if tracked.offers else reading.silent,
            run=f"{container.pid}/{container.started}" if container.pid else "",
        )
        self._roster.put(unit, gone=gone)

    def _forget(self, id_: str) -> None:
        tracked = self._tracked.pop(id_, None)
        self._summaries.pop(id_, None)
        self._pidfds.unwatch(id_)
        if tracked is not None:
            if tracked.timer is not None:
                tracked.timer.cancel()
            self._roster.remove(unit_key(id_), Reason.REMOVED)
