"""ARP and Neighbour Discovery as Ethernet frames, and the socket filters that select them. Pure.

RFC 826, RFC 5227 (probes); RFC 4861 sections 4.3, 4.4, 7.1, 7.2.8, RFC 4862 section 5.4.3;
`linux/filter.h` for the filters (classic BPF).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from discod.model.endpoint import Address

ARP: Final = 0x0806
IPV6: Final = 0x86DD
"""EtherTypes."""
SELECTED: Final = 500
"""Addresses at most that the kernel looks for; with more, all frames of the protocol are told."""

_ARP: Final = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET, _ETHERNET_END = struct.Struct(">6s6sH"), 14
_IPV6: Final = struct.Struct(">IHBB16s16s")
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT, _ICMPV6, _HOPS = 135, 136, 58, 255
_SOLICITED: Final = 0x40000000
"""Not Override: that is for those who have the address (RFC 4861, 7.2.8)."""
_SOURCE_LINK, _TARGET_LINK = 1, 2
_ALL: Final = 0xFFFFFFFF
_LOAD_WORD, _LOAD_OCTET, _EQUAL, _RETURN = 0x20, 0x30, 0x15, 0x06


class Heard(NamedTuple):
    """What one frame says."""

    claims: tuple[Address, ...] = ()
    """Who sends it has these, or is about to take them (a probe)."""
    wants: Address | None = None
    """Whose link-layer address it asks for."""
    asker: Address = IPv4Address(0)
    mac: bytes = b""
    """The asker's."""


NOTHING: Final = Heard()


def heard(frame: bytes) -> Heard:
    """Read one frame; `NOTHING` where it is of another kind, or not as it has to be."""
    if len(frame) < _ETHERNET_END:
        return NOTHING
    source, kind = frame[6:12], int.from_bytes(frame[12:14], "big")
    if kind == ARP:
        return _heard_arp(frame)
    if kind == IPV6:
        return _heard_ndp(frame, source)
    return NOTHING


def _heard_arp(frame: bytes) -> Heard:
    if len(frame) < _ETHERNET_END + _ARP.size:
        return NOTHING
    hardware, protocol, size, length, does, mac, sender, _, target = _ARP.unpack_from(
        frame, _ETHERNET_END
    )
    if (hardware, protocol, size, length) != (1, 0x0800, 6, 4) or does not in (_REQUEST, _REPLY):
        return NOTHING
    asker, wanted = IPv4Address(sender), IPv4Address(target)
    if does == _REPLY or asker == wanted:
        return Heard((asker,))
    if not int(asker):
        return Heard((wanted,))
    if not _station(mac):
        return NOTHING
    return Heard((asker,), wanted, asker, mac)


def _heard_ndp(frame: bytes, link: bytes) -> Heard:
    if len(frame) < _ETHERNET_END + _IPV6.size + 24:
        return NOTHING
    _, length, follows, hops, source, destination = _IPV6.unpack_from(frame, _ETHERNET_END)
    start = _ETHERNET_END + _IPV6.size
    body = frame[start : start + length]
    if follows != _ICMPV6 or hops != _HOPS or len(body) != length or length < 24:
        return NOTHING
    kind, code = body[0], body[1]
    if kind not in (_SOLICITATION, _ADVERTISEMENT) or code:
        return NOTHING
    if checksum(source, destination, body):
        return NOTHING
    asker, target = IPv6Address(source), IPv6Address(body[8:24])
    links = _options(body[24:])
    if links is None or target.is_multicast or asker.is_multicast:
        return NOTHING
    if kind == _ADVERTISEMENT:
        return Heard((target,))
    if not int(asker):
        return Heard((target,))
    mac = links.get(_SOURCE_LINK, link)
    if not _station(mac):
        return NOTHING
    return Heard((asker,), target, asker, mac)


