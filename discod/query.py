"""What a person may ask `explain` about: a name, a container, an address.

Rule: one text, every reading of it that makes sense; nothing is looked up here. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from discod.model.endpoint import Address, Alias, Endpoint

QUERY_MAX = 300
"""Characters; a DNS name has at most 253, a container id 64."""

_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}\Z")
_HOST_PORT = re.compile(r"\[(?P<v6>[^]]*)\]:(?P<p6>\d{1,5})\Z|(?P<v4>[0-9.]+):(?P<p4>\d{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Query:
    """One question, as understood."""

    text: str
    address: Address | None = None
    port: int | None = None
    labels: tuple[str, ...] | None = None
    """Below the domain, ``()`` for the domain itself; None when it cannot be a name of ours."""
    srv: tuple[str, str] | None = None
    """Port name and protocol, taken off `labels`."""
    foreign: bool = False
    """A name that lies outside the domain."""

    def kind(self) -> str:
        """How it was understood, for people."""
        if self.address is not None:
            return "address" if self.port is None else "address and port"
        if self.foreign:
            return "name outside the domain, or a container"
        if self.labels is None:
            return "container"
        return "name" if len(self.labels) != 1 else "name or container"

    def is_container(self, id_: str, name: str) -> bool:
        """Whether it means the container with this id and name."""
        if self.address is not None or not (id_ or name):
            return False
        wanted = self.text.removeprefix("/")
        if name and wanted == name:
            return True
        return bool(_ID_PREFIX.match(wanted)) and id_.startswith(wanted)

    def is_endpoint(self, endpoint: Endpoint) -> bool:
        """Whether it means (also) this endpoint."""
        if self.address is not None:
            return self.address == endpoint.address and self.port in (None, endpoint.port)
        if self.is_container(endpoint.container, endpoint.container_name):
            return True
        return self.labels is not None and self._named(self.labels, endpoint)

    def is_alias(self, alias: Alias) -> bool:
        """Whether it means (also) this alias; ports are asked of what it leads to."""
        if self.foreign or not self.labels:
            return False
        return self.labels in ((alias.service,), (alias.instance, alias.service))

    def _named(self, labels: tuple[str, ...], endpoint: Endpoint) -> bool:
        if self.srv is not None and self.srv != (endpoint.port_name, endpoint.protocol):
            return False
        match labels:
            case [service]:
                if service == endpoint.service:
                    return True
                return self.srv is None and service == endpoint.instance
            case ["_headless", service]:
                # With a port there is such a name beside a service address only.
                return service == endpoint.service and (self.srv is None or bool(endpoint.vip))
            case [label, service]:
                return service == endpoint.service and (
                    label == endpoint.instance or label in endpoint.tags
                )
        return False

    def dns_name(self, domain: str) -> str:
        """What to ask the resolver, an address standing for its PTR; empty for no name of ours."""
        if self.address is not None:
            return str(self.address)
        if self.labels is None or self.foreign:
            return ""
        srv = (f"_{self.srv[0]}", f"_{self.srv[1]}") if self.srv else ()
        return ".".join((*srv, *self.labels, domain))

    @property
    def service(self) -> str:
        """The service's label, if it is a name that has one; else empty."""
        if not self.labels or self.node:
            return ""
        return self.labels[-1]

    @property
    def node(self) -> str:
        """The host's label, if it is the name of a node; else empty."""
        if self.labels is not None and len(self.labels) == 2 and self.labels[1] == "node":
            return self.labels[0]
        return ""


def parse(text: str, domain: str) -> Query:
    """Understand `text`; whatever it is, there is an answer (at worst, that nothing matches)."""
    text = text.strip()[:QUERY_MAX]
    if (address := _address(text.strip("[]"))) is not None:
        return Query(text, address=address)
    if found := _HOST_PORT.match(text):
        address = _address(found["v6"] or found["v4"] or "")
        port = int(found["p6"] or found["p4"])
        if address is not None and port <= 65535:
            return Query(text, address=address, port=port)
    name = text.lower()
    absolute = name.endswith(".")
    name = name.removesuffix(".")
    if name == domain:
        return Query(text, labels=())
    inside = name.endswith("." + domain)
    if inside:
        name = name.removesuffix("." + domain)
    labels = tuple(name.split("."))
    if not all(labels):
        return Query(text)
    srv = None
    if len(labels) > 2 and labels[0].startswith("_") and labels[1] in ("_tcp", "_udp"):
        srv = (labels[0][1:], labels[1][1:])
        labels = labels[2:]
    if not inside and (absolute or len(labels) > 2):
        return Query(text, foreign=True)
    return Query(text, labels=labels, srv=srv)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
