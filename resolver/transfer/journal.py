"""The changes of the zone, from serial to serial (RFC 1995).

Rule: what stood at a serial is known only of serials that were published here; of any other, those
between two of ours included, nothing is assumed, and a secondary that holds one takes the whole
zone. (Another host may have published it, with a content that was never to be seen here: a
difference to a neighbour would leave records behind at the secondary for good.) Bounded by the
number of changes and by their octets. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

CONDENSE_MAX = 20_000
"""Records of changes that are condensed into one difference, at about 0.3 us each; of more, every
change is sent as it was (RFC 1995, section 5, leaves either open)."""

_HALF = 2**31


def serial_of(revision: int) -> int:
    """The SOA serial of a revision of the store; 0 is no serial to some secondaries."""
    return revision % 2**32 or 1


def newer(serial: int, than: int) -> bool:
    """Whether `serial` is greater (RFC 1982, section 3.2); False where that is undefined."""
    return 0 < (serial - than) % 2**32 < _HALF


class Difference(NamedTuple):
    """One difference sequence of IXFR; records as `resolver.transfer.content` has them."""

    old_soa: bytes
    removed: Collection[bytes]
    soa: bytes
    added: Collection[bytes]


@dataclass(frozen=True, slots=True)
class _State:
    serial: int
    soa: bytes
    removed: tuple[bytes, ...] = ()
    """What came and went since the state before; empty for the oldest."""
    added: tuple[bytes, ...] = ()

    @property
    def octets(self) -> int:
        return sum(map(len, self.removed)) + sum(map(len, self.added))


class Journal:
    """The last states of the zone, as differences.

    Args:
        limit: Changes kept at most; 0: none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._states: dict[int, _State] = {}  # by number; numbers are consecutive
        self._numbers: dict[int, int] = {}  # serial -> number
        self._first = self._last = 0
        self._octets = 0

    def __len__(self) -> int:
        """Changes that are kept."""
        return max(len(self._states) - 1, 0)

    def reset(self, serial: int, soa: bytes) -> None:
        """Forget everything; the zone is at `serial` now."""
        self._first = self._last = 0
        self._octets = 0
        self._states = {0: _State(serial, soa)}
        self._numbers = {serial: 0}

    def append(
        self, serial: int, soa: bytes, removed: Iterable[bytes], added: Iterable[bytes], room: int
    ) -> None:
        """The zone has come from the last serial to `serial`.

        All changes together may take `room` octets. Beyond it the oldest are forgotten: a journal
        larger than the zone serves nobody.
        """
        state = _State(serial, soa, tuple(removed), tuple(added))
        self._last += 1
        self._states[self._last] = state
        self._numbers[serial] = self._last
        self._octets += state.octets
        while self._first < self._last and (
            self._last - self._first > self._limit or self._octets > room
        ):
            del self._numbers[self._states.pop(self._first).serial]
            self._first += 1
            oldest = self._states[self._first]
            self._octets -= oldest.octets
            self._states[self._first] = _State(oldest.serial, oldest.soa)

    def since(self, serial: int) -> tuple[Difference, ...] | None:
        """The way from `serial` to now, in order; None: not known, or not kept."""
        number = self._numbers.get(serial)
        if number is None:
            return None
        before = self._states[number]
        states = [self._states[n] for n in range(number + 1, self._last + 1)]
        if sum(len(s.removed) + len(s.added) for s in states) <= CONDENSE_MAX:
            return (_condensed(before, states),) if states else ()
        found = []
        for state in states:
            found.append(Difference(before.soa, state.removed, state.soa, state.added))
            before = state
        return tuple(found)


def _condensed(before: _State, states: list[_State]) -> Difference:
    removed: dict[bytes, None] = {}
    added: dict[bytes, None] = {}
    for state in states:
        _fold(state.removed, removed, added)
        _fold(state.added, added, removed)
    return Difference(before.soa, removed.keys(), states[-1].soa, added.keys())


def _fold(records: Iterable[bytes], into: dict[bytes, None], opposite: dict[bytes, None]) -> None:
    for record in records:
        if record in opposite:
            del opposite[record]
        else:
            into[record] = None
