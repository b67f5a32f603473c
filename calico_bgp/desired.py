"""What this host wants announced and delivered: a function of Catalog, settings and drain mark.

Rule: `Wish` gives the same as a new one would at any time; a change of the Catalog costs what the
services cost that it touched. Never announced are the host's own addresses, and no fixed (anycast)
address is one of a container's. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from ipaddress import ip_network
from typing import NamedTuple

from calico_bgp.ports import Delivery, Desired, MeshHost
from calico_bgp.prefix import Address, Network, Prefix, of_address, of_network
from discod.model.bgp_settings import BgpSettings
from discod.model.catalog import Catalog
from discod.model.endpoint import Endpoint, Host, HostBgp, Producer, Reason


class Phase(Enum):
    """How far this host's drain is."""

    SERVING = "serving"
    DRAINING = "draining"
    """Announced as going away (RFC 8326); what only the drain took out of DNS stays announced."""
    DRAINED = "drained"
    """Nothing is announced."""


class _Share(NamedTuple):
    """What one service gives."""

    endpoints: tuple[Endpoint, ...] = ()
    addresses: tuple[Address, ...] = ()
    deliveries: tuple[tuple[Address, Address], ...] = ()
    """(fixed address, container's address)."""


_NOTHING = _Share()


class Wish:
    """Keeps what each service gives, so that a change is cheap."""

    def __init__(self, host: Host, settings: BgpSettings) -> None:
        self._host = host
        self._settings = settings
        self._fixed = dict(settings.anycast)
        self._shares: dict[str, _Share] = {}
        self._addresses: Counter[Address] = Counter()
        self._deliveries: Counter[tuple[Address, Address]] = Counter()
        self._announced: set[Prefix] = set()  # hosts' routes of `_addresses`

    def take(self, catalog: Catalog, services: Iterable[str] | None, phase: Phase) -> bool:
        """Take these services as they are in `catalog` now (None: all).

        Returns whether anything is otherwise than before.
        """
        if services is None:
            services = {*catalog.services, *self._shares}
        changed = False
        for name in services:
            before = self._shares.get(name, _NOTHING)
            after = self._share(catalog, name, before, phase)
            if after == _NOTHING:
                self._shares.pop(name, None)
            else:
                self._shares[name] = after
            if after.addresses != before.addresses:
                self._count(before.addresses, after.addresses)
                changed = True
            if after.deliveries != before.deliveries:
                self._deliveries.subtract(before.deliveries)
                self._deliveries.update(after.deliveries)
                self._deliveries = +self._deliveries
                changed = True
        return changed

    def keep_drained(self, earlier: Wish) -> None:
        """Know what an earlier wish had, so that what only the drain took out stays announced."""
        for name, share in earlier._shares.items():
            self._shares[name] = _Share(share.endpoints)

    def _share(self, catalog: Catalog, name: str, before: _Share, phase: Phase) -> _Share:
        own = [e for e in catalog.services.get(name, {}).values() if self._is_ours(e)]
        if phase is Phase.DRAINING:
            present = {e.id for e in own}
            own += [e for e in before.endpoints if e.id not in present and _drained(catalog, e)]
        if not own:
            return _NOTHING
        own.sort(key=lambda e: e.instance)
        fixed = self._fixed.get(name, ())
        pairs = {
            (address, e.address)
            for e in own
            for address in (*fixed, *(a for a in e.anycast if self._allowed(a)))
            if address.version == e.address.version and self._may_be_fixed(address)
        }
        return _Share(tuple(own), tuple(sorted({e.address for e in own}, key=_order)), _sort(pairs))

    def _count(self, before: Iterable[Address], after: Iterable[Address]) -> None:
        for address in before:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
                self._announced.discard(of_address(address))
        for address in after:
            self._addresses[address] += 1
            self._announced.add(of_address(address))

    def _is_ours(self, endpoint: Endpoint) -> bool:
        return (
            endpoint.producer is Producer.DOCKER
            and endpoint.host == self._host.name
            and self.may_announce(endpoint.address)
        )

    def may_announce(self, address: Address) -> bool:
        """Whether an address of a container may be announced, by the settings."""
        if address in self._host.addresses or address.is_loopback or address.is_link_local:
            return False
        networks = self._settings.networks
        return not networks or _inside(address, networks)

    def _allowed(self, address: Address) -> bool:
        return _inside(address, self._settings.anycast_allow)

    def _may_be_fixed(self, address: Address) -> bool:
        settings = self._settings
        taken = _inside(address, settings.networks) or _inside(address, settings.aggregates)
        return not taken and address not in self._host.addresses

    def desired(
        self, routed: tuple[Network, ...], phase: Phase, running: Iterable[Address] = ()
    ) -> Desired:
        """The whole wish.

        Args:
            routed: See `routed_networks`.
            phase: How far the drain is.
            running: Addresses of all running containers, for ``announce = "running"``.
        """
        if phase is Phase.DRAINED:
            return Desired(routed=routed)
        local: Collection[Prefix] = self._announced
        if self._settings.announce == "running":
            local = {of_address(a) for a in running if self.may_announce(a)}
        elif self._settings.announce == "none":
            local = ()
        targets: dict[Address, list[Address]] = {}
        for address, target in self._deliveries:
            targets.setdefault(address, []).append(target)
        deliveries = tuple(
            Delivery(address, tuple(sorted(targets[address], key=_order)))
            for address in sorted(targets, key=_order)
        )
        hosts = frozenset(local)
        wholes = [of_network(network) for network in self._settings.aggregates]
        return Desired(
            announced=hosts.union(wholes, map(of_address, targets)),
            deliveries=deliveries,
            local=hosts,
            routed=routed,
            draining=phase is Phase.DRAINING,
        )


