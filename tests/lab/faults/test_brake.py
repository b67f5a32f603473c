"""The mass-withdrawal brake: a store that loses everything takes nothing out of DNS that lives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.daemon import until
from tests.lab.dnspoll import Answer, Poller
from tests.lab.engine import Box
from tests.lab.faults.promises import BACK
from tests.lab.faults.table import Table
from tests.lab.rig import LEASE_TTL, Host, Lab, offer

pytestmark = pytest.mark.lab

BOXES = 2
"""Containers a host: with three hosts and two address families 12 endpoints."""
DEAD_GONE = 12.0
"""Seconds until a dead container whose host is dumb is out: 3.6 until the next probe, two probes of
1 s, 0.6 between them; doubled, for a machine with two busy cores."""
EXPIRED = LEASE_TTL + 4.0
"""Seconds until etcd has ended the lease of a frozen daemon: it looks each half second, and gives
a TTL more after an election."""
APART = 2 * (LEASE_TTL / 3 + 1.0)
"""Seconds between the ends of two leases (a keepalive apart, and two looks of etcd), doubled for
noise: the first host's loss alone is believed until the second follows."""
OFF = {"brake": {"enabled": False}}


@pytest.fixture
def boxes(three: Lab) -> dict[str, list[Box]]:
    """Containers on each host, all of the service ``web``, that serve TCP."""
    return offered(three)


def offered(lab: Lab) -> dict[str, list[Box]]:
    made = {
        host.name: [host.engine.box(f"{host.name}{n}", offer("web")) for n in range(BOXES)]
        for host in lab.hosts
    }
    lab.everywhere("web", addresses(made, lab.hosts))
    return made


def addresses(boxes: dict[str, list[Box]], hosts: list[Host]) -> list[str]:
    return [a for host in hosts for box in boxes[host.name] for a in (box.ipv4, box.ipv6)]


def v4(boxes: dict[str, list[Box]]) -> set[str]:
    return {box.ipv4 for ones in boxes.values() for box in ones}


def short(poller: Poller, alive: set[str], begin: float, end: float) -> float:
    """The longest time within which a host's answers lacked one of `alive`; of all the worst."""
    worst = 0.0
    for track in poller.tracks.values():
        since = None
        for seen in track.changes:
            lacks = bool(alive - set(seen.answer.addresses))
            at = min(max(seen.at, begin), end)
            if lacks and since is None:
                since = at
            elif not lacks and since is not None:
                worst, since = max(worst, at - since), None
        if since is not None:
            worst = max(worst, end - since)
    return worst


def unsuspected(lab: Lab) -> bool:
    return all(host.discod.metrics()["discod_suspects"] == 0 for host in lab.hosts)


def stored(lab: Lab) -> int:
    keys = lab.etcdctl("get", "--prefix", "--keys-only", "/skydns/").split()
    return sum("/web/" in key for key in keys)


