"""Which services had a place of late.

Rule: a client that still uses the place of a dead endpoint means the service that it resolved, and
nobody can see which. Where there was more than one within the time that stale places are looked
after, none of them is taken for it. Bounded: what ended longest ago is forgotten first. Pure.
"""

from __future__ import annotations

from typing import Final

from discod.model.rescue import Place

REMEMBERED: Final = 16_384
"""Places."""


class Past:
    """The services whose endpoints left a place, and when each last did."""

    def __init__(self) -> None:
        self._ends: dict[Place, dict[str, float]] = {}

    def __len__(self) -> int:
        """How many places are remembered."""
        return len(self._ends)

    def note(self, place: Place, service: str, at: float) -> None:
        """An endpoint of a service left a place, Unix seconds."""
        ends = self._ends.pop(place, {})
        ends[service] = max(at, ends.get(service, at))
        self._ends[place] = ends
        if len(self._ends) > REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def shared(self, place: Place, service: str, since: float) -> bool:
        """Whether another service had the place after `since`, Unix seconds."""
        ends = self._ends.get(place, {})
        return any(other != service and at > since for other, at in ends.items())

    def forget(self, before: float) -> None:
        """Forget what ended before a time, Unix seconds."""
        for place, ends in list(self._ends.items()):
            kept = {service: at for service, at in ends.items() if at >= before}
            if kept:
                self._ends[place] = kept
            else:
                del self._ends[place]
