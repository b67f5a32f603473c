"""Observers of a store, for tests."""

from __future__ import annotations

from announcer.publish import Publisher


class Into:
    """An observer that hands everything to one publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self.snapshot = publisher.snapshot
        self.delta = publisher.delta

    def contact(self, revision: int) -> None:
        """Nothing to do."""

    def disconnected(self, error: Exception) -> None:
        """It must not come to that."""
        raise AssertionError(error)
