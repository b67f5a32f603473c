"""When a daemon may be sent queries.

Rule: at the start it is ready only when every part was complete once. Later a part that is away
makes it unready only when it is critical. The store is not: DNS goes on answering from the last
Catalog, marked stale, and taking every host out because etcd is away would turn one outage into
two. (Calico's readiness works so as well.) Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from discod.model.report import PartReport

CRITICAL = frozenset({"dns"})
"""Parts that are nothing without working now."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of ``/readyz``."""

    ready: bool
    blocking: tuple[PartReport, ...]
    """Why it is not ready; empty when it is."""
    away: tuple[PartReport, ...]
    """Parts that do not work now and do not count, since they were complete before."""


class Gate:
    """Remembers which parts were complete once.

    Usage: one for the life of the daemon; `look` with the present reports on every probe, and
    whenever the daemon itself wants to know, so that a short completeness is not missed.
    """

    def __init__(self, critical: Iterable[str] = CRITICAL) -> None:
        self._critical = frozenset(critical)
        self._complete: set[str] = set()

    def look(self, parts: Iterable[PartReport]) -> Readiness:
        """Judge the present reports. No part at all is not ready: the daemon is being built."""
        present = tuple(parts)
        self._complete.update(part.name for part in present if part.ready)
        broken = [part for part in present if not part.ready]
        blocking = tuple(
            part
            for part in broken
            if part.name not in self._complete or part.name in self._critical
        )
        away = tuple(part for part in broken if part not in blocking)
        return Readiness(bool(present) and not blocking, blocking, away)
