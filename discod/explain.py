"""Why something is in DNS, or is not.

Rule: everything that the daemon knows of the subject, gathered from the Catalog and this host's own
producers, and one sentence that sums it up. States facts and where they come from; guesses nothing.
Pure: who asks hands in every fact and the present time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum

from discod.model.catalog import Catalog
from discod.model.endpoint import Endpoint, EndpointId, Fault, Loss, Reason, Withdrawal
from discod.model.names import reversed_labels
from discod.model.report import EndpointReport, PartReport, ProducerReport
from discod.query import Query, parse
from discod.view import StoreReport

FINDINGS_MAX = 500
"""More are counted in a note, not listed."""


class State(StrEnum):
    """Where the subject of a finding stands."""

    UP = "up"
    """In DNS."""
    DOWN = "down"
    """Known, and not in DNS for a stated reason."""
    PENDING = "pending"
    """Up on this host, and not yet confirmed by the store."""
    LOST = "lost"
    """Vanished without a statement."""
    REFUSED = "refused"
    SILENT = "silent"
    """A container that offers nothing, although nothing is wrong."""
    INVALID = "invalid"
    """A record that is skipped as malformed."""


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
    """Store revision at which it vanished."""
    endpoint: Endpoint | None = None
    container: str = ""
    reason: Reason | None = None
    stored: bool | None = None
    """Whether the store confirmed what this host knows; None for what other hosts own."""
    check: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer."""

    query: str
    understood_as: str
    in_dns: bool
    verdict: str
    """One sentence."""
    revision: int
    """Of the Catalog that was looked at."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    looked_at: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    """Names that are like the one asked for; only when nothing was found."""


@dataclass(slots=True)
class _Sighting:
    """All that is known of one endpoint."""

    up: Endpoint | None = None
    withdrawal: Withdrawal | None = None
    loss: Loss | None = None
    report: EndpointReport | None = None
    matches: bool = field(default=False)


def explain(
    text: str,
    *,
    catalog: Catalog,
    producers: Sequence[ProducerReport],
    store: StoreReport,
    parts: Iterable[PartReport],
    host: str,
) -> Explanation:
    """Answer `text`.

    Args:
        text: A DNS name with or without the domain, a container's name or id prefix (4 hexadecimal
            digits or more), an address, or address:port.
        catalog: What the cluster knows.
        producers: What this host knows of its own.
        store: How this host stands with the store.
        parts: The parts of this daemon.
        host: This host's name.
    """
    query = parse(text, catalog.domain)
    findings = [
        *_endpoints(query, catalog, producers, store),
        *_hosts(query, catalog),
        *_producers(query, producers, host),
        *_refusals(query, catalog, host),
        *_invalid(query, catalog),
    ]
    nearest: tuple[str, ...] = ()
    if not findings:
        nearest = _nearest(query, catalog, producers)
    in_dns = any(f.state is State.UP for f in findings) or query.labels == ()
    notes = _notes(findings, catalog, store, parts)
    if len(findings) > FINDINGS_MAX:
        notes.append(f"{len(findings)} findings; the first {FINDINGS_MAX} are listed")
    return Explanation(
        query=query.text,
        understood_as=query.kind(),
        in_dns=in_dns,
        verdict=_verdict(query, findings, catalog, nearest),
        revision=catalog.revision,
        findings=tuple(findings[:FINDINGS_MAX]),
        notes=tuple(notes),
        looked_at=_looked_at(catalog, producers, host),
        nearest=nearest,
    )


def moment(at: float) -> str:
    """Unix seconds as UTC, for sentences."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


# What is known ---------------------------------------------------------------------------------


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
    return sorted(found, key=lambda f: (f.state is not State.UP, f.subject))


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
        if report is not None and not report.up:
            why += f"; its host says {_said(report.reason, report.detail)}, a withdrawal is due"
        elif stored is False:
            why += "; its host has a newer state that the store has not confirmed"
        return finding(State.UP, one.up, why, one.up.since)
    if report is not None and report.up:
        why = "up here, but the store has not confirmed its record"
        if not store.connected:
            why += f" (no connection to the store: {store.error or 'no reason known'})"
        return finding(State.PENDING, report.endpoint, why, report.since)
    if report is not None:
        why = _said(report.reason, report.detail)
        if not report.stored:
            why += "; out of DNS here, not yet confirmed by the store"
        return finding(State.DOWN, report.endpoint, why, report.since, reason=report.reason)
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
        return finding(State.LOST, loss.endpoint, why, loss.at, revision=loss.revision)
    assert said is not None
    why = _said(said.reason, said.detail)
    return finding(State.DOWN, said.endpoint, why, said.at, reason=said.reason)


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


# What it amounts to ----------------------------------------------------------------------------


