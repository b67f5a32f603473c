"""Every way to leave DNS, and that nobody notices the planned ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.daemon import until
from tests.lab.dnspoll import ask
from tests.lab.dockerd import health
from tests.lab.engine import POLITE, Box
from tests.lab.rig import Host, Lab, full, offer

pytestmark = pytest.mark.lab

PROMPT = 2.0
"""Seconds within which an end must be in every resolver; the benchmark says how much faster."""


def gone_everywhere(lab: Lab, name: str, box: Box, act: Callable[[], object]) -> dict[str, float]:
    """Act while every resolver is polled; how long each still gave the address, seconds."""
    lab.everywhere(name, [box.ipv4, box.ipv6])
    with lab.poller(name, interval=0.002) as poller:
        poller.wait(lambda answer: answer.addresses == (box.ipv4,))
        at = time.monotonic()
        act()
        times = poller.wait(lambda answer: not answer.addresses, after=at, deadline=20)
    return {host: when - at for host, when in times.items()}


def reason(host: Host, service: str, box: Box) -> str:
    """Why the container's IPv4 endpoint is not in DNS, by this host's API."""
    status, body = host.discod.request("GET", f"/v1/services/{service}")
    if status == 404:  # nothing is known of it yet
        return ""
    for endpoint in json.loads(body)["withdrawn"]:
        if endpoint["container"] == box.id and endpoint["address"] == box.ipv4:
            return str(endpoint["reason"])
    return ""


def test_crash(three: Lab) -> None:
    a, b, _ = three.hosts
    box = a.engine.box("crash", offer("crash"))
    times = gone_everywhere(three, "crash", box, lambda: a.engine.crash(box))
    assert max(times.values()) < PROMPT
    until(lambda: reason(b, "crash", box) == "crashed", what="the reason on another host")
    again = a.engine.again(box)
    three.everywhere("crash", [again.ipv4, again.ipv6])


def test_exit(three: Lab) -> None:
    a, b, _ = three.hosts
    box = a.engine.box("exit", offer("exit"), "sh", "-c", "trap 'exit 0' USR1; while :; do sleep 1 & wait; done")  # noqa: E501  # fmt: skip
    times = gone_everywhere(
        three, "exit", box, lambda: a.engine.client.kill(box.id, signal="SIGUSR1")
    )
    assert max(times.values()) < PROMPT
    until(lambda: reason(b, "exit", box) == "exited")


def test_removal(three: Lab) -> None:
    b = three["b"]
    box = b.engine.box("removal", offer("removal"))
    times = gone_everywhere(three, "removal", box, lambda: b.engine.remove(box.id))
    assert max(times.values()) < PROMPT


def test_pause_and_unpause(three: Lab) -> None:
    a, b, _ = three.hosts
    box = a.engine.box("paused", offer("paused"))
    times = gone_everywhere(three, "paused", box, lambda: a.engine.pause(box))
    assert max(times.values()) < PROMPT
    until(lambda: reason(b, "paused", box) == "paused")
    a.engine.unpause(box)
    three.everywhere("paused", [box.ipv4, box.ipv6])


def test_healthcheck(three: Lab) -> None:
    a, b, _ = three.hosts
    box = a.engine.box(
        "sick", offer("sick"), healthcheck=health("test", "-e", "/fine", interval=0.3)
    )
    until(lambda: a.discod.api("/v1/explain?q=sick")["findings"], what="known")
    until(lambda: reason(b, "sick", box) in ("starting", "unhealthy"), what="visible as down")
    assert b.dig("sick") == [], "not in DNS before it is healthy"
    a.engine.exec(box, "touch", "/fine")
    three.everywhere("sick", [box.ipv4, box.ipv6])
    times = gone_everywhere(three, "sick", box, lambda: a.engine.exec(box, "rm", "/fine"))
    assert max(times.values()) < PROMPT + 0.5
    until(lambda: reason(b, "sick", box) == "unhealthy")


def test_network_disconnect(three: Lab) -> None:
    a = three["a"]
    box = a.engine.box("cable", offer("cable"))
    client = a.engine.client
    times = gone_everywhere(
        three,
        "cable",
        box,
        lambda: client.disconnect_container_from_network(box.id, "bridge"),
    )
    assert max(times.values()) < PROMPT
    client.connect_container_to_network(box.id, "bridge")
    back = a.engine.look(box.id)
    three.everywhere("cable", [back.ipv4, back.ipv6])


@pytest.mark.parametrize(
    ("check", "hurt", "mend"),
    [
        ("tcp", "killall httpd", "httpd -p 8080 -h /www"),
        ("http:/ok", "rm /www/ok", "touch /www/ok"),
        ("cmd:test -e /www/ok", "rm /www/ok", "touch /www/ok"),
    ],
    ids=["tcp", "http", "cmd"],
)
def test_own_checks(three: Lab, check: str, hurt: str, mend: str) -> None:
    a, b, _ = three.hosts
    box = a.engine.box(
        "checked",
        offer("checked", check=check, check__interval="200ms", check__timeout="1s"),
        "sh",
        "-c",
        "mkdir /www; touch /www/ok; httpd -p 8080 -h /www; exec sleep 3600",
    )
    times = gone_everywhere(three, "checked", box, lambda: a.engine.exec(box, "sh", "-c", hurt))
    assert max(times.values()) < PROMPT + 1
    until(lambda: reason(b, "checked", box) == "unhealthy")
    a.engine.exec(box, "sh", "-c", mend)
    three.everywhere("checked", [box.ipv4, box.ipv6])


@pytest.fixture
def undrained(three: Lab) -> Iterator[None]:
    """However the test ends, the next one finds no drained host."""
    yield
    if not three["a"].discod.running:
        three["a"].discod.start()
    three["a"].discod.cli("undrain")


@pytest.mark.usefixtures("undrained")
def test_drain_is_kept_over_a_restart(three: Lab) -> None:
    a, b, c = three.hosts
    box = a.engine.box("drained", offer("drained"))
    other = b.engine.box("stays", offer("drained"))
    both = [box.ipv4, box.ipv6, other.ipv4, other.ipv6]
    three.everywhere("drained", both)
    assert a.discod.cli("drain").returncode == 0
    three.everywhere("drained", [other.ipv4, other.ipv6])
    assert reason(c, "drained", box) == "drained"
    with three.poller("drained", interval=0.002, hosts=[b, c]) as poller:
        poller.wait(lambda answer: answer.addresses == (other.ipv4,))
        a.discod.terminate()
        a.discod.start()
        fresh = a.engine.box("fresh", offer("fresh"))
        until(lambda: reason(c, "fresh", fresh) == "drained", what="new ones are drained too")
        for track in poller.tracks.values():
            assert len(track.changes) == 1, track.changes
    assert a.dig("fresh") == []
    assert a.discod.cli("undrain").returncode == 0
    three.everywhere("drained", both)
    three.everywhere("fresh", [fresh.ipv4, fresh.ipv6])


def test_one_container_is_drained(three: Lab) -> None:
    a = three["a"]
    one = a.engine.box("one-of-two", offer("pair"))
    two = a.engine.box("two-of-two", offer("pair"))
    three.everywhere("pair", [one.ipv4, one.ipv6, two.ipv4, two.ipv6])
    assert a.discod.cli("drain", "one-of-two").returncode == 0
    three.everywhere("pair", [two.ipv4, two.ipv6])
    assert a.discod.cli("undrain", "one-of-two").returncode == 0
    three.everywhere("pair", [one.ipv4, one.ipv6, two.ipv4, two.ipv6])


class Client:
    """Resolves and connects anew for each request, as fast as it can."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = full(name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.served: list[str] = []
        self.failed: list[str] = []

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._host.udp() as resolver:
            while not self._stop.is_set():
                try:
                    answer = ask(resolver, self._host.server, self._name)
                    for address in answer.addresses[:1] or ["no address"]:
                        self.served.append(self._host.get(address))
                except OSError as error:
                    self.failed.append(f"{time.monotonic():.3f} {answer}: {error!r}")


