"""The settings of every part, as values. Defaults here are the documented defaults.

Rule: a settings value is valid; `discod.config` makes it from TOML and names every fault. Times are
seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Literal

from discod.model.endpoint import DEFAULT_PRIORITY, DEFAULT_WEIGHT, Address, Prefer, Protocol
from discod.model.rescue_settings import RescueSettings, VipSettings
from discod.model.vip import VipWord

if TYPE_CHECKING:
    from discod.model.bgp_settings import BgpSettings

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
    zone: str = ""
    """Label of the rack, site or availability zone; for ``dns.prefer = "zone"``."""
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
    aliases: tuple[tuple[str, str], ...] = ()
    """(service, target): names that are other names. A target without a dot is a service."""
    hint_port: int = 9354
    """UDP port at the host's first address, where other hosts tell of ends before etcd does; 0: no
    hints are sent or taken."""


@dataclass(frozen=True, slots=True)
class BrakeSettings:
    """``[brake]``: when endpoints that the store lost are kept (`discod.model.brake`)."""

    enabled: bool = True
    share: float = 0.3
    """Of all endpoints; more than that must be lost."""
    window: float = 30.0
    least: int = 5
    """At least so many must be lost."""
    hold: float = 600.0
    """How long one is kept at most."""
    rate: int = 100
    """Probes a second."""
    fall: int = 2
    """Failed probes in a row that drop one."""


@dataclass(frozen=True, slots=True)
class LivenessSettings:
    """``[liveness]``: hosts watch each other (`discod.model.swim`)."""

    enabled: bool = True
    period: float = 0.2
    """From one ping of a host to the next."""
    port: int = 9355
    """UDP port at the host's first address; TCP at the same one is knocked at, and best closed."""


@dataclass(frozen=True, slots=True)
class Route:
    """Which upstreams answer for a domain and all below it."""

    domain: str
    servers: tuple[ListenAddress, ...]


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
    workers: int = 1
    """Processes that answer UDP from a table of their own; 0: the daemon itself does."""
    prefer: Prefer = "none"
    answer_limit: int = 0
    """Addresses (or targets) in one answer; 0: no limit but the packet's."""
    consul_names: bool = False
    """Whether ``<service>.service.<domain>`` and its kin are answered too."""
    flatten: bool = False
    """Whether an alias is answered with its target's addresses instead of CNAME, for A and AAAA."""
    server_id: str = ""
    """For NSID (RFC 5001) and ``id.server`` (RFC 4892); empty: neither."""
    server_version: str = ""
    """For ``version.bind``; empty: REFUSED."""
    cookies: bool = True
    """DNS Cookies (RFC 7873, RFC 9018)."""
    cookie_secret_file: str = ""
    """Secrets, the first makes cookies, all are accepted; empty: one of this host's own."""
    rate_limit: int = 0
    """UDP responses a second to one client prefix (/24, /56); 0: no limit."""
    rate_slip: int = 2
    """One in so many of those above the limit leaves as TC, the others are dropped; 0: all are."""
    tls_listen: tuple[ListenAddress, ...] = ()
    """DNS over TLS (RFC 7858)."""
    tls_cert: str = ""
    """PEM file, with the chain."""
    tls_key: str = ""
    forward_allow: tuple[Network, ...] = ()
    """Clients for whom other names are forwarded; empty: all of `allow`."""
    forward_policy: Literal["order", "fastest"] = "order"
    forward_client_max: int = 64
    """Forwarded queries of one client that are under way at once."""
    routes: tuple[Route, ...] = ()
    """The longest domain that fits wins; other names go to `upstreams`."""
    cache_size: int = 10_000
    """Forwarded answers kept; 0: none."""
    serve_stale: float = 86_400.0
    """How long an answer is kept beyond its TTL for when no upstream answers (RFC 8767)."""
    private_reverse: bool = True
    """Whether reverse zones of private use are answered here (RFC 6303)."""
    randomize_case: bool = True
    """Whether questions to upstreams carry random case (draft-vixie-dnsext-dns0x20)."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """``[transfer]``: secondaries of an organisation's own name servers."""

    allow: tuple[Network, ...] = ()
    """Who may transfer the zone; empty: nobody."""
    keys: str = ""
    """File of TSIG keys (RFC 8945); with it transfers must be signed."""
    notify: tuple[ListenAddress, ...] = ()
    """Secondaries that are told of changes (RFC 1996)."""
    journal: int = 1000
    """Changes kept for IXFR (RFC 1995)."""


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
    ttl: int = 0
    alpn: tuple[str, ...] = ()
    prefer: Prefer | None = None
    rescue: bool = True
    vip: VipWord = ()
    affinity: bool = False
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
    brake: BrakeSettings = field(default_factory=BrakeSettings)
    liveness: LivenessSettings = field(default_factory=LivenessSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    log: LogSettings = field(default_factory=LogSettings)
    services: tuple[ServiceSettings, ...] = ()
    rescue: RescueSettings = field(default_factory=RescueSettings)
    vip: VipSettings = field(default_factory=VipSettings)
    bgp: BgpSettings | None = None
    """None: there is no ``[bgp]``, and nothing of `calico_bgp` is imported."""
