"""What rescue did, and for whom: counts, the clients that ignore the TTL, rows for people.

Rule: counts go up only, whatever the kernel's do (its elements end, its tables are replaced). Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from discod.model.endpoint import Address, Endpoint, Host
from discod.model.rescue import Place, Plan, PoolId, Result, Stale, Unit, Usage
from discod.model.rescue_settings import RescueSettings

CLIENTS_KEPT = 4096
"""Pairs of client and place that are remembered; the one seen longest ago is forgotten first."""
SHOWN = 8
"""Targets shown of one place."""


@dataclass(slots=True)
class Seen:
    """One client at one stale place."""

    client: Address
    place: Place
    service: str
    name: str
    counts: Counter[Result] = field(default_factory=Counter)
    last: float = 0.0
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class News:
    """What a count found since the one before it."""

    used: frozenset[Place]
    flows: Mapping[tuple[str, Result], int]
    """(service, result) -> how many more."""


class Report:
    """What there is to tell.

    Args:
        host: The record of this host.
        wall: The clock, Unix seconds.
    """

    def __init__(self, host: Host, wall: Callable[[], float]) -> None:
        self.host = host
        self.fault = ""
        self.dropped = 0
        self._wall = wall
        self._kernel: dict[tuple[Address, Place, Result], int] = {}
        self._seen: dict[tuple[Address, Place], Seen] = {}
        self._totals: Counter[tuple[str, Result]] = Counter()
        self._cut: Counter[str] = Counter()
        self._told: set[str] = set()  # services that `offenders` has named

    # What happened ------------------------------------------------------------------------------

    def cut(self, service: str, sockets: int) -> None:
        """Sockets were ended."""
        self._cut[service] += sockets

    def count(self, usage: Iterable[Usage], plan: Plan, units: Mapping[str, Unit]) -> News:
        """Take what the kernel has counted; what is no stale place any more is not looked at."""
        names = {a: unit.name for unit in units.values() for a in unit.addresses}
        names.update(dict.fromkeys(self.host.addresses, self.host.name))
        before, self._kernel = self._kernel, {}
        used: set[Place] = set()
        flows: Counter[tuple[str, Result]] = Counter()
        for client, place, result, times in usage:
            key = (client, place, result)
            self._kernel[key] = times
            known = before.get(key, 0)
            more = times - known if times >= known else times  # it was counted from zero again
            service = service_of(plan, place)
            if not more or service is None:
                continue
            used.add(place)
            flows[service, result] += more
            self._note(client, place, service, names.get(client, "")).counts[result] += more
        self._totals.update(flows)
        return News(frozenset(used), flows)

    def _note(self, client: Address, place: Place, service: str, name: str) -> Seen:
        seen = self._seen.pop((client, place), None)
        if seen is None or seen.service != service:
            seen = Seen(client, place, service, name)
        seen.name = name or seen.name
        seen.last = self._wall()
        self._seen[client, place] = seen
        if len(self._seen) > CLIENTS_KEPT:
            del self._seen[next(iter(self._seen))]
        return seen

    def expire(self, before: float) -> None:
        """Forget clients that were last seen before a time, Unix seconds."""
        for key in [key for key, seen in self._seen.items() if seen.last < before]:
            del self._seen[key]

    def offenders(self) -> dict[str, int]:
        """Clients by service; 0 for a service that was named before and has none now."""
        clients: dict[str, set[Address]] = {}
        for seen in self._seen.values():
            clients.setdefault(seen.service, set()).add(seen.client)
        found = {service: len(who) for service, who in clients.items()}
        gone = self._told - found.keys()
        self._told = set(found)
        return found | dict.fromkeys(gone, 0)

    # Rows ---------------------------------------------------------------------------------------

    def status(self, plan: Plan, settings: RescueSettings) -> Mapping[str, Any]:
        """How it stands as a whole, and what it did for each service."""
        clients: dict[str, set[Address]] = {}
        for seen in self._seen.values():
            clients.setdefault(seen.service, set()).add(seen.client)
        services = {service for service, _ in self._totals} | set(self._cut) | set(clients)
        return {
            "enabled": settings.enabled,
            "fault": self.fault,
            "entries": len(plan.stale),
            "max_entries": settings.max_entries,
            "dropped": self.dropped,
            "hold": settings.hold,
            "services": [
                {
                    "service": service,
                    **{str(result): self._totals[service, result] for result in Result},
                    "cut": self._cut[service],
                    "clients": len(clients.get(service, ())),
                }
                for service in sorted(services)
            ],
        }

    def entries(self, plan: Plan) -> Sequence[Mapping[str, Any]]:
        """All stale places, and where packets to them go."""
        clients = Counter(place for _, place in self._seen)
        return [
            {
                **_place(stale.place),
                "service": stale.endpoint.service,
                "instance": stale.endpoint.instance,
                "reason": stale.why,
                "since": stale.since,
                "until": stale.until,
                "goes_to": _goes_to(plan, stale),
                "refused": plan.refuse and not _goes_to(plan, stale),
                "cut": stale.cut,
                "clients": clients[stale.place],
            }
            for stale in sorted(plan.stale.values(), key=lambda s: (-s.since, s.endpoint, s.place))
        ]

    def clients(self) -> Sequence[Mapping[str, Any]]:
        """Who still uses stale places: those seen last come first."""
        return [
            {
                "client": str(seen.client),
                "name": seen.name,
                **_place(seen.place),
                "service": seen.service,
                **{str(result): seen.counts[result] for result in Result},
                "last": seen.last,
            }
            for seen in reversed(self._seen.values())
        ]

    def vips(self, plan: Plan) -> Sequence[Mapping[str, Any]]:
        """All service addresses, and where connections to them go."""
        return [
            {
                "service": pool.service,
                **_place(place),
                "affinity": plan.pools[pool].affinity,
                "endpoints": _targets(plan, pool),
            }
            for place, pool in sorted(plan.vips.items(), key=lambda item: (item[1], str(item[0])))
        ]

    def word(self, plan: Plan, endpoint: Endpoint) -> str:
        """What becomes of packets to an endpoint that is gone, in words; empty: nothing."""
        stale = plan.stale.get(Place(*endpoint.place))
        if stale is None or stale.endpoint != endpoint.id:
            return ""
        where = f"{_shown(stale.place.address, stale.place.port)}/{stale.place.protocol}"
        targets = _goes_to(plan, stale)
        if targets:
            return f"new connections to {where} go to {', '.join(targets)}"
        if plan.refuse:
            why = "another service had it of late" if stale.shared else "no sibling is up"
            return f"new connections to {where} are refused: {why}"
        return ""


def service_of(plan: Plan, place: Place) -> str | None:
    """Whose a stale place was, or whose service address it is; None: nobody's."""
    if (stale := plan.stale.get(place)) is not None:
        return stale.endpoint.service
    return plan.vips[place].service if place in plan.vips else None


def _goes_to(plan: Plan, stale: Stale) -> list[str]:
    return [] if stale.shared else _targets(plan, stale.pool)


def _shown(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _place(place: Place) -> dict[str, Any]:
    return {"address": str(place.address), "port": place.port, "protocol": place.protocol}


def _targets(plan: Plan, pool: PoolId) -> list[str]:
    slots = plan.pools[pool].slots if pool in plan.pools else ()
    found = sorted({_shown(address, port) for address, port in slots})
    return found if len(found) <= SHOWN else [*found[:SHOWN], "..."]
