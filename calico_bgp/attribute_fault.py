"""What is wrong with an UPDATE, and what is done about it (RFC 7606, section 2).

Rule: a fault is a value; of several the strongest action counts (section 3 h). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from calico_bgp.attributes import NAMES
from calico_bgp.notification import UPDATE_MESSAGE_ERROR, Notification

DATA_MAX: Final = 4000
"""Octets of an attribute that fit a NOTIFICATION."""


class Action(IntEnum):
    """From the weakest to the strongest."""

    ATTRIBUTE_DISCARD = 1
    """The attribute is as if it were not there."""
    TREAT_AS_WITHDRAW = 2
    """All that the UPDATE announces is withdrawn."""
    SESSION_RESET = 3
    """What it announces cannot be told: NOTIFICATION, and the session ends."""

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


class Fault(NamedTuple):
    """One thing that is wrong."""

    type: int
    """Of the attribute; 0: the UPDATE itself."""
    action: Action
    subcode: int
    """Of UPDATE Message Error: what RFC 4271, section 6.3, calls it."""
    why: str
    data: bytes = b""
    """The attribute, where the NOTIFICATION has to have it."""

    @property
    def notification(self) -> Notification:
        """What is sent for a reset, and what people see in any case."""
        return Notification(UPDATE_MESSAGE_ERROR, self.subcode, self.data[:DATA_MAX])

    def __str__(self) -> str:
        name = NAMES.get(self.type, f"attribute {self.type}") if self.type else "UPDATE"
        return f"{name}: {self.why} ({self.action}; {self.notification.name})"


def strongest(faults: Iterable[Fault]) -> Fault | None:
    """The first of those with the strongest action."""
    return max(faults, key=lambda fault: fault.action, default=None)
