"""UPDATE messages (RFC 4271, section 4.3; RFC 4760), read as RFC 7606 wants.

Rule: whatever an UPDATE is, reading it gives an `Update`: what it announces and withdraws, with
treat-as-withdraw already done, and what was wrong. A reset is a fault too, and then nothing of it
counts. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from calico_bgp import attributes as at
from calico_bgp.attribute_fault import Action, Fault, strongest
from calico_bgp.attribute_reader import Found, read_attributes
from calico_bgp.attribute_values import Context, is_host
from calico_bgp.attributes import Attributes, write_attribute, write_attributes
from calico_bgp.notification import (
    INVALID_NETWORK,
    MALFORMED_ATTRIBUTE_LIST,
    MISSING_WELL_KNOWN,
    OPTIONAL_ATTRIBUTE,
)
from calico_bgp.prefix import (
    FAMILIES,
    IPV4,
    Address,
    BadPrefix,
    Family,
    Prefix,
    read_prefixes,
    write_prefixes,
)

_REACH: Final = at.MP_REACH_NLRI
_UNREACH: Final = at.MP_UNREACH_NLRI
_HOPS: Final = {4: (4,), 16: (16, 32)}
"""Octets that a next hop may have, by those of an address (RFC 2545, section 3)."""


class Announced(NamedTuple):
    """Prefixes of one family that share their attributes."""

    attributes: Attributes
    prefixes: tuple[Prefix, ...]


class Update(NamedTuple):
    """What one message says."""

    announced: tuple[Announced, ...] = ()
    withdrawn: tuple[Prefix, ...] = ()
    end_of_rib: Family | None = None
    """All of this family has been sent (RFC 4724, section 2)."""
    faults: tuple[Fault, ...] = ()

    @property
    def action(self) -> Fault | None:
        """The fault that decides; None: there is none."""
        return strongest(self.faults)


class _Reset(Exception):
    """The prefixes cannot be told (RFC 7606, section 3 j)."""

    def __init__(self, kind: int, subcode: int, why: str, data: bytes = b"") -> None:
        super().__init__(why)
        self.fault = Fault(kind, Action.SESSION_RESET, subcode, why, data)


def read_update(body: bytes, context: Context, families: Collection[Family] = FAMILIES) -> Update:
    """The UPDATE of a message body; prefixes of families that were not agreed upon are left out."""
    try:
        return _read(body, context, families)
    except _Reset as reset:
        return Update(faults=(reset.fault,))


def _read(body: bytes, context: Context, families: Collection[Family]) -> Update:
    middle = 2 + int.from_bytes(body[:2], "big")
    start = middle + 2
    end = start + int.from_bytes(body[middle:start], "big")
    if len(body) < start or end > len(body):  # RFC 4271, section 6.3
        raise _Reset(0, MALFORMED_ATTRIBUTE_LIST, "its lengths do not fit into it")
    if len(body) == 4 and not any(body):
        return Update(end_of_rib=IPV4)
    withdrawn = _prefixes(IPV4, body[2:middle])
    plain = _prefixes(IPV4, body[end:])
    found = read_attributes(body[start:end], context, plain=bool(plain))
    faults = list(found.faults)
    if (worst := strongest(faults)) and worst.action == Action.SESSION_RESET:
        return Update(faults=tuple(faults))
    announced = [Announced(found.attributes, tuple(plain))] if plain else []
    if found.reach is not None:
        announced += _reach(found, found.reach, families, faults)
    end_of_rib = None
    if found.unreach is not None:
        family, gone = _unreach(found.unreach, families, faults)
        withdrawn += gone
        if found.present == {_UNREACH} and not (withdrawn or plain or faults):
            end_of_rib = family
    faults += _missing(found, bool(announced), bool(plain), context)
    if any(fault.action == Action.TREAT_AS_WITHDRAW for fault in faults):
        if not announced:  # section 5.2: nothing to withdraw, so what was meant cannot be told
            return Update(faults=tuple(map(_harder, faults)))
        for _, prefixes in announced:
            withdrawn += prefixes
        announced = []
    both = {prefix for _, prefixes in announced for prefix in prefixes} if withdrawn else ()
    if both:  # announced counts (RFC 4271, section 4.3)
        withdrawn = [prefix for prefix in withdrawn if prefix not in both]
    if IPV4 not in families:
        announced = [one for one in announced if one.prefixes[0].family != IPV4]
        withdrawn = [prefix for prefix in withdrawn if prefix.family != IPV4]
    return Update(tuple(announced), tuple(withdrawn), end_of_rib, tuple(faults))


def _harder(fault: Fault) -> Fault:
    if fault.action == Action.TREAT_AS_WITHDRAW:
        return fault._replace(action=Action.SESSION_RESET)
    return fault


def _prefixes(family: Family, octets: bytes, kind: int = 0, value: bytes = b"") -> list[Prefix]:
    try:
        return read_prefixes(family, octets)
    except BadPrefix as error:
        # RFC 4760, section 7, has a subcode of its own for the MP attributes.
        subcode = OPTIONAL_ATTRIBUTE if kind else INVALID_NETWORK
        raise _Reset(kind, subcode, str(error), value) from None


def _family(kind: int, value: bytes, least: int) -> Family:
    if len(value) < least:  # RFC 7606, sections 7.11 and 7.12
        raise _Reset(kind, OPTIONAL_ATTRIBUTE, f"{len(value)} octets, at least {least}", value)
    return Family(int.from_bytes(value[:2], "big"), value[2])


def _foreign(kind: int, family: Family) -> Fault:
    why = f"{family} was not agreed upon"
    return Fault(kind, Action.ATTRIBUTE_DISCARD, OPTIONAL_ATTRIBUTE, why)


def _reach(
    found: Found, value: bytes, families: Collection[Family], faults: list[Fault]
) -> list[Announced]:
    """What MP_REACH_NLRI announces (RFC 4760, section 3)."""
    family = _family(_REACH, value, 5)
    if family not in families:
        faults.append(_foreign(_REACH, family))
        return []
    size = value[3]
    if size not in _HOPS[family.octets] or len(value) < 5 + size:
        raise _Reset(_REACH, OPTIONAL_ATTRIBUTE, f"next hop of {size} octets", value)
    prefixes = _prefixes(family, value[5 + size :], _REACH, value)
    if not prefixes:
        return []
    hop: Address
    link_local = None
    if size == 4:
        hop = IPv4Address(value[4:8])
    else:
        hop = IPv6Address(value[4:20])
        link_local = IPv6Address(value[20:36]) if size == 32 else None
    if not is_host(hop):
        why = f"next hop {hop} is no host"
        faults.append(Fault(_REACH, Action.TREAT_AS_WITHDRAW, OPTIONAL_ATTRIBUTE, why))
    attributes = found.attributes._replace(next_hop=hop, link_local=link_local)
    return [Announced(attributes, tuple(prefixes))]


def _unreach(
    value: bytes, families: Collection[Family], faults: list[Fault]
) -> tuple[Family, list[Prefix]]:
    """What MP_UNREACH_NLRI withdraws (RFC 4760, section 4)."""
    family = _family(_UNREACH, value, 3)
    if family not in families:
        faults.append(_foreign(_UNREACH, family))
        return family, []
    return family, _prefixes(family, value[3:], _UNREACH, value)


def _missing(found: Found, announced: bool, plain: bool, context: Context) -> Iterable[Fault]:
    """Mandatory attributes that are not there (RFC 7606, section 3 d)."""
    if not announced:
        return
    wanted = [at.ORIGIN, at.AS_PATH]
    if plain:
        wanted.append(at.NEXT_HOP)
    if not context.external:
        wanted.append(at.LOCAL_PREF)
    there = found.present | {fault.type for fault in found.faults}
    for kind in wanted:
        if kind not in there:
            action, data = Action.TREAT_AS_WITHDRAW, bytes((kind,))
            yield Fault(kind, action, MISSING_WELL_KNOWN, "is not there", data)


# Written ----------------------------------------------------------------------------------------


def write_head(attributes: Attributes, family: Family, *, wide: bool) -> bytes:
    """All path attributes but MP_REACH_NLRI, which `write_announced` puts before them."""
    return write_attributes(attributes, family, wide=wide)


def write_reach(attributes: Attributes, family: Family) -> bytes:
    """What MP_REACH_NLRI has before its prefixes."""
    assert attributes.next_hop is not None
    hop = attributes.next_hop.packed
    if attributes.link_local is not None:
        hop += attributes.link_local.packed
    return struct.pack(">HBB", family.afi, family.safi, len(hop)) + hop + b"\0"


def write_announced(head: bytes, reach: bytes | None, nlri: bytes) -> bytes:
    """The body of an UPDATE that announces the prefixes of an NLRI field.

    With `reach` they are in MP_REACH_NLRI, which comes first (RFC 7606, section 5.1).
    """
    if reach is not None:
        head = write_attribute(_REACH, reach + nlri, at.OPTIONAL) + head
        nlri = b""
    return struct.pack(">HH", 0, len(head)) + head + nlri


def write_withdrawn(family: Family, nlri: bytes) -> bytes:
    """The body of an UPDATE that withdraws the prefixes of an NLRI field."""
    if family == IPV4:
        return len(nlri).to_bytes(2, "big") + nlri + b"\0\0"
    value = struct.pack(">HB", family.afi, family.safi) + nlri
    field = write_attribute(_UNREACH, value, at.OPTIONAL)
    return struct.pack(">HH", 0, len(field)) + field


def write_end_of_rib(family: Family) -> bytes:
    """The body of an End-of-RIB (RFC 4724, section 2)."""
    return write_withdrawn(family, b"")


def write_update(announced: Announced, *, wide: bool) -> bytes:
    """The body that announces these prefixes, however long it gets; `packing` cuts them to size."""
    attributes, prefixes = announced
    family = prefixes[0].family
    head = write_head(attributes, family, wide=wide)
    reach = None if family == IPV4 else write_reach(attributes, family)
    return write_announced(head, reach, write_prefixes(prefixes))
