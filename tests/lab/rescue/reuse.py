"""Who was right to answer, when addresses are used again and again by different services.

Rule: judged by the engine's truth alone, and pure. A request names the service that its client
resolved, and the address that it resolved to. Each server answers with its own name.

- A *violation*: the server that answered is of another service than the one resolved, and the
  address had not been given to that service: it is not the server's own, and the last that had it
  is of another service as well. If it is the server's own (*owned*), the client
  used an address that belongs to somebody else, and nobody could know. If the last that had it was
  of the server's service (*inherited*), the client is an owner later still: what it resolved was
  gone, and so was what came after it.
- *Astray*: the client resolved the address just now, to a server that lived from before the
  question until after the request, and somebody else answered, or nobody: an address in use was
  taken as stale.
- *Dated*: the client was just now given an address that another server had had for `PATIENCE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

NEWS = 0.5
"""Seconds until every host knows that a container has begun: until then the address may still be
taken for the one before it. DNS does not name it earlier. Milliseconds, on a quiet machine."""
PATIENCE = 1.0
"""Seconds in which DNS may go on naming what has an address no more."""


class Seen(NamedTuple):
    """One request; times of CLOCK_MONOTONIC."""

    asked: float
    start: float
    end: float
    fresh: bool
    """Whether the address was resolved for this very request, at `asked`."""
    service: str
    address: str
    kind: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Life:
    """One server."""

    name: str
    service: str
    addresses: tuple[str, ...]
    began: float
    """When its start was asked for."""
    started: float
    """When that had returned."""
    ended: float
    """When its end was asked for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was not right, and that there was something to get wrong."""

    violations: tuple[Seen, ...]
    astray: tuple[Seen, ...]
    dated: tuple[Seen, ...]
    requests: int
    rescued: int
    """Answered by a sibling, since the address was nobody's or another's."""
    inherited: int
    """Answered by a sibling of the last that had the address, which was of another service."""
    owned: int
    """Answered by a server of another service, whose address it was."""
    failed: int


def judge(requests: Iterable[Seen], lives: Mapping[str, Life]) -> Verdict:
    """Judge all requests by the servers that there were, by name."""
    violations, astray, dated = [], [], []
    count = rescued = inherited = owned = failed = 0
    by_address: dict[str, list[Life]] = {}
    for life in lives.values():
        for address in life.addresses:
            by_address.setdefault(address, []).append(life)
    for one in requests:
        count += 1
        answered = lives.get(one.outcome)
        if answered is None:
            failed += 1
        elif one.address not in answered.addresses:
            if answered.service == one.service:
                rescued += 1
            elif answered.service in _had(by_address.get(one.address, []), one.start, one.end):
                inherited += 1
            else:
                violations.append(one)
        elif answered.service != one.service:
            owned += 1
        if one.fresh:
            holders = by_address.get(one.address, [])
            for life in holders:
                whole = life.started < one.asked and one.end < life.ended
                if whole and life.service == one.service and one.outcome != life.name:
                    astray.append(one)
                if whole and life.service != one.service and life.started + PATIENCE < one.asked:
                    dated.append(one)
    return Verdict(
        tuple(violations), tuple(astray), tuple(dated), count, rescued, inherited, owned, failed
    )  # fmt: skip


def _had(holders: Iterable[Life], start: float, end: float) -> set[str]:
    """Services of whom a request between two moments may have found to be the last that had its
    address: one of the lives that had begun, none before the last that was there for sure."""
    begun = [life for life in holders if life.began < end]
    sure = max((life.began for life in begun if life.started + NEWS < start), default=0.0)
    return {life.service for life in begun if life.began >= sure}
