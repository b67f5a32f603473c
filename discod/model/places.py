"""Who holds the places at a table that has only so many: connections of DNS and of HTTP.

Rule: while there is room, everybody gets it; when there is none, the client that holds most gives
one up, and of its places the one idle for longest. So one client cannot keep others out, and a
share of the table is fair without being reserved (RFC 7766, section 6.2.2). Who is at work is
spared, but not at the cost of a client that holds less: work that never ends keeps nobody out
either. Every step costs the same, however many places there are. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ipaddress import IPv6Address
from itertools import islice
from typing import Final, Generic, TypeVar

P = TypeVar("P", bound=Hashable)

LOOK: Final = 8
"""Clients, and places of each, that are looked at for one that is idle."""
PREFIX_V6: Final = 64
"""Bits by which clients with IPv6 are told apart: one machine has all addresses of its link."""


class Places(Generic[P]):
    """Places, each held by a client."""

    def __init__(self) -> None:
        self._of: dict[str, dict[P, None]] = {}  # by client, the one idle for longest first
        self._holding: dict[int, dict[str, None]] = {}  # clients by number of places, as above
        self._size = 0
        self._most = 0

    def __len__(self) -> int:
        """Places taken."""
        return self._size

    def take(self, place: P, client: str) -> None:
        """A place is taken, or was just in use again."""
        held = self._of.setdefault(client, {})
        if place in held:
            del held[place]
            held[place] = None
            peers = self._holding[len(held)]
            del peers[client]
            peers[client] = None
            return
        held[place] = None
        self._size += 1
        self._move(client, len(held) - 1, len(held))

    def give_up(self, place: P, client: str) -> bool:
        """A place is free again; whether it had been taken."""
        held = self._of.get(client)
        if held is None or place not in held:
            return False
        del held[place]
        self._size -= 1
        self._move(client, len(held) + 1, len(held))
        if not held:
            del self._of[client]
        return True

    def victim(self, client: str, idle: Callable[[P], bool]) -> tuple[P, str] | None:
        """The place to be given up so that `client` can have one, and who holds it.

        None: `client` is to go without, as all are at work and nobody would still hold as much as
        it then would.
        """
        own = len(self._of.get(client, ()))
        holders = {client: None} if own >= self._most else self._holding[self._most]
        for holder in islice(holders, LOOK):
            for place in islice(self._of.get(holder, ()), LOOK):
                if idle(place):
                    return place, holder
        if own + 1 < self._most:
            holder = next(iter(self._holding[self._most]))
            return next(iter(self._of[holder])), holder
        return None

    def _move(self, client: str, before: int, after: int) -> None:
        if before:
            del self._holding[before][client]
        if after:
            self._holding.setdefault(after, {})[client] = None
        if after > self._most or (before == self._most and not self._holding[before]):
            self._most = after
        if before and not self._holding[before]:
            del self._holding[before]


def holder_of(address: str) -> str:
    """Whom a connection from `address` counts for: the address, or its /64 where it is IPv6."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[: PREFIX_V6 // 8].hex(":", 2)
