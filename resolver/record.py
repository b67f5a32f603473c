"""Resource records as values: names, types, RDATA and sections.

Rule: a name here is a tuple of lower-case labels without the root (RFC 4343: look-ups ignore case);
RDATA is in wire form, uncompressed, and belongs to class IN, as everything that discod serves of
its own. Numbers are those of https://www.iana.org/assignments/dns-parameters. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from discod.model.endpoint import Address

Name = tuple[bytes, ...]
ZoneKind = Literal["domain", "reverse"]

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
HINFO: Final = 13
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41
SVCB: Final = 64
HTTPS: Final = 65
TKEY: Final = 249
TSIG: Final = 250
IXFR: Final = 251
AXFR: Final = 252
ANY: Final = 255
CAA: Final = 257

IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

NAME_OCTETS: Final = 255
"""Longest name on the wire, root included (RFC 1035, section 2.3.4)."""

_SRV = struct.Struct(">HHH")
_SOA = struct.Struct(">IIIII")


class RR(NamedTuple):
    """One record of class IN."""

    owner: Name
    type: int
    rdata: bytes
    ttl: int = 0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one of our zones says to a question."""

    zone: ZoneKind
    rcode: int
    answer: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    chase: Name = ()
    """A name outside our zones that an alias in `answer` leads to: the forwarder is to add what it
    has of the type that was asked. Empty: the answer is complete."""
    flatten: bool = False
    """With `chase`: the records found take the place of all of `answer`, under the name that was
    asked. `answer` has the aliases all the same, for who may not or cannot chase."""
    ttl: int = 0
    """With `flatten`: seconds that the TTL of what is put there may have at most (the smallest of
    the aliases)."""
    negative: tuple[RR, ...] = ()
    """With `flatten`: the authority section for the case that nothing is found (no data, never
    NXDOMAIN: the name that was asked exists)."""


def to_name(text: str) -> Name:
    """``web.discod.internal`` as a Name; characters beyond ASCII are taken as UTF-8."""
    stripped = text.removesuffix(".")
    return tuple(label.lower() for label in stripped.encode().split(b".")) if stripped else ()


def name_wire(name: Name) -> bytes:
    """A name in wire form, uncompressed."""
    return b"".join([bytes((len(label),)) + label for label in name]) + b"\0"


def fits(name: Name) -> bool:
    """Whether a name is short enough for the wire."""
    return sum(map(len, name)) + len(name) + 1 <= NAME_OCTETS


def address_type(address: Address) -> int:
    """A or AAAA (RFC 3596)."""
    return A if address.version == 4 else AAAA


srv_head = _SRV.pack
"""RDATA of SRV before its target, of priority, weight, port; the target is never compressed (RFC
2782)."""


def soa(mname: Name, rname: Name, serial: int, refresh: int, retry: int, expire: int) -> bytes:
    """RDATA of SOA with minimum 0: a name that comes up is seen at once (RFC 2308, section 5)."""
    return name_wire(mname) + name_wire(rname) + _SOA.pack(serial, refresh, retry, expire, 0)


def cname(owner: Name, target: Name, ttl: int = 0) -> RR:
    """A CNAME record."""
    return RR(owner, CNAME, name_wire(target), ttl)


def txt(strings: Iterable[bytes]) -> bytes:
    """RDATA of TXT from strings of at most 255 octets each."""
    return b"".join([bytes((len(string),)) + string for string in strings])
