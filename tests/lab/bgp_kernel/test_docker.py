"""Two hosts with real dockerds, Docker's firewall in place, no overlay.

Containers reach each other by their own addresses; and afterwards nothing of it is left.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.daemon import until
from tests.lab.engine import Box, Engine
from tests.lab.netns import Leg, Namespace, build_lan, remove

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[3]
ANYCAST = {"10.77.0.1": 4, "2001:db8:77::1": 6}
What = Mapping[str, object]


class Host:
    """One machine: a dockerd whose firewall drops what is forwarded."""

    def __init__(self, leg: Leg, folder: Path) -> None:
        self.leg, self.space, self.state = leg, leg.space, folder / f"state{leg.n}"
        self.engine = Engine(
            folder / f"d{leg.n}",
            prefix=leg.space.prefix,
            bip=leg.bip,
            cidr6=leg.pods6,
            extra=("--experimental", "--ip6tables"),
        )

    def act(self, *argv: str) -> list[str]:
        return [*self.space.prefix, sys.executable, "-m", "tests.lab.bgp_kernel.act", *argv]

    @contextmanager
    def kept(self, what: What) -> Iterator[None]:
        process = subprocess.Popen(
            self.act("run", str(self.state), json.dumps(what)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.strip() == "ready", line
            yield
        finally:
            process.communicate(timeout=10)

    def cleanup(self) -> str:
        done = subprocess.run(
            self.act("cleanup", str(self.state)),
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def picture(self) -> dict[str, object]:
        """All that the host side may change, as the system's own tools show it."""
        tools = {
            "routes": "ip -4 route show table all; ip -6 route show table all",
            "proxies": "ip -4 neigh show proxy; ip -6 neigh show proxy",
            "filter": "iptables-save; ip6tables-save",
            "nft": "nft -s list ruleset",
            "sysctls": "cd /proc/sys/net; grep -H . ipv4/ip_forward ipv[46]/conf/*/*forwarding"
            " ipv6/conf/*/accept_ra ipv6/conf/*/proxy_ndp ipv4/conf/*/proxy_arp"
            " ipv[46]/neigh/*/proxy_delay",
        }
        seen = {name: self.space.sh("sh", "-c", tool) for name, tool in tools.items()}
        # Counters, dates, and what is learned by the way.
        found: dict[str, object] = {}
        for name, text in seen.items():
            text = re.sub(r"\[\d+:\d+\]|^#.*$| expires \S+| pref medium", "", text, flags=re.M)
            lines = text.splitlines()
            found[name] = sorted(x.strip() for x in lines if x.strip() and "veth" not in x)
        return found


def pods(legs: list[Host]) -> list[str]:
    return [net for host in legs for net in (host.leg.pods4, host.leg.pods6)]


