"""Learned routes in the kernel: what is wanted against what is there.

Rule: one task writes, in batches, whatever differs; `learned` only notes it. A route that cannot be
installed hurts no other and is tried again. Routes of our protocol number that nobody wants go, but
those of an earlier run only after `settled`; a route of another protocol is never touched.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import trio

from calico_bgp.ports import Hops
from calico_bgp.prefix import Prefix
from calico_bgp.route_codec import KernelHop, KernelRoute
from calico_bgp.routes_kernel import Change, RouteKernel, Routes
from calico_bgp.surroundings import NoInterface, Surroundings, same
from discod.backoff import Backoff
from discod.kernel.netlink import name_of
from discod.log import fields
from discod.model.bgp_settings import BgpSettings

log = logging.getLogger(__name__)

AT_ONCE = 250
"""Routes written between two yields to the loop: about 4 ms."""
LOOK_AT = 1000
"""Routes compared between two yields: about 4 ms."""
RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds from a failure to the next try of what failed; ended early by a change of links or
addresses, which is what mends it."""
RESYNC = 60.0
"""Seconds between two comparisons with the whole of the kernel, up to a tenth less."""
SETTLE = 0.1
"""Seconds that changes of links and addresses are gathered: a link coming up is a dozen of them."""


class KernelForwarding:
    """`ports.Forwarding`.

    Args:
        settings: Table, protocol, metric, and how many paths at most.
        rng: Spreads retries.
        kernel: Opens the kernel; for tests.
    """

    def __init__(
        self,
        settings: BgpSettings,
        *,
        rng: random.Random,
        kernel: Callable[[int, int], RouteKernel] = Routes,
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._open = kernel
        self._wanted: dict[Prefix, Hops] = {}
        self._there: dict[Prefix, KernelRoute] = {}
        self._leftover: set[Prefix] = set()  # of an earlier run, not told of in this one
        self._extra: list[KernelRoute] = []  # ours, with another metric
        self._dirty: dict[Prefix, None] = {}
        self._under_way: frozenset[Prefix] = frozenset()
        self._failed: dict[Prefix, str] = {}
        self._around = Surroundings()
        self._settled = False
        self._look = False
        self._resync = False
        self._reading = False
        self._late: list[tuple[Prefix, KernelRoute | None]] = []  # noticed while all is read
        self._woken = trio.Event()
        self._backoff = Backoff(rng, RETRY_FIRST, RETRY_MOST)
        self._retry_at = float("inf")

    # What others ask and say ---------------------------------------------------------------------

    def learned(self, changed: Mapping[Prefix, Hops]) -> None:
        """Routes that are others now; empty Hops: gone. Taken, and written soon."""
        most = self._settings.multipath
        for prefix, hops in changed.items():
            if hops:
                self._wanted[prefix] = hops[:most]
                self._leftover.discard(prefix)
            elif self._wanted.pop(prefix, None) is None:
                continue
            self._dirty[prefix] = None
        self._woken.set()

    def settled(self) -> None:
        """All peers have told what they have: what is left of an earlier run goes."""
        if not self._settled:
            self._settled = True
            self._sweep()
            self._woken.set()

    def installed(self, prefix: Prefix) -> bool:
        """Whether the kernel has confirmed it as wanted."""
        hops = self._wanted.get(prefix)
        route = self._there.get(prefix)
        return (
            hops is not None
            and route is not None
            and prefix not in self._dirty
            and prefix not in self._under_way
            and prefix not in self._failed
        )

    def faults(self) -> dict[Prefix, str]:
        """Routes that are wanted and are not in the kernel, and why."""
        return dict(self._failed)

    def counts(self) -> dict[str, int]:
        """For metrics: wanted, installed, failed, pending, leftover."""
        return {
            "wanted": len(self._wanted),
            "installed": len(self._there),
            "failed": len(self._failed),
            "pending": len(self._dirty) + len(self._under_way),
            "leftover": len(self._leftover),
        }

    # The task ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the kernel in step until cancelled; the routes stay.

        Raises:
            OSError: no netlink, or no right to use it.
        """
        kernel = self._open(self._settings.table, self._settings.protocol)
        try:
            self._around = await kernel.surroundings()
            await self._compare(kernel, first=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, kernel)
                nursery.start_soon(self._tick)
                await self._write_for_ever(kernel)
        finally:
            kernel.close()

    async def _watch(self, kernel: RouteKernel) -> None:
        while True:
            noticed = await kernel.noticed()
            self._note(noticed.routes)
            if self._reading:
                self._late += noticed.routes
            self._look |= noticed.surroundings
            self._resync |= noticed.missed
            self._woken.set()

    def _note(self, routes: Iterable[tuple[Prefix, KernelRoute | None]]) -> None:
        for prefix, route in routes:
            if route is None:
                self._there.pop(prefix, None)
            elif route.metric == self._settings.metric:
                self._there[prefix] = route
            self._dirty[prefix] = None

    async def _tick(self) -> None:
        while True:
            await trio.sleep(RESYNC * self._rng.uniform(0.9, 1.0))
            self._look = self._resync = True
            self._woken.set()

    async def _write_for_ever(self, kernel: RouteKernel) -> None:
        while True:
            with trio.move_on_at(self._retry_at):
                await self._woken.wait()
            self._woken = trio.Event()
            if trio.current_time() >= self._retry_at:
                self._again()
            if self._look:
                await self._look_around(kernel)
            if self._resync:
                self._resync = False
                await self._safely(kernel)
            while self._dirty:
                await self._write_some(kernel)
            await self._remove_extra(kernel)

    def _again(self) -> None:
        self._retry_at = float("inf")
        self._dirty.update(dict.fromkeys(self._failed))
        # What stands in the way may be ours after all, changed while we wrote.
        self._resync |= any("EEXIST" in fault for fault in self._failed.values())

    async def _look_around(self, kernel: RouteKernel) -> None:
        await trio.sleep(SETTLE)
        self._look = False
        try:
            around = await kernel.surroundings()
        except OSError as error:
            self._look = True
            self._fail_later()
            log.warning("links and addresses not read", extra=fields(error=error))
            return
        # IPv4 routes go with their link or address without a word of their own.
        self._resync = True
        if around != self._around:
            self._around = around
            self._backoff.reset()
            self._dirty.update(dict.fromkeys(self._wanted))
        self._dirty.update(dict.fromkeys(self._failed))

    async def _safely(self, kernel: RouteKernel) -> None:
        try:
            await self._compare(kernel)
        except OSError as error:
            self._resync = True
            self._fail_later()
            log.warning("routes not read", extra=fields(error=error))

    def _fail_later(self) -> None:
        if self._retry_at == float("inf"):
            self._retry_at = trio.current_time() + self._backoff.pause()

    async def _compare(self, kernel: RouteKernel, *, first: bool = False) -> None:
        there: dict[Prefix, KernelRoute] = {}
        extra = []
        self._reading, self._late = True, []
        try:
            for i, route in enumerate(await kernel.read()):
                if i % LOOK_AT == LOOK_AT - 1:
                    await trio.lowlevel.checkpoint()
                if route.metric == self._settings.metric:
                    there[route.prefix] = route
                else:
                    extra.append(route)
        finally:
            self._reading = False
        before, self._there, self._extra = self._there, there, extra
        # What changed behind the reader's back.
        self._note(self._late)
        if first:
            self._leftover = {p for p in there if p not in self._wanted}
            log.info("routes of an earlier run found", extra=fields(routes=len(there)))
            self._dirty.update(dict.fromkeys(self._wanted))
        lost, example = 0, None
        # Whatever else changes from here on is dirty by that.
        for i, prefix in enumerate(self._wanted.keys() | there.keys()):
            if i % LOOK_AT == LOOK_AT - 1:
                await trio.lowlevel.checkpoint()
            if prefix in before and prefix not in there and prefix in self._wanted:
                lost, example = lost + 1, prefix
            if not self._as_wanted(prefix):
                self._dirty[prefix] = None
        if lost:
            log.warning(
                "routes of ours were removed by others",
                extra=fields(routes=lost, example=example),
            )
        self._leftover.intersection_update(there)
        self._sweep()

    def _sweep(self) -> None:
        if self._settled and self._leftover:
            log.info("stale routes go", extra=fields(routes=len(self._leftover)))
            self._dirty.update(dict.fromkeys(self._leftover))
            self._leftover = set()

    def _as_wanted(self, prefix: Prefix) -> bool:
        hops, route = self._wanted.get(prefix), self._there.get(prefix)
        if hops is None:
            return route is None or prefix in self._leftover
        if route is None:
            return False
        try:
            kernel_hops = self._around.kernel_hops(hops)
        except NoInterface:
            return False
        return same(kernel_hops, route.hops) and not self._around.forbids(prefix, kernel_hops)

    def _change(self, prefix: Prefix, made: dict[int, tuple[KernelHop, ...]]) -> Change | None:
        """What is to be done for a prefix; a fault is noted, and what is there then goes.

        `made`: next hops by the identity of what was wanted, which thousands of routes share.
        """
        route = self._there.get(prefix)
        hops = self._wanted.get(prefix)
        fault = ""
        if hops is not None:
            try:
                if (kernel_hops := made.get(id(hops), ())) == ():
                    kernel_hops = made[id(hops)] = self._around.kernel_hops(hops)
                fault = self._around.forbids(prefix, kernel_hops)
            except NoInterface as error:
                fault = str(error)
        if hops is None or fault:
            if fault:
                self._failed[prefix] = fault
            else:
                self._failed.pop(prefix, None)
            if route is None or prefix in self._leftover:
                return None
            return Change(route, there=True, delete=True)
        if route is not None and same(kernel_hops, route.hops):
            self._failed.pop(prefix, None)
            return None
        settings = self._settings
        wanted = KernelRoute(
            prefix, kernel_hops, settings.metric, settings.table, settings.protocol
        )
        return Change(wanted, there=route is not None)

    async def _write_some(self, kernel: RouteKernel) -> None:
        prefixes = list(islice(self._dirty, AT_ONCE))
        changes = []
        made: dict[int, tuple[KernelHop, ...]] = {}
        for prefix in prefixes:
            del self._dirty[prefix]
            if (change := self._change(prefix, made)) is not None:
                changes.append(change)
        if not changes:
            await trio.lowlevel.checkpoint()
            return
        bad, example = 0, None
        wrong: list[Change] = []
        self._under_way = frozenset(change.route.prefix for change in changes)
        try:
            results = await kernel.write(changes)
        finally:
            self._under_way = frozenset()
        for (route, there, delete), result in zip(changes, results, strict=True):
            prefix = route.prefix
            if not result:
                if delete:
                    self._there.pop(prefix, None)
                else:
                    self._there[prefix] = route
                    self._failed.pop(prefix, None)
                continue
            if result == errno.ENOBUFS:
                self._resync = True
            if prefix not in self._failed:
                bad, example = bad + 1, (prefix, result)
            self._failed[prefix] = name_of(result)
            if there and not delete and result != errno.ENOBUFS:
                # The way that it has is not one any more.
                wrong.append(Change(self._there[prefix], there=True, delete=True))
        for (route, _, _), result in zip(wrong, await kernel.write(wrong), strict=True):
            if not result:
                self._there.pop(route.prefix, None)
        if example is not None:
            self._backoff.reset()
            self._retry_at = float("inf")
            log.warning(
                "routes are not installed",
                extra=fields(routes=bad, example=example[0], error=name_of(example[1])),
            )
        if self._failed:
            self._fail_later()

    async def _remove_extra(self, kernel: RouteKernel) -> None:
        if self._settled and self._extra:
            extra, self._extra = self._extra, []
            await kernel.write([Change(route, there=True, delete=True) for route in extra])
