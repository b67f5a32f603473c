"""Three whole hosts whose containers meet over BGP alone: what an operator is promised."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.lab.bgp.pods import Pod, crash, ping, probing
from tests.lab.bgp.watch import Watch, gone, routes, there
from tests.lab.bgp.world import ANYCAST, ANYCAST6, DRAIN, HOLD, World, figures, say, world
from tests.lab.daemon import until

pytestmark = pytest.mark.lab

ROUNDS = 15
GRACEFUL_SHUTDOWN = "65535:0"


@pytest.fixture(scope="module")
def hosts() -> Iterator[World]:
    """Built once; each test says what it is to be configured as."""
    with world() as made:
        yield made


@pytest.fixture(autouse=True)
def empty(hosts: World) -> Iterator[None]:
    """No containers after each test."""
    yield
    hosts.clear()


def meet(pods: list[Pod]) -> None:
    """Every container reaches every other in both families, and is seen by its own address."""
    for one, other in permutations(pods, 2):
        for own, address in ((one.box.ipv4, other.box.ipv4), (one.box.ipv6, other.box.ipv6)):
            until(
                lambda one=one, address=address: one.ping(address),  # type: ignore[misc]
                what=f"ping from {one.box.name} to {address}",
            )
            assert one.seen_as(address) == own


def strangers(pods: list[Pod]) -> None:
    """No container reaches one on another host."""
    for one, other in permutations(pods, 2):
        assert not one.ping(other.box.ipv4, 0.2)
        assert not one.ping(other.box.ipv6, 0.2)
        assert not one.seen_as(other.box.ipv4, 0.2)


def test_without_bgp_containers_do_not_meet(hosts: World) -> None:
    """The control of the next two: nothing else in this lab connects them."""
    hosts.become("none")
    pods = hosts.pods()
    for pod in pods:
        hosts.lab.everywhere(pod.box.name, [pod.box.ipv4, pod.box.ipv6])
    strangers(pods)
    assert not hosts.hosts[0].discod.cli("bgp", "status").stdout


def test_through_a_router(hosts: World) -> None:
    """Over a BIRD top-of-rack, with Docker's firewall shut."""
    hosts.become("tor")
    pods = hosts.pods()
    for pod in pods:
        hosts.everyone_has(pod)
        gateways = {gw for h in hosts.hosts if h is not pod.host
                    for gw in routes(h.space, pod.box.ipv4)}  # fmt: skip
        assert gateways == {hosts.tor.site.ipv4}
    meet(pods)
    for host in hosts.hosts:
        for program in ("iptables", "ip6tables"):
            assert "-P FORWARD DROP" in host.space.sh(program, "-w", "-S", "FORWARD")


def test_routed_says_who_gets_in(hosts: World) -> None:
    """The other hosts get in; Docker's firewall keeps the router out, until `routed` has it."""
    for wide in (False, True):
        more = {"routed": ["10.101.0.0/16", "192.0.2.0/24", "2001:db8::/32"]} if wide else {}
        hosts.become("tor", **more)
        pod = hosts.pod(hosts.hosts[0], "walled")
        hosts.everyone_has(pod)
        until(
            lambda: hosts.hosts[0].discod.api("/v1/bgp/status")["host_side"],
            what="the host side",
        )
        router, other = hosts.tor.site.space, hosts.hosts[1].space
        until(lambda: ping(other, pod.box.ipv4), what="ping from another host")  # noqa: B023
        for address in (pod.box.ipv4, pod.box.ipv6):
            if wide:
                until(lambda: ping(router, address), what=f"ping {address}")  # noqa: B023
            else:
                assert not ping(router, address, 0.3)
        hosts.clear()


