"""What a session wants done, and what it has to tell.

Rule: the caller does them in their order, all of them, before it hands in the next input. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from calico_bgp.attribute_fault import Fault
from calico_bgp.notification import Notification
from calico_bgp.opening import Open
from calico_bgp.prefix import Family
from calico_bgp.rib import Change


class Connect(NamedTuple):
    """Begin a TCP connection to the peer; its end is `connected` or `connect_failed`."""


class Cancel(NamedTuple):
    """Give up the attempt; nothing is reported of it any more."""


class Send(NamedTuple):
    """Write these octets, behind all that were to be written before."""

    connection: int
    octets: bytes


class Close(NamedTuple):
    """Close a connection once what was to be sent is written; nothing is reported of it any more.

    The caller bounds that wait: the peer may not be reading.
    """

    connection: int


class Arm(NamedTuple):
    """Call `tick` at this time and at no other; None: at none."""

    at: float | None


class Up(NamedTuple):
    """The session is established."""

    theirs: Open
    families: tuple[Family, ...]
    hold_time: int
    """Seconds, as agreed; 0: a dead peer is not noticed."""


class Down(NamedTuple):
    """The session, or an attempt at one, has ended."""

    why: str
    notification: Notification | None = None
    sent: bool = False
    """By us; else the peer sent it."""
    was_up: bool = False
    retained: bool = False
    """Its routes are kept for a time (RFC 4724)."""


class Routes(NamedTuple):
    """What is to be used of the peer's routes has changed."""

    change: Change


class EndOfRib(NamedTuple):
    """The peer has told all it has of a family (RFC 4724, section 2)."""

    family: Family


class Faulty(NamedTuple):
    """An UPDATE had faults that did not end the session (RFC 7606); for the log."""

    faults: tuple[Fault, ...]


Action = Connect | Cancel | Send | Close | Arm | Up | Down | Routes | EndOfRib | Faulty
