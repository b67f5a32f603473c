"""Connections of a pool, idle in the middle of a request, when their server is gone.

Without rescue nobody tells the client of a paused container or of a dead host, so it waits.
"""

from __future__ import annotations

import time

import pytest

from tests.lab.rescue.clients import Task, Track, crowd
from tests.lab.rescue.site import PORT, Site, settled
from tests.lab.rescue.table import Table, milliseconds
from tests.lab.rescue.test_faults import (
    DETECTED,
    FAR,
    Fault,
    crash,
    die,
    pause,
    revive,
    unpause,
)  # fmt: skip

pytestmark = pytest.mark.lab

AT_ONCE = 0.5
"""Seconds; 50 ms are the goal. The rest is room for a loaded machine."""
HANGING = 1.2
"""Seconds that a client is watched to wait without rescue."""
FAULTS = [
    Fault("crash", crash),
    Fault("docker pause", pause, unpause),
    Fault("host death", die, revive, FAR, detected=True),
]


def told(track: Track, at: float) -> float | None:
    """When the idle connection broke after `at`; None: it never did."""
    ends = [one.end for one in track.requests if one.end >= at and one.outcome != "!end"]
    return min(ends, default=None)


def recovered(track: Track, at: float) -> float | None:
    """When the client had an answer on a new connection after `at`."""
    ends = [one.end for one in track.requests if one.good and one.end >= at]
    return min(ends, default=None)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_idle_connections(switched: Site, rescue: str, fault: Fault, seen: Table) -> None:
    place = switched
    a, b, c = place.hosts
    boxes = place.serve("pool")
    box = boxes["a"]
    flows = [Task("held", box.ipv4, PORT), Task("held", box.ipv6, PORT)]
    place.resolve(b, "pool", [box.ipv4, box.ipv6])
    undone = False
    try:
        places = place.places(fault.clients)
        with crowd(places, dict.fromkeys(fault.clients, flows)) as clients:
            with place.lab.poller("pool", interval=0.005, hosts=(b, c)) as poller:
                poller.wait(lambda answer: box.ipv4 in answer.addresses)
                at = fault.act(a, box)
                gone = poller.wait(lambda answer: box.ipv4 not in answer.addresses, after=at)
                known = max(gone.values()) - at if fault.detected else 0.0
            time.sleep(HANGING)
            tracks = clients.end()
        fault.undo(a, box)
        undone = True
    finally:
        if not undone:
            fault.undo(a, box)
        if fault.detected:
            settled(place.lab)
    assert known < DETECTED
    living = {boxes["b"].name, boxes["c"].name}
    for track in tracks:
        assert track.requests[0].outcome == box.name, "the connection was there before the fault"
        end, back = told(track, at), recovered(track, at)
        seen.note(
            f"idle connection, {fault.name}, rescue {rescue}, {track.client}, {track.task}: "
            + ("not told" if end is None else f"told after {milliseconds(end - at)}")
            + ("" if back is None else f", new answer after {milliseconds(back - at)}")
            + (f" (host out of DNS after {milliseconds(known)})" if fault.detected else "")
        )
        if rescue == "on":
            assert end is not None, (track.client, str(track.task))
            assert end - at < known + AT_ONCE + track.late
            assert back is not None, (track.client, str(track.task))
            assert back - at < known + AT_ONCE + track.late
            assert {one.outcome for one in track.requests if one.good and one.end >= at} <= living
        elif fault.name != "crash":  # the kernel closes the connections of a process that ends
            assert end is None, (track.client, str(track.task), track.requests)
        else:
            assert back is None, "nobody is there for a new connection"
