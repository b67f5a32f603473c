"""How talking to the Docker engine can fail.

Rule: no other exception of the SDK or of what is below it leaves `announcer.engine`.
"""

from __future__ import annotations


class EngineError(Exception):
    """Any failure of the engine."""


class EngineUnavailable(EngineError):
    """It cannot be reached, or did not answer in time. Says nothing about its containers."""


class EngineRefused(EngineError):
    """It answered and said no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP: 404 no such container, 409 not in a state for this, 5xx its own trouble."""
