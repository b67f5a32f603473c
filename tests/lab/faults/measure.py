"""What users saw, out of a `Poller`'s record: seconds of wrong and of missing answers.

Rule: of all hosts the worst counts. Nothing is asserted here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.lab.daemon import until
from tests.lab.dnspoll import NOERROR, NXDOMAIN, Answer, Poller, Track
from tests.lab.rig import Host


def spans(track: Track, fits: Callable[[Answer], bool], since: float, to: float) -> float:
    """Seconds between `since` and `to` in which the answers of one host were such."""
    total = 0.0
    for n, seen in enumerate(track.changes):
        end = track.changes[n + 1].at if n + 1 < len(track.changes) else to
        if fits(seen.answer):
            total += max(0.0, min(end, to) - max(seen.at, since))
    return total


def wrong(poller: Poller, address: str, died: float) -> float:
    """Seconds in which an answer named an address, after it died."""
    now = time.monotonic()
    return max(
        spans(track, lambda answer: address in answer.addresses, died, now)
        for track in poller.tracks.values()
    )


def left(poller: Poller, address: str, died: float, deadline: float = 10.0) -> float:
    """Seconds from its end until no host named an address; waits for it. It may be used again."""
    out = poller.wait(lambda answer: address not in answer.addresses, after=died, deadline=deadline)
    return max(out.values()) - died


def missing(poller: Poller, address: str, since: float) -> float:
    """Seconds in which answers lacked an address that was alive all the time (SERVFAIL is such)."""
    now = time.monotonic()
    return max(
        spans(track, lambda answer: address not in answer.addresses, since, now)
        for track in poller.tracks.values()
    )


def silent(poller: Poller) -> float:
    """Seconds of the longest silence of any host."""
    return max(track.longest_silence for track in poller.tracks.values())


def converged(
    hosts: Iterable[Host],
    name: str,
    wanted: Callable[[], Iterable[str]],
    since: float,
    limit: float,
) -> float:
    """Seconds from `since` until `name` has the wanted addresses on every host.

    Args:
        hosts: All must agree.
        name: Of the service.
        wanted: IPv4 addresses as they should be now, e.g. by the engine's list.
        since: `time.monotonic()`.
        limit: Seconds that it may take.

    Raises:
        AssertionError: it did not come to that in time.
    """

    def agreed() -> bool:
        right = tuple(sorted(wanted()))
        for host in hosts:
            try:
                answer = host.ask(name)
            except OSError:  # it does not answer now
                return False
            if answer.addresses != right or answer.rcode not in (NOERROR, NXDOMAIN):
                return False
        return True

    remaining = max(0.1, since + limit - time.monotonic())
    until(agreed, deadline=remaining, step=0.01, what=f"{name} = {sorted(wanted())} everywhere")
    return time.monotonic() - since
