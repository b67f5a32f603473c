"""The brake: tells endpoints that ended from a store that lost sight of many at once.

Rule: decides, touches nothing. One host whose lease ends has said something by that. When more
than a share of all endpoints vanish without a withdrawal within a window, and from more than one
host, or when the store itself was set back, the likelier story is that the store (or the way to it)
failed. Then those endpoints become *suspects*: kept in DNS, probed directly (`discod.suspects`),
and let go by themselves. Pure.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from discod.model.endpoint import Endpoint, EndpointId
from discod.model.settings import BrakeSettings
from discod.model.shards import Kept

BUCKETS = 30
"""Parts of a window by which the number of known endpoints is remembered."""


class Why(StrEnum):
    """How an endpoint stopped being a suspect."""

    RETURNED = "returned"
    """The store has it again."""
    WITHDRAWN = "withdrawn"
    """Its host has said that it ended."""
    FAILED = "failed"
    """It did not answer `BrakeSettings.fall` probes in a row."""
    EXPIRED = "expired"
    """Nothing was heard of it for `BrakeSettings.hold`."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An endpoint that the store lost and that is kept."""

    endpoint: Endpoint
    revision: int
    """Of the store, when it vanished."""
    at: float
    """When this host saw that, Unix seconds."""
    until: float
    """When it is let go at the latest, in the time that `Brake` is handed."""
    probed: bool = True
    """Whether a probe can tell: TCP, with a port."""
    failures: int = 0
    """Of its last probes, in a row."""
    detail: str = "not probed yet"
    """What its last probe saw, for people."""


@dataclass(slots=True)
class _Lost:
    """A loss of the present window."""

    endpoint: Endpoint
    revision: int
    at: float
    time: float
    over: bool = False
    """It was a suspect, and was dropped: it counts as lost, and is not taken back."""


class Brake:
    """The losses of the last window, and the suspects made of them.

    Times are seconds of a clock that never jumps, handed in as `time`; `at` is Unix seconds.

    Args:
        settings: Its thresholds.
        host: Name of this host. It knows its own endpoints: they are never suspects.
        held: How many endpoints of this host the store has lost and does not say so here, since
            this host goes on answering with them. They count as lost.
    """

    def __init__(
        self,
        settings: BrakeSettings,
        host: str = "",
        held: Callable[[], int] = lambda: 0,
    ) -> None:
        self.settings = settings
        self.suspects = Kept[EndpointId, Suspect]()
        self.ended: Counter[Why] = Counter()
        """How many suspects ended, and how, since the start."""
        self.known = 0
        """The most endpoints known at once in the present window."""
        self._host = host
        self._held = held
        self._lost: dict[EndpointId, _Lost] = {}  # the oldest first
        self._peaks: deque[tuple[float, int]] = deque()  # start of a bucket, most known in it

    # What the store says ------------------------------------------------------------------------

    def count(self, known: int, time: float) -> None:
        """Take note of how many endpoints are known now, before a change is applied."""
        window = self.settings.window
        while self._peaks and self._peaks[0][0] < time - window:
            self._peaks.popleft()
        if self._peaks and time < self._peaks[-1][0] + window / BUCKETS:
            start, peak = self._peaks[-1]
            self._peaks[-1] = (start, max(peak, known))
        else:
            self._peaks.append((time, known))
        self.known = max(peak for _, peak in self._peaks)

    def lose(self, endpoint: Endpoint, revision: int, at: float, time: float) -> None:
        """Take note of a loss."""
        if self.settings.enabled:
            self._lost.pop(endpoint.id, None)
            self._lost[endpoint.id] = _Lost(endpoint, revision, at, time)

    def hear(self, id_: EndpointId, why: Why) -> bool:
        """The store, or the owner, has said something of an endpoint: it is no longer lost.

        Returns whether it was a suspect.
        """
        self._lost.pop(id_, None)
        return self._end(id_, why)

    def decide(self, time: float, *, set_back: bool = False) -> list[EndpointId]:
        """The endpoints that become suspects now, after the losses of one change.

        Those lost earlier in the window are among them: that a loss was part of something larger
        shows only when the rest follows, as leases do not end in the same instant.

        Args:
            time: Now.
            set_back: The store's history does not continue the one known (it was emptied, or
                restored from a backup): what it lacks it has not said to be gone, so no threshold
                applies to it.
        """
        if not self._lost:
            return []
        while self._lost:
            first = next(iter(self._lost.values()))
            if first.time >= time - self.settings.window:
                break
            del self._lost[first.endpoint.id]
        if not self._mass():
            if not set_back:
                return []
            chosen = [one for one in self._lost.values() if one.time == time]
        else:
            chosen = list(self._lost.values())
        return [one.endpoint.id for one in chosen if self._keep(one, time)]

    def _mass(self) -> bool:
        held, settings = self._held(), self.settings
        lost = len(self._lost) + held
        if lost < settings.least or lost <= settings.share * self.known:
            return False
        hosts = {one.endpoint.host for one in self._lost.values()}
        return len(hosts | {self._host} if held else hosts) > 1

    def _keep(self, one: _Lost, time: float) -> bool:
        endpoint = one.endpoint
        own = bool(self._host) and endpoint.host == self._host
        if own or one.over or endpoint.id in self.suspects.now:
            return False
        probed = endpoint.protocol == "tcp" and endpoint.port > 0
        detail = "not probed yet" if probed else "cannot be probed"
        until = time + self.settings.hold
        self.suspects.put(
            endpoint.id,
            Suspect(endpoint, one.revision, one.at, until, probed=probed, detail=detail),
        )
        return True

    # What probes and time say -------------------------------------------------------------------

    def probed(self, id_: EndpointId, *, ok: bool, detail: str) -> list[Suspect]:
        """Take a probe's result; returns what this drops: the suspect, or nothing."""
        suspect = self.suspects.now.get(id_)
        if suspect is None:
            return []
        failures = 0 if ok else suspect.failures + 1
        suspect = replace(suspect, failures=failures, detail=detail)
        self.suspects.put(id_, suspect)
        return self._drop([id_], Why.FAILED) if failures >= self.settings.fall else []

    def expire(self, time: float) -> list[Suspect]:
        """Drop what was held long enough, or all of it when the brake is off."""
        over = [
            id_
            for id_, suspect in self.suspects.now.items()
            if suspect.until <= time or not self.settings.enabled
        ]
        return self._drop(over, Why.EXPIRED)

    def _drop(self, ids: Iterable[EndpointId], why: Why) -> list[Suspect]:
        dropped = []
        for id_ in ids:
            dropped.append(self.suspects.now[id_])
            if id_ in self._lost:
                self._lost[id_].over = True
            self._end(id_, why)
        return dropped

    def _end(self, id_: EndpointId, why: Why) -> bool:
        if id_ not in self.suspects.now:
            return False
        self.suspects.drop(id_)
        self.ended[why] += 1
        return True
