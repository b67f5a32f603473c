"""Container lifecycles without end, and what they cost: `python -m tests.lab.soak`.

    python -m tests.lab.soak [--hours H] [--lifecycles N] [--seed S]

Rule: one host, everything real. Containers are started, killed, stopped, paused and removed at
random; after a warm-up the resident size of the daemon and of its worker is sampled, and in the end
it is flat within 10 %, DNS equals the engine's list, and no descriptor is left open. The seed is
printed; the same seed makes the same choices.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab.daemon import Config, children, until
from tests.lab.dockerd import SLEEPER
from tests.lab.rig import Host, Lab, offer

WARM_UP = 0.2
"""Share of the lifecycles after which the size counts: caches fill, code is compiled."""
SAMPLES = 20
GROWTH = 0.10
WIDTH = 6
"""Containers at a time; the engine makes no more of them a second with more."""
SERVICES = 12
KEPT = 60
"""Seconds that withdrawals are kept."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sizes at one moment."""

    lifecycles: int
    seconds: float
    daemon: int
    """Resident, KiB."""
    worker: int
    descriptors: int
    threads: int


def look(host: Host, lifecycles: int, began: float) -> Sample:
    """Measure now."""
    pid = host.discod.pid
    return Sample(
        lifecycles,
        time.monotonic() - began,
        _status(pid, "VmRSS"),
        sum(_status(child, "VmRSS") for child in children(pid)),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        _status(pid, "Threads"),
    )


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {name} in the status of {pid}")


def live(host: Host, number: int, seed: int) -> None:
    """One container from its start to its removal."""
    rng = random.Random(f"{seed}/{number}")
    engine = host.engine
    service = f"soak-{rng.randrange(SERVICES)}"
    box = engine.box(f"soak-{number}", offer(service), *SLEEPER)
    if rng.random() < 0.3:
        host.ask(service)
    how = rng.choice(["crash", "stop", "remove", "pause"])
    if how == "crash":
        engine.crash(box)
    elif how == "stop":
        engine.halt(box, 1)
    elif how == "pause":
        engine.pause(box)
        engine.unpause(box)
    engine.remove(box.id)


def growth(samples: Sequence[Sample], of: str) -> float:
    """How much bigger the last quarter of the samples is than the first, by their medians."""
    sizes = [getattr(sample, of) for sample in samples]
    part = max(1, len(sizes) // 4)
    first, last = sorted(sizes[:part]), sorted(sizes[-part:])
    return float(last[len(last) // 2] / first[len(first) // 2] - 1)


def soak(host: Host, lifecycles: int, seed: int, hours: float = 0.0) -> list[Sample]:
    """Run; the samples after the warm-up.

    Args:
        host: With its daemon running.
        lifecycles: At least so many,
        seed: Of every choice.
        hours: and at least so long.

    Raises:
        AssertionError: in the end DNS and the engine's list differ.
    """
    began = time.monotonic()
    samples: list[Sample] = []
    done = 0
    every = max(WIDTH, round(lifecycles * (1 - WARM_UP) / SAMPLES))
    with ThreadPoolExecutor(WIDTH) as pool:
        while done < lifecycles or time.monotonic() - began < hours * 3600:
            list(pool.map(lambda n: live(host, n, seed), range(done, done + every)))
            done += every
            if done >= lifecycles * WARM_UP:
                samples.append(look(host, done, began))
                print(_line(samples[-1]), flush=True)
    assert not host.engine.alive()
    for number in range(SERVICES):
        name = f"soak-{number}"
        until(lambda name=name: not host.addresses(name), what=f"{name} is empty")  # type: ignore[misc]
    return samples


HEADINGS = ("lifecycles", "seconds", "daemon KiB", "worker KiB", "descriptors", "threads")


def _line(sample: Sample) -> str:
    return (
        f"{sample.lifecycles:>10} {sample.seconds:>8.0f} {sample.daemon:>11} {sample.worker:>11} "
        f"{sample.descriptors:>12} {sample.threads:>8}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 when a size has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0, help="at least so long")
    parser.add_argument("--lifecycles", type=int, default=10_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args(argv)
    print(f"seed {asked.seed}")
    # Withdrawals are kept for 20 minutes by default, about 5 KiB each: with fewer of them the size
    # settles while it is watched, and what grows is a leak.
    config: Config = {"log": {"level": "info"}, "announce": {"withdrawal_ttl": f"{KEPT}s"}}
    with Lab(1, memory=True, config=config) as lab:
        print(" ".join(f"{h:>{w}}" for h, w in zip(HEADINGS, (10, 8, 11, 11, 12, 8), strict=True)))
        samples = soak(lab["a"], asked.lifecycles, asked.seed, asked.hours)
        grown = {of: growth(samples, of) for of in ("daemon", "worker", "descriptors", "threads")}
    for of, share in grown.items():
        print(f"{of:<12} {share:+.1%}")
    over = [of for of in ("daemon", "worker") if grown[of] > GROWTH]
    print(f"grown by more than {GROWTH:.0%}: {', '.join(over) or 'nothing'}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
