"""Leases that end, a daemon whose loop is blocked, and clocks that jump."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.daemon import ROOT, until
from tests.lab.engine import Box
from tests.lab.faults.promises import BACK
from tests.lab.faults.seen import as_engines_say, missing
from tests.lab.faults.table import Table
from tests.lab.rig import ETCD_PORT, LEASE_TTL, Host, Lab, offer

pytestmark = pytest.mark.lab

REVOKED = 1.0
"""Seconds for which other hosts may lack what a hand has revoked: a few round trips, on a loaded
machine."""
NONE = 0.05
"""Seconds of missing answers that are none: two polls."""
BLOCK = LEASE_TTL + 2.0
"""Seconds for which the loop is blocked: the lease ends meanwhile."""
WATCHDOG = 2.0
"""Seconds that the test's service manager would wait for a sign of life."""
HOUR = 3600

BLOCKER = """
import os, signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep({block}))
"""
"""Python runs a signal's handler in the main thread: where the event loop is."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def lease_of(lab: Lab, box: Box) -> str:
    """The lease of a container's record, as etcdctl wants it."""
    fields = lab.etcdctl("get", "--prefix", "/skydns/internal/discod/", "--write-out=fields")
    chunk = next(c for c in fields.split('"Key"') if box.id[:12] in c)
    return f"{int(chunk.split(chr(34) + 'Lease' + chr(34) + ' :')[1].split()[0]):x}"


def converged(lab: Lab, boxes: Sequence[Box], since: float) -> float:
    until(lambda: as_engines_say(lab, boxes, "web"), deadline=BACK, what="converged")
    return time.monotonic() - since


@contextmanager
def store_cut_off(host: Host) -> Iterator[None]:
    """This host reaches no member of etcd, its own included; its clients go on reaching it."""
    rules = [
        (chain, "-p", "tcp", way, str(ETCD_PORT), "-j", "DROP")
        for chain in ("INPUT", "OUTPUT")
        for way in ("--dport", "--sport")
    ]
    for rule in rules:
        host.space.sh("iptables", "-w", "-I", *rule)
    try:
        yield
    finally:
        for rule in rules:
            host.space.sh("iptables", "-w", "-D", *rule)


def test_revoked_by_hand(three: Lab, faults: Table) -> None:
    boxes = [host.engine.box(f"web-{host.name}", offer("web")) for host in three.hosts]
    ours, addresses = boxes[0], tuple(sorted(box.ipv4 for box in boxes))
    with three.poller("web", interval=0.002) as poller:
        poller.wait(lambda answer: answer.addresses == addresses)
        begun = time.monotonic()
        three.etcdctl("lease", "revoke", lease_of(three, ours))
        took = converged(three, boxes, begun)
        until(lambda: time.monotonic() > begun + REVOKED, step=0.1)
        own = missing(poller, begun, boxes, ["a"])
        others = missing(poller, begun, boxes, ["b", "c"])
        seen_out = any(ours.ipv4 not in s.answer.addresses for s in poller.tracks["b"].changes[-3:])
    control = f"{others:.3f} s on other hosts" if seen_out else ""
    faults.add("lease: revoked by hand", missing=own, converged=took, control=control)
    assert own == 0, "the host knows its own container"
    assert others <= REVOKED


def test_lost_while_disconnected(three: Lab, faults: Table) -> None:
    boxes = [host.engine.box(f"web-{host.name}", offer("web")) for host in three.hosts]
    a, b, _ = three.hosts
    addresses = tuple(sorted(box.ipv4 for box in boxes))
    with three.poller("web", interval=0.005) as poller:
        poller.wait(lambda answer: answer.addresses == addresses)
        begun = time.monotonic()
        with store_cut_off(a):
            poller.first(
                "b", lambda answer: boxes[0].ipv4 not in answer.addresses, after=begun, deadline=15
            )
        took = converged(three, boxes, time.monotonic())
        own = missing(poller, begun, boxes, ["a"])
        others = missing(poller, begun, boxes[1:])
    faults.add(
        "lease: lost while disconnected",
        missing=max(own, others),
        converged=took,
        control="the others drop it with the lease",
    )
    assert own <= NONE, "its own answers stay whole, before and after"
    assert others <= NONE
    assert b.discod.running


@contextmanager
def restarted(host: Host, *more: str) -> Iterator[None]:
    """The daemon of a host, started anew with more in its environment."""
    daemon, before = host.discod, host.discod._prefix
    daemon.terminate()
    daemon._prefix = (*before, "env", *more)
    daemon.start()
    try:
        yield
    finally:
        daemon._prefix = before
        daemon.stop()
        daemon.start()


