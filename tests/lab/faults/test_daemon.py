"""discod itself killed at every step, doubled, changed, starved of descriptors and of disk."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.crash_points import CrashPoints
from tests.lab.daemon import Config, Daemon, until
from tests.lab.engine import Box
from tests.lab.faults.measure import missing, silent, wrong
from tests.lab.faults.table import Table
from tests.lab.rig import DOMAIN, Host, Lab, offer
from tests.lab.stream import A, Stream

pytestmark = pytest.mark.lab

LEASE = 10
"""Seconds, as shipped: a daemon that is killed twice in its start has to be back within them."""
RESTART = 9.0
"""Seconds that a daemon may take from exec to the whole truth; 1 to 2 on an idle machine."""
PROXY = ("127.0.0.1", 2390)
STEPS_MAX = 40
"""Store calls of one start, far more than there are: a bound on the loop."""


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    with Lab(3, memory=True, lease_ttl=LEASE) as lab:
        yield lab


@pytest.fixture
def restored(three: Lab) -> Iterator[Lab]:
    """The lab; afterwards host a's daemon runs with its first configuration again."""
    discod = three["a"].discod
    config, prefix = dict(discod.config), discod._prefix
    yield three
    discod.stop()
    discod.config, discod._prefix = config, prefix
    discod.write()
    discod.start()


def change(daemon: Daemon, table: str, **keys: object) -> None:
    """Change the configuration file."""
    daemon.config[table] = {**daemon.config.get(table, {}), **keys}  # type: ignore[dict-item]
    daemon.write()


# What is stored ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One key of etcd."""

    key: str
    lease: int
    value: str


def stored(lab: Lab, prefix: str) -> list[Stored]:
    """All keys below a prefix."""
    found = json.loads(lab.etcdctl("get", "--prefix", prefix, "-w", "json")).get("kvs", [])
    return [
        Stored(
            base64.b64decode(kv["key"]).decode(),
            kv.get("lease", 0),
            base64.b64decode(kv.get("value", "")).decode(),
        )
        for kv in found
    ]


def faults_of(lab: Lab, host: Host, service: str, boxes: list[Box]) -> str:
    """What is not as it should be for a service of one host; empty: nothing."""
    alive = sorted(box.ipv4 for box in boxes)
    for other in lab.hosts:
        try:
            said = other.ask(service)
        except OSError as error:
            return f"{other.name}: {error!r}"
        if sorted(said.addresses) != alive:
            return f"{other.name} says {said}, not {alive}"
    records = [r for r in stored(lab, "/skydns/") if f"/{service}/" in r.key]
    held = sorted(json.loads(record.value)["host"] for record in records)
    if held != sorted([*alive, *(box.ipv6 for box in boxes)]):
        return f"stored: {held}"
    file = host.discod.runtime / "lease.json"
    own = json.loads(file.read_text())["lease"] if file.exists() else None
    if {record.lease for record in records} != {own}:
        return f"leases {[f'{r.lease:x}' for r in records]}, of the daemon is {own}"
    names = {record.key.rsplit("/", 1)[1] for record in records}
    hidden = [w.key for w in stored(lab, f"/discod/v1/{DOMAIN}/withdrawn/")]
    if over := [key for key in hidden if key.rsplit("/", 1)[1] in names]:
        return f"withdrawn and yet there: {over}"
    return ""


def settle(lab: Lab, host: Host, service: str, boxes: list[Box]) -> float:
    """Wait until store and DNS equal the engine's list; seconds."""
    began = time.monotonic()
    last = "?"
    while last:
        last = faults_of(lab, host, service, boxes)
        if last and time.monotonic() > began + RESTART:
            raise AssertionError(last)
        time.sleep(0.02)
    return time.monotonic() - began


# Crash points -----------------------------------------------------------------------------------


@contextmanager
def through_proxy(lab: Lab, host: Host) -> Iterator[CrashPoints]:
    """Host's daemon, restarted with a relay between it and its etcd member."""

    def dial() -> socket.socket:
        sock = host.space.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.connect((host.leg.ipv4, 2379))
        return sock

    listener = host.space.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(PROXY)
    listener.listen(16)
    with CrashPoints(listener, dial) as points:
        host.discod.stop()
        change(host.discod, "store", endpoints=[f"http://{PROXY[0]}:{PROXY[1]}"])
        host.discod.start()
        yield points
        host.discod.stop()