def desired(
    catalog: Catalog,
    host: Host,
    settings: BgpSettings,
    drained: bool,
    docker_networks: Sequence[Network] = (),
    running: Iterable[Address] = (),
) -> Desired:
    """The wish from scratch; `drained`: the host is, and its grace is over."""
    phase = Phase.DRAINED if drained else Phase.SERVING
    wish = Wish(host, settings)
    wish.take(catalog, None, phase)
    routed = routed_networks(catalog.hosts, settings, docker_networks)
    return wish.desired(routed, phase, running)


def routed_networks(
    hosts: Mapping[str, Host], settings: BgpSettings, docker_networks: Sequence[Network]
) -> tuple[Network, ...]:
    """Between which prefixes traffic keeps its source address and passes Docker's firewall.

    ``bgp.routed``, else the containers' prefixes of this host and of all hosts that have BGP, these
    hosts themselves, and where fixed addresses may be: who asks for one is seen as itself, too.
    """
    if settings.routed:
        return _sort_networks(settings.routed)
    fixed = (address for _, addresses in settings.anycast for address in addresses)
    found = {
        *own_networks(settings, docker_networks),
        *settings.anycast_allow,
        *map(ip_network, fixed),
    }
    for host in hosts.values():
        if host.bgp is not None:
            found.update(host.bgp.networks)
            found.update(map(ip_network, host.addresses))
    return _sort_networks(found)


def own_networks(settings: BgpSettings, docker_networks: Sequence[Network]) -> tuple[Network, ...]:
    """The prefixes of containers of this host, as its record says them."""
    return _sort_networks({*(settings.networks or docker_networks), *settings.aggregates})


def mesh(hosts: Mapping[str, Host], name: str, settings: BgpSettings) -> Mapping[str, MeshHost]:
    """The other hosts to peer with; empty without ``bgp.mesh``."""
    if not settings.mesh:
        return {}
    return {
        other.name: MeshHost(other.name, bgp.address, bgp.port, bgp.asn, bgp.reflector)
        for other in hosts.values()
        if other.name != name and (bgp := other.bgp) is not None and bgp.mesh
    }


def overlaps(
    hosts: Mapping[str, Host], name: str, own: Sequence[Network]
) -> tuple[tuple[str, Network, Network], ...]:
    """Prefixes of containers that another host has too: (its name, ours, its).

    Two hosts with Docker's default subnet announce the same addresses, and then nothing is right.
    """
    found = []
    for other in hosts.values():
        theirs = other.bgp.networks if other.name != name and other.bgp is not None else ()
        found += [
            (other.name, mine, one)
            for one in theirs
            for mine in own
            if one.version == mine.version and mine == one
        ]
    return tuple(sorted(found, key=str))


def host_bgp(
    host: Host, settings: BgpSettings, docker_networks: Sequence[Network]
) -> HostBgp | None:
    """What this host's record says of its BGP; None while it has no address for it."""
    addresses = settings.source or host.addresses
    first = next((a for a in host.addresses if a.version == 4), None)
    router_id = settings.router_id or next((a for a in addresses if a.version == 4), first)
    if not addresses or router_id is None or router_id.version != 4:
        return None
    return HostBgp(
        asn=settings.asn,
        router_id=router_id,
        address=addresses[0],
        port=settings.port,
        mesh=settings.mesh,
        reflector=settings.reflector,
        networks=own_networks(settings, docker_networks),
    )


def _drained(catalog: Catalog, endpoint: Endpoint) -> bool:
    said = catalog.withdrawn.get(endpoint.id)
    return said is not None and said.reason is Reason.DRAINED


def _inside(address: Address, networks: Iterable[Network]) -> bool:
    return any(network.version == address.version and address in network for network in networks)


def _order(address: Address) -> tuple[int, bytes]:
    return address.version, address.packed


def _sort(pairs: Iterable[tuple[Address, Address]]) -> tuple[tuple[Address, Address], ...]:
    return tuple(sorted(pairs, key=lambda pair: (_order(pair[0]), _order(pair[1]))))


def _sort_networks(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(networks, key=lambda n: (*_order(n.network_address), n.prefixlen)))
