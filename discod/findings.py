"""Everything that is known of the subject of a query, fact by fact.

Rule: what this host knows of its own is newer than what the store says of it, and is preferred; of
other hosts the Catalog is all there is. States facts, guesses nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from discod.model.catalog import Catalog
from discod.model.endpoint import Alias, Endpoint, EndpointId, Fault, Loss, Reason, Withdrawal
from discod.model.names import reversed_labels
from discod.model.report import EndpointReport, ProducerReport
from discod.query import Query
from discod.view import StoreReport


class State(StrEnum):
    """Where the subject of a finding stands."""

    UP = "up"
    """In DNS."""
    SUSPECT = "suspect"
    """In DNS, although the store lost it."""
    DOWN = "down"
    """Known, and not in DNS for a stated reason."""
    PENDING = "pending"
    """Up on this host, and not yet confirmed by the store."""
    SHADOWED = "shadowed"
    """An alias that is not in DNS because endpoints or another alias of its name are."""
    LOST = "lost"
    """Vanished without a statement."""
    REFUSED = "refused"
    SILENT = "silent"
    """A container that offers nothing, although nothing is wrong."""
    INVALID = "invalid"
    """A record that is skipped as malformed."""


IN_DNS = frozenset({State.UP, State.SUSPECT})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the question is about."""

    state: State
    subject: str
    """``service/instance``, a container, ``host NAME`` or a store key."""
    why: str
    host: str = ""
    since: float | None = None
    """Unix seconds."""
    revision: int | None = None
    """Of the store, when this was written or vanished; None when the store has not said."""
    endpoint: Endpoint | None = None
    alias: Alias | None = None
    container: str = ""
    reason: Reason | None = None
    stored: bool | None = None
    """Whether the store confirmed what this host knows; None for what other hosts own."""
    check: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _Sighting:
    """All that is known of one endpoint."""

    up: Endpoint | None = None
    withdrawal: Withdrawal | None = None
    loss: Loss | None = None
    report: EndpointReport | None = None
    matches: bool = field(default=False)


def gather(
    query: Query,
    *,
    catalog: Catalog,
    producers: Sequence[ProducerReport],
    store: StoreReport,
    host: str,
) -> list[Finding]:
    """Everything that the query is about; endpoints that are in DNS come first."""
    return [
        *_endpoints(query, catalog, producers, store),
        *_aliases(query, catalog),
        *_hosts(query, catalog),
        *_producers(query, producers, host),
        *_refusals(query, catalog, host),
        *_invalid(query, catalog),
    ]


def _endpoints(
    query: Query, catalog: Catalog, producers: Sequence[ProducerReport], store: StoreReport
) -> list[Finding]:
    seen: dict[EndpointId, _Sighting] = {}

    def sighting(endpoint: Endpoint, *, of_producer: bool = False) -> _Sighting:
        one = seen.setdefault(endpoint.id, _Sighting())
        one.matches = one.matches or of_producer or query.is_endpoint(endpoint)
        return one

    for endpoint in catalog.endpoints():
        sighting(endpoint).up = endpoint
    for withdrawal in catalog.withdrawn.values():
        sighting(withdrawal.endpoint).withdrawal = withdrawal
    for loss in catalog.lost.values():
        sighting(loss.endpoint).loss = loss
    for producer in producers:
        meant = query.is_container(producer.id, producer.name)
        for report in producer.endpoints:
            sighting(report.endpoint, of_producer=meant).report = report
    found = [_endpoint(one, catalog, store) for one in seen.values() if one.matches]
    return sorted(found, key=lambda f: (f.state not in IN_DNS, f.subject))


def _endpoint(one: _Sighting, catalog: Catalog, store: StoreReport) -> Finding:
    report = one.report
    stored = None if report is None else report.stored
    check = "" if report is None else report.check

    def finding(
        state: State,
        endpoint: Endpoint,
        why: str,
        since: float,
        *,
        reason: Reason | None = None,
        revision: int | None = None,
    ) -> Finding:
        return Finding(
            state=state,
            subject=f"{endpoint.service}/{endpoint.instance}",
            why=why,
            host=endpoint.host,
            since=since or None,
            revision=revision,
            endpoint=endpoint,
            container=endpoint.container_name or endpoint.container[:12],
            reason=reason,
            stored=stored,
            check=check,
        )

    if one.up is not None:
        why = "in DNS"
        suspect = catalog.suspects.get(one.up.id)
        if suspect is not None:
            why = (
                f"in DNS as a suspect: the store lost it at revision {suspect.revision} together"
                f" with others; {suspect.detail}"
            )
            return finding(State.SUSPECT, one.up, why, suspect.at, revision=one.up.revision or None)
        if report is not None and not report.up:
            why += f"; its host says {_said(report.reason, report.detail)}, a withdrawal is due"
        elif stored is False:
            why += "; its host has a newer state that the store has not confirmed"
        return finding(State.UP, one.up, why, one.up.since, revision=one.up.revision or None)
    if report is not None and report.up:
        why = "up here, but the store has not confirmed its record"
        if not store.connected:
            why += f" (no connection to the store: {store.error or 'no reason known'})"
        return finding(State.PENDING, report.endpoint, why, report.since)
    if report is not None:
        why = _said(report.reason, report.detail)
        if not report.stored:
            why += "; out of DNS here, not yet confirmed by the store"
        written = one.withdrawal.revision if one.withdrawal is not None else 0
        return finding(
            State.DOWN,
            report.endpoint,
            why,
            report.since,
            reason=report.reason,
            revision=written or None,
        )
    loss, said = one.loss, one.withdrawal
    if loss is not None and (said is None or said.at < loss.at):
        owner = loss.endpoint.host
        why = f"vanished at revision {loss.revision} without a withdrawal: "
        if not owner:
            why += "its producer's record expired, or was deleted by hand"
        elif owner in catalog.hosts:
            why += f"deleted by hand, or the lease of host {owner} expired in between"
        else:
            why += f"the lease of host {owner} expired, or it was deleted by hand"
        if loss.detail:
            why += f"; {loss.detail}"
        return finding(State.LOST, loss.endpoint, why, loss.at, revision=loss.revision)
    assert said is not None
    why = _said(said.reason, said.detail)
    return finding(
        State.DOWN,
        said.endpoint,
        why,
        said.at,
        reason=said.reason,
        revision=said.revision or None,
    )


