"""From octets to path attributes, with the errors of RFC 7606.

Rule: nothing here raises for what a peer sends. Each malformed attribute becomes a `Fault` with the
action that its section of RFC 7606 wants, and reading goes on behind it. Pure.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from calico_bgp import attributes as at
from calico_bgp.as_path import BadPath, merge, read_path
from calico_bgp.attribute_fault import Fault
from calico_bgp.attribute_values import (
    DISCARD,
    READERS,
    RESET,
    WITHDRAW,
    Bad,
    Context,
    read_aggregator,
)
from calico_bgp.attributes import Attributes, Unknown
from calico_bgp.notification import (
    ATTRIBUTE_FLAGS,
    ATTRIBUTE_LENGTH,
    MALFORMED_AS_PATH,
    MALFORMED_ATTRIBUTE_LIST,
    OPTIONAL_ATTRIBUTE,
    UNRECOGNIZED_WELL_KNOWN,
)
from calico_bgp.opening import AS_TRANS

_MP: Final = (at.MP_REACH_NLRI, at.MP_UNREACH_NLRI)
_NAMED: Final = at.OPTIONAL | at.TRANSITIVE


class Raw(NamedTuple):
    """One attribute as it came."""

    type: int
    flags: int
    value: bytes
    octets: bytes
    """With its header, for a NOTIFICATION."""


class Found(NamedTuple):
    """What the Path Attributes field of one UPDATE has."""

    attributes: Attributes
    present: frozenset[int]
    """Types that are there and sound."""
    reach: bytes | None
    unreach: bytes | None
    """The values of the MP attributes, not looked into."""
    faults: list[Fault]


def read_attributes(field: bytes, context: Context, *, plain: bool = True) -> Found:
    """Read a Path Attributes field; `plain`: the UPDATE has an NLRI field with prefixes."""
    raws, faults = _split(field)
    values: dict[str, Any] = {}
    unknown: list[Unknown] = []
    seen: set[int] = set()
    present: set[int] = set()
    mp: dict[int, bytes] = {}
    beside: dict[int, Any] = {}
    hop: list[Fault] = []
    for raw in raws:
        if raw.type in seen:
            faults.append(_again(raw))
            continue
        seen.add(raw.type)
        try:
            _check_flags(raw)
            if raw.type in _MP:
                mp[raw.type] = raw.value
            elif raw.type in (at.AS4_PATH, at.AS4_AGGREGATOR):
                beside[raw.type] = _beside(raw, context)
            elif raw.type in READERS:
                name, read = READERS[raw.type]
                values[name] = read(raw.value, context)
            elif raw.flags & at.TRANSITIVE:
                unknown.append(Unknown(raw.type, raw.value))
            # An optional one that is not transitive is ignored quietly (RFC 4271, section 5).
            present.add(raw.type)
        except Bad as bad:
            data = b"" if bad.subcode == MALFORMED_AS_PATH else raw.octets
            faults.append(Fault(raw.type, bad.action, bad.subcode, bad.why, data))
            if raw.type == at.NEXT_HOP:
                hop.append(faults[-1])
            if raw.type in _MP:  # its prefixes are wanted, to be withdrawn
                mp[raw.type] = raw.value
    if at.MP_REACH_NLRI in mp and not plain:
        # NEXT_HOP has no prefixes then and is ignored (RFC 4760, section 3). So it cannot mislead
        # either, which is why RFC 7606, section 7.3, withdraws: that would cost sound routes.
        # One that does not end is another matter: what comes behind it is not known.
        faults = [_ignored(fault) if fault in hop else fault for fault in faults]
    found = Attributes(**values, unknown=tuple(sorted(unknown)))
    found = _merge(found, beside.get(at.AS4_PATH), beside.get(at.AS4_AGGREGATOR))
    reach, unreach = (mp.get(kind) for kind in _MP)
    return Found(found, frozenset(present), reach, unreach, faults)


def _split(field: bytes) -> tuple[list[Raw], list[Fault]]:
    """The attributes one by one; what does not end is withdrawn (RFC 7606, section 4)."""
    raws: list[Raw] = []
    i, size = 0, len(field)
    while i < size:
        head = 4 if field[i] & at.EXTENDED else 3
        kind = field[i + 1] if i + 1 < size else 0
        if i + head > size:
            why = f"{size - i} octets are no attribute"
            return raws, [Fault(kind, WITHDRAW, MALFORMED_ATTRIBUTE_LIST, why)]
        end = i + head + int.from_bytes(field[i + 2 : i + head], "big")
        if end > size:
            # Whatever it was to be: an MP attribute cut short leaves prefixes untold.
            action = RESET if kind in _MP else WITHDRAW
            return raws, [Fault(kind, action, ATTRIBUTE_LENGTH, "does not end", field[i:])]
        raws.append(Raw(kind, field[i], field[i + head : end], field[i:end]))
        i = end
    return raws, []


def _again(raw: Raw) -> Fault:
    """RFC 7606, section 3 g."""
    action = RESET if raw.type in _MP else DISCARD
    return Fault(raw.type, action, MALFORMED_ATTRIBUTE_LIST, "is there twice")


def _ignored(fault: Fault) -> Fault:
    return fault._replace(action=DISCARD)


def _check_flags(raw: Raw) -> None:
    named = at.FLAGS.get(raw.type)
    if named is None:
        if not raw.flags & at.OPTIONAL:  # RFC 4271, section 6.3
            raise Bad(UNRECOGNIZED_WELL_KNOWN, "is well-known, but not to us", RESET)
    elif raw.flags & _NAMED != named:  # RFC 7606, section 3 c
        raise Bad(ATTRIBUTE_FLAGS, f"flags {raw.flags:#04x}")


def _beside(raw: Raw, context: Context) -> Any:
    """AS4_PATH and AS4_AGGREGATOR: from a new speaker, or malformed, they are discarded.

    RFC 6793, sections 4.1 and 6.
    """
    if context.wide:
        raise Bad(OPTIONAL_ATTRIBUTE, "from a speaker of 4-octet numbers", DISCARD)
    if raw.type == at.AS4_AGGREGATOR:
        return read_aggregator(raw.value, Context(context.external, wide=True))
    try:
        return read_path(raw.value, wide=True, beside=True)
    except BadPath as error:
        raise Bad(OPTIONAL_ATTRIBUTE, str(error), DISCARD) from None


def _merge(found: Attributes, as4_path: Any, as4_aggregator: Any) -> Attributes:
    """RFC 6793, section 4.2.3."""
    if found.aggregator is not None and found.aggregator[0] != AS_TRANS:
        # An old speaker has aggregated since: what is beside is of another route.
        return found
    if found.aggregator is not None and as4_aggregator is not None:
        found = found._replace(aggregator=as4_aggregator)
    if as4_path:
        found = found._replace(as_path=merge(found.as_path, as4_path))
    return found