def test_a_crash_withdraws_the_route(hosts: World) -> None:
    """From the death of a container's process until the router and the other hosts know it."""
    hosts.become("tor")
    pod = hosts.pod(hosts.hosts[0], "mortal")
    box = pod.box
    hosts.everyone_has(pod)
    spaces = {"tor": hosts.tor.site.space, "b": hosts.hosts[1].space, "c": hosts.hosts[2].space}
    took: dict[str, list[float]] = {name: [] for name in spaces}
    back: list[float] = []
    with Watch(spaces) as watch:
        for _ in range(ROUNDS):
            at = crash(box)
            for name in spaces:
                took[name].append(watch.first(name, gone(box.ipv4), at))
            until(lambda: not pod.host.engine.alive(), what="Docker knows the end")
            at = time.monotonic()
            box = pod.host.engine.again(box)
            back.append(max(watch.first(name, there(box.ipv4), at) for name in spaces))
    for name, seconds in took.items():
        whose = "router" if name == "tor" else f"host {name}"
        assert figures(f"SIGKILL of a container to its route gone in the {whose}", seconds) < 1
    assert figures("docker start, once Docker knew the end, to the route everywhere", back) < 5


def test_a_restart_loses_no_packet(hosts: World) -> None:
    """A packet each 10 ms through kill -9 and restart of a host's discod."""
    hosts.become("tor")
    lost = kill_and_restart(hosts, "graceful restart")
    assert lost == 0


def test_without_graceful_restart_packets_are_lost(hosts: World) -> None:
    """The control of the last one: the router forgets the host's routes at once."""
    hosts.become("tor", graceful_restart="0s")
    assert kill_and_restart(hosts, "no graceful restart") > 0


def kill_and_restart(hosts: World, name: str) -> int:
    """How many packets were lost in both directions, both families."""
    first, second = hosts.hosts[:2]
    one, other = hosts.pod(first, "one"), hosts.pod(second, "other")
    for pod in (one, other):
        hosts.everyone_has(pod)
    meet([one, other])
    paths = [
        (one, other.box.ipv4), (other, one.box.ipv4), (one, other.box.ipv6), (other, one.box.ipv6),
    ]  # fmt: skip
    peer = hosts.peer(first)
    before = flaps(hosts)
    with probing(paths) as end:
        time.sleep(0.5)
        first.discod.kill()
        until(lambda: hosts.tor.session(peer) != "Established", what="the router noticed")
        time.sleep(0.5)
        first.discod.start()
        hosts.tor.established(peer)
        until(lambda: first.discod.api("/v1/bgp/status")["synced"], what="synchronised")
        hosts.everyone_has(one)
        until(lambda: routes(first.space, other.box.ipv4), what="the route is still there")
        time.sleep(1.5)
        said = end()
    assert flaps(hosts) == before  # the other hosts' sessions had nothing to do with it
    for path, (sent, lost) in said.items():
        say(f"{name}, {path}: {sent} packets, {lost} lost")
        assert sent > 150
    return sum(lost for _, lost in said.values())


def flaps(hosts: World) -> list[float]:
    """Ended sessions of the second and third host."""
    return [
        sum(v for k, v in host.discod.metrics().items() if k.startswith("discod_bgp_flaps_total"))
        for host in hosts.hosts[1:]
    ]