def _options(data: bytes) -> dict[int, bytes] | None:
    """Link-layer addresses by type; None: malformed."""
    found: dict[int, bytes] = {}
    while data:
        size = 8 * data[1] if len(data) > 1 else 0
        if not size or size > len(data):
            return None
        if size == 8:
            found[data[0]] = data[2:8]
        data = data[size:]
    return found


def _station(mac: bytes) -> bool:
    """Whether an answer can be sent there: one station, not a group."""
    return len(mac) == 6 and any(mac) and not mac[0] & 1


def answer(question: Heard, mac: bytes) -> bytes:
    """The frame that says: what is wanted is at `mac`.

    Raises:
        ValueError: the frame that was heard asks for nothing.
    """
    match question.wants:
        case IPv4Address() as wanted:
            reply = _ARP.pack(
                1, 0x0800, 6, 4, _REPLY, mac, wanted.packed, question.mac, question.asker.packed
            )
            return _ETHERNET.pack(question.mac, mac, ARP) + reply
        case IPv6Address() as wanted:
            source, destination = wanted.packed, question.asker.packed
            body = struct.pack(
                ">BBHI16sBB6s", _ADVERTISEMENT, 0, 0, _SOLICITED, source, _TARGET_LINK, 1, mac
            )
            body = body[:2] + checksum(source, destination, body).to_bytes(2, "big") + body[4:]
            head = _IPV6.pack(6 << 28, len(body), _ICMPV6, _HOPS, source, destination)
            return _ETHERNET.pack(question.mac, mac, IPV6) + head + body
    raise ValueError("a frame that asks for nothing has no answer")


def checksum(source: bytes, destination: bytes, body: bytes) -> int:
    """Of ICMPv6 (RFC 4443, 2.3): what belongs into `body`; 0 when it is in there already."""
    whole = source + destination + struct.pack(">II", len(body), _ICMPV6) + body
    whole += b"\0" * (len(whole) & 1)
    total: int = sum(struct.unpack(f">{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def socket_filter(kind: int, addresses: Collection[Address]) -> bytes:
    """`struct sock_filter` for each step: only frames that ask for, or come from, one of these.

    Of IPv6 addresses it compares the last 32 bits. A frame too short for it is dropped.
    """
    steps = list(_arp_steps(addresses) if kind == ARP else _ndp_steps(addresses))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


Step = tuple[int, int, int, int]


def _arp_steps(addresses: Collection[Address]) -> Iterator[Step]:
    for at in (38, 28):  # target, sender
        yield from _one_of(at, addresses)
    yield _RETURN, 0, 0, 0


def _ndp_steps(addresses: Collection[Address]) -> Iterator[Step]:
    for at, value in ((20, _ICMPV6), (21, _HOPS)):
        yield _LOAD_OCTET, 0, 0, at
        yield _EQUAL, 1, 0, value
        yield _RETURN, 0, 0, 0
    yield _LOAD_OCTET, 0, 0, 54
    yield _EQUAL, 2, 0, _SOLICITATION
    yield _EQUAL, 1, 0, _ADVERTISEMENT
    yield _RETURN, 0, 0, 0
    for at in (74, 34):  # the end of the target, and of the source
        yield from _one_of(at, addresses)
    yield _RETURN, 0, 0, 0


def _one_of(at: int, addresses: Collection[Address]) -> Iterator[Step]:
    if len(addresses) > SELECTED:
        yield _RETURN, 0, 0, _ALL
        return
    yield _LOAD_WORD, 0, 0, at
    for word in sorted({int(address) & _ALL for address in addresses}):
        yield _EQUAL, 0, 1, word
        yield _RETURN, 0, 0, _ALL


def on_bridge(address: Address, networks: Collection[tuple[Address, int]]) -> bool:
    """Whether it is in one of the networks (address and prefix length)."""
    return any(
        network.version == address.version
        and int(address) >> (address.max_prefixlen - bits)
        == int(network) >> (address.max_prefixlen - bits)
        for network, bits in networks
    )
