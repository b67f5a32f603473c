"""Hosts that are cut off, wholly or by half, for long or again and again; and addresses that move.

What is expected here is the lease's doing alone: hosts do not watch each other in this lab, which
is `test_host_death`'s subject.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from discod.config import ConfigError, load_config
from tests.lab.daemon import ROOT, Config, Value, until
from tests.lab.dnspoll import NOERROR, SERVFAIL, Answer, Poller, Track
from tests.lab.engine import Box
from tests.lab.faults.promises import (
    AT_ONCE,
    BACK,
    EARLIEST,
    ELECTION,
    FLOOR_TTL,
    LEASE_SLACK,
    MOVED,
    SILENCE,
)
from tests.lab.faults.rough import RoughLine
from tests.lab.faults.table import Table
from tests.lab.rig import ETCD_PORT, LEASE_TTL, Host, Lab, full, offer

pytestmark = pytest.mark.lab

INTERVAL = 0.005
"""Seconds between two queries to one resolver: several names are asked for at the same time."""
HISTORY_TTL = 10
"""Seconds, the shortest: so that the long cut outlasts the record of withdrawals too."""
LONG_CUT = float(os.environ.get("DISCOD_LONG_CUT", HISTORY_TTL + 2))
"""Seconds; DISCOD_LONG_CUT=600 for the ten minutes of the promise."""
CALM_TTL = 10
"""The default lease, where what is tested is that it is *not* lost."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three hosts that judge each other by leases alone.

    With etcd's pre-vote, the default from 3.5 on: without it a member that was cut off comes back
    with a higher term, and makes the others elect anew, a second or two after its return.
    """
    config: dict[str, dict[str, Value]] = {"announce": {"withdrawal_ttl": f"{HISTORY_TTL}s"}}
    if "\n[liveness]\n" in (ROOT / "discod/example.toml").read_text():
        config["liveness"] = {"enabled": False}
    with Lab(3, memory=True, config=config, etcd_options=["--pre-vote"]) as made:
        yield made


@pytest.fixture(autouse=True)
def mended(lab: Lab) -> Iterator[None]:
    """Whatever a test has done: the network is whole, all run, and nothing is announced."""
    yield
    for host in lab.hosts:
        host.heal()
    for host in lab.hosts:
        if not host.discod.running:
            host.discod.start(ready=False)
        host.discod.wait_ready()
    lab.clear()


# Tools ------------------------------------------------------------------------------------------


def lead(lab: Lab, host: Host) -> None:
    """Make this host's etcd member the leader: who leads decides how long an outage takes."""
    assert lab.etcd is not None
    member = lab.etcd.members[lab.hosts.index(host)]

    def leads() -> bool:
        for one in lab.etcd.members if lab.etcd else ():
            done = one.etcdctl("endpoint", "status", "-w", "json", check=False)
            if done.returncode:
                return False
            status = json.loads(done.stdout)[0]["Status"]
            if status.get("leader") == status["header"]["member_id"]:
                if one is member:
                    return True
                wanted = member.etcdctl("endpoint", "status", "-w", "json").stdout
                id_ = json.loads(wanted)[0]["Status"]["header"]["member_id"]
                one.etcdctl("move-leader", f"{id_:x}", check=False)
        return False

    until(leads, deadline=20, step=0.1, what=f"{host.name}'s etcd member leads")


@contextmanager
def configured(host: Host, changes: Config, *, new_lease: bool = False) -> Iterator[None]:
    """Restart a host's discod with other settings, and back."""
    before = dict(host.discod.config)

    def restart() -> None:
        host.discod.stop()
        if new_lease:
            (host.discod.runtime / "lease.json").unlink(missing_ok=True)
        host.discod.write()
        host.discod.start()

    for table, keys in changes.items():
        host.discod.config[table] = {**before.get(table, {}), **keys}
    restart()
    try:
        yield
    finally:
        host.heal()
        host.discod.config = before
        restart()  # also of one that the test has killed


@contextmanager
def watching(lab: Lab, *names: str) -> Iterator[list[Poller]]:
    """Poll names on every host; each has been answered once everywhere."""
    with ExitStack() as stack:
        pollers = [stack.enter_context(lab.poller(name, interval=INTERVAL)) for name in names]
        for poller in pollers:
            poller.wait(bool)
        yield pollers


