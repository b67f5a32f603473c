"""What users saw of a fault: seconds of wrong and of missing answers, out of a poller's tracks.

Rule: reads tracks; asserts nothing. Of several hosts the worst counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from tests.lab.dnspoll import Answer, Poller, Track
from tests.lab.engine import Box
from tests.lab.faults.measure import spans
from tests.lab.rig import Host, Lab

SILENCE = 0.25
"""Seconds without an answer that are the machine's, not the fault's: a poller of two cores that are
all busy is late itself."""


def seconds(track: Track, begun: float, ended: float, have: set[str], *, lack: bool) -> float:
    """Seconds between two times in which answers lacked one of `have`, or without `lack` named one.

    A long silence counts as lacking.
    """

    def fits(answer: Answer) -> bool:
        said = set(answer.addresses)
        return bool(have - said) if lack else bool(have & said)

    total = spans(track, fits, begun, ended)
    if lack and track.longest_silence > SILENCE:
        total += track.longest_silence
    return total


def missing(poller: Poller, begun: float, boxes: Iterable[Box], hosts: Iterable[str] = ()) -> float:
    """Seconds in which an answer of some host lacked one of `boxes`, which live, or none came."""
    have, ended = {box.ipv4 for box in boxes}, time.monotonic()
    names = set(hosts) or set(poller.tracks)
    return max(seconds(poller.tracks[n], begun, ended, have, lack=True) for n in names)


def wrong(poller: Poller, died: float, box: Box, hosts: Iterable[str] = ()) -> float:
    """Seconds after its death in which an answer of some host named `box`."""
    ended = time.monotonic()
    names = set(hosts) or set(poller.tracks)
    return max(seconds(poller.tracks[n], died, ended, {box.ipv4}, lack=False) for n in names)


def as_engines_say(lab: Lab, boxes: Iterable[Box], service: str) -> bool:
    """Whether each host's Catalog has exactly these containers of `service`, each address once."""
    want = sorted(
        (service, target, box.id)
        for box in boxes
        for target in (f"{box.ipv4}:8080", f"[{box.ipv6}]:8080")
    )
    return all(_entries(host, service) == want for host in lab.hosts)


def _entries(host: Host, service: str) -> list[tuple[str, str, str]]:
    try:
        return [entry for entry in host.catalog() if entry[0] == service]
    except OSError:  # it starts, or stands still
        return []