def _aliases(query: Query, catalog: Catalog) -> list[Finding]:
    found = []
    for service, instances in catalog.aliases.items():
        counts = catalog.alias(service)
        for alias in instances.values():
            if not query.is_alias(alias):
                continue
            why = f"alias of {alias.target}"
            if counts is None:
                why += f"; not used while {service} has endpoints"
            elif alias is not counts:
                why += f"; not used, {counts.instance} comes first"
            found.append(
                Finding(
                    State.UP if alias is counts else State.SHADOWED,
                    subject=f"{service}/{alias.instance}",
                    why=why,
                    host=alias.host,
                    since=alias.since or None,
                    revision=alias.revision or None,
                    alias=alias,
                )
            )
    return sorted(found, key=lambda f: (f.state is not State.UP, f.subject))


def _hosts(query: Query, catalog: Catalog) -> list[Finding]:
    found = []
    for known in catalog.hosts.values():
        meant = query.node == known.name or query.labels == (known.name,)
        if query.address is not None and query.port is None:
            meant = query.address in known.addresses
        if meant and query.srv is None:
            where = ", ".join(str(address) for address in known.addresses)
            found.append(
                Finding(
                    state=State.UP if known.addresses else State.DOWN,
                    subject=f"host {known.name}",
                    why=f"{known.name}.node.{catalog.domain} is {where or 'without an address'}",
                    host=known.name,
                    since=known.started or None,
                )
            )
    return found


def _producers(query: Query, producers: Sequence[ProducerReport], host: str) -> list[Finding]:
    found = []
    for one in producers:
        direct = query.is_container(one.id, one.name)
        if not direct and not _resembles(query, one.name, one.faults):
            continue
        if one.faults:
            state, why = State.REFUSED, f"refused: {_joined(one.faults)}"
        elif not one.endpoints and (direct or one.silent):
            state = State.SILENT
            why = one.silent or f"offers nothing (status: {one.status or 'unknown'})"
        else:
            continue
        found.append(
            Finding(
                state,
                subject=f"{one.name} ({one.id[:12]})" if one.kind == "docker" else one.name,
                why=why,
                host=host,
                container=one.name or one.id[:12],
                faults=one.faults,
            )
        )
    return found


def _refusals(query: Query, catalog: Catalog, host: str) -> list[Finding]:
    found = []
    for (owner, id_), refusal in catalog.refused.items():
        if owner == host:
            continue  # this host's own report says the same, and newer
        name = refusal.container_name
        if query.is_container(id_, name) or _resembles(query, name, refusal.faults):
            found.append(
                Finding(
                    State.REFUSED,
                    subject=f"{name} ({id_[:12]})",
                    why=f"refused: {_joined(refusal.faults)}",
                    host=owner,
                    since=refusal.at or None,
                    container=name or id_[:12],
                    faults=refusal.faults,
                )
            )
    return found


def _resembles(query: Query, name: str, faults: Iterable[Fault]) -> bool:
    """Whether a container is likely meant by a service's name that it never got to announce."""
    service = query.service
    if not service:
        return False
    return service in name.lower().replace("_", "-").split("-") or any(
        service == fault.value.strip().lower() for fault in faults
    )


def _invalid(query: Query, catalog: Catalog) -> list[Finding]:
    service = query.service
    if not service:
        return []
    tree = f"/{reversed_labels(catalog.domain)}/{service}"
    return [
        Finding(State.INVALID, subject=key, why=f"skipped: {error}")
        for key, error in catalog.invalid.items()
        if key.endswith(tree) or f"{tree}/" in key or f"/{service}/" in key
    ]


def _said(reason: Reason | None, detail: str) -> str:
    words = str(reason) if reason is not None else "down"
    return f"{words} ({detail})" if detail else words


def _joined(faults: Iterable[Fault]) -> str:
    return "; ".join(str(fault) for fault in faults)
