"""The engine killed, restarted, frozen, cut off, and louder than can be heard: seen through DNS."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.crash_points import Relay
from tests.lab.daemon import until
from tests.lab.dockerd import SLEEPER
from tests.lab.engine import Box
from tests.lab.faults.measure import converged, left, missing, wrong
from tests.lab.faults.promises import AT_ONCE, ENGINE_BACK
from tests.lab.faults.table import Table
from tests.lab.rig import Host, Lab, offer
from tests.lab.soak import soak

pytestmark = pytest.mark.lab

LATE = 2.0
"""Seconds in which the negative controls look for the damage."""
BURST = 2000
"""Events."""
SOAK = 60
"""Lifecycles; the long form is `make soak`."""
LEAK = 100
"""KiB a lifecycle: the size still settles so early, and what a container costs is a tenth of it."""
TCP = ("127.0.0.1", 2375)


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    with Lab(3, memory=True, lease_ttl=10) as lab:
        yield lab


class Deathwatch:
    """When a process ended, told by the kernel."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)
        self.at = 0.0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        select.select([self._fd], [], [])
        self.at = time.monotonic()
        os.close(self._fd)

    def wait(self, timeout: float = 20.0) -> float:
        """The moment; waits for it."""
        self._thread.join(timeout)
        assert self.at, "it lives"
        return self.at


def listed(hosts: list[Host], service: str) -> list[str]:
    """Addresses of the running containers of a service, by the engines' own lists."""
    return [
        row["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        for host in hosts
        for row in host.engine.client.containers(filters={"label": f"discod.name={service}"})
    ]


POLICY = {"restart_policy": {"Name": "always"}}


def policed(host: Host, name: str, service: str) -> Box:
    """A container that the engine starts again."""
    return host.engine.box(name, offer(service), *SLEEPER, host=POLICY)


@pytest.mark.parametrize("how", ["kill -9", "restart"])
def test_live_restore(three: Lab, faults: Table, how: str) -> None:
    """What runs stays, what dies meanwhile leaves at once, and what is started again comes back."""
    a = three["a"]
    service = "lr-" + how[:4]
    keep = a.engine.box("keep", offer(service))
    again = policed(a, "again", service)
    three.everywhere(service, [keep.ipv4, keep.ipv6, again.ipv4, again.ipv6])
    with three.poller(service) as poller:
        poller.wait(lambda answer: len(answer.addresses) == 2)
        began = time.monotonic()
        if how == "restart":
            a.engine.stop()
        else:
            a.engine.kill()
        until(lambda: "docker away" in a.discod.log)
        died = a.engine.crash(again)
        gone = left(poller, again.ipv4, died)
        a.engine.start()
        back = time.monotonic()
        until(lambda: len(a.engine.alive()) == 2, what="the engine starts it again")
        took = converged(three.hosts, service, lambda: listed([a], service), back, ENGINE_BACK)
        lost = missing(poller, keep.ipv4, began)
    assert lost == 0
    assert gone < AT_ONCE
    faults.add(
        f"dockerd: {how}, live-restore",
        wrong=gone,
        missing=lost,
        converged=took,
    )


@pytest.mark.parametrize("how", ["kill -9", "restart"])
def test_without_live_restore(three: Lab, faults: Table, how: str) -> None:
    """The engine's end, or its next start, takes the containers with it; both are seen."""
    a, b = three["a"], three["b"]
    service = "off-" + how[:4]
    a.engine.stop()
    a.engine.live_restore = False
    try:
        a.engine.start()
        other = b.engine.box("other", offer(service))
        again = policed(a, "again", service)
        once = a.engine.box("once", offer(service), *SLEEPER)
        three.everywhere(service, [x for box in (other, again, once) for x in (box.ipv4, box.ipv6)])
        with three.poller(service) as poller:
            poller.wait(lambda answer: len(answer.addresses) == 3)
            began = time.monotonic()
            deaths = {box.ipv4: Deathwatch(box.pid) for box in (again, once)}
            if how == "restart":
                a.engine.stop()
            else:
                a.engine.kill()
                until(lambda: "docker away" in a.discod.log)
                if not any(death.at for death in deaths.values()):
                    early = max(missing(poller, address, began) for address in deaths)
                    assert early == 0, "they run until the engine is back"
            a.engine.start()
            back = time.monotonic()
            gone = max(left(poller, address, death.wait()) for address, death in deaths.items())
            until(
                lambda: [row["Id"] for row in a.engine.client.containers()] == [again.id],
                what="the engine starts what its policy says",
            )
            took = converged(
                three.hosts, service, lambda: listed([a, b], service), back, ENGINE_BACK
            )
            lost = missing(poller, other.ipv4, began)
        assert lost == 0
        assert gone < AT_ONCE
    finally:
        if a.engine.running:
            a.engine.stop()
        a.engine.live_restore = True
        a.engine.start()
    faults.add(f"dockerd: {how}, no live-restore", wrong=gone, missing=lost, converged=took)


@contextmanager
def over_tcp(host: Host) -> Iterator[Relay]:
    """Host's daemon with its engine at the other end of a TCP relay: no pids, and it can be cut."""

    def dial() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(host.engine.socket))
        return sock

    listener = host.space.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(TCP)
    listener.listen(64)
    before = host.discod.config["announce"]
    with Relay(listener, dial) as relay:
        host.discod.stop()
        host.discod.config["announce"] = {**before, "docker": f"tcp://{TCP[0]}:{TCP[1]}"}
        host.discod.write()
        host.discod.start()
        try:
            yield relay
        finally:
            host.discod.stop()
            host.discod.config["announce"] = before
            host.discod.write()
            host.discod.start()


