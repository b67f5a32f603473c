"""The JSON behind every key of the store (`discod.model.keyspace`). Schema version 1.

Rule: nobody else encodes or decodes a value, but `discod.model.vip_records` those of services' own
addresses. Records are SkyDNS's, as CoreDNS's *etcd* plugin reads them
(https://coredns.io/plugins/etcd/,
https://github.com/skynetservices/skydns#service-announcements), and what is our own rides in one
object inside them. Pure.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, ip_address, ip_network

from discod.model.endpoint import (
    DEFAULT_PRIORITY,
    DEFAULT_WEIGHT,
    Address,
    Alias,
    Endpoint,
    EndpointId,
    Fault,
    Host,
    HostBgp,
    Prefer,
    Producer,
    Protocol,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.fields import (
    Fields,
    RecordError,
    is_address,
    is_alpn,
    is_network,
    is_text,
    shown,
)
from discod.model.keyspace import (
    SCHEMA,
    HostKey,
    Key,
    Keyspace,
    RecordKey,
    RefusedKey,
    VipKey,
    VipOwnerKey,
    WithdrawnKey,
)
from discod.model.names import is_label, is_port_name

__all__ = [
    "RECORD_TTL",
    "SCHEMA",
    "HostKey",
    "Key",
    "Keyspace",
    "Record",
    "RecordError",
    "RecordKey",
    "RefusedKey",
    "VipKey",
    "VipOwnerKey",
    "WithdrawnKey",
    "decode_host",
    "decode_record",
    "decode_refusal",
    "decode_withdrawal",
    "encode_alias",
    "encode_endpoint",
    "encode_host",
    "encode_refusal",
    "encode_withdrawal",
]

RECORD_TTL = 1
"""Seconds, SkyDNS's own field, for CoreDNS readers: its floor. discod never reads it."""
TTL_MAX = 2**31 - 1
"""Seconds (RFC 2181, section 8)."""

Record = Endpoint | Alias
"""What a key in the DNS tree may hold."""

_PREFERENCES: tuple[Prefer, ...] = ("none", "local", "zone")
_PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")
_PRODUCERS = tuple(Producer)
_REASONS = tuple(Reason)


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """The record of an endpoint: SkyDNS's fields, and ours inside one ``discod`` object."""
    value: dict[str, object] = {"host": str(endpoint.address)}
    if endpoint.port:
        value["port"] = endpoint.port
    value["priority"] = endpoint.priority
    value["weight"] = endpoint.weight
    value["ttl"] = RECORD_TTL
    value["discod"] = _metadata(endpoint)
    return _dump(value)


def encode_alias(alias: Alias) -> bytes:
    """The record of an alias: its target stands where an endpoint's address does (SkyDNS)."""
    meta: dict[str, object] = {
        "v": SCHEMA,
        "producer": Producer.STATIC,
        "host": alias.host,
        "since": alias.since,
    }
    if alias.ttl:
        meta["ttl"] = alias.ttl
    return _dump({"host": alias.target, "ttl": RECORD_TTL, "discod": meta})


def decode_record(key: str, id_: EndpointId, value: bytes, revision: int = 0) -> Record:
    """The endpoint or alias behind a record of ours or of any other SkyDNS producer.

    Args:
        key: For messages.
        id_: What the key names.
        value: Of the key.
        revision: Of the store, when it was written.

    Raises:
        RecordError: the value is not JSON, or a field is missing or of the wrong kind.
    """
    fields = Fields.load(key, value)
    place = fields.place("host")
    if isinstance(place, str):
        return _alias(id_, place, fields, revision)
    return _endpoint(id_, place, fields, revision)


def _alias(id_: EndpointId, target: str, fields: Fields, revision: int) -> Alias:
    meta = fields.sub("discod")
    if meta is None:
        return Alias(id_.service, id_.instance, target, revision=revision)
    return Alias(
        service=id_.service,
        instance=id_.instance,
        target=target,
        host=meta.text("host", ""),
        ttl=meta.integer("ttl", 0, TTL_MAX, 0),
        since=meta.number("since"),
        revision=revision,
    )