def _said(reason: Reason | None, detail: str) -> str:
    words = str(reason) if reason is not None else "down"
    return f"{words} ({detail})" if detail else words


def _verdict(
    query: Query, findings: Sequence[Finding], catalog: Catalog, nearest: Sequence[str]
) -> str:
    shown = query.text
    if query.labels == ():
        return f"{shown} is the domain itself: its SOA and NS are always answered."
    if not findings:
        if query.foreign:
            return (
                f"{shown} is not in {catalog.domain}, and no container has that name: "
                "such names are forwarded, or refused."
            )
        if near := _near_miss(query, catalog):
            return f"{shown} is not in DNS: {near}."
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "."
        return f"{shown} is not in DNS: nothing of that {_noun(query)} is known{hint}"
    up = [f for f in findings if f.state is State.UP]
    rest = [f for f in findings if f.state is not State.UP]
    if up:
        where = ", ".join(sorted({f.host or "foreign producers" for f in up}))
        if len(up) == 1:
            since = f" since {moment(up[0].since)}" if up[0].since else ""
            text = f"{shown} is in DNS: {up[0].subject} on {where}{since}"
        else:
            text = f"{shown} is in DNS: {len(up)} endpoints on {where}"
        return f"{text}; {len(rest)} more not ({_states(rest)})." if rest else f"{text}."
    if len(rest) == 1:
        one = rest[0]
        since = f" since {moment(one.since)}" if one.since else ""
        where = f" on {one.host}" if one.host else ""
        return f"{shown} is not in DNS: {one.subject}{where}{since}: {one.why}."
    noun = "endpoints" if all(one.endpoint for one in rest) else "findings"
    return f"{shown} is not in DNS: none of {len(rest)} {noun} is up ({_states(rest)})."


def _noun(query: Query) -> str:
    if query.address is not None:
        return "address"
    return "name" if query.labels is not None and len(query.labels) > 1 else "name or container"


def _joined(faults: Iterable[Fault]) -> str:
    return "; ".join(str(fault) for fault in faults)


def _near_miss(query: Query, catalog: Catalog) -> str:
    """What a service has, when it exists but not with this port, tag or instance."""
    instances = catalog.services.get(query.service)
    if not instances:
        return ""
    if query.srv is not None:
        ports = {f"_{e.port_name}._{e.protocol}" for e in instances.values() if e.port_name}
        has = f"ports {', '.join(sorted(ports))}" if ports else "no port with a name"
    else:
        tags = {tag for e in instances.values() for tag in e.tags}
        has = f"{len(instances)} instances and "
        has += f"tags {', '.join(sorted(tags))}" if tags else "no tags"
    return f"service {query.service} exists, and has {has}"


def _states(findings: Iterable[Finding]) -> str:
    counts: dict[str, int] = {}
    for one in findings:
        word = str(one.reason or one.state)
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def _notes(
    findings: Sequence[Finding], catalog: Catalog, store: StoreReport, parts: Iterable[PartReport]
) -> list[str]:
    notes = []
    if not store.connected:
        notes.append(
            f"the Catalog is stale: no sign of the store for {store.age:.0f} s "
            f"({store.error or 'no reason known'}); DNS answers from revision {catalog.revision}"
        )
    for name in sorted({f.host for f in findings if f.host}):
        known = catalog.hosts.get(name)
        if known is None:
            notes.append(f"host {name} has no live lease: its daemon is away")
        elif known.drained is not None:
            notes.append(f"host {name} is drained since {moment(known.drained)}")
    notes += [
        f"part {part.name} of this daemon is not ready since {moment(part.since)}: {part.detail}"
        for part in parts
        if not part.ready
    ]
    return notes


def _looked_at(catalog: Catalog, producers: Sequence[ProducerReport], host: str) -> tuple[str, ...]:
    return (
        f"{len(catalog.services)} services of {catalog.domain} at revision {catalog.revision}",
        f"{len(catalog.withdrawn)} withdrawals, {len(catalog.lost)} losses, "
        f"{len(catalog.refused)} refused containers, {len(catalog.invalid)} invalid records",
        f"{len(catalog.hosts)} hosts",
        f"{len(producers)} containers, static services and commands of host {host}",
    )


def _nearest(
    query: Query, catalog: Catalog, producers: Sequence[ProducerReport]
) -> tuple[str, ...]:
    if query.address is not None:
        return ()
    wanted = query.node or query.service or query.text.lower()
    names: Iterable[str] = catalog.hosts
    if not query.node:
        known = {id_.service for id_ in (*catalog.withdrawn, *catalog.lost)}
        names = {*catalog.services, *known, *(p.name for p in producers if p.name)}
    return tuple(get_close_matches(wanted, sorted(names), n=3, cutoff=0.6))
