"""etcd fails in every way it can; users of three hosts go on getting right answers.

Each fault runs while a name is polled on every host. Meanwhile a container dies. Quorum is lost for
`DISCOD_OUTAGE` seconds (by default two leases, so that what depends on a lease would show); with
DISCOD_OUTAGE=60 or 120 it is the whole of what is promised.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.lab.daemon import until
from tests.lab.dnspoll import Poller
from tests.lab.engine import Box
from tests.lab.etcd import EtcdCluster
from tests.lab.faults.promises import AT_ONCE, BACK, ENDS_ELSEWHERE
from tests.lab.faults.seen import as_engines_say, missing, wrong
from tests.lab.faults.table import Table
from tests.lab.rig import ETCD_PORT, LEASE_TTL, Host, Lab, offer

pytestmark = pytest.mark.lab

OUTAGE = float(os.environ.get("DISCOD_OUTAGE", "6"))
"""Seconds without a quorum: two leases."""
assert OUTAGE > LEASE_TTL
HOLD = 2.0
"""Seconds that a fault lasts which leaves a quorum: an election takes 1 to 2."""
FRESH = 10.0
"""Seconds until no answer is marked stale: a watch on the failed member notices its silence after
5."""
NONE = 0.05
"""Seconds of missing answers that are none: two polls."""
POLL = 0.005


def cluster(lab: Lab) -> EtcdCluster:
    assert lab.etcd is not None
    return lab.etcd


def converge(lab: Lab, boxes: list[Box], since: float, within: float = BACK) -> float:
    """Seconds since `since` until every Catalog has exactly these containers."""
    until(lambda: as_engines_say(lab, boxes, "web"), deadline=within, what="converged")
    return time.monotonic() - since


@contextmanager
def life(lab: Lab) -> Iterator[tuple[list[Box], Box, Poller]]:
    """A container on each host, one more on `a` that is to die, and DNS polled everywhere."""
    stay = [host.engine.box(f"web-{host.name}", offer("web")) for host in lab.hosts]
    dies = lab["a"].engine.box("dies", offer("web"))
    whole = tuple(sorted(box.ipv4 for box in [*stay, dies]))
    with lab.poller("web", interval=POLL) as poller:
        poller.wait(lambda answer: answer.addresses == whole)
        yield stay, dies, poller


def kill_leader(etcd: EtcdCluster) -> Callable[[], None]:
    leader = etcd.leader
    leader.kill()
    return leader.restart


def freeze_leader(etcd: EtcdCluster) -> Callable[[], None]:
    leader = etcd.leader
    leader.freeze()
    return leader.thaw


def isolate_member(etcd: EtcdCluster) -> Callable[[], None]:
    """The first member hears nothing of the others; its clients go on reaching it."""
    member = etcd.members[0]
    rules = [
        (chain, "-p", "tcp", port, member.peer_url.rsplit(":", 1)[1], "-j", "DROP")
        for chain in ("INPUT", "OUTPUT")
        for port in ("--dport", "--sport")
    ]

    def change(how: str) -> None:
        for rule in rules:
            command = [*member.place.enter, "iptables", "-w", how, *rule]
            subprocess.run(command, check=True, timeout=20)

    change("-I")
    return lambda: change("-D")


def lose_quorum(etcd: EtcdCluster) -> Callable[[], None]:
    for member in etcd.members[1:]:
        member.kill()
    return lambda: start(etcd)


def stop_all(etcd: EtcdCluster) -> Callable[[], None]:
    for member in etcd.members:
        member.kill()
    return lambda: start(etcd)


def start(etcd: EtcdCluster) -> None:
    for member in etcd.members:
        if member.process is None or member.process.poll() is not None:
            member.start()
    for member in etcd.members:
        member.wait_healthy()


@pytest.mark.parametrize(
    ("title", "begin", "hold"),
    [
        ("etcd: leader killed", kill_leader, HOLD),
        ("etcd: leader frozen", freeze_leader, HOLD),
        ("etcd: a member isolated", isolate_member, HOLD),
        (f"etcd: quorum lost for {OUTAGE:.0f} s", lose_quorum, OUTAGE),
        (f"etcd: all down for {OUTAGE:.0f} s", stop_all, OUTAGE),
    ],
)
def test_answers_go_on(
    three: Lab,
    faults: Table,
    title: str,
    begin: Callable[[EtcdCluster], Callable[[], None]],
    hold: float,
) -> None:
    a = three["a"]
    with life(three) as (stay, dies, poller):
        begun = time.monotonic()
        end = begin(cluster(three))
        try:
            until(lambda: time.monotonic() > begun + hold / 2, deadline=60, step=0.1)
            died = a.engine.crash(dies)
            poller.wait(lambda answer: dies.ipv4 not in answer.addresses, deadline=ENDS_ELSEWHERE)
            if hold == OUTAGE:
                stale_is_seen(three)
            until(lambda: time.monotonic() > begun + hold, deadline=hold + 60, step=0.1)
        finally:
            end()
        back = time.monotonic()
        took = converge(three, stay, back)
        lacked, named = missing(poller, begun, stay), wrong(poller, died, dies)
        local = wrong(poller, died, dies, ["a"])
        faults.add(title, wrong=named, missing=lacked, converged=took)
    assert lacked <= NONE
    assert local <= AT_ONCE
    assert named <= ENDS_ELSEWHERE
    until(lambda: not stale(three), deadline=FRESH, what="no EDE 3 any more")


def stale(lab: Lab) -> list[str]:
    """Hosts that mark an answer as stale (RFC 8914, code 3)."""
    found = []
    for host in lab.hosts:
        text = host.space.sh(
            "dig", f"@{host.leg.ipv4}", "+tries=1", "+time=2", "web.discod.internal", check=False
        )
        if "EDE: 3" in text:
            found.append(host.name)
    return found


def stale_is_seen(lab: Lab) -> None:
    """Staleness shows to EDNS clients, in metrics and in /readyz, which stays 200."""
    until(lambda: len(stale(lab)) == 3, deadline=20, what="EDE 3 everywhere")
    for host in lab.hosts:
        assert host.discod.metrics()["discod_store_connected"] == 0
        until(lambda host=host: host.discod.metrics()["discod_catalog_age_seconds"] > 1)  # type: ignore[misc]
        said = readiness(host)
        assert " 200 " in said.splitlines()[0]
        assert '"store"' in said


def readiness(host: Host) -> str:
    """``/readyz`` with what is away, as JSON."""
    with host.tcp() as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", 9353))
        sock.sendall(b"GET /readyz HTTP/1.0\r\nAccept: application/json\r\n\r\n")
        answer = b""
        while chunk := sock.recv(4096):
            answer += chunk
    return answer.decode()


def test_emptied(three: Lab, faults: Table) -> None:
    """All members restart with empty data: everything is announced again, nothing else is lost."""
    etcd = cluster(three)
    with life(three) as (stay, dies, poller):
        begun = time.monotonic()
        for member in etcd.members:
            member.kill()
        for member in etcd.members:
            member.wipe()
        start(etcd)
        back = time.monotonic()
        took = converge(three, [*stay, dies], back)
        lacked = missing(poller, begun, [*stay, dies])
        faults.add("etcd: emptied", missing=lacked, converged=took)
        own = [
            missing(poller, begun, [box], [h.name])
            for box, h in zip(stay, three.hosts, strict=True)
        ]
    assert max(own) <= NONE, "a host goes on answering for its own"
    assert lacked <= BACK
    # The answers do not tell when it is all in the store again: they never lacked it.
    until(
        lambda: three.etcdctl("get", "--prefix", "--keys-only", "/skydns/").count("/web/") == 8,
        deadline=BACK,
        what="every record in the store again",
    )


def test_restored_from_an_old_snapshot(three: Lab, faults: Table) -> None:
    """Revisions go back; what died since does not come back, what was born since stays."""
    etcd, a = cluster(three), three["a"]
    with life(three) as (stay, dies, poller):
        file = three.root / "backup"
        etcd.members[0].etcdctl("snapshot", "save", str(file))
        born = three["b"].engine.box("born", offer("web"))
        poller.wait(lambda answer: born.ipv4 in answer.addresses)
        died = a.engine.crash(dies)
        poller.wait(lambda answer: dies.ipv4 not in answer.addresses)
        for _ in range(20):  # so that the revision really goes back
            etcd.members[0].etcdctl("put", "/other", "x")
        for member in etcd.members:
            member.kill()
        for member in etcd.members:
            restore(
                member.folder / "data", file, member.name, member.peer_url, member.initial_cluster
            )
        begun = time.monotonic()
        start(etcd)
        took = converge(three, [*stay, born], time.monotonic())
        lacked, named = missing(poller, begun, [*stay, born]), wrong(poller, begun, dies)
        own = missing(poller, begun, [born], ["b"])
        faults.add("etcd: restored from a backup", wrong=named, missing=lacked, converged=took)
    assert died < begun
    assert own <= NONE
    assert wrong_at_home(poller, begun, dies) <= AT_ONCE
    assert max(lacked, named) <= BACK


def wrong_at_home(poller: Poller, begun: float, box: Box) -> float:
    return wrong(poller, begun, box, ["a"])


def restore(data: object, file: object, name: str, url: str, initial: str) -> None:
    subprocess.run(["rm", "-rf", str(data)], check=True, timeout=20)
    subprocess.run(
        ["etcdctl", "snapshot", "restore", str(file), f"--data-dir={data}", f"--name={name}",
         f"--initial-cluster={initial}", f"--initial-advertise-peer-urls={url}",
         "--initial-cluster-token=restored"],
        check=True, capture_output=True, timeout=20,
        env={**os.environ, "ETCDCTL_API": "3"},
    )  # fmt: skip


def test_compacted_under_a_watch(three: Lab, faults: Table) -> None:
    """A daemon stands still while what it has not seen is compacted away."""
    a, c = three["a"], three["c"]
    with life(three) as (stay, dies, poller):
        os.kill(c.discod.pid, signal.SIGSTOP)
        try:
            died = a.engine.crash(dies)
            born = three["b"].engine.box("born", offer("web"))
            until(lambda: born.ipv4 in three["b"].addresses("web"))
            for _ in range(5):
                three.etcdctl("put", "/other", "x")
            revision = three.etcdctl("get", "/other", "--write-out=fields").split('"Revision" :')[1]
            three.etcdctl("compact", revision.split()[0])
        finally:
            os.kill(c.discod.pid, signal.SIGCONT)
        back = time.monotonic()
        took = converge(three, [*stay, born], back)
        named = wrong(poller, max(died, back), dies)
        faults.add("etcd: compacted under a watch", wrong=named, converged=took)
    assert named <= BACK


KEYS = ("get", "--prefix", "--keys-only", "/skydns")
QUOTA = 16 * 1024 * 1024


@pytest.fixture
def small(three: Lab) -> Iterator[Lab]:
    """The same lab with an etcd that holds little."""
    etcd = cluster(three)
    for options in ((f"--quota-backend-bytes={QUOTA}",), ()):
        for member in etcd.members:
            member.kill()
            member.options = options
        start(etcd)
        if options:
            try:
                yield three
            finally:
                free(three)


def fill(lab: Lab) -> None:
    """Put large values until etcd refuses."""
    value = "x" * 1_000_000
    for _ in range(3 * QUOTA // len(value)):
        done = subprocess.run(
            [*cluster(lab).members[0].place.enter, "etcdctl",
             f"--endpoints={cluster(lab).members[0].client_url}", "put", "/filler"],
            input=value.encode(), capture_output=True, timeout=20, check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )  # fmt: skip
        if b"database space exceeded" in done.stderr:
            return
        assert done.returncode == 0, done.stderr
    raise AssertionError("etcd took it all")


def free(lab: Lab) -> None:
    """What an operator does: compact, defragment, disarm."""
    members = cluster(lab).members
    revision = (
        lab.etcdctl("get", "/filler", "--write-out=fields").split('"Revision" :')[1].split()[0]
    )
    members[0].etcdctl("compact", revision, "--physical", check=False)
    for member in members:
        member.etcdctl("defrag", timeout=20)
    members[0].etcdctl("alarm", "disarm")


def test_out_of_space(small: Lab, faults: Table) -> None:
    """Nothing new can be put; what dies still leaves the store, and so every host's answers."""
    a = small["a"]
    with life(small) as (stay, dies, poller):
        begun = time.monotonic()
        fill(small)
        died = a.engine.crash(dies)
        born = small["b"].engine.box("born", offer("web"))
        poller.wait(lambda answer: dies.ipv4 not in answer.addresses, deadline=ENDS_ELSEWHERE)
        until(  # not by hints alone: those last 3 s
            lambda: f"/web/a-{dies.id[:12]}" not in small.etcdctl(*KEYS),
            deadline=BACK,
            what="the record is deleted",
        )
        until(lambda: time.monotonic() > begun + LEASE_TTL + 1, step=0.1)  # leases are renewed
        assert missing(poller, begun, stay) <= NONE
        assert "space exceeded" in readiness(small["b"])
        free(small)
        took = converge(small, [*stay, born], time.monotonic())
        lacked, named = missing(poller, begun, stay), wrong(poller, died, dies)
        faults.add("etcd: out of space", wrong=named, missing=lacked, converged=took)
    assert lacked <= NONE
    assert named <= ENDS_ELSEWHERE


