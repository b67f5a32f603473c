"""What a memory keeps: entries by their key, by what they depend on, and by age.

Rule: an entry is in all of these or in none. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from resolver.hot.entry import Entry

T = TypeVar("T")


class Shelf(Generic[T]):
    """Entries, as many as fit.

    Args:
        octets_max: Of memory; beyond it the oldest go.
        gone: Told of each entry that goes by itself or because of a change.
    """

    def __init__(self, octets_max: int, gone: Callable[[Entry[T]], None]) -> None:
        self.octets_max = octets_max
        self.octets = 0
        """Of all entries, with what they take beside."""
        self.entries: OrderedDict[bytes, Entry[T]] = OrderedDict()
        """By key, the oldest first."""
        self.by_label: dict[bytes, set[bytes]] = {}
        """The keys that depend on a label."""
        self._gone = gone

    def clear(self) -> None:
        """Let all go, without a word."""
        for entry in self.entries.values():
            entry.alive = False
        self.entries.clear()
        self.by_label.clear()
        self.octets = 0

    def add(self, entry: Entry[T], octets: int) -> None:
        """Keep an entry that is not there yet."""
        norm = entry.norm
        self.entries[norm] = entry
        for label in entry.labels:
            keys = self.by_label.get(label)
            if keys is None:
                self.by_label[label] = {norm}
            else:
                keys.add(norm)
        self.charge(entry, octets)
        while self.octets > self.octets_max:
            self.drop(next(iter(self.entries.values())))

    def charge(self, entry: Entry[T], octets: int) -> None:
        """Count memory that an entry takes."""
        entry.octets += octets
        self.octets += octets

    def forget(self, label: bytes) -> list[Entry[T]]:
        """Let go what depends on a label: these."""
        found = [self.entries[norm] for norm in self.by_label.get(label, ())]
        for entry in found:
            self.drop(entry)
        return found

    def drop(self, entry: Entry[T]) -> None:
        """Let one go."""
        entry.alive = False
        norm = entry.norm
        del self.entries[norm]
        self.octets -= entry.octets
        for label in entry.labels:
            keys = self.by_label.get(label)
            if keys is not None:
                keys.discard(norm)
                if not keys:
                    del self.by_label[label]
        self._gone(entry)
