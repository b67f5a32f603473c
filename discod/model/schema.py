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
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

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
from discod.model.names import is_label, is_port_name, reversed_labels

SCHEMA = 1
RECORD_TTL = 1
"""Seconds, for CoreDNS readers: its floor. discod itself serves 0."""


class RecordError(ValueError):
    """A key or a value that is not what the schema says; names the key and what was expected."""

    def __init__(self, key: str, fault: Fault) -> None:
        super().__init__(f"{key}: {fault}")
        self.key = key
        self.fault = fault


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
        return f"{self.records}{id_.service}/{id_.instance}"

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
            if len(parts) == 1:
                parts = [parts[0], ""]
            if (
                len(parts) != 2
                or not is_label(parts[0])
                or not (not parts[1] or is_label(parts[1]))
            ):
                raise RecordError(
                    key, Fault("key", key, "expected <service>/<instance> below the domain, labels")
                )
            return RecordKey(EndpointId(parts[0], parts[1]))
        if key.startswith(self.own):
            match key[len(self.own) :].split("/"):
                case ["hosts", host]:
                    return HostKey(host)
                case ["withdrawn", host, service, instance]:
                    return WithdrawnKey(host, EndpointId(service, instance))
                case ["refused", host, container]:
                    return RefusedKey(host, container)
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
    fields = _Fields(key, _load(key, value))
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
    fields = _Fields(key, _load(key, value))
    record = fields.sub("record")
    if record is None:
        raise RecordError(key, Fault("record", "", "expected an object"))
    return Withdrawal(
        endpoint=decode_endpoint(key, id_, _dump(record.values)),
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
        }
    )


def decode_host(key: str, name: str, value: bytes) -> Host:
    """The host behind a value.

    Raises:
        RecordError: the value is not what `encode_host` writes, or the name is no label.
    """
    if not is_label(name):
        raise RecordError(key, Fault("host", name, "expected a label"))
    fields = _Fields(key, _load(key, value))
    return Host(
        name=name,
        addresses=tuple(ip_address(text) for text in fields.texts("addresses", _is_address)),
        version=fields.text("version", ""),
        machine=fields.text("machine", ""),
        started=fields.number("started"),
        drained=fields.number("drained") if fields.values.get("drained") is not None else None,
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
    fields = _Fields(key, _load(key, value))
    faults = fields.values.get("faults")
    if not isinstance(faults, list) or not all(
        isinstance(f, list) and len(f) == 3 and all(isinstance(part, str) for part in f)
        for f in faults
    ):
        raise RecordError(key, Fault("faults", repr(faults), "expected a list of three texts each"))
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
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _load(key: str, value: bytes) -> Mapping[str, Any]:
    try:
        loaded = json.loads(value)
    except (ValueError, RecursionError) as error:
        shown = value[:80].decode("utf-8", "backslashreplace")
        raise RecordError(key, Fault("value", shown, f"expected JSON ({error})")) from None
    if not isinstance(loaded, dict):
        raise RecordError(key, Fault("value", repr(loaded), "expected a JSON object"))
    return loaded


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class _Fields:
    """Typed look-ups in one JSON object; each raises `RecordError` naming the field."""

    def __init__(self, key: str, values: Mapping[str, Any]) -> None:
        self._key = key
        self.values = values

    def _fault(self, name: str, expected: str) -> RecordError:
        return RecordError(self._key, Fault(name, repr(self.values.get(name)), expected))

    def address(self, name: str) -> Any:
        value = self.values.get(name)
        if not isinstance(value, str) or not _is_address(value):
            raise self._fault(name, "expected an IPv4 or IPv6 address")
        return ip_address(value)

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        value = self.values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._fault(name, f"expected an integer from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        value = self.values.get(name, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
            raise self._fault(name, "expected Unix seconds")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self._fault(name, "expected a string")
        return value

    def texts(self, name: str, valid: Any) -> tuple[str, ...]:
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and valid(v) for v in value):
            raise self._fault(name, "expected a list of valid strings")
        return tuple(value)

    def label(self, name: str, valid: Any) -> str:
        value = self.text(name, "")
        if value and not valid(value):
            raise self._fault(name, "expected a DNS label")
        return value

    def labels(self, name: str) -> tuple[str, ...]:
        return self.texts(name, is_label)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        value = self.values.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self._fault(name, "expected an object of strings")
        return tuple(sorted(value.items()))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.values.get(name)
        if value not in choices:
            raise self._fault(name, f"expected one of {', '.join(choices)}")
        return str(value)

    def sub(self, name: str) -> _Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fault(name, "expected an object")
        return _Fields(self._key, value)