def killed(host: Host, points: CrashPoints, wait: float) -> bool:
    """Whether the daemon was killed at the crash point within `wait` seconds."""
    if not points.fired.wait(wait):
        return False
    assert host.discod._process is not None
    assert host.discod._process.wait(5) == -signal.SIGKILL
    return True


def test_killed_at_every_step_of_a_start(restored: Lab, faults: Table) -> None:
    """Each start has one container to announce, and the record of one that ended to withdraw."""
    lab, a = restored, restored["a"]
    keep = a.engine.box("keep", offer("steps"))
    kills, slowest = 0, 0.0
    with through_proxy(lab, a) as points, lab.poller("steps", hosts=lab.hosts[1:]) as poller:
        poller.wait(lambda answer: keep.ipv4 in answer.addresses)
        began = time.monotonic()
        old = a.engine.box("step-0", offer("steps"), "sleep", "600")
        settle(lab, a, "steps", [keep, old])
        for step in range(1, STEPS_MAX):
            a.discod.kill()
            a.engine.crash(old)
            a.engine.remove(old.id)
            old = a.engine.box(f"step-{step}", offer("steps"), "sleep", "600")
            (a.discod.runtime / "lease.json").unlink()  # one call more, to grant another
            points.arm(step, before=True, act=lambda: os.kill(a.discod.pid, signal.SIGKILL))
            a.discod.start(ready=False)
            was_killed = killed_or_settled(lab, a, points, [keep, old])
            points.arm(0, before=False, act=lambda: None)
            if not was_killed:
                break
            kills += 1
            a.discod.start(ready=False)
            slowest = max(slowest, settle(lab, a, "steps", [keep, old]))
        else:
            raise AssertionError("there was no end of steps")
        lost = missing(poller, keep.ipv4, began)
    print(f"killed {kills} times in {time.monotonic() - began:.0f} s; missing {lost:.3f} s")
    assert kills >= 5, "snapshot, watch, two leases, and what is to be written"
    assert lost == 0, "what ran all the time was in every answer of the other hosts"
    faults.add(f"discod: killed at each of {kills} store calls", missing=lost, converged=slowest)


def killed_or_settled(lab: Lab, host: Host, points: CrashPoints, boxes: list[Box]) -> bool:
    """Wait for the kill; False: all was done before it came to that."""
    end = time.monotonic() + RESTART
    while time.monotonic() < end:
        if killed(host, points, 0.1):
            return True
        if host.discod.running and not faults_of(lab, host, "steps", boxes):
            return killed(host, points, 0.2)
    raise AssertionError(f"neither killed nor done: {faults_of(lab, host, 'steps', boxes)}")


@pytest.mark.parametrize("before", [True, False], ids=["unanswered", "answered"])
def test_killed_at_the_steps_of_a_change(restored: Lab, faults: Table, before: bool) -> None:
    """While it runs, one container crashes and another starts."""
    lab, a = restored, restored["a"]
    keep = a.engine.box("keep", offer("change"))
    old = a.engine.box("change-0", offer("change"), "sleep", "600")
    slowest, worst = 0.0, 0.0
    with through_proxy(lab, a) as points, lab.poller("change", hosts=lab.hosts[1:]) as poller:
        settle(lab, a, "change", [keep, old])
        poller.wait(lambda answer: old.ipv4 in answer.addresses)
        began = time.monotonic()
        for step in (1, 2):
            born = a.engine.create("sleep", "600", name=f"change-{step}", labels=offer("change"))
            points.arm(step, before=before, act=lambda: os.kill(a.discod.pid, signal.SIGKILL))
            died, victim = a.engine.crash(old), old
            a.engine.client.start(born)
            old = a.engine.look(born)
            assert killed(a, points, RESTART), "renewals at least make as many calls"
            points.arm(0, before=before, act=lambda: None)
            a.discod.start(ready=False)
            slowest = max(slowest, settle(lab, a, "change", [keep, old]))
            if victim.ipv4 != old.ipv4:
                worst = max(worst, wrong(poller, victim.ipv4, died))
            a.engine.remove(victim.id)
        lost = missing(poller, keep.ipv4, began)
    assert lost == 0
    # The withdrawal waits for the restart, at most.
    assert worst < RESTART + LEASE
    how = "before" if before else "after"
    faults.add(
        f"discod: killed {how} the answer to its withdrawal and announcement",
        wrong=worst,
        missing=lost,
        converged=slowest,
    )


# Two at once ------------------------------------------------------------------------------------


