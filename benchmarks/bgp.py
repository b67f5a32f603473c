"""BGP side by side with BIRD, FRR, GoBGP and ExaBGP: `make bench-bgp`.

Each in turn is the announcer, with the same top-of-rack router: BIRD, which installs what it learns
into its kernel. Time is from the announcer's being told, by the quickest interface it has, to the
kernel's own notification in the router's namespace. Then the other way: the router announces, and
the kernel of the one that learns is asked. ExaBGP and GoBGP install nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

from benchmarks import results
from tests.lab.bgp.bird import Bird
from tests.lab.bgp.exabgp import Exabgp
from tests.lab.bgp.fabric import Fabric, Site, absent
from tests.lab.bgp.frr import Frr
from tests.lab.bgp.gobgp import Gobgp
from tests.lab.bgp.native import Native
from tests.lab.bgp.router import Neighbor, Router, prefixes
from tests.lab.daemon import until

CONTESTANTS: tuple[tuple[type[Router], str], ...] = (
    (Native, "nsenter"),
    (Bird, "bird"),
    (Frr, "vtysh"),
    (Gobgp, "gobgpd"),
    (Exabgp, "exabgp"),
)
"""Each with a program that it needs."""
OURS, ROUTER = 65001, 65254
ROUNDS = 3
"""Of a bulk case of 10,000."""
MOST = 180.0
"""Seconds that one bulk case may take; a case that takes longer is said to have failed."""


class Watch:
    """What a kernel says of its routes, as it says it (`ip monitor`)."""

    def __init__(self, site: Site) -> None:
        argv = ("ip", "-rcvbuf", str(2**27), "-4", "monitor", "route")
        self._process = subprocess.Popen([*site.space.prefix, *argv], stdout=subprocess.PIPE)
        self._changed = threading.Condition()
        self.added = self.deleted = 0
        self.last = 0.0
        """When the newest one came (time.monotonic)."""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            gone = line.startswith(b"Deleted ")
            if b"10." not in line[:13]:
                continue
            with self._changed:
                self.last = time.monotonic()
                if gone:
                    self.deleted += 1
                else:
                    self.added += 1
                self._changed.notify()

    def reset(self) -> None:
        """Count from nothing."""
        with self._changed:
            self.added = self.deleted = 0

    def wait(self, *, added: int = 0, deleted: int = 0, most: float = MOST) -> float:
        """When so many were there.

        Raises:
            TimeoutError: they were not.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self.added >= added and self.deleted >= deleted, most
            ):
                raise TimeoutError(f"{self.added} added, {self.deleted} deleted in {most:g} s")
            return self.last

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._thread.join(10)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def pair(kind: type[Router], *, learns: bool = False) -> Iterator[tuple[Router, Bird, Fabric]]:
    """One announcer and the router, with a session between them."""
    with Fabric(1) as fabric:
        [host], tor = fabric.hosts, fabric.tor
        neighbor = Neighbor(host.ipv4, OURS, hold_time=90)
        router = fabric.use(Bird(tor, ROUTER, [neighbor], install=not learns))
        me = Neighbor(tor.ipv4, ROUTER, hold_time=90)
        one = fabric.use(kind(host, OURS, [me], install=learns))
        router.established(deadline=60)
        yield one, router, fabric


def announcing(kind: type[Router], singles: int, sizes: Sequence[int]) -> list[results.Row]:
    """It announces and withdraws; the router's kernel follows."""
    rows = []
    with pair(kind) as (one, _, fabric):
        watch = Watch(fabric.tor)
        try:
            until(lambda: _probe(one, watch), deadline=20, what="routes arrive")
            rows += [results.row(kind.program, "memory, no route", "MB", [one.rss])]
            there, gone = [], []
            for prefix in prefixes(singles, 4, 10):
                watch.reset()
                start = time.monotonic()
                one.announce([prefix])
                there.append((watch.wait(added=1, most=10) - start) * 1000)
                start = time.monotonic()
                one.withdraw([prefix])
                gone.append((watch.wait(deleted=1, most=10) - start) * 1000)
            rows.append(results.row(kind.program, "one route, announced", "ms", there))
            rows.append(results.row(kind.program, "one route, withdrawn", "ms", gone))
            for size in sizes:
                rows += bulk(kind, one, watch, prefixes(size, 4, 1000))
        finally:
            watch.close()
    return rows


