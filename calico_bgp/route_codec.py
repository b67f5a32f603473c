"""Routes, links and proxy neighbours as octets of NETLINK_ROUTE.

Rule: packs and reads only what discod itself writes and looks for; what it does not know it skips.
By hand, with `struct`: pyroute2's general codec takes 143 us to pack a route and 44 us to read one,
this 2 and 5, and it is the loop of sessions and DNS that would wait. `linux/rtnetlink.h`,
`linux/neighbour.h`, `rtnetlink(7)`. Pure.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from calico_bgp.prefix import IPV4, IPV6, Address, Family, Prefix
from discod.kernel.attributes import attribute, attributes

GETLINK: Final = 18
NEWROUTE: Final = 24
DELROUTE: Final = 25
GETROUTE: Final = 26
NEWNEIGH: Final = 28
DELNEIGH: Final = 29
GETNEIGH: Final = 30

UNICAST: Final = 1
LOCAL: Final = 2
BLACKHOLE: Final = 6
UNREACHABLE: Final = 7

PROTOCOL_KERNEL: Final = 2
LINK_PROTOCOLS: Final = (PROTOCOL_KERNEL, 3, 4)
"""Of routes to networks on a link: by an address, by hand (boot; Docker's, restarted), static."""
TABLE_MAIN: Final = 254
TABLE_LOCAL: Final = 255

_AF: Final = {IPV4: 2, IPV6: 10}
_FAMILY: Final = {2: IPV4, 10: IPV6}
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH = 1, 4, 5, 6, 9
_RTA_TABLE, _RTA_VIA = 15, 18
_RTM: Final = struct.Struct("=BBBBBBBBI")
_ROUTE: Final = {
    IPV4: struct.Struct("=BBBBBBBBI HH4s HHI HHI"),
    IPV6: struct.Struct("=BBBBBBBBI HH16s HHI HHI"),
}
"""Header, RTA_DST, RTA_PRIORITY, RTA_TABLE."""
_RTNH: Final = struct.Struct("=HBBi")
_NDM: Final = struct.Struct("=BxxxiHBB")
_ONLINK: Final = 4
_CLONED: Final = 0x200
_SCOPE: Final = {UNICAST: 0, LOCAL: 254, BLACKHOLE: 0, UNREACHABLE: 0}
_SCOPE_LINK: Final = 253
_SCOPE_NOWHERE: Final = 255
_NTF_PROXY: Final = 8
_NUD_PERMANENT: Final = 0x80
_NDA_DST, _NDA_PROTOCOL = 1, 12
_IFLA_IFNAME = 3


class KernelHop(NamedTuple):
    """One next hop; without a gateway the destination is on the link."""

    gateway: Address | None
    interface: int = 0
    """Index of the interface; 0: the kernel's choice."""
    onlink: bool = False
    """Take the gateway for a neighbour although no address says so."""


class KernelRoute(NamedTuple):
    """A route as the kernel has it, or shall have it."""

    prefix: Prefix
    hops: tuple[KernelHop, ...]
    metric: int
    table: int
    protocol: int
    type: int = UNICAST


class ProxyNeighbour(NamedTuple):
    """An address that this host answers ARP or neighbour solicitations for on an interface."""

    address: Address
    interface: int
    protocol: int = 0


class Link(NamedTuple):
    """An interface."""

    number: int
    name: str
    up: bool


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _gateway(family: Family, gateway: Address) -> bytes:
    packed = gateway.packed
    if len(packed) == family.octets:
        return attribute(_RTA_GATEWAY, packed)
    # An IPv4 route by an IPv6 neighbour (RFC 8950).
    return attribute(_RTA_VIA, struct.pack("=H", 10 if gateway.version == 6 else 2) + packed)


def pack_route(route: KernelRoute, *, delete: bool = False) -> bytes:
    """The payload of RTM_NEWROUTE, or of an RTM_DELROUTE that matches this route alone."""
    family, nlri = route.prefix
    table = route.table
    scope = _SCOPE[route.type]
    flags, direct, ways = (0, False, b"") if delete else _ways(family, route.hops)
    if delete:
        scope = _SCOPE_NOWHERE
    elif direct and route.type == UNICAST:
        scope = _SCOPE_LINK
    return _ROUTE[family].pack(
        _AF[family], nlri[0], 0, 0, table if table < 256 else 252, route.protocol, scope,
        route.type, flags,
        4 + family.octets, _RTA_DST, nlri[1:],  # struct fills up with zeros
        8, _RTA_PRIORITY, route.metric,
        8, _RTA_TABLE, table,
    ) + ways  # fmt: skip


@lru_cache(maxsize=1024)
def _ways(family: Family, hops: tuple[KernelHop, ...]) -> tuple[int, bool, bytes]:
    """Flags of the route, whether it is an IPv4 one to a link, and the attributes of next hops.

    Cached, as thousands of routes have the same.
    """
    if not hops:
        return 0, False, b""
    if len(hops) > 1:
        paths = []
        for hop in hops:
            data = b"" if hop.gateway is None else _gateway(family, hop.gateway)
            onlink = _ONLINK if hop.onlink else 0
            # Weight 1: the field is the weight less one.
            paths.append(_RTNH.pack(8 + len(data), onlink, 0, hop.interface) + data)
        return 0, False, attribute(_RTA_MULTIPATH, b"".join(paths))
    [hop] = hops
    ways = b"" if hop.gateway is None else _gateway(family, hop.gateway)
    if hop.interface:
        ways += _u32(_RTA_OIF, hop.interface)
    direct = hop.gateway is None and family == IPV4
    return _ONLINK if hop.onlink else 0, direct, ways


def pack_route_filter(family: Family, table: int, protocol: int, kind: int = 0) -> bytes:
    """The payload of a dump of those routes alone (needs NETLINK_GET_STRICT_CHK)."""
    header = _RTM.pack(_AF[family], 0, 0, 0, 0, protocol, 0, kind, 0)
    return header + _u32(_RTA_TABLE, table)


def glance(data: bytes) -> tuple[int, int]:
    """Protocol and table (of those below 256) of a route message, without reading it."""
    return data[5], data[4]


def _address(data: bytes) -> Address | None:
    if len(data) == 4:
        return IPv4Address(data)
    return IPv6Address(data) if len(data) == 16 else None


def _read_hop(data: bytes, at: int, interface: int, flags: int) -> KernelHop:
    gateway = None
    for kind, value in attributes(data, at):
        if kind == _RTA_GATEWAY:
            gateway = _address(value)
        elif kind == _RTA_VIA:
            gateway = _address(value[2:])
        elif kind == _RTA_OIF:
            interface = struct.unpack("=I", value)[0]
    return KernelHop(gateway, interface, bool(flags & _ONLINK))


def read_route(data: bytes) -> KernelRoute | None:
    """A route of a dump or notification; None: of another family, or one of the route cache."""
    af, bits, _, _, table, protocol, _, kind, flags = _RTM.unpack_from(data)
    family = _FAMILY.get(af)
    if family is None or flags & _CLONED:
        return None
    nlri, metric = bytes((bits,)), 0
    hops: list[KernelHop] = []
    single = False
    for named, value in attributes(data, 12):
        if named == _RTA_DST:
            nlri += value[: (bits + 7) >> 3]
        elif named == _RTA_PRIORITY:
            metric = struct.unpack("=I", value)[0]
        elif named == _RTA_TABLE:
            table = struct.unpack("=I", value)[0]
        elif named in (_RTA_GATEWAY, _RTA_OIF, _RTA_VIA):
            single = True
        elif named == _RTA_MULTIPATH:
            at = 0
            while at + 8 <= len(value):
                length, hop_flags, _, interface = _RTNH.unpack_from(value, at)
                if length < 8:
                    break
                hops.append(_read_hop(value[at : at + length], 8, interface, hop_flags))
                at += (length + 3) & ~3
    if single:
        hops = [_read_hop(data, 12, 0, flags)]
    if len(nlri) != 1 + ((bits + 7) >> 3):
        nlri = nlri.ljust(1 + ((bits + 7) >> 3), b"\0")
    return KernelRoute(Prefix(family, nlri), tuple(hops), metric, table, protocol, kind)


def pack_link_filter() -> bytes:
    """The payload of a dump of all interfaces."""
    return struct.pack("=BxHiII", 0, 0, 0, 0, 0)


def read_link(data: bytes) -> Link:
    """An interface of a dump or notification."""
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", data)
    name = ""
    for kind, value in attributes(data, 16):
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
    return Link(index, name, bool(flags & 1))


def pack_proxy(entry: ProxyNeighbour) -> bytes:
    """The payload of RTM_NEWNEIGH or RTM_DELNEIGH for a proxy entry."""
    af = 2 if entry.address.version == 4 else 10
    return (
        _NDM.pack(af, entry.interface, _NUD_PERMANENT, _NTF_PROXY, 0)
        + attribute(_NDA_DST, entry.address.packed)
        + attribute(_NDA_PROTOCOL, bytes((entry.protocol,)))
    )


def pack_proxy_filter(family: Family) -> bytes:
    """The payload of a dump of proxy entries."""
    return _NDM.pack(_AF[family], 0, 0, _NTF_PROXY, 0)


def read_proxy(data: bytes) -> ProxyNeighbour | None:
    """A proxy entry of a dump; None: something else."""
    _, interface, _, flags, _ = _NDM.unpack_from(data)
    address, protocol = None, 0
    for kind, value in attributes(data, 12):
        if kind == _NDA_DST:
            address = _address(value)
        elif kind == _NDA_PROTOCOL and value:
            protocol = value[0]
    if address is None or not flags & _NTF_PROXY:
        return None
    return ProxyNeighbour(address, interface, protocol)