@contextmanager
def stopped(*hosts: Host) -> Iterator[None]:
    """The daemons of some hosts stand still; their containers run."""
    for host in hosts:
        os.kill(host.discod.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for host in hosts:
            os.kill(host.discod.pid, signal.SIGCONT)


def test_all_records_deleted_by_hand(
    three: Lab, boxes: dict[str, list[Box]], faults: Table
) -> None:
    before = three["a"].discod.metrics()["discod_brake_engaged_total"]
    with three.poller("web") as poller:
        poller.wait(lambda answer: set(answer.addresses) == v4(boxes))
        begin = time.monotonic()
        three.etcdctl("del", "--prefix", "/skydns/")
        until(lambda: stored(three) == 2 * BOXES * 3, deadline=BACK, what="announced again")
        until(lambda: unsuspected(three), deadline=BACK, what="no suspects")
        end = time.monotonic()
        missing = short(poller, v4(boxes), begin, end)
    assert missing == 0
    assert three["a"].discod.metrics()["discod_brake_engaged_total"] == before + 1
    for host in three.hosts:
        assert "brake engaged" in host.discod.log
        assert "brake let go" in host.discod.log
    faults.add("etcd: all records deleted", missing=missing, converged=end - begin)


def test_an_emptied_store_and_a_death_meanwhile(
    three: Lab, boxes: dict[str, list[Box]], faults: Table
) -> None:
    assert three.etcd is not None
    dies = boxes["b"][0]
    alive = v4(boxes) - {dies.ipv4}

    def without(answer: Answer) -> bool:
        return dies.ipv4 not in answer.addresses

    with three.poller("web") as poller:
        poller.wait(lambda answer: set(answer.addresses) == v4(boxes))
        begin = time.monotonic()
        for member in three.etcd.members:
            member.kill()
            member.wipe()
        died = three["b"].engine.crash(dies)
        three.etcd.start()
        back = time.monotonic()
        gone = max(poller.wait(without, after=died, deadline=DEAD_GONE).values())
        until(lambda: stored(three) == 2 * (BOXES * 3 - 1), deadline=BACK, what="announced again")
        until(lambda: unsuspected(three), deadline=BACK, what="no suspects")
        end = time.monotonic()
        missing = short(poller, alive, begin, end)
        wrong = max(
            (
                seen.at - died
                for track in poller.tracks.values()
                for seen in track.changes
                if seen.at > died and dies.ipv4 in seen.answer.addresses
            ),
            default=0.0,
        )
    assert missing == 0
    assert gone - died < DEAD_GONE
    assert wrong < DEAD_GONE, "it came back later"
    assert end - back < BACK
    left = [a for a in addresses(boxes, three.hosts) if a not in (dies.ipv4, dies.ipv6)]
    three.everywhere("web", left)
    faults.add(
        "etcd: emptied, a container dies",
        wrong=max(gone - died, wrong),
        missing=missing,
        converged=end - back,
    )


def wait_for_c_alone(lab: Lab) -> None:
    """Wait until etcd has ended the leases of the two frozen daemons, and `c` has heard of it."""
    c = lab["c"]
    until(lambda: stored(lab) == 2 * BOXES, deadline=EXPIRED, step=0.1, what="leases end")
    until(
        lambda: c.discod.api("/v1/catalog")["counts"]["hosts"] == 1,
        deadline=EXPIRED,
        what="c has heard",
    )


def test_two_hosts_lost_whose_containers_run(
    three: Lab, boxes: dict[str, list[Box]], faults: Table
) -> None:
    """Also the probes: a container that dies while nobody speaks for it leaves."""
    a, b, c = three.hosts
    everything = sorted(addresses(boxes, three.hosts))
    with three.poller("web", hosts=[c]) as poller, stopped(a, b):
        begin = poller.first("c", lambda answer: set(answer.addresses) == v4(boxes))
        wait_for_c_alone(three)
        until(lambda: c.addresses("web") == everything, deadline=2.0, what="kept")
        explained = c.discod.api("/v1/explain?q=web")
        assert [f["state"] for f in explained["findings"]].count("suspect") == 4 * BOXES
        assert explained["in_dns"]
        up = c.discod.api("/v1/services/web")["up"]
        assert sum(one["suspect"] is not None for one in up) == 4 * BOXES
        dies = boxes["a"][0]
        died = a.engine.crash(dies)
        left = [address for address in everything if address not in (dies.ipv4, dies.ipv6)]
        three.everywhere("web", left, hosts=[c], deadline=DEAD_GONE)
        gone = time.monotonic() - died
        missing = short(poller, v4(boxes) - {dies.ipv4}, begin, time.monotonic())
        assert c.discod.metrics()['discod_suspects_dropped_total{why="failed"}'] == 2
        assert c.discod.request("GET", "/readyz")[0] == 200
    assert missing < APART
    thawed = time.monotonic()
    three.everywhere("web", left, deadline=BACK)
    until(lambda: unsuspected(three), deadline=BACK, what="no suspects")
    faults.add(
        "leases: two hosts lost, containers run",
        wrong=gone,
        missing=missing,
        converged=time.monotonic() - thawed,
        control="the other host answers without them",
    )


def test_without_the_brake_two_lost_hosts_leave_dns() -> None:
    """The negative control of both: with the brake off, what the store lost is gone."""
    with Lab(3, config=OFF) as lab:
        boxes = offered(lab)
        a, b, c = lab.hosts
        with lab.poller("web", hosts=[c]) as poller:
            begin = poller.first("c", lambda answer: set(answer.addresses) == v4(boxes))
            lab.etcdctl("del", "--prefix", "/skydns/")
            until(lambda: stored(lab) == 2 * BOXES * 3, deadline=BACK, what="announced again")
            lab.everywhere("web", addresses(boxes, lab.hosts))
            lacking = short(poller, v4(boxes), begin, time.monotonic())
        assert lacking > 0, "deleted records have to be seen without the brake"
        with stopped(a, b):
            wait_for_c_alone(lab)
            lab.everywhere("web", addresses(boxes, [c]), hosts=[c], deadline=2.0)
        lab.everywhere("web", addresses(boxes, lab.hosts), deadline=BACK)