def has(box: Box) -> Callable[[Answer], bool]:
    """Whether an answer names a container."""
    return lambda answer: box.ipv4 in answer.addresses


def lacks(box: Box) -> Callable[[Answer], bool]:
    """Whether it does not."""
    return lambda answer: box.ipv4 not in answer.addresses


def seconds(track: Track, fits: Callable[[Answer], bool], start: float = 0.0) -> float:
    """How long a server's answers were such, all in all, after `start`."""
    ends = [seen.at for seen in track.changes[1:]] + [track.last_at]
    return sum(
        max(0.0, end - max(seen.at, start))
        for seen, end in zip(track.changes, ends, strict=True)
        if fits(seen.answer)
    )


def missing(poller: Poller, box: Box, hosts: str = "abc", start: float = 0.0) -> float:
    """The worst host: seconds without a living container, or without any answer beyond `SILENCE`
    (the shorter ones are the machine's)."""
    tracks = [poller.tracks[name] for name in hosts]
    silent = [t.longest_silence for t in tracks if t.longest_silence > SILENCE]
    return max([seconds(t, lacks(box), start) for t in tracks] + silent)


def wrong(poller: Poller, box: Box, since: float, hosts: str = "abc") -> float:
    """The worst host: seconds in which a container was named that had died at `since`."""
    return max(seconds(poller.tracks[name], has(box), since) for name in hosts)


def never_again(poller: Poller, box: Box) -> None:
    """Nobody who has once left a dead container out names it again, and nothing is doubled."""
    for name, track in poller.tracks.items():
        named = [box.ipv4 in seen.answer.addresses for seen in track.changes]
        assert sorted(named, reverse=True) == named, (name, track.changes)
        for seen in track.changes:
            assert len(set(seen.answer.addresses)) == len(seen.answer.addresses), (name, seen)


def converged(lab: Lab, since: float, *alive: tuple[Host, str, Box]) -> float:
    """Wait until every host's catalog is what lives; seconds since `since`."""
    running = sorted(id_ for host in lab.hosts for id_ in host.engine.alive())
    assert sorted(box.id for _, _, box in alive) == running, "the test's own book is right"
    expected = sorted(
        (service, f"{address}:8080", box.id)
        for _, service, box in alive
        for address in (box.ipv4, f"[{box.ipv6}]")
    )
    for host in lab.hosts:
        until(
            lambda host=host: host.catalog() == expected,  # type: ignore[misc]
            deadline=BACK + 5,
            what=f"{host.name} knows what lives",
        )
    return time.monotonic() - since


def start(lab: Lab, host: Host, name: str) -> Box:
    """A container that all know."""
    box = host.engine.box(name, offer(name), "sleep", "3600")
    lab.everywhere(name, [box.ipv4, box.ipv6])
    return box


def connected(host: Host) -> bool:
    return host.discod.metrics()["discod_store_connected"] == 1


# Cut off from etcd ------------------------------------------------------------------------------


def test_a_host_cut_off_from_etcd_but_not_from_its_clients(lab: Lab, faults: Table) -> None:
    a, _, c = lab.hosts
    lead(lab, a)
    stays, dies, far = start(lab, c, "stays"), start(lab, c, "dies"), start(lab, a, "far")
    with watching(lab, "stays", "dies", "far") as (p_stays, p_dies, p_far):
        cut = c.lose_etcd()
        died = c.engine.crash(dies)
        p_dies.wait(lacks(dies), after=died)
        # Told by hint, since etcd cannot have heard of it.
        assert wrong(p_dies, dies, died) < AT_ONCE
        for name in "ab":
            left = p_stays.first(name, lacks(stays), after=cut, deadline=20) - cut
            assert EARLIEST * LEASE_TTL < left < LEASE_TTL + LEASE_SLACK, name
        until(lambda: not connected(c), deadline=10, what="staleness is visible")
        c.heal()
        back = time.monotonic()
        p_stays.wait(has(stays), after=back, deadline=BACK)
        took = converged(lab, back, (c, "stays", stays), (a, "far", far))
        assert took < BACK
        lost = missing(p_stays, stays, "c")
        assert lost == 0, p_stays.tracks["c"].changes
        assert missing(p_far, far) == 0
        never_again(p_dies, dies)
    faults.add(
        "network: host without etcd, clients there",
        wrong=wrong(p_dies, dies, died),
        missing=max(missing(p_stays, stays, "c"), missing(p_far, far)),
        converged=took,
        control="restarted meanwhile: SERVFAIL; cut off from all: dead named till lease",
    )


