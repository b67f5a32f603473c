"""From etcd's watch responses to Deltas: all events of one revision together.

Rule: pure. One etcd watch delivers each revision whole, in one response (unless asked to fragment),
but several watches deliver their parts of a revision in responses of their own, and nothing in a
response says whether another part follows. Hence two ways:

- *span*: one watch from the first prefix to the end of the last, filtered here. A response is
  delivered at once. It costs what others write between our prefixes: a parse and a comparison
  (a few microseconds) for each such event, and the bandwidth. And the user must be permitted to
  read all of the span.
- *split*: one watch a prefix, for users that may read their own prefixes only. Events wait for a
  fence: a progress request sent after them, whose answer says that the server had nothing more to
  say before it. That costs one more round trip (about 1 ms) for each change. Servers before 3.4.25
  and 3.5.8 may answer a progress request before events that are older
  (https://github.com/etcd-io/etcd/issues/15220); if a part then comes late, `Compacted` is raised,
  and a new snapshot puts everything right.

For the same reason the revision in the answer to a manual progress request is never believed: the
revision of a sign of life is that of the last event, or of etcd's own periodic notification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from discod.store.base import Compacted, Delta, Event, KeyValue, Removed

DELETE = 1
"""``mvccpb.Event.DELETE``."""


def key_text(key: bytes) -> str:
    """A key as text; what is not UTF-8 (never one of ours) is shown escaped."""
    return key.decode("utf-8", "backslashreplace")


def key_value(kv: Any) -> KeyValue:
    """From ``mvccpb.KeyValue``."""
    return KeyValue(key_text(kv.key), kv.value, kv.mod_revision, kv.lease)


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """``key`` and ``range_end`` that select all keys with this prefix (etcd API, *Key ranges*)."""
    key = prefix.encode()
    if not key:
        return b"\0", b"\0"  # every key
    return key, key[:-1] + bytes([key[-1] + 1])  # UTF-8 has no octet 255


def span(prefixes: tuple[str, ...]) -> tuple[bytes, bytes]:
    """The smallest range that covers sorted `prefixes`."""
    return prefix_range(prefixes[0])[0], prefix_range(prefixes[-1])[1]


class Assembler:
    """Turns the events of one stream into Deltas.

    Protocol of use: hand the events of each response to `take`. Call `asked` with each progress
    request that is sent, and send one when `wants_fence`; hand each answer to `answered`. `take`
    and `answered` return a Delta to deliver, or None. `revision` is what has been delivered;
    `notified` raises it.
    """

    def __init__(self, prefixes: tuple[str, ...], after: int, *, split: bool) -> None:
        self.revision = after
        self._prefixes = tuple(prefix.encode() for prefix in prefixes)
        self._split = split
        self._pending: list[Event] = []
        self._mark = 0  # the fence's: what was there up to this revision came before it; 0: none
        self._unanswered = 0
        self._until_fence = 0  # answers that are still to come, up to the fence's own

    @property
    def wants_fence(self) -> bool:
        """Whether events wait, and no fence was sent for them."""
        return bool(self._pending) and not self._mark

    @property
    def waiting(self) -> bool:
        """Whether events wait."""
        return bool(self._pending)

    def take(self, raw: Iterable[Any]) -> Delta | None:
        """Events of one response, in the store's order.

        Raises:
            Compacted: a part of a revision that was delivered already.
        """
        events: list[Event] = []
        newest = self.revision
        for event in raw:
            kv = event.kv
            newest = max(newest, kv.mod_revision)
            if kv.key.startswith(self._prefixes):
                events.append(
                    Removed(key_text(kv.key), kv.mod_revision)
                    if event.type == DELETE
                    else key_value(kv)
                )
        if self._split:
            if any(event.revision <= self.revision for event in events):
                raise Compacted(f"a part of revision {events[0].revision} came late")
            self._pending += events
            return None
        self.revision = newest
        return Delta(newest, tuple(events)) if events else None

    def notified(self, revision: int) -> None:
        """An own notification of etcd: the watch has everything up to `revision`."""
        if not self._split:
            self.revision = max(self.revision, revision)

    def asked(self, again: bool = False) -> None:
        """A progress request is sent; a fence if events wait. `again`: earlier ones were dropped.

        Answers name no request but come in order, so they are counted.
        """
        if again:
            self._unanswered = self._until_fence = 0
        self._unanswered += 1
        if self._pending and not self._until_fence:
            self._mark = self._mark or max(event.revision for event in self._pending)
            self._until_fence = self._unanswered

    def answered(self) -> Delta | None:
        """A progress request was answered."""
        self._unanswered = max(0, self._unanswered - 1)
        if not self._until_fence:
            return None
        self._until_fence -= 1
        if self._until_fence:
            return None
        mark, self._mark = self._mark, 0
        due = [event for event in self._pending if event.revision <= mark]
        self._pending = [event for event in self._pending if event.revision > mark]
        due.sort(key=lambda event: (event.revision, event.key))
        self.revision = mark
        return Delta(mark, tuple(due))
