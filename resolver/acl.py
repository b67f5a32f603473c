"""Who is answered at all.

Rule: a forwarder that answers everybody is a weapon (RFC 5358); what no network of the list holds
is refused. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from discod.model.settings import Network

REMEMBERED = 4096
"""Clients whose verdict is kept; the one not seen for longest goes first."""


class Acl:
    """The list of `dns.allow`."""

    def __init__(self, networks: Iterable[Network]) -> None:
        nets = tuple(networks)
        self._masks = {
            family: tuple(
                (int(net.netmask), int(net.network_address))
                for net in nets
                if net.version == family
            )
            for family in (4, 6)
        }
        self.allows = lru_cache(REMEMBERED)(self._allows)
        """Whether the client with this address (text, perhaps with ``%scope``) is answered."""

    def _allows(self, client: str) -> bool:
        address = ip_address(client.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        value = int(address)
        return any(value & mask == net for mask, net in self._masks[address.version])
