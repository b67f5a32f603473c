"""Entries of connection tracking as octets: what is asked of the kernel, and what it says. Pure.

`linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_common.h`, `nf_conntrack_tcp.h`. Ports are in
network byte order, flags of a filter in the host's.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from ipaddress import IPv4Address, ip_address
from itertools import groupby
from typing import Final, Literal, NamedTuple

from discod.kernel.attributes import NESTED, attribute, attributes
from discod.model.endpoint import Protocol
from discod.model.rescue import Place
from discod.rescue.flows import Flow

GET: Final = 0x101
DELETE: Final = 0x102
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _ID, _ZONE, _FILTER = 1, 2, 3, 4, 12, 18, 25
_IP, _PROTO = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_TCP, _TCP_STATE = 1, 1
_DST_NAT: Final = 1 << 5  # IPS_DST_NAT
_OPENING: Final = (1, 2, 9)
"""TCP_CONNTRACK_SYN_SENT, _SYN_RECV, _SYN_SENT2."""
_PROTOCOLS: Final[dict[int, Protocol]] = {6: "tcp", 17: "udp"}
_NUMBERS: Final = {name: number for number, name in _PROTOCOLS.items()}
_FAMILIES: Final = {4: 2, 6: 10}
_PORT: Final = struct.Struct(">H")

Side = Literal["asks", "asked", "answers"]
"""Of an entry: who sent the first packet, to whom, or who answers (another than was asked, where it
was translated)."""
_F_ADDRESS: Final = {"asks": 1, "asked": 2, "answers": 1}
_F_NUMBER: Final = 8
_F_PORT: Final = {"asks": 16, "asked": 32, "answers": 16}
"""CTA_FILTER_F_* (`net/netfilter/nf_internals.h`): source and destination of the original
direction, source of the reply direction."""

WALKS: Final = 5
"""Filtered dumps at most that are done rather than one of everything: the kernel goes through its
whole table for each, which takes it a sixth of the time that telling all takes."""


class Entry(NamedTuple):
    """One connection, or exchange of datagrams."""

    flow: Flow
    answers: Place
    translated: bool
    """Whether its destination is another than the client's."""
    opening: bool
    """TCP: not yet established."""
    delete: bytes
    """Payload of the `DELETE` request for just this one: it names its id."""


class Walk(NamedTuple):
    """What one dump is filtered by; None: by any."""

    version: Literal[4, 6]
    address: IPv4Address | None = None
    protocol: Protocol | None = None
    port: int | None = None


def walks(places: Collection[Place]) -> list[Walk]:
    """Dumps that have all entries of these places, and as little more as can be.

    UDP comes first, since nothing else moves its flows. Never filtered by an IPv6 address: the
    kernel (5.8 to 6.18 at least) then tells all entries but those with that address
    (`ctnetlink_filter_match_tuple` takes equal for unequal).
    """
    found: list[Walk] = []
    for version in (4, 6):
        some = {place for place in places if place.address.version == version}
        if not some:
            continue
        ways = (
            [_common(version, list(g)) for _, g in groupby(sorted(some, key=key), key)]
            for key in ((_by_address, _by_port) if version == 4 else (_by_port,))
        )
        best = min(ways, key=len)
        found += best if len(best) <= WALKS else [Walk(version)]
    return sorted(found, key=lambda walk: walk.protocol == "tcp")


def _by_address(place: Place) -> int:
    return int(place.address)


def _by_port(place: Place) -> tuple[str, int]:
    return place.protocol, place.port


def _common(version: Literal[4, 6], places: list[Place]) -> Walk:
    address, port, protocol = places[0]
    alone = len({place.address for place in places}) == 1
    same = len({(place.protocol, place.port) for place in places}) == 1
    return Walk(
        version,
        address if alone and isinstance(address, IPv4Address) else None,
        protocol if same else None,
        port if same else None,
    )


