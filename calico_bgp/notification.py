"""NOTIFICATION messages, with the names that the RFCs give to what is wrong.

Rule: every end of a session has a `Notification`, sent or received, and its `str()` is what people
see. What a peer wrote into one is shown, never trusted. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MESSAGE_HEADER_ERROR: Final = 1
OPEN_MESSAGE_ERROR: Final = 2
UPDATE_MESSAGE_ERROR: Final = 3
HOLD_TIMER_EXPIRED: Final = 4
FSM_ERROR: Final = 5
CEASE: Final = 6
ROUTE_REFRESH_ERROR: Final = 7

UNSPECIFIC: Final = 0
CONNECTION_NOT_SYNCHRONIZED, BAD_MESSAGE_LENGTH, BAD_MESSAGE_TYPE = 1, 2, 3
UNSUPPORTED_VERSION, BAD_PEER_AS, BAD_IDENTIFIER = 1, 2, 3
UNSUPPORTED_PARAMETER, UNACCEPTABLE_HOLD_TIME, UNSUPPORTED_CAPABILITY = 4, 6, 7
MALFORMED_ATTRIBUTE_LIST, UNRECOGNIZED_WELL_KNOWN, MISSING_WELL_KNOWN = 1, 2, 3
ATTRIBUTE_FLAGS, ATTRIBUTE_LENGTH, INVALID_ORIGIN, INVALID_NEXT_HOP = 4, 5, 6, 8
OPTIONAL_ATTRIBUTE, INVALID_NETWORK, MALFORMED_AS_PATH = 9, 10, 11
MAX_PREFIXES, SHUTDOWN, DECONFIGURED, RESET, REJECTED, OTHER_CHANGE = 1, 2, 3, 4, 5, 6
COLLISION, OUT_OF_RESOURCES, HARD_RESET = 7, 8, 9

CODES: Final = {
    MESSAGE_HEADER_ERROR: "Message Header Error",
    OPEN_MESSAGE_ERROR: "OPEN Message Error",
    UPDATE_MESSAGE_ERROR: "UPDATE Message Error",
    HOLD_TIMER_EXPIRED: "Hold Timer Expired",
    FSM_ERROR: "Finite State Machine Error",
    CEASE: "Cease",
    ROUTE_REFRESH_ERROR: "ROUTE-REFRESH Message Error",
    8: "Send Hold Timer Expired",
}
"""RFC 4271, section 4.5; RFC 7313, section 5; RFC 9687, section 3."""

SUBCODES: Final = {
    (1, 1): "Connection Not Synchronized",
    (1, 2): "Bad Message Length",
    (1, 3): "Bad Message Type",
    (2, 1): "Unsupported Version Number",
    (2, 2): "Bad Peer AS",
    (2, 3): "Bad BGP Identifier",
    (2, 4): "Unsupported Optional Parameter",
    (2, 5): "Authentication Failure",
    (2, 6): "Unacceptable Hold Time",
    (2, 7): "Unsupported Capability",
    (2, 11): "Role Mismatch",
    (3, 1): "Malformed Attribute List",
    (3, 2): "Unrecognized Well-known Attribute",
    (3, 3): "Missing Well-known Attribute",
    (3, 4): "Attribute Flags Error",
    (3, 5): "Attribute Length Error",
    (3, 6): "Invalid ORIGIN Attribute",
    (3, 7): "AS Routing Loop",
    (3, 8): "Invalid NEXT_HOP Attribute",
    (3, 9): "Optional Attribute Error",
    (3, 10): "Invalid Network Field",
    (3, 11): "Malformed AS_PATH",
    (5, 1): "Receive Unexpected Message in OpenSent State",
    (5, 2): "Receive Unexpected Message in OpenConfirm State",
    (5, 3): "Receive Unexpected Message in Established State",
    (6, 1): "Maximum Number of Prefixes Reached",
    (6, 2): "Administrative Shutdown",
    (6, 3): "Peer De-configured",
    (6, 4): "Administrative Reset",
    (6, 5): "Connection Rejected",
    (6, 6): "Other Configuration Change",
    (6, 7): "Connection Collision Resolution",
    (6, 8): "Out of Resources",
    (6, 9): "Hard Reset",
    (6, 10): "BFD Down",
    (7, 1): "Invalid Message Length",
}
"""RFC 4271, section 4.5; RFC 4486; RFC 5492; RFC 6608; RFC 7313; RFC 8538; RFC 9234; RFC 9384."""

COMMUNICATION_MAX: Final = 255
"""Octets of a shutdown communication (RFC 9003, section 2)."""
SHOWN_MAX: Final = 32
"""Octets of foreign data that `str()` shows: enough for any that the RFCs define."""


class Notification(NamedTuple):
    """Why a session ends (RFC 4271, section 4.5)."""

    code: int
    subcode: int = UNSPECIFIC
    data: bytes = b""

    @property
    def name(self) -> str:
        """As the RFCs call it, ``Cease/Administrative Shutdown``."""
        code = CODES.get(self.code, f"code {self.code}")
        if not self.subcode:
            return code
        return f"{code}/{SUBCODES.get((self.code, self.subcode), f'subcode {self.subcode}')}"

    @property
    def inner(self) -> Notification | None:
        """What a Hard Reset carries (RFC 8538, section 3); None: it is none, or an empty one."""
        if (self.code, self.subcode) != (CEASE, HARD_RESET) or len(self.data) < 2:
            return None
        return Notification(self.data[0], self.data[1], self.data[2:])

    @property
    def communication(self) -> str:
        """What the peer's operator has to say (RFC 9003); empty where there is nothing sound."""
        if self.code != CEASE or self.subcode not in (SHUTDOWN, RESET) or not self.data:
            return ""
        size = self.data[0]
        if size > len(self.data) - 1:
            return ""
        text = self.data[1 : 1 + size].decode("utf-8", "backslashreplace")
        # For people's eyes and for logs: no control characters (RFC 9003, section 5).
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)

    def __str__(self) -> str:
        if (inner := self.inner) is not None and inner.inner is None:
            return f"{self.name} ({inner})"
        if text := self.communication:
            return f'{self.name}: "{text}"'
        if self.data:
            more = "..." if len(self.data) > SHOWN_MAX else ""
            return f"{self.name} ({self.data[:SHOWN_MAX].hex()}{more})"
        return self.name