def test_without_its_memory_the_same_hurts(lab: Lab) -> None:
    """The negative control: it is the Catalog in memory that goes on answering."""
    a, _, c = lab.hosts
    far = start(lab, a, "far")
    with watching(lab, "far") as (p_far,):
        c.lose_etcd()
        c.discod.kill()
        c.discod.start(ready=False)
        p_far.first("c", lambda answer: answer.rcode == SERVFAIL, deadline=20)
        c.heal()
        back = time.monotonic()
        p_far.first("c", has(far), after=back, deadline=20)
        assert seconds(p_far.tracks["c"], lacks(far)) > 0.1
        assert missing(p_far, far, "ab") == 0


def test_a_network_that_returns_after_a_long_time(lab: Lab, faults: Table) -> None:
    a, b, c = lab.hosts
    lead(lab, a)
    names = ("stays", "dies-there", "dies-here", "far")
    stays, there = start(lab, c, "stays"), start(lab, c, "dies-there")
    here, far = start(lab, a, "dies-here"), start(lab, a, "far")
    with watching(lab, *names) as (p_stays, p_there, p_here, p_far):
        cut = c.partition()
        died_there, died_here = c.engine.crash(there), a.engine.crash(here)
        p_there.first("c", lacks(there), after=died_there, deadline=5)
        for name in "ab":
            p_here.first(name, lacks(here), after=died_here, deadline=5)
            p_stays.first(name, lacks(stays), after=cut, deadline=20)
            p_there.first(name, lacks(there), after=cut, deadline=20)
        assert wrong(p_there, there, died_there, "c") < AT_ONCE
        assert wrong(p_here, here, died_here, "ab") < AT_ONCE
        # The negative control of hints: where they cannot travel, the others name the dead.
        assert wrong(p_there, there, died_there, "ab") > 2 * AT_ONCE
        young_c = c.engine.box("young-c", offer("young-c"), "sleep", "3600")
        young_a = a.engine.box("young-a", offer("young-a"), "sleep", "3600")
        lab.everywhere("young-a", [young_a.ipv4, young_a.ipv6], hosts=[a, b])
        time.sleep(max(0.0, cut + LONG_CUT - time.monotonic()))  # the length of the fault
        c.heal()
        back = time.monotonic()
        p_stays.wait(has(stays), after=back, deadline=BACK)
        p_here.first("c", lacks(here), after=back, deadline=BACK)
        took = converged(
            lab,
            back,
            (c, "stays", stays),
            (a, "far", far),
            (c, "young-c", young_c),
            (a, "young-a", young_a),
        )
        assert took < BACK
        stale = wrong(p_here, here, back, "c")
        lost = max(missing(p_stays, stays, "c"), missing(p_far, far))
        assert lost == 0, (p_stays.tracks["c"].changes, p_far.tracks)
        for poller, box in ((p_there, there), (p_here, here)):
            never_again(poller, box)
    faults.add(
        f"network: host cut off for {LONG_CUT:.0f} s, after its return",
        wrong=stale,
        missing=lost,
        converged=took,
    )


