"""What is counted of a peer, for metrics: numbers since the start that only grow.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from calico_bgp.message import HEADER, UPDATE


@dataclass
class PeerCounts:
    """One peer; it keeps them over its sessions and over changes of its settings."""

    updates_received: int = 0
    updates_sent: int = 0
    notifications_received: int = 0
    notifications_sent: int = 0
    established: int = 0
    lost: int = 0
    """Established sessions that ended, on purpose or not."""
    failed: int = 0
    """Attempts that ended before there was a session."""
    faulty_updates: int = 0
    """With faults that did not end the session (RFC 7606)."""
    crashes: int = 0
    """Faults of this program: the peer's session was begun anew."""
    octets_received: int = 0
    octets_sent: int = 0


@dataclass
class SpeakerCounts:
    """All of the speaker."""

    strangers: int = 0
    """Connections refused, from addresses that are no peer's."""
    handover_faults: int = 0
    """Calls of `on_learned` or `on_settled` that raised."""


def updates(octets: bytes) -> int:
    """How many UPDATEs there are in whole messages."""
    at = found = 0
    while at + HEADER <= len(octets):
        found += octets[at + 18] == UPDATE
        at += int.from_bytes(octets[at + 16 : at + 18], "big")
    return found
