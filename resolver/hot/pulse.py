"""Whether a worker process lives, is starved or is frozen: judged by its heart beat.

Rule: silence counts only while we ourselves look on time, so a machine that stands still (or a
daemon that does) accuses nobody. A frozen worker is replaced; a starved one is waited for, while
the daemon answers in its stead. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

LOOK: Final = 0.1
"""Seconds between two looks. One of them adds no more than twice as much to the silence, however
long it took to come."""
STOPPED: Final = 0.35
"""Seconds of silence after which a worker that the kernel calls stopped is frozen: its heart beats
each 0.25 s, and no load on the machine makes a process *stopped*."""
SILENT: Final = 0.6
"""Seconds of silence after which a worker is starved, if it wants to run."""
ASLEEP: Final = 0.35
"""Seconds of silence, on end, in which a worker did not even want to run: it is stuck. A healthy
one sleeps for 0.25 s at most, but it may do so after a turn that took long."""
PATIENCE: Final = 5.0
"""Seconds that a starved worker is waited for; then it is in an endless loop, as far as one can
tell."""
STARTING: Final = 10.0
"""Seconds of silence of a worker that does not serve yet: it loads its modules."""

Verdict = Literal["well", "starved", "frozen"]


class Pulse:
    """Of one worker.

    Args:
        now: Monotonic clock, seconds.
    """

    def __init__(self, now: float) -> None:
        self._looked = now
        self._sign: object = None
        self.silence = 0.0
        """Seconds, as far as we looked."""
        self._asleep: float | None = None  # since it was first seen so

    def look(
        self, now: float, sign: Callable[[], object], serving: bool, state: Callable[[], str]
    ) -> Verdict:
        """Judge.

        Args:
            now: Monotonic clock, seconds.
            sign: Gives something that is different after each beat.
            serving: Whether it serves already.
            state: Gives the process's state (proc(5)); asked for only when there is silence.
        """
        passed = min(now - self._looked, 2 * LOOK)
        self._looked = now
        if self._beats(sign):
            return "well"
        self.silence += passed
        if self.silence < STOPPED:
            return "well"
        how = state()
        if self._beats(sign):
            return "well"  # in the meantime: what `how` says is not about the silence
        if how in "Tt":
            return "frozen"
        if not serving:
            return "frozen" if self.silence >= STARTING else "well"
        if how == "R":
            self._asleep = None
        else:
            self._asleep = 0.0 if self._asleep is None else self._asleep + passed
        if (self._asleep or 0.0) >= ASLEEP or self.silence >= PATIENCE:
            return "frozen"
        return "starved" if self.silence >= SILENT else "well"

    def _beats(self, sign: Callable[[], object]) -> bool:
        present = sign()
        if present == self._sign:
            return False
        self._sign = present
        self.silence = 0.0
        self._asleep = None
        return True
