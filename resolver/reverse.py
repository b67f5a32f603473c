"""Reverse names: which address or prefix one means, and who has an address.

Rule: ``in-addr.arpa`` (RFC 1035, section 3.5) and ``ip6.arpa`` (RFC 3596, section 2.5) are read and
written here only, in canonical form (no leading zeros). Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from discod.model.endpoint import Address, Endpoint
from discod.model.settings import Network
from resolver.record import Name

_SUFFIXES: dict[Name, tuple[int, int]] = {
    (b"in-addr", b"arpa"): (4, 8),
    (b"ip6", b"arpa"): (6, 4),
}
"""Suffix -> (family, bits of a label)."""
_WIDTH = {4: 32, 6: 128}
_OCTETS = {str(n).encode(): n for n in range(256)}
_NIBBLES = {f"{n:x}".encode(): n for n in range(16)}


class ReverseName(NamedTuple):
    """What a reverse name says, read from the right as far as it makes sense."""

    family: int
    value: int
    """First address of the prefix."""
    bits: int
    """Length of the prefix; 32 or 128 for an address."""
    junk: bool
    """Whether labels are left over that are part of no address."""

    @property
    def whole(self) -> bool:
        """Whether it is exactly one address."""
        return self.bits == _WIDTH[self.family] and not self.junk

    @property
    def last(self) -> int:
        """Last address of the prefix."""
        return self.value | ((1 << (_WIDTH[self.family] - self.bits)) - 1)


def parse(name: Name) -> ReverseName | None:
    """What `name` means; None when it is no reverse name."""
    suffix = _SUFFIXES.get(name[-2:])
    if suffix is None:
        return None
    family, step = suffix
    width = _WIDTH[family]
    known = _OCTETS if step == 8 else _NIBBLES
    value = bits = 0
    for label in reversed(name[:-2]):
        part = known.get(label)
        if part is None or bits == width:
            return ReverseName(family, value << (width - bits), bits, True)
        value = value << step | part
        bits += step
    return ReverseName(family, value << (width - bits), bits, False)


def reverse_name(address: Address) -> Name:
    """The reverse name of an address."""
    if isinstance(address, IPv4Address):
        labels = [str(octet) for octet in reversed(address.packed)]
        return (*(label.encode() for label in labels), b"in-addr", b"arpa")
    return (*(bytes((c,)) for c in reversed(address.packed.hex().encode())), b"ip6", b"arpa")


class OwnedZones:
    """The reverse zones that are ours alone, from the prefixes of the configuration.

    A prefix that does not end at a label's border is several zones, each at the next border
    (10.1.4.0/22 is four zones of /24). A prefix within the last label (10.1.4.8/30) has its apex
    above it, at a name that is not ours: it stands in SOA records, and is not answered for.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = sorted(networks, key=lambda n: -n.prefixlen)

    def apex(self, name: Name, meaning: ReverseName) -> Name | None:
        """Apex of the owned zone that `name` lies in; None when it lies in none."""
        step = 8 if meaning.family == 4 else 4
        width = _WIDTH[meaning.family]
        for network in self._networks:
            if network.version != meaning.family:
                continue
            labels = -(-network.prefixlen // step)
            shift = width - network.prefixlen
            if (
                meaning.bits >= labels * step
                and meaning.value >> shift == int(network.network_address) >> shift
            ):
                return name[-(min(labels, width // step - 1) + 2) :]
        return None


class ReverseIndex:
    """Address -> names, kept up to date by service."""

    def __init__(self, domain: Name) -> None:
        self._domain = domain
        self._hosts: dict[tuple[int, int], list[str]] = {}
        self._endpoints: dict[tuple[int, int], dict[Name, None]] = {}
        self._of_service: dict[str, list[tuple[tuple[int, int], Name]]] = {}
        self._sorted: dict[int, list[int]] | None = None

    def set_hosts(self, hosts: Mapping[str, Iterable[Address]]) -> None:
        """Replace all hosts: name -> addresses."""
        self._hosts = {}
        for host in sorted(hosts):
            for address in hosts[host]:
                names = self._hosts.setdefault((address.version, int(address)), [])
                if host not in names:
                    names.append(host)
        self._sorted = None

    def set_service(self, service: str, endpoints: Iterable[Endpoint]) -> None:
        """Replace the endpoints of one service."""
        for key, name in self._of_service.pop(service, ()):
            names = self._endpoints[key]
            names.pop(name, None)
            if not names:
                del self._endpoints[key]
        entries: list[tuple[tuple[int, int], Name]] = []
        apex = (service.encode(), *self._domain)
        for endpoint in endpoints:
            key = endpoint.address.version, int(endpoint.address)
            name = (endpoint.instance.encode(), *apex) if endpoint.instance else apex
            self._endpoints.setdefault(key, {})[name] = None
            entries.append((key, name))
        if entries:
            self._of_service[service] = entries
        self._sorted = None

    def services(self) -> Iterable[str]:
        """Services that have an address here."""
        return self._of_service.keys()

    def names(self, meaning: ReverseName) -> tuple[Name, ...]:
        """Who has the address: its host (a published port is the host's), else its endpoints."""
        key = meaning.family, meaning.value
        hosts = self._hosts.get(key)
        if hosts:
            return tuple((host.encode(), b"node", *self._domain) for host in hosts)
        return tuple(self._endpoints.get(key, ()))

    def any_in(self, prefix: ReverseName) -> bool:
        """Whether any address of the prefix has a name."""
        if self._sorted is None:
            keys = sorted({*self._hosts, *self._endpoints})
            self._sorted = {f: [value for family, value in keys if family == f] for f in (4, 6)}
        values = self._sorted[prefix.family]
        at = bisect_left(values, prefix.value)
        return at < len(values) and values[at] <= prefix.last
