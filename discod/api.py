"""The documents of the HTTP API, made from values.

Rule: every JSON document that the API gives out is built here, and every one it takes is read here;
`docs/api.md` describes them. Times are Unix seconds. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from discod.explain import Explanation, Finding
from discod.model.catalog import Catalog, Entry
from discod.model.endpoint import Address, Alias, Endpoint, Fault, Loss, Refusal, Withdrawal
from discod.model.report import EndpointReport, PartReport, ProducerReport, SilentHost
from discod.readiness import Readiness
from discod.view import StoreReport

Document = dict[str, Any]


def error(fault: Fault, more: Sequence[Fault] = ()) -> Document:
    """What every refusal looks like; `more` where several things are wrong at once."""
    document: Document = {"error": _fault(fault)}
    if more:
        document["errors"] = [_fault(one) for one in (fault, *more)]
    return document


def services(catalog: Catalog) -> Document:
    """``/v1/services``: every service that has, or lately had, an endpoint, and every alias."""
    down: dict[str, int] = {}
    for id_ in _down(catalog):
        down[id_.service] = down.get(id_.service, 0) + 1
    rows = []
    for name in sorted({*catalog.services, *catalog.aliases, *down}):
        up = list(catalog.services.get(name, {}).values())
        alias = catalog.alias(name)
        rows.append(
            {
                "name": name,
                "up": len(up),
                "down": down.get(name, 0),
                "ports": sorted({_port(endpoint) for endpoint in up if endpoint.port}),
                "tags": sorted({tag for endpoint in up for tag in endpoint.tags}),
                "hosts": sorted({endpoint.host for endpoint in up if endpoint.host}),
                "alias": alias.target if alias else None,
            }
        )
    return {"domain": catalog.domain, "revision": catalog.revision, "services": rows}


def service(catalog: Catalog, name: str) -> Document | None:
    """``/v1/services/{name}``; None when nothing is known of it."""
    up = [
        {**endpoint_document(e, catalog.domain), "suspect": _suspect(catalog, e)}
        for e in catalog.services.get(name, {}).values()
    ]
    withdrawn = [
        {**endpoint_document(w.endpoint, catalog.domain), **_withdrawal(w)}
        for id_, w in catalog.withdrawn.items()
        if id_.service == name and catalog.endpoint(id_) is None
    ]
    lost = [
        {**endpoint_document(one.endpoint, catalog.domain), **_loss(one)}
        for id_, one in catalog.lost.items()
        if id_.service == name and catalog.endpoint(id_) is None
    ]
    counts = catalog.alias(name)
    aliases = [
        {**alias_document(one, catalog.domain), "in_dns": one is counts}
        for one in catalog.aliases.get(name, {}).values()
    ]
    if not (up or withdrawn or lost or aliases):
        return None
    return {
        "name": name,
        "domain": catalog.domain,
        "revision": catalog.revision,
        "up": sorted(up, key=_by_instance),
        "withdrawn": sorted(withdrawn, key=_by_instance),
        "lost": sorted(lost, key=_by_instance),
        "aliases": sorted(aliases, key=_by_instance),
    }


def hosts(
    catalog: Catalog, this: str, silent: Mapping[str, SilentHost] = MappingProxyType({})
) -> Document:
    """``/v1/hosts``: every host with a live lease, and those only known from their endpoints."""
    counts: dict[str, int] = {}
    for endpoint in catalog.endpoints():
        counts[endpoint.host] = counts.get(endpoint.host, 0) + 1
    rows = []
    for name in sorted({*catalog.hosts, *(name for name in counts if name)}):
        known = catalog.hosts.get(name)
        rows.append(
            {
                "name": name,
                "this": name == this,
                "live": known is not None,
                "addresses": [str(a) for a in known.addresses] if known else [],
                "zone": known.zone if known else "",
                "version": known.version if known else "",
                "started": known.started if known else None,
                "drained": known.drained if known else None,
                "endpoints": counts.get(name, 0),
                "silent": _silent(silent[name]) if name in silent else None,
            }
        )
    return {"revision": catalog.revision, "host": this, "hosts": rows}


def _silent(host: SilentHost) -> Document:
    return {"since": host.since, "witnesses": list(host.witnesses)}


def producers(reports: Iterable[ProducerReport], host: str, domain: str) -> Document:
    """``/v1/producers``: everything of this host that offers endpoints, or could."""
    return {
        "host": host,
        "producers": [
            {
                "kind": one.kind,
                "id": one.id,
                "name": one.name,
                "image": one.image,
                "status": one.status,
                "endpoints": [_report(report, domain) for report in one.endpoints],
                "faults": [_fault(fault) for fault in one.faults],
                "silent": one.silent,
            }
            for one in reports
        ],
    }


def catalog_document(catalog: Catalog, store: StoreReport) -> Document:
    """``/v1/catalog``: how large it is, how fresh, and what of it was skipped."""
    return {
        "domain": catalog.domain,
        "revision": catalog.revision,
        "counts": {
            "services": len(catalog.services),
            "endpoints": sum(len(instances) for instances in catalog.services.values()),
            "aliases": sum(len(instances) for instances in catalog.aliases.values()),
            "withdrawn": len(catalog.withdrawn),
            "lost": len(catalog.lost),
            "suspects": len(catalog.suspects),
            "hosts": len(catalog.hosts),
            "refused": len(catalog.refused),
            "invalid": len(catalog.invalid),
        },
        "store": {
            "kind": store.kind,
            "connected": store.connected,
            "age": round(store.age, 3),
            "error": store.error,
        },
        "refused": [_refusal(one) for one in catalog.refused.values()],
        "invalid": dict(catalog.invalid),
    }


def entry(news: Entry, domain: str) -> Document:
    """One event of ``/v1/watch``."""
    return {
        "what": news.what,
        "revision": news.revision,
        "host": news.host or (news.endpoint.host if news.endpoint else ""),
        "endpoint": endpoint_document(news.endpoint, domain) if news.endpoint else None,
        "alias": alias_document(news.alias, domain) if news.alias else None,
        "reason": news.reason,
        "detail": news.detail,
    }


def explanation(answer: Explanation, domain: str) -> Document:
    """``/v1/explain``."""
    return {
        "query": answer.query,
        "understood_as": answer.understood_as,
        "in_dns": answer.in_dns,
        "verdict": answer.verdict,
        "revision": answer.revision,
        "findings": [_finding(one, domain) for one in answer.findings],
        "notes": list(answer.notes),
        "looked_at": list(answer.looked_at),
        "nearest": list(answer.nearest),
        "answers": list(answer.answers),
    }


def readiness(state: Readiness) -> Document:
    """``/readyz`` for programs."""
    return {
        "ready": state.ready,
        "blocking": [_part(part) for part in state.blocking],
        "away": [_part(part) for part in state.away],
    }


def prometheus(catalog: Catalog, wanted: str = "", tag: str = "") -> list[Document]:
    """``/v1/sd/prometheus``: the HTTP service discovery of Prometheus.

    https://prometheus.io/docs/prometheus/latest/http_sd/: always the whole list. Endpoints without
    a port (foreign records only) are left out, since a target needs one.

    Args:
        catalog: Where the endpoints come from.
        wanted: Only this service, if not empty.
        tag: Only endpoints with this tag, if not empty.
    """
    groups = []
    for endpoint in catalog.endpoints():
        if wanted not in ("", endpoint.service) or (tag and tag not in endpoint.tags):
            continue
        if not endpoint.port:
            continue
        labels = {
            "service": endpoint.service,
            "instance": endpoint.instance,
            "host": endpoint.host,
            "port_name": endpoint.port_name,
            "protocol": endpoint.protocol,
            "tags": f",{','.join(endpoint.tags)}," if endpoint.tags else "",
            "container": endpoint.container_name,
            "container_id": endpoint.container,
        }
        for key, value in endpoint.attributes:
            labels[f"attr_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}"] = value
        groups.append(
            {
                "targets": [socket_address(endpoint.address, endpoint.port)],
                "labels": {f"__meta_discod_{name}": value for name, value in labels.items()},
            }
        )
    return groups


def endpoint_document(endpoint: Endpoint, domain: str) -> Document:
    """One endpoint, as everywhere in the API."""
    return {
        "service": endpoint.service,
        "instance": endpoint.instance,
        "name": _name(endpoint, domain),
        "address": str(endpoint.address),
        "port": endpoint.port,
        "protocol": endpoint.protocol,
        "port_name": endpoint.port_name,
        "tags": list(endpoint.tags),
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "ttl": endpoint.ttl,
        "alpn": list(endpoint.alpn),
        "prefer": endpoint.prefer,
        "attributes": dict(endpoint.attributes),
        "text": endpoint.text,
        "host": endpoint.host,
        "container": endpoint.container,
        "container_name": endpoint.container_name,
        "producer": endpoint.producer,
        "since": endpoint.since,
    }


def alias_document(alias: Alias, domain: str) -> Document:
    """One alias, as everywhere in the API."""
    return {
        "service": alias.service,
        "instance": alias.instance,
        "name": f"{alias.service}.{domain}",
        "target": alias.target,
        "ttl": alias.ttl,
        "host": alias.host,
        "since": alias.since,
    }


def socket_address(address: Address, port: int) -> str:
    """``192.0.2.1:80`` or ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _name(endpoint: Endpoint, domain: str) -> str:
    """The endpoint's own name; the service's for a foreign record that stands right there."""
    return ".".join(filter(None, (endpoint.instance, endpoint.service, domain)))


