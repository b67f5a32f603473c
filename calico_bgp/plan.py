"""Which peers there are and how each is talked to: a function of settings, mesh and this host.

Rule: a configured peer goes before a mesh host with its address; what cannot be is left out and
named. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from typing import Final, NamedTuple

from calico_bgp.capability import RESTART_TIME_MAX
from calico_bgp.peer import Peer
from calico_bgp.policy import Peering, Policy, PrefixList, Rule
from calico_bgp.ports import MeshHost
from calico_bgp.prefix import FAMILIES, IPV4, IPV6, Address, Family
from calico_bgp.transport import Dial
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule
from discod.model.settings import ListenAddress

EVERYTHING: Final = PrefixList(
    (Rule(ip_network("0.0.0.0/0"), le=32), Rule(ip_network("::/0"), le=128))
)
"""For external hosts of the mesh: that they are in it is the policy that RFC 8212 asks for."""
INTERNAL_TTL: Final = 64
EXTERNAL_TTL: Final = 1
_FAMILIES: Final[Mapping[str, Family]] = {"ipv4": IPV4, "ipv6": IPV6}
COMMUNITIES: Final[Mapping[str, int]] = {
    "graceful-shutdown": 0xFFFF0000,
    "accept-own": 0xFFFF0001,
    "llgr-stale": 0xFFFF0006,
    "no-llgr": 0xFFFF0007,
    "blackhole": 0xFFFF029A,
    "no-export": 0xFFFFFF01,
    "no-advertise": 0xFFFFFF02,
    "no-export-subconfed": 0xFFFFFF03,
    "no-peer": 0xFFFFFF04,
}
"""IANA's well-known communities."""


@dataclass(frozen=True)
class Plan:
    """One peer."""

    name: str
    mesh: bool
    client: bool
    """We reflect routes to and from it (RFC 4456)."""
    dial: Dial
    peer: Peer
    policy: Policy
    peering: Peering

    @property
    def address(self) -> Address:
        """Where it is; one peer an address."""
        return self.dial.address


class Plans(NamedTuple):
    """All of them."""

    peers: dict[Address, Plan]
    faults: tuple[str, ...]
    """Peers that cannot be, and why; for the log."""
    endpoints: tuple[ListenAddress, ...]
    """Where to listen."""


class Host(NamedTuple):
    """Our own."""

    name: str
    addresses: tuple[Address, ...]


def make(
    settings: BgpSettings,
    host: Host,
    mesh: Mapping[str, MeshHost],
    passwords: Mapping[str, bytes],
) -> Plans:
    """The plan; `passwords` by the path of their file.

    Raises:
        ValueError: no router id.
    """
    one = _Planner(settings, host, passwords)
    peers: dict[Address, Plan] = {}
    for configured in settings.peers:
        one.add(peers, configured.address, one.configured(configured))
    for other in _meshed(settings, host, mesh):
        if other.address not in peers:
            one.add(peers, other.address, one.meshed(other))
    return Plans(peers, tuple(one.faults), tuple(_endpoints(settings, host)))


def _meshed(settings: BgpSettings, host: Host, mesh: Mapping[str, MeshHost]) -> Iterable[MeshHost]:
    if not settings.mesh:
        return
    others = [one for _, one in sorted(mesh.items()) if one.name != host.name]
    reflectors = any(one.reflector for one in others)
    for other in others:
        # With reflectors the others have no sessions among themselves.
        if settings.reflector or other.reflector or not reflectors:
            yield other


def _endpoints(settings: BgpSettings, host: Host) -> Iterable[ListenAddress]:
    if settings.listen:
        return settings.listen
    if not settings.mesh and not any(peer.passive for peer in settings.peers):
        return ()
    own = [*host.addresses, *settings.source, *(p.source for p in settings.peers if p.source)]
    return [ListenAddress(address, settings.port) for address in dict.fromkeys(own)]


