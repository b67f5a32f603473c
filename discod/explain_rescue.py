"""What rescue and service addresses have to say to a question.

Rule: as in `discod.findings`: facts only, from what the daemon's `RescueView` and the Catalog say.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from discod.findings import IN_DNS, Finding, State
from discod.model.catalog import Catalog
from discod.model.endpoint import Reason
from discod.query import Query
from discod.view import RescueView

NOTES_MAX = 100
"""Of one kind; more are counted."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is added to an explanation."""

    findings: tuple[Finding, ...] = ()
    """Of what the Catalog does not know, or not any more."""
    notes: tuple[str, ...] = ()
    verdict: str = ""
    """Instead of the usual one, where it is not empty."""


@dataclass(frozen=True, slots=True)
class _Vip:
    """One address of a service, with what this host makes of it."""

    service: str
    address: str
    up: bool
    """Whether DNS answers with it: an endpoint that has it is up."""
    rows: tuple[Mapping[str, Any], ...]
    """Of `RescueView.vips`; none where this host does not spread it."""

    def has(self, port: int | None) -> bool:
        """Whether it has this port, as far as this host can know."""
        return port is None or not self.rows or any(row["port"] == port for row in self.rows)


def rescued(
    query: Query, findings: Sequence[Finding], catalog: Catalog, rescue: RescueView | None
) -> Said:
    """What to add to `findings`.

    Args:
        query: The question.
        findings: What is known of its subject otherwise.
        catalog: What the cluster knows.
        rescue: This host's; None where neither it nor service addresses are configured.
    """
    vips = _vips(query, findings, catalog, rescue)
    notes = _capped([_balanced(one, rescue) for one in vips], "service addresses")
    added: list[Finding] = []
    known = {one.subject for one in findings}
    if rescue is not None and query.address is None:
        notes += _capped(_words(findings, rescue), "endpoints that are gone")
    elif rescue is not None:
        for row in _stale(query, rescue):
            notes.append(f"{_place(row)} is stale: {_fate(row)}")
            if f"{row['service']}/{row['instance']}" not in known:
                added.append(_gone(row))
    if query.address is None or not vips:
        return Said(tuple(added), tuple(notes))
    added = [_own(one, catalog.domain, query.port) for one in vips] + added
    names = " and ".join(f"{one.service}.{catalog.domain}" for one in vips)
    said, fault = "in DNS", ""
    if not any(one.up for one in vips):
        said, fault = "not in DNS", ", and no endpoint is up"
    elif not any(one.has(query.port) for one in vips):
        said, fault = "not in DNS", f", and nothing of it is at port {query.port}"
    verdict = f"{query.text} is {said}: it is the service address of {names}{fault}."
    return Said(tuple(added), tuple(notes), verdict)


def _vips(
    query: Query, findings: Sequence[Finding], catalog: Catalog, rescue: RescueView | None
) -> list[_Vip]:
    """The service addresses that the question is about, by service and address."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rescue.vips() if rescue is not None else ():
        rows.setdefault((row["service"], row["address"]), []).append(row)
    for service, addresses in catalog.vips.items():
        for address in addresses:
            rows.setdefault((service, str(address)), [])
    if query.address is not None:
        wanted = {key for key in rows if key[1] == str(query.address)}
    else:
        services = {query.service} | {f.endpoint.service for f in findings if f.endpoint}
        wanted = {key for key in rows if key[0] in services}
    return [_Vip(*key, _answered(*key, catalog), tuple(rows[key])) for key in sorted(wanted)]


def _answered(service: str, address: str, catalog: Catalog) -> bool:
    endpoints = catalog.services.get(service, {}).values()
    return any(address == str(one) for endpoint in endpoints for one in endpoint.vip)


def _balanced(one: _Vip, rescue: RescueView | None) -> str:
    text = f"{one.address} is the service address of {one.service}, and never changes"
    if rescue is None:
        return f"{text}; this host leads nobody there: expected [vip] as on the others"
    ways = [
        f"{row['protocol']} port {row['port']} to "
        + (" ".join(row["endpoints"]) or "nobody, hence refused")
        for row in one.rows
    ]
    return f"{text}; here {', '.join(ways)}" if ways else f"{text}; no port of it is served here"


def _words(findings: Sequence[Finding], rescue: RescueView) -> list[str]:
    """What becomes of packets to endpoints that are gone, each said once."""
    gone = [f.endpoint for f in findings if f.endpoint and f.state not in IN_DNS]
    words = [(endpoint, rescue.word(endpoint)) for endpoint in gone]
    return [f"{one.service}/{one.instance}: {word}" for one, word in words if word]


def _stale(query: Query, rescue: RescueView) -> list[Mapping[str, Any]]:
    """The stale places that an address stands for."""
    if query.address is None:
        return []
    return [
        row
        for row in rescue.entries()
        if row["address"] == str(query.address) and query.port in (None, row["port"])
    ]


def _fate(row: Mapping[str, Any]) -> str:
    where = ", ".join(row["goes_to"])
    if where:
        text = f"new connections to it go to {where}"
    elif row["refused"]:
        text = "connections to it are refused, since no sibling is up"
    else:
        text = "no sibling is up, and connections to it are left to the network"
    clients = row["clients"]
    if clients:
        text += f"; {clients} client{' still uses' if clients == 1 else 's still use'} it"
    return f"{text}; until {_moment(row['until'])} unless a client uses it"


def _gone(row: Mapping[str, Any]) -> Finding:
    """A stale place of which the Catalog has forgotten the endpoint."""
    reason = next((one for one in Reason if one == row["reason"]), None)
    return Finding(
        State.LOST if reason is None else State.DOWN,
        subject=f"{row['service']}/{row['instance']}",
        why=f"{row['reason']}; only rescue still remembers it",
        since=row["since"] or None,
        reason=reason,
    )


def _own(one: _Vip, domain: str, port: int | None) -> Finding:
    name = f"{one.service}.{domain}"
    if not one.up:
        why = f"{one.address} is kept for {one.service}, of which no endpoint is up"
    elif not one.has(port):
        why = f"no endpoint of {one.service} has port {port}"
    else:
        why = f"{name} is answered with {one.address}; _headless.{name} has the endpoints"
    up = one.up and one.has(port)
    return Finding(State.UP if up else State.DOWN, f"service {one.service}", why)


def _place(row: Mapping[str, Any]) -> str:
    address = row["address"]
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{row['port']}/{row['protocol']} ({row['service']}/{row['instance']})"


def _capped(notes: list[str], what: str) -> list[str]:
    if len(notes) <= NOTES_MAX:
        return notes
    return [*notes[:NOTES_MAX], f"and {len(notes) - NOTES_MAX} more {what}"]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
