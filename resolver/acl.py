"""Who is answered at all.

Rule: a forwarder that answers everybody is a weapon (RFC 5358); what no network of the list holds
is refused. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from discod.model.endpoint import Address
from discod.model.settings import Network

REMEMBERED: Final = 4096
"""Clients whose verdict is kept; the one not seen for longest goes first."""


def client_address(client: str) -> Address:
    """The address of a client in text form, perhaps with ``%scope``; one mapped to IPv6 as IPv4.

    Raises:
        ValueError: it is no address.
    """
    address = ip_address(client.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(REMEMBERED)
def packed(client: str) -> bytes:
    """`client_address` as 4 or 16 octets."""
    return client_address(client).packed


class Acl:
    """A list of networks: `dns.allow`, `dns.forward_allow`."""

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
        """Whether the client with this address (text, perhaps with ``%scope``) is in the list."""

    def _allows(self, client: str) -> bool:
        address = client_address(client)
        value = int(address)
        return any(value & mask == net for mask, net in self._masks[address.version])
