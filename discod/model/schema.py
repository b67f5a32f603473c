"""Every key of the store, and the JSON behind it. Schema version 1.

Rule: nobody else builds or parses a key, and nobody else encodes or decodes a value. The layout of
records is SkyDNS's, as CoreDNS's *etcd* plugin reads it
(https://coredns.io/plugins/etcd/, https://github.com/skynetservices/skydns#service-announcements):

    <prefix>/<domain reversed>/<service>/<instance>     one endpoint that is in DNS
    /discod/v1/<domain>/hosts/<host>                    one daemon
    /discod/v1/<domain>/withdrawn/<host>/<service>/<instance>
    /discod/v1/<domain>/refused/<host>/<container>

Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address

from discod.model.endpoint import (
    DEFAULT_PRIORITY,
    DEFAULT_WEIGHT,
    Endpoint,
    EndpointId,
    Fault,
    Host,
    Producer,
    Protocol,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.fields import Fields, RecordError, is_address, is_text, shown
from discod.model.names import is_label, is_port_name, reversed_labels, service_fault

__all__ = [
    "RECORD_TTL",
    "SCHEMA",
    "HostKey",
    "Key",
    "Keyspace",
    "RecordError",
    "RecordKey",
    "RefusedKey",
    "WithdrawnKey",
    "decode_endpoint",
    "decode_host",
    "decode_refusal",
    "decode_withdrawal",
    "encode_endpoint",
    "encode_host",
    "encode_refusal",
    "encode_withdrawal",
]

SCHEMA = 1
RECORD_TTL = 1
"""Seconds, for CoreDNS readers: its floor. discod itself serves 0."""


@dataclass(frozen=True, slots=True)
class RecordKey:
    """A key in the DNS tree."""

    id: EndpointId


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key of a host's own record."""

    host: str


@dataclass(frozen=True, slots=True)
class WithdrawnKey:
    """The key of a withdrawal."""

    host: str
    id: EndpointId


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """The key of a refusal."""

    host: str
    container: str


Key = RecordKey | HostKey | WithdrawnKey | RefusedKey


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one domain below one SkyDNS prefix."""

    domain: str = "discod.internal"
    prefix: str = "/skydns"

    @property
    def records(self) -> str:
        """Prefix of the DNS tree of the domain, with the final slash."""
        return f"{self.prefix}/{reversed_labels(self.domain)}/"

    @property
    def own(self) -> str:
        """Prefix of everything of discod's own, with the final slash."""
        return f"/discod/v{SCHEMA}/{self.domain}/"

    @property
    def prefixes(self) -> tuple[str, str]:
        """All that a Catalog is made from."""
        return self.records, self.own

    def record(self, id_: EndpointId) -> str:
        """Key of an endpoint's record."""
        return f"{self.records}{id_.service}" + (f"/{id_.instance}" if id_.instance else "")

    def host(self, host: str) -> str:
        """Key of a host's own record."""
        return f"{self.own}hosts/{host}"

    def withdrawn(self, host: str, id_: EndpointId) -> str:
        """Key of a withdrawal."""
        return f"{self.own}withdrawn/{host}/{id_.service}/{id_.instance}"

    def refused(self, host: str, container: str) -> str:
        """Key of a refusal."""
        return f"{self.own}refused/{host}/{container}"

    def parse(self, key: str) -> Key | None:
        """What `key` names; None for a key that is legal but not read by discod.

        Raises:
            RecordError: the key lies in our space but has not the form above.
        """
        if key.startswith(self.records):
            parts = key[len(self.records) :].split("/")
            if parts[0] == "dns":
                return None  # name servers of other SkyDNS readers
            fault = service_fault(parts[0])
            if fault is None and (len(parts) > 2 or not all(is_label(part) for part in parts)):
                fault = "expected <service>/<instance> below the domain, labels"
            if fault is not None:
                raise RecordError(key, Fault("key", key, fault))
            return RecordKey(EndpointId(parts[0], parts[1] if len(parts) == 2 else ""))
        if key.startswith(self.own):
            kind, *parts = key[len(self.own) :].split("/")
            known: Key
            match kind, parts:
                case "hosts", [host]:
                    known, labels = HostKey(host), [host]
                case "withdrawn", [host, service, instance]:
                    known, labels = WithdrawnKey(host, EndpointId(service, instance)), parts
                case "refused", [host, container]:
                    known, labels = RefusedKey(host, container), [host]
                case _:
                    return None
            if not all(is_label(label) for label in labels):
                raise RecordError(key, Fault("key", key, "expected labels"))
            return known
        return None


# Values ---------------------------------------------------------------------------------------


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


def decode_endpoint(key: str, id_: EndpointId, value: bytes) -> Endpoint:
    """The endpoint behind a record of ours or of any other SkyDNS producer.

    Raises:
        RecordError: the value is not JSON, or a field is missing or of the wrong kind.
    """
    return _endpoint(id_, Fields.load(key, value))


def _endpoint(id_: EndpointId, fields: Fields) -> Endpoint:
    address = fields.address("host")
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
        )
    protocol: Protocol = "udp" if meta.choice("protocol", ("tcp", "udp")) == "udp" else "tcp"
    return Endpoint(
        service=id_.service,
        instance=id_.instance,
        address=address,
        port=port,
        protocol=protocol,
        port_name=meta.label("port_name", is_port_name),
        tags=meta.labels("tags"),
        weight=weight,
        priority=priority,
        attributes=meta.pairs("attributes"),
        text=text,
        host=meta.text("host", ""),
        container=meta.text("container", ""),
        container_name=meta.text("name", ""),
        producer=Producer(meta.choice("producer", tuple(Producer))),
        since=meta.number("since"),
        target=meta.label("target", is_label),
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
    return Withdrawal(
        endpoint=_endpoint(id_, record),
        reason=Reason(fields.choice("reason", tuple(Reason))),
        detail=fields.text("detail", ""),
        at=fields.number("at"),
    )


def encode_host(host: Host) -> bytes:
    """The value of a host's own record."""
    return _dump(
        {
            "v": SCHEMA,
            "addresses": [str(address) for address in host.addresses],
            "version": host.version,
            "machine": host.machine,
            "started": host.started,
            "drained": host.drained,
            "hints": {"port": host.hint_port, "key": host.hint_key},
        }
    )


def decode_host(key: str, name: str, value: bytes) -> Host:
    """The host behind a value.

    Raises:
        RecordError: the value is not what `encode_host` writes.
    """
    fields = Fields.load(key, value)
    hints = fields.sub("hints")
    return Host(
        name=name,
        addresses=tuple(ip_address(text) for text in fields.texts("addresses", is_address)),
        version=fields.text("version", ""),
        machine=fields.text("machine", ""),
        started=fields.number("started"),
        drained=fields.number("drained") if fields.values.get("drained") is not None else None,
        hint_port=hints.integer("port", 0, 65535, 0) if hints else 0,
        hint_key=hints.text("key", "") if hints else "",
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
    return meta


def _dump(value: object) -> bytes:
    # "replace": half a surrogate pair in foreign text must not stop whoever reports it.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
