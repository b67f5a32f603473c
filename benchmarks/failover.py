"""How long the dead stay in DNS: `make bench-failover`.

Three hosts, each with its own dockerd, etcd member and discod. For every run a fresh container is
started on one of them, in turn; once all three resolvers answer with its address, pollers (one
query a millisecond to each resolver, all by one clock) run while it is crashed (once more with a
dockerd that hangs, and once more with hints off), stopped, paused, made unhealthy, or its host is
cut off. What counts is the first answer *without* the address. Beside it, Docker's embedded DNS for
a crash, seen by a neighbour on the same network, measured by the same poller. Zero of every time is
the moment before the act was asked for; for `unhealthy` the moment of the engine's own verdict,
since the time before it is the interval that the user chose.
"""

from __future__ import annotations

import argparse
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import results
from tests.lab import netns
from tests.lab.dnspoll import Answer, Poller
from tests.lab.dockerd import health
from tests.lab.engine import Box
from tests.lab.rig import Host, Lab, offer

INTERVAL = 0.001
"""Seconds between two queries to one resolver: the error of every figure, upwards."""
SETTLE = (0.15, 0.25)
"""Seconds between the last positive answer and the act: random, so that it meets no rhythm."""

Act = Callable[[Lab, Host, Box], float]


@dataclass(slots=True)
class Samples:
    """Milliseconds, of all runs of one case."""

    own: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)


def crash(_: Lab, host: Host, box: Box) -> float:
    """SIGKILL of the main process."""
    return host.engine.crash(box)


def crash_hung(_: Lab, host: Host, box: Box) -> float:
    """The same while the engine hangs, until `measure` lets it go on.

    Nobody tells, and nobody's clean-up competes for the machine.
    """
    host.engine.freeze()
    time.sleep(0.05)
    return host.engine.crash(box)


def stop(_: Lab, host: Host, box: Box) -> float:
    """`docker stop`, not waited for: the process lives on for its second of grace."""
    at = time.monotonic()
    threading.Thread(target=host.engine.halt, args=(box, 1)).start()
    return at


def pause(_: Lab, host: Host, box: Box) -> float:
    """`docker pause`."""
    return host.engine.pause(box)


def sicken(_: Lab, host: Host, box: Box) -> float:
    """Make the HEALTHCHECK fail; the time of the engine's verdict."""
    since = time.time()
    host.engine.exec(box, "touch", "/sick")
    ahead = time.time() - time.monotonic()
    for event in host.engine.client.events(
        since=since, until=since + 20, filters={"container": box.id}, decode=True
    ):
        if event["Action"] == "health_status: unhealthy":
            return float(event["timeNano"]) / 1e9 - ahead
    raise TimeoutError("the engine never called it unhealthy")


def cut(_: Lab, host: Host, box: Box) -> float:
    """Cut the host off the LAN, without a word to anyone."""
    return host.partition()


CASES: dict[str, tuple[Act, str]] = {
    "crash": (crash, "crash (SIGKILL)"),
    "hung": (crash_hung, "crash, dockerd hangs"),
    "stop": (stop, "docker stop"),
    "pause": (pause, "docker pause"),
    "unhealthy": (sicken, "unhealthy, from the engine's verdict"),
    "partition": (cut, "host cut off"),
    "hints-off": (crash, "crash, hints off: etcd alone"),
}


def measure(lab: Lab, case: str, runs: int, rng: random.Random) -> Samples:
    """`runs` runs of one case."""
    act, _ = CASES[case]
    samples = Samples()
    for n in range(runs):
        owner = lab.hosts[n % len(lab.hosts)]
        name = f"{case}-{n}"
        how: dict[str, Any] = (
            {"healthcheck": health("test", "!", "-e", "/sick")} if case == "unhealthy" else {}
        )
        box = owner.engine.box(name, offer(name, address="container"), "sleep", "3600", **how)
        try:
            _one(lab, owner, box, name, act, samples, rng, hears_all=case != "partition")
        finally:
            owner.engine.thaw()
            owner.heal()
            owner.engine.drop(box)
        if case == "partition":
            _recovered(lab)
    return samples


def _one(
    lab: Lab,
    owner: Host,
    box: Box,
    name: str,
    act: Act,
    samples: Samples,
    rng: random.Random,
    *,
    hears_all: bool,
) -> None:
    def there(answer: Answer) -> bool:
        return box.ipv4 in answer.addresses

    with lab.poller(name, interval=INTERVAL) as poller:
        poller.wait(there, deadline=20)
        time.sleep(rng.uniform(*SETTLE))
        at = act(lab, owner, box)
        witnesses = [h for h in lab.hosts if hears_all or h is not owner]
        gone = {
            h.name: (poller.first(h.name, lambda a: not there(a), after=at, deadline=60) - at) * 1e3
            for h in witnesses
        }
    if owner.name in gone:
        samples.own.append(gone[owner.name])
    samples.others += [ms for host, ms in gone.items() if host != owner.name]
    samples.last.append(max(gone.values()))


