"""The settings of ``[bgp]``, as values. Defaults here are the documented defaults.

Rule: a settings value is valid; `discod.config` makes it from TOML and names every fault. Times are
seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from discod.model.endpoint import Address
from discod.model.settings import ListenAddress, Network


@dataclass(frozen=True, slots=True)
class PrefixRule:
    """One line of a prefix list; the first that is for a prefix decides, without one it is denied.

    In TOML: ``"10.0.0.0/8"``, ``"10.0.0.0/8 ge 24 le 32"``, ``"deny 10.9.0.0/16 le 32"``.
    """

    network: Network
    permit: bool = True
    ge: int | None = None
    le: int | None = None


@dataclass(frozen=True, slots=True)
class BgpPeerSettings:
    """One ``[[bgp.peer]]``."""

    address: Address
    asn: int
    port: int = 179
    name: str = ""
    """For people; empty: its address."""
    password_file: str = ""
    """Holds the TCP MD5 password (RFC 2385), at most 80 octets; empty: none."""
    hold_time: int = 9
    """0: none; else 3 or more."""
    ttl: int = 0
    """Time to live of what is sent to it, for peers that are not neighbours (multihop); 0: 1 for an
    external peer, 64 for an internal one."""
    gtsm: int = 0
    """RFC 5082: hops to the peer at most, 1 for a neighbour; 0: not used. Excludes `ttl`."""
    passive: bool = False
    source: Address | None = None
    """Our address of the session; None: ``[bgp].source`` of its family, else the kernel chooses."""
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    imports: tuple[PrefixRule, ...] | None = None
    """None: nothing of an external peer (RFC 8212), everything of an internal one."""
    exports: tuple[PrefixRule, ...] | None = None
    communities: tuple[str, ...] = ()
    """``65000:1``, ``65000:1:2`` (large), ``no-export`` and the like."""
    local_pref: int | None = None
    import_local_pref: int | None = None
    med: int | None = None
    prepend: int = 0
    next_hop_keep: bool = False
    max_prefixes: int = 0
    max_prefixes_restart: float = 0.0
    """0: not by itself."""
    graceful_restart: bool = True
    reflector_client: bool = False
    """RFC 4456: routes of internal peers are told to it, and its to them."""


@dataclass(frozen=True, slots=True)
class BgpSettings:
    """``[bgp]``."""

    asn: int
    router_id: Address | None = None
    """IPv4; None: this host's first IPv4 address."""
    backend: Literal["native", "kernel"] = "native"
    """native: discod is the speaker; kernel: it installs routes for the operator's BIRD or FRR."""
    listen: tuple[ListenAddress, ...] = ()
    """Where peers connect to; empty: nowhere, unless `mesh` or a passive peer needs it: then port
    `port` of this host's addresses."""
    port: int = 179
    source: tuple[Address, ...] = ()
    """Our address of sessions, at most one a family; none: this host's first address."""
    peers: tuple[BgpPeerSettings, ...] = ()
    mesh: bool = False
    """Peer with every other discod host that has it too, as internal peers (or external ones where
    their `asn` is another), one connection a pair: the lower address connects."""
    mesh_password_file: str = ""
    mesh_hold_time: int = 9
    mesh_imports: tuple[PrefixRule, ...] | None = None
    """None: everything."""
    mesh_max_prefixes: int = 0
    reflector: bool = False
    """This host is a route reflector of the mesh; as soon as one is, the others peer with
    reflectors only."""
    cluster_id: Address | None = None
    """IPv4, of the reflector; None: its router id."""
    announce: Literal["healthy", "running", "none"] = "healthy"
    """/32 and /128 of which of this host's container endpoints."""
    networks: tuple[Network, ...] = ()
    """Of which only addresses inside are announced and routed; empty: of all Docker networks of
    this host. Addresses of the host itself never are."""
    aggregates: tuple[Network, ...] = ()
    """Announced as they are, for as long as discod runs: this host's own Docker subnets."""
    anycast: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    """Service -> its fixed addresses; adds to what the label ``discod.anycast`` says."""
    anycast_allow: tuple[Network, ...] = ()
    """What the label may name: addresses in these networks; empty: nothing."""
    install: bool = True
    """Learned routes go into the kernel."""
    table: int = 254
    """The kernel's routing table; 254: main."""
    protocol: int = 201
    """The kernel's number of our routes (/etc/iproute2/rt_protos); whatever has it is ours."""
    metric: int = 64
    multipath: int = 16
    """Equal paths used at once, at most."""
    graceful_restart: float = 120.0
    """Seconds that peers keep our routes while we restart; 0: off."""
    stale: float = 120.0
    """Seconds that a lost peer's routes are kept at most."""
    host: bool = True
    """Make this host a router for its containers: forwarding, exceptions from Docker's rules."""
    proxy_arp: bool = False
    """Answer ARP and neighbour solicitations for the containers' addresses on the uplink, and for
    everything towards containers whose gateway is 169.254.1.1 (Calico's way)."""
    routed: tuple[Network, ...] = ()
    """Prefixes between which container traffic keeps its source address and passes Docker's
    firewall; empty: `networks` and `aggregates` of this host and of all hosts with BGP, these
    hosts' addresses, and fixed addresses."""
    drain: float = 5.0
    """Seconds between telling GRACEFUL_SHUTDOWN (RFC 8326) and withdrawing, in `discod drain`."""
