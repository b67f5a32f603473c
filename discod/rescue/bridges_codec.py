"""Bridges and addresses as the kernel tells them. Pure.

`rtnetlink(7)`, `linux/if_link.h`, `linux/if_addr.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final, NamedTuple

from discod.kernel.attributes import NESTED, attribute, attributes
from discod.model.endpoint import Address
from discod.model.rescue import Bridge

LINKS: Final = 18
"""RTM_GETLINK."""
ADDRESSES: Final = 22
"""RTM_GETADDR."""
_LINK: Final = struct.Struct("=BxHiII")
_LINK_ADDRESS, _NAME, _INFO, _KIND = 1, 3, 18, 1
_ADDRESS, _LOCAL = 1, 2

ALL_BRIDGES: Final = _LINK.pack(0, 0, 0, 0, 0) + attribute(
    _INFO | NESTED, attribute(_KIND, b"bridge\0")
)
"""Payload of a `LINKS` dump."""
ALL_ADDRESSES: Final = bytes(8)
"""Payload of an `ADDRESSES` dump."""


class Link(NamedTuple):
    """A bridge."""

    number: int
    """Of the interface."""
    name: str
    mac: bytes


class Local(NamedTuple):
    """The network of an address of an interface."""

    number: int
    """Of the interface."""
    network: Address
    bits: int


def read_bridge(payload: bytes) -> Link | None:
    """One link; None: it is no bridge."""
    if len(payload) < _LINK.size:
        return None
    parts = dict(attributes(payload, _LINK.size))
    kind = dict(attributes(parts.get(_INFO, b""))).get(_KIND, b"").rstrip(b"\0")
    name, mac = parts.get(_NAME, b"").rstrip(b"\0"), parts.get(_LINK_ADDRESS, b"")
    if kind != b"bridge" or not name or len(mac) != 6:
        return None
    # As Python itself has names of files and interfaces, so that they can be handed back to it.
    return Link(_LINK.unpack_from(payload)[2], name.decode("utf-8", "surrogateescape"), mac)


def read_address(payload: bytes) -> Local | None:
    """One address; None: it is none."""
    if len(payload) < 8:
        return None
    _family, bits, _flags, _scope, index = struct.unpack_from("=BBBBI", payload)
    parts = dict(attributes(payload, 8))
    network = parts.get(_ADDRESS) or parts.get(_LOCAL, b"")
    if len(network) not in (4, 16) or bits > 8 * len(network):
        return None
    return Local(index, ip_network((network, bits), strict=False).network_address, bits)


def read_own(payload: bytes) -> bytes:
    """Just the octets of the host's own address; none: there is none."""
    parts = dict(attributes(payload, 8))
    # On a point-to-point link the other is the other end's.
    return parts.get(_LOCAL) or parts.get(_ADDRESS, b"")


def joined(links: Iterable[Link], addresses: Iterable[Local]) -> tuple[Bridge, ...]:
    """Bridges by name, with their networks.

    Link-local ones of IPv6 are left out: every bridge has the same.
    """
    networks: dict[int, set[tuple[Address, int]]] = {}
    for local in addresses:
        if not (local.network.version == 6 and local.network.is_link_local):
            networks.setdefault(local.number, set()).add((local.network, local.bits))
    return tuple(
        Bridge(
            link.name,
            link.mac,
            tuple(sorted(networks.get(link.number, ()), key=lambda n: (n[0].version, int(n[0])))),
        )
        for link in sorted(links, key=lambda link: link.name)
    )
