"""The kernel backend: what this host announces, as routes for the operator's BIRD or FRR to export.

Rule: a container is a host route to its bridge, everything else a route that loses to any other of
its destination (`METRIC`): aggregates are unreachable where no container has the address, anycast
addresses are delivered by `host` and only shown here. All have our protocol number, and nothing
else is touched. The routes stay when the daemon stops, but for `leave`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import trio

from calico_bgp.ports import Desired, Standing
from calico_bgp.prefix import Prefix
from calico_bgp.route_codec import BLACKHOLE, UNREACHABLE, KernelHop, KernelRoute
from calico_bgp.routes_kernel import Change, RouteKernel, Routes, remove_all
from calico_bgp.surroundings import Surroundings
from discod.backoff import Backoff
from discod.kernel.netlink import name_of
from discod.log import fields
from discod.model.bgp_settings import BgpSettings

log = logging.getLogger(__name__)

METRIC = 4_000_000
"""Of routes that only say what is announced."""
LOOK = 60.0
"""Seconds between two comparisons, besides those that a change causes."""
RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds from a failure to the next comparison."""


def routes(
    desired: Desired, around: Surroundings, settings: BgpSettings
) -> dict[Prefix, KernelRoute]:
    """Destination -> the route that stands for it."""
    anycast = {delivery.address for delivery in desired.deliveries}
    found = {}
    for prefix in desired.announced:
        whole = prefix.bits == prefix.family.octets * 8
        on = around.interface_of(prefix) if whole and prefix in desired.local else None
        if on is not None:
            found[prefix] = KernelRoute(
                prefix, (KernelHop(None, on),), settings.metric, settings.table, settings.protocol
            )
            continue
        shown = whole and prefix.network.network_address in anycast
        kind = BLACKHOLE if shown else UNREACHABLE
        found[prefix] = KernelRoute(prefix, (), METRIC, settings.table, settings.protocol, kind)
    return found


class Exported:
    """Keeps the routes as `want` says.

    Args:
        settings: Table, protocol and metric.
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
        self._desired: Desired | None = None
        self._writing = trio.Lock()
        self._there = 0
        self._fault = ""
        self._woken = trio.Event()

    def want(self, desired: Desired) -> None:
        """Export exactly this from now on. Synchronous.

        Until the first call what an earlier run left stays as it is.
        """
        self._desired = desired
        self._woken.set()

    async def leave(self) -> None:
        """Take the routes away.

        Raises:
            OSError: no netlink, or no right to use it.
        """
        self._desired = None  # a comparison in progress may still write once; it ends before us
        async with self._writing:
            await remove_all(self._settings.table, self._settings.protocol, self._open)

    def status(self) -> list[Standing]:
        """How many routes there are to be, and how many were at the last comparison."""
        wanted = len(self._desired.announced) if self._desired is not None else 0
        good = not self._fault and wanted == self._there
        return [Standing("exported routes", str(wanted), self._fault or str(self._there), good)]

    async def run(self) -> None:
        """Keep the kernel in step until cancelled.

        Raises:
            OSError: no netlink, or no right to use it.
        """
        kernel = self._open(self._settings.table, self._settings.protocol)
        backoff = Backoff(self._rng, RETRY_FIRST, RETRY_MOST)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, kernel)
                while True:
                    self._woken = trio.Event()
                    pause = LOOK
                    async with self._writing:
                        good = await self._once(kernel)
                    if not good:
                        pause = backoff.pause()
                    else:
                        backoff.reset()
                    with trio.move_on_after(pause):
                        await self._woken.wait()
        finally:
            kernel.close()

    async def _watch(self, kernel: RouteKernel) -> None:
        while True:
            await kernel.noticed()
            self._woken.set()

    async def _once(self, kernel: RouteKernel) -> bool:
        if self._desired is None:
            return True
        try:
            need = routes(self._desired, await kernel.surroundings(), self._settings)
            there = {(r.prefix, r.metric): r for r in await kernel.read()}
            wanted = {(r.prefix, r.metric): r for r in need.values()}
            changes = [
                Change(route, there=key in there)
                for key, route in wanted.items()
                if key not in there or not _alike(route, there[key])
            ]
            changes += [
                Change(route, there=True, delete=True)
                for key, route in there.items()
                if key not in wanted
            ]
            results = await kernel.write(changes)
        except OSError as error:
            self._fault = f"failed: {error}"
            log.warning("exported routes not compared", extra=fields(error=error))
            return False
        self._fault = ""
        bad = [(c, r) for c, r in zip(changes, results, strict=True) if r]
        self._there = len(wanted) - len(bad)
        for change, result in bad[:1]:
            self._fault = f"{len(bad)} failed, as {change.route.prefix}: {name_of(result)}"
            log.warning(
                "routes are not exported",
                extra=fields(routes=len(bad), example=change.route.prefix, error=name_of(result)),
            )
        return not bad


def _alike(wanted: KernelRoute, there: KernelRoute) -> bool:
    if wanted.type != there.type:
        return False
    if not wanted.hops:  # IPv6 shows them on lo
        return True
    return [h.interface for h in wanted.hops] == [h.interface for h in there.hops]
