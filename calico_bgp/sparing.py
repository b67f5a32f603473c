"""Which of many like events are logged.

Rule: a few at once, then one a pause; what is left out is counted and told with the next one. Pure.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 5
PAUSE: Final = 30.0
"""Seconds in which one more may be said: a peer that flaps must not flood the journal."""


class Sparing:
    """A token bucket by kind of event; kinds are few and fixed."""

    def __init__(self, burst: int = BURST, pause: float = PAUSE) -> None:
        self._burst, self._pause = burst, pause
        self._kinds: dict[str, tuple[float, float]] = {}
        """Tokens, and when they were counted."""
        self._silent: dict[str, int] = {}

    def lets(self, kind: str, now: float) -> bool:
        """Whether this one is to be said."""
        tokens, then = self._kinds.get(kind, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) / self._pause)
        said = tokens >= 1
        self._kinds[kind] = (tokens - 1 if said else tokens, now)
        if not said:
            self._silent[kind] = self._silent.get(kind, 0) + 1
        return said

    def unsaid(self, kind: str) -> int:
        """How many were left out since the last call."""
        return self._silent.pop(kind, 0)