def plan(host: Host, other: Host) -> dict[str, object]:
    return {
        "routes": {
            other.leg.pods4: [other.leg.ipv4],
            other.leg.pods6: [other.leg.ipv6],
            **{f"{a}/{32 if v == 4 else 128}": [other.leg.ipv4 if v == 4 else other.leg.ipv6]
               for a, v in ANYCAST.items()},
        },
        "routed": pods([host, other]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Iterator[list[Host]]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bk", dir="/tmp"))
        stack.callback(lambda: subprocess.run(["rm", "-rf", str(folder)], check=False))
        lan, legs = build_lan(f"bk{os.getpid()}", 2)
        stack.callback(remove, [lan, *(leg.space for leg in legs)])
        hosts = [Host(leg, folder) for leg in legs]
        for host in hosts:
            other = hosts[2 - host.leg.n].leg
            host.space.ip(f"route del {other.pods4}", f"route del {other.pods6}")
            host.space.sysctl(net__ipv4__ip_forward=0, net__ipv6__conf__all__forwarding=0)
            stack.callback(host.engine.close)
            host.engine.start()
            host.engine.import_busybox()
        yield hosts


@pytest.fixture
def boxes(two: list[Host]) -> Iterator[list[Box]]:
    """One container on each host, with a web server."""
    made = [host.engine.box(f"c{host.leg.n}") for host in two]
    yield made
    for host in two:
        host.engine.remove_all()


def fetch(host: Host, box: Box, address: str) -> str:
    """What a container gets from a web server; empty: nothing."""
    code, text = host.engine.exec(
        box, "timeout", "2", "sh", "-c",
        f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {address} 8080 | tail -n 1",
    )  # fmt: skip
    return text.strip() if code == 0 else ""


def reach(two: list[Host], boxes: list[Box]) -> list[str]:
    """What does not reach the other with its own source address, in words."""
    wrong = []
    for here, there in ((0, 1), (1, 0)):
        for mine, its in (
            (boxes[here].ipv4, boxes[there].ipv4),
            (boxes[here].ipv6, boxes[there].ipv6),
        ):
            two[there].space.sh("conntrack", "-F", check=False)
            said = fetch(two[here], boxes[here], its)
            family = "ipv6" if ":" in its else "ipv4"
            table = two[there].space.sh("conntrack", "-L", "-p", "tcp", "-f", family, check=False)
            if said != boxes[there].name:
                wrong.append(f"{mine} -> {its}: {said!r}")
            elif f"src={mine} dst={its}" not in table:
                wrong.append(f"{mine} -> {its}: seen as {table}")
    return wrong


def test_own_addresses_across_hosts_and_nothing_left(two: list[Host], boxes: list[Box]) -> None:
    # A restart changes the protocol of Docker's own IPv6 routes, which is not what is looked for.
    two[1].engine.restart()
    before = [host.picture() for host in two]
    plans = [plan(two[0], two[1]), plan(two[1], two[0])]
    for what, box in zip(plans, boxes, strict=True):
        what["local"] = [f"{box.ipv4}/32", f"{box.ipv6}/128"]

    # Negative control: routes alone do not do.
    with two[0].kept({**plans[0], "host": []}), two[1].kept({**plans[1], "host": []}):
        assert len(reach(two, boxes)) == 4

    with two[0].kept(plans[0]), two[1].kept(plans[1]):
        assert reach(two, boxes) == []
        first = [host.picture() for host in two]
        for host, box in zip(two, boxes, strict=True):
            shown = host.space.sh("sh", "-c", "ip -4 neigh show proxy; ip -6 neigh show proxy")
            assert f"{box.ipv4} dev eth0 proxy proto 201" in " ".join(shown.split())
            assert f"{box.ipv6} dev eth0 proxy proto 201" in " ".join(shown.split())
        # Docker's own rules are still there, and what is not excepted is dropped.
        assert any("FORWARD DROP" in str(line) for line in first[0]["filter"])  # type: ignore[attr-defined]
        with two[0].space.socket(socket.AF_INET, socket.SOCK_STREAM) as outside:
            outside.settimeout(1)
            with pytest.raises(TimeoutError):
                outside.connect((boxes[1].ipv4, 8080))

        # dockerd starts again, and inserts its own rules before everything.
        two[1].engine.restart()
        assert reach(two, boxes) == []
        # Somebody flushes what we made.
        two[1].space.sh("iptables", "-w", "-D", "DOCKER-USER", "-j", "DISCOD")
        two[1].space.sh("ip6tables", "-w", "-F", "DISCOD-TO")
        two[1].space.sh("nft", "delete", "table", "ip6", "discod_bgp")
        until(lambda: not reach(two, boxes), deadline=15, what="repaired")
    # Twice is as once; what runs ends, what it made stays.
    with two[0].kept(plans[0]):
        assert two[0].picture() == first[0]
    assert reach(two, boxes) == []
    for host, was in zip(two, before, strict=True):
        host.cleanup()
        now = host.picture()
        for name in was:
            assert now[name] == was[name], name
        assert "0 routes removed" in host.cleanup()


def anycast(two: list[Host], client: Namespace, address: str) -> str:
    """Who answers a new connection to an anycast address, from outside; empty: nobody."""
    out = client.sh(
        "timeout", "2", "busybox", "sh", "-c",
        f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc {address} 8080 | tail -n 1",
        check=False,
    )  # fmt: skip
    return out.strip()


def test_anycast_is_delivered_to_local_containers(two: list[Host]) -> None:
    host, client = two[0], two[1].space
    made = [host.engine.box(name) for name in ("w1", "w2")]
    before = host.picture()
    client.ip(
        f"route add 10.77.0.1/32 via {host.leg.ipv4}",
        f"route add 2001:db8:77::1/128 via {host.leg.ipv6}",
    )
    try:
        both = {
            "10.77.0.1": [box.ipv4 for box in made],
            "2001:db8:77::1": [box.ipv6 for box in made],
        }
        with host.kept({"anycast": both}):
            for address in both:
                names = {anycast(two, client, address) for _ in range(24)}
                assert names == {"w1", "w2"}, address
                # From the host itself, and from one of its containers.
                assert anycast(two, host.space, address) in names
                assert {fetch(host, made[0], address) for _ in range(4)} == {"w2"}
                # ICMP goes the same way: any protocol does.
                client.sh("ping", "-c", "1", "-W", "2", address)
            held = client.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.settimeout(3)
            held.connect(("10.77.0.1", 8080))
        one = {"10.77.0.1": [made[0].ipv4], "2001:db8:77::1": [made[0].ipv6]}
        with host.kept({"anycast": one}):
            for address in one:
                assert {anycast(two, client, address) for _ in range(8)} == {"w1"}
            table = host.space.sh("conntrack", "-L", "-f", "ipv4", "-d", "10.77.0.1")
            assert f"src={made[1].ipv4}" not in table
        held.close()
        with host.kept({"anycast": {}}):
            assert anycast(two, client, "10.77.0.1") == ""
    finally:
        client.ip("route del 10.77.0.1/32", "route del 2001:db8:77::1/128")
        host.cleanup()
        host_after = host.picture()
        host.engine.remove_all()
    assert host_after == before


def test_who_has_no_route_asks_its_neighbours(two: list[Host], boxes: list[Box]) -> None:
    """Calico's way: the network asks for a container's address, a container for 169.254.1.1."""
    host, other = two
    box = boxes[0]
    own = [f"{box.ipv4}/32", f"{box.ipv6}/128"]
    inside = ["nsenter", "-t", str(box.pid), "-n"]

    def reached(address: str) -> bool:
        probe = [*other.space.prefix, "ping", "-c1", "-W1", address]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def asked() -> bool:
        probe = [*inside, "ping", "-c1", "-W1", other.leg.ipv4]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def gateway(via: str) -> None:
        route = ["ip", "route", "replace", "default", "via", via, "dev", "eth0", "onlink"]
        subprocess.run([*inside, *route], check=True)

    with ExitStack() as stack:
        other.space.ip(*(f"route add {one} dev eth0" for one in own))
        stack.callback(other.space.ip, *(f"route del {one} dev eth0" for one in own))
        # What the host has no way to, it does not answer for.
        host.space.ip(f"route add default via {other.leg.ipv4}")
        stack.callback(host.space.ip, "route del default")
        stack.callback(host.cleanup)
        gateway("169.254.1.1")
        assert not reached(box.ipv4)
        assert not reached(box.ipv6)
        assert not asked()
        with host.kept({"local": own, "routed": [*pods(two), "192.0.2.0/24", "2001:db8::/64"]}):
            for address in (box.ipv4, box.ipv6):
                until(lambda a=address: reached(a), what=f"an answer of {address}")  # type: ignore[misc]
            until(asked, what="an answer to the container")
