"""Three hosts: what one announces, all answer; and in the end all hold exactly what runs."""

from __future__ import annotations

import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from tests.lab.daemon import until
from tests.lab.engine import Box
from tests.lab.rig import DOMAIN, Host, Lab, offer

pytestmark = pytest.mark.lab

CONTAINERS = 200
AT_ONCE = 24
"""Containers that live at the same time on each host, at most."""


def test_a_container_on_one_host_resolves_on_all(three: Lab) -> None:
    a, b, c = three.hosts
    box = a.engine.box("web-on-a", offer("web", port_name="http"))
    three.everywhere("web", [box.ipv4, box.ipv6])
    target = f"a-{box.short}-8080.web.{DOMAIN}."
    for host in (a, b, c):
        assert host.dig("web") == [box.ipv4]
        assert host.dig("web", "AAAA") == [box.ipv6]
        assert host.dig("_http._tcp.web", "SRV") == [f"10 100 8080 {target}"]
        assert host.dig_ptr(box.ipv4) == [target]
        assert host.get(host.dig("web")[0]) == "web-on-a"
        for name, leg in (("a", a.leg), ("b", b.leg), ("c", c.leg)):
            assert host.dig(f"{name}.node") == [leg.ipv4]


def test_containers_of_all_hosts_stand_behind_one_name(three: Lab) -> None:
    boxes = [host.engine.box(f"many-{host.name}", offer("many")) for host in three.hosts]
    three.everywhere("many", [address for box in boxes for address in (box.ipv4, box.ipv6)])
    first = {three["c"].ask("many").addresses for _ in range(3)}
    assert first == {tuple(sorted(box.ipv4 for box in boxes))}


def test_two_hundred_at_random_end_with_exact_catalogs(three: Lab) -> None:
    rng = random.Random(20)
    lock = Lock()
    alive: dict[str, list[tuple[Box, str]]] = {host.name: [] for host in three.hosts}

    def start(host: Host, n: int, service: str) -> None:
        box = host.engine.box(f"churn-{n}", offer(service), "sleep", "3600")
        with lock:
            alive[host.name].append((box, service))

    def end(host: Host, box: Box, how: str) -> None:
        if how == "crash":
            host.engine.crash(box)
        elif how == "stop":
            host.engine.halt(box, 0)
        host.engine.remove(box.id)

    def churn(host: Host, jobs: list[tuple[int, str, float, str]]) -> None:
        for n, service, dice, how in jobs:
            start(host, n, service)
            with lock:
                mine = alive[host.name]
                over = len(mine) > AT_ONCE or dice < 0.6
                victim = mine.pop(int(dice * len(mine)) % len(mine)) if over else None
            if victim is not None:
                end(host, victim[0], how)

    jobs: dict[str, list[tuple[int, str, float, str]]] = {host.name: [] for host in three.hosts}
    for n in range(CONTAINERS):
        jobs[rng.choice("abc")].append(
            (n, f"svc-{rng.randrange(12)}", rng.random(), rng.choice(["crash", "stop", "remove"]))
        )
    # Two threads a host, so that starts and ends overlap on each engine as well.
    with ThreadPoolExecutor(6) as pool:
        tasks = [
            pool.submit(churn, host, jobs[host.name][part::2])
            for host in three.hosts
            for part in (0, 1)
        ]
        for task in tasks:
            task.result()

    expected = sorted(
        (service, f"{address}:8080", box.id)
        for host in three.hosts
        for box, service in alive[host.name]
        for address in (box.ipv4, f"[{box.ipv6}]")
    )
    running = sorted(id_ for host in three.hosts for id_ in host.engine.alive())
    assert sorted({id_ for _, _, id_ in expected}) == running, "the test's own book is right"
    assert len(running) > 15, "something is left to compare"
    for host in three.hosts:
        until(lambda host=host: host.catalog() == expected, deadline=15, what=host.name)  # type: ignore[misc]
    for n in range(12):
        wanted = sorted(t.rsplit(":", 1)[0].strip("[]") for s, t, _ in expected if s == f"svc-{n}")
        three.everywhere(f"svc-{n}", wanted)


