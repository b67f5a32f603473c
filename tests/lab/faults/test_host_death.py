"""A host that dies leaves DNS on all others long before its lease; a living one never does."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.daemon import Config, until
from tests.lab.engine import Box
from tests.lab.faults.promises import HOST_BACK, HOST_OUT
from tests.lab.faults.table import Table
from tests.lab.rig import Host, Lab, offer

pytestmark = pytest.mark.lab

LEASE = 10
"""Seconds, the default: what is seen sooner is not the lease's doing."""
SHORT_LEASE = 3
LEASE_LATE = 4.0
"""Seconds beyond the lease's end: etcd looks twice a second, and an election may prolong it."""
DEATHS = 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three hosts with the default lease, and nothing else in their way."""
    with Lab(3, lease_ttl=LEASE, config={"log": {"level": "info"}}) as lab:
        yield lab


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take all containers away after each test."""
    lab = request.getfixturevalue("lab") if "lab" in request.fixturenames else None
    yield
    if lab is not None:
        lab.clear()


def boxes(lab: Lab, name: str) -> dict[str, Box]:
    """One endpoint of a service on each host, known everywhere."""
    made = {host.name: host.engine.box(f"{name}-{host.name}", offer(name)) for host in lab.hosts}
    lab.everywhere(name, [a for box in made.values() for a in (box.ipv4, box.ipv6)], deadline=20)
    settled(lab)
    return made


def settled(lab: Lab) -> None:
    """Wait until every host watches all others and trusts what it sees."""
    names = {host.name for host in lab.hosts}
    for host in lab.hosts:
        others = [f'discod_liveness_host_up{{host="{n}"}}' for n in sorted(names - {host.name})]
        until(
            lambda h=host, o=others: all(h.discod.metrics().get(k) == 1 for k in o),  # type: ignore[misc]
            deadline=20,
            what=f"{host.name} sees all others",
        )


def silenced(lab: Lab) -> float:
    """How often any host was taken as lost, on all hosts together."""
    return sum(h.discod.metrics()["discod_liveness_confirmed_total"] for h in lab.hosts)


@contextmanager
def unharmed(lab: Lab, name: str, faults: Table, fault: str) -> Iterator[None]:
    """Whatever happens inside, every host answers with all endpoints all the time."""
    made = boxes(lab, name)
    wanted = tuple(sorted(box.ipv4 for box in made.values()))
    before = silenced(lab)
    with lab.poller(name, interval=0.005) as poller:
        poller.wait(lambda a: a.addresses == wanted)
        yield
        after = silenced(lab)
        odd = {
            host: [seen.answer for seen in track.changes if seen.answer.addresses != wanted]
            for host, track in poller.tracks.items()
        }
    assert not any(odd.values()), odd
    assert after == before
    faults.add(fault, missing=0.0)  # asserted above: no answer has changed


def die(host: Host) -> float:
    """Everything of the host at once: nobody sends, nobody answers."""
    at = time.monotonic()
    host.leg.cut()
    return at


def test_a_dead_host_is_out_long_before_its_lease(lab: Lab, faults: Table) -> None:
    made = boxes(lab, "web")
    worst, back, times = 0.0, 0.0, []
    for n in range(DEATHS):
        owner = lab.hosts[n % 3]
        others = [host for host in lab.hosts if host is not owner]
        box = made[owner.name]
        with lab.poller("web", interval=0.002, hosts=others) as poller:
            poller.wait(lambda a, b=box: b.ipv4 in a.addresses)  # type: ignore[misc]
            at = die(owner)
            gone = poller.wait(lambda a, b=box: b.ipv4 not in a.addresses, after=at)  # type: ignore[misc]
            answer = others[0].discod.api("/v1/explain?q=web")
            row = next(
                one
                for one in others[0].discod.api("/v1/hosts")["hosts"]
                if one["name"] == owner.name
            )
            healed = time.monotonic()
            owner.heal()
            again = poller.wait(lambda a, b=box: b.ipv4 in a.addresses, after=healed)  # type: ignore[misc]
        times += [when - at for when in gone.values()]
        worst = max(worst, *(when - at for when in gone.values()))
        back = max(back, *(when - healed for when in again.values()))
        assert any(f["reason"] == "host-silent" for f in answer["findings"]), answer
        assert any("by the word of" in note for note in answer["notes"])
        assert set(row["silent"]["witnesses"]) <= {host.name for host in others}
        settled(lab)
    print(f"out: median {statistics.median(times):.2f} s, worst {worst:.2f} s; back {back:.2f} s")
    assert worst < HOST_OUT
    assert back < HOST_BACK
    faults.add(
        "host dead, lease 10 s", wrong=worst, converged=back, control="liveness off: the lease"
    )


