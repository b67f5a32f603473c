"""Worker processes as the daemon keeps them: started, told, watched, replaced, ended."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dnslib
import pytest
import trio

from discod.metrics import Metrics
from discod.model.catalog import Change
from discod.model.schema import encode_endpoint
from discod.model.settings import DnsSettings, ListenAddress
from resolver import udp
from resolver.counts import Counts
from resolver.hot import lane, spawn
from resolver.hot.protocol import Config
from resolver.hot.pulse import Pulse
from resolver.hot.supervisor import Workers
from resolver.hot.sync import News
from tests import hot_fake
from tests.resolving import KEYS, NAMED, OWN, WEB, endpoint, items, packet, state_of
from tests.unit import test_server

DOMAIN = "discod.internal"
DEADLINE = 20.0
"""Seconds for anything at all, on a machine that is busy with other things."""
SOON = 3.0
"""Seconds for what ought to take one at most, on a machine like that."""


async def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - it is told by another process's memory, or by /proc
            await trio.sleep(0.005)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Rig:
    """Workers on sockets of their own; what they do not answer is answered by the test."""

    def __init__(self, *addresses: str, count: int = 1, boot: str = hot_fake.BOOT) -> None:
        self.metrics = Metrics()
        self.news = News(Config(DnsSettings(), OWN))
        self.news.update(NAMED["all"], None)
        self.news.set_stale(False, True)
        self.handled: list[tuple[bytes, str]] = []
        self.first = "::1" if addresses[:1] == ("::",) else "127.0.0.1"
        self.lanes = [[] for _ in range(count)]  # type: list[list[socket.socket]]
        self.ports = []
        for address in addresses or ("127.0.0.1",):
            at = ListenAddress(ip_address(address), 0)
            for sockets in self.lanes:
                sock = udp.bind(at, shared=count > 1)
                at = replace(at, port=sock.getsockname()[1])
                sockets.append(sock)
            self.ports.append(at.port)
        self.workers = Workers(
            self.news,
            self.lanes,
            self.handle,
            self.relay,
            Counts(self.metrics, DOMAIN),
            self.metrics,
            DOMAIN,
            rng=random.Random(1),
            boot=boot,
        )

    def handle(self, query: bytes, client: str, transport: str) -> Any:
        self.handled.append((query, client))
        return ["later", query] if query.startswith(b"df") else b"daemon " + query

    async def relay(self, later: Any, transport: str) -> bytes:
        await trio.sleep(0.01)
        return b"relayed " + bytes(later[1])

    @property
    def pid(self) -> int:
        return self.workers.lanes[0].pid

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def serving(self) -> None:
        await until(lambda: self.workers.serving == len(self.lanes))
        # The daemon, too, may take a packet for a moment yet.
        with trio.fail_after(DEADLINE):
            while await self.ask(b"p", self.first) != b"worker":
                pass

    async def ask(self, query: bytes, address: str = "127.0.0.1", which: int = 0) -> bytes:
        """Ask until there is an answer, as clients do."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            await sock.connect((address, self.ports[which]))
            with trio.fail_after(DEADLINE):
                while True:
                    await sock.send(query)
                    with trio.move_on_after(0.1):
                        return bytes(await sock.recv(65535))

    async def send(self, query: bytes) -> None:
        """Send what is not answered."""
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.sendto(query, ("127.0.0.1", self.ports[0]))

    async def known(self) -> Any:
        return json.loads(await self.ask(b"?"))

    async def knows(self, condition: Callable[[Any], bool]) -> Any:
        with trio.fail_after(DEADLINE):
            while not condition(known := await self.known()):
                pass
        return known


@contextlib.asynccontextmanager
async def running(rig: Rig, *, serving: bool = True) -> AsyncIterator[Rig]:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.workers.run)
            if serving:
                await rig.serving()
            yield rig
            nursery.cancel_scope.cancel()
    finally:
        for sock in (sock for sockets in rig.lanes for sock in sockets):
            sock.close()


# Told ------------------------------------------------------------------------------------------


