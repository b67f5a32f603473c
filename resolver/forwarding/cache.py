"""Answers of upstreams, kept for as long as they said.

Rule: an entry is one question and the whole reply to it; nothing is made of parts of replies, so a
lie about one name cannot spread to another (RFC 5452). The one not used for longest goes when
there are too many, or too many octets. What is past its TTL stays for `stale` seconds, for when no
upstream answers (RFC 8767). Failures are kept for a moment (RFC 9520). Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

from resolver.encode import Error
from resolver.forwarding.reply import Reply

OCTETS_EACH: Final = 1024
"""All entries together have at most so many octets for each of `size`."""
OVERHEAD: Final = 600
"""Octets of an entry besides its key and its records, measured."""
FAILURE_FIRST, FAILURE_MOST = 1.0, 5.0
"""Seconds that a failure is kept: at first, and when it repeats (RFC 9520, section 3.2)."""
FAILURE_FORGOTTEN: Final = 60.0
"""Seconds after which the next failure is a first one again."""
STALE_RECHECK: Final = 30.0
"""Seconds between two tries to refresh a stale answer (RFC 8767, section 5)."""
STALE_TTL: Final = 30
"""TTL of stale answers, seconds (RFC 8767, section 4)."""


class State(Enum):
    """How an entry stands."""

    FRESH = "hit"
    STALE = "stale"
    """Past its TTL, and a try to refresh it failed a moment ago: this is the answer for now."""
    OLD = "old"
    """Past its TTL: to be refreshed; this is the answer when that fails."""
    FAILED = "failed"
    """No answer could be had a moment ago."""


class Entry:
    """What is kept for a question."""

    __slots__ = ("era", "expires", "octets", "recheck", "repeats", "said", "stored", "turn")

    def __init__(self, said: Reply | Error, stored: float, expires: float, era: int) -> None:
        self.said = said
        """A reply; or why there is none."""
        self.stored = stored
        self.expires = expires
        self.era = era
        self.recheck = float("-inf")
        """When a stale entry is to be refreshed again."""
        self.repeats = 0
        """Failures in a row before this one."""
        self.turn = 0
        self.octets = OVERHEAD


class Cache:
    """A bounded set of entries.

    Args:
        size: Entries.
        stale: Seconds beyond its TTL that an answer is kept.
    """

    def __init__(self, size: int, stale: float) -> None:
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.era = 0
        self.octets = 0
        self.configure(size, stale)

    def __len__(self) -> int:
        return len(self._entries)

    def configure(self, size: int, stale: float) -> None:
        """Change the bounds; what no longer fits goes."""
        self._size, self._stale = size, stale
        self._evict()

    def outdate(self) -> None:
        """Take all for past its TTL: other upstreams may say other things."""
        self.era += 1

    def look(self, key: bytes, now: float) -> tuple[State, Entry] | None:
        """What there is for a question."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        failure = entry.repeats > 0
        if entry.era == self.era and now < entry.expires:
            return (State.FAILED if failure else State.FRESH), entry
        if failure or now >= entry.expires + self._stale:
            return None  # a failure is remembered, to count the next one
        return (State.STALE if now < entry.recheck else State.OLD), entry

    def keep(self, key: bytes, reply: Reply, now: float) -> None:
        """Keep a reply for its lifetime; one that has none takes away what was kept before."""
        if reply.lifetime <= 0:
            self._drop(key)
            return
        self._put(key, Entry(reply, now, now + reply.lifetime, self.era))

    def fail(self, key: bytes, said: Reply | Error, now: float) -> Entry | None:
        """Keep a failure; where there is an old answer, that instead, and it is returned."""
        found = self.look(key, now)
        if found is not None and found[0] is not State.FAILED:
            found[1].recheck = now + STALE_RECHECK
            return found[1]
        before = self._entries.get(key)
        recent = before is not None and now < before.expires + FAILURE_FORGOTTEN
        repeats = before.repeats if before is not None and recent else 0
        lasts = min(FAILURE_FIRST * 2**repeats, FAILURE_MOST)
        entry = Entry(said, now, now + lasts, self.era)
        entry.repeats = min(repeats + 1, 8)
        self._put(key, entry)
        return None

    def _put(self, key: bytes, entry: Entry) -> None:
        self._drop(key)
        if isinstance(entry.said, Reply):
            entry.octets = OVERHEAD + len(key) + len(entry.said.body)
        self._entries[key] = entry
        self.octets += entry.octets
        self._evict()

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.octets -= entry.octets

    def _evict(self) -> None:
        while len(self._entries) > self._size or self.octets > self._size * OCTETS_EACH:
            _, entry = self._entries.popitem(last=False)
            self.octets -= entry.octets
