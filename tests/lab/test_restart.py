"""The daemon comes and goes; answers do not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.daemon import until
from tests.lab.rig import Lab, offer

pytestmark = pytest.mark.lab

LEASE = 10
"""Seconds, as shipped: at least two thirds of it are left when a daemon goes."""


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    """Three hosts with the lease that users have."""
    with Lab(3, lease_ttl=LEASE) as lab:
        yield lab


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_restart_within_the_lease_causes_no_gap_and_no_duplicate(three: Lab, how: str) -> None:
    a, b, c = three.hosts
    boxes = [host.engine.box(f"keep-{host.name}", offer("keep")) for host in three.hosts]
    wanted = tuple(sorted(box.ipv4 for box in boxes))
    three.everywhere("keep", [address for box in boxes for address in (box.ipv4, box.ipv6)])
    with three.poller("keep", interval=0.002) as poller:
        poller.wait(lambda answer: answer.addresses == wanted)
        if how == "SIGTERM":
            assert a.discod.terminate() == 0
        else:
            a.discod.kill()
        a.discod.start()
        # Longer than the lease: what was not taken over is gone by then.
        back = time.monotonic()
        until(lambda: time.monotonic() > back + LEASE + 1, deadline=30, step=0.5)
        until(lambda: all(t.last_at > back + LEASE for t in poller.tracks.values()))
        for host in (b, c):
            assert len(poller.tracks[host.name].changes) == 1, "no other answer than the whole"
        # The restarted host is silent for a moment, and may say SERVFAIL until it knows the
        # cluster; but whatever it answers is whole.
        said = {seen.answer for seen in poller.tracks["a"].changes if seen.answer.rcode != 2}
        assert {answer.addresses for answer in said} == {wanted}
        assert poller.tracks["a"].longest_silence < 5
    assert len(a.catalog()) == len(b.catalog()) == 6
    assert three.etcdctl("get", "--prefix", "--keys-only", "/skydns/").count("/keep/") == 6


def test_what_ended_meanwhile_is_out_after_a_restart(three: Lab) -> None:
    a, b, _ = three.hosts
    stays = a.engine.box("stays", offer("meanwhile"))
    dies = a.engine.box("dies", offer("meanwhile"))
    addresses = [stays.ipv4, stays.ipv6]
    three.everywhere("meanwhile", [*addresses, dies.ipv4, dies.ipv6])
    a.discod.kill()
    a.engine.crash(dies)
    a.engine.remove(dies.id)
    born = a.engine.box("born", offer("meanwhile"))
    a.discod.start()
    three.everywhere("meanwhile", sorted({*addresses, born.ipv4, born.ipv6}))
    # By container: Docker may give the dead one's addresses to the new one.
    until(lambda: {entry[2] for entry in b.catalog()} == {stays.id, born.id}, deadline=5)


def test_after_more_than_the_lease_everything_comes_back(three: Lab) -> None:
    a, b, c = three.hosts
    box = a.engine.box("late", offer("late"))
    three.everywhere("late", [box.ipv4, box.ipv6])
    a.discod.kill()
    three.everywhere("late", [], hosts=[b, c], deadline=25)
    a.discod.start()
    three.everywhere("late", [box.ipv4, box.ipv6])


def test_dockerd_restart_withdraws_nothing(three: Lab) -> None:
    a = three["a"]
    box = a.engine.box("live", offer("live"))
    three.everywhere("live", [box.ipv4, box.ipv6])
    with three.poller("live", interval=0.005) as poller:
        poller.wait(lambda answer: answer.addresses == (box.ipv4,))
        a.engine.kill()
        a.engine.start()
        born = a.engine.box("born", offer("born"))
        three.everywhere("born", [born.ipv4, born.ipv6], deadline=20)
        for track in poller.tracks.values():
            assert len(track.changes) == 1, track.changes


def test_a_crash_while_dockerd_is_down_is_seen(three: Lab) -> None:
    a = three["a"]
    box = a.engine.box("blind", offer("blind"))
    three.everywhere("blind", [box.ipv4, box.ipv6])
    a.engine.kill()
    try:
        a.engine.crash(box)
        three.everywhere("blind", [])
    finally:
        a.engine.start()
