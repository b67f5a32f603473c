"""The roster: every producer of this host, and what follows from its state.

Rule: synchronous and single-threaded; whoever learns something calls in, and before the call
returns the ledger, the local Catalog and the set of checks that should run all agree with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio

from announcer.health import CheckState
from announcer.ledger import Status
from announcer.offer import Offer
from announcer.publish import Publisher
from announcer.verdict import Verdict
from discod.log import fields
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, EndpointId, Fault, Reason, Refusal, Withdrawal
from discod.model.report import EndpointReport, ProducerReport
from discod.model.schema import Keyspace, encode_refusal
from discod.model.settings import Check

log = logging.getLogger(__name__)

Judge = Callable[[CheckState | None, str | None], Verdict]
"""From the state of an endpoint's own check (None: it has none) and the words for who drained it
(None: nobody) to whether it belongs into DNS."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One producer as it stands: a container, a static service or a command."""

    key: str
    """``docker:<id>``, ``static:<...>`` or ``command:<...>``; unique on this host."""
    kind: str
    id: str
    name: str
    judge: Judge = field(compare=False)
    image: str = ""
    status: str = ""
    """In the engine's words."""
    offers: tuple[Offer, ...] = ()
    faults: tuple[Fault, ...] = ()
    silent: str = ""
    run: str = ""
    """Names one run of the process: checks begin anew when it changes."""


@dataclass(frozen=True, slots=True)
class CheckRun:
    """One check that should be running."""

    unit: str
    instance: EndpointId
    run: str
    check: Check = field(compare=False)
    endpoint: Endpoint = field(compare=False)


class LocalCatalog(Protocol):
    """The part of the keeper that takes this host's own word before the store's."""

    def suppress(self, withdrawals: Iterable[Withdrawal]) -> None:
        """Take endpoints out at once."""
        ...

    def unsuppress(self, endpoints: Iterable[Endpoint]) -> None:
        """Take `suppress` back of what is up again, as it is now."""
        ...


