"""The settings of every part, as values. Defaults here are the documented defaults.

Rule: a settings value is valid; `discod.config` makes it from TOML and names every fault. Times are
seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from discod.model.endpoint import DEFAULT_PRIORITY, DEFAULT_WEIGHT, Address, Protocol

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address and port to bind."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class HostSettings:
    """``[host]``: who this daemon is."""

    name: str = ""
    """Label of this host; empty: made from the system's host name."""
    addresses: tuple[Address, ...] = ()
    """Its own addresses; empty: the source addresses of its default routes, else loopback."""
    runtime_dir: str = ""
    """Lock, lease id, control socket; empty: /run/discod as root, else the user's."""
    state_dir: str = ""
    """Drain mark and identity; empty: /var/lib/discod as root, else the user's."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """``[store]``: where records live."""

    endpoints: tuple[str, ...] = ()
    """``http://`` or ``https://`` URLs of etcd members; empty: the in-memory store."""
    prefix: str = "/skydns"
    ca: str = ""
    """PEM file; empty with https: the system's roots."""
    cert: str = ""
    key: str = ""
    username: str = ""
    password_file: str = ""
    lease_ttl: float = 10.0
    timeout: float = 3.0
    """Deadline of one call."""


CheckKind = Literal["tcp", "http", "cmd"]


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """``[checks]``: defaults for checks that name no value of their own."""

    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 1
    """Successes in a row until up."""
    fall: int = 2
    """Failures in a row until down."""


@dataclass(frozen=True, slots=True)
class Check:
    """How to tell whether one endpoint works."""

    kind: CheckKind
    port: int = 0
    """0: the endpoint's own."""
    path: str = "/"
    """http only."""
    status: tuple[int, int] = (200, 399)
    """http only: lowest and highest status that counts as success."""
    command: tuple[str, ...] = ()
    """cmd only: argv."""
    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 1
    fall: int = 2


AddressMode = Literal["auto", "published", "container"]


@dataclass(frozen=True, slots=True)
class AnnounceSettings:
    """``[announce]``: what of Docker's containers is offered, and how."""

    docker: str = "unix:///var/run/docker.sock"
    """Engine socket URL; empty: do not watch Docker."""
    address: AddressMode = "auto"
    networks: tuple[str, ...] = ()
    """Networks to prefer for container addresses, in this order."""
    require_label: bool = False
    """Offer only containers that name their service."""
    allow: tuple[str, ...] = ("*",)
    """Globs of service names that containers may claim."""
    deny: tuple[str, ...] = ()
    drain: float = 0.0
    """Time between the engine's kill event and the withdrawal, unless the process ends first."""
    stop_grace: float = 60.0
    """A container that got its stop signal and still runs after this is offered again."""
    resync: float = 30.0
    """Period of the full comparison with the engine's list."""
    withdrawal_ttl: float = 1200.0
    """How long a withdrawal is kept at most; at least half of it."""
    hint_port: int = 9354
    """UDP port at the host's first address, where other hosts tell of ends before etcd does; 0: no
    hints are sent or taken."""


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """``[dns]``: the resolver."""

    listen: tuple[ListenAddress, ...] = (ListenAddress(ip_address("127.0.0.1"), 5354),)
    """UDP and TCP each; empty: no DNS."""
    domain: str = "discod.internal"
    allow: tuple[Network, ...] = tuple(
        ip_network(text)
        for text in (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        )
    )
    """Clients that are answered; others get REFUSED."""
    forward: bool = True
    """Whether names outside our zones are asked of the upstreams; REFUSED when not."""
    upstreams: tuple[ListenAddress, ...] = ()
    """Empty: the name servers of `resolv_conf`."""
    resolv_conf: str = "/etc/resolv.conf"
    forward_timeout: float = 2.0
    """Deadline of one try at one upstream."""
    reverse_zones: tuple[Network, ...] = ()
    """Prefixes whose PTR names are ours alone: an unknown one is NXDOMAIN, not forwarded."""
    udp_size: int = 1232
    """Largest UDP answer, octets (https://www.dnsflagday.net/2020/)."""
    tcp_idle: float = 10.0
    """A TCP connection without a query is closed after this (RFC 7766, section 6.2.3)."""
    tcp_connections: int = 256


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``[http]``: metrics, probes and the API."""

    listen: tuple[ListenAddress, ...] = (ListenAddress(ip_address("127.0.0.1"), 9353),)
    socket: bool = True
    """Also serve on ``<runtime_dir>/api.sock``, where changes are accepted as well."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """``[[service]]``: a static endpoint of this host."""

    name: str
    port: int
    addresses: tuple[Address, ...] = ()
    """Empty: the host's own."""
    protocol: Protocol = "tcp"
    port_name: str = ""
    tags: tuple[str, ...] = ()
    weight: int = DEFAULT_WEIGHT
    priority: int = DEFAULT_PRIORITY
    attributes: tuple[tuple[str, str], ...] = ()
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """One whole configuration file."""

    host: HostSettings = field(default_factory=HostSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    announce: AnnounceSettings = field(default_factory=AnnounceSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    log: LogSettings = field(default_factory=LogSettings)
    services: tuple[ServiceSettings, ...] = ()