def test_anycast_outlives_a_host_and_a_container(hosts: World) -> None:
    """Two hosts serve one fixed address: a dead host's path goes within the hold time, a stopped
    container's at once; the address is served all the time by the other."""
    hosts.become("tor")
    a, b, c = hosts.hosts
    fixed = f"{ANYCAST},{ANYCAST6}"
    pods = {host.name: hosts.pod(host, f"any-{host.name}", "shared", fixed) for host in (a, b)}
    client = hosts.pod(c, "client")
    hosts.everyone_has(client)
    space = hosts.tor.site.space
    both = sorted([a.leg.ipv4, b.leg.ipv4])
    both6 = sorted([a.leg.ipv6, b.leg.ipv6])
    for address, ways, own in (
        (ANYCAST, both, client.box.ipv4),
        (ANYCAST6, both6, client.box.ipv6),
    ):
        shared(hosts, address, ways)
        until(lambda it=address: client.get(it), what=f"{address} answers")  # type: ignore[misc]
        assert {client.get(address) for _ in range(40)} == {"any-a", "any-b"}, "it is not spread"
        assert client.seen_as(address) == own

    with Watch({"tor": space}) as watch:
        at = crash(pods["b"].box)
        gap = watch.first("tor", there(ANYCAST, without=b.leg.ipv4), at)
        say(f"SIGKILL of a container to its path out of the router: {gap * 1e3:.1f} ms")
        assert gap < 1
        assert routes(space, ANYCAST) == [a.leg.ipv4]
        until(lambda: routes(space, ANYCAST6) == [a.leg.ipv6], what="IPv6 too")
        # The third host knew of one next hop, the router, all the time.
        assert {client.get(ANYCAST) for _ in range(20)} == {"any-a"}
        assert {client.get(ANYCAST6) for _ in range(20)} == {"any-a"}
        box = b.engine.again(pods["b"].box)
        until(lambda: routes(space, ANYCAST) == both, what="two paths again")

        # It ignores SIGTERM, so Docker takes its time to stop it.
        at = b.engine.halt(box, timeout=1)
        ended = time.monotonic() - at
        gap = watch.first("tor", there(ANYCAST, without=b.leg.ipv4), at)
        say(f"docker stop to its path out of the router: {gap * 1e3:.1f} ms of {ended:.2f} s")
        assert gap < 1 <= ended
        b.engine.again(box)
        until(lambda: routes(space, ANYCAST) == both, what="two paths once more")

        at = a.partition()
        try:
            gap = watch.first("tor", there(ANYCAST, without=a.leg.ipv4), at, deadline=HOLD + 5.0)
            say(f"a host without power to its path out of the router: {gap:.2f} s, hold {HOLD} s")
            assert gap < HOLD + 1
            until(lambda: routes(space, ANYCAST6) == [b.leg.ipv6], deadline=3, what="IPv6 too")
            assert routes(space, ANYCAST) == [b.leg.ipv4]
            assert {client.get(ANYCAST) for _ in range(20)} == {"any-b"}
            assert {client.get(ANYCAST6) for _ in range(20)} == {"any-b"}
        finally:
            a.heal()
    hosts.tor.established(deadline=60)
    until(lambda: routes(space, ANYCAST) == both, deadline=30, what="two paths after the mending")


def shared(hosts: World, address: str, ways: list[str]) -> None:
    """Wait until the router has these equal paths, and the third host a way."""
    space, third = hosts.tor.site.space, hosts.hosts[2].space
    until(lambda: routes(space, address) == ways, what=f"{ways} to {address}")
    until(lambda: routes(third, address), what=f"{address} on the third host")


def test_drain_says_so_then_withdraws_then_leaves(hosts: World) -> None:
    """RFC 8326, then a withdrawal, then RFC 9003."""
    hosts.become("tor")
    host = hosts.hosts[2]
    pod = hosts.pod(host, "leaving")
    hosts.everyone_has(pod)
    peer, prefix = hosts.peer(host), f"{pod.box.ipv4}/32"
    until(lambda: prefix in hosts.tor.routes(peer), what="the route")
    assert GRACEFUL_SHUTDOWN not in hosts.tor.routes(peer)[prefix].communities

    at = time.monotonic()
    done = host.discod.cli("drain")
    assert done.returncode == 0, done.stderr
    until(
        lambda: GRACEFUL_SHUTDOWN in hosts.tor.routes(peer)[prefix].communities,
        deadline=DRAIN, what="GRACEFUL_SHUTDOWN",
    )  # fmt: skip
    until(lambda: prefix not in hosts.tor.routes(peer), what="the withdrawal")
    took = time.monotonic() - at
    say(f"discod drain to the withdrawal: {took:.2f} s, bgp.drain {DRAIN:g} s")
    assert took >= DRAIN - 0.1
    assert hosts.tor.session(peer) == "Established"
    assert hosts.tor.count(peer) == 0
    until(lambda: not routes(hosts.hosts[0].space, pod.box.ipv4), what="gone from other hosts")

    already = len(hosts.tor.log)
    try:
        assert host.discod.terminate() == 0
        until(
            lambda: "discod on c stops, the host is drained" in hosts.tor.log[already:],
            what="the word of the Cease in the router's log",
        )
        said = next(x for x in hosts.tor.log[already:].splitlines() if "discod on c" in x)
        assert "dministrative shutdown" in said
    finally:
        host.discod.start()
        undone = host.discod.cli("undrain")
    assert undone.returncode == 0, undone.stderr
    hosts.everyone_has(pod)
    assert hosts.tor.session(peer) == "Established"