def bulk(kind: type[Router], one: Router, watch: Watch, many: list[str]) -> list[results.Row]:
    """Many at once, and away again; what is short is done several times."""
    size, there, gone, memory = len(many), [], [], []
    for _ in range(ROUNDS if size <= 10_000 else 1):
        watch.reset()
        start = time.monotonic()
        one.announce(many)
        there.append(watch.wait(added=size) - start)
        memory.append(one.rss)
        start = time.monotonic()
        one.withdraw(many)
        gone.append(watch.wait(deleted=size) - start)
    return [
        results.row(kind.program, f"{size:,} announced", "s", there),
        results.row(kind.program, f"memory, {size:,}", "MB", memory),
        results.row(kind.program, f"{size:,} withdrawn", "s", gone),
    ]


def _probe(one: Router, watch: Watch) -> bool:
    """Whether a route arrives by now; ExaBGP does not say when it is ready."""
    watch.reset()
    one.announce(prefixes(1))
    try:
        watch.wait(added=1, most=2)
    except TimeoutError:
        one.withdraw(prefixes(1))  # or the next try would change nothing
        return False
    one.withdraw(prefixes(1))
    watch.wait(deleted=1, most=5)
    return True


def learning(kind: type[Router], size: int) -> list[results.Row]:
    """The router announces; its own kernel has them."""
    with pair(kind, learns=True) as (one, router, fabric):
        watch = Watch(fabric.hosts[0])
        try:
            many, took, memory = prefixes(size, 4, 1000), [], []
            for _ in range(ROUNDS):
                watch.reset()
                start = time.monotonic()
                router.announce(many)
                took.append(watch.wait(added=size) - start)
                memory.append(one.rss)
                router.withdraw(many)
                watch.wait(deleted=size)
        finally:
            watch.close()
        return [
            results.row(kind.program, f"{size:,} learned and installed", "s", took),
            results.row(kind.program, f"memory, {size:,} learned", "MB", memory),
        ]


def ratios(rows: Sequence[results.Row]) -> list[str]:
    """Every median of discod against that of the others in the same run."""
    found = {(row.metric, row.case): row.median for row in rows}
    lines = []
    for metric in dict.fromkeys(row.metric for row in rows):
        ours = found.get((metric, Native.program))
        others = [
            f"{found[metric, kind.program] / ours:.2g} {kind.program}"
            for kind, _ in CONTESTANTS
            if ours and kind is not Native and (metric, kind.program) in found
        ]
        if others:
            lines.append(f"{metric}: as a multiple of discod's: {', '.join(others)}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.bgp", description=__doc__)
    parser.add_argument("--short", action="store_true", help="10 single routes, no 100,000")
    parser.add_argument("--only", nargs="*", help="of discod, bird, frr, gobgp, exabgp")
    args = parser.parse_args(argv)
    results.need_lab()
    singles, sizes = (10, (10_000,)) if args.short else (50, (10_000, 100_000))
    rows: list[results.Row] = []
    notes = ["Not measured is what is not installed, or failed:"]
    for kind, program in CONTESTANTS:
        if args.only and kind.program not in args.only:
            continue
        if lack := absent(program):
            notes.append(f"{kind.program}: {lack}")
            continue
        # ExaBGP takes seconds for 10,000, and some minutes for ten times as many.
        some = sizes[:1] if kind is Exabgp else sizes
        try:
            rows += announcing(kind, singles, some)
            if kind in (Native, Bird, Frr):
                rows += learning(kind, 10_000)
        except (AssertionError, TimeoutError) as error:
            notes.append(f"{kind.program}: {error}"[:300])
    order = list(dict.fromkeys(row.metric for row in rows))
    rows.sort(key=lambda row: order.index(row.metric))
    results.report("bgp", "BGP: announcer to the router's kernel", rows, [*notes, *ratios(rows)])


if __name__ == "__main__":
    main()
