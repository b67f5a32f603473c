"""Every key of the store. Schema version 1.

Rule: nobody else builds or parses a key; `discod.model.schema` has the values. Records lie as in
SkyDNS:

    <prefix>/<domain reversed>/<service>/<instance>     one endpoint that is in DNS, or one alias
    /discod/v1/<domain>/hosts/<host>                    one daemon
    /discod/v1/<domain>/withdrawn/<host>/<service>/<instance>
    /discod/v1/<domain>/refused/<host>/<container>
    /discod/v1/<domain>/vip/service/<service>            which addresses a service has of its own
    /discod/v1/<domain>/vip/address/<address>            which service has an address

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from discod.model.endpoint import Address, EndpointId, Fault
from discod.model.fields import RecordError, is_address
from discod.model.names import is_label, reversed_labels, service_fault

SCHEMA = 1


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


@dataclass(frozen=True, slots=True)
class VipKey:
    """The key of a service's own addresses."""

    service: str


@dataclass(frozen=True, slots=True)
class VipOwnerKey:
    """The key of one such address."""

    address: Address


Key = RecordKey | HostKey | WithdrawnKey | RefusedKey | VipKey | VipOwnerKey


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one domain below one SkyDNS prefix."""

    domain: str = "discod.internal"
    prefix: str = "/skydns"
    records: str = field(init=False, repr=False)
    """Prefix of the DNS tree of the domain, with the final slash."""
    own: str = field(init=False, repr=False)
    """Prefix of everything of discod's own, with the final slash."""

    def __post_init__(self) -> None:
        # Made once: each event of the store is compared with both.
        object.__setattr__(self, "records", f"{self.prefix}/{reversed_labels(self.domain)}/")
        object.__setattr__(self, "own", f"/discod/v{SCHEMA}/{self.domain}/")

    @property
    def prefixes(self) -> tuple[str, str]:
        """All that a Catalog is made from."""
        return self.records, self.own

    def record(self, id_: EndpointId) -> str:
        """Key of the record of an endpoint or an alias."""
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

    @property
    def vips(self) -> str:
        """Prefix of all that is known of services' own addresses, with the final slash."""
        return f"{self.own}vip/"

    def vip(self, service: str) -> str:
        """Key of a service's own addresses."""
        return f"{self.own}vip/service/{service}"

    def vip_owner(self, address: Address) -> str:
        """Key of who has such an address."""
        return f"{self.own}vip/address/{address}"

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
                case "vip", ["service", service]:
                    fault = service_fault(service)
                    if fault is not None:
                        raise RecordError(key, Fault("key", key, fault))
                    return VipKey(service)
                case "vip", ["address", text]:
                    if not is_address(text) or str(ip_address(text)) != text:  # one key each
                        expected = "expected an address as it is commonly written"
                        raise RecordError(key, Fault("key", key, expected))
                    return VipOwnerKey(ip_address(text))
                case _:
                    return None
            if not all(is_label(label) for label in labels):
                raise RecordError(key, Fault("key", key, "expected labels"))
            return known
        return None
