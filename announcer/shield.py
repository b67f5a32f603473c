"""What the store has lost of this host's own endpoints, and this host still offers.

Rule: stands between the store's word and this host's Catalog. A record of ours that vanishes
although nobody here took it back (its lease was revoked or ran out, the store was emptied, a hand
deleted it) is about to be written again; until then this host, which knows the container itself,
goes on answering with it. What is held so is exactly what was in the store and is still wanted as
it was: the first word to the contrary, of the store or of the producer, ends it. Pure.
"""

from __future__ import annotations

from announcer.ledger import Ledger
from discod.model.endpoint import EndpointId
from discod.store.base import Delta, Event, KeyValue, Removed, Snapshot


class Shield:
    """Keeps this host's own endpoints in its own answers while the store lacks them.

    Every Snapshot and Delta goes through it *before* the ledger takes it, and comes out as the
    Catalog shall see it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: dict[str, bytes] = {}

    def held(self) -> dict[EndpointId, None]:
        """The endpoints that the Catalog has and the store has not."""
        ids = (self._ledger.endpoint_of(key) for key in self._held)
        return {id_: None for id_ in ids if id_ is not None}

    def snapshot(self, snapshot: Snapshot) -> Snapshot:
        """A whole state of the store, with what it lacks of ours."""
        present = {item.key for item in snapshot.items}
        had = {**self._held, **self._ledger.own_endpoints()}
        self._held = {
            key: value
            for key, value in had.items()
            if key not in present and self._ledger.wants(key) == value
        }
        if not self._held:
            return snapshot
        more = [KeyValue(key, value, snapshot.revision) for key, value in self._held.items()]
        items = sorted([*snapshot.items, *more], key=lambda item: item.key)
        return Snapshot(snapshot.revision, tuple(items))

    def delta(self, delta: Delta) -> Delta:
        """Changes, without the losses that are held, and with those that no longer are."""
        events: list[Event] = self._released(delta.revision)
        for event in delta.events:
            if isinstance(event, Removed):
                value = self._ledger.own_endpoint(event)
                if value is not None and self._ledger.wants(event.key) == value:
                    self._held[event.key] = value
                    continue
            self._held.pop(event.key, None)
            events.append(event)
        return Delta(delta.revision, tuple(events))

    def _released(self, revision: int) -> list[Event]:
        over = [key for key, value in self._held.items() if self._ledger.wants(key) != value]
        for key in over:
            del self._held[key]
        return [Removed(key, revision) for key in over]
