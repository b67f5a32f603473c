"""The values of path attributes, each read as its section of RFC 7606 wants (section 7).

Rule: a reader returns the value, or raises `Bad` with the action; nothing of it is kept half. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final, NamedTuple

from calico_bgp import attributes as at
from calico_bgp.as_path import AsPath, BadPath, read_path
from calico_bgp.attribute_fault import Action
from calico_bgp.notification import (
    ATTRIBUTE_LENGTH,
    INVALID_NEXT_HOP,
    INVALID_ORIGIN,
    MALFORMED_AS_PATH,
    OPTIONAL_ATTRIBUTE,
)
from calico_bgp.prefix import Address

DISCARD, WITHDRAW, RESET = Action


class Context(NamedTuple):
    """What the meaning of an UPDATE depends on."""

    external: bool
    """The peer is in another AS."""
    wide: bool = True
    """Both have 4-octet AS numbers (RFC 6793)."""


class Bad(ValueError):
    """An attribute that its section calls malformed."""

    def __init__(self, subcode: int, why: str, action: Action = WITHDRAW) -> None:
        super().__init__(why)
        self.subcode, self.why, self.action = subcode, why, action


def _size(value: bytes, size: int, action: Action = WITHDRAW) -> None:
    if len(value) != size:
        raise Bad(ATTRIBUTE_LENGTH, f"{len(value)} octets, not {size}", action)


def _times(value: bytes, size: int, subcode: int = ATTRIBUTE_LENGTH) -> None:
    if not value or len(value) % size:
        raise Bad(subcode, f"{len(value)} octets, not a multiple of {size}")


def _internal(context: Context) -> None:
    """Sections 7.5, 7.9, 7.10: from another AS it is discarded unread."""
    if context.external:
        raise Bad(OPTIONAL_ATTRIBUTE, "from another AS", DISCARD)


def _origin(value: bytes, _: Context) -> int:
    _size(value, 1)
    if value[0] >= len(at.ORIGINS):
        raise Bad(INVALID_ORIGIN, f"value {value[0]}")
    return value[0]


def _as_path(value: bytes, context: Context) -> AsPath:
    try:
        return read_path(value, wide=context.wide)
    except BadPath as error:
        raise Bad(MALFORMED_AS_PATH, str(error)) from None


def _next_hop(value: bytes, _: Context) -> IPv4Address:
    _size(value, 4)
    address = IPv4Address(value)
    if not is_host(address):
        raise Bad(INVALID_NEXT_HOP, f"{address} is no host")
    return address


def is_host(address: Address) -> bool:
    """Whether an address can be a next hop (RFC 4271, section 6.3: syntactically correct)."""
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or (address.version == 4 and int(address) >> 28 == 15)
    )


def _med(value: bytes, _: Context) -> int:
    _size(value, 4)
    return int.from_bytes(value, "big")


def _local_pref(value: bytes, context: Context) -> int:
    _internal(context)
    _size(value, 4)
    return int.from_bytes(value, "big")


def _atomic(value: bytes, _: Context) -> bool:
    _size(value, 0, DISCARD)
    return True


def read_aggregator(value: bytes, context: Context) -> tuple[int, IPv4Address]:
    """The value of AGGREGATOR, or in a wide context of AS4_AGGREGATOR."""
    _size(value, 8 if context.wide else 6, DISCARD)
    asn = int.from_bytes(value[:-4], "big")
    if asn == 0:
        raise Bad(OPTIONAL_ATTRIBUTE, "AS 0", DISCARD)  # RFC 7607, section 2
    return asn, IPv4Address(value[-4:])


def _communities(value: bytes, _: Context) -> tuple[int, ...]:
    _times(value, 4, OPTIONAL_ATTRIBUTE)
    return struct.unpack(f">{len(value) // 4}I", value)


def _originator(value: bytes, context: Context) -> IPv4Address:
    _internal(context)
    _size(value, 4)
    return IPv4Address(value)


def _clusters(value: bytes, context: Context) -> tuple[IPv4Address, ...]:
    _internal(context)
    _times(value, 4)
    return tuple(IPv4Address(value[i : i + 4]) for i in range(0, len(value), 4))


def _extended(value: bytes, _: Context) -> tuple[int, ...]:
    _times(value, 8, OPTIONAL_ATTRIBUTE)
    return struct.unpack(f">{len(value) // 8}Q", value)


def _large(value: bytes, _: Context) -> tuple[tuple[int, int, int], ...]:
    """RFC 8092, section 6; one that is there twice counts once (section 5)."""
    _times(value, 12, OPTIONAL_ATTRIBUTE)
    return tuple(dict.fromkeys(struct.iter_unpack(">3I", value)))


READERS: Final[dict[int, tuple[str, Callable[[bytes, Context], Any]]]] = {
    at.ORIGIN: ("origin", _origin),
    at.AS_PATH: ("as_path", _as_path),
    at.NEXT_HOP: ("next_hop", _next_hop),
    at.MULTI_EXIT_DISC: ("med", _med),
    at.LOCAL_PREF: ("local_pref", _local_pref),
    at.ATOMIC_AGGREGATE: ("atomic_aggregate", _atomic),
    at.AGGREGATOR: ("aggregator", read_aggregator),
    at.COMMUNITIES: ("communities", _communities),
    at.ORIGINATOR_ID: ("originator_id", _originator),
    at.CLUSTER_LIST: ("cluster_list", _clusters),
    at.EXTENDED_COMMUNITIES: ("extended_communities", _extended),
    at.LARGE_COMMUNITIES: ("large_communities", _large),
}