SLOW = 0.2
"""Seconds that each request to etcd takes longer."""
SLOWLY = 5.0
"""Seconds for an announcement over it: a few requests one after the other."""


class SlowProxy:
    """Passes TCP on to a member of etcd, and each piece of a request `SLOW` later."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._listener = host.tcp()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host.leg.ipv4, ETCD_PORT + 1000))
        self._listener.listen()
        self._open: list[socket.socket] = [self._listener]
        self.url = f"http://{host.leg.ipv4}:{ETCD_PORT + 1000}"
        self._run(self._accept)

    def _run(self, act: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=act, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed: the end of the test
            while True:
                near, _ = self._listener.accept()
                far = self._host.tcp()
                far.connect((self._host.leg.ipv4, ETCD_PORT))
                self._open += [near, far]
                self._run(self._pump, near, far, SLOW)
                self._run(self._pump, far, near, 0.0)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, delay: float) -> None:
        with suppress(OSError):  # one of the two has gone
            while piece := source.recv(65536):
                time.sleep(delay)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for sock in self._open:
            with suppress(OSError):  # not connected any more
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def test_slow(three: Lab, faults: Table) -> None:
    """One host reaches etcd slowly: its deaths leave all answers at once all the same."""
    a = three["a"]
    before = a.discod.config
    proxy = SlowProxy(a)
    try:
        a.discod.terminate()
        a.discod.config = {**before, "store": {**before["store"], "endpoints": [proxy.url]}}
        a.discod.write()
        a.discod.start()
        with life(three) as (stay, dies, poller):
            begun = time.monotonic()
            died = a.engine.crash(dies)
            poller.wait(lambda answer: dies.ipv4 not in answer.addresses, deadline=ENDS_ELSEWHERE)
            born = a.engine.box("born", offer("web"))
            took = converge(three, [*stay, born], time.monotonic(), SLOWLY)
            until(lambda: time.monotonic() > begun + 2 * LEASE_TTL, step=0.1)  # renewed in time
            lacked, named = missing(poller, begun, stay), wrong(poller, died, dies)
            faults.add("etcd: 200 ms slower", wrong=named, missing=lacked, converged=took)
        assert a.discod.metrics()["discod_store_connected"] == 1
    finally:
        a.discod.stop()
        proxy.close()
        a.discod.config = before
        a.discod.write()
        a.discod.start()
    assert lacked <= NONE
    assert named <= ENDS_ELSEWHERE