class BgpError(ValueError):
    """What the peer sent ends the session; the only exception of the decoders."""

    def __init__(self, notification: Notification, why: str = "") -> None:
        super().__init__(f"{notification}: {why}" if why else str(notification))
        self.notification = notification
        """To be sent before the connection is closed."""
        self.why = why


def shutdown(text: str = "", subcode: int = SHUTDOWN) -> Notification:
    """Cease for an operator, with what he has to say (RFC 9003, section 2).

    A text that is too long is cut behind a character.
    """
    if not text:
        return Notification(CEASE, subcode)
    octets = text.encode("utf-8", "replace")[:COMMUNICATION_MAX]
    octets = octets.decode("utf-8", "ignore").encode()
    return Notification(CEASE, subcode, bytes((len(octets),)) + octets)


def hard_reset(notification: Notification) -> Notification:
    """The same, for a peer that would keep routes over a plain one (RFC 8538, section 3)."""
    data = bytes((notification.code, notification.subcode)) + notification.data
    return Notification(CEASE, HARD_RESET, data)


def read_notification(body: bytes) -> Notification:
    """The NOTIFICATION of a message body of at least 2 octets (`message` sees to that)."""
    return Notification(body[0], body[1], body[2:])


def write_notification(notification: Notification) -> bytes:
    """The body of the message."""
    return bytes((notification.code, notification.subcode)) + notification.data