class Roster:
    """All producers of this host."""

    def __init__(
        self,
        host: str,
        keys: Keyspace,
        publisher: Publisher,
        local: LocalCatalog,
        metrics: Metrics,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._host = host
        self._keys = keys
        self._publisher = publisher
        self._local = local
        self._metrics = metrics
        self._wall = wall
        self._units: dict[str, Unit] = {}
        self._statuses: dict[str, dict[EndpointId, Status]] = {}
        self._checks: dict[tuple[str, EndpointId, str], CheckState] = {}
        self._drained: Mapping[str, str] = {}
        self._host_drained: str | None = None
        self._change = trio.Event()
        self.checks_changed: Callable[[], None] = lambda: None
        """Called when `check_runs` may have changed."""
        self.units_changed: Callable[[], None] = lambda: None
        """Called when any producer may have changed, in the same call chain."""
        metrics.endpoints.labels("up").set_function(lambda: self._count(up=True))
        metrics.endpoints.labels("down").set_function(lambda: self._count(up=False))
        metrics.containers_refused.set_function(
            lambda: sum(1 for unit in self._units.values() if unit.faults)
        )

    # What producers and people say --------------------------------------------------------------

    def put(self, unit: Unit, *, gone: Reason = Reason.UNOFFERED) -> None:
        """A producer came or changed; what it offered and no longer does is withdrawn as `gone`."""
        before = self._units.get(unit.key)
        self._units[unit.key] = unit
        if before is None or before.faults != unit.faults:
            self._refuse(unit)
        if before is not None and before.run != unit.run:
            self._forget_checks(unit.key)
        self._judge(unit, gone=gone)

    def remove(self, key: str, gone: Reason) -> None:
        """A producer left; its endpoints are withdrawn for the reason `gone`."""
        unit = self._units.pop(key, None)
        if unit is None:
            return
        if unit.faults:
            self._publisher.ledger.keep(self._keys.refused(self._host, unit.id[:12]), None)
        self._forget_checks(key)
        self._apply(key, {}, gone)

    def set_drained(self, host: str | None, units: Mapping[str, str]) -> None:
        """Say who is drained, in words: the whole host (None: not), and single units by key."""
        self._host_drained, self._drained = host, units
        for unit in list(self._units.values()):
            self._judge(unit, gone=Reason.UNOFFERED)

    def check_result(self, run: CheckRun, state: CheckState) -> None:
        """A check advanced; one of an earlier run of the process is ignored."""
        unit = self._units.get(run.unit)
        if unit is not None and unit.run == run.run:
            self._checks[run.unit, run.instance, run.run] = state
            self._judge(unit, gone=Reason.UNOFFERED)

    def check_state(self, run: CheckRun) -> CheckState:
        """Where a check stands."""
        return self._checks.get((run.unit, run.instance, run.run), CheckState())

    # What follows -------------------------------------------------------------------------------

    def unit(self, key: str) -> Unit | None:
        """One producer."""
        return self._units.get(key)

    def units(self) -> Iterable[Unit]:
        """All producers."""
        return self._units.values()

    def check_runs(self) -> Iterable[CheckRun]:
        """The checks that should be running: those of producers that would be up without them."""
        for unit in self._units.values():
            for offer in unit.offers:
                if offer.check is not None and unit.judge(None, None).up:
                    yield CheckRun(
                        unit.key, offer.endpoint.id, unit.run, offer.check, offer.endpoint
                    )

    def reports(self) -> tuple[ProducerReport, ...]:
        """Everything, for the API."""
        ledger, leases = self._publisher.ledger, self._publisher.leases
        reports = []
        for unit in self._units.values():
            statuses = self._statuses.get(unit.key, {})
            endpoints = tuple(
                EndpointReport(
                    endpoint=status.endpoint,
                    up=status.up,
                    reason=status.reason,
                    detail=status.detail,
                    since=status.at,
                    stored=ledger.is_stored(id_, leases),
                    check=_in_words(unit, id_),
                )
                for id_, status in statuses.items()
            )
            reports.append(
                ProducerReport(
                    kind=unit.kind,
                    id=unit.id,
                    name=unit.name,
                    image=unit.image,
                    status=unit.status,
                    endpoints=endpoints,
                    faults=unit.faults,
                    silent=unit.silent,
                )
            )
        return tuple(reports)

    def in_words(self, keys: Iterable[str]) -> str:
        """``up``, or ``down: <reason>`` of the first endpoint of these producers that is down."""
        for key in keys:
            for status in self._statuses.get(key, {}).values():
                if not status.up:
                    return f"down: {status.reason}" + (
                        f", {status.detail}" if status.detail else ""
                    )
        return "up"

    async def changed(self) -> None:
        """Wait for the next change of any endpoint of this host."""
        await self._change.wait()

    def _judge(self, unit: Unit, *, gone: Reason) -> None:
        now = self._wall()
        known = self._statuses.get(unit.key, {})
        drained = self._drained.get(unit.key) or self._host_drained
        statuses: dict[EndpointId, Status] = {}
        for offer in unit.offers:
            id_ = offer.endpoint.id
            state = None
            if offer.check is not None:
                state = self._checks.get((unit.key, id_, unit.run), CheckState())
            verdict = unit.judge(state, drained)
            before = known.get(id_)
            same = before is not None and before.reason == verdict.reason
            statuses[id_] = Status(
                offer.endpoint,
                verdict.reason,
                verdict.detail,
                before.at if same and before is not None else now,
            )
        self._apply(unit.key, statuses, gone)

    def _apply(self, key: str, after: dict[EndpointId, Status], gone: Reason) -> None:
        before = self._statuses.get(key, {})
        if after:
            self._statuses[key] = after
        else:
            self._statuses.pop(key, None)
        now = self._wall()
        ledger = self._publisher.ledger
        if before != after:
            ledger.offer(key, after.values(), gone=gone, now=now)
            self._change.set()
            self._change = trio.Event()
            out: list[Withdrawal] = []
            back: list[Endpoint] = []
            for id_ in before.keys() | after.keys():
                old, new = before.get(id_), after.get(id_)
                was_up = old is not None and old.up
                is_up = new is not None and new.up
                wanted = ledger.wanted(id_)
                if was_up == is_up:
                    if is_up and wanted is not None and _moved(old, wanted):
                        back.append(ledger.as_stored(wanted.endpoint))
                        self._log_up(wanted)
                    continue
                if wanted is not None and wanted.up:
                    back.append(ledger.as_stored(wanted.endpoint))
                    self._log_up(wanted)
                elif wanted is not None:
                    reason = wanted.reason or gone
                    endpoint = ledger.as_stored(wanted.endpoint)
                    said = Withdrawal(endpoint, reason, wanted.detail, wanted.at)
                    out.append(said)
                    self._publisher.expect_withdrawal(id_)
                    self._log_down(said)
            if out:
                self._local.suppress(out)
            if back:
                self._local.unsuppress(back)
        self._publisher.wake()
        self.checks_changed()
        self.units_changed()

    def _refuse(self, unit: Unit) -> None:
        key = self._keys.refused(self._host, unit.id[:12])
        if not unit.faults:
            self._publisher.ledger.keep(key, None)
            return
        for fault in unit.faults:
            log.error(
                "container refused",
                extra=fields(container=unit.name, id=unit.id[:12], fault=fault),
            )
        refusal = Refusal(self._host, unit.id[:12], unit.name, unit.faults, self._wall())
        self._publisher.ledger.keep(key, encode_refusal(refusal))

    def _forget_checks(self, key: str) -> None:
        for name in [name for name in self._checks if name[0] == key]:
            del self._checks[name]

    def _count(self, *, up: bool) -> int:
        return sum(s.up is up for statuses in self._statuses.values() for s in statuses.values())

    def _log_up(self, status: Status) -> None:
        e = status.endpoint
        log.info(
            "endpoint up",
            extra=fields(
                service=e.service,
                instance=e.instance,
                address=e.address,
                port=e.port,
                container=e.container_name,
            ),
        )

    def _log_down(self, said: Withdrawal) -> None:
        self._metrics.withdrawals.labels(said.reason).inc()
        log.info(
            "endpoint down",
            extra=fields(
                service=said.endpoint.service,
                instance=said.endpoint.instance,
                reason=said.reason,
                detail=said.detail,
                container=said.endpoint.container_name,
            ),
        )


def _moved(old: Status | None, new: Status) -> bool:
    return old is not None and old.endpoint.place != new.endpoint.place


def _in_words(unit: Unit, id_: EndpointId) -> str:
    for offer in unit.offers:
        if offer.endpoint.id == id_ and offer.check is not None:
            check = offer.check
            what = {"http": check.path, "cmd": " ".join(check.command), "tcp": ""}[check.kind]
            port = check.port or offer.endpoint.port
            where = "" if check.kind == "cmd" else f" :{port}"
            return f"{check.kind}{where}{what if check.kind != 'cmd' else ' ' + what}" + (
                f" every {check.interval:g}s, rise {check.rise}, fall {check.fall}"
            )
    return ""
