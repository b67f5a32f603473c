"""Response rate limiting: a server that answers everybody at once is nobody's weapon.

Rule: a client prefix gets so many responses over UDP in each second; what goes beyond is dropped,
but one in so many leaves small and says how to come back (over TCP, or with a cookie). All prefixes
together cost `SLOTS` counters, whatever comes: two prefixes that fall on one slot share it for that
second, which the honest one survives by the slips. So nothing is ever full, and no flood of forged
prefixes makes room for another. Pure: time is the caller's.
"""

from __future__ import annotations

from array import array
from typing import Final, Literal

SLOTS: Final = 1 << 16
"""Counters (256 KiB): with 1,000 prefixes in one second, 1.5 % share theirs."""

Action = Literal["pass", "slip", "drop"]

_EMPTY = bytes(4 * SLOTS)
_LOOPBACK6 = bytes(15) + b"\1"


class Limiter:
    """Counts responses of the present second.

    Args:
        rate: Responses a second for one prefix, /24 of IPv4 or /56 of IPv6; more than 0.
        slip: One in so many of those above leaves as a slip; 0: none.
        seed: 64 random bits: nobody shall choose a prefix that shares a victim's slot.
    """

    def __init__(self, rate: int, slip: int, seed: int) -> None:
        if rate <= 0:
            raise ValueError("a rate of 0 is no limit: make no limiter")
        self._rate = rate
        self._slip = slip
        self._factor = seed | 1
        self._second = 0
        self._counts = array("I", _EMPTY)

    def verdict(self, client: bytes, now: float) -> Action:
        """What becomes of one more response.

        Args:
            client: Address, 4 or 16 octets. Loopback always passes.
            now: Seconds, of any clock; one that goes back begins a new second, no more.
        """
        slot = self._slot(client, now)
        if slot < 0:
            return "pass"
        self._counts[slot] = count = self._counts[slot] + 1
        over = count - self._rate
        if over <= 0:
            return "pass"
        return "slip" if self._slip and over % self._slip == 0 else "drop"

    def take(self, client: bytes, count: int, now: float) -> bool:
        """Count so many responses at once, if all of them pass; else none.

        Args:
            client: As for `verdict`.
            count: How many responses.
            now: As for `verdict`.
        """
        slot = self._slot(client, now)
        if slot < 0:
            return True
        total = self._counts[slot] + count
        if total > self._rate:
            return False
        self._counts[slot] = total
        return True

    def _slot(self, client: bytes, now: float) -> int:
        """Where a client is counted; -1: it is not."""
        if len(client) == 4:
            if client[0] == 127:
                return -1
            prefix = client[:3]
        elif client == _LOOPBACK6:
            return -1
        else:
            prefix = client[:7]
        second = int(now)
        if second != self._second:
            self._second = second
            self._counts = array("I", _EMPTY)
        # The middle bits of the product depend on every octet of the prefix.
        return int.from_bytes(prefix, "big") * self._factor >> 40 & SLOTS - 1