def second(first: Host, /, **tables: Mapping[str, object]) -> Daemon:
    """Another daemon on the same host: its own ports and folders, the same store and engine."""
    config: dict[str, dict[str, object]] = {
        "host": {"name": first.name, "addresses": [first.leg.ipv4]},
        "store": dict(first.discod.config["store"]),
        "announce": {**first.discod.config["announce"], "hint_port": 0},
        "dns": {**first.discod.config["dns"], "listen": ["127.0.0.1:5399"]},
        "http": {"listen": ["127.0.0.1:9399"]},
    }
    for name, keys in tables.items():
        config[name] = {**config[name], **keys}
    ready: Config = config  # type: ignore[assignment]
    return Daemon(first.discod.directory / "2", ready, prefix=first.space.prefix)


def refused(daemon: Daemon) -> tuple[int, str]:
    """Start a daemon that is to refuse: its exit status, and what it said."""
    before = len(daemon.log)
    daemon.start(ready=False)
    assert daemon._process is not None
    try:
        status = daemon._process.wait(RESTART)
    except subprocess.TimeoutExpired:
        daemon.kill()
        raise AssertionError(f"it runs\n{daemon.log[before:]}") from None
    return status, daemon.log[before:]


def test_a_second_daemon_refuses_and_the_first_is_undisturbed(three: Lab, faults: Table) -> None:
    a = three["a"]
    box = a.engine.box("twin", offer("twin"))
    three.everywhere("twin", [box.ipv4, box.ipv6])
    with three.poller("twin") as poller:
        poller.wait(lambda answer: answer.addresses == (box.ipv4,))
        began = time.monotonic()
        before = stored(three, "/")
        same = Daemon(a.discod.directory, a.discod.config, prefix=a.space.prefix)
        status, said = refused(same)
        assert status == 1
        assert f"another discod (pid {a.discod.pid})" in said
        assert "runtime directory" in said
        elsewhere = second(a)
        status, said = refused(elsewhere)
        assert status == 1
        assert f"another discod (pid {a.discod.pid}) announces as host a in {DOMAIN}" in said
        assert stored(three, "/") == before, "not one key was touched"
        lost, quiet = missing(poller, box.ipv4, began), silent(poller)
        assert lost == 0
        assert quiet < 1.0
    # Negative control: with a name of its own it is not held up, and all is there twice.
    other = second(a, host={"name": "a2"})
    try:
        other.start()
        twice = until(lambda: len([r for r in stored(three, "/skydns/") if "/twin/" in r.key]) == 4)
    finally:
        other.stop()
    until(
        lambda: len([r for r in stored(three, "/skydns/") if "/twin/" in r.key]) == 2,
        deadline=LEASE + 5,
    )
    assert a.discod.running
    faults.add(
        "discod: a second one on the host",
        missing=lost,
        control="not refused: every record twice" if twice else "",
    )


# Another configuration --------------------------------------------------------------------------


def test_upgrade_with_another_host_name(restored: Lab, faults: Table) -> None:
    """What it does not want any more leaves within the lease; the rest has no gap."""
    lab, a = restored, restored["a"]
    box = a.engine.box("moves", offer("moves"))
    lab.everywhere("moves", [box.ipv4, box.ipv6])
    old = {r.key for r in stored(lab, "/") if "/moves/" in r.key or r.key.endswith("/hosts/a")}
    assert len(old) == 3
    with lab.poller("moves", hosts=lab.hosts[1:]) as poller:
        poller.wait(lambda answer: box.ipv4 in answer.addresses)
        began = time.monotonic()
        a.discod.terminate()
        change(a.discod, "host", name="renamed")
        a.discod.start()
        until(
            lambda: not {r.key for r in stored(lab, "/")} & old,
            deadline=LEASE + 2,
            what="the old records go",
        )
        took = time.monotonic() - began
        found = {r.key.rsplit("/", 1)[1] for r in stored(lab, "/skydns/") if "/moves/" in r.key}
        assert len(found) == 2
        assert all(name.startswith("renamed-") for name in found)
        lost = missing(poller, box.ipv4, began)
    assert lost == 0
    assert a.ask("moves").addresses == (box.ipv4,)
    # So that nobody has to wait for its end.
    a.discod.stop()
    lease = json.loads((a.discod.runtime / "lease.json").read_text())["lease"]
    lab.etcdctl("lease", "revoke", f"{lease:x}")
    faults.add("discod: restarted with another host.name", missing=lost, converged=took)


