"""Connections through rescue, beside direct ones and beside HAProxy, to the same servers.

Rule: one client (wrk, a connection for each request), one nginx process that is all the servers,
one host between them; only the way differs: straight to one server, by the service's own address,
by a stale address, or by HAProxy (mode tcp, one thread) on the client's host. The ways take turns.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from benchmarks import dns_child, dns_place, results
from benchmarks import rescue_plans as plans
from benchmarks.rescue_packets import ratio
from benchmarks.rescue_rules import enter
from benchmarks.rescue_site import Site
from tests.lab.daemon import until
from tests.lab.netns import Namespace

NEEDED = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk"}
"""Program -> the Debian package that has it; only these measurements use them."""
OPEN = 32
"""Connections that the client has open at a time."""
TURN = 1
"""Whole seconds of one turn (wrk knows no parts)."""
STARTS_WITHIN = 10.0
CONNECTS_WITHIN = 2.0
"""Seconds for one connection and its answer; a longer one is a failure."""
_CASE = "HTTP, a connection for each request"

Ways = Mapping[str, tuple[str, int]]

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  server {{
    {listen}
    default_type text/plain;
    return 200 "ok";
  }}
}}
"""
HAPROXY = """
global
    maxconn 4096
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind {address}:{port}
    balance roundrobin
    {servers}
"""


def absent() -> str:
    """What is not installed, in words; empty: nothing."""
    lack = [package for name, package in NEEDED.items() if shutil.which(name) is None]
    return f"apt-get install --no-install-recommends {' '.join(lack)}" if lack else ""


def nginx(folder: Path) -> str:
    """Its configuration."""
    listen = [f"listen {at}{p} backlog=4096;" for p in plans.PORTS.values() for at in ("", "[::]:")]
    return NGINX.format(folder=folder, listen="\n    ".join(listen))


def haproxy() -> str:
    """Its configuration."""
    port = plans.PORTS["proxy"]
    servers = [f"server s{n} {address}:{port}" for n, address in enumerate(plans.SERVERS[4])]
    return HAPROXY.format(address=plans.GATEWAY[4], port=port, servers="\n    ".join(servers))


@contextmanager
def running(space: Namespace, argv: Sequence[str], port: int, address: str) -> Iterator[None]:
    """A server, from when it accepts to when it has ended."""
    process = subprocess.Popen([*space.prefix, *argv], stdin=subprocess.DEVNULL)
    try:

        def accepts() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with status {process.returncode}")
            with space.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                return sock.connect_ex((address, port)) == 0

        until(accepts, deadline=STARTS_WITHIN, what=f"{argv[0]} accepts")
        yield
    finally:
        dns_place.end(process)


