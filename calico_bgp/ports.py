"""What the parts of calico_bgp are to one another: the kernel's side, the peers' side, the wish.

Rule: values and Protocols only. What this host wants announced is made from the Catalog
(`desired`), the `Speaker` tells it to peers and says what it learned, and the `Forwarding` has it
in the kernel. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from calico_bgp.prefix import Address, Network, Prefix


class Hop(NamedTuple):
    """One next hop of a route; `interface` is needed where the gateway is link-local."""

    gateway: Address
    interface: str = ""


Hops = tuple[Hop, ...]
"""Equal-cost next hops, sorted, no doubles; empty: no route."""


class Delivery(NamedTuple):
    """Where this host delivers an anycast address: to which of its containers' addresses."""

    address: Address
    targets: tuple[Address, ...]
    """Sorted."""


@dataclass(frozen=True)
class Desired:
    """What this host wants, whole: a function of the Catalog, the settings and the drain mark."""

    announced: frozenset[Prefix] = frozenset()
    """Told to peers with this host as next hop."""
    deliveries: tuple[Delivery, ...] = ()
    """Anycast addresses that this host delivers locally, sorted; each is in `announced` too."""
    local: frozenset[Prefix] = frozenset()
    """Of `announced`: prefixes that containers of this host have, for proxy ARP and host routes."""
    routed: tuple[Network, ...] = ()
    """Traffic between these passes Docker's firewall and keeps its source address; sorted."""
    draining: bool = False
    """Announce, as going away (RFC 8326)."""


class MeshHost(NamedTuple):
    """Another discod host that takes part in the mesh, from its record in the store."""

    name: str
    address: Address
    port: int
    asn: int
    reflector: bool


class PeerStatus(NamedTuple):
    """One peer as `discod bgp peers` shows it; times are Unix seconds."""

    name: str
    address: str
    asn: int
    mesh: bool
    external: bool
    state: str
    """RFC 4271's: Idle, Connect, Active, OpenSent, OpenConfirm, Established."""
    since: float
    """When it came into this state."""
    families: tuple[str, ...]
    hold_time: int
    received: int
    """Prefixes it told us and that are in its Adj-RIB-In, filtered ones left out."""
    advertised: int
    """Prefixes it was told."""
    retained: bool
    """Its routes are kept although it is away (RFC 4724)."""
    established: int
    """Times that the session was established."""
    last_error: str
    """With the RFC's name where it was a NOTIFICATION; empty: none."""
    last_error_at: float


class RouteStatus(NamedTuple):
    """One learned route as `discod bgp routes` shows it."""

    prefix: str
    next_hops: tuple[str, ...]
    peers: tuple[str, ...]
    as_path: str
    installed: bool


class Standing(NamedTuple):
    """One thing of this host as `discod bgp status` shows it."""

    what: str
    wanted: str
    present: str
    good: bool = True
    """Whether it is as wanted."""


class Speaker(Protocol):
    """The native backend: all sessions of this host (`calico_bgp.speaker`)."""

    def want(self, desired: Desired) -> None:
        """Announce exactly this from now on. Synchronous, cheap when little changed."""
        ...

    def set_mesh(self, hosts: Mapping[str, MeshHost]) -> None:
        """Peer with these besides the configured peers."""
        ...

    def synced(self) -> None:
        """The first full sync is over: End-of-RIB may be told (RFC 4724)."""
        ...

    async def run(self) -> None:
        """Serve until cancelled; then every session ends as `abandon` does (no NOTIFICATION)."""
        ...

    async def shutdown(self, text: str, deadline: float) -> None:
        """Withdraw, then Cease with `text` (RFC 9003); waits `deadline` seconds at most."""
        ...

    def peers(self) -> tuple[PeerStatus, ...]:
        """All peers, sorted by address."""
        ...

    def routes(self) -> tuple[RouteStatus, ...]:
        """All learned routes that are chosen, sorted."""
        ...


class Forwarding(Protocol):
    """The kernel's side of learned routes (`calico_bgp.forwarding`)."""

    def learned(self, changed: Mapping[Prefix, Hops]) -> None:
        """Routes that are others now; empty Hops: gone. Synchronous: taken, and done soon."""
        ...

    def settled(self) -> None:
        """Remove what an earlier run left and nobody told again; until then it is not touched.

        All peers have told what they have, or had time to.
        """
        ...

    def installed(self, prefix: Prefix) -> bool:
        """Whether the kernel has confirmed it as wanted."""
        ...
