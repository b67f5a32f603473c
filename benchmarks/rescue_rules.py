"""How long the kernel takes to have what a plan wants.

Rule: the product's own `Table` does it, in a process of its own that has entered the host's network
namespace (a `nft` for each change, netlink for a revocation). Every change is made and taken back
in turns, and time is taken until the call returns: the kernel has it then.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from benchmarks import dns_child, results
from benchmarks import rescue_plans as plans
from benchmarks.rescue_site import Site
from discod.kernel.commands import run
from discod.model.rescue import Plan
from discod.rescue.table import Table
from tests.lab.netns import CLONE_NEWNET

SIZES = (0, 1_000, 10_000)
"""Stale places that are there when one more comes."""
FEWER = 5
"""A change of thousands is made this much less often."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(space: str) -> None:
    """Move this thread, and those that it starts from now on, into a network namespace.

    Raises:
        OSError: there is none at this path, or no permission.
    """
    fd = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(fd, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), space)
    finally:
        os.close(fd)


def prepare(space: str, entries: int, empty: bool = False) -> None:
    """In a child: give a host rescue's tables, for good.

    Args:
        space: Path of the host's network namespace.
        entries: Stale places of each version beside those that are sent to.
        empty: Not even those.
    """
    enter(space)
    trio.run(Table().apply, plans.of([]) if empty else plans.whole(entries))


def made(site: Site, entries: int, *, empty: bool = False) -> None:
    """`prepare` the host of a site."""
    dns_child.call(
        "benchmarks.rescue_rules:prepare", timeout=120,
        space=str(site.host.path), entries=entries, empty=empty,
    )  # fmt: skip


async def _took(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await act()
    return (time.perf_counter() - start) * 1000


def changes(space: str, sizes: Sequence[int], rounds: int) -> list[tuple[str, str, str, Any]]:
    """In a child: (case, metric, unit, samples) of every row."""
    enter(space)
    return trio.run(_changes, tuple(sizes), rounds)


async def _changes(sizes: Sequence[int], rounds: int) -> list[tuple[str, str, str, Any]]:
    found: list[tuple[str, str, str, Any]] = []
    nothing = [await _took(partial(run, ("nft", "-f", "-"), "")) for _ in range(rounds)]
    found.append(("rules", "nft with nothing to do", "ms", nothing))
    for size in sizes:
        found += await _beside(size, rounds)
    found += await _revoked(rounds)
    found += await _moved(rounds)
    return found


async def _beside(size: int, rounds: int) -> list[tuple[str, str, str, Any]]:
    """Changes with `size` stale places that are there before and after."""
    case = f"rules, {size:,} stale places there"
    few = max(rounds // FEWER, 2)
    found = []
    before = plans.many(size)
    base = plans.of(before)
    if size:
        whole = []
        for _ in range(few):
            table = Table()  # one that does not know what is there
            whole.append(await _took(partial(table.apply, base)))
            table.close()
        found.append((case, "all replaced, as at start", "ms", whole))
    table = Table()
    await table.apply(base)
    # The first is always of a service that had none: its pool comes with it.
    for more, times in ((1, rounds), (1_000, few)):
        plan = plans.of([*before, *plans.many(more, first=size)])
        there, gone = await _there_and_back(table, base, plan, times)
        found.append((case, f"{more:,} more", "ms", there))
        found.append((case, f"{more:,} less", "ms", gone))
    await table.remove()
    table.close()
    return found


async def _there_and_back(
    table: Table, base: Plan, plan: Plan, times: int
) -> tuple[list[float], list[float]]:
    there, gone = [], []
    for _ in range(times):
        there.append(await _took(partial(table.apply, plan)))
        gone.append(await _took(partial(table.apply, base)))
    return there, gone


async def _revoked(rounds: int) -> list[tuple[str, str, str, Any]]:
    """Places that are in use again; the caller is held up that long."""
    case = "rules, 1,000 stale places there"
    found = []
    table = Table()
    base = plans.of(plans.many(1_000))
    for count, times in ((1, rounds), (100, max(rounds // FEWER, 2))):
        places = list(base.stale)[:count]
        took = []
        for _ in range(times):
            await table.apply(base)
            start = time.perf_counter()
            table.revoke(places)
            took.append((time.perf_counter() - start) * 1e6)
        found.append((case, f"{count} revoked", "us", took))
    await table.remove()
    table.close()
    return found


async def _moved(rounds: int) -> list[tuple[str, str, str, Any]]:
    """An endpoint of a service address comes and goes."""
    table = Table()
    [(where, all_of_them), *_] = plans.service_addresses()
    fewer = plans.pool("vip-web", 4, plans.SERVERS[4][:2], where.port)
    three, two = plans.of([], [(where, all_of_them)]), plans.of([], [(where, fewer)])
    await table.apply(three)
    there, gone = await _there_and_back(table, three, two, rounds)
    await table.remove()
    table.close()
    return [("rules", "endpoint of a service address", "ms", [*there, *gone])]


def measure(site: Site, sizes: Sequence[int], rounds: int) -> list[results.Row]:
    """All rows; the host's tables are gone afterwards."""
    found = dns_child.call(
        "benchmarks.rescue_rules:changes", timeout=120 + rounds * 20.0,
        space=str(site.host.path), sizes=sizes, rounds=rounds,
    )  # fmt: skip
    order = list(dict.fromkeys(case for case, *_ in found))
    found.sort(key=lambda one: order.index(one[0]))
    return [results.row(case, metric, unit, samples) for case, metric, unit, samples in found]