def _endpoint(id_: EndpointId, address: Address, fields: Fields, revision: int = 0) -> Endpoint:
    meta = fields.sub("discod")
    priority = fields.integer("priority", 0, 65535, 0) or DEFAULT_PRIORITY
    weight = fields.integer("weight", 0, 65535, DEFAULT_WEIGHT)
    port = fields.integer("port", 0, 65535, 0)
    text = fields.text("text", "")
    if meta is None:
        return Endpoint(
            service=id_.service,
            instance=id_.instance,
            address=address,
            port=port,
            priority=priority,
            weight=weight,
            text=text,
            revision=revision,
        )
    said = meta.values.get("prefer") is not None
    return Endpoint(
        service=id_.service,
        instance=id_.instance,
        address=address,
        port=port,
        protocol=meta.choice("protocol", _PROTOCOLS),
        port_name=meta.label("port_name", is_port_name),
        tags=meta.labels("tags"),
        weight=weight,
        priority=priority,
        attributes=meta.pairs("attributes"),
        text=text,
        host=meta.text("host", ""),
        container=meta.text("container", ""),
        container_name=meta.text("name", ""),
        producer=meta.choice("producer", _PRODUCERS),
        since=meta.number("since"),
        target=meta.label("target", is_label),
        ttl=meta.integer("ttl", 0, TTL_MAX, 0),
        alpn=meta.texts("alpn", is_alpn),
        prefer=meta.choice("prefer", _PREFERENCES) if said else None,
        anycast=tuple(ip_address(text) for text in meta.texts("anycast", is_address)),
        rescue=meta.boolean("rescue", True),
        vip=meta.vip("vip"),
        affinity=meta.values.get("affinity") is not None
        and meta.choice("affinity", ("none", "client")) == "client",
        revision=revision,
    )


def encode_withdrawal(withdrawal: Withdrawal) -> bytes:
    """The value of a withdrawal: reason, detail, time, and the whole record it withdraws."""
    return _dump(
        {
            "v": SCHEMA,
            "reason": withdrawal.reason,
            "detail": withdrawal.detail,
            "at": withdrawal.at,
            "record": json.loads(encode_endpoint(withdrawal.endpoint)),
        }
    )


def decode_withdrawal(key: str, id_: EndpointId, value: bytes) -> Withdrawal:
    """The withdrawal behind a value.

    Raises:
        RecordError: the value is not what `encode_withdrawal` writes.
    """
    fields = Fields.load(key, value)
    record = fields.sub("record")
    if record is None:
        raise RecordError(key, Fault("record", "", "expected an object"))
    address = record.place("host")
    if isinstance(address, str):
        raise RecordError(key, Fault("host", address, "expected an IPv4 or IPv6 address"))
    return Withdrawal(
        endpoint=_endpoint(id_, address, record),
        reason=fields.choice("reason", _REASONS),
        detail=fields.text("detail", ""),
        at=fields.number("at"),
    )


def encode_host(host: Host) -> bytes:
    """The value of a host's own record."""
    watch = {"liveness": {"port": host.liveness_port, "key": host.liveness_key}}
    return _dump(
        {
            "v": SCHEMA,
            "addresses": [str(address) for address in host.addresses],
            "version": host.version,
            "machine": host.machine,
            "started": host.started,
            "zone": host.zone,
            "drained": host.drained,
            "hints": {"port": host.hint_port, "key": host.hint_key},
            **(watch if host.liveness_port else {}),
            **({"bgp": _bgp(host.bgp)} if host.bgp else {}),
        }
    )


def _bgp(bgp: HostBgp) -> dict[str, object]:
    return {
        "asn": bgp.asn,
        "router_id": str(bgp.router_id),
        "address": str(bgp.address),
        "port": bgp.port,
        "mesh": bgp.mesh,
        "reflector": bgp.reflector,
        "networks": [str(network) for network in bgp.networks],
    }


