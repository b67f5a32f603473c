"""Rescue as the daemon has it: the plan made so in the kernel, and what came of it told.

Rule: what is to be done is the `Book`'s to say, and how the kernel's parts'; here is when. What is
used again leaves the kernel before `update` returns, and so before DNS names it; everything else is
done by tasks, the table first and the connections after it, so that who is cut off finds a sibling.
Rules stay when the daemon ends: the next one takes them over.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from discod.backoff import Backoff
from discod.kernel.commands import CommandFailed
from discod.log import fields
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Endpoint, Host, Prefer
from discod.model.rescue import Bridge, Place, Plan, Unit, Usage
from discod.model.rescue_settings import RescueSettings
from discod.rescue.book import Book, Step
from discod.rescue.flows import Flow
from discod.rescue.late import Late
from discod.rescue.report import Report, service_of
from discod.rescue.takeover import taken_over

log = logging.getLogger(__name__)

LOOK_PERIOD = 5.0
"""Seconds between two looks at what clients do, and at the clock."""
CHECK_EVERY = 6
"""Looks after which it is also checked that our tables are still there, and which bridges are."""
RETRY_MOST = 30.0
"""Seconds at most between two attempts to have the kernel follow."""


class Tables(Protocol):
    """The packet filter; see `discod.rescue.table.Table`, and for what each method raises."""

    async def apply(self, plan: Plan) -> None: ...  # noqa: D102 - as there, and so are all below
    def revoke(self, places: Iterable[Place]) -> None: ...  # noqa: D102
    async def intact(self) -> bool: ...  # noqa: D102
    async def usage(self) -> tuple[Usage, ...]: ...  # noqa: D102
    async def busy(self) -> frozenset[Place]: ...  # noqa: D102


class Neighbours(Protocol):
    """Who answers for dead addresses; see `discod.rescue.neighbours.Neighbours`."""

    def want(self, addresses: Mapping[Address, bytes], bridges: Sequence[Bridge]) -> None: ...  # noqa: D102
    async def run(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel's parts."""

    tables: Tables
    neighbours: Callable[[Callable[[Address], None]], Neighbours]
    """Made with what is called for an address that somebody answers for."""
    bridges: Callable[[], Awaitable[tuple[Bridge, ...]]]
    cut: Callable[[Collection[Place], Iterable[int]], Awaitable[Sequence[Flow]]]
    """Ends all that is connected to places, here and in processes' namespaces; of TCP, which."""
    end_late: Callable[[Collection[Place]], Awaitable[object]]
    """Ends what the last datagrams of places have begun."""
    forget: Callable[[Collection[Place]], Awaitable[object]]
    """Has the kernel forget where datagrams to places were sent. All three raise OSError."""


