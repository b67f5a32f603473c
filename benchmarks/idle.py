"""What discod costs while nothing happens: `make bench-idle`.

One host with dockerd, etcd and discod, and 100 containers that are all in DNS. After a pause for
things to settle, the processor time and memory of each over the same minute, from /proc, with all
descendants of each (dockerd: containerd too, the containers' shims not).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import results
from tests.lab.daemon import until
from tests.lab.engine import each
from tests.lab.rig import Lab, offer

TICK = os.sysconf("SC_CLK_TCK")
WINDOW = 5.0
"""Seconds of one sample of processor time."""


def cpu(pid: int) -> float:
    """Processor seconds a process has used; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> tuple[float, float]:
    """Resident and proportional set size, MB (10^6 octets)."""
    sizes: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        sizes[name] = int(value.split()[0]) * 1024 / 1e6
    return sizes["Rss"], sizes["Pss"]


def family(root: int, leave_out: str = "\0") -> list[int]:
    """A process and all below it, without those whose command contains `leave_out`."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
                if leave_out not in command.replace("\0", " "):
                    found.append(int(child))
    return found


def watch(groups: Mapping[str, Sequence[int]], seconds: float) -> dict[str, list[float]]:
    """Percent of one core that each group uses, a sample every `WINDOW` seconds."""
    shares: dict[str, list[float]] = {name: [] for name in groups}
    for _ in range(max(round(seconds / WINDOW), 1)):
        before = {name: sum(map(cpu, pids)) for name, pids in groups.items()}
        start = time.monotonic()
        time.sleep(WINDOW)
        passed = time.monotonic() - start
        for name, pids in groups.items():
            shares[name].append((sum(map(cpu, pids)) - before[name]) / passed * 100)
    return shares


def rows_of(name: str, shares: Sequence[float], pids: Iterable[int]) -> list[results.Row]:
    """The table's rows of one group of processes."""
    sizes = [memory(pid) for pid in pids]
    return [
        results.row(name, "processor, whole time", "% of a core", [sum(shares) / len(shares)]),
        results.row(name, f"processor, each {WINDOW:g} s", "% of a core", shares),
        results.row(name, "memory, resident", "MB", [sum(rss for rss, _ in sizes)]),
        results.row(name, "memory, proportional", "MB", [sum(pss for _, pss in sizes)]),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--short", action="store_true", help="30 seconds instead of 60")
    args = parser.parse_args(argv)
    results.need_lab()
    seconds = 30.0 if args.short else args.seconds
    config = {"log": {"level": "info"}}
    with Lab(1, lease_ttl=10, config=config) as lab:
        host = lab.hosts[0]
        assert lab.etcd is not None
        each(
            lambda n: host.engine.box(f"idle-{n}", offer(f"idle-{n % 20}"), "sleep", "86400"),
            range(args.containers),
        )
        until(
            lambda: len({entry[2] for entry in host.catalog()}) == args.containers,
            deadline=60,
            what="all containers in DNS",
        )
        time.sleep(min(seconds, 15))
        groups = {
            "discod": family(host.discod.pid),
            "etcd": [m.process.pid for m in lab.etcd.members if m.process],
            "dockerd and containerd": family(host.engine.pid, "containerd-shim"),
        }
        shares = watch(groups, seconds)
        rows = [r for name, pids in groups.items() for r in rows_of(name, shares[name], pids)]
    results.report(
        "idle",
        f"Idle, {args.containers} containers in DNS",
        rows,
        notes=(f"One host, {seconds:g} s; memory at the end; the containers' shims are left out.",),
    )


if __name__ == "__main__":
    main()