@pytest.mark.parametrize("half", ["silent", "deaf"])
def test_a_host_that_is_cut_off_in_one_direction(lab: Lab, faults: Table, half: str) -> None:
    a, _, c = lab.hosts
    lead(lab, a)
    stays, far = start(lab, c, "stays"), start(lab, a, "far")
    # Who is deaf is still heard: one more renewal arrives before it misses the answer to the last.
    latest = LEASE_TTL * (4 / 3 if half == "deaf" else 1) + LEASE_SLACK
    with watching(lab, "stays", "far") as (p_stays, p_far):
        cut = c.fall_silent() if half == "silent" else c.go_deaf()
        for name in "ab":
            left = p_stays.first(name, lacks(stays), after=cut, deadline=20) - cut
            assert EARLIEST * LEASE_TTL < left < latest, name
        c.heal()
        back = time.monotonic()
        p_stays.wait(has(stays), after=back, deadline=BACK)
        took = converged(lab, back, (c, "stays", stays), (a, "far", far))
        assert took < BACK
        lost = max(missing(p_stays, stays, "c"), missing(p_far, far))
        assert lost == 0, (p_stays.tracks["c"].changes, p_far.tracks)
    faults.add(f"network: host {half}, its own clients", missing=lost, converged=took)


def test_two_hosts_that_do_not_reach_each_other(lab: Lab, faults: Table) -> None:
    """Both reach the third, and that is enough: not even when one's etcd member leads."""
    a, _, c = lab.hosts
    lead(lab, a)
    boxes = [start(lab, a, "on-a"), start(lab, c, "on-c")]
    with watching(lab, "on-a", "on-c") as pollers:
        cut = c.lose(a)
        time.sleep(1.5 * LEASE_TTL)  # the length of the fault
        late = start(lab, c, "late")  # and what is new gets through
        c.engine.drop(late)
        lab.everywhere("late", [], deadline=BACK)
        assert time.monotonic() - cut > LEASE_TTL + 1
        c.heal()
        back = time.monotonic()
        took = converged(lab, back, (a, "on-a", boxes[0]), (c, "on-c", boxes[1]))
        lost = max(missing(p, box) for p, box in zip(pollers, boxes, strict=True))
        assert lost == 0, [p.tracks for p in pollers]
    faults.add("network: two hosts cut off from each other", missing=lost, converged=took)


# A host's death ---------------------------------------------------------------------------------


def measured_death(lab: Lab, faults: Table, ttl: int, *, led: bool) -> None:
    """`c` dies; its endpoints leave the others' DNS within the bound, and not too soon."""
    a, _, c = lab.hosts
    bound = ttl + LEASE_SLACK + (ELECTION if led else 0.0)
    lead(lab, c if led else a)
    stays, far = start(lab, c, "stays"), start(lab, a, "far")
    said = lab.etcdctl("lease", "timetolive", f"{lease_of(c):x}")
    assert f"granted with TTL({ttl}s)" in said, "etcd grants what is configured"
    with watching(lab, "stays", "far") as (p_stays, p_far):
        died = c.partition()
        c.discod.kill()
        left = [p_stays.first(n, lacks(stays), after=died, deadline=bound + 5) for n in "ab"]
        assert min(left) - died > EARLIEST * ttl, "and no sooner: a lease outlives an outage"
        assert max(left) - died < bound
        assert missing(p_far, far, "ab") == 0
    faults.add(
        f"network: host dies, lease {ttl} s" + (", its etcd member led" if led else ""),
        wrong=max(left) - died,
        control=f"not before {min(left) - died:.1f} s: the lease alone tells",
    )


@pytest.mark.parametrize("ttl", [FLOOR_TTL, 5])
def test_a_host_that_dies(lab: Lab, faults: Table, ttl: int) -> None:
    with configured(lab["c"], {"store": {"lease_ttl": f"{ttl}s"}}, new_lease=True):
        measured_death(lab, faults, ttl, led=False)


def test_a_host_that_dies_with_the_leader_of_etcd(lab: Lab, faults: Table) -> None:
    measured_death(lab, faults, LEASE_TTL, led=True)


def lease_of(host: Host) -> int:
    """The id of the lease that a host keeps."""
    return int(json.loads((host.discod.runtime / "lease.json").read_text())["lease"])


# A bad line -------------------------------------------------------------------------------------


@pytest.fixture(scope="class")
def calm(lab: Lab) -> Iterator[Host]:
    """Host `c` with the default lease, and etcd on the other side of its cable only."""
    assert lab.etcd is not None
    store: Config = {
        "store": {"lease_ttl": f"{CALM_TTL}s", "endpoints": list(lab.etcd.endpoints[:2])}
    }
    with configured(lab["c"], store, new_lease=True):
        yield lab["c"]


