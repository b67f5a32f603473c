"""Many routes in few UPDATEs (RFC 4271, section 9.2).

Rule: routes with equal attributes share messages, each as full as 4096 octets allow; withdrawals
come first, so that a table that is full at the peer has room for what follows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from calico_bgp.attributes import Attributes
from calico_bgp.message import HEADER, MESSAGE_MAX, UPDATE, frame
from calico_bgp.prefix import IPV4, Family, Prefix
from calico_bgp.update import write_announced, write_head, write_reach, write_withdrawn

_LENGTHS: Final = 4
"""Octets of the two lengths of an UPDATE."""
_ATTRIBUTE: Final = 4
"""Octets before the value of a long attribute."""
_ROOM: Final = MESSAGE_MAX - HEADER - _LENGTHS


class TooLong(ValueError):
    """Attributes that leave no room for a prefix (RFC 4271, section 9.2: not advertised)."""


def pack(
    announced: Mapping[Prefix, Attributes], withdrawn: Iterable[Prefix] = (), *, wide: bool
) -> Iterator[bytes]:
    """Whole UPDATE messages that announce and withdraw these.

    Raises:
        TooLong.
    """
    for family, prefixes in _by_family(withdrawn).items():
        head = 0 if family == IPV4 else _ATTRIBUTE + 3
        for nlri in _fill(prefixes, _ROOM - head):
            yield frame(UPDATE, write_withdrawn(family, nlri))
    for (attributes, family), prefixes in _by_attributes(announced).items():
        yield from _announce(attributes, family, prefixes, wide)


def _announce(
    attributes: Attributes, family: Family, prefixes: list[bytes], wide: bool
) -> Iterator[bytes]:
    head = write_head(attributes, family, wide=wide)
    room = _ROOM - len(head)
    reach = None
    if family != IPV4:
        reach = write_reach(attributes, family)
        room -= _ATTRIBUTE + len(reach)
    if room < 1 + family.octets:
        raise TooLong(f"{len(head)} octets of path attributes")
    for nlri in _fill(prefixes, room):
        yield frame(UPDATE, write_announced(head, reach, nlri))


def _fill(prefixes: list[bytes], room: int) -> Iterator[bytes]:
    """NLRI fields of at most `room` octets."""
    start = size = 0
    for i, nlri in enumerate(prefixes):
        size += len(nlri)
        if size > room:
            yield b"".join(prefixes[start:i])
            start, size = i, len(nlri)
    if prefixes:
        yield b"".join(prefixes[start:])


def _by_family(prefixes: Iterable[Prefix]) -> dict[Family, list[bytes]]:
    found: dict[Family, list[bytes]] = {}
    for family, nlri in prefixes:
        found.setdefault(family, []).append(nlri)
    return found


def _by_attributes(
    announced: Mapping[Prefix, Attributes],
) -> dict[tuple[Attributes, Family], list[bytes]]:
    """NLRI by what can share a message.

    First by identity, since hashing attributes takes longer than all else and most routes of a host
    have the very same.
    """
    same: dict[tuple[int, Family], tuple[Attributes, list[bytes]]] = {}
    for (family, nlri), attributes in announced.items():
        key = (id(attributes), family)
        if (group := same.get(key)) is None:
            group = same[key] = (attributes, [])
        group[1].append(nlri)
    equal: dict[tuple[Attributes, Family], list[bytes]] = {}
    for (_, family), (attributes, prefixes) in same.items():
        equal.setdefault((attributes, family), []).extend(prefixes)
    return equal
