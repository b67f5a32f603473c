"""How soon a dead host is out, and how often a living one is by mistake: `make bench-liveness`.

Simulated clusters on a virtual clock (the state machine is the product's own): time from a host's
death until all others take it as lost, false alarms over hours with lost packets, and the datagrams
that a host sends. What a real host's death takes in DNS, `make test-faults` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import results
from tests.unit.swim_world import World, pings

SIZES = (3, 10, 100)
LOSS = 0.05
SETTLE = 2.0
WATCH = 3.0


def deaths(count: int, runs: int, loss: float) -> list[float]:
    """Milliseconds from a death until the last other host knows, of each run."""
    found = []
    for seed in range(runs):
        world = World([f"h{n}" for n in range(count)], seed, loss)
        world.run(SETTLE + (seed % 20) / 100)
        at = world.now
        world.nodes["h0"].dead = True
        world.run(WATCH)
        out = world.taken_out("h0")
        if len(out) < count - 1:
            raise RuntimeError(f"{count} hosts, seed {seed}: known to {len(out)} only")
        found.append((max(out.values()) - at) * 1000)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.liveness", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="deaths of each size (default 100)")
    parser.add_argument("--hours", type=float, default=1.0, help="simulated, of 10 hosts")
    parser.add_argument("--short", action="store_true", help="10 deaths, 3 minutes")
    args = parser.parse_args(argv)
    runs, hours = (10, 0.05) if args.short else (args.runs, args.hours)
    rows: list[results.Row] = []
    for count in SIZES:
        case = f"{count} hosts"
        few = runs if count < 100 else max(5, runs // 10)
        rows.append(results.row(case, "death known to all", "ms", deaths(count, few, 0.0)))
        rows.append(results.row(case, "the same, 5 % loss", "ms", deaths(count, few, LOSS)))
        world = World([f"h{n}" for n in range(count)])
        world.run(SETTLE)
        rows.append(results.row(case, "sent by the busiest host", "1/s", [pings(world, 10.0)]))
    for count, share in ((10, 1.0), (100, 0.05)):
        world = World([f"h{n}" for n in range(count)], seed=1, loss=LOSS)
        world.run(hours * share * 3600)
        case = f"{count} hosts, 5 % loss, {hours * share * 60:g} min"
        rows.append(results.row(case, "false alarms", "", [float(len(world.history))]))
        rows.append(results.row(case, "suspicions", "", [float(world.noted["suspicion"])]))
    results.report("liveness", "The watch over hosts, simulated", rows, notes=())


if __name__ == "__main__":
    main()