async def test_a_worker_is_told_all_and_answers_alone() -> None:
    async with running(Rig()) as rig:
        known = await rig.known()
        assert known["services"] == {n: sorted(i) for n, i in NAMED["all"].services.items()}
        assert known["go"] and known["domain"] == DOMAIN and known["own"] == "alpha"
        assert known["revision"] == NAMED["all"].revision
        assert rig.value("discod_dns_workers") == 1
        rig.handled.clear()
        for _ in range(50):
            await rig.ask(b"n")
        assert rig.handled == []


async def test_a_worker_inherits_what_it_is_given_and_standard_streams() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        async with running(Rig("127.0.0.1", "::1")) as rig:
            known = await rig.known()
            assert set(known["fds"]) == {0, 1, 2, *known["given"]}
            assert len(known["given"]) == 5


async def test_changes_reach_the_worker_and_are_coalesced_while_it_does_not_read() -> None:
    state = state_of(items(WEB))
    rig = Rig()
    rig.news.update(state.catalog, None)
    async with running(rig):
        before = (await rig.known())["steps"]
        os.kill(rig.pid, signal.SIGSTOP)
        for i in range(500):  # without a pause: the telling task does not run in between
            made = endpoint("web", f"x{i % 7}", "10.0.0.1")
            event = (KEYS.record(made.id), encode_endpoint(made), 10 + i)
            change = state.apply([event], 10 + i, 0.0)
            rig.news.update(state.catalog, change)
        os.kill(rig.pid, signal.SIGCONT)
        known = await rig.knows(lambda known: known["revision"] == 509)
        assert known["steps"] - before <= 2
        assert len(known["services"]["web"]) == len(WEB) + 7
        rig.news.set_stale(True, True)
        rig.news.configure(Config(DnsSettings(udp_size=4096), OWN, (b"s" * 16,)))
        known = await rig.knows(lambda known: known["stale"] and known["configs"] == 2)
        assert (known["udp_size"], known["secrets"]) == (4096, 1)


async def test_a_catalog_larger_than_all_buffers_is_told_whole() -> None:
    rig = Rig()
    many = {
        f"s{i}": {
            f"i{j}": endpoint(f"s{i}", f"i{j}", "10.0.0.1", tags=("x" * 60,)) for j in range(10)
        }
        for i in range(3000)
    }
    rig.news.update(replace(NAMED["all"], services=many), None)
    async with running(rig):
        assert rig.workers.lanes[0].serving
        assert (await rig.ask(b"n")) == b"worker"


async def test_it_is_known_when_answers_are_of_the_present_state() -> None:
    async with running(Rig(count=2)) as rig:
        for revision in range(100, 110):
            change = Change(frozenset(("web",)), False, ())
            rig.news.update(replace(NAMED["web"], revision=revision), change)
            assert not rig.workers.lanes[0].current
            with trio.fail_after(DEADLINE):
                await rig.workers.settled()
            assert (await rig.known())["revision"] == revision
        os.kill(rig.pid, signal.SIGKILL)
        rig.news.set_stale(True, True)
        with trio.fail_after(DEADLINE):
            await rig.workers.settled()


async def test_until_there_is_a_snapshot_the_daemon_answers() -> None:
    rig = Rig()
    rig.news.set_stale(False, False)
    async with running(rig, serving=False):
        assert await rig.ask(b"n") == b"daemon n"
        await until(lambda: rig.pid)
        assert rig.value("discod_dns_workers") == 0
        rig.news.set_stale(False, True)
        await rig.serving()
        assert await rig.ask(b"n") == b"worker"


# Delegated --------------------------------------------------------------------------------------


async def test_the_daemon_answers_what_the_worker_hands_over() -> None:
    async with running(Rig("127.0.0.1", "::1")) as rig:
        assert await rig.ask(b"d1") == b"daemon d1"
        assert await rig.ask(b"d2", "::1", 1) == b"daemon d2"
        assert await rig.ask(b"df", "::1", 1) == b"relayed df"
        assert rig.handled == [(b"d1", "127.0.0.1"), (b"d2", "::1"), (b"df", "::1")]


