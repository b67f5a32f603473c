"""Addresses of services that never change, on three hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from tests.lab.daemon import Config, until
from tests.lab.engine import Box
from tests.lab.rescue.clients import Task, Track, crowd
from tests.lab.rescue.site import PORT, Site, default_routes, drop_servers, tasks
from tests.lab.rescue.table import Table, milliseconds

pytestmark = pytest.mark.lab

POOL4, POOL6 = "10.99.0.0/24", "2001:db8:99::/112"
CONFIG: Config = {"rescue": {"enabled": True}, "vip": {"pool": [POOL4, POOL6]}}
WHERES = ("container a", "container b", "host c")
GAP = 0.5
HELD = 12


@pytest.fixture
def vips(place: Site) -> Iterator[Site]:
    """The three hosts with a pool of addresses; they have a default route, as hosts do."""
    for host in place.hosts:
        default_routes(host)
    place.become(CONFIG)
    yield place
    drop_servers(place)
    for host in place.hosts:
        default_routes(host, "del")


def address_of(site: Site, service: str) -> list[str]:
    """The service's address in each family, once every host answers with the same alone."""

    def same() -> list[str] | None:
        found = {tuple(host.addresses(service)) for host in site.hosts}
        if len(found) != 1:
            return None
        (one,) = found
        fits = len(one) == 2 and all(
            ip_address(x) in ip_network(POOL6 if ":" in x else POOL4) for x in one
        )
        return list(one) if fits else None

    return until(same, deadline=20, what=f"one address of {service} on all hosts") or []


def serve(site: Site, service: str, weights: tuple[int, ...] = (), **labels: str) -> dict[str, Box]:
    """One endpoint on each host, with its own weight."""
    chosen = weights or (100,) * len(site.hosts)
    return {
        host.name: site.start(
            host, service, labels={"vip": "auto", "weight": str(weight), **labels}
        )
        for host, weight in zip(site.hosts, chosen, strict=True)
    }


def ready(site: Site, address: str, names: set[str]) -> None:
    """Wait until every place reaches all endpoints by the address."""

    def reached() -> bool:
        flows = {where: tasks([address], PORT, ["tcp"] * 4) for where in WHERES}
        with crowd(site.places(WHERES), flows, settle=0.3) as clients:
            tracks = clients.end()
        return all(
            {n for t in tracks if t.client == where for n in t.names()} == names for where in WHERES
        )

    until(reached, deadline=20, what=f"{address} reaches {sorted(names)}")


def measure(site: Site, flows: list[Task], seconds: float, rate: float = 50) -> list[Track]:
    """The same flows from every place for some time."""
    with crowd(site.places(WHERES), dict.fromkeys(WHERES, flows), rate=rate) as clients:
        time.sleep(seconds)
        return clients.end()


def test_spread_by_weight(vips: Site, seen: Table) -> None:
    boxes = serve(vips, "weighty", (100, 100, 200))
    names = {box.name for box in boxes.values()}
    addresses = address_of(vips, "weighty")
    for address in addresses:
        ready(vips, address, names)
    tracks = measure(vips, tasks(addresses, PORT, ["tcp", "udp-new"]), 4.0)
    for track in tracks:
        assert not track.errors(0.0), (track.client, str(track.task), track.errors(0.0))
        counts, total = track.names(), len(track.requests)
        share = {host: counts.get(box.name, 0) / total for host, box in boxes.items()}
        seen.note(
            f"VIP, weights 100:100:200, {track.client}, {track.task}: "
            + ":".join(f"{share[h]:.2f}" for h in "abc") + f" of {total}"
        )  # fmt: skip
        # Five standard deviations of so many even draws.
        slack = 5 * (0.25 / total) ** 0.5
        for host, wanted in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
            assert abs(share[host] - wanted) < slack, (track.client, str(track.task), share)


def test_an_endpoint_dies(vips: Site, seen: Table) -> None:
    """New connections go to the others at once; established ones to the others are not touched."""
    boxes = serve(vips, "mortal")
    names = {box.name for box in boxes.values()}
    addresses = address_of(vips, "mortal")
    for address in addresses:
        ready(vips, address, names)
    held = [Task("held", address, PORT) for address in addresses for _ in range(HELD // 2)]
    flows = [*held, *tasks(addresses, PORT, ["tcp", "udp", "udp-new"])]
    with crowd(vips.places(WHERES), dict.fromkeys(WHERES, flows)) as clients:
        at = vips.lab["c"].engine.crash(boxes["c"])
        time.sleep(2.0)
        tracks = clients.end()
    kept = broken = 0
    for track in tracks:
        who = (track.client, str(track.task))
        if track.task.kind == "held":
            first = track.requests[0]
            ends = [one for one in track.requests if one.start == first.start and one is not first]
            assert first.good, (*who, track.requests)
            assert len(ends) == 1, (*who, track.requests)
            if first.outcome == boxes["c"].name:
                broken += 1
                assert ends[0].outcome != "!end", who
                assert track.requests[-2].outcome != boxes["c"].name, (*who, track.requests)
            else:
                kept += 1
                assert ends[0].outcome == "!end", (*who, track.requests)
        else:
            seen.add("VIP, endpoint crash", "on", track, at)
            assert track.gap(at) < GAP + track.late, (*who, milliseconds(track.gap(at)))
            assert boxes["c"].name not in track.names(at + GAP), who
    seen.note(f"VIP, endpoint crash: {kept} connections to others kept, {broken} to it ended")
    assert kept
    assert broken
    assert address_of(vips, "mortal") == addresses


def test_it_outlives_all_its_endpoints(vips: Site) -> None:
    boxes = serve(vips, "phoenix")
    addresses = address_of(vips, "phoenix")
    other = serve(vips, "neighbour")
    assert not set(address_of(vips, "neighbour")) & set(addresses)
    for host in vips.hosts:
        host.engine.drop(boxes[host.name])
    until(
        lambda: all(not [x for x in h.catalog() if x[0] == "phoenix"] for h in vips.hosts),
        what="no endpoint",
    )
    flows = tasks(addresses, PORT, ["tcp"])

    def refused() -> bool:
        return all(set(t.errors(0.0)) == {"!ECONNREFUSED"} for t in measure(vips, flows, 0.3, 20))

    until(refused, deadline=15, what="refused while there is none")
    again = serve(vips, "phoenix")
    assert address_of(vips, "phoenix") == addresses
    for address in addresses:
        ready(vips, address, {box.name for box in again.values()})
    assert other


def test_affinity(vips: Site, seen: Table) -> None:
    """One endpoint a client, for all its connections."""
    boxes = serve(vips, "sticky", affinity="client")
    names = {box.name for box in boxes.values()}
    addresses = address_of(vips, "sticky")
    flows = tasks(addresses, PORT, ["tcp", "udp-new"])

    def steady() -> bool:
        tracks = measure(vips, flows, 0.5, 20)
        return all(
            len(t.names()) == 1 and not t.errors(0.0) and set(t.names()) <= names for t in tracks
        )

    until(steady, deadline=20, what="each client has one endpoint")
    tracks = measure(vips, flows, 2.0)
    for track in tracks:
        assert len(track.names()) == 1, (track.client, str(track.task), track.names())
        seen.note(f"VIP, affinity, {track.client}, {track.task}: {track.names()}")
