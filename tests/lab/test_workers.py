"""Worker processes of a real daemon: killed, frozen, outlived; and what each of them costs.

A query counts as lost when no answer came within a second after the stream's end. Figures are
printed: `pytest -rP` shows them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.daemon import until
from tests.lab.dnspoll import NXDOMAIN, ask
from tests.lab.etcd import EtcdCluster
from tests.lab.served import TAIL, TYPES, D, Server, alive, running
from tests.lab.stream import TXT, Stream

pytestmark = pytest.mark.lab

MENDED = 1.0
"""Seconds in which a worker's end or standstill is to be seen and mended."""
IN_HAND = 2
"""Queries that a worker may have taken and not answered at this rate when it is killed."""
FREEZE = 10.0
"""Seconds that the daemon stands still."""


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture(params=["memory", "etcd"])
def served(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A daemon with one worker, on each of the two stores."""
    store = request.getfixturevalue("etcd") if request.param == "etcd" else None
    with running(1, store) as server:
        yield server


def told(what: str, stream: Stream, since: float) -> None:
    print(
        f"{what}: {len(stream.sent)} sent, {len(stream.lost)} lost, {len(stream.wrong)} wrong, "
        f"slowest {stream.slowest(since) * 1000:.1f} ms"
    )


def replaced(server: Server, old: list[int]) -> float:
    """Wait until a worker serves that is none of `old`; when that was."""

    def done() -> bool:
        now = server.workers()
        whole = server.value("discod_dns_workers") == len(old)
        return whole and len(now) == len(old) and set(now) != set(old)

    until(done, deadline=15, what="the worker is replaced")
    return time.monotonic()


# The worker -------------------------------------------------------------------------------------


def test_a_killed_worker_costs_what_it_had_in_hand(served: Server) -> None:
    before = served.requests()
    (pid,) = served.workers()
    with served.stream() as stream:
        time.sleep(1)
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        back = replaced(served, [pid])
        time.sleep(1)
    told(f"worker killed, next one serves after {back - at:.2f} s", stream, at)
    assert len(stream.sent) > 300
    assert len(stream.lost) <= IN_HAND and not stream.wrong
    assert stream.slowest() < MENDED
    assert served.restarts() == (1, 0)
    assert served.workers() != [pid] and not alive([pid])
    counted = sum(served.requests().values()) - sum(before.values())
    assert len(stream.answered) <= counted <= len(stream.sent)


def test_a_frozen_worker_is_replaced(served: Server) -> None:
    (pid,) = served.workers()
    with served.stream() as stream:
        time.sleep(1)
        at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        back = replaced(served, [pid])
        time.sleep(1)
    told(f"worker frozen, next one serves after {back - at:.2f} s", stream, at)
    # The kernel keeps what waits for it, and the daemon finds it there.
    assert len(stream.lost) <= IN_HAND and not stream.wrong
    assert stream.slowest() < MENDED
    assert served.restarts() == (0, 1)
    assert not alive([pid])


def test_a_worker_that_goes_on_in_time_is_kept(served: Server) -> None:
    (pid,) = served.workers()
    with served.stream() as stream:
        for _ in range(5):
            time.sleep(0.4)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.15)
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.4)
    told("worker frozen five times for 0.15 s", stream, 0.0)
    assert not stream.lost and not stream.wrong
    assert served.workers() == [pid] and served.restarts() == (0, 0)


def test_a_worker_killed_again_and_again(served: Server) -> None:
    """Between them the daemon answers, for as long as the pauses last."""
    with served.stream() as stream:
        for _ in range(4):
            pids = until(served.workers, deadline=15)
            os.kill(pids[0], signal.SIGKILL)
            replaced(served, pids)
    told("worker killed four times", stream, 0.0)
    assert len(stream.lost) <= 4 * IN_HAND and not stream.wrong
    assert stream.slowest() < MENDED
    assert served.restarts() == (4, 0)


# The daemon -------------------------------------------------------------------------------------


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The daemon's process, and nothing of its workers, stands still."""
    os.kill(server.discod.pid, signal.SIGSTOP)
    try:
        until(lambda: state(server.discod.pid) == "T", deadline=1)
        assert all(state(pid) != "T" for pid in server.workers())
        yield
    finally:
        os.kill(server.discod.pid, signal.SIGCONT)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_answers_go_on_while_the_daemon_is_frozen(served: Server) -> None:
    pids = served.workers()
    with served.stream() as stream:
        time.sleep(0.5)
        start = time.monotonic()
        with frozen(served):
            time.sleep(FREEZE / 2)
            # Odd shapes: a cookie, a name that does not exist, a type without records.
            names = [f"nope{n}.{D}" for n in range(20)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for name in names:
                    assert ask(sock, served.address, name).rcode == NXDOMAIN
                assert ask(sock, served.address, f"svc1.{D}", TXT).addresses == ()
            time.sleep(FREEZE / 2)
            end = time.monotonic()
        thawed = time.monotonic()
        until(lambda: served.discod.request("GET", "/readyz")[0] == 200, deadline=10)
        ready = time.monotonic() - thawed
        time.sleep(1)
    told(f"daemon frozen for {FREEZE:.0f} s, ready {ready:.2f} s after", stream, start)
    during = stream.within(start, end)
    assert len(during) > FREEZE * 150
    assert not stream.lost and not stream.wrong
    assert max(sent.took or 0 for sent in during) < MENDED / 2
    # It accuses nobody of its own standstill.
    assert served.workers() == pids and served.restarts() == (0, 0)
    change(served)


def change(server: Server) -> None:
    """What is new is answered soon, in whichever store it is."""
    if server.etcd is not None:
        key = "/skydns/internal/discod/news/x"
        member = server.etcd.members[0]
        member.etcdctl("put", key, json.dumps({"host": "10.7.7.7", "port": 80}))
        until(lambda: server.asked(f"news.{D}") == ("10.7.7.7",), deadline=2)
        member.etcdctl("del", key)
        until(lambda: server.asked(f"news.{D}") == (), deadline=2)
    else:
        text = '[[service]]\nname = "news"\nport = 80\naddress = "10.7.7.7"\n'
        server.discod.tail = TAIL + text
        server.discod.write()
        server.discod.reload()
        until(lambda: server.asked(f"news.{D}") == ("10.7.7.7",), deadline=2)


def test_a_daemon_frozen_for_longer_than_its_lease(etcd: EtcdCluster) -> None:
    """The store takes it for dead then; its worker does not, and the daemon comes back by itself.

    What is printed is how long its own names are missing: from its hearing of the lease's end until
    they are in the store again.
    """
    with running(1, etcd, lease_ttl="2s") as server:
        with server.stream() as stream:
            time.sleep(0.5)
            start = time.monotonic()
            with frozen(server):
                time.sleep(5)
                end = time.monotonic()
            time.sleep(3)
        assert not stream.lost
        assert not {*map(id, stream.within(start, end - 0.1))} & {*map(id, stream.wrong)}
        gap = [one.at for one in stream.wrong]
        told("daemon frozen beyond its lease", stream, start)
        if gap:
            first, last = gap[0] - end, gap[-1] - end
            print(f"wrong from {first:.3f} s to {last:.3f} s after it went on")
            assert last < 2, "they are back"
        assert server.restarts() == (0, 0)
        change(server)


def test_without_workers_a_frozen_daemon_answers_nothing() -> None:
    """The control: what the test above sees is the workers' doing."""
    with running(workers=0) as server:
        assert server.value("discod_dns_workers") == 0
        with server.stream() as stream:
            time.sleep(0.5)
            with frozen(server):
                start = time.monotonic()
                time.sleep(2)
                end = time.monotonic()
            time.sleep(0.5)
        during = stream.within(start + 0.1, end - 0.1)
        assert len(during) > 200
        assert all((sent.at + sent.took > end) for sent in during if sent.took is not None)


def test_a_worker_ends_with_a_killed_daemon() -> None:
    with running() as server:
        pids = server.workers()
        server.discod.kill()
        until(lambda: not alive(pids), deadline=2, what="the worker ends with its daemon")


def test_a_frozen_worker_does_not_hold_up_the_end() -> None:
    with running() as server:
        pids = server.workers()
        os.kill(pids[0], signal.SIGSTOP)
        start = time.monotonic()
        assert server.discod.terminate() == 0
        assert time.monotonic() - start < 5
        assert not alive(pids)


# Two of them ------------------------------------------------------------------------------------


def test_two_workers(etcd: EtcdCluster) -> None:
    """Both serve, each client one; the loss of one is the other's business in nothing."""
    with running(2, etcd) as server:
        first = server.workers()
        with server.stream(sockets=16) as stream:
            time.sleep(1)
            at = time.monotonic()
            os.kill(first[0], signal.SIGKILL)
            replaced(server, first)
            second = server.workers()
            assert first[1] in second
            killed = time.monotonic()
            os.kill(first[1], signal.SIGSTOP)
            replaced(server, second)
            time.sleep(0.5)
            with frozen(server):
                time.sleep(3)
            time.sleep(0.5)
        told("two workers: one killed, one frozen, then the daemon", stream, at)
        print(f"slowest after the kill alone: {slowest(stream, at, killed) * 1000:.1f} ms")
        assert len(stream.lost) <= 2 * IN_HAND and not stream.wrong
        assert stream.slowest() < MENDED
        assert server.restarts() == (1, 1)
        assert not set(first) & set(server.workers())
        change(server)


def slowest(stream: Stream, start: float, end: float) -> float:
    return max(sent.took or 0.0 for sent in stream.within(start, end))


def test_two_workers_both_frozen() -> None:
    with running(2) as server:
        pids = server.workers()
        with server.stream(sockets=16) as stream:
            time.sleep(0.5)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            until(lambda: not alive(pids), deadline=5, what="both are replaced")
            until(lambda: server.value("discod_dns_workers") == 2, deadline=5)
            time.sleep(0.5)
        told("two workers, both frozen", stream, 0.0)
        assert len(stream.lost) <= 2 * IN_HAND and not stream.wrong
        assert stream.slowest() < MENDED
        assert server.restarts() == (0, 2)


# Metrics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_query_is_counted_once(workers: int) -> None:
    with running(workers) as server:
        before, responses = server.requests(), server.value("discod_dns_responses_total")
        timed = server.value("discod_dns_request_duration_seconds_count", zone=D)
        with server.stream(sockets=8) as stream:
            for _ in range(5):
                time.sleep(0.3)
                server.discod.metrics()  # a scrape in between takes nothing and doubles nothing
        assert not stream.lost and not stream.wrong
        for type_, text in TYPES.items():
            sent = sum(one.type == type_ for one in stream.sent)
            assert server.requests()[text] - before[text] == sent, text
        count = len(stream.sent)
        assert count > 200
        assert server.value("discod_dns_responses_total") - responses == count
        name = "discod_dns_request_duration_seconds_count"
        assert server.value(name, zone=D) - timed == count


def test_what_a_killed_worker_has_counted_is_not_lost() -> None:
    with running(1) as server:
        before = server.requests()
        with server.stream() as stream:
            time.sleep(0.7)
        assert not stream.lost
        (pid,) = server.workers()
        os.kill(pid, signal.SIGKILL)  # between two streams: nothing is in its hands
        replaced(server, [pid])
        with server.stream() as again:
            time.sleep(0.7)
        assert not again.lost
        for type_, text in TYPES.items():
            sent = sum(one.type == type_ for one in (*stream.sent, *again.sent))
            assert server.requests()[text] - before[text] == sent, text
