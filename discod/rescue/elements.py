"""Netlink messages that delete elements of our sets, and that ask whether our tables are there.

Rule: knows octets, not sockets. Every element is a message of its own, so that the kernel says of
each whether it was there; all of a batch are one transaction. Pure.

``linux/netfilter/nfnetlink.h`` (batches), ``linux/netfilter/nf_tables.h``: a key of several fields
(concatenation) has each padded to 4 octets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from discod.kernel.attributes import NESTED, attribute, attributes
from discod.model.rescue import Place
from discod.rescue.ruleset_layout import Element, Family
from discod.rescue.ruleset_text import TABLE

_SUBSYSTEM: Final = 10 << 8
_GETTABLE, _DELSETELEM, _DESTROYSETELEM = _SUBSYSTEM | 1, _SUBSYSTEM | 14, _SUBSYSTEM | 30
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ERROR: Final = 2
_REQUEST, _ACK = 1, 4
_FAMILY: Final[dict[Family, int]] = {"inet": 1, "bridge": 7}
"""NFPROTO_INET, NFPROTO_BRIDGE."""
_PROTOCOL: Final = {"tcp": b"\x06\0\0\0", "udp": b"\x11\0\0\0"}
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM, _KEY, _VALUE = 1, 1, 1
_TABLE_NAME, _TABLE_USE, _TABLE_HANDLE = 1, 3, 4
_HEADER: Final = struct.Struct("=IHHII")
_NAME: Final = attribute(_LIST_TABLE, TABLE.encode() + b"\0")


class Answer(NamedTuple):
    """What the kernel said of one message."""

    sequence: int
    error: int
    """0: done; else an errno."""
    payload: bytes
    """Of what is no error message: behind the nfgenmsg."""


class Stamp(NamedTuple):
    """By which a table is told from another one of the same name."""

    handle: int
    use: int
    """How many chains and sets it has."""


def key(place: Place) -> bytes:
    """A place as the key of a set: 12 octets for IPv4, 24 for IPv6."""
    return place.address.packed + _PROTOCOL[place.protocol] + struct.pack("!HH", place.port, 0)


def _message(kind: int, flags: int, sequence: int, family: int, payload: bytes = b"") -> bytes:
    resource = _SUBSYSTEM >> 8 if kind in (_BATCH_BEGIN, _BATCH_END) else 0
    head = _HEADER.pack(20 + len(payload), kind, flags | _REQUEST, sequence, 0)
    return head + struct.pack("!BBH", family, 0, resource) + payload


def deletion(some: Sequence[Element], first: int, *, lenient: bool) -> bytes:
    """One batch that deletes all of `some`, of which number i has the sequence number `first` + i.

    The last asks for an answer; the others are only answered where they fail. The kernel looks at
    all of them before it gives a batch up, so one pass finds every element that is not there. In a
    `lenient` one that is no failure (Linux 6.3).
    """
    last = len(some) - 1
    kind = _DESTROYSETELEM if lenient else _DELSETELEM
    parts = [_message(_BATCH_BEGIN, 0, first - 1, 0)]
    for i, element in enumerate(some):
        name = attribute(_LIST_SET, element.set.encode() + b"\0")
        value = attribute(_KEY | NESTED, attribute(_VALUE, key(element.place)))
        listed = attribute(_LIST_ELEMENTS | NESTED, attribute(_LIST_ELEM | NESTED, value))
        flags = _ACK if i == last else 0
        payload = _NAME + name + listed
        parts.append(_message(kind, flags, first + i, _FAMILY[element.family], payload))
    parts.append(_message(_BATCH_END, 0, first + last + 1, 0))
    return b"".join(parts)


def question(family: Family, sequence: int) -> bytes:
    """Asks for our table of a family; answered with it, or with ENOENT."""
    payload = attribute(_TABLE_NAME, TABLE.encode() + b"\0")
    return _message(_GETTABLE, 0, sequence, _FAMILY[family], payload)


def answers(data: bytes) -> Iterator[Answer]:
    """All that the kernel says in one datagram; what is no whole message ends it."""
    at = 0
    while at + 20 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if length < 20 or at + length > len(data):
            return
        if kind == _ERROR:
            yield Answer(sequence, -struct.unpack_from("=i", data, at + 16)[0], b"")
        else:
            yield Answer(sequence, 0, data[at + 20 : at + length])
        at += (length + 3) & ~3


def stamp(payload: bytes) -> Stamp:
    """Of a table, from the answer to `question`; fields that are missing are 0."""
    found = dict(attributes(payload))
    handle = int.from_bytes(found.get(_TABLE_HANDLE, b""), "big")
    return Stamp(handle, int.from_bytes(found.get(_TABLE_USE, b""), "big"))