@contextmanager
def servers(site: Site) -> Iterator[None]:
    """The servers (nginx) beyond the host, HAProxy on it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="discod-br-")))
        (folder / "nginx.conf").write_text(nginx(folder))
        (folder / "haproxy.cfg").write_text(haproxy())
        argv: tuple[str, ...] = (
            "nginx",
            "-p",
            str(folder),
            "-e",
            str(folder / "e"),
            "-c",
            "nginx.conf",
        )
        stack.enter_context(running(site.server, argv, plans.PORTS["direct"], plans.SERVERS[4][0]))
        argv = ("haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg"))
        stack.enter_context(running(site.host, argv, plans.PORTS["proxy"], plans.GATEWAY[4]))
        yield


def ways(version: int) -> dict[str, tuple[str, int]]:
    """Where a client connects to."""
    found = {
        "direct": plans.SERVERS[version][0],
        "vip": plans.VIP[version],
        "far": plans.DEAD_FAR[version],
        "near": plans.DEAD_NEAR[version],
    }
    if version == 4:
        found["proxy"] = plans.GATEWAY[4]
    return {name: (address, plans.PORTS[name]) for name, address in found.items()}


# How many -------------------------------------------------------------------------------------


def parsed(said: str) -> float:
    """Requests a second, of what wrk says.

    Raises:
        ValueError: some failed, or it says something else.
    """
    failed = re.search(r"(Socket errors:.*|Non-2xx.*)", said)
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if failed or not found or float(found[1]) == 0:
        raise ValueError(f"wrk: {failed[1] if failed else said.strip()[:200]!r}")
    return float(found[1])


def load(site: Site, target: tuple[str, int]) -> float:
    """Connections a second, for `TURN` seconds."""
    url = f"http://{target[0]}:{target[1]}/"
    argv = ("wrk", "-t", "1", "-c", str(OPEN), "-d", f"{TURN}s", "--timeout", "5s")
    return parsed(site.client.sh(*argv, "-H", "Connection: close", url))


def throughput(
    site: Site, rounds: int, rng: random.Random, say: Callable[[str], None]
) -> list[results.Row]:
    """Connections a second of each way, and the ratios."""
    targets = ways(4)
    found: dict[str, list[float]] = {name: [] for name in targets}
    for number in range(rounds):
        say(f"connections a second, round {number + 1} of {rounds}")
        for name in rng.sample(list(targets), len(targets)):
            site.forget()
            found[name].append(load(site, targets[name]))
    site.forget()
    unit = "connections/s"
    return [
        results.row(_CASE, "direct", unit, found["direct"]),
        results.row(_CASE, "service address", unit, found["vip"]),
        results.row(_CASE, "rescued from another host's", unit, found["far"]),
        results.row(_CASE, "rescued from the same bridge's", unit, found["near"]),
        results.row(_CASE, "HAProxy", unit, found["proxy"]),
        ratio(_CASE, "service address to direct", found["vip"], found["direct"]),
        ratio(_CASE, "rescued (another host's) to direct", found["far"], found["direct"]),
        ratio(_CASE, "HAProxy to direct", found["proxy"], found["direct"]),
        ratio(_CASE, "service address to HAProxy", found["vip"], found["proxy"]),
    ]


# How long -------------------------------------------------------------------------------------


def connects(space: str, targets: Mapping[str, Sequence[Any]], rounds: int) -> dict[str, Any]:
    """In a child: microseconds to connect, and from then to the answer's first octet, of each way.

    Args:
        space: Path of the client's network namespace.
        targets: Name -> address and port.
        rounds: Connections to each of them; they take turns.
    """
    enter(space)
    rng = random.Random(1)
    setup: dict[str, list[float]] = {name: [] for name in targets}
    answer: dict[str, list[float]] = {name: [] for name in targets}
    for number in range(rounds + rounds // 10 + 1):
        for name in rng.sample(list(targets), len(targets)):
            address, port = targets[name]
            took = once(address, port)
            if number > rounds // 10:  # those before are for the caches
                setup[name].append(took[0])
                answer[name].append(took[1])
    return {"setup": setup, "answer": answer}


def once(address: str, port: int) -> tuple[float, float]:
    """One connection with one request: microseconds until it stands, and until the answer."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECTS_WITHIN)
        start = time.perf_counter()
        sock.connect((address, port))
        there = time.perf_counter()
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        if not sock.recv(1):
            raise ConnectionError(f"{address}:{port} closed without an answer")
        return (there - start) * 1e6, (time.perf_counter() - start) * 1e6


def refusals(space: str, targets: Sequence[Sequence[Any]], rounds: int) -> list[list[float]]:
    """In a child: microseconds until a connection is refused, for each target."""
    enter(space)
    found: list[list[float]] = [[] for _ in targets]
    for _ in range(rounds):
        for times, (address, port) in zip(found, targets, strict=True):
            family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(CONNECTS_WITHIN)
                start = time.perf_counter()
                try:
                    sock.connect((address, port))
                except ConnectionRefusedError:
                    times.append((time.perf_counter() - start) * 1e6)
                else:
                    raise RuntimeError(f"{address}:{port}: connected, and nobody should be there")
    return found


NAMES = {
    "direct": "direct",
    "vip": "service address",
    "far": "rescued from another host's",
    "near": "rescued from the same bridge's",
    "proxy": "HAProxy",
}


def latency(site: Site, rounds: int, say: Callable[[str], None]) -> list[results.Row]:
    """Connection setup and time to the first octet, one connection at a time."""
    rows = []
    path = str(site.client.path)
    for version in (4, 6):
        say(f"connection setup, IPv{version}")
        found = dns_child.call(
            "benchmarks.rescue_connections:connects", timeout=60 + rounds * 0.05,
            space=path, targets=ways(version), rounds=rounds,
        )  # fmt: skip
        for what, metric in (("setup", "connected"), ("answer", "first octet of the answer")):
            case = f"one connection, IPv{version}: until {metric}"
            times = found[what]
            # The proxy accepts before it has a server: its setup is not the same thing.
            shown = [name for name in times if (name, what) != ("proxy", "setup")]
            rows += [results.row(case, NAMES[name], "us", times[name]) for name in shown]
            rows += [
                ratio(case, f"{NAMES[name]} to direct", times[name], times["direct"])
                for name in shown
                if name != "direct"
            ]
    say("refusals")
    alone = [(plans.DEAD_ALONE[version], 8080) for version in (4, 6)]
    times = dns_child.call(
        "benchmarks.rescue_connections:refusals", timeout=60 + rounds * 0.05,
        space=path, targets=alone, rounds=rounds,
    )  # fmt: skip
    case = "no sibling: until refused"
    rows += [
        results.row(case, f"IPv{version}", "us", found)
        for version, found in zip((4, 6), times, strict=True)
    ]
    return rows
