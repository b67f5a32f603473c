"""Reverse names: which address or prefix one means, and who has an address.

Rule: ``in-addr.arpa`` (RFC 1035, section 3.5) and ``ip6.arpa`` (RFC 3596, section 2.5) are read and
written here only, in canonical form (no leading zeros). Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from discod.model.endpoint import Address, Endpoint, EndpointId
from discod.model.settings import Network
from resolver.record import Name

RESORT_AT = 1000
"""Changes at once from which on it is cheaper to sort all addresses again, when next needed, than
to put each in its place (an insertion into 100,000 takes some 20 us)."""

_Address = tuple[int, int]
"""Family and value."""


class _Own(NamedTuple):
    """A service's own address: stands in the index as an endpoint does."""

    service: str
    address: Address
    instance: str = ""

    @property
    def id(self) -> EndpointId:
        """What no endpoint is called."""
        return EndpointId(self.service, "*")


_Named = Endpoint | _Own
_Entry = _Named | dict[EndpointId, _Named]
"""Almost every address has one endpoint."""

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
    """Address -> names, kept up to date by service.

    Entries are the endpoints themselves; names are made when they are asked for.

    Args:
        domain: What all names end in.
        services: Service -> instance -> endpoint, to begin with.
    """

    def __init__(self, domain: Name, services: Mapping[str, Mapping[str, Endpoint]]) -> None:
        self._domain = domain
        self._hosts: dict[_Address, list[str]] = {}
        self._endpoints: dict[int, dict[int, _Entry]] = {4: {}, 6: {}}
        self._sorted: dict[int, list[int]] = {}
        """By family, for `any_in`; none: to be sorted when it is needed."""
        v4, v6 = self._endpoints[4], self._endpoints[6]
        for instances in services.values():
            for endpoint in instances.values():
                address = endpoint.address
                entries = v4 if type(address) is IPv4Address else v6
                key = int(address)
                if key in entries:
                    self._add(endpoint)
                else:
                    entries[key] = endpoint
            for own in _own(instances):
                self._add(own)

    def set_hosts(self, hosts: Mapping[str, Iterable[Address]]) -> None:
        """Replace all hosts: name -> addresses."""
        self._hosts = {}
        for host in sorted(hosts):
            for address in hosts[host]:
                names = self._hosts.setdefault((address.version, int(address)), [])
                if host not in names:
                    names.append(host)

    def change(self, before: Mapping[str, Endpoint], after: Mapping[str, Endpoint]) -> None:
        """Replace the endpoints of one service, by instance; empty: there is no such service."""
        gone: list[_Named] = [e for i, e in before.items() if after.get(i) is not e]
        new: list[_Named] = [e for i, e in after.items() if before.get(i) is not e]
        own, others = _own(before), _own(after)
        gone += own - others
        new += others - own
        if len(gone) + len(new) > RESORT_AT:
            self._sorted = {}
        for endpoint in gone:
            self._remove(endpoint)
        for endpoint in new:
            self._add(endpoint)

    def _add(self, endpoint: _Named) -> None:
        family, key = endpoint.address.version, int(endpoint.address)
        entries = self._endpoints[family]
        entry = entries.get(key)
        if entry is None:
            entries[key] = endpoint
            if family in self._sorted:
                insort(self._sorted[family], key)
        elif isinstance(entry, dict):
            entry[endpoint.id] = endpoint
        else:
            entries[key] = {entry.id: entry, endpoint.id: endpoint}

    def _remove(self, endpoint: _Named) -> None:
        family, key = endpoint.address.version, int(endpoint.address)
        entries = self._endpoints[family]
        entry = entries[key]
        if isinstance(entry, dict):
            del entry[endpoint.id]
            if entry:
                return
        del entries[key]
        if family in self._sorted:
            del self._sorted[family][bisect_left(self._sorted[family], key)]

    def names(self, meaning: ReverseName) -> tuple[Name, ...]:
        """Whose it is: its host's (so is a published port), else the endpoints' and services'."""
        hosts = self._hosts.get((meaning.family, meaning.value))
        if hosts:
            return tuple((host.encode(), b"node", *self._domain) for host in hosts)
        entry = self._endpoints[meaning.family].get(meaning.value)
        if entry is None:
            return ()
        endpoints = entry.values() if isinstance(entry, dict) else (entry,)
        return tuple(sorted({self._name(e) for e in endpoints}))

    def _name(self, endpoint: _Named) -> Name:
        apex = (endpoint.service.encode(), *self._domain)
        return (endpoint.instance.encode(), *apex) if endpoint.instance else apex

    def any_in(self, prefix: ReverseName) -> bool:
        """Whether any address of the prefix has a name."""
        family, first, last = prefix.family, prefix.value, prefix.last
        if family not in self._sorted:
            self._sorted[family] = sorted(self._endpoints[family])
        values = self._sorted[family]
        at = bisect_left(values, first)
        if at < len(values) and values[at] <= last:
            return True
        return any(f == family and first <= value <= last for f, value in self._hosts)


def _own(instances: Mapping[str, Endpoint]) -> set[_Own]:
    """The service's own addresses, by the word of any of its endpoints."""
    return {_Own(e.service, address) for e in instances.values() if e.vip for address in e.vip}
