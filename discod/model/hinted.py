"""What other hosts have said of the ends of their own endpoints, sooner than the store.

Rule: a hint is about one version of a record. It holds for that version and all before, whenever
they come, and a later one ends it: so an old, late or repeated hint does no harm, and one that is
ahead of a slow store keeps what is long over from coming up once more. One about a version that its
host has not seen yet is bound to the first later version that comes at the place it names. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, TypeGuard

from discod.model.endpoint import Endpoint, EndpointId, Withdrawal
from discod.model.hint import Down
from discod.model.schema import Record

AHEAD_MAX: Final = 4096
"""Hints kept for records that the store has not shown yet; more are left to the store."""


class Hinted:
    """Hints by endpoint."""

    __slots__ = ("_hints", "_said")

    def __init__(self) -> None:
        self._hints: dict[EndpointId, tuple[Down, str]] = {}  # with the host that said it
        self._said: dict[EndpointId, Withdrawal] = {}  # of those whose record is there

    def __contains__(self, id_: EndpointId) -> bool:
        return id_ in self._said

    def __iter__(self) -> Iterator[EndpointId]:
        return iter(self._said)

    def get(self, id_: EndpointId) -> Withdrawal | None:
        """What was said of a record that is there, or None."""
        return self._said.get(id_)

    def put(self, down: Down, host: str, standing: Record | None) -> bool:
        """Take a hint of `host`; whether it takes out what is `standing`.

        One that is older than what stands, or of another host, is not believed.
        """
        if standing is None:
            if len(self._hints) - len(self._said) < AHEAD_MAX:
                self._hints[down.id] = down, host
            return False
        if not _is_meant(standing, down, host):
            return False
        if standing.revision > down.revision:
            down = replace(down, revision=standing.revision, place=None)
        self._hints[down.id] = down, host
        self._said[down.id] = Withdrawal(standing, down.reason, down.detail, down.at)
        return True

    def drop(self, id_: EndpointId, host: str = "") -> bool:
        """Forget a hint, if it is of `host` where one is named; whether it made a difference."""
        if host and self._hints.get(id_, (None, ""))[1] != host:
            return False
        self._hints.pop(id_, None)
        return self._said.pop(id_, None) is not None

    def renewed(self, record: Record) -> None:
        """The store has this version of a record now."""
        hint = self._hints.get(record.id)
        if hint is not None and not self.put(*hint, record):
            self.drop(record.id)

    def removed(self, id_: EndpointId, revision: int) -> Withdrawal | None:
        """The store has removed a record at this revision; what was said of it."""
        hint = self._hints.get(id_)
        if hint is not None and hint[0].revision < revision and hint[0].place is None:
            del self._hints[id_]
        return self._said.pop(id_, None)


def _is_meant(record: Record, down: Down, host: str) -> TypeGuard[Endpoint]:
    if not isinstance(record, Endpoint) or record.host != host:
        return False
    return record.revision <= down.revision or record.place == down.place
