"""Clients that resolve once and never again, through every fault: with rescue, and without.

Without is the negative control: the outage is there, so what rescue takes away is real.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.lab.engine import Box
from tests.lab.rescue.clients import Track, crowd
from tests.lab.rescue.site import ON, PORT, PUBLISHED, Site, settled, tasks
from tests.lab.rescue.table import Table, milliseconds
from tests.lab.rig import Host

pytestmark = pytest.mark.lab

BOUND = 0.5
"""Seconds of the longest gap. 50 ms are the goal and what a quiet machine stays below; the rest is
room for two cores that run three hosts and their clients. Far below an outage."""
OUTAGE = 0.6
"""Seconds without rescue at least: the client tries, and nobody is there."""
AFTER = 1.2
"""Seconds watched after a fault."""
DETECTED = 3.0
"""Seconds within which a host's death is seen, at most."""

NEAR = ("container a", "container b", "host a")
FAR = ("container b", "host c")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that takes an endpoint away."""

    name: str
    act: Callable[[Host, Box], float]
    """Does it; returns when."""
    undo: Callable[[Host, Box], None] = lambda _host, _box: None
    clients: Sequence[str] = NEAR
    detected: bool = False
    """Whether the others have to find out first."""


def crash(_host: Host, box: Box) -> float:
    at = time.monotonic()
    os.kill(box.pid, signal.SIGKILL)
    return at


def stop(host: Host, box: Box) -> float:
    return host.engine.halt(box)


def stop_rude(host: Host, box: Box) -> float:
    return host.engine.halt(box, timeout=1)


def pause(host: Host, box: Box) -> float:
    return host.engine.pause(box)


def unpause(host: Host, box: Box) -> None:
    host.engine.unpause(box)


def die(host: Host, _box: Box) -> float:
    """The cable first, so that nothing of the ends inside is told."""
    at = time.monotonic()
    host.leg.cut()
    host.discod.kill()
    return at


def revive(host: Host, _box: Box) -> None:
    host.heal()
    host.discod.start()


FAULTS = [
    Fault("crash", crash),
    Fault("docker stop", stop),
    Fault("docker pause", pause, unpause),
    Fault("host death", die, revive, FAR, detected=True),
]


def judge(tracks: Sequence[Track], at: float, rescue: str, bound: float) -> list[str]:
    """What is not as promised, in words."""
    wrong = []
    for track in tracks:
        who = f"{track.client}, {track.task}"
        gap = track.gap(at)
        if not track.working(at):
            wrong.append(f"{who}: did not work before the fault")
        if rescue == "off":
            if gap < OUTAGE:
                wrong.append(f"{who}: no outage without rescue, gap {milliseconds(gap)}")
        elif gap > bound + track.late:
            wrong.append(f"{who}: gap {milliseconds(gap)}, {track.errors(at)}")
    return wrong


def serve(place: Site, way: str) -> tuple[Box, dict[str, Box], list[str], int]:
    """The endpoint that is to go, all of them, and where clients find it."""
    host = place.hosts[0]
    at_host = [host.leg.ipv4, host.leg.ipv6]
    if way == "published":
        boxes = place.serve("web", publish=PUBLISHED)
        return boxes["a"], boxes, at_host, PUBLISHED
    if way == "host network":
        boxes = place.serve("web", network="host", port=PUBLISHED)
        return boxes["a"], boxes, at_host, PUBLISHED
    boxes = place.serve("web")
    box = boxes["a"]
    return box, boxes, [box.ipv4, box.ipv6], PORT


def suffer(place: Site, rescue: str, fault: Fault, way: str, seen: Table) -> None:
    """One fault, from before it until all is over."""
    a, b, c = place.hosts
    box, boxes, mine, port = serve(place, way)
    place.resolve(b, "web", mine)
    todo = {where: tasks(mine, port) for where in fault.clients}
    if way == "published" and "container a" in todo:
        # Docker's own proxy answers datagrams from another address than they were sent to.
        todo["container a"] = tasks(mine, port, ["tcp"])
    after, bound = AFTER, BOUND
    undone = False
    try:
        with crowd(place.places(fault.clients), todo) as clients:
            with place.lab.poller("web", interval=0.005, hosts=(b, c)) as poller:
                poller.wait(lambda answer: mine[0] in answer.addresses)
                at = fault.act(a, box)
                gone = poller.wait(lambda answer: mine[0] not in answer.addresses, after=at)
                known = max(gone.values()) - at
            if fault.detected:
                bound = known + BOUND
                seen.note(f"{fault.name}, {way}, rescue {rescue}: seen by all after {known:.2f} s")
                assert known < DETECTED
            time.sleep(max(0.0, at + known + after - time.monotonic()))
            tracks = clients.end()
        fault.undo(a, box)
        undone = True
    finally:
        if not undone:
            fault.undo(a, box)
        if fault.detected:
            settled(place.lab)
    for track in tracks:
        seen.add(f"{fault.name}, {way}", rescue, track, at)
    assert not (wrong := judge(tracks, at, rescue, bound)), "\n".join(wrong)
    if rescue == "on":
        living = {boxes["b"].name, boxes["c"].name}
        for track in tracks:
            # Some of the first after the end of the gap may still have been on their way.
            late = track.names(at + known + BOUND)
            assert set(late) <= living, (track.client, str(track.task), late)
            assert late, (track.client, str(track.task))


def named(fault: Fault) -> str:
    """For the names of tests."""
    return fault.name.replace(" ", "-")


@pytest.mark.parametrize("fault", FAULTS, ids=named)
def test_routed(switched: Site, rescue: str, fault: Fault, seen: Table) -> None:
    """The containers' own addresses."""
    suffer(switched, rescue, fault, "routed", seen)


@pytest.mark.parametrize("way", ["published", "host network"])
def test_at_the_host(switched: Site, rescue: str, way: str, seen: Table) -> None:
    """The host's addresses, with one fault."""
    suffer(switched, rescue, FAULTS[0], way, seen)


@pytest.mark.parametrize("fault", FAULTS[1:], ids=named)
def test_published(place: Site, fault: Fault, seen: Table) -> None:
    """The other faults; the control is that of the first."""
    place.become(ON)
    suffer(place, "on", fault, "published", seen)


def test_dockerd_restart(switched: Site, rescue: str, seen: Table) -> None:
    """Containers outlive their engine; nobody loses anything, with rescue or without."""
    place = switched
    a, b, _ = place.hosts
    boxes = place.serve("web")
    mine = [boxes["a"].ipv4, boxes["a"].ipv6]
    place.resolve(b, "web", mine)
    with crowd(place.places(NEAR), {where: tasks(mine, PORT) for where in NEAR}) as clients:
        at = time.monotonic()
        a.engine.restart()
        time.sleep(0.5)
        tracks = clients.end()
    for track in tracks:
        seen.add("dockerd restart", rescue, track, at)
        assert not track.failed(at), (track.client, str(track.task), track.errors(at))
        assert set(track.names(at)) == {boxes["a"].name}
