"""DNS answers a second, and what they cost: `make bench-dns`.

discod beside NSD, Knot, BIND, gdnsd and dnsmasq, in a network namespace of its own: 1,000 services
of three endpoints, TTL 0, the same names and questions for all. The server has one core, the load
the other. Every answer is checked and every loss counted. discod runs as an operator would start
it, with rotation, metrics, ACL, rate limit and cookies on; its worker has the server's core, the
daemon itself the other one (for TCP, which it serves, the server's). The others have neither rate
limits nor logs, one thread for UDP, and else their own defaults.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks import dns_change, dns_compare, dns_features, dns_peers, dns_table, results
from benchmarks.dns_rig import Rig, Server, rig

BESIDE: dict[str, Callable[[Rig, Sequence[Server]], None]] = {
    "throughput": dns_compare.throughput,
    "tcp": dns_compare.tcp,
    "latency": dns_compare.latency,
}
"""Parts that need all servers."""
ALONE: dict[str, Callable[[Rig], None]] = {
    "features": dns_features.features,
    "workers": dns_features.workers,
    "churn": dns_change.churn,
    "fed": dns_change.fed,
    "scale": dns_change.scale,
}
"""Parts of discod alone."""
PARTS = (*BESIDE, *ALONE)


def lack(names: Sequence[str], parts: Sequence[str]) -> str:
    """What is not there, in words; empty when the parts can run."""
    if os.geteuid() != 0:
        return "it needs root: a network namespace, and port 53 in it"
    absent = dns_peers.missing(names) if set(parts) & set(BESIDE) else []
    needed = {"taskset": "util-linux", "ip": "iproute2"}
    if set(parts) & {"churn", "scale"}:
        needed |= {"etcd": "etcd-server", "etcdctl": "etcd-client"}
    absent += [package for program, package in needed.items() if shutil.which(program) is None]
    return f"Debian packages are missing: apt-get install {' '.join(absent)}" if absent else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.dns", description=__doc__)
    parser.add_argument("--short", action="store_true", help="3 rounds of 2 s instead of 5 of 5")
    parser.add_argument("--rounds", type=int, help="of each load")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument(
        "--servers", default=",".join(dns_peers.KINDS), help=f"of {','.join(dns_peers.KINDS)}"
    )
    args = parser.parse_args(argv)
    parts = args.only.split(",")
    names = [name for name in args.servers.split(",") if name]
    if unknown := {*parts} - {*PARTS} | {*names} - {*dns_peers.KINDS}:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    if absent := lack(names, parts):
        sys.exit(f"this benchmark cannot run: {absent}")
    # `timeout` and the like: everything that was started has to be ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rounds = args.rounds or (3 if args.short else 5)
    seconds = args.seconds or (2.0 if args.short else 5.0)
    with rig(names, rounds, seconds, short=args.short) as bench:
        bench.notes += _notes(bench)
        failed = run(bench, parts)
        goals = [(g.text, g.found, "yes" if g.met else "NO") for g in bench.goals]
        tables = list(bench.tables)
        if goals:
            tables.append(dns_table.plain("Goals", ("goal", "found", "met"), goals))
        for goal in bench.goals:
            bench.add(f"goal: {goal.text}", f"met ({goal.found})", "1 = yes", [float(goal.met)])
        results.report("dns", "DNS", bench.rows, bench.notes, tables=tables)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(bench: Rig, parts: Sequence[str]) -> list[str]:
    """Run the parts, those with all servers first; the names of those that failed."""
    failed = []

    def attempt(name: str, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - what the other parts found must not be lost
            traceback.print_exc()
            bench.notes.append(f"FAILED: {name}: {error!r}")
            failed.append(name)

    beside = [part for part in BESIDE if part in parts]
    if beside:
        with bench.line_up() as servers:
            for part in beside:
                attempt(part, partial(BESIDE[part], bench, servers))
    for part, function in ALONE.items():
        if part in parts:
            attempt(part, partial(function, bench))
    return failed


def _notes(bench: Rig) -> list[str]:
    server, load = bench.cores
    notes = [
        f"{bench.rounds} rounds of {bench.seconds:g} s, interleaved; server on core {server}, load"
        f" on core {load}; medians. x: the ratio round by round. CPU: of all processes of a server,"
        " by the scheduler's count, for one answer; busy: how much of the core it had. Every"
        " server's socket has the same receive buffer (4 MB).",
        "By their defaults NSD adds the zone's name server to its answers, and gdnsd leaves the"
        " addresses of SRV targets out.",
    ]
    if server == load:
        notes.append("There is one core only: figures of throughput mean nothing.")
    return notes


if __name__ == "__main__":
    main()