# Out of means -----------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def nofile(pid: int, limit: int) -> int:
    """Set a running process's limit of descriptors; what it was."""
    before, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    return before


def test_out_of_descriptors(three: Lab, faults: Table) -> None:
    """TCP clients eat them all: UDP goes on, nothing is withdrawn, TCP comes back."""
    a = three["a"]
    checked = a.engine.box("checked", offer("scarce", check="tcp", check__interval="200ms"))
    three.everywhere("scarce", [checked.ipv4, checked.ipv6])
    pid = a.discod.pid
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    logged = len(a.discod.log)
    with ExitStack() as stack:
        poller = stack.enter_context(three.poller("scarce"))
        poller.wait(lambda answer: answer.addresses == (checked.ipv4,))
        began = time.monotonic()
        stack.callback(nofile, pid, nofile(pid, used + 12))
        clients = []
        for _ in range(60):
            sock = stack.enter_context(a.tcp())
            sock.settimeout(1)
            sock.connect(a.server)  # the kernel accepts; the daemon cannot
            clients.append(sock)
        busy = cpu_seconds(pid)
        question = f"scarce.{DOMAIN}."
        with Stream(a.server, [(question, A)], rate=100, make=a.udp) as stream:
            time.sleep(3)
        assert not stream.lost
        assert not stream.wrong
        spent = cpu_seconds(pid) - busy
        died = a.engine.box("short", offer("scarce"), "sleep", "600")
        a.engine.crash(died)
        said = a.discod.log[logged:]
        for sock in clients:
            sock.close()
        back = time.monotonic()
        until(lambda: a.dig("scarce", "A", "+tcp") == [checked.ipv4], deadline=10)
        took = time.monotonic() - back
        lost, quiet = missing(poller, checked.ipv4, began), silent(poller)
    three.everywhere("scarce", [checked.ipv4, checked.ipv6])
    until(lambda: a.discod.request("GET", "/readyz")[0] == 200, deadline=15)
    assert said.count("accept returned EMFILE") == 1, said[-3000:]
    assert spent < 1.0, "no busy loop in three seconds"
    assert lost == 0
    assert quiet < 1.0
    faults.add("discod: out of descriptors", missing=lost, converged=took)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A full file system over a folder; gives the file that fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "full", folder], check=True)
    try:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        yield ballast
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_disk_full(restored: Lab, faults: Table) -> None:
    """From the start on, in both folders: it runs, says so, and writes when there is room again."""
    lab, a = restored, restored["a"]
    box = a.engine.box("full", offer("full"))
    lab.everywhere("full", [box.ipv4, box.ipv6])
    a.discod.stop()
    logged = len(a.discod.log)
    with small_disk(a.discod.runtime) as one, small_disk(a.discod.state) as two:
        a.discod.start()
        lab.everywhere("full", [box.ipv4, box.ipv6])
        said = a.discod.log[logged:]
        for words in ("lock file without our pid", "lease file not written", "identity not saved"):
            assert said.count(words) == 1, words
        answer = a.discod.cli("drain")
        assert answer.returncode == 0, answer.stderr
        assert "a restart will not know it" in answer.stdout + answer.stderr
        lab.everywhere("full", [])
        assert a.discod.cli("undrain").returncode == 0
        lab.everywhere("full", [box.ipv4, box.ipv6])
        one.unlink()
        two.unlink()
        began = time.monotonic()
        until(lambda: "lease file written" in a.discod.log[logged:], deadline=LEASE + 2)
        took = time.monotonic() - began
        answer = a.discod.cli("drain")
        assert "a restart will not know it" not in answer.stdout + answer.stderr
        assert a.discod.cli("undrain").returncode == 0
        lab.everywhere("full", [box.ipv4, box.ipv6])
        lease = json.loads((a.discod.runtime / "lease.json").read_text())["lease"]
        with lab.poller("full", hosts=lab.hosts[1:]) as poller:
            poller.wait(lambda answer: box.ipv4 in answer.addresses)
            start = time.monotonic()
            a.discod.terminate()
            a.discod.start()
            settle(lab, a, "full", [box])
            lost = missing(poller, box.ipv4, start)
        assert lost == 0
        held = {r.lease for r in stored(lab, "/skydns/") if "/full/" in r.key}
        assert held == {lease}, "the lease that was written late is taken up"
        a.discod.stop()
    faults.add("discod: disk full in its folders", missing=lost, converged=took)