def test_a_blocked_loop_is_noticed(three: Lab, faults: Table) -> None:
    """The keepalive starves: the watchdog hears nothing, answers over UDP go on, all comes back."""
    a = three["a"]
    site = three.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKER.format(block=BLOCK))
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(three.root / "notify"))
    manager.settimeout(0.2)
    environment = (
        f"PYTHONPATH={site}:{ROOT}",
        f"NOTIFY_SOCKET={three.root}/notify",
        f"WATCHDOG_USEC={int(WATCHDOG * 1e6)}",
    )
    with manager, restarted(a, *environment):
        boxes = [host.engine.box(f"web-{host.name}", offer("web")) for host in three.hosts]
        addresses = tuple(sorted(box.ipv4 for box in boxes))
        with three.poller("web", interval=0.005) as poller:
            poller.wait(lambda answer: answer.addresses == addresses)
            assert silence(manager, 3.0) < WATCHDOG, "signs of life while it runs"
            begun = time.monotonic()
            os.kill(a.discod.pid, signal.SIGUSR2)
            assert silence(manager, BLOCK - 0.5) > WATCHDOG, "none while it is blocked"
            until(lambda: time.monotonic() > begun + BLOCK, step=0.1)
            took = converged(three, boxes, begun + BLOCK)
            own = missing(poller, begun, boxes, ["a"])
            others = missing(poller, begun, [boxes[0]], ["b", "c"])
        assert a.discod.metrics()["discod_loop_lag_seconds"] > BLOCK - 1
        assert "event loop was blocked" in a.discod.log
    faults.add(
        f"lease: loop blocked for {BLOCK:.0f} s",
        missing=own,
        converged=took,
        control=f"{others:.1f} s on other hosts: no lease outlives it",
    )
    assert own <= NONE, "workers answer while the daemon is blocked"


def silence(manager: socket.socket, seconds: float) -> float:
    """The longest time without a sign of life, within so many seconds from now."""
    last = begun = time.monotonic()
    longest = 0.0
    while (now := time.monotonic()) < begun + seconds:
        try:
            if b"WATCHDOG=1" in manager.recv(4096):
                longest, last = max(longest, now - last), now
        except TimeoutError:
            continue
    return max(longest, time.monotonic() - last)


@pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's faketime")
@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_the_clock_jumps(three: Lab, faults: Table, jump: int) -> None:
    """The wall clock of a host jumps by an hour: nothing ends, nothing comes back."""
    a = three["a"]
    offset = three.root / "offset"
    offset.write_text("+0\n")
    environment = (
        f"LD_PRELOAD={FAKETIME}",
        f"FAKETIME_TIMESTAMP_FILE={offset}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )
    with restarted(a, *environment):
        boxes = [host.engine.box(f"web-{host.name}", offer("web")) for host in three.hosts]
        gone = a.engine.box("gone", offer("web"))
        addresses = tuple(sorted(box.ipv4 for box in boxes))
        with three.poller("web", interval=0.005) as poller:
            poller.wait(lambda answer: gone.ipv4 in answer.addresses)
            died = a.engine.crash(gone)
            poller.wait(lambda answer: answer.addresses == addresses, after=died)
            begun = time.monotonic()
            offset.write_text(f"{jump:+d}\n")
            said = subprocess.run(
                ["env", *environment, "date", "+%s"], capture_output=True, check=True, timeout=20
            )
            assert abs(int(said.stdout) - time.time() - jump) < 10, "the clock does jump"
            until(lambda: time.monotonic() > begun + 2 * LEASE_TTL, step=0.1)
            tracks = poller.tracks
            seen = {s.answer.addresses for t in tracks.values() for s in t.changes if s.at > begun}
            lacked = missing(poller, begun, boxes)
        assert not seen, "no answer has changed"
        dies = a.engine.box("late", offer("late"))
        three.everywhere("late", [dies.ipv4, dies.ipv6])
        a.engine.crash(dies)
        three.everywhere("late", [], deadline=BACK)
        metrics = a.discod.metrics()
        assert metrics["discod_store_connected"] == 1
        assert metrics["discod_catalog_age_seconds"] < 10
        explained = a.discod.api("/v1/explain?q=late")
        took = converged(three, boxes, time.monotonic())
        faults.add(f"clock: {jump:+d} s", missing=lacked, converged=took)
    assert not explained["in_dns"]
    assert lacked <= NONE
