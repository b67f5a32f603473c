"""Prefixes, in the form in which BGP carries them.

Rule: a prefix here is its family and the octets of its NLRI field, with all bits behind its length
zero; so equal prefixes are equal octets, and sending them is copying them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Family(NamedTuple):
    """Address family and subsequent address family (RFC 4760, section 3)."""

    afi: int
    safi: int

    @property
    def octets(self) -> int:
        """Octets of one of its addresses."""
        return 16 if self.afi == 2 else 4

    def __str__(self) -> str:
        return _NAMES.get(self, f"afi {self.afi} safi {self.safi}")


IPV4: Final = Family(1, 1)
IPV6: Final = Family(2, 1)
FAMILIES: Final = (IPV4, IPV6)
"""What this speaker carries: unicast of both."""
_NAMES: Final = {IPV4: "ipv4", IPV6: "ipv6"}


class BadPrefix(ValueError):
    """An NLRI field that is not what RFC 4271, section 4.3, says."""


class Prefix(NamedTuple):
    """A destination; `str()` gives ``10.0.0.1/32``."""

    family: Family
    nlri: bytes
    """Its length in bits in one octet, then as few octets as hold them (RFC 4271, section 4.3)."""

    @property
    def bits(self) -> int:
        """How long it is."""
        return self.nlri[0]

    @property
    def network(self) -> Network:
        """As the standard library has it."""
        octets = self.nlri[1:].ljust(self.family.octets, b"\0")
        if self.family.afi == 1:
            return IPv4Network((octets, self.nlri[0]))
        return IPv6Network((octets, self.nlri[0]))

    def __str__(self) -> str:
        return str(self.network)


def of_network(network: Network) -> Prefix:
    """The prefix of a network."""
    bits = network.prefixlen
    octets = network.network_address.packed[: (bits + 7) >> 3]
    return Prefix(IPV4 if network.version == 4 else IPV6, bytes((bits,)) + octets)


def of_address(address: Address) -> Prefix:
    """The /32 or /128 of one host."""
    if address.version == 4:
        return Prefix(IPV4, b"\x20" + address.packed)
    return Prefix(IPV6, b"\x80" + address.packed)


def read_prefixes(family: Family, data: bytes) -> list[Prefix]:
    """All prefixes of an NLRI field, each as often as it is there.

    Raises:
        BadPrefix: one is longer than an address, or does not end (RFC 7606, section 5.3).
    """
    found = []
    at, size, most = 0, len(data), family.octets * 8
    while at < size:
        bits = data[at]
        end = at + 1 + ((bits + 7) >> 3)
        if bits > most:
            raise BadPrefix(f"prefix of {bits} bits, at most {most}")
        if end > size:
            raise BadPrefix("prefix does not end")
        nlri = data[at:end]
        if spare := -bits & 7:
            # Whatever is behind the length is irrelevant (RFC 4271, section 4.3).
            nlri = nlri[:-1] + bytes((nlri[-1] >> spare << spare,))
        found.append(Prefix(family, nlri))
        at = end
    return found


def write_prefixes(prefixes: Iterable[Prefix]) -> bytes:
    """The NLRI field that has them."""
    return b"".join([prefix.nlri for prefix in prefixes])
