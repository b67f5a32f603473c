"""What rescue and service addresses cost: `make bench-rescue`.

On hosts that are network namespaces, with a container's namespace on a bridge and servers beyond:
how long a change of the rules takes, packets a second through the host without rescue, with no
entry and with 10,000 of each IP version, connections a second by a service's own address beside
direct ones and beside HAProxy, and how long one connection takes to stand. All in one run;
the ways take turns, and a ratio is of two turns of the same round.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.table import Table

from benchmarks import rescue_connections, rescue_packets, rescue_rules, results
from benchmarks.rescue_site import Site

ENTRIES = 10_000
AIM = 0.95
"""Packets a second with `ENTRIES` to those with none, at least."""
PARTS = ("rules", "packets", "connections", "latency")


def say(text: str) -> None:
    """Tell a waiting person what goes on."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


@contextmanager
def favoured() -> Iterator[None]:
    """Give this session the largest share there is (sched(7), autogroups), and take it back."""
    path = Path("/proc/self/autogroup")
    try:
        before = path.read_text().split()[-1]
    except OSError:
        yield  # a kernel without autogroups
        return
    path.write_text("-20")
    try:
        yield
    finally:
        path.write_text(before)


def measure(
    parts: Sequence[str], *, entries: int, sizes: Sequence[int], rounds: dict[str, int]
) -> tuple[list[results.Row], list[str]]:
    """Rows and notes of some parts.

    Args:
        parts: Of `PARTS`.
        entries: Stale places of each IP version while packets and connections go through.
        sizes: Stale places that are there when rules are changed.
        rounds: Of each part.
    """
    rows: list[results.Row] = []
    notes: list[str] = []
    rng = random.Random(1)
    if "rules" in parts:
        say("rules")
        with Site("rules") as site:
            rows += rescue_rules.measure(site, sizes, rounds["rules"])
    if not set(parts) - {"rules"}:
        return rows, notes
    with ExitStack() as stack:
        full = stack.enter_context(Site("full"))
        rescue_rules.made(full, entries)
        if "packets" in parts:
            bare, again, empty = (
                stack.enter_context(Site(name)) for name in ("bare", "again", "empty")
            )
            rescue_rules.made(empty, 0, empty=True)
            rows += rescue_packets.measure(
                bare, again, empty, full, entries, rounds["packets"], rng, say
            )
        if {"connections", "latency"} & set(parts):
            if lack := rescue_connections.absent():
                notes.append(f"connections were not measured; as root: {lack}")
                return rows, notes
            stack.enter_context(rescue_connections.servers(full))
        if "connections" in parts:
            rows += rescue_connections.throughput(full, rounds["connections"], rng, say)
        if "latency" in parts:
            rows += rescue_connections.latency(full, rounds["latency"], say)
    return rows, notes


def table(rows: Sequence[results.Row]) -> Table:
    """The rows, with a case's name above its own: there is more to read than columns are wide."""
    shown = Table(title="Rescue and service addresses", title_justify="left", title_style="bold")
    shown.add_column("")
    for heading in ("n", "min", "median", "p99", "max"):
        shown.add_column(heading, justify="right")
    shown.add_column("unit")
    last = ""
    for row in rows:
        if row.case != last:
            shown.add_section()
            shown.add_row(f"[bold]{row.case}[/]")
            last = row.case
        figures = (results.figure(value) for value in (row.min, row.median, row.p99, row.max))
        shown.add_row(f"  {row.metric}", str(row.n), *figures, row.unit)
    return shown


def verdicts(rows: Sequence[results.Row], entries: int) -> list[str]:
    """What was promised, and what was found."""
    found = []
    for row in rows:
        if row.metric == f"{entries:,} entries to 0 entries":
            met = "met" if row.median >= AIM else "MISSED"
            found.append(f"{row.case}: {row.median:.3f} of 0 entries' (aim {AIM}: {met})")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.rescue", description=__doc__)
    parser.add_argument("--short", "--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args(argv)
    results.need_lab()
    rounds = {"rules": 50, "packets": 100, "connections": 15, "latency": 2000}
    if args.short:
        rounds = {"rules": 10, "packets": 20, "connections": 3, "latency": 200}
    with favoured():
        rows, notes = measure(args.only, entries=ENTRIES, sizes=rescue_rules.SIZES, rounds=rounds)
    notes += verdicts(rows, ENTRIES)
    results.report("rescue", "Rescue", rows, notes, tables=[table(rows)])


if __name__ == "__main__":
    main()