@pytest.mark.parametrize("kind", ["ignores SIGTERM", "closes its listener"])
def test_docker_stop_fails_no_request(three: Lab, kind: str) -> None:
    a, b, c = three.hosts
    argv = (
        ()
        if kind == "ignores SIGTERM"
        else ("sh", "-c", POLITE.format(name="leaves", port=8080, linger=0.3))
    )
    leaves = a.engine.box("leaves", offer("shop"), *argv)
    stays = b.engine.box("stays", offer("shop"))
    three.everywhere("shop", [leaves.ipv4, leaves.ipv6, stays.ipv4, stays.ipv6])
    for host in (a, c):  # both serve before the clients begin
        for box in (leaves, stays):
            until(lambda host=host, box=box: host.get(box.ipv4) == box.name)  # type: ignore[misc]
    with Client(c, "shop") as far, Client(a, "shop") as near:
        clients = (far, near)
        until(lambda: all(len(one.served) > 100 for one in clients), deadline=30)
        before = [len(one.served) for one in clients]
        a.engine.halt(leaves, 2)
        until(
            lambda: all(len(o.served) > n + 50 for o, n in zip(clients, before, strict=True)),
            deadline=30,
        )
    for one in clients:
        assert one.failed == []
        assert set(one.served[-20:]) == {"stays"}
    assert "leaves" in {*far.served, *near.served}, "the leaving one had its share"
    assert reason(c, "shop", leaves) in ("stopping", "exited", "crashed")


def test_a_host_that_is_cut_off_is_silent_and_then_lost(three: Lab) -> None:
    """The others see its silence before its lease ends; then the store has lost it."""
    a, b, c = three.hosts
    box = a.engine.box("cut", offer("cut"))
    three.everywhere("cut", [box.ipv4, box.ipv6])
    a.partition()
    try:
        three.everywhere("cut", [], hosts=[b, c], deadline=25)
        assert a.dig("cut") == [box.ipv4], "the cut-off host answers what it knows"
        until(
            lambda: (
                {one["container"] for one in b.discod.api("/v1/services/cut")["lost"]} == {box.id}
            ),
            deadline=25,
            what="a loss, not a withdrawal",
        )
    finally:
        a.heal()
    three.everywhere("cut", [box.ipv4, box.ipv6], deadline=25)