@pytest.mark.usefixtures("calm")
class TestABadLine:
    """Nothing is lost by what does not last as long as a lease."""

    def test_a_flapping_link(self, lab: Lab, faults: Table) -> None:
        a, _, c = lab.hosts
        lead(lab, c)  # the worst: each cut is an election too
        stays, far = start(lab, c, "stays"), start(lab, a, "far")
        lease = lease_of(c)
        with watching(lab, "stays", "far") as (p_stays, p_far):
            for _ in range(5):
                c.partition()
                time.sleep(1.0)  # the length of the fault
                c.heal()
                time.sleep(1.0)
            young = c.engine.box("young", offer("young"), "sleep", "3600")
            back = time.monotonic()
            took = converged(lab, back, (c, "stays", stays), (a, "far", far), (c, "young", young))
            assert took < BACK
            lost = max(missing(p_stays, stays), missing(p_far, far))
            assert lost == 0, (p_stays.tracks, p_far.tracks)
        assert lease_of(c) == lease
        faults.add(
            "network: link down 5 times for 1 s",
            missing=lost,
            converged=took,
            control="longer than the lease: see the host that dies",
        )

    def test_loss_and_delay_on_the_way_to_etcd(self, lab: Lab, faults: Table) -> None:
        a, b, c = lab.hosts
        lead(lab, a)
        stays, far = start(lab, c, "stays"), start(lab, b, "far")
        lease = lease_of(c)
        with (
            watching(lab, "stays", "far") as (p_stays, p_far),
            RoughLine(c.leg, delay=0.1, loss=0.2, ports=[ETCD_PORT]) as line,
        ):
            began = time.monotonic()
            young = c.engine.box("young", offer("young"), "sleep", "3600")
            lab.everywhere("young", [young.ipv4, young.ipv6], deadline=CALM_TTL)
            took = time.monotonic() - began
            died = c.engine.crash(young)
            lab.everywhere("young", [], deadline=AT_ONCE)  # by hint: that way is sound
            time.sleep(max(0.0, died + CALM_TTL - time.monotonic()))  # a whole lease
            assert line.lost > 0.1 * line.meant > 1, "the line was bad"
            lost = max(missing(p_stays, stays), missing(p_far, far))
            assert lost == 0, (p_stays.tracks, p_far.tracks)
        assert lease_of(c) == lease
        faults.add(
            "network: 20 % loss, 200 ms round trip to etcd",
            missing=lost,
            converged=took,
            control="100 %: see the host that dies",
        )


# Addresses that move ----------------------------------------------------------------------------

MOVING = "10.101.77.0/24"
MOVING_ADDRESS = "10.101.77.5"


def at_fixed_address(host: Host, name: str) -> Box:
    """A container with `MOVING_ADDRESS`, which any host may give, as routed set-ups do."""
    client = host.engine.client
    pool = {"Config": [{"Subnet": MOVING}], "Driver": "default"}
    client.create_network("moving", driver="bridge", ipam=pool)
    id_ = host.engine.create("sleep", "3600", name=name, labels=offer(name))
    client.disconnect_container_from_network(id_, "bridge")
    client.connect_container_to_network(id_, "moving", ipv4_address=MOVING_ADDRESS)
    client.start(id_)
    return host.engine.look(id_)


