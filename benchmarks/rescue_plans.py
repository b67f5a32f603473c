"""Plans of any size for `make bench-rescue`, and the addresses of the place where they apply.

Rule: the same arguments give the same plan; every address is one of a documentation or private
range that only the benchmark's own namespaces have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from discod.model.endpoint import Address, EndpointId, Protocol
from discod.model.rescue import Bridge, Place, Plan, Pool, PoolId, Stale

BRIDGE, BRIDGE_MAC = "br0", "02:00:00:00:00:01"
GATEWAY = {4: "10.101.0.1", 6: "2001:db8:1::1"}
CLIENT = {4: "10.101.0.2", 6: "2001:db8:1::2"}
PODS = {4: "10.101.0.0/16", 6: "2001:db8:1::/64"}
HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
SERVERS = {
    4: ("192.0.2.11", "192.0.2.12", "192.0.2.13"),
    6: ("2001:db8::11", "2001:db8::12", "2001:db8::13"),
}
"""Living endpoints, on another machine."""
NOWHERE = {4: "192.0.2.99", 6: "2001:db8::99"}
"""A neighbour of the host that counts what comes and never answers."""
BESIDE = "10.101.0.9"
"""The same on the bridge."""
DEAD_NEAR = {4: "10.101.32.1", 6: "2001:db8:1::dead"}
"""Where a container of the host's own bridge was."""
DEAD_MAC = "02:00:00:00:00:66"
DEAD_FAR = {4: "10.102.0.1", 6: "2001:db8:2::dead"}
"""Where a container of another host was."""
DEAD_ALONE = {4: "10.102.0.2", 6: "2001:db8:2::a"}
"""The same, of which no sibling lives."""
VIP = {4: "198.51.100.1", 6: "2001:db8:f::1"}
PORTS = {"direct": 8081, "vip": 8082, "proxy": 8083, "far": 8084, "near": 8085}
"""Where the servers listen, one for each way there: no way meets connections that another left
behind in TIME_WAIT."""
WASTE = 9
"""Port of what goes to `NOWHERE` (RFC 863)."""
FIRST = {4: "10.101.64.0", 6: "2001:db8:1::1:0"}
"""Stale addresses count from here: within the bridge's own network, the dearest case."""
A_SERVICE = 100
"""Stale places of one service."""
SLOTS = 16


def mac(text: str) -> bytes:
    """The octets of a link-layer address."""
    return bytes.fromhex(text.replace(":", ""))


def bridge() -> Bridge:
    """The host's one bridge."""
    networks = [ip_network(PODS[4]), ip_network(PODS[6])]
    return Bridge(
        BRIDGE, mac(BRIDGE_MAC), tuple((n.network_address, n.prefixlen) for n in networks)
    )


def pool(
    service: str, version: int, addresses: Sequence[str], port: int, protocol: Protocol = "tcp"
) -> Pool:
    """`addresses` in turn, in `SLOTS` slots; none: nobody is alive."""
    slots: tuple[tuple[Address, int], ...] = ()
    if addresses:
        slots = tuple((ip_address(addresses[n % len(addresses)]), port) for n in range(SLOTS))
    id_ = PoolId(service, "main", protocol, 6 if version == 6 else 4)
    return Pool(id_, slots)


def stale(where: Place, pool_: Pool, link: str = "") -> Stale:
    """An endpoint that stood there and is lost."""
    label = f"i-{int(where.address):x}"
    return Stale(
        where, EndpointId(pool_.id.service, label), pool_.id, cut=True, why="lost",
        since=1.7e9, until=1.7e9 + 600, mac=mac(link) if link else b"",
    )  # fmt: skip


def entries(count: int, version: int, first: int = 0) -> Iterator[tuple[Stale, Pool]]:
    """Stale places with their pools, from number `first` on; a third of them UDP."""
    start = IPv4Address(FIRST[4]) if version == 4 else IPv6Address(FIRST[6])
    for n in range(first, first + count):
        protocol: Protocol = "udp" if n // A_SERVICE % 3 == 2 else "tcp"
        siblings = pool(f"s{n // A_SERVICE}", version, SERVERS[version], 8080, protocol)
        link = f"02:42:00:00:{n >> 8 & 255:02x}:{n & 255:02x}"
        yield stale(Place(start + n, 8080, protocol), siblings, link), siblings


def of(pairs: Sequence[tuple[Stale, Pool]], vips: Sequence[tuple[Place, Pool]] = ()) -> Plan:
    """A plan with these stale places and service addresses."""
    return Plan(
        stale={gone.place: gone for gone, _ in pairs},
        vips={where: siblings.id for where, siblings in vips},
        pools={p.id: p for p in [*(p for _, p in pairs), *(p for _, p in vips)]},
        bridges=(bridge(),),
    )


def many(count: int, versions: Sequence[int] = (4,), first: int = 0) -> list[tuple[Stale, Pool]]:
    """So many stale places of each version."""
    return [pair for version in versions for pair in entries(count, version, first)]


def used() -> list[tuple[Stale, Pool]]:
    """Those few stale places that the benchmark sends to."""
    found = []
    for version in (4, 6):
        for name, where in (("near", DEAD_NEAR), ("far", DEAD_FAR)):
            link = DEAD_MAC if name == "near" else ""
            address = ip_address(where[version])
            alive = pool(f"{name}-web", version, SERVERS[version], PORTS[name])
            found.append((stale(Place(address, PORTS[name], "tcp"), alive, link), alive))
            waste = pool(f"{name}-waste", version, [NOWHERE[version]], WASTE, "udp")
            found.append((stale(Place(address, WASTE, "udp"), waste, link), waste))
        nobody = pool("alone", version, [], 8080)
        found.append((stale(Place(ip_address(DEAD_ALONE[version]), 8080, "tcp"), nobody), nobody))
    return found


def service_addresses() -> list[tuple[Place, Pool]]:
    """One of each version, in front of all servers."""
    return [
        (
            Place(ip_address(VIP[version]), PORTS["vip"], "tcp"),
            pool("vip-web", version, SERVERS[version], PORTS["vip"]),
        )
        for version in (4, 6)
    ]


def whole(count: int) -> Plan:
    """All that the benchmark sends to, and `count` more stale places of each version."""
    return of([*used(), *many(count, (4, 6))], service_addresses())