@pytest.mark.parametrize(("listen", "asked"), [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
@pytest.mark.parametrize("query", [b"d1", b"df"])
async def test_it_answers_from_the_address_that_was_asked(
    listen: str, asked: str, query: bytes
) -> None:
    async with running(Rig(listen)) as rig:
        # The client takes responses from `asked` only.
        assert (await rig.ask(query, asked)).endswith(query)


async def test_a_burst_of_them_is_answered_whole() -> None:
    async with running(Rig()) as rig:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", rig.ports[0]))
            wanted = {b"d%d" % i for i in range(200)}
            for query in wanted:
                await sock.send(query)
            with trio.fail_after(DEADLINE):
                while wanted:
                    wanted.discard((await sock.recv(100)).removeprefix(b"daemon "))


# Watched ----------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_meanwhile_the_daemon_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Rig()) as rig:
        pid = rig.pid
        start = spawn.start
        go_on = trio.Event()

        async def waiting(*arguments: Any) -> spawn.Worker:
            await go_on.wait()
            return await start(*arguments)

        monkeypatch.setattr(spawn, "start", waiting)
        os.kill(pid, signal.SIGKILL)
        assert await rig.ask(b"n") == b"daemon n"
        assert gone(pid)
        assert rig.value("discod_dns_workers") == 0
        assert rig.value("discod_dns_worker_restarts_total", reason="ended") == 1
        go_on.set()
        await rig.serving()
        assert rig.pid not in (0, pid)
        assert (await rig.known())["services"].keys() == NAMED["all"].services.keys()
        assert await rig.ask(b"n") == b"worker"


@pytest.mark.parametrize("how", ["stopped", "asleep"])
async def test_a_frozen_worker_is_replaced(how: str) -> None:
    async with running(Rig()) as rig:
        pid = rig.pid
        begun = trio.current_time()
        if how == "stopped":
            os.kill(pid, signal.SIGSTOP)
        else:
            await rig.send(b"z")
        assert await rig.ask(b"n") in (b"daemon n", b"worker")
        answered = trio.current_time() - begun
        await until(lambda: rig.pid not in (0, pid))
        await rig.serving()
        assert await rig.ask(b"n") == b"worker"
        assert gone(pid)
        assert rig.value("discod_dns_worker_restarts_total", reason="frozen") == 1
        assert rig.value("discod_dns_worker_restarts_total", reason="ended") == 0
        assert answered < SOON


async def test_while_a_worker_spins_the_daemon_answers_and_in_the_end_replaces_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Rig()) as rig:
        pid = rig.pid
        await rig.send(b"l")
        assert await rig.ask(b"n") == b"daemon n"
        assert rig.pid == pid and not gone(pid), "it may only be starved"
        await until(lambda: rig.pid not in (0, pid))
        await rig.serving()
        assert rig.value("discod_dns_worker_restarts_total", reason="frozen") == 1


async def test_a_starved_worker_is_relieved_and_takes_over_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdict = "well"

    class Judged(Pulse):
        def look(self, *_: Any) -> Any:
            return verdict

    monkeypatch.setattr(lane, "Pulse", Judged)
    async with running(Rig()) as rig:
        pid = rig.pid
        verdict = "starved"
        await until(lambda: not rig.workers.serving)
        os.kill(pid, signal.SIGSTOP)
        assert await rig.ask(b"n") == b"daemon n"
        os.kill(pid, signal.SIGCONT)
        verdict = "well"
        await rig.serving()
        assert rig.pid == pid
        assert rig.value("discod_dns_worker_restarts_total", reason="frozen") == 0


async def test_a_worker_that_keeps_ending_is_started_at_growing_intervals() -> None:
    rig = Rig(boot="raise SystemExit(3)")
    begun = trio.current_time()
    async with running(rig, serving=False):
        assert await rig.ask(b"n") == b"daemon n"
        restarts = "discod_dns_worker_restarts_total"
        await until(lambda: rig.value(restarts, reason="ended") >= 5)
        # The first restart is at once, then half of 0.1, 0.2 and 0.4 s at least.
        assert trio.current_time() - begun > 0.05 + 0.1 + 0.2
        assert await rig.ask(b"n") == b"daemon n"


async def test_no_process_to_be_had_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    start = spawn.start
    tries = []

    async def failing(*arguments: Any) -> spawn.Worker:
        tries.append(arguments)
        if len(tries) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*arguments)

    monkeypatch.setattr(spawn, "start", failing)
    async with running(Rig()) as rig:
        assert len(tries) == 3
        assert rig.value("discod_dns_worker_restarts_total", reason="ended") == 0