def test_an_address_that_moves_to_another_host(lab: Lab, faults: Table) -> None:
    a, b, c = lab.hosts
    lead(lab, a)
    old = at_fixed_address(c, "old")
    foreign = "/skydns/internal/discod/foreign/x1"
    lab.etcdctl("put", foreign, json.dumps({"host": MOVING_ADDRESS, "port": 80}))
    try:
        lab.everywhere("old", [MOVING_ADDRESS])
        lab.everywhere("foreign", [MOVING_ADDRESS])
        with watching(lab, "old", "foreign") as (p_old, p_foreign):
            cut = c.partition()
            died = c.engine.crash(old)
            new = at_fixed_address(a, "new")
            assert new.ipv4 == MOVING_ADDRESS
            lab.everywhere("new", [MOVING_ADDRESS], hosts=[a, b], deadline=BACK)
            for name in "ab":
                p_old.first(name, lacks(old), after=cut, deadline=20)
            worst = wrong(p_old, old, died)
            assert worst < LEASE_TTL + LEASE_SLACK
            assert wrong(p_old, old, died, "c") < AT_ONCE
            c.heal()
            back = time.monotonic()
            lab.everywhere("new", [MOVING_ADDRESS], deadline=BACK)
            took = time.monotonic() - back
            target = f"a-{new.short}-8080.new.discod.internal."
            for host in lab.hosts:
                names = host.dig_ptr(MOVING_ADDRESS)
                assert target in names, host.name
                assert not [name for name in names if ".old." in name], host.name
            never_again(p_old, old)
            # The negative control: a record without a lease and an owner stays where it was.
            assert min(seconds(t, has(old), died) for t in p_foreign.tracks.values()) > worst
    finally:
        lab.etcdctl("del", foreign)
    faults.add(
        "network: address moves from a cut-off host",
        wrong=worst,
        converged=took,
        control="record without lease and owner: named for ever",
    )


@contextmanager
def renumbered(host: Host, last: int) -> Iterator[float]:
    """Give the host another address in the LAN instead of its own; when."""
    own, new = host.leg.ipv4, f"192.0.2.{last}"
    routes = [
        f"route replace 10.101.{n}.0/24 via 192.0.2.{n}" for n in (1, 2, 3) if n != host.leg.n
    ]
    host.space.sysctl(net__ipv4__conf__eth0__promote_secondaries=1)
    at = time.monotonic()
    host.space.ip(f"addr add {new}/24 dev eth0", f"addr del {own}/24 dev eth0", *routes)
    try:
        yield at
    finally:
        host.space.ip(f"addr add {own}/24 dev eth0", f"addr del {new}/24 dev eth0", *routes)


def test_a_host_whose_own_address_changes(lab: Lab, faults: Table) -> None:
    a, b, c = lab.hosts
    assert lab.etcd is not None
    lead(lab, a)
    changes: Config = {"host": {"addresses": []}, "store": {"endpoints": lab.etcd.endpoints[:2]}}
    with configured(c, changes):
        labels = offer("public")
        c.engine.box("public", labels, publish={8080: 18080})
        lab.everywhere("public", [c.leg.ipv4, c.leg.ipv6])
        servers = {h.name: (h.udp(), h.server) for h in (a, b)}
        servers["c"] = (c.udp(), ("127.0.0.1", 53))
        with Poller(servers, full("public"), interval=INTERVAL) as poller:
            poller.wait(lambda answer: answer.addresses == (c.leg.ipv4,))
            with renumbered(c, 33) as at:
                seen = poller.wait(
                    lambda answer: answer.addresses == ("192.0.2.33",),
                    after=at,
                    deadline=MOVED + LEASE_TTL,
                )
                took = max(seen.values()) - at
                assert took < MOVED
                for host in (a, b):
                    until(
                        lambda host=host: host.dig("c.node") == ["192.0.2.33"],  # type: ignore[misc]
                        what="the host's own name follows",
                    )
            poller.wait(lambda answer: answer.addresses == (c.leg.ipv4,), deadline=2 * MOVED)
            # Put in place, never taken away and put again.
            gap = max(
                seconds(track, lambda answer: answer.rcode != NOERROR or not answer.addresses)
                for track in poller.tracks.values()
            )
            assert gap == 0, poller.tracks
    faults.add(
        "network: host's own address changes",
        wrong=took,
        converged=took,
        control="host.addresses set: the old one for ever (unit)",
    )


def test_no_lease_below_the_floor(tmp_path: Path) -> None:
    """2 s is taken (above, measured); less is refused, with the reason."""
    file = tmp_path / "discod.toml"
    text = '[store]\nendpoints = ["http://192.0.2.1:2379"]\nlease_ttl = "{}s"\n'
    file.write_text(text.format(FLOOR_TTL))
    assert load_config(file).store.lease_ttl == FLOOR_TTL
    file.write_text(text.format(FLOOR_TTL - 1))
    with pytest.raises(ConfigError, match="lease_ttl"):
        load_config(file)