class _Planner:
    def __init__(self, settings: BgpSettings, host: Host, passwords: Mapping[str, bytes]) -> None:
        self.settings, self.host, self.passwords = settings, host, passwords
        self.faults: list[str] = []
        self.router_id = router_id(settings, host.addresses)
        self.own = frozenset((*host.addresses, *settings.source))

    def add(self, peers: dict[Address, Plan], address: Address, plan: Plan | str) -> None:
        if address in self.own:
            plan = "it is this host"
        if isinstance(plan, str):
            self.faults.append(f"{address}: {plan}")
        else:
            peers[address] = plan

    def configured(self, peer: BgpPeerSettings) -> Plan | str:
        settings = self.settings
        if peer.password_file and peer.password_file not in self.passwords:
            return f"no password in {peer.password_file}"
        source = peer.source or self._source(peer.address.version, settings.source)
        internal = peer.asn == settings.asn
        communities, large = parse_communities(peer.communities)
        dial = Dial(
            peer.address,
            peer.port,
            source,
            self.passwords.get(peer.password_file, b""),
            peer.ttl or (INTERNAL_TTL if internal else EXTERNAL_TTL),
            peer.gtsm,
        )
        policy = Policy(
            imports=prefix_list(peer.imports),
            exports=prefix_list(peer.exports),
            communities=communities,
            large_communities=large,
            local_pref=peer.local_pref,
            import_local_pref=peer.import_local_pref,
            med=peer.med,
            prepend=peer.prepend,
            next_hop_keep=peer.next_hop_keep,
        )
        return Plan(
            name=peer.name or str(peer.address),
            mesh=False,
            client=peer.reflector_client and internal,
            dial=dial,
            peer=self._peer(
                peer.asn,
                tuple(_FAMILIES[name] for name in peer.families),
                peer.hold_time,
                passive=peer.passive,
                restart=peer.graceful_restart,
                most=peer.max_prefixes,
                again=peer.max_prefixes_restart or None,
            ),
            policy=policy,
            peering=self._peering(peer.asn, source),
        )

    def meshed(self, other: MeshHost) -> Plan | str:
        settings = self.settings
        path = settings.mesh_password_file
        if path and path not in self.passwords:
            return f"no password in {path}"
        version = other.address.version
        source = self._source(version, (*settings.source, *self.host.addresses))
        if source is None:
            return f"host {other.name} has an IPv{version} address and this host has none"
        external = other.asn != settings.asn
        imports = prefix_list(settings.mesh_imports)
        return Plan(
            name=other.name,
            mesh=True,
            client=settings.reflector and not other.reflector and not external,
            dial=Dial(
                other.address, other.port, source, self.passwords.get(path, b""), INTERNAL_TTL
            ),
            peer=self._peer(
                other.asn,
                FAMILIES,
                settings.mesh_hold_time,
                # One connection a pair, so that there are no collisions.
                passive=source.packed > other.address.packed,
                restart=True,
                most=settings.mesh_max_prefixes,
                again=None,
            ),
            policy=Policy(imports=EVERYTHING if imports is None else imports, exports=EVERYTHING),
            peering=self._peering(other.asn, source),
        )

    def _peer(
        self,
        asn: int,
        families: tuple[Family, ...],
        hold_time: int,
        *,
        passive: bool,
        restart: bool,
        most: int,
        again: float | None,
    ) -> Peer:
        settings = self.settings
        time = min(int(settings.graceful_restart), RESTART_TIME_MAX) if restart else 0
        return Peer(
            local_asn=settings.asn,
            peer_asn=asn,
            router_id=self.router_id,
            families=families,
            hold_time=hold_time,
            passive=passive,
            restart_time=time,
            stale_most=settings.stale,
            max_prefixes=most,
            max_prefixes_restart=again,
        )

    def _peering(self, asn: int, source: Address | None) -> Peering:
        hops: dict[Family, Address] = {}
        for family, version in ((IPV4, 4), (IPV6, 6)):
            named = [] if source is None else [source]
            candidates = (*named, *self.settings.source, *self.host.addresses)
            if (hop := self._source(version, candidates)) is not None:
                hops[family] = hop
        reflects = self.settings.reflector or any(p.reflector_client for p in self.settings.peers)
        cluster = self.settings.cluster_id or self.router_id
        assert isinstance(cluster, IPv4Address)
        return Peering(
            self.settings.asn, asn, self.router_id, hops, self.own, cluster if reflects else None
        )

    @staticmethod
    def _source(version: int, among: Iterable[Address]) -> Address | None:
        return next((one for one in among if one.version == version), None)


def router_id(settings: BgpSettings, addresses: Sequence[Address]) -> IPv4Address:
    """Ours.

    Raises:
        ValueError: none is configured, and this host has no IPv4 address.
    """
    for one in (settings.router_id, *addresses):
        if isinstance(one, IPv4Address):
            return one
    raise ValueError("bgp.router_id: not set, and this host has no IPv4 address to take it from")


def prefix_list(rules: Sequence[PrefixRule] | None) -> PrefixList | None:
    """A configured list."""
    if rules is None:
        return None
    return PrefixList(Rule(one.network, one.permit, one.ge, one.le) for one in rules)


def parse_communities(
    texts: Iterable[str],
) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    """Communities (RFC 1997) and large ones (RFC 8092).

    Raises:
        ValueError: one is neither.
    """
    plain: list[int] = []
    large: list[tuple[int, int, int]] = []
    for text in texts:
        if (known := COMMUNITIES.get(text.lower())) is not None:
            plain.append(known)
            continue
        parts = [int(part) if part.isdecimal() else -1 for part in text.split(":")]
        match parts:
            case [high, low] if 0 <= high <= 0xFFFF and 0 <= low <= 0xFFFF:
                plain.append(high << 16 | low)
            case [a, b, c] if all(0 <= part <= 0xFFFFFFFF for part in parts):
                large.append((a, b, c))
            case _:
                raise ValueError(
                    f"community {text!r}: expected 65000:1, 65000:1:2 or a well-known name"
                )
    return tuple(plain), tuple(large)