async def test_a_start_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    before = open_fds()
    monkeypatch.setattr(trio.lowlevel, "open_process", failing)
    with pytest.raises(OSError, match="allocate"):
        await spawn.start([])
    assert open_fds() == before


# Ended ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("when", ["serving", "stopped", "starting", "at once"])
async def test_nothing_is_left_of_the_workers(when: str, count: int) -> None:
    await trio.to_thread.run_sync(lambda: None)  # the thread's own descriptors, once
    before = open_fds()
    pids = []
    rig = Rig(count=count)
    async with running(rig, serving=when in ("serving", "stopped")):
        if when == "starting":
            await until(lambda: all(lane.pid for lane in rig.workers.lanes))
        pids = [lane.pid for lane in rig.workers.lanes]
        if when == "stopped":
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        begun = trio.current_time()
    assert trio.current_time() - begun < SOON
    assert all(gone(pid) for pid in pids if pid)
    assert open_fds() == before
    assert rig.workers.serving == 0


async def test_replacing_leaves_nothing_open() -> None:
    async with running(Rig()) as rig:
        await rig.ask(b"n")
        before = open_fds()
        for _ in range(3):
            pid = rig.pid
            await rig.send(b"x")
            await until(lambda pid=pid: rig.pid not in (0, pid))  # type: ignore[misc]
            await rig.serving()
        assert open_fds() == before
        assert len(rig.news._feeds) == 1


# Metrics ----------------------------------------------------------------------------------------


async def test_what_workers_count_is_exact_over_their_ends() -> None:
    async with running(Rig(count=2)) as rig:
        answered = 0
        for killed in (True, True, False):
            for _ in range(30):
                answered += await rig.ask(b"n") == b"worker"
            if killed:
                pid = rig.pid
                os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: rig.pid not in (0, pid))  # type: ignore[misc]
                await rig.serving()
        assert answered >= 80
        for _ in range(2):  # reading twice counts nothing twice
            labels = {"zone": DOMAIN, "proto": "udp", "type": "A"}
            assert rig.value("discod_dns_requests_total", **labels) == answered
            assert rig.value("discod_dns_responses_total", rcode="NXDOMAIN") == answered
            text = rig.metrics.exposition().decode()
            assert f'discod_dns_responses_total{{rcode="NXDOMAIN"}} {answered}.0\n' in text
            duration = "discod_dns_request_duration_seconds"
            assert rig.value(f"{duration}_bucket", zone=DOMAIN, le="0.0002") == 0
            assert rig.value(f"{duration}_bucket", zone=DOMAIN, le="0.0005") == answered
            assert rig.value(f"{duration}_count", zone=DOMAIN) == answered
            assert rig.value(f"{duration}_sum", zone=DOMAIN) == pytest.approx(answered * 0.0003)
    assert rig.value("discod_dns_responses_total", rcode="NXDOMAIN") == answered


# The real worker ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def resolving(*addresses: str, workers: int = 1, **more: Any) -> AsyncIterator[Any]:
    made = test_server.settings(*addresses, workers=workers, **more)
    async with test_server.served(made) as rig:
        await until(lambda: rig.value("discod_dns_workers") == workers)
        yield rig


NAME = f"web.{DOMAIN}"


@pytest.mark.parametrize("workers", [1, 2])
async def test_real_workers_answer_as_the_daemon_does(workers: int) -> None:
    asked = "discod_dns_requests_total"
    async with resolving("127.0.0.1", "::1", workers=workers) as rig:
        for i in range(20):
            for address in ("127.0.0.1",) if i % 2 else ("::1",):
                rig.bound = [b for b in rig.bound if str(b.address) == address] + rig.bound
                response = await rig.udp(packet(NAME, id_=i), address)
                assert len(response.rr) == 2 and response.header.aa
        assert rig.value(asked, zone=DOMAIN, proto="udp", type="A") == 20
        assert rig.value("discod_dns_responses_total", rcode="NOERROR") == 20
        assert (await rig.udp(packet(f"nope.{DOMAIN}"))).header.rcode == 3
        assert rig.value("discod_dns_responses_total", rcode="NXDOMAIN") == 1
        assert (await rig.udp(packet("example.com"))).header.rcode == 5
        assert rig.value(asked, zone=".", proto="udp", type="A") == 1
        assert rig.value("discod_dns_responses_total", rcode="REFUSED") == 1