def _down(catalog: Catalog) -> set[Any]:
    return {id_ for id_ in (*catalog.withdrawn, *catalog.lost) if catalog.endpoint(id_) is None}


def _by_instance(document: Document) -> str:
    return str(document["instance"])


def _port(endpoint: Endpoint) -> str:
    """``http:80/tcp``, or ``80/tcp`` where the number is all the name there is."""
    named = endpoint.port_name not in ("", str(endpoint.port))
    name = f"{endpoint.port_name}:" if named else ""
    return f"{name}{endpoint.port}/{endpoint.protocol}"


def _withdrawal(withdrawal: Withdrawal) -> Document:
    return {"reason": withdrawal.reason, "detail": withdrawal.detail, "at": withdrawal.at}


def _loss(loss: Loss) -> Document:
    return {"lost_revision": loss.revision, "at": loss.at, "detail": loss.detail}


def _suspect(catalog: Catalog, endpoint: Endpoint) -> Document | None:
    """Of an endpoint that the store lost and that is kept; None for all others."""
    one = catalog.suspects.get(endpoint.id)
    if one is None:
        return None
    return {"lost_revision": one.revision, "at": one.at, "detail": one.detail}


def _refusal(refusal: Refusal) -> Document:
    return {
        "host": refusal.host,
        "container": refusal.container,
        "container_name": refusal.container_name,
        "faults": [_fault(fault) for fault in refusal.faults],
        "at": refusal.at,
    }


def _fault(fault: Fault) -> Document:
    return {"subject": fault.subject, "value": fault.value, "expected": fault.expected}


def _report(report: EndpointReport, domain: str) -> Document:
    return {
        **endpoint_document(report.endpoint, domain),
        "up": report.up,
        "reason": report.reason,
        "detail": report.detail,
        "state_since": report.since,
        "stored": report.stored,
        "check": report.check,
    }


def _part(part: PartReport) -> Document:
    return {"name": part.name, "detail": part.detail, "since": part.since}


def _finding(one: Finding, domain: str) -> Document:
    return {
        "state": one.state,
        "subject": one.subject,
        "why": one.why,
        "host": one.host,
        "since": one.since,
        "revision": one.revision,
        "endpoint": endpoint_document(one.endpoint, domain) if one.endpoint else None,
        "alias": alias_document(one.alias, domain) if one.alias else None,
        "container": one.container,
        "reason": one.reason,
        "stored": one.stored,
        "check": one.check,
        "faults": [_fault(fault) for fault in one.faults],
    }
