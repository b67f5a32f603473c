"""Routes of this host: from the Catalog to the speaker, the kernel and the host side, and back.

Rule: what the Catalog says reaches `Speaker.want` before `update` returns, so a container's end is
withdrawn in the call chain that takes it out of DNS. A fault of routing never leaves this module:
neither announcing nor answers depend on it. While the store is away nothing comes, so nothing
changes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from calico_bgp.counting import Counting
from calico_bgp.desired import Phase, Wish, host_bgp, mesh, overlaps, routed_networks
from calico_bgp.parts import Build, Parts
from calico_bgp.ports import Desired, MeshHost, PeerStatus, RouteStatus
from calico_bgp.prefix import Address, Network, Prefix, of_address
from discod.backoff import Backoff
from discod.log import fields
from discod.metrics import Metrics
from discod.model.bgp_settings import BgpSettings
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host, HostBgp

log = logging.getLogger(__name__)

SHUTDOWN_WAIT = 3.0
"""Seconds for peers to be told of a planned stop; the unit gives the whole daemon ten."""
RESTART_FIRST, RESTART_MOST = 0.5, 30.0
"""Seconds until a part that failed is run again."""


class BgpService:
    """BGP as the daemon sees it; made only where ``[bgp]`` is configured.

    Args:
        settings: ``[bgp]``.
        host: This host's name, addresses and drain mark.
        build: Makes the parts.
        metrics: Where peers and routes are counted.
        running: Addresses of all running containers, for ``announce = "running"``.
        rng: For the jitter of pauses.
    """

    def __init__(
        self,
        settings: BgpSettings,
        host: Host,
        build: Build,
        metrics: Metrics,
        *,
        running: Callable[[], Iterable[Address]] = tuple,
        rng: random.Random,
    ) -> None:
        self.settings = settings
        self._host = host
        self._metrics = metrics
        self._running = running
        self._taken: frozenset[Prefix] = frozenset()
        self._rng = rng
        self.error = ""
        """The last fault of ours; empty: none."""
        try:
            self._parts = build(settings, host)
        except ValueError as error:  # no router id; names are answered all the same
            self._parts = Parts()
            self.error = f"{error}; set bgp.router_id and restart"
            log.error("BGP does not run", extra=fields(error=self.error))
        self.phase = Phase.SERVING if host.drained is None else Phase.DRAINED
        self._wish = Wish(host, settings)
        self._catalog: Catalog | None = None
        self.desired = Desired()
        """The present wish."""
        self._mesh: Mapping[str, MeshHost] = {}
        self._networks: tuple[Network, ...] = ()
        self._routed: tuple[Network, ...] = ()
        self._clashes: tuple[tuple[str, Network, Network], ...] = ()
        self._synced = False
        self._drain_begun = trio.Event()
        self._drains = 0
        self._untold = True  # nothing was told, or telling failed half-way
        counting = Counting(metrics, self._parts)
        metrics.before_exposition(lambda: counting.look(len(self.desired.announced)))

    # What the daemon says -----------------------------------------------------------------------

    def begin(self, catalog: Catalog) -> None:
        """Take the first snapshot; before it nothing is known, and nothing is told."""
        self._catalog = catalog
        self._guarded(self._rebuild)

    def update(self, catalog: Catalog, change: Change) -> None:
        """Take a change of the Catalog; the speaker knows of it when this returns."""
        if self._catalog is None:
            return
        self._catalog = catalog
        self._guarded(lambda: self._take(change))

    def refresh(self) -> None:
        """Look again at which containers run; for ``announce = "running"`` only."""
        if self._catalog is not None and self.settings.announce == "running":
            self._guarded(self._tell)

    def take_over(self, addresses: Iterable[Address]) -> None:
        """Announce these addresses of others' containers beside what this host has."""
        taken = frozenset(map(of_address, addresses))
        if taken != self._taken:
            self._taken = taken
            if self._catalog is not None:
                self._guarded(self._tell)

    def moved(self, host: Host) -> None:
        """Take other addresses of this host."""
        if (host.name, host.addresses) != (self._host.name, self._host.addresses):
            self._host = host
            speaker, settings = self._parts.speaker, self.settings
            if speaker is not None:
                self._guarded(lambda: speaker.reconfigure(settings, host.addresses))
            self._again()

    def docker_networks(self, networks: tuple[Network, ...]) -> bool:
        """Docker has these networks now; whether this host's record is another one for it."""
        if networks == self._networks:
            return False
        self._networks = networks
        self._again()
        return True

    def reconfigure(self, settings: BgpSettings) -> None:
        """Take what can be taken without a restart (`discod.reload`)."""
        if settings == self.settings:
            return
        self.settings = settings
        speaker = self._parts.speaker
        if speaker is not None:
            self._guarded(lambda: speaker.reconfigure(settings))
        self._again()

    def record(self) -> HostBgp | None:
        """Make what this host's record says of its BGP; None while it has no address for it."""
        return host_bgp(self._host, self.settings, self._networks)

    def synced(self) -> None:
        """Take it that the store and Docker have said what there is.

        End-of-RIB may be told (RFC 4724), and what an earlier run left on the host is put in order.
        """
        if self._synced:
            return
        self._synced = True
        for follower in self._parts.followers:
            self._guarded(lambda one=follower: one.want(self.desired))  # type: ignore[misc]
        if self._parts.speaker is not None:
            self._guarded(self._parts.speaker.synced)
        log.info("routes synchronised", extra=fields(announced=len(self.desired.announced)))

    def drain(self) -> None:
        """Tell routes as going away (RFC 8326), and withdraw all of them after ``bgp.drain``.

        Call it before the endpoints leave the Catalog, or they are withdrawn at once.
        """
        if self.phase is Phase.SERVING:
            self.phase = Phase.DRAINING if self.settings.drain else Phase.DRAINED
            self._drains += 1
            self._guarded(self._tell)
            self._drain_begun.set()

    def undrain(self) -> None:
        """Take `drain` back."""
        if self.phase is not Phase.SERVING:
            self.phase = Phase.SERVING
            self._again()

    async def run(self) -> None:
        """Serve until cancelled.

        Then peers find the connections ended, and keep our routes for ``bgp.graceful_restart`` if
        they can (RFC 4724).
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_drains)
            if self._parts.kernel is not None:
                nursery.start_soon(self._keep, "kernel", self._parts.kernel.run)
            for number, follower in enumerate(self._parts.followers):
                nursery.start_soon(self._keep, f"host side {number}", follower.run)
            if self._parts.speaker is not None:
                nursery.start_soon(self._keep, "speaker", self._parts.speaker.run)

    @property
    def leaves(self) -> bool:
        """Whether a stop now is a leave-taking, rather than the first half of a restart.

        It is where this host is drained, or where nobody keeps our routes over a restart anyway.
        """
        return self.phase is not Phase.SERVING or not self.settings.graceful_restart

    async def shutdown(self) -> None:
        """Prepare for the end of the daemon.

        Where it `leaves`: withdraw, then Cease with a word why (RFC 9003). Else nothing is told, so
        that peers keep our routes.
        """
        if not self.leaves:
            return
        drained = self.phase is not Phase.SERVING
        text = f"discod on {self._host.name} stops" + (", the host is drained" if drained else "")
        async with trio.open_nursery() as leaving:
            leaving.cancel_scope.deadline = trio.current_time() + SHUTDOWN_WAIT + 1
            for follower in self._parts.followers:
                leaving.start_soon(self._farewell, follower.leave)
            if self._parts.speaker is not None:
                say = partial(self._parts.speaker.shutdown, text, SHUTDOWN_WAIT)
                leaving.start_soon(self._farewell, say)

    async def _farewell(self, leave: Callable[[], Awaitable[None]]) -> None:
        try:
            await leave()
        except Exception as error:  # noqa: BLE001 - the rest of the daemon has to stop in order too
            self._failed(error)

    # What people see ----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How it stands, ready for JSON."""
        own = self.record()
        peers = self.peers()
        kernel = self._parts.kernel
        return {
            "asn": self.settings.asn,
            "router_id": str(own.router_id) if own else "",
            "backend": self.settings.backend,
            "phase": self.phase.value,
            "synced": self._synced,
            "stop": "withdraws" if self.leaves else "keeps routes",
            "peers": len(peers),
            "established": sum(peer.state == "Established" for peer in peers),
            "announced": sorted(map(str, self.desired.announced)),
            "anycast": {str(d.address): list(map(str, d.targets)) for d in self.desired.deliveries},
            "routed": list(map(str, self.desired.routed)),
            "kernel_routes": kernel.counts()["installed"] if kernel else 0,
            "kernel_faults": {str(p): why for p, why in kernel.faults().items()} if kernel else {},
            "clashes": [f"{name}: {theirs}" for name, _, theirs in self._clashes],
            "host_side": [
                standing._asdict()
                for follower in self._parts.followers
                for standing in follower.status()
            ],
            "error": self.error,
        }

    def peers(self) -> tuple[PeerStatus, ...]:
        """All peers, sorted by address."""
        return self._parts.speaker.peers() if self._parts.speaker is not None else ()

    def routes(self) -> tuple[RouteStatus, ...]:
        """All learned routes that are used, sorted."""
        return self._parts.speaker.routes() if self._parts.speaker is not None else ()

    def announced(self, address: Address) -> bool:
        """Whether the /32 or /128 of an address is announced by this host now."""
        return of_address(address) in self.desired.announced

    # Within -------------------------------------------------------------------------------------

    def _take(self, change: Change) -> None:
        assert self._catalog is not None
        routed = self._routed
        if change.hosts:
            self._look_at_hosts()
        changed = self._wish.take(self._catalog, change.services, self.phase)
        if changed or routed != self._routed or self._untold:
            self._tell()

    def _again(self) -> None:
        """Make the wish anew, for other settings or another host."""
        if self._catalog is not None:
            self._guarded(self._rebuild)

    def _rebuild(self) -> None:
        assert self._catalog is not None
        kept = self._wish if self.phase is Phase.DRAINING else None
        self._wish = Wish(self._host, self.settings)
        if kept is not None:
            self._wish.keep_drained(kept)
        self._look_at_hosts()
        self._wish.take(self._catalog, None, self.phase)
        self._tell()

    def _look_at_hosts(self) -> None:
        assert self._catalog is not None
        hosts, name = self._catalog.hosts, self._host.name
        self._routed = routed_networks(hosts, self.settings, self._networks)
        known = mesh(hosts, name, self.settings)
        if known != self._mesh:
            self._mesh = known
            if self._parts.speaker is not None:
                self._parts.speaker.set_mesh(known)
        own = self.record()
        clashes = overlaps(hosts, name, own.networks if own is not None else ())
        for other, mine, theirs in sorted(set(clashes) - set(self._clashes), key=str):
            log.error(
                "another host has containers in the same prefix; each needs prefixes of its own",
                extra=fields(host=other, ours=mine, theirs=theirs),
            )
        self._clashes = clashes

    def _tell(self) -> None:
        desired = self._wish.desired(self._routed, self.phase, self._running())
        if self.phase is Phase.SERVING and self._taken:
            desired = replace(desired, announced=desired.announced | self._taken)
        if desired == self.desired and not self._untold:
            return
        self.desired, self._untold = desired, True
        if self._parts.speaker is not None:
            self._parts.speaker.want(desired)
        if self._synced:
            for follower in self._parts.followers:
                follower.want(desired)
        self._untold = False

    async def _end_drains(self) -> None:
        while True:
            await self._drain_begun.wait()
            self._drain_begun = trio.Event()
            begun = self._drains
            await trio.sleep(self.settings.drain)
            if self.phase is Phase.DRAINING and self._drains == begun:
                self.phase = Phase.DRAINED
                self._again()
                log.info(
                    "routes withdrawn, the host is drained", extra=fields(host=self._host.name)
                )

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever; one that fails is run again."""
        backoff = Backoff(self._rng, RESTART_FIRST, RESTART_MOST)
        while True:
            began = trio.current_time()
            try:
                await run()
                log.error("a part of BGP ended by itself, started again", extra=fields(part=name))
            except Exception as error:  # noqa: BLE001 - names are answered whatever becomes of BGP
                self._failed(error, name)
            if trio.current_time() - began > RESTART_MOST:
                backoff.reset()
            await trio.sleep(backoff.pause())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - announcing and answers go on without routes
            self._failed(error)

    def _failed(self, error: Exception, part: str = "service") -> None:
        self.error = f"{part}: {type(error).__name__}: {error}"
        self._metrics.bgp_faults.inc()
        log.error("fault in BGP", extra=fields(part=part), exc_info=error)