def dump(walk: Walk, side: Side) -> bytes:
    """Payload of a `GET` dump. A kernel without CTA_FILTER (before 5.8) tells everything."""
    head = struct.pack("=BBH", _FAMILIES[walk.version], 0, 0)
    parts, flags = b"", 0
    if walk.address is not None:
        which = 1 + (side == "asked")  # CTA_IP_V4_SRC, CTA_IP_V4_DST
        parts += attribute(_IP | NESTED, attribute(which, walk.address.packed))
        flags |= _F_ADDRESS[side]
    if walk.protocol is not None and walk.port is not None:
        port = _DESTINATION_PORT if side == "asked" else _SOURCE_PORT
        number = attribute(_NUMBER, bytes([_NUMBERS[walk.protocol]]))
        parts += attribute(_PROTO | NESTED, number + attribute(port, _PORT.pack(walk.port)))
        flags |= _F_NUMBER | _F_PORT[side]
    if not flags:
        return head
    original, reply = (flags, 0) if side != "answers" else (0, flags)
    which = _ORIGINAL if side != "answers" else _REPLY
    filters = attribute(1, struct.pack("=I", original)) + attribute(2, struct.pack("=I", reply))
    return head + attribute(which | NESTED, parts) + attribute(_FILTER | NESTED, filters)


def lookup(flow: Flow) -> bytes:
    """Payload of a `GET` request for the entry of one flow."""
    source = 1 if flow.address.version == 4 else 3
    ends = attribute(source, flow.client.packed) + attribute(source + 1, flow.address.packed)
    ports = (
        attribute(_NUMBER, bytes([_NUMBERS[flow.protocol]]))
        + attribute(_SOURCE_PORT, _PORT.pack(flow.client_port))
        + attribute(_DESTINATION_PORT, _PORT.pack(flow.port))
    )
    both = attribute(_IP | NESTED, ends) + attribute(_PROTO | NESTED, ports)
    head = struct.pack("=BBH", _FAMILIES[flow.address.version], 0, 0)
    return head + attribute(_ORIGINAL | NESTED, both)


class Sieve:
    """Says of most entries in half a microsecond that they are not about these places.

    A full dump has all connections of the host. Where the octets are not as the kernel has laid
    them out so far (`ctnetlink_fill_info`), it says nothing, and the entry is read.
    """

    def __init__(self, places: Collection[Place], side: Side, version: Literal[4, 6]) -> None:
        size = 4 if version == 4 else 16
        whole = 44 + 2 * size
        self._wanted = {place.address.packed for place in places}
        self._heads = tuple(
            (slice(at, at + 4), struct.pack("=HH", whole, kind | NESTED))
            for at, kind in ((4, _ORIGINAL), (4 + whole, _REPLY))
        )
        start = 16 + {"asks": 0, "asked": 4 + size, "answers": whole}[side]
        self._address = slice(start, start + size)

    def drops(self, payload: bytes) -> bool:
        """Whether the entry is of no interest."""
        if payload[self._address] in self._wanted:
            return False
        return all(payload[at] == head for at, head in self._heads)


def read(payload: bytes) -> Entry | None:
    """One entry of TCP or UDP; None: it is none."""
    parts = dict(attributes(payload, 4))
    original, reply = parts.get(_ORIGINAL), parts.get(_REPLY)
    if original is None or reply is None:
        return None
    there, back = _ends(original), _ends(reply)
    if there is None or back is None:
        return None
    delete = payload[:4] + attribute(_ORIGINAL | NESTED, original)
    for kind in (_ID, _ZONE):
        if kind in parts:
            delete += attribute(kind, parts[kind])
    status = int.from_bytes(parts.get(_STATUS, b"")[:4], "big")
    info = dict(attributes(dict(attributes(parts.get(_PROTOINFO, b""))).get(_TCP, b"")))
    state = info.get(_TCP_STATE, b"\0")[:1]
    return Entry(
        there,
        Place(back.client, back.client_port, back.protocol),
        bool(status & _DST_NAT),
        there.protocol == "tcp" and state != b"" and state[0] in _OPENING,
        delete,
    )


def _ends(tuple_: bytes) -> Flow | None:
    parts = dict(attributes(tuple_))
    ip, proto = dict(attributes(parts.get(_IP, b""))), dict(attributes(parts.get(_PROTO, b"")))
    protocol = _PROTOCOLS.get(int.from_bytes(proto.get(_NUMBER, b"")[:1], "big"))
    source = ip.get(1) or ip.get(3, b"")
    destination = ip.get(2) or ip.get(4, b"")
    ports = proto.get(_SOURCE_PORT, b""), proto.get(_DESTINATION_PORT, b"")
    if protocol is None or len(source) != len(destination) or len(source) not in (4, 16):
        return None
    if any(len(port) != 2 for port in ports):
        return None
    first, second = (int.from_bytes(port, "big") for port in ports)
    return Flow(ip_address(source), first, ip_address(destination), second, protocol)
