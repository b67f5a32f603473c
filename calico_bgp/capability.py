"""What a speaker says that it can do (RFC 5492).

Rule: what is not known is kept, and asks nothing of anybody; what is known and malformed makes the
OPEN malformed (RFC 4271, section 6.2: subcode 0). Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from calico_bgp.notification import OPEN_MESSAGE_ERROR, UNSPECIFIC, BgpError, Notification
from calico_bgp.prefix import IPV4, Family

MULTIPROTOCOL: Final = 1
ROUTE_REFRESH: Final = 2
GRACEFUL_RESTART: Final = 64
FOUR_OCTET_AS: Final = 65

RESTART_TIME_MAX: Final = 4095
"""Seconds: it has 12 bits (RFC 4724, section 3)."""

_RESTARTING, _NOTIFICATION = 0x8000, 0x4000
_FORWARDING = 0x80
_FAMILY: Final = struct.Struct(">HBB")


class GracefulRestart(NamedTuple):
    """What a speaker promises of its restarts (RFC 4724, section 3; RFC 8538, section 2)."""

    time: int
    """Seconds that it takes at most to come back."""
    families: tuple[tuple[Family, bool], ...] = ()
    """Each with whether its forwarding went on over the restart."""
    restarting: bool = False
    """It comes from a restart just now."""
    notification: bool = False
    """A NOTIFICATION but a Hard Reset keeps routes too."""


class Capabilities(NamedTuple):
    """All that one OPEN has."""

    families: tuple[Family, ...] = ()
    """By Multiprotocol Extensions (RFC 4760, section 8), in the order of the OPEN."""
    route_refresh: bool = False
    four_octet_as: int | None = None
    """The speaker's AS number where it has the capability (RFC 6793, section 3)."""
    graceful_restart: GracefulRestart | None = None
    unknown: tuple[tuple[int, bytes], ...] = ()
    """(code, value) of all others."""

    @property
    def carried(self) -> tuple[Family, ...]:
        """Without Multiprotocol Extensions it is IPv4 unicast (RFC 4760, section 8)."""
        return self.families or (IPV4,)


def write_capabilities(capabilities: Capabilities) -> bytes:
    """The value of one Capabilities optional parameter (RFC 5492, section 4)."""
    return b"".join(
        bytes((code, len(value))) + value for code, value in _capabilities(capabilities)
    )


def family_capability(family: Family) -> bytes:
    """The one for a family: what Unsupported Capability names (RFC 5492, section 3)."""
    return bytes((MULTIPROTOCOL, 4)) + _family(family)


def _capabilities(capabilities: Capabilities) -> Iterator[tuple[int, bytes]]:
    for family in capabilities.families:
        yield MULTIPROTOCOL, _family(family)
    if capabilities.route_refresh:
        yield ROUTE_REFRESH, b""
    if capabilities.graceful_restart is not None:
        yield GRACEFUL_RESTART, _write_restart(capabilities.graceful_restart)
    if capabilities.four_octet_as is not None:
        yield FOUR_OCTET_AS, capabilities.four_octet_as.to_bytes(4, "big")
    yield from capabilities.unknown


def _family(family: Family) -> bytes:
    return _FAMILY.pack(family.afi, 0, family.safi)


def _write_restart(restart: GracefulRestart) -> bytes:
    head = min(restart.time, RESTART_TIME_MAX)
    head |= _RESTARTING * restart.restarting | _NOTIFICATION * restart.notification
    families = (
        struct.pack(">HBB", family.afi, family.safi, _FORWARDING * forwarding)
        for family, forwarding in restart.families
    )
    return head.to_bytes(2, "big") + b"".join(families)


def read_capabilities(value: bytes) -> list[tuple[int, bytes]]:
    """(code, value) of each capability in one optional parameter.

    Raises:
        BgpError: one does not end.
    """
    found = []
    at = 0
    while at < len(value):
        if at + 2 > len(value) or at + 2 + value[at + 1] > len(value):
            raise _malformed("capability does not end")
        end = at + 2 + value[at + 1]
        found.append((value[at], value[at + 2 : end]))
        at = end
    return found


def understand(found: list[tuple[int, bytes]]) -> Capabilities:
    """What the capabilities of an OPEN, of all its parameters, say.

    One that is there twice counts once; of two that differ, the last (RFC 4724, section 3, says so
    of graceful restart, RFC 5492, section 4, of none).

    Raises:
        BgpError: a known one has a length that it cannot have.
    """
    families: dict[Family, None] = {}
    refresh, asn = False, None
    restart: GracefulRestart | None = None
    unknown = []
    for code, value in found:
        if code == MULTIPROTOCOL:
            if len(value) != 4:
                raise _malformed("length of Multiprotocol Extensions")
            afi, _, safi = _FAMILY.unpack(value)
            families[Family(afi, safi)] = None
        elif code == ROUTE_REFRESH:
            if value:
                raise _malformed("length of Route Refresh")
            refresh = True
        elif code == GRACEFUL_RESTART:
            restart = _read_restart(value)
        elif code == FOUR_OCTET_AS:
            if len(value) != 4:
                raise _malformed("length of 4-octet AS number")
            asn = int.from_bytes(value, "big")
        else:
            unknown.append((code, value))
    return Capabilities(tuple(families), refresh, asn, restart, tuple(unknown))


def _read_restart(value: bytes) -> GracefulRestart:
    if len(value) < 2 or len(value) % 4 != 2:
        raise _malformed("length of Graceful Restart")
    head = int.from_bytes(value[:2], "big")
    families = tuple(
        (Family(afi, safi), bool(flags & _FORWARDING))
        for afi, safi, flags in struct.iter_unpack(">HBB", value[2:])
    )
    return GracefulRestart(
        head & RESTART_TIME_MAX, families, bool(head & _RESTARTING), bool(head & _NOTIFICATION)
    )


def _malformed(why: str) -> BgpError:
    return BgpError(Notification(OPEN_MESSAGE_ERROR, UNSPECIFIC), why)