def test_seen_by_its_operator(hosts: World) -> None:
    """`discod bgp status|peers|routes`, as text and as JSON, and the metrics."""
    hosts.become("tor")
    a, b = hosts.hosts[:2]
    one, other = hosts.pod(a, "one"), hosts.pod(b, "other", anycast=ANYCAST)
    for pod in (one, other):
        hosts.everyone_has(pod)
    tor = hosts.tor.site.ipv4

    def told(*words: str) -> str:
        done = a.discod.cli("bgp", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    until(lambda: f"{ANYCAST}/32" in told("routes"), what="the fixed address")
    learned = next(x for x in told("routes").splitlines() if x.startswith(f"{other.box.ipv4}/32"))
    assert tor in learned
    assert "64600 64514" in learned
    rows = {row["prefix"]: row for row in json.loads(told("routes", "--json"))["routes"]}
    assert {f"{other.box.ipv4}/32", f"{other.box.ipv6}/128", f"{ANYCAST}/32"} <= rows.keys()
    assert rows[f"{other.box.ipv4}/32"]["next_hops"] == [tor]
    assert rows[f"{other.box.ipv4}/32"]["installed"] is True

    (row,) = [x for x in told("peers").splitlines() if tor in x]
    assert "Established" in row
    (peer,) = json.loads(told("peers", "--json"))["peers"]
    assert (peer["name"], peer["asn"], peer["state"]) == ("tor", 64600, "Established")
    assert peer["hold_time"] == HOLD
    assert peer["advertised"] == 2
    assert peer["received"] == len(rows)
    assert sorted(peer["families"]) == ["ipv4", "ipv6"]

    text, status = told("status"), json.loads(told("status", "--json"))
    assert "AS 64513, router id 192.0.2.1, backend native, serving" in text
    assert "peers: 1 of 1 established" in text
    assert "MISSING" not in text
    assert status["announced"] == sorted([f"{one.box.ipv4}/32", f"{one.box.ipv6}/128"])
    assert status["kernel_routes"] == len(rows)
    assert not status["kernel_faults"]
    assert not status["error"]
    assert status["host_side"], "the host side is not shown"
    assert "10.101.2.0/24" in status["routed"]

    metrics = a.discod.metrics()
    assert metrics['discod_bgp_session_up{peer="tor"}'] == 1
    assert metrics["discod_bgp_announced_prefixes"] == 2
    assert metrics["discod_bgp_kernel_routes"] == len(rows)
    assert metrics['discod_bgp_received_prefixes{peer="tor"}'] == len(rows)


def test_a_mesh_needs_no_router(hosts: World) -> None:
    """Each host peers with each other by what they say of themselves in the store."""
    hosts.become("mesh")
    pods = hosts.pods()
    for pod in pods:
        hosts.everyone_has(pod)
    a, b, c = hosts.hosts
    assert routes(a.space, pods[1].box.ipv4) == [b.leg.ipv4]
    assert routes(a.space, pods[2].box.ipv4) == [c.leg.ipv4]
    meet(pods)
    for host in hosts.hosts:
        peers = host.discod.api("/v1/bgp/peers")["peers"]
        assert [(p["state"], p["mesh"], p["external"]) for p in peers] == (
            [("Established", True, False)] * 2
        )


def test_cleanup_leaves_the_host_as_it_was(hosts: World) -> None:
    """`discod bgp cleanup` after a stop: routes, packet filters and settings are as before."""
    hosts.become("tor")
    pods = [hosts.pod(host, f"p-{host.name}", anycast=ANYCAST) for host in hosts.hosts]
    for pod in pods:
        hosts.everyone_has(pod)
    host = hosts.hosts[0]
    until(
        lambda: ANYCAST in host.space.sh("ip", "route", "show", "table", "local"),
        what="the fixed address is delivered",
    )
    assert hosts.snapshot(host) != hosts.before[host.name]
    assert host.discod.terminate() == 0
    try:
        assert routes(host.space, pods[1].box.ipv4), "a stop takes no routes away"
        host.engine.remove_all()
        hosts.clean(host)
        after = hosts.snapshot(host)
        for what, before in hosts.before[host.name].items():
            assert after[what] == before, what
        assert hosts.clean(host) is not None  # once more does no harm
    finally:
        host.discod.start()
