"""The announcer as the daemon sees it: everything this host offers, from all its producers.

Rule: glue. It joins the roster (what is), the watcher and the checker (how it is known), and the
publisher (how the store learns of it).
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from announcer.aliases import aliases_of
from announcer.announced import Announced
from announcer.checker import Checker
from announcer.engine import Engine
from announcer.ledger import Ledger
from announcer.offer import Scope
from announcer.pidfd import Pidfds
from announcer.policy import policy_fault
from announcer.probe import Execute, run_local
from announcer.publish import Publisher
from announcer.roster import CheckRun, LocalCatalog, Roster, Unit
from announcer.static import judge, offers_of
from announcer.tracked import unit_key
from announcer.watcher import Watcher
from discod.metrics import Metrics
from discod.model.endpoint import Address, Producer, Reason
from discod.model.report import PartReport, ProducerReport
from discod.model.schema import Keyspace
from discod.model.settings import ServiceSettings, StoreSettings
from discod.model.vip import VipWish
from discod.store.base import Store

log = logging.getLogger(__name__)


class Announcer:
    """All producers of this host, and their records in the store."""

    def __init__(
        self,
        store: Store,
        settings: StoreSettings,
        keys: Keyspace,
        scope: Scope,
        local: LocalCatalog,
        metrics: Metrics,
        *,
        lease_file: Path | None,
        rng: random.Random,
        wall: Callable[[], float],
    ) -> None:
        self._scope = scope
        self._domain = keys.domain
        self._metrics = metrics
        self._rng = rng
        self._wall = wall
        self._since: dict[str, float] = {}
        self._static: Sequence[ServiceSettings] = ()
        self._commands: dict[str, ServiceSettings] = {}  # by unit key
        self.publisher = Publisher(
            store,
            Ledger(keys, scope.host),
            keys=keys,
            lease_ttl=settings.lease_ttl,
            history_ttl=scope.announce.withdrawal_ttl,
            lease_file=lease_file,
            metrics=metrics,
            rng=rng,
            clock=wall,
        )
        self.roster = Roster(scope.host, keys, self.publisher, local, metrics, wall=wall)
        self.engine: Engine | None = None
        self.watcher: Watcher | None = None
        if scope.announce.docker:
            self.engine = Engine(scope.announce.docker)
        self._pidfds = Pidfds(self.engine.socket_path if self.engine else "")
        if self.engine is not None:
            self.watcher = Watcher(
                self.engine,
                self._pidfds,
                self.roster,
                scope,
                metrics,
                rng=rng,
                wall=wall,
                on_listed=self._listed,
            )
        else:
            self.publisher.ledger.engine_listed()
            metrics.docker_connected.set(math.nan)  # neither connected nor away
        self._set_aliases()
        self._checker = Checker(self.roster, self._execute_for, metrics, rng=rng, wall=wall)
        self.roster.checks_changed = self._checker.poke

    async def run(self) -> None:
        """Run until cancelled; what was announced stays announced."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.publisher.run)
                nursery.start_soon(self._pidfds.run)
                nursery.start_soon(self._checker.run)
                if self.watcher is not None:
                    nursery.start_soon(self.watcher.run)
        finally:
            self._pidfds.close()
            if self.engine is not None:
                self.engine.close()

    # Producers that are no containers -----------------------------------------------------------

    def set_static(self, services: Sequence[ServiceSettings]) -> None:
        """Offer exactly these ``[[service]]`` tables."""
        self._static = services
        wanted = {_static_key("static", service): service for service in services}
        for unit in [u for u in self.roster.units() if u.kind == "static"]:
            if unit.key not in wanted:
                self.roster.remove(unit.key, Reason.UNOFFERED)
        for key, service in wanted.items():
            self.roster.put(self._static_unit("static", key, service))

    def _set_aliases(self) -> None:
        aliases = aliases_of(
            self._scope.announce.aliases,
            host=self._scope.host,
            domain=self._domain,
            since=self._first_offered,
        )
        self.publisher.ledger.set_aliases(aliases)
        self.publisher.wake()

    def _first_offered(self, key: str) -> float:
        return self._since.setdefault(key, self._wall())

    @asynccontextmanager
    async def announce(self, services: Sequence[ServiceSettings]) -> AsyncIterator[Announced]:
        """Offer endpoints of a command while the context lasts.

        Raises:
            ValueError: policy forbids a name, or the same is announced already.
        """
        units: list[Unit] = []
        asked: dict[str, ServiceSettings] = {}
        for service in services:
            fault = policy_fault(service.name, self._scope.announce)
            if fault is not None:
                raise ValueError(f"service name {service.name!r}: {fault}")
            key = _static_key("command", service)
            if self.roster.unit(key) is not None or key in {u.key for u in units}:
                raise ValueError(
                    f"{service.name} port {service.port}/{service.protocol} is announced already"
                )
            units.append(self._static_unit("command", key, service))
            asked[key] = service
        announced = Announced([unit.key for unit in units], self.roster, self.publisher)
        self._commands.update(asked)
        for unit in units:
            self.roster.put(unit)
        try:
            yield announced
        finally:
            for key in asked:
                self._commands.pop(key, None)
            announced.leave()

    def _static_unit(self, kind: str, key: str, service: ServiceSettings) -> Unit:
        producer = Producer.STATIC if kind == "static" else Producer.COMMAND
        offers = offers_of(
            service,
            host=self._scope.host,
            addresses=self._scope.addresses,
            producer=producer,
            since=self._first_offered(key),
            vips=self._scope.vips,
        )
        return Unit(
            key=key,
            kind=kind,
            id=service.name,
            name=service.name,
            judge=judge,
            status="configured" if kind == "static" else "running",
            offers=offers,
            run=repr(service.check),
        )

    # What the daemon asks -----------------------------------------------------------------------

    def rescope(self, scope: Scope, services: Sequence[ServiceSettings]) -> None:
        """Take new settings; services' own addresses stay as they were learned."""
        self._reread(replace(scope, vips=self._scope.vips), services)

    def vip_wishes(self) -> Iterator[VipWish]:
        """Which services' own addresses producers of this host ask for."""
        for unit in self.roster.units():
            for offer in unit.offers:
                if offer.vip is not None:
                    yield offer.vip

    def learn_vips(self, vips: Mapping[str, tuple[Address, ...]], *, ours: bool) -> None:
        """Take the addresses that services have of their own.

        Args:
            vips: Of all services.
            ours: Whether any is of a service that is asked for here: only then is everything read
                anew, else what is read from now on knows them.
        """
        scope = replace(self._scope, vips=vips)
        if ours:
            self._reread(scope, self._static)
            return
        self._scope = scope
        if self.watcher is not None:
            self.watcher.scope = scope

    def _reread(self, scope: Scope, services: Sequence[ServiceSettings]) -> None:
        self._scope = scope
        self.set_static(services)
        for key, service in self._commands.items():
            if self.roster.unit(key) is not None:  # else it is withdrawn, and about to leave
                self.roster.put(self._static_unit("command", key, service))
        self._set_aliases()
        if self.watcher is not None:
            self.watcher.rescope(scope)

    def set_drained(self, host: str | None, containers: Mapping[str, str]) -> None:
        """Say who is drained: words for the host (None: not), and for containers by full id."""
        self.roster.set_drained(host, {unit_key(id_): said for id_, said in containers.items()})

    def find_container(self, text: str) -> str:
        """The id of the one container with this name or id prefix.

        Raises:
            LookupError: there is none, or more than one.
        """
        if self.watcher is None:
            raise LookupError("this host does not watch Docker (announce.docker is empty)")
        return self.watcher.find(text)

    def reports(self) -> tuple[ProducerReport, ...]:
        """Every producer, for the API."""
        return self.roster.reports()

    def parts(self) -> tuple[PartReport, ...]:
        """The state of the parts of the announcer."""
        parts = []
        if self.watcher is not None:
            ok = self.watcher.connected and self.watcher.listed
            detail = "watching" if ok else self.watcher.error
            parts.append(PartReport("docker", ok, detail, self.watcher.since))
        return tuple(parts)

    # Checks -------------------------------------------------------------------------------------

    def _execute_for(self, run: CheckRun) -> Execute:
        if self.engine is None or not run.endpoint.container:
            return run_local
        return partial(self.engine.execute, run.endpoint.container)

    def _listed(self) -> None:
        self.publisher.ledger.engine_listed()
        self.publisher.wake()


def _static_key(kind: str, service: ServiceSettings) -> str:
    return f"{kind}:{service.name}:{service.port}/{service.protocol}:{service.port_name}"
