"""What a zone holds, in the form in which it is transferred.

Rule: a record here is the octets that a transfer message has: the owner ends in a pointer to the
question's name (which is the apex, at octet 12 of every message), RDATA is uncompressed. So equal
records are equal octets, and sending them is copying them. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, Protocol

from discod.model.catalog import Catalog, Change
from resolver.record import IN, RR, Name
from resolver.wire import FIXED

APEX: Final = b"\xc0\x0c"
"""The owner of records at the apex: the name of the question (RFC 1035, section 4.1.4)."""


class Source(Protocol):
    """A `resolver.zone.Zone` as far as transfers need one."""

    apex: Name

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one, None: unknown."""
        ...

    def apex_rrs(self) -> tuple[RR, ...]:
        """The SOA, then the NS records."""
        ...

    def host_rrs(self) -> tuple[RR, ...]:
        """All records of the hosts' names."""
        ...

    def service_rrs(self, service: str) -> tuple[RR, ...]:
        """All records of a service, or alias; none when it is gone."""
        ...

    def affected(self, services: Iterable[str]) -> frozenset[str]:
        """Whose `service_rrs` may differ when `services` change."""
        ...


class Part(NamedTuple):
    """Some records of the zone."""

    ends: array[int]
    """Where each of them ends."""
    wire: bytes

    @property
    def size(self) -> int:
        """Their number."""
        return len(self.ends)


def encode(rrs: Iterable[RR], apex: Name) -> Part:
    """The records in wire form; all owners lie at or below `apex`."""
    depth = len(apex)
    last: Name | None = None
    owner = b""
    wires = []
    pack = FIXED.pack
    for name, type_, rdata, ttl in rrs:
        if name != last:
            last = name
            below = name[: len(name) - depth]
            owner = b"".join([bytes((len(label),)) + label for label in below]) + APEX
        wires.append(owner + pack(type_, IN, ttl, len(rdata)) + rdata)
    return Part(array("I", accumulate(map(len, wires))), b"".join(wires))


def one(wire: bytes) -> Part:
    """A part of a single record."""
    return Part(array("I", (len(wire),)), wire)


EMPTY: Final = Part(array("I"), b"")


def records(part: Part) -> list[bytes]:
    """The single records of a part."""
    ends, wire = part
    return [wire[start:end] for start, end in pairwise((0, *ends))]