def test_a_reused_address_never_resolves_to_the_old_name(three: Lab) -> None:
    a = three["a"]
    for n in range(5):
        old = a.engine.box(f"old{n}", offer(f"old-{n}"), "sleep", "3600")
        three.everywhere(f"old-{n}", [old.ipv4, old.ipv6])
        with three.poller(f"old-{n}", interval=0.002) as poller:
            poller.wait(lambda answer, old=old: answer.addresses == (old.ipv4,))  # type: ignore[misc]
            a.engine.crash(old)
            a.engine.remove(old.id)
            new = a.engine.box(f"new{n}", offer(f"new-{n}"), "sleep", "3600")
            began = time.monotonic()
            assert new.ipv4 == old.ipv4, "Docker gives the lowest free address"
            three.everywhere(f"new-{n}", [new.ipv4, new.ipv6])
            until(lambda began=began: time.monotonic() > began + 0.5)  # type: ignore[misc]
            for name, track in poller.tracks.items():
                assert track.changes[-1].answer.addresses == (), name
                assert track.changes[-1].at < began, "gone before the address was in use again"
                assert len(track.changes) == 2, track.changes
        for host in three.hosts:
            assert all("old-" not in target for target in host.dig_ptr(new.ipv4))
        a.engine.drop(new)


GOLDEN = (
    '{"host":"HOST","port":8080,"priority":10,"weight":100,"ttl":1,'
    '"discod":{"v":1,"producer":"docker","host":"b","container":"CONTAINER","name":"gold",'
    '"port_name":"http","protocol":"tcp","tags":["blue","v2"],"health":"up","since":SINCEEXTRA}}'
)


def test_records_are_what_coredns_reads_byte_for_byte(three: Lab) -> None:
    b = three["b"]
    assert three.etcd is not None
    box = b.engine.box("gold", offer("gold", port_name="http", tags="blue,v2"))
    three.everywhere("gold", [box.ipv4, box.ipv6])
    out = three.etcdctl("get", "--prefix", "/skydns/internal/discod/gold")
    lines = out.splitlines()
    found = dict(zip(lines[::2], lines[1::2], strict=True))
    v4 = f"/skydns/internal/discod/gold/b-{box.short}-8080"
    assert list(found) == [v4, f"{v4}-v6"]
    for key, address, extra in (
        (v4, box.ipv4, ""),
        (f"{v4}-v6", box.ipv6, f',"target":"b-{box.short}-8080"'),
    ):
        value = re.sub(r'"since":[0-9.]+', '"since":SINCE', found[key])
        assert value == GOLDEN.replace("HOST", address).replace("CONTAINER", box.id).replace(
            "EXTRA", extra
        )
        read = json.loads(found[key])
        assert {k: type(v) for k, v in read.items() if k != "discod"} == {
            "host": str,
            "port": int,
            "priority": int,
            "weight": int,
            "ttl": int,
        }
    leased = json.loads(three.etcdctl("get", v4, "-w", "json"))["kvs"][0]["lease"]
    assert leased, "a record never outlives its host"


def test_a_record_of_another_producer_is_served(three: Lab) -> None:
    key = "/skydns/internal/discod/legacy/x1"
    three.etcdctl("put", key, '{"host":"192.0.2.200","port":99,"ttl":60}')
    try:
        three.everywhere("legacy", ["192.0.2.200"])
        assert three["a"].dig("legacy", "SRV") == [f"10 100 99 x1.legacy.{DOMAIN}."]
    finally:
        three.etcdctl("del", key)
    three.everywhere("legacy", [])


def test_one_lease_a_host(three: Lab) -> None:
    host = three["a"]
    boxes = [host.engine.box(f"l{n}", offer(f"l{n}"), "sleep", "3600") for n in range(4)]
    for n, box in enumerate(boxes):
        three.everywhere(f"l{n}", [box.ipv4, box.ipv6])
    leases = set()
    for n in range(4):
        kvs = json.loads(
            three.etcdctl("get", "--prefix", f"/skydns/internal/discod/l{n}/", "-w", "json")
        )["kvs"]
        leases |= {kv["lease"] for kv in kvs}
    assert len(leases) == 1
