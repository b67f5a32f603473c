"""The host as a router for its containers: settings, packet filter, proxies, anycast addresses.

Rule: what is wanted is compared with what is there, at each change, each `LOOK` seconds, and when
somebody changes the packet filter; each part by itself, so that one that fails leaves the others
alone and is tried again. Everything is taken back by `calico_bgp.cleanup`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from calico_bgp.conntrack import forget
from calico_bgp.firewall import PROGRAMS, Firewall
from calico_bgp.ports import Desired, Standing
from calico_bgp.prefix import Address
from calico_bgp.proxies import own_addresses, proxies
from calico_bgp.route_codec import ProxyNeighbour
from calico_bgp.routes_kernel import Routes
from calico_bgp.surroundings import Surroundings
from calico_bgp.sysctls import Sysctls
from discod.backoff import Backoff
from discod.kernel.commands import CommandFailed, Run, run
from discod.kernel.netlink import NETFILTER, MissedNotifications, Netlink
from discod.log import fields
from discod.model.bgp_settings import BgpSettings

log = logging.getLogger(__name__)

LOOK = 30.0
"""Seconds between two looks at what others may have undone, up to a tenth less."""
GATHER = 0.2
"""Seconds that changes of the packet filter by others are gathered: a start of dockerd is many."""
RETRY_FIRST, RETRY_MOST = 1.0, 30.0
"""Seconds from a failure of a part to its next try."""
YIELD = 0.01
"""Seconds that peers have to be told first; programs are started here."""
NFTABLES_GROUP = 7
"""NFNLGRP_NFTABLES: changes of any nft table, those of iptables-nft too."""


class HostSide:
    """Keeps this host as `want` says.

    Args:
        settings: `host`, `proxy_arp`, `protocol`, `table`.
        state_dir: Remembers the kernel settings as they were.
        rng: Spreads retries.
        execute: Runs programs; for tests.
    """

    def __init__(
        self,
        settings: BgpSettings,
        state_dir: Path,
        *,
        rng: random.Random,
        execute: Run = run,
    ) -> None:
        self._settings = settings
        self._sysctls = Sysctls(state_dir)
        self._firewall = Firewall(execute)
        self._rng = rng
        self._desired = Desired()
        self._woken = trio.Event()
        self._around = Surroundings()
        self._rows: dict[str, Standing] = {}
        self._delivered: dict[Address, frozenset[Address]] = {}
        self._bad: set[str] = set()

    def want(self, desired: Desired) -> None:
        """Have this from now on. Synchronous; done soon."""
        # What else is announced is no business of the host's: most containers come and go without.
        local = desired.local if self._settings.proxy_arp else frozenset()
        desired = replace(desired, announced=frozenset(), local=local, draining=False)
        if desired != self._desired:
            self._desired = desired
            self._woken.set()

    def look(self) -> None:
        """Compare now, such as after a start of dockerd."""
        self._woken.set()

    def status(self) -> list[Standing]:
        """What this host is to be, and what it was at the last look."""
        return [self._rows[key] for key in sorted(self._rows)]

    async def leave(self) -> None:
        """Do nothing: the containers stay, and are reached as before until others know better."""

    async def run(self) -> None:
        """Keep it so until cancelled; everything stays as it is then."""
        backoff = Backoff(self._rng, RETRY_FIRST, RETRY_MOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                self._woken = trio.Event()
                if await self.once():
                    backoff.reset()
                    pause = LOOK * self._rng.uniform(0.9, 1.0)
                else:
                    pause = backoff.pause()
                with trio.move_on_after(pause):
                    await self._woken.wait()
                await trio.sleep(YIELD)

    async def once(self) -> bool:
        """Compare and put right once; whether everything is as wanted."""
        if not self._settings.host:
            return True
        desired = self._desired
        good = await self._part("interfaces", self._look_around)
        for version, program in PROGRAMS.items():
            good &= await self._part(
                f"{program} exceptions", partial(self._forward, version, desired)
            )
        for version in PROGRAMS:
            good &= await self._part(
                f"nft IPv{version} translation", partial(self._translate, version, desired)
            )
        good &= await self._part("kernel settings", self._set)
        good &= await self._part("anycast addresses", lambda: self._deliver(desired))
        good &= await self._part("proxy entries", lambda: self._proxy(desired))
        return good

    async def _watch(self) -> None:
        """Look as soon as the packet filter is changed by others."""
        try:
            kernel = Netlink(NETFILTER, [NFTABLES_GROUP])
        except OSError as error:
            log.info("changes of the packet filter are not told", extra=fields(error=error))
            return
        with kernel:
            while True:
                with contextlib.suppress(MissedNotifications):  # which is a change, too
                    await kernel.changes()
                self._woken.set()
                await trio.sleep(GATHER)

    async def _part(self, name: str, act: Callable[[], Awaitable[tuple[str, str]]]) -> bool:
        try:
            wanted, present = await act()
        except (OSError, ValueError, CommandFailed) as error:
            self._rows[name] = Standing(name, "", f"failed: {error}", good=False)
            if name not in self._bad:
                self._bad.add(name)
                log.warning("a part of the host side failed", extra=fields(part=name, error=error))
            return False
        self._bad.discard(name)
        self._rows[name] = Standing(name, wanted, present)
        return True

    async def _look_around(self) -> tuple[str, str]:
        kernel = Routes(self._settings.table, self._settings.protocol)
        try:
            self._around = await kernel.surroundings()
        finally:
            kernel.close()
        uplinks = ",".join(self._uplinks()) or "none"
        return "uplinks", f"uplinks {uplinks}"

    def _uplinks(self) -> list[str]:
        """Interfaces with a network, but for Docker's bridges."""
        used = {on.interface for on in self._around.connected}
        return sorted(
            name
            for name, number in self._around.links.items()
            if number in used and name != "lo" and name not in self._firewall.bridges
        )

    async def _forward(self, version: int, desired: Desired) -> tuple[str, str]:
        docker, changed = await self._firewall.forward(version, desired.routed, desired.deliveries)
        wanted = " ".join(str(net) for net in desired.routed if net.version == version) or "none"
        if not docker:
            return wanted, "not needed: Docker has no rules of this family"
        if changed:
            log.info("exceptions from Docker's firewall made", extra=fields(ip=version))
        return wanted, "present"

    async def _translate(self, version: int, desired: Desired) -> tuple[str, str]:
        given = {d.address: frozenset(d.targets) for d in desired.deliveries}
        if await self._firewall.translate(version, desired.routed, desired.deliveries):
            log.info("address translation made", extra=fields(ip=version))
        before = {a: t for a, t in self._delivered.items() if a.version == version}
        mine = {a: t for a, t in given.items() if a.version == version}
        if before != mine:
            # Also of an earlier run, whose targets are not known here.
            gone = await forget({**dict.fromkeys(before, frozenset()), **mine})
            if gone:
                log.info("connections to targets that are gone forgotten", extra=fields(count=gone))
            self._delivered = {
                a: t for a, t in self._delivered.items() if a.version != version
            } | mine
        wanted = (
            f"{sum(n.version == version for n in desired.routed)} prefixes, {len(mine)} anycast"
        )
        return wanted, "present"

    async def _set(self) -> tuple[str, str]:
        wanted = self._sysctls.wanted(
            self._uplinks(), self._firewall.bridges, self._settings.proxy_arp
        )
        for name in self._sysctls.apply(wanted):
            log.info("kernel setting changed", extra=fields(name=name, value=wanted[name]))
        return " ".join(f"{name}={value}" for name, value in wanted.items()), "present"

    async def _deliver(self, desired: Desired) -> tuple[str, str]:
        addresses = [d.address for d in desired.deliveries if d.targets]
        await own_addresses(addresses, self._settings.protocol)
        return " ".join(map(str, addresses)) or "none", "present"

    async def _proxy(self, desired: Desired) -> tuple[str, str]:
        entries = []
        if self._settings.proxy_arp:
            numbers = [self._around.links[name] for name in self._uplinks()]
            for prefix in desired.local:
                if prefix.bits == prefix.family.octets * 8:
                    address = prefix.network.network_address
                    entries += [ProxyNeighbour(address, number) for number in numbers]
        await proxies(entries, self._settings.protocol)
        return f"{len(entries)} entries", "present"
