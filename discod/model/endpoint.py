"""The values that flow through discod: endpoints, withdrawals, hosts, refusals.

Rule: immutable, comparable, no behaviour beyond what derives from their own fields. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

Address = IPv4Address | IPv6Address
Protocol = Literal["tcp", "udp"]
Prefer = Literal["none", "local", "zone"]
"""Which endpoints a resolver answers with while any of them is up: all, those of its own host, or
those of its own zone (else of all)."""

DEFAULT_PRIORITY = 10
DEFAULT_WEIGHT = 100


class EndpointId(NamedTuple):
    """Names one endpoint in the cluster: its two labels below the domain."""

    service: str
    instance: str


class Producer(StrEnum):
    """Who offers an endpoint."""

    DOCKER = "docker"
    STATIC = "static"
    """A ``[[service]]`` table of the configuration."""
    COMMAND = "command"
    """``discod announce -- CMD``."""
    FOREIGN = "foreign"
    """Another program that writes SkyDNS records."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a producer offers: one address, one port, under one service name."""

    service: str
    instance: str
    address: Address
    port: int
    """0 when the producer named none (foreign records only)."""
    protocol: Protocol = "tcp"
    port_name: str = ""
    """Without underscore; empty when unknown (foreign records only)."""
    tags: tuple[str, ...] = ()
    weight: int = DEFAULT_WEIGHT
    priority: int = DEFAULT_PRIORITY
    attributes: tuple[tuple[str, str], ...] = ()
    """Sorted by key."""
    text: str = ""
    """The ``text`` field of a foreign record."""
    host: str = ""
    """Name of the owner host; empty for foreign records."""
    container: str = ""
    """Full container id; empty when no container stands behind it."""
    container_name: str = ""
    producer: Producer = Producer.FOREIGN
    since: float = 0.0
    """When it was first offered, Unix seconds."""
    target: str = ""
    """Instance label that stands for this endpoint in SRV when it is not its own: the IPv6 half of
    a dual-stack endpoint names the IPv4 half, so that one target has both addresses."""
    ttl: int = 0
    """Seconds that DNS answers of its service may be cached."""
    alpn: tuple[str, ...] = ()
    """Protocols behind the port (RFC 7301 ids, as ``h2``), in order of preference: makes HTTPS
    records (RFC 9460)."""
    prefer: Prefer | None = None
    """None: what each resolver is set to."""
    anycast: tuple[Address, ...] = ()
    """Fixed addresses of its service that its host announces over BGP while it is up."""
    rescue: bool = True
    """Whether clients that still use its address when it is gone may be sent to a sibling."""
    vip: tuple[Address, ...] = ()
    """The service's own addresses, at most one of a family: what DNS answers in the endpoints'
    stead, and each host spreads over them."""
    affinity: bool = False
    """Whether connections of one client address to the service's own address stay with one
    endpoint."""
    revision: int = field(default=0, compare=False)
    """Of the store, when its record was last written; 0 when not from the store."""

    @property
    def id(self) -> EndpointId:
        """The endpoint's name in the cluster."""
        return EndpointId(self.service, self.instance)

    @property
    def place(self) -> tuple[Address, int, Protocol]:
        """Where it is reached."""
        return self.address, self.port, self.protocol

    @property
    def packed(self) -> bytes:
        """The address, 4 or 16 octets."""
        return self.address.packed

    @property
    def srv_target(self) -> str:
        """The instance label to name in SRV answers."""
        return self.target or self.instance


@dataclass(frozen=True, slots=True)
class Alias:
    """A service that is another name: a record of which the ``host`` is a name (SkyDNS)."""

    service: str
    instance: str
    target: str
    """Domain name in lower case, without the final dot."""
    host: str = ""
    """Name of the host that announces it; empty for foreign records."""
    ttl: int = 0
    since: float = 0.0
    """When it was first offered, Unix seconds."""
    revision: int = field(default=0, compare=False)
    """Of the store, when its record was last written; 0 when not from the store."""

    @property
    def id(self) -> EndpointId:
        """Its name in the cluster."""
        return EndpointId(self.service, self.instance)


class Reason(StrEnum):
    """Why an endpoint is not in DNS."""

    CRASHED = "crashed"
    """The main process ended with a status other than 0, or by a signal."""
    EXITED = "exited"
    """The main process ended with status 0."""
    STOPPING = "stopping"
    """The engine sent the stop signal."""
    REMOVED = "removed"
    PAUSED = "paused"
    STARTING = "starting"
    """HEALTHCHECK or own check has not succeeded yet."""
    UNHEALTHY = "unhealthy"
    DISCONNECTED = "disconnected"
    """The container left the network whose address it offered."""
    DRAINED = "drained"
    UNOFFERED = "unoffered"
    """The configuration or the labels no longer offer it."""
    PRODUCER_LEFT = "producer-left"
    """The command behind ``discod announce`` ended."""
    SILENT = "host-silent"
    """Its host does not answer; never stored, each host judges that for itself."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A producer's statement that an endpoint is not to be used."""

    endpoint: Endpoint
    reason: Reason
    detail: str
    """For people: exit status, check output, who drained."""
    at: float
    """Unix seconds."""
    revision: int = field(default=0, compare=False)
    """Of the store, when it was written; 0 when not from the store."""


@dataclass(frozen=True, slots=True)
class Loss:
    """An endpoint that vanished without a statement: its lease expired, or a hand deleted it."""

    endpoint: Endpoint
    revision: int
    at: float
    """When this host saw it, Unix seconds."""
    detail: str = ""
    """For people: what happened to it since."""


@dataclass(frozen=True, slots=True)
class HostBgp:
    """How a host takes part in BGP, for the others."""

    asn: int
    router_id: IPv4Address
    address: Address
    """Of its sessions."""
    port: int = 179
    mesh: bool = False
    """Whether it peers with every other host that has this set."""
    reflector: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Prefixes of its containers."""


@dataclass(frozen=True, slots=True)
class Host:
    """One discod daemon as the others see it."""

    name: str
    addresses: tuple[Address, ...]
    version: str = ""
    machine: str = ""
    """Identity of this installation, so that two hosts with one name are noticed."""
    started: float = 0.0
    zone: str = ""
    """Label of the rack, site or availability zone it stands in; empty: not said."""
    drained: float | None = None
    """Since when the host is drained, Unix seconds; None when it is not."""
    hint_port: int = 0
    """UDP port at its first address that takes hints (`discod.model.hint`); 0: it takes none."""
    hint_key: str = field(default="", repr=False)
    """What its own hints are signed with, 64 hexadecimal digits; new at each start."""
    liveness_port: int = 0
    """UDP port at its first address where it takes part in the watch over hosts; 0: it does not."""
    liveness_key: str = field(default="", repr=False)
    """What its own messages there are signed with, as `hint_key`."""
    bgp: HostBgp | None = None
    """None: it has no BGP."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with what a producer wrote."""

    subject: str
    """The label, variable or key."""
    value: str
    expected: str

    def __str__(self) -> str:
        """Everything a person needs in one line; control characters and length are tamed."""
        shown = self.value if len(self.value) <= 80 else self.value[:77] + "..."
        return f"{self.subject} = {shown!r}: {self.expected}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A container that offers nothing because its labels are wrong, or policy forbids them."""

    host: str
    container: str
    container_name: str
    faults: tuple[Fault, ...]
    at: float
