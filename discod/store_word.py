"""The store's word on its way to those who live by it: announcing, and the Catalog.

Rule: an order, and nothing else. What this host still offers is put back in before the Catalog sees
a change (`Shield`), by what the ledger knew until then; only then is the ledger told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from discod.keeper import Keeper
from discod.store.base import Delta, Snapshot, StoreError


class Shield(Protocol):
    """See `announcer.shield.Shield`."""

    def snapshot(self, snapshot: Snapshot, /) -> Snapshot:
        """A whole state of the store, as the Catalog shall see it."""
        ...

    def delta(self, delta: Delta, /) -> Delta:
        """Changes, as the Catalog shall see them."""
        ...


class Announcing(Protocol):
    """Who writes this host's records (`announcer.publish.Publisher`)."""

    @property
    def shield(self) -> Shield:
        """What it keeps in this host's own answers."""
        ...

    def snapshot(self, snapshot: Snapshot, /) -> None:
        """Take a whole state of the store."""
        ...

    def delta(self, delta: Delta, /) -> None:
        """Take changes."""
        ...


class StoreWord:
    """An observer of the store (`discod.store.follow.Observer`).

    Args:
        keeper: Holds the Catalog.
        announcing: Writes this host's records.
        standing: Told when how the Catalog stands with the store may be different.
    """

    def __init__(
        self, keeper: Keeper, announcing: Announcing, standing: Callable[[], None]
    ) -> None:
        self._keeper = keeper
        self._announcing = announcing
        self._standing = standing

    def snapshot(self, snapshot: Snapshot) -> None:
        """Pass a snapshot on."""
        self._keeper.snapshot(self._announcing.shield.snapshot(snapshot))
        self._announcing.snapshot(snapshot)
        self._standing()

    def delta(self, delta: Delta) -> None:
        """Pass changes on."""
        self._keeper.delta(self._announcing.shield.delta(delta))
        self._announcing.delta(delta)

    def contact(self, revision: int) -> None:
        """Pass a sign of life on, and what is no longer shielded meanwhile."""
        released = self._announcing.shield.delta(Delta(self._keeper.catalog.revision))
        if released.events:
            self._keeper.delta(released)
        self._keeper.contact(revision)

    def disconnected(self, error: StoreError) -> None:
        """Pass on that the watch is broken."""
        self._keeper.disconnected(error)
        self._standing()
