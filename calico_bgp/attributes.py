"""Path attributes as a value, and their octets (RFC 4271, section 5).

Rule: what a route says of itself apart from its prefix is one `Attributes`; equal ones share an
UPDATE. NEXT_HOP and the next hop of MP_REACH_NLRI are the same field of it. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from calico_bgp.as_path import AsPath, is_wide, write_path
from calico_bgp.opening import AS_TRANS
from calico_bgp.prefix import IPV4, Address, Family

ORIGIN, AS_PATH, NEXT_HOP, MULTI_EXIT_DISC, LOCAL_PREF = 1, 2, 3, 4, 5
ATOMIC_AGGREGATE, AGGREGATOR, COMMUNITIES, ORIGINATOR_ID, CLUSTER_LIST = 6, 7, 8, 9, 10
MP_REACH_NLRI, MP_UNREACH_NLRI, EXTENDED_COMMUNITIES = 14, 15, 16
AS4_PATH, AS4_AGGREGATOR, LARGE_COMMUNITIES = 17, 18, 32

NAMES: Final = {
    ORIGIN: "ORIGIN",
    AS_PATH: "AS_PATH",
    NEXT_HOP: "NEXT_HOP",
    MULTI_EXIT_DISC: "MULTI_EXIT_DISC",
    LOCAL_PREF: "LOCAL_PREF",
    ATOMIC_AGGREGATE: "ATOMIC_AGGREGATE",
    AGGREGATOR: "AGGREGATOR",
    COMMUNITIES: "COMMUNITIES",
    ORIGINATOR_ID: "ORIGINATOR_ID",
    CLUSTER_LIST: "CLUSTER_LIST",
    MP_REACH_NLRI: "MP_REACH_NLRI",
    MP_UNREACH_NLRI: "MP_UNREACH_NLRI",
    EXTENDED_COMMUNITIES: "EXTENDED COMMUNITIES",
    AS4_PATH: "AS4_PATH",
    AS4_AGGREGATOR: "AS4_AGGREGATOR",
    LARGE_COMMUNITIES: "LARGE_COMMUNITY",
}

OPTIONAL, TRANSITIVE, PARTIAL, EXTENDED = 0x80, 0x40, 0x20, 0x10
WELL_KNOWN: Final = TRANSITIVE
FLAGS: Final = {
    ORIGIN: WELL_KNOWN,
    AS_PATH: WELL_KNOWN,
    NEXT_HOP: WELL_KNOWN,
    MULTI_EXIT_DISC: OPTIONAL,
    LOCAL_PREF: WELL_KNOWN,
    ATOMIC_AGGREGATE: WELL_KNOWN,
    AGGREGATOR: OPTIONAL | TRANSITIVE,
    COMMUNITIES: OPTIONAL | TRANSITIVE,
    ORIGINATOR_ID: OPTIONAL,
    CLUSTER_LIST: OPTIONAL,
    MP_REACH_NLRI: OPTIONAL,
    MP_UNREACH_NLRI: OPTIONAL,
    EXTENDED_COMMUNITIES: OPTIONAL | TRANSITIVE,
    AS4_PATH: OPTIONAL | TRANSITIVE,
    AS4_AGGREGATOR: OPTIONAL | TRANSITIVE,
    LARGE_COMMUNITIES: OPTIONAL | TRANSITIVE,
}
"""The Optional and Transitive bits that each has to have."""

IGP, EGP, INCOMPLETE = 0, 1, 2
ORIGINS: Final = ("IGP", "EGP", "INCOMPLETE")

GRACEFUL_SHUTDOWN: Final = 0xFFFF0000
"""RFC 8326, section 5."""
NO_EXPORT, NO_ADVERTISE = 0xFFFFFF01, 0xFFFFFF02
"""RFC 1997."""


class Unknown(NamedTuple):
    """An optional transitive attribute that is passed on as it came, as Partial.

    Somebody on its way did not know it, we at the latest (RFC 4271, section 5).
    """

    type: int
    value: bytes


class Attributes(NamedTuple):
    """All of one route; what is not there is None or empty."""

    origin: int = IGP
    as_path: AsPath = ()
    next_hop: Address | None = None
    link_local: IPv6Address | None = None
    """The second next hop of IPv6 (RFC 2545, section 3)."""
    med: int | None = None
    local_pref: int | None = None
    atomic_aggregate: bool = False
    aggregator: tuple[int, IPv4Address] | None = None
    communities: tuple[int, ...] = ()
    originator_id: IPv4Address | None = None
    cluster_list: tuple[IPv4Address, ...] = ()
    extended_communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    unknown: tuple[Unknown, ...] = ()


def write_attribute(kind: int, value: bytes, flags: int) -> bytes:
    """One attribute; Extended Length where it needs it, and only there."""
    if len(value) > 255:
        return struct.pack(">BBH", flags | EXTENDED, kind, len(value)) + value
    return bytes((flags, kind, len(value))) + value


def write_attributes(attributes: Attributes, family: Family, *, wide: bool) -> bytes:
    """All attributes but MP_REACH_NLRI, in the order of their types.

    NEXT_HOP is there for IPv4 only, other families have it in MP_REACH_NLRI; `wide` is for a peer
    that has 4-octet AS numbers.
    """
    parts = []
    for kind, value in _values(attributes, family, wide):
        parts.append((kind, write_attribute(kind, value, FLAGS[kind])))
    for kind, value in attributes.unknown:
        octets = write_attribute(kind, value, OPTIONAL | TRANSITIVE | PARTIAL)
        parts.append((kind, octets))
    parts.sort()
    return b"".join([octets for _, octets in parts])


def _values(a: Attributes, family: Family, wide: bool) -> Iterator[tuple[int, bytes]]:
    yield ORIGIN, bytes((a.origin,))
    yield AS_PATH, write_path(a.as_path, wide=wide)
    if not wide and is_wide(a.as_path):
        yield AS4_PATH, write_path(a.as_path, wide=True)
    if family == IPV4 and a.next_hop is not None:
        yield NEXT_HOP, a.next_hop.packed
    if a.med is not None:
        yield MULTI_EXIT_DISC, a.med.to_bytes(4, "big")
    if a.local_pref is not None:
        yield LOCAL_PREF, a.local_pref.to_bytes(4, "big")
    if a.atomic_aggregate:
        yield ATOMIC_AGGREGATE, b""
    if a.aggregator is not None:
        yield from _aggregator(*a.aggregator, wide)
    if a.communities:
        yield COMMUNITIES, struct.pack(f">{len(a.communities)}I", *a.communities)
    if a.originator_id is not None:
        yield ORIGINATOR_ID, a.originator_id.packed
    if a.cluster_list:
        yield CLUSTER_LIST, b"".join(one.packed for one in a.cluster_list)
    if many := a.extended_communities:
        yield EXTENDED_COMMUNITIES, struct.pack(f">{len(many)}Q", *many)
    if a.large_communities:
        octets = b"".join(struct.pack(">3I", *one) for one in a.large_communities)
        yield LARGE_COMMUNITIES, octets


def _aggregator(asn: int, address: IPv4Address, wide: bool) -> Iterator[tuple[int, bytes]]:
    """For an old speaker with AS_TRANS and the truth beside it (RFC 6793, section 4.2.2)."""
    whole = asn.to_bytes(4, "big") + address.packed
    if wide:
        yield AGGREGATOR, whole
    elif asn < 0x10000:
        yield AGGREGATOR, asn.to_bytes(2, "big") + address.packed
    else:
        yield AGGREGATOR, AS_TRANS.to_bytes(2, "big") + address.packed
        yield AS4_AGGREGATOR, whole


def community_shown(community: int) -> str:
    """``64512:100``, or the name of a well-known one."""
    named = {
        GRACEFUL_SHUTDOWN: "GRACEFUL_SHUTDOWN",
        NO_EXPORT: "NO_EXPORT",
        NO_ADVERTISE: "NO_ADVERTISE",
    }
    return named.get(community, f"{community >> 16}:{community & 0xFFFF}")
