"""Remembered answers with a date: NODATA, whose SOA has the zone's serial in it.

Rule: the first tier has such an answer only with the present serial, and only once it was asked
for; with the next serial all of them leave it at once, and each is brought up to date when it is
asked for again. So a change costs as much as was asked for since the last one. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Generic, TypeVar

from resolver.hot.entry import Answers, Found

T = TypeVar("T")


class Dated(Generic[T]):
    """Answers by their key.

    Args:
        answers: The first tier.
        form: What it gives for an answer.
        found: What `Found` is of a body and its kind.
        retired: Takes what was replaced.
    """

    def __init__(
        self,
        answers: Answers[T],
        form: Callable[[Found], T],
        found: Callable[[bytes, int], Found],
        retired: list[object],
    ) -> None:
        self._answers = answers
        self._form = form
        self._found = found
        self._retired = retired
        self._known: dict[bytes, tuple[Found, int, int]] = {}  # answer, serial, and where it is
        self._shown: set[bytes] = set()  # those that the first tier has
        self.serial = 0
        """The zone's at the moment."""

    def clear(self, serial: int) -> None:
        """Forget everything; the first tier has been cleared."""
        self._known.clear()
        self._shown.clear()
        self.serial = serial

    def moved(self, serial: int) -> None:
        """Take the zone's next serial."""
        self.serial = serial
        for norm in self._shown:
            del self._answers[norm]
        self._shown.clear()

    def add(self, norm: bytes, body: bytes, kind: int, at: int) -> Found:
        """Remember an answer with the present serial, which stands at `at`, for whoever asks."""
        found = self._found(body, kind)
        self._known[norm] = found, self.serial, at
        return found

    def get(self, norm: bytes) -> Found | None:
        """An answer as it is now, for who asks for it; None: it is not remembered."""
        known = self._known.get(norm)
        if known is None:
            return None
        found, serial, at = known
        if serial != self.serial:
            self._retired.append(found)
            body = found[3][:at] + self.serial.to_bytes(4, "big") + found[3][at + 4 :]
            found = self.add(norm, body, found[2], at)
        self._answers[norm] = repeat(self._form(found))
        self._shown.add(norm)
        return found

    def drop(self, norm: bytes) -> None:
        """Forget one, if there is one."""
        known = self._known.pop(norm, None)
        if known is not None:
            self._retired.append(known)
            if norm in self._shown:
                self._shown.discard(norm)
                del self._answers[norm]