def _decode_bgp(fields: Fields) -> HostBgp:
    return HostBgp(
        asn=fields.integer("asn", 1, 4294967295, 0),
        router_id=IPv4Address(fields.ip("router_id", 4)),
        address=fields.ip("address"),
        port=fields.integer("port", 1, 65535, 179),
        mesh=fields.values.get("mesh") is True,
        reflector=fields.values.get("reflector") is True,
        networks=tuple(ip_network(text) for text in fields.texts("networks", is_network)),
    )


def decode_host(key: str, name: str, value: bytes) -> Host:
    """The host behind a value.

    Raises:
        RecordError: the value is not what `encode_host` writes.
    """
    fields = Fields.load(key, value)
    hints = fields.sub("hints")
    watch = fields.sub("liveness")
    bgp = fields.sub("bgp")
    return Host(
        name=name,
        addresses=tuple(ip_address(text) for text in fields.texts("addresses", is_address)),
        version=fields.text("version", ""),
        machine=fields.text("machine", ""),
        started=fields.number("started"),
        zone=fields.label("zone", is_label),
        drained=fields.number("drained") if fields.values.get("drained") is not None else None,
        hint_port=hints.integer("port", 0, 65535, 0) if hints else 0,
        hint_key=hints.text("key", "") if hints else "",
        liveness_port=watch.integer("port", 0, 65535, 0) if watch else 0,
        liveness_key=watch.text("key", "") if watch else "",
        bgp=_decode_bgp(bgp) if bgp else None,
    )


def encode_refusal(refusal: Refusal) -> bytes:
    """The value of a refusal."""
    return _dump(
        {
            "v": SCHEMA,
            "name": refusal.container_name,
            "faults": [[f.subject, f.value[:256], f.expected] for f in refusal.faults],
            "at": refusal.at,
        }
    )


def decode_refusal(key: str, host: str, container: str, value: bytes) -> Refusal:
    """The refusal behind a value.

    Raises:
        RecordError: the value is not what `encode_refusal` writes.
    """
    fields = Fields.load(key, value)
    faults = fields.values.get("faults")
    if not isinstance(faults, list) or not all(
        isinstance(f, list) and len(f) == 3 and all(is_text(part) for part in f) for f in faults
    ):
        expected = "expected a list of three texts each"
        raise RecordError(key, Fault("faults", shown(faults), expected))
    return Refusal(
        host=host,
        container=container,
        container_name=fields.text("name", ""),
        faults=tuple(Fault(*f) for f in faults),
        at=fields.number("at"),
    )


def _metadata(endpoint: Endpoint) -> dict[str, object]:
    meta: dict[str, object] = {
        "v": SCHEMA,
        "producer": endpoint.producer,
        "host": endpoint.host,
        "container": endpoint.container,
        "name": endpoint.container_name,
        "port_name": endpoint.port_name,
        "protocol": endpoint.protocol,
        "tags": list(endpoint.tags),
        "health": "up",
        "since": endpoint.since,
    }
    if endpoint.attributes:
        meta["attributes"] = dict(endpoint.attributes)
    if endpoint.target:
        meta["target"] = endpoint.target
    if endpoint.ttl:
        meta["ttl"] = endpoint.ttl
    if endpoint.alpn:
        meta["alpn"] = list(endpoint.alpn)
    if endpoint.prefer is not None:
        meta["prefer"] = endpoint.prefer
    if endpoint.anycast:
        meta["anycast"] = [str(address) for address in endpoint.anycast]
    if not endpoint.rescue:
        meta["rescue"] = False
    if endpoint.vip:
        meta["vip"] = [str(address) for address in endpoint.vip]
    if endpoint.affinity:
        meta["affinity"] = "client"
    return meta


def _dump(value: object) -> bytes:
    # "replace": half a surrogate pair in foreign text must not stop whoever reports it.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