def test_without_liveness_only_the_lease_takes_it_out(faults: Table) -> None:
    """The negative control, with a short lease to be quick."""
    config: Config = {"liveness": {"enabled": False}, "log": {"level": "info"}}
    with Lab(3, lease_ttl=SHORT_LEASE, config=config) as lab:
        a, b, c = lab.hosts
        box = a.engine.box("dies", offer("web"))
        lab.everywhere("web", [box.ipv4, box.ipv6])
        with lab.poller("web", interval=0.002, hosts=[b, c]) as poller:
            poller.wait(lambda x: box.ipv4 in x.addresses)
            at = die(a)
            gone = poller.wait(lambda x: box.ipv4 not in x.addresses, after=at, deadline=20)
        least, most = min(gone.values()) - at, max(gone.values()) - at
        # A keepalive each third of the lease: two thirds are left at least.
        assert least > SHORT_LEASE * 2 / 3 - 0.3
        assert most < SHORT_LEASE + LEASE_LATE
        faults.add("control: host dead, liveness off, lease 3 s", wrong=most)
        a.heal()


def test_a_daemon_that_is_killed_and_restarted_is_no_dead_host(lab: Lab, faults: Table) -> None:
    with unharmed_elsewhere(lab, "again", faults, "discod killed, back after 3 s") as owner:
        owner.discod.kill()
        time.sleep(3.0)
        owner.discod.start()


def test_a_daemon_that_hangs_is_no_dead_host(lab: Lab, faults: Table) -> None:
    with unharmed_elsewhere(lab, "hangs", faults, "discod stopped (SIGSTOP) for 5 s") as owner:
        os.kill(owner.discod.pid, signal.SIGSTOP)
        try:
            time.sleep(5.0)
        finally:
            os.kill(owner.discod.pid, signal.SIGCONT)


@contextmanager
def unharmed_elsewhere(lab: Lab, name: str, faults: Table, fault: str) -> Iterator[Host]:
    """As `unharmed`, where the daemon of one host (handed out) may itself be away."""
    made = boxes(lab, name)
    owner, *others = lab.hosts
    wanted = tuple(sorted(box.ipv4 for box in made.values()))
    with lab.poller(name, interval=0.005, hosts=others) as poller:
        poller.wait(lambda a: a.addresses == wanted)
        before = [h.discod.metrics()["discod_liveness_confirmed_total"] for h in others]
        yield owner
        settled(lab)
        after = [h.discod.metrics()["discod_liveness_confirmed_total"] for h in others]
        odd = [
            (host, seen.answer)
            for host, track in poller.tracks.items()
            for seen in track.changes
            if seen.answer.addresses != wanted
        ]
    assert not odd, odd
    assert after == before
    faults.add(fault, missing=0.0, control="unit: without knocks it is taken as lost")


def test_a_starved_machine_silences_nobody(lab: Lab, faults: Table) -> None:
    with unharmed(lab, "starved", faults, "processors starved for 8 s"):
        burners = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(3 * (os.cpu_count() or 2))
        ]
        try:
            time.sleep(8.0)
        finally:
            for one in burners:
                one.kill()
                one.wait()


RULE = "add rule inet fault {chain} {what} drop\n"
TABLE = (
    "add table inet fault\n"
    "add chain inet fault in {{ type filter hook input priority -300; }}\n"
    "add chain inet fault out {{ type filter hook output priority -300; }}\n"
)


@contextmanager
def dropping(host: Host, *rules: tuple[str, str]) -> Iterator[None]:
    """Drop packets on a host: (chain ``in`` or ``out``, what)."""
    text = TABLE.format() + "".join(RULE.format(chain=c, what=w) for c, w in rules)
    host.space.sh("nft", "-f", "-", stdin=text)
    try:
        yield
    finally:
        host.space.sh("nft", "delete", "table", "inet", "fault")


def test_lost_packets_silence_nobody(lab: Lab, faults: Table) -> None:
    """5 % of all packets between hosts, and the kernels have no netem: by nftables."""
    lossy = [("in", 'iifname "eth0" numgen random mod 100 < 5')]
    with unharmed(lab, "lossy", faults, "5 % of packets lost for 20 s"):
        a, b, c = lab.hosts
        with dropping(a, *lossy), dropping(b, *lossy), dropping(c, *lossy):
            time.sleep(20.0)


def test_one_way_between_two_hosts_is_no_death(lab: Lab, faults: Table) -> None:
    """a does not hear b; c hears both, and its word counts."""
    a, b, _ = lab.hosts
    with (
        unharmed(lab, "oneway", faults, "one way cut between two of three hosts"),
        dropping(a, ("in", f"ip saddr {b.leg.ipv4}"), ("in", f"ip6 saddr {b.leg.ipv6}")),
    ):
        time.sleep(5.0)


def test_a_host_cut_off_from_the_store_alone_is_not_silenced(lab: Lab, faults: Table) -> None:
    """Less than the lease: what is asked here is whether the others keep seeing it."""
    a, *_ = lab.hosts
    ports = "tcp dport { 2379, 2380 }"
    with (
        unharmed(lab, "storeless", faults, "one host cut off from the store for 5 s"),
        dropping(a, ("out", ports), ("in", ports), ("in", "tcp sport { 2379, 2380 }")),
    ):
        time.sleep(5.0)
