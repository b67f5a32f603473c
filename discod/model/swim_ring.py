"""Who watches whom: every host the next few on one ring.

Rule: a pure function of the hosts' names, so all hosts that hold the same Catalog agree, and
nobody has to be told. The ring's order is that of a hash: neighbours in a rack are not neighbours
on it. Each host watches `WATCHED` others and is watched by as many, in a cluster of any size. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

WATCHED = 3
"""Hosts that each host watches: two witnesses are wanted, and one may be ill itself."""


def place(name: str) -> bytes:
    """Where a host stands on the ring."""
    return hashlib.sha256(name.encode()).digest()


def targets(me: str, hosts: Collection[str], silent: Collection[str]) -> tuple[str, ...]:
    """The hosts that `me` watches.

    A silent one watches nobody, so it takes no place away: who comes before it watches one more
    beyond it. At most `WATCHED` silent ones are watched besides, for their return.
    """
    ring = sorted({me, *hosts}, key=place)
    at = ring.index(me)
    lively: list[str] = []
    quiet: list[str] = []
    for name in ring[at + 1 :] + ring[:at]:
        if len(lively) == WATCHED:
            break
        if name not in silent:
            lively.append(name)
        elif len(quiet) < WATCHED:
            quiet.append(name)
    return (*lively, *quiet)
