"""Contradictions within ``[bgp]`` and ``[[bgp.peer]]``, and between them and their neighbours.

Rule: as in `discod.config_cross`. What a configuration asks for and cannot have is a fault, so that
nobody relies on it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, ip_address

from discod.config_bgp_values import lengths, show_rule
from discod.config_fault import Path
from discod.config_finding import Finding, overlap, show_socket
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule
from discod.model.endpoint import Address
from discod.model.settings import ListenAddress, Network, Settings

Peers = Mapping[int, BgpPeerSettings]
"""Those without fault, by their index in the file."""

BOTH: tuple[str, ...] = ("ipv4", "ipv6")


def bgp_contradictions(settings: Settings, bgp: BgpSettings, peers: Peers) -> Iterator[Finding]:
    """Everything of BGP that does not go together.

    Args:
        settings: The file without its services and its ``[bgp]``.
        bgp: ``[bgp]`` without its peers.
        peers: Those without fault.
    """
    yield from _backend(bgp, peers)
    yield from _mesh(settings, bgp, peers)
    yield from _sources(bgp)
    yield from _anycast(settings, bgp)
    yield from _covered(("bgp", "mesh_imports"), bgp.mesh_imports)
    yield from _ports(settings, bgp, peers)
    first: dict[Address, int] = {}
    for index, peer in peers.items():
        at: Path = ("bgp", "peer", index)
        earlier = first.setdefault(peer.address, index)
        if earlier != index:
            yield Finding(
                (*at, "address"),
                str(peer.address),
                f"expected another address than bgp.peer[{earlier}] has",
                (("bgp", "peer", earlier, "address"),),
            )
        yield from _oneself(at, peer, settings, bgp)
        yield from _kind(at, peer, bgp)
        yield from _lists(at, peer)


def _backend(bgp: BgpSettings, peers: Peers) -> Iterator[Finding]:
    if bgp.backend != "kernel":
        return
    why = 'expected backend = "native": with "kernel" the sessions are those of your BIRD or FRR'
    rests: tuple[Path, ...] = (("bgp", "backend"),)
    if peers:
        yield Finding(("bgp", "peer"), f"{len(peers)} peers", why, rests)
    if bgp.mesh:
        yield Finding(("bgp", "mesh"), True, why, rests)
    if bgp.listen:
        shown = [show_socket(one) for one in bgp.listen]
        yield Finding(("bgp", "listen"), shown, why, rests)


def _mesh(settings: Settings, bgp: BgpSettings, peers: Peers) -> Iterator[Finding]:
    if bgp.mesh and not settings.store.endpoints:
        yield Finding(
            ("bgp", "mesh"),
            True,
            "expected etcd endpoints in store.endpoints: other hosts are known by their records",
            (("store", "endpoints"), ("store",)),
        )
    if not bgp.mesh:
        for key, value in (
            ("mesh_password_file", bgp.mesh_password_file),
            ("mesh_max_prefixes", bgp.mesh_max_prefixes),
            ("reflector", bgp.reflector),
        ):
            if value:
                yield Finding(("bgp", key), value, "expected mesh = true", (("bgp", "mesh"),))
    clients = any(peer.reflector_client for peer in peers.values())
    if bgp.cluster_id is not None and not bgp.reflector and not clients:
        yield Finding(
            ("bgp", "cluster_id"),
            str(bgp.cluster_id),
            "expected reflector = true, or a peer with reflector_client = true",
            (("bgp", "reflector"), ("bgp", "peer")),
        )


def _sources(bgp: BgpSettings) -> Iterator[Finding]:
    seen: dict[int, Address] = {}
    for index, address in enumerate(bgp.source):
        other = seen.setdefault(address.version, address)
        if other != address:
            yield Finding(
                ("bgp", "source", index),
                str(address),
                f"expected at most one address a family, and {other} is one of IPv{other.version}",
                (("bgp", "source"),),
            )


def _anycast(settings: Settings, bgp: BgpSettings) -> Iterator[Finding]:
    taken: dict[Address, str] = {}
    for service, addresses in bgp.anycast:
        at: Path = ("bgp", "anycast", service)
        for address in addresses:
            shown = str(address)
            other = taken.setdefault(address, service)
            if other != service:
                expected = f"expected an address that bgp.anycast.{other} does not have"
                yield Finding(at, shown, expected, (("bgp", "anycast", other),))
            for key, networks in (("networks", bgp.networks), ("aggregates", bgp.aggregates)):
                inside = _within(address, networks)
                if inside is not None:
                    yield Finding(
                        at,
                        shown,
                        f"expected an address outside bgp.{key}, and {inside} has it: those are"
                        " containers' own",
                        (("bgp", key),),
                    )
            if address in settings.host.addresses:
                expected = "expected an address that is not this host's own (host.addresses)"
                yield Finding(at, shown, expected, (("host", "addresses"),))


def _within(address: Address, networks: Sequence[Network]) -> Network | None:
    return next((n for n in networks if n.version == address.version and address in n), None)


def _covered(at: Path, rules: Sequence[PrefixRule] | None) -> Iterator[Finding]:
    """Lines that can never decide anything, since an earlier one is for all that they are for."""
    for index, rule in enumerate(rules or ()):
        for number, earlier in enumerate((rules or ())[:index]):
            if _covers(earlier, rule):
                does = "permits" if earlier.permit else "denies"
                yield Finding(
                    (*at, index),
                    show_rule(rule),
                    f'expected a line that can match: [{number}] "{show_rule(earlier)}" comes first'
                    f" and {does} all of it",
                    (at,),
                )
                break


def _covers(earlier: PrefixRule, later: PrefixRule) -> bool:
    one, other = earlier.network, later.network
    if isinstance(one, IPv4Network):
        inside = isinstance(other, IPv4Network) and other.subnet_of(one)
    else:
        inside = not isinstance(other, IPv4Network) and other.subnet_of(one)
    (low, high), (shortest, longest) = lengths(earlier), lengths(later)
    return inside and low <= shortest and longest <= high


def _ports(settings: Settings, bgp: BgpSettings, peers: Peers) -> Iterator[Finding]:
    """TCP ports that somebody else of this file has."""
    listens = [(("bgp", "listen", i), one) for i, one in enumerate(bgp.listen)]
    mine: list[tuple[Path, ListenAddress]] = [*listens]
    passive = any(peer.passive for peer in peers.values())
    if not bgp.listen and bgp.backend == "native" and (bgp.mesh or passive):
        mine += [
            (("bgp", "port"), ListenAddress(ip_address(wildcard), bgp.port))
            for wildcard in ("0.0.0.0", "::")
        ]
    others: list[tuple[Path, str, ListenAddress]] = [
        ((section, key), f"{section}.{key}[{index}]", one)
        for section, key, found in (
            ("dns", "listen", settings.dns.listen),
            ("dns", "tls_listen", settings.dns.tls_listen),
            ("http", "listen", settings.http.listen),
        )
        for index, one in enumerate(found)
    ]
    if settings.liveness.enabled and settings.store.endpoints:
        port = settings.liveness.port
        others += [
            (("liveness", "port"), "liveness.port, which has to stay closed over TCP,", one)
            for one in (ListenAddress(ip_address(w), port) for w in ("0.0.0.0", "::"))
        ]
    told: set[Path] = set()
    for number, (path, one) in enumerate(mine):
        for earlier, taken in mine[:number]:
            if earlier != path and overlap(one, taken) and path not in told:
                told.add(path)
                expected = f"expected another socket than {earlier[-1]} ({show_socket(taken)})"
                yield Finding(path, show_socket(one), expected, (earlier,))
        for key, name, taken in others:
            if overlap(one, taken) and path not in told:
                told.add(path)
                shown = show_socket(one) if path[1] == "listen" else one.port
                expected = f"expected a port that {name} ({show_socket(taken)}) leaves free"
                yield Finding(path, shown, expected, (key, ("bgp", "listen"), ("bgp", "port")))


def _oneself(
    at: Path, peer: BgpPeerSettings, settings: Settings, bgp: BgpSettings
) -> Iterator[Finding]:
    address = peer.address
    own = {*settings.host.addresses, *bgp.source, *(one.address for one in bgp.listen)}
    looped = address.is_loopback and peer.port == bgp.port
    if address in own or looped or address == peer.source:
        yield Finding(
            (*at, "address"),
            str(address),
            "expected another host's address: this one is our own",
            (("host", "addresses"), ("bgp", "source"), ("bgp", "listen"), (*at, "source")),
        )
    if address.is_link_local:
        expected = "expected an address that is not link-local: its interface cannot be said"
        yield Finding((*at, "address"), str(address), expected, ())
    if peer.source is not None and peer.source.version != address.version:
        expected = f"expected an IPv{address.version} address, as the peer's {address}"
        yield Finding((*at, "source"), str(peer.source), expected, ((*at, "address"),))
    if peer.gtsm and peer.ttl:
        yield Finding(
            (*at, "ttl"),
            peer.ttl,
            "expected no ttl beside gtsm: that sends with 255 (RFC 5082, section 3)",
            ((*at, "gtsm"),),
        )


def _kind(at: Path, peer: BgpPeerSettings, bgp: BgpSettings) -> Iterator[Finding]:
    """What only an internal or only an external peer can have."""
    external = peer.asn != bgp.asn
    only_internal = (("reflector_client", peer.reflector_client), ("local_pref", peer.local_pref))
    only_external = (("import_local_pref", peer.import_local_pref), ("prepend", peer.prepend))
    what = "an internal" if external else "an external"
    for key, value in only_internal if external else only_external:
        if value not in (None, 0, False):
            yield Finding(
                (*at, key),
                value,
                f"expected {what} peer, and this one's asn is {peer.asn}, ours {bgp.asn}",
                ((*at, "asn"), ("bgp", "asn")),
            )
    if peer.max_prefixes_restart and not peer.max_prefixes:
        yield Finding(
            (*at, "max_prefixes_restart"),
            peer.max_prefixes_restart,
            "expected max_prefixes beside it",
            ((*at, "max_prefixes"),),
        )


def _lists(at: Path, peer: BgpPeerSettings) -> Iterator[Finding]:
    for key, rules in (("imports", peer.imports), ("exports", peer.exports)):
        yield from _covered((*at, key), rules)
        for index, rule in enumerate(rules or ()):
            family = BOTH[rule.network.version == 6]
            if family not in peer.families:
                yield Finding(
                    (*at, key, index),
                    show_rule(rule),
                    f'expected "{family}" in the families of this peer: no such route is exchanged',
                    ((*at, "families"),),
                )
