"""OPEN messages (RFC 4271, section 4.2), and what makes one unacceptable (section 6.2).

Rule: `read_open` judges what anybody can judge, `check_open` what only this peer's configuration
can; either raises with the NOTIFICATION that the RFC wants. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from calico_bgp.capability import (
    Capabilities,
    family_capability,
    read_capabilities,
    understand,
    write_capabilities,
)
from calico_bgp.notification import (
    BAD_IDENTIFIER,
    BAD_PEER_AS,
    OPEN_MESSAGE_ERROR,
    UNACCEPTABLE_HOLD_TIME,
    UNSPECIFIC,
    UNSUPPORTED_CAPABILITY,
    UNSUPPORTED_PARAMETER,
    UNSUPPORTED_VERSION,
    BgpError,
    Notification,
)
from calico_bgp.prefix import Family

VERSION: Final = 4
AS_TRANS: Final = 23456
"""Stands for a number that does not fit 2 octets (RFC 6793, section 9)."""
HOLD_TIME_MIN: Final = 3
"""Seconds, unless it is 0 (RFC 4271, section 4.2)."""

_CAPABILITIES: Final = 2
_EXTENDED: Final = 255
_HEAD: Final = struct.Struct(">BHH4sB")


class Open(NamedTuple):
    """What a speaker says of itself."""

    asn: int
    """Its AS number, of 4 octets where it has the capability."""
    hold_time: int
    """Seconds; 0: it wants no KEEPALIVEs."""
    router_id: IPv4Address
    capabilities: Capabilities | None = Capabilities()
    """None: it has no Capabilities parameter at all, as before RFC 5492."""

    @property
    def can(self) -> Capabilities:
        """Its capabilities, none where it does not speak of any."""
        return self.capabilities or Capabilities()


def write_open(message: Open) -> bytes:
    """The body of the message.

    Optional parameters that take more than 255 octets are sent in the extended form (RFC 9072,
    section 2).
    """
    parameters = b""
    if message.capabilities is not None:
        value = write_capabilities(message.capabilities)
        if len(value) <= 253:
            parameters = bytes((_CAPABILITIES, len(value))) + value
        else:
            parameters = struct.pack(">BH", _CAPABILITIES, len(value)) + value
    asn = message.asn if message.asn < 0x10000 else AS_TRANS
    packed = message.router_id.packed
    if len(parameters) <= 255:
        head = _HEAD.pack(VERSION, asn, message.hold_time, packed, len(parameters))
        return head + parameters
    head = _HEAD.pack(VERSION, asn, message.hold_time, packed, _EXTENDED)
    return head + struct.pack(">BH", _EXTENDED, len(parameters)) + parameters


def read_open(body: bytes) -> Open:
    """The OPEN of a message body of at least 10 octets (`message` sees to that).

    Raises:
        BgpError: see the table of RFC 4271, section 6.2.
    """
    version, asn, hold_time, packed, size = _HEAD.unpack_from(body)
    if version != VERSION:
        raise _error(UNSUPPORTED_VERSION, f"version {version}", VERSION.to_bytes(2, "big"))
    capabilities: Capabilities | None = None
    if found := _parameters(body[_HEAD.size :], size):
        capabilities = understand(
            [one for value in found for one in read_capabilities(value)],
        )
        if capabilities.four_octet_as is not None:
            asn = capabilities.four_octet_as
    if asn == 0:
        raise _error(BAD_PEER_AS, "AS 0")  # RFC 7607, section 2
    if 0 < hold_time < HOLD_TIME_MIN:
        raise _error(UNACCEPTABLE_HOLD_TIME, f"hold time {hold_time}")
    router_id = IPv4Address(packed)
    if int(router_id) == 0:
        raise _error(BAD_IDENTIFIER, "identifier 0")  # RFC 6286, section 2.1
    return Open(asn, hold_time, router_id, capabilities)


def _parameters(rest: bytes, size: int) -> list[bytes]:
    """The values of all Capabilities parameters."""
    extended = size != 0 and rest[:1] == bytes((_EXTENDED,))
    if extended:  # RFC 9072, section 2; the length before it does not count
        if len(rest) < 3:
            raise _error(UNSPECIFIC, "extended length does not end")
        size, rest = int.from_bytes(rest[1:3], "big"), rest[3:]
    if size != len(rest):
        raise _error(UNSPECIFIC, f"{len(rest)} octets of optional parameters, not {size}")
    width = 3 if extended else 2
    found = []
    at = 0
    while at < size:
        if at + width > size:
            raise _error(UNSPECIFIC, "optional parameter does not end")
        kind, end = rest[at], at + width + int.from_bytes(rest[at + 1 : at + width], "big")
        if end > size:
            raise _error(UNSPECIFIC, "optional parameter does not end")
        if kind != _CAPABILITIES:
            raise _error(UNSUPPORTED_PARAMETER, f"optional parameter {kind}")
        found.append(rest[at + width : end])
        at = end
    return found


def check_open(
    theirs: Open, ours: Open, peer_asn: int, required: Sequence[Family] = ()
) -> tuple[Family, ...]:
    """The families that both carry, in our order.

    `required` are those without which there is to be no session; none: any common one will do.

    Raises:
        BgpError: it is not the peer that is configured, or it lacks what is required.
    """
    if theirs.asn != peer_asn:
        raise _error(BAD_PEER_AS, f"AS {theirs.asn}, expected {peer_asn}")
    if theirs.router_id == ours.router_id and theirs.asn == ours.asn:
        raise _error(BAD_IDENTIFIER, "it has our identifier")  # RFC 6286, section 2.2
    shared = tuple(one for one in ours.can.carried if one in theirs.can.carried)
    missing = [one for one in required if one not in shared]
    if not shared:
        missing = missing or list(ours.can.carried)
    if missing:
        # RFC 5492, section 5: the data are the capabilities that cause it.
        data = b"".join(map(family_capability, missing))
        why = f"no common family but wanted: {', '.join(map(str, missing))}"
        raise _error(UNSUPPORTED_CAPABILITY, why, data)
    return shared


def _error(subcode: int, why: str, data: bytes = b"") -> BgpError:
    return BgpError(Notification(OPEN_MESSAGE_ERROR, subcode, data), why)