@pytest.mark.parametrize(("listen", "asked"), [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
async def test_behind_a_wildcard_both_answer_from_the_address_that_was_asked(
    listen: str, asked: str
) -> None:
    async with resolving(listen) as rig:
        for _ in range(3):
            assert len((await rig.udp(packet(NAME), asked)).rr) == 2
            assert (await rig.udp(packet("example.com"), asked)).header.rcode == 5


async def test_changes_reach_real_workers() -> None:
    state = state_of(items(WEB))
    async with resolving(workers=2) as rig:
        rig.resolver.update(state.catalog, None)

        async def answers(count: int) -> None:
            with trio.fail_after(DEADLINE):
                agreed = 0
                while agreed < 10:  # from many ports, so that both workers are asked
                    agreed = agreed + 1 if len((await rig.udp(packet(NAME))).rr) == count else 0

        await answers(2)
        gone = state.apply([(KEYS.record(WEB[0].id), None, 8)], 8, 0.0)
        rig.resolver.update(state.catalog, gone)
        await answers(1)


async def test_real_workers_are_told_whether_services_own_addresses_stand() -> None:
    vip = ip_address("10.96.0.7")
    state = state_of(items([replace(e, vip=(vip,)) for e in WEB]))
    async with resolving(workers=2) as rig:
        rig.resolver.update(state.catalog, None)
        for fronted, count in ((False, 2), (True, 1), (False, 2)):
            rig.resolver.set_fronted(fronted)
            with trio.fail_after(DEADLINE):
                await rig.resolver.workers.settled()
            for i in range(10):  # from many ports, so that both workers are asked
                rrs = (await rig.udp(packet(NAME, id_=i))).rr
                assert len(rrs) == count
                assert (str(rrs[0].rdata) == str(vip)) == fronted


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_real_worker_is_replaced(with_signal: signal.Signals) -> None:
    async with resolving() as rig:
        (lane_,) = rig.resolver.workers.lanes
        pid = lane_.pid
        os.kill(pid, with_signal)
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", rig.port))
            answer = None
            with trio.fail_after(DEADLINE):
                while answer is None:
                    await sock.send(packet(NAME))
                    with trio.move_on_after(0.1):
                        answer = dnslib.DNSRecord.parse(await sock.recv(4096))
        assert len(answer.rr) == 2
        await until(lambda: gone(pid) and lane_.pid not in (0, pid) and lane_.serving)
        assert len((await rig.udp(packet(NAME))).rr) == 2


async def test_settings_that_need_a_restart_are_not_told() -> None:
    async with resolving() as rig:
        changed = replace(rig.resolver._settings, domain="other.example", workers=5, allow=())
        assert rig.resolver.reload(changed) == ("domain", "workers")
        with trio.fail_after(DEADLINE):
            while (await rig.udp(packet(NAME))).header.rcode != 5:
                pass
        assert rig.value("discod_dns_workers") == 1
        assert rig.resolver._news.config.settings.domain == DOMAIN


async def test_a_real_worker_ends_with_a_daemon_that_was_killed() -> None:
    script = (
        "import trio, time\n"
        "from resolver.hot import spawn\n"
        "async def main():\n"
        "    print((await spawn.start([])).pid, flush=True)\n"
        "    time.sleep(3600)\n"
        "trio.run(main)\n"
    )
    daemon = subprocess.Popen(  # noqa: ASYNC220 - it takes no time worth mentioning
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=hot_fake.ROOT
    )
    try:
        assert daemon.stdout
        pid = int(await trio.to_thread.run_sync(daemon.stdout.readline))
        assert not gone(pid)
    finally:
        daemon.kill()
        daemon.communicate()

    def over() -> bool:
        # Whoever inherits it may be slow to bury it.
        try:
            return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
        except FileNotFoundError:
            return True

    await until(over)
