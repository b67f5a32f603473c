"""Faults of our own, reported without flooding the log.

Rule: whoever answers packets from outside survives what a single one of them does; it is told here,
with the packet, once in `EVERY` seconds whatever comes in meanwhile.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from discod.log import fields

log = logging.getLogger(__name__)

EVERY: Final = 10.0
"""Seconds between two reports."""


class Faults:
    """What one part reports."""

    def __init__(self) -> None:
        self._told = float("-inf")

    def report(self, packet: bytes, client: str = "") -> None:
        """Report the exception being handled; `packet` is what was being answered, and to whom."""
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            log.exception(
                "query failed by a fault of discod", extra=fields(packet=packet[:150].hex())
            )
