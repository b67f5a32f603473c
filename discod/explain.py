"""Why something is in DNS, or is not.

Rule: one sentence that sums up what `discod.findings` gathered, and the notes that a reader needs
to judge it. Pure: who asks hands in every fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from types import MappingProxyType

from discod.explain_rescue import rescued
from discod.findings import IN_DNS, Finding, State, gather
from discod.model.catalog import Catalog
from discod.model.report import PartReport, ProducerReport, SilentHost
from discod.query import Query, parse
from discod.view import BgpView, RescueView, StoreReport

__all__ = ["Explanation", "Finding", "State", "explain"]

FINDINGS_MAX = 500
"""More are counted in a note, not listed."""


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
    answers: tuple[str, ...] = ()
    """What this host's resolver answers for it now: one line a record, or one word, the rcode."""


def explain(
    text: str,
    *,
    catalog: Catalog,
    producers: Sequence[ProducerReport],
    store: StoreReport,
    parts: Iterable[PartReport],
    host: str,
    resolve: Callable[[str], Sequence[str]] | None = None,
    silent: Mapping[str, SilentHost] = MappingProxyType({}),
    bgp: BgpView | None = None,
    rescue: RescueView | None = None,
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
        resolve: What this host's resolver answers for a name, one line a record.
        silent: Hosts that are taken as lost for not answering.
        bgp: Routes of this host; None without BGP.
        rescue: Rescue and service addresses of this host; None where they are not configured.
    """
    query = parse(text, catalog.domain)
    findings = gather(query, catalog=catalog, producers=producers, store=store, host=host)
    said = rescued(query, findings, catalog, rescue)
    if said.findings:
        findings = sorted([*findings, *said.findings], key=lambda f: f.state not in IN_DNS)
    nearest: tuple[str, ...] = ()
    if not findings:
        nearest = _nearest(query, catalog, producers)
    in_dns = any(f.state in IN_DNS for f in findings) or query.labels == ()
    notes = _notes(findings, catalog, store, parts)
    notes += [
        f"host {name} is silent since {moment(silent[name].since)},"
        f" by the word of {', '.join(silent[name].witnesses)}"
        for name in sorted({f.host for f in findings} & silent.keys())
    ]
    notes += _routes(findings, host, bgp)
    notes += said.notes
    notes += _warnings(findings, producers)
    if len(findings) > FINDINGS_MAX:
        notes.append(f"{len(findings)} findings; the first {FINDINGS_MAX} are listed")
    return Explanation(
        query=query.text,
        understood_as=query.kind(),
        in_dns=in_dns,
        verdict=said.verdict or _verdict(query, findings, catalog, nearest),
        revision=catalog.revision,
        findings=tuple(findings[:FINDINGS_MAX]),
        notes=tuple(notes),
        looked_at=_looked_at(catalog, producers, host),
        nearest=nearest,
        answers=_answers(query, findings, catalog, resolve),
    )


def _routes(findings: Sequence[Finding], host: str, bgp: BgpView | None) -> list[str]:
    """Whether this host announces what its containers have, and to whom."""
    own = [f.endpoint for f in findings if f.host == host and f.endpoint and f.endpoint.container]
    if bgp is None or not own:
        return []
    peers = bgp.peers()
    up = sum(peer["state"] == "Established" for peer in peers)
    notes = []
    for address in sorted({e.address for e in own}, key=lambda a: (a.version, a.packed)):
        route = f"{address}/{address.max_prefixlen}"
        if bgp.announced(address):
            notes.append(
                f"{route} is announced over BGP: {up} of {len(peers)} peers are established, and"
                " their export lists decide"
            )
        else:
            notes.append(f"{route} is not announced over BGP")
    return notes[:FINDINGS_MAX]


def _warnings(findings: Sequence[Finding], producers: Sequence[ProducerReport]) -> list[str]:
    """What endpoints of this host asked for and did not get."""
    meant = {f.endpoint.id for f in findings if f.endpoint}
    found = {
        f"{one.name}: {fault}": None
        for one in producers
        if any(report.endpoint.id in meant for report in one.endpoints)
        for fault in one.warnings
    }
    return list(found)[:FINDINGS_MAX]


def _answers(
    query: Query,
    findings: Sequence[Finding],
    catalog: Catalog,
    resolve: Callable[[str], Sequence[str]] | None,
) -> tuple[str, ...]:
    name = query.dns_name(catalog.domain)
    if resolve is None or not name:
        return ()
    meant = [f.endpoint or f.alias for f in findings]
    services = {one.service for one in meant if one is not None}
    if query.service and services and query.service not in services:
        return ()  # a container's name, which nobody would ask the resolver for
    try:
        return tuple(resolve(name))
    except ValueError:  # it cannot be asked over DNS, so there is no answer to show
        return ()


def moment(at: float) -> str:
    """Unix seconds as UTC, for sentences."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


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
    up = [f for f in findings if f.state in IN_DNS]
    rest = [f for f in findings if f.state not in IN_DNS]
    if up:
        where = ", ".join(sorted({f.host or "foreign producers" for f in up}))
        if len(up) == 1:
            since = f" since {moment(up[0].since)}" if up[0].since else ""
            what = up[0].subject + (f", {up[0].why}," if up[0].alias else "")
            text = f"{shown} is in DNS: {what} on {where}{since}"
        else:
            noun = "endpoints" if all(one.endpoint for one in up) else "findings"
            text = f"{shown} is in DNS: {len(up)} {noun} on {where}"
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
    if catalog.suspects:
        notes.append(
            f"the brake is engaged: {len(catalog.suspects)} endpoints that the store lost are kept"
            " as suspects"
        )
    for alias in [f.alias for f in findings if f.alias and f.state is State.UP]:
        service = alias.target.removesuffix(f".{catalog.domain}")
        inside = service != alias.target and "." not in service
        if inside and service not in catalog.services and service not in catalog.aliases:
            notes.append(f"{alias.target} has no endpoint that is up, so the alias leads nowhere")
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
        f"{len(catalog.aliases)} aliases",
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
        names = {
            *catalog.services,
            *catalog.aliases,
            *known,
            *(p.name for p in producers if p.name),
        }
    return tuple(get_close_matches(wanted, sorted(names), n=3, cutoff=0.6))