def _recovered(lab: Lab) -> None:
    """Wait until every host knows every host again."""
    end = time.monotonic() + 60
    for host in lab.hosts:
        while True:
            names = {h["name"] for h in host.discod.api("/v1/hosts")["hosts"] if h["live"]}
            if names == {h.name for h in lab.hosts} and not host.discod.api("/v1/sd/prometheus"):
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{host.name} still sees only {names}")
            time.sleep(0.1)


def measure_docker(host: Host, runs: int, rng: random.Random) -> list[float]:
    """Docker's embedded DNS: milliseconds from a crash to the first answer without it."""
    samples = []
    network = host.engine.client.create_network("peers")["Id"]
    # What Docker does not know it forwards; this host's discod refuses that at once, so that no
    # time of an absent upstream is counted against Docker.
    client = host.engine.box(
        "client", {}, "sleep", "3600", network="peers", host={"dns": [host.leg.ipv4]}
    )
    try:
        for n in range(runs):
            box = host.engine.box(f"peer-{n}", {}, "sleep", "3600", network="peers")
            sock = netns.inside(
                f"/proc/{client.pid}/ns/net",
                lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            )
            server = ("127.0.0.11", 53)
            with Poller({"docker": (sock, server)}, box.name, interval=INTERVAL) as poller:
                poller.first("docker", lambda a, b=box: b.ipv4 in a.addresses)  # type: ignore[misc]
                time.sleep(rng.uniform(*SETTLE))
                at = host.engine.crash(box)
                gone = poller.first(
                    "docker",
                    lambda a, b=box: b.ipv4 not in a.addresses,  # type: ignore[misc]
                    after=at,
                )
            samples.append((gone - at) * 1e3)
            host.engine.drop(box)
    finally:
        host.engine.drop(client)
        host.engine.client.remove_network(network)
    return samples


def rows_of(case: str, samples: Samples) -> list[results.Row]:
    """The table's rows of one case."""
    _, title = CASES[case]
    kinds = (
        ("on its own host", samples.own),
        ("on each other host", samples.others),
        ("on all hosts", samples.last),
    )
    return [results.row(title, metric, "ms", values) for metric, values in kinds if values]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.failover", description=__doc__)
    parser.add_argument("--runs", type=int, default=30, help="runs of each case (default 30)")
    parser.add_argument("--short", action="store_true", help="6 runs, 2 partitions")
    parser.add_argument("--lease-ttl", type=int, default=10, help="seconds (default 10)")
    parser.add_argument("--case", choices=[*CASES, "docker"], action="append", help="only these")
    parser.add_argument("--etcd-in-memory", action="store_true", help="no disk")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    results.need_lab()
    runs = 6 if args.short else args.runs
    rng = random.Random(args.seed)
    chosen = args.case or [*CASES, "docker"]
    rows: list[results.Row] = []
    quiet: dict[str, dict[str, str | int]] = {"log": {"level": "info"}}
    with Lab(3, memory=args.etcd_in_memory, lease_ttl=args.lease_ttl, config=quiet) as lab:
        for case in CASES:
            if case not in chosen or case == "hints-off":
                continue
            count = 2 if case == "partition" and args.short else runs
            rows += rows_of(case, measure(lab, case, count, rng))
        if "docker" in chosen:
            times = measure_docker(lab.hosts[0], runs, rng)
            rows.append(
                results.row("Docker's embedded DNS, crash", "on its only host", "ms", times)
            )
    if "hints-off" in chosen:
        without: dict[str, dict[str, str | int]] = {"announce": {"hint_port": 0}, **quiet}
        with Lab(3, memory=args.etcd_in_memory, lease_ttl=args.lease_ttl, config=without) as lab:
            rows += rows_of("hints-off", measure(lab, "hints-off", runs, rng))
    results.report(
        "failover",
        "Time out of DNS",
        rows,
        notes=(
            f"Three hosts, each polled every {INTERVAL * 1e3:g} ms; etcd's data"
            f" {'in memory' if args.etcd_in_memory else 'on the disk'}; lease {args.lease_ttl} s.",
            "All dockerds, etcds and discods share this one machine's cores with the pollers;"
            " discod has the share that its unit gives it (CPUWeight=1000).",
        ),
    )


if __name__ == "__main__":
    main()
