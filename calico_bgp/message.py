"""BGP messages: their header, and the stream that they come in (RFC 4271, sections 4.1 and 6.1).

Rule: `Stream` holds at most one message that is not whole; what it yields has the length that its
type can have, so the readers behind need not ask. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from calico_bgp.attribute_values import Context
from calico_bgp.notification import (
    BAD_MESSAGE_LENGTH,
    BAD_MESSAGE_TYPE,
    CONNECTION_NOT_SYNCHRONIZED,
    MESSAGE_HEADER_ERROR,
    ROUTE_REFRESH_ERROR,
    BgpError,
    Notification,
    read_notification,
    write_notification,
)
from calico_bgp.opening import Open, read_open, write_open
from calico_bgp.prefix import Family
from calico_bgp.update import Update, read_update

OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH = 1, 2, 3, 4, 5
NAMES: Final = {
    OPEN: "OPEN",
    UPDATE: "UPDATE",
    NOTIFICATION: "NOTIFICATION",
    KEEPALIVE: "KEEPALIVE",
    ROUTE_REFRESH: "ROUTE-REFRESH",
}
HEADER: Final = 19
"""Octets of the header."""
MESSAGE_MAX: Final = 4096
"""Octets of a message with its header."""

_MARKER: Final = b"\xff" * 16
_LENGTHS: Final = {
    OPEN: (29, MESSAGE_MAX),
    UPDATE: (23, MESSAGE_MAX),
    NOTIFICATION: (21, MESSAGE_MAX),
    KEEPALIVE: (19, 19),
    ROUTE_REFRESH: (HEADER, MESSAGE_MAX),  # judged by its reader (RFC 7313, section 5)
}


class Keepalive(NamedTuple):
    """Nothing but a sign of life."""


class RouteRefresh(NamedTuple):
    """All of a family is wanted again (RFC 2918)."""

    family: Family
    subtype: int = 0
    """What RFC 7313 made of the reserved octet; not 0: of no meaning to us."""


Message = Open | Update | Notification | Keepalive | RouteRefresh


def frame(kind: int, body: bytes = b"") -> bytes:
    """A whole message.

    Raises:
        ValueError: it has more than 4096 octets.
    """
    size = HEADER + len(body)
    if size > MESSAGE_MAX:
        raise ValueError(f"{NAMES[kind]} of {size} octets")
    return b"".join((_MARKER, struct.pack(">HB", size, kind), body))


KEEPALIVE_OCTETS: Final = frame(KEEPALIVE)


def write(message: Open | Notification | Keepalive | RouteRefresh) -> bytes:
    """A whole message; UPDATEs are made by `packing`."""
    match message:
        case Open():
            return frame(OPEN, write_open(message))
        case Notification():
            return frame(NOTIFICATION, write_notification(message))
        case Keepalive():
            return KEEPALIVE_OCTETS
        case RouteRefresh(family, subtype):
            return frame(ROUTE_REFRESH, struct.pack(">HBB", family.afi, subtype, family.safi))


def read(
    kind: int, body: bytes, context: Context, families: tuple[Family, ...] | None = None
) -> Message:
    """The message in what `Stream` yields.

    Raises:
        BgpError: it ends the session. Faults of an UPDATE are in the `Update`.
    """
    if kind == UPDATE:
        return (
            read_update(body, context) if families is None else read_update(body, context, families)
        )
    if kind == KEEPALIVE:
        return Keepalive()
    if kind == OPEN:
        return read_open(body)
    if kind == NOTIFICATION:
        return read_notification(body)
    if len(body) != 4:
        header = _MARKER + struct.pack(">HB", HEADER + len(body), kind)
        data = (header + body)[: MESSAGE_MAX - 21]
        raise BgpError(Notification(ROUTE_REFRESH_ERROR, 1, data), "length")
    afi, subtype, safi = struct.unpack(">HBB", body)
    return RouteRefresh(Family(afi, safi), subtype)


class Stream:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, octets: bytes) -> Iterator[tuple[int, bytes]]:
        """The type and body of each message that is whole now.

        To be read to its end or not at all: what was not taken is lost.

        Raises:
            BgpError: a header is wrong; nothing behind it can be read.
        """
        data = self._rest + octets if self._rest else octets
        at = 0
        self._rest = b""
        while len(data) - at >= HEADER:
            size, kind = _header(data, at)
            if len(data) - at < size:
                break
            yield kind, data[at + HEADER : at + size]
            at += size
        self._rest = data[at:]


def _header(data: bytes, at: int) -> tuple[int, int]:
    if data[at : at + 16] != _MARKER:
        raise _error(CONNECTION_NOT_SYNCHRONIZED, "marker")
    size, kind = struct.unpack_from(">HB", data, at + 16)
    if not HEADER <= size <= MESSAGE_MAX:
        raise _error(BAD_MESSAGE_LENGTH, f"length {size}", data[at + 16 : at + 18])
    if kind not in _LENGTHS:
        raise _error(BAD_MESSAGE_TYPE, f"type {kind}", data[at + 18 : at + 19])
    least, most = _LENGTHS[kind]
    if not least <= size <= most:
        why = f"{NAMES[kind]} of {size} octets"
        raise _error(BAD_MESSAGE_LENGTH, why, data[at + 16 : at + 18])
    return size, kind


def _error(subcode: int, why: str, data: bytes = b"") -> BgpError:
    return BgpError(Notification(MESSAGE_HEADER_ERROR, subcode, data), why)
