"""Rescue where BGP alone lets containers of different hosts meet; Docker's firewalls are shut."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.bgp.world import Unrouted, World
from tests.lab.daemon import until
from tests.lab.rescue.clients import crowd
from tests.lab.rescue.site import ON, PORT, Site, default_routes, settled, tasks
from tests.lab.rescue.table import Table
from tests.lab.rescue.test_faults import BOUND, DETECTED, FAULTS, Fault, judge
from tests.lab.rig import offer

pytestmark = pytest.mark.lab

CRASH, DEATH = FAULTS[0], FAULTS[-1]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Site]:
    """Three hosts that tell each other their containers' addresses."""
    config = {"log": {"level": "info"}, **ON}
    with Unrouted(3, memory=True, config=config, discod=False) as lab:
        world = World(lab)
        try:
            site = Site(lab)
            # Only what is offered gets a route.
            site.populate(offer("client", 9))
            for host in lab.hosts:
                default_routes(host)
            world.become("mesh")
            settled(lab)
            yield site
        finally:
            world.close()


@pytest.mark.parametrize("fault", [CRASH, DEATH], ids=lambda fault: fault.name.replace(" ", "-"))
def test_mesh(mesh: Site, fault: Fault, seen: Table) -> None:
    a, b, c = mesh.hosts
    service = f"web{FAULTS.index(fault)}"
    boxes = mesh.serve(service)
    box = boxes["a"]
    mine = [box.ipv4, box.ipv6]
    flows = tasks(mine, PORT)
    places = mesh.places(fault.clients)

    def works() -> bool:
        with crowd(places, dict.fromkeys(fault.clients, flows), rate=20, settle=0.2) as clients:
            return all(set(track.names()) == {box.name} and not track.errors(0.0)
                       for track in clients.end())  # fmt: skip

    until(works, deadline=20, what="containers meet over BGP")
    try:
        with crowd(places, dict.fromkeys(fault.clients, flows)) as clients:
            with mesh.lab.poller(service, interval=0.005, hosts=(b, c)) as poller:
                poller.wait(lambda answer: mine[0] in answer.addresses)
                at = fault.act(a, box)
                gone = poller.wait(lambda answer: mine[0] not in answer.addresses, after=at)
                known = max(gone.values()) - at
            time.sleep(1.5)
            tracks = clients.end()
    finally:
        fault.undo(a, box)
    assert known < DETECTED
    for track in tracks:
        seen.add(f"{fault.name}, BGP mesh", "on", track, at)
    bound = BOUND + (known if fault.detected else 0.0)
    assert not (wrong := judge(tracks, at, "on", bound)), "\n".join(wrong)
    living = {boxes["b"].name, boxes["c"].name}
    for track in tracks:
        late = set(track.names(at + known + BOUND))
        assert late, (track.client, str(track.task))
        assert late <= living, (track.client, str(track.task), late)