class RescueService:
    """Rescue and service addresses on this host.

    Args:
        settings: ``[rescue]``.
        host: The record of this host.
        prefer: ``dns.prefer``.
        kernel: What acts.
        metrics: Where it counts.
        units: The running containers as of now, by id.
        rng: For jitter.
        wall: The clock, Unix seconds.
    """

    def __init__(
        self,
        settings: RescueSettings,
        host: Host,
        prefer: Prefer,
        kernel: Kernel,
        metrics: Metrics,
        *,
        units: Callable[[], Mapping[str, Unit]],
        rng: random.Random,
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._prefer: Prefer = prefer
        self._book = Book(settings, host.name, prefer, host.zone)
        self._kernel = kernel
        self._metrics = metrics
        self._units = units
        self._rng = rng
        self._wall = wall
        self._catalog: Catalog | None = None
        self._begun = False
        self._bridges: tuple[Bridge, ...] = ()
        self._dirty = trio.Event()
        self.follows: Callable[[bool], None] = lambda follows: None
        """Called with whether the kernel does as the last plan says."""
        self._planned: Plan | None = None
        self._changed_at: float | None = None  # the oldest change that the kernel has not
        self.took_over: Callable[[frozenset[Address]], None] = lambda addresses: None
        """Called with the addresses of dead hosts' containers that this host is to announce."""
        self._known: dict[str, Host] = {}  # every host that was ever there, as it was last
        self._cut: dict[Place, str] = {}  # place -> service; at most as many as stale places
        self._forget: set[Place] = set()
        self._flows = trio.Event()
        self._faults: dict[str, str] = {}
        self.report = Report(host, wall)
        self._neighbours = kernel.neighbours(self._claimed)

    # What happens -------------------------------------------------------------------------------

    def begin(self, catalog: Catalog) -> None:
        """Take the first Catalog, once this host's containers are known."""
        self._catalog = catalog
        self._begun = True
        self._guarded(self._anew)

    def update(self, catalog: Catalog, change: Change) -> None:
        """Take a change of the Catalog; what is used again has left the kernel on return."""
        self._catalog = catalog
        if self._begun:
            self._guarded(lambda: self._book.update(catalog, change, self._wall()))

    def refresh(self) -> None:
        """Take this host's containers as they are now."""
        if self._begun:
            self._guarded(lambda: self._book.units(self._units(), self._bridges, self._wall()))

    def reconfigure(self, settings: RescueSettings, host: Host, prefer: Prefer) -> None:
        """Take other settings, or another record of this host."""
        self.report.host = host
        self._settings, self._prefer = settings, prefer
        step = self._book.configure(settings, prefer, host.zone, self._wall())
        if self._begun:
            self._take(step)

    def _claimed(self, address: Address) -> None:
        log.info("address is used again", extra=fields(address=address))
        self._guarded(lambda: self._book.claimed(address, self._wall()))

    def _anew(self) -> Step:
        assert self._catalog is not None
        now = self._wall()
        self._book.units(self._units(), self._bridges, now)
        return self._book.update(self._catalog, None, now)

    def _guarded(self, work: Callable[[], Step]) -> None:
        """Do what comes of `work`; after a fault of ours everything is looked at anew."""
        for how in (work, self._anew):
            try:
                self._take(how())
            except Exception as error:  # names are answered whatever becomes of rescue
                log.error("rescue failed, all of it is taken anew", exc_info=error)
                self._fault("plan", error)
                host = self.report.host
                self._book = Book(self._settings, host.name, self._prefer, host.zone)
            else:
                return

    def _take(self, step: Step) -> None:
        if step.revoked:
            try:
                self._kernel.tables.revoke(step.revoked)
            except OSError as error:
                self._fault("revoke", error)
            else:
                self._well("revoke")
            self._forget.update(step.revoked)
            for place in step.revoked:
                self._cut.pop(place, None)
        if step.cut:
            whose = self._whose(step.plan)
            for place in step.cut:
                self._cut[place] = whose.get(place, "")
                self._forget.discard(place)
        if self._settings.takeover and self._catalog is not None:
            self._known.update(self._catalog.hosts)
            name = self.report.host.name
            self.took_over(taken_over(step.plan, self._catalog, self._known, name))
        if step.plan is not self._planned:
            self._planned = step.plan
            if self._changed_at is None:
                self._changed_at = trio.current_time()
        self._metrics.rescue_entries.set(len(step.plan.stale))
        self._metrics.vips.set(len(step.plan.vips))
        self._dirty.set()
        self._well("plan")

    def _whose(self, plan: Plan) -> dict[Place, str]:
        """Services of the places that are dead, in the plan or in the Catalog's memory only."""
        assert self._catalog is not None
        catalog = self._catalog
        gone = [one.endpoint for one in catalog.lost.values()]
        gone += [one.endpoint for one in catalog.withdrawn.values()]
        found = {Place(*endpoint.place): endpoint.service for endpoint in gone}
        for stale in plan.stale.values():
            found[stale.place] = stale.endpoint.service
            if stale.backend is not None:
                found[stale.backend] = stale.endpoint.service
        return found

    # Tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._look_at_bridges()
        self._dirty.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_tables)
            nursery.start_soon(self._end_flows)
            nursery.start_soon(self._look)
            nursery.start_soon(self._neighbours.run)

    async def _keep_tables(self) -> None:
        backoff = Backoff(self._rng, first=0.1, most=RETRY_MOST)
        while True:
            await self._dirty.wait()  # without deadline: there is nothing to do before
            self._dirty = trio.Event()
            plan, since = self._book.plan, self._changed_at
            self._changed_at = None
            works = True
            try:
                await self._kernel.tables.apply(plan)
            except (CommandFailed, OSError) as error:
                self._fault("apply", error)
                works = False
            self.follows(works and self._begun)
            self._neighbours.want(self._unanswered(plan), plan.bridges)
            self._flows.set()
            if works:
                self._well("apply")
                backoff.reset()
                if since is not None:
                    self._metrics.rescue_apply_seconds.observe(trio.current_time() - since)
            else:
                await trio.sleep(backoff.pause())
                self._dirty.set()

    def _unanswered(self, plan: Plan) -> dict[Address, bytes]:
        """Addresses that nobody answers for: what stops or is paused does so itself."""
        held = {address for unit in self._units().values() for address in unit.addresses}
        stale = plan.stale.values()
        return {s.place.address: s.mac for s in stale if s.mac and s.place.address not in held}

    async def _end_flows(self) -> None:
        late = Late()
        while True:
            with trio.move_on_at(late.due):  # mostly never: there is nothing to do before
                await self._flows.wait()
            self._flows = trio.Event()
            cut, self._cut = self._cut, {}
            forget, self._forget = self._forget, set()
            late.leave(forget)
            try:
                if forget:
                    await self._kernel.forget(forget)
                if cut:
                    self._told_off(await self._kernel.cut(cut, self._pids()), cut)
                if last := late.take(trio.current_time()):
                    await self._kernel.end_late(last)
                self._well("flows")
            except OSError as error:  # the next packet of each gets a reset all the same
                self._fault("flows", error)
            late.add(cut, trio.current_time())

    def _pids(self) -> list[int]:
        return [unit.pid for unit in self._units().values() if unit.pid]

    def _told_off(self, flows: Iterable[Flow], cut: Mapping[Place, str]) -> None:
        plan = self._book.plan
        ended = Counter(cut.get(f.place) or service_of(plan, f.place) or "" for f in flows)
        for service, sockets in ended.items():
            self.report.cut(service, sockets)
            self._metrics.rescue_sockets_cut.labels(service).inc(sockets)
            log.info(
                "connections to dead endpoints ended",
                extra=fields(service=service, sockets=sockets),
            )

    async def _look(self) -> None:
        looks = 0
        while True:
            await trio.sleep(LOOK_PERIOD * self._rng.uniform(0.9, 1.1))
            looks += 1
            if self._begun:
                await self._count()
                self._expire()
            if looks % CHECK_EVERY == 0:
                await self._look_at_bridges()
                await self._check()

    async def _count(self) -> None:
        try:
            usage = await self._kernel.tables.usage()
            busy = await self._kernel.tables.busy()
        except (CommandFailed, OSError) as error:
            self._fault("usage", error)
            return
        self._well("usage")
        plan = self._book.plan
        news = self.report.count(usage, plan, self._units())
        for (service, result), times in news.flows.items():
            self._metrics.rescue_flows.labels(service, result).inc(times)
        for service, clients in self.report.offenders().items():
            self._metrics.rescue_clients.labels(service).set(clients)
        if used := news.used | busy:
            self._guarded(lambda: self._book.used(used, self._wall()))

    def _expire(self) -> None:
        now = self._wall()
        due = self._book.next_expiry
        if due is not None and due <= now:
            self._guarded(lambda: self._book.expire(now))
        self.report.expire(now - self._settings.hold)
        dropped = self._book.dropped - self.report.dropped
        if dropped:
            self._metrics.rescue_dropped.inc(dropped)
            self.report.dropped = self._book.dropped
            log.warning(
                "too many stale addresses, some are no longer looked after",
                extra=fields(dropped=dropped, max_entries=self._settings.max_entries),
            )

    async def _check(self) -> None:
        try:
            if not await self._kernel.tables.intact():
                log.warning("our tables are gone from the packet filter, put back")
                self._dirty.set()
        except (CommandFailed, OSError) as error:
            self._fault("check", error)
        else:
            self._well("check")

    async def _look_at_bridges(self) -> None:
        try:
            bridges = await self._kernel.bridges()
        except OSError as error:
            self._fault("bridges", error)
            return
        self._well("bridges")
        if bridges != self._bridges:
            self._bridges = bridges
            self.refresh()

    def _fault(self, what: str, error: Exception) -> None:
        text = f"{what}: {error}"
        if self._faults.get(what) != text:
            log.warning("kernel does not follow", extra=fields(what=what, error=error))
        self._faults[what] = text
        self._tell_faults()

    def _well(self, what: str) -> None:
        if self._faults.pop(what, None) is not None:
            log.info("kernel follows again", extra=fields(what=what))
            self._tell_faults()

    def _tell_faults(self) -> None:
        self.report.fault = "; ".join(self._faults.values())
        self._metrics.rescue_fault.set(bool(self._faults))

    # View ---------------------------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """How it stands as a whole, and what it did for each service."""
        return self.report.status(self._book.plan, self._settings)

    def entries(self) -> Sequence[Mapping[str, Any]]:
        """All stale places, and where packets to them go."""
        return self.report.entries(self._book.plan)

    def clients(self) -> Sequence[Mapping[str, Any]]:
        """Who still uses stale places: those seen last come first."""
        return self.report.clients()

    def vips(self) -> Sequence[Mapping[str, Any]]:
        """All service addresses, and where connections to them go."""
        return self.report.vips(self._book.plan)

    def word(self, endpoint: Endpoint) -> str:
        """What becomes of packets to an endpoint that is gone, in words; empty: nothing."""
        return self.report.word(self._book.plan, endpoint)
