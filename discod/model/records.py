"""The records of the store, with what has to be known of them at once: whose they are, how many.

Rule: a map that keeps its own indexes; says nothing of what is in DNS. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discod.model.endpoint import Endpoint, EndpointId
from discod.model.schema import Record


class Records:
    """Record by id, and ids by host."""

    __slots__ = ("_by_host", "_by_id", "endpoints")

    def __init__(self) -> None:
        self._by_id: dict[EndpointId, Record] = {}
        self._by_host: dict[str, set[EndpointId]] = {}  # foreign ones under ""; no empty set
        self.endpoints = 0
        """How many are endpoints."""

    def __iter__(self) -> Iterator[EndpointId]:
        return iter(self._by_id)

    def get(self, id_: EndpointId) -> Record | None:
        """One record, or None."""
        return self._by_id.get(id_)

    def of(self, host: str) -> Iterable[EndpointId]:
        """What a host announces."""
        return self._by_host.get(host, ())

    def put(self, record: Record) -> None:
        """Set a record."""
        self.pop(record.id)
        self._by_id[record.id] = record
        self._by_host.setdefault(record.host, set()).add(record.id)
        self.endpoints += isinstance(record, Endpoint)

    def pop(self, id_: EndpointId) -> Record | None:
        """Take a record out, and return it if it was there."""
        record = self._by_id.pop(id_, None)
        if record is not None:
            ids = self._by_host[record.host]
            ids.discard(id_)
            if not ids:
                del self._by_host[record.host]
            self.endpoints -= isinstance(record, Endpoint)
        return record