def test_frozen(three: Lab, faults: Table) -> None:
    """The kernel tells of ends while the engine says nothing; without its word (an engine behind
    TCP, whose pids are not ours) a dead one stays."""
    a, c = three["a"], three["c"]
    with over_tcp(c):
        keep = a.engine.box("keep", offer("frozen"))
        again = policed(a, "again", "frozen")
        there = c.engine.box("there", offer("frozen"), *SLEEPER)
        boxes = (keep, again, there)
        three.everywhere("frozen", [x for box in boxes for x in (box.ipv4, box.ipv6)])
        with three.poller("frozen") as poller:
            poller.wait(lambda answer: len(answer.addresses) == 3)
            began = time.monotonic()
            a.engine.freeze()
            c.engine.freeze()
            try:
                died = a.engine.crash(again)
                c.engine.crash(there)
                time.sleep(LATE)
                gone = left(poller, again.ipv4, died)
                control = wrong(poller, there.ipv4, died)
            finally:
                a.engine.thaw()
                c.engine.thaw()
            back = time.monotonic()
            until(lambda: len(a.engine.alive()) == 2, what="the engine starts it again")
            took = converged(
                three.hosts, "frozen", lambda: listed([a, c], "frozen"), back, ENGINE_BACK
            )
            lost = missing(poller, keep.ipv4, began)
    assert lost == 0
    assert gone < AT_ONCE
    assert control > LATE - AT_ONCE, "the negative control has to see the damage"
    faults.add(
        "dockerd: frozen",
        wrong=gone,
        missing=lost,
        converged=took,
        control=f"no pidfd: wrong for {control:.1f} s and more",
    )


def test_event_stream_cut(three: Lab, faults: Table) -> None:
    """Each cut falls together with an end and a start; nothing else tells of them here."""
    c = three["c"]
    worst = 0.0
    with over_tcp(c) as relay:
        keep = c.engine.box("keep", offer("cut"))
        old = c.engine.box("cut-0", offer("cut"), *SLEEPER)
        three.everywhere("cut", [x for box in (keep, old) for x in (box.ipv4, box.ipv6)])
        with three.poller("cut") as poller:
            poller.wait(lambda answer: len(answer.addresses) == 2)
            began = time.monotonic()
            for n in range(1, 4):
                new = c.engine.create(name=f"cut-{n}", labels=offer("cut"))
                c.engine.crash(old)
                assert relay.cut() >= 1
                at = time.monotonic()
                c.engine.client.start(new)
                old = c.engine.look(new)
                took = converged(three.hosts, "cut", lambda: listed([c], "cut"), at, ENGINE_BACK)
                worst = max(worst, took)
            lost = missing(poller, keep.ipv4, began)
    assert lost == 0
    faults.add("dockerd: event stream cut", missing=lost, converged=worst)


def test_burst(three: Lab, faults: Table) -> None:
    """Events without end, with ends and starts among them, while discod is stopped for a second.
    (What the engine drops of a burst is tested in `tests/unit/test_watcher.py`: it cannot be made
    to at will.)"""
    a = three["a"]
    keep = a.engine.box("keep", offer("burst"))
    noisy = [a.engine.box(f"noise-{n}", None, *SLEEPER) for n in range(4)]
    victims = [a.engine.box(f"victim-{n}", offer("burst"), *SLEEPER) for n in range(3)]
    three.everywhere("burst", [x for box in (keep, *victims) for x in (box.ipv4, box.ipv6)])

    def noise(box: Box) -> None:
        for _ in range(BURST // len(noisy)):
            a.engine.client.kill(box.id, signal="SIGURG")  # which nobody heeds

    def events() -> float:
        return sum(
            value
            for name, value in a.discod.metrics().items()
            if name.startswith("discod_docker_events_total")
        )

    heard = events()
    with three.poller("burst") as poller, ThreadPoolExecutor(len(noisy)) as pool:
        poller.wait(lambda answer: len(answer.addresses) == 4)
        began = time.monotonic()
        jobs = [pool.submit(noise, box) for box in noisy]
        time.sleep(0.3)
        os.kill(a.discod.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        a.engine.crash(victims[0])
        a.engine.drop(victims[1])
        born = a.engine.box("born", offer("burst"), *SLEEPER)
        time.sleep(max(0.0, stopped + 1.0 - time.monotonic()))
        os.kill(a.discod.pid, signal.SIGCONT)
        running = time.monotonic()
        died = a.engine.crash(victims[2])
        for job in jobs:
            job.result(60)
        quiet = time.monotonic()
        took = converged(three.hosts, "burst", lambda: listed([a], "burst"), quiet, ENGINE_BACK)
        lost = missing(poller, keep.ipv4, began)
        gone = left(poller, victims[2].ipv4, max(died, running))
    lacking = BURST - (events() - heard)
    print(f"{BURST} events in {quiet - began:.1f} s, {lacking:.0f} never heard of")
    assert born.ipv4
    assert lost == 0
    faults.add(f"dockerd: {BURST} events in a burst", wrong=gone, missing=lost, converged=took)


def test_short_soak(three: Lab) -> None:
    """`make soak` in small: what a lifecycle leaves behind shows in 60 of them already."""
    a = three["a"]
    samples = soak(a, SOAK, seed=4)
    for of in ("descriptors", "threads"):
        first, last = getattr(samples[0], of), getattr(samples[-1], of)
        assert last - first < SOAK / 4, f"{of}: {first} -> {last}"
    leaked = (samples[-1].daemon - samples[0].daemon) / (
        samples[-1].lifecycles - samples[0].lifecycles
    )
    assert leaked < LEAK, f"{leaked:.0f} KiB for each lifecycle"
