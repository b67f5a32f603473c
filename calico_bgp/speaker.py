"""The native backend: all BGP sessions of this host.

Rule: puts the parts together and decides nothing of BGP itself. `plan` says which peers there are,
`peering` talks to each, `inflow` brings their routes to the Loc-RIB, and what of that is to be used
is handed to `learned`. Everything but `run` and `shutdown` is synchronous.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import trio

from calico_bgp.counts import PeerCounts, SpeakerCounts
from calico_bgp.decision import Changed, LocRib
from calico_bgp.decision import Path as Route
from calico_bgp.exporter import Sources
from calico_bgp.inflow import Inflow
from calico_bgp.listener import TcpTransport
from calico_bgp.notification import DECONFIGURED, SHUTDOWN
from calico_bgp.peering import Peering
from calico_bgp.plan import Host, Plans, make
from calico_bgp.ports import Desired, Hop, Hops, MeshHost, PeerStatus, RouteStatus
from calico_bgp.prefix import Address, Prefix
from calico_bgp.status import peer_status, route_status
from calico_bgp.transport import Link, Transport
from discod.log import fields
from discod.model.bgp_settings import BgpSettings

log = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between looks at whether all peers have told what they have, until they have."""

Learned = Callable[[Mapping[Prefix, Hops]], None]


class NativeSpeaker:
    """A `ports.Speaker`.

    Args:
        settings: the whole of ``[bgp]``.
        name: of this host in the mesh.
        addresses: of this host, those that peers can reach first.
        learned: is told routes that are others now (`ports.Forwarding.learned`).
        settled: is told once, when all peers have told what they have, or had time to.
        installed: whether the kernel has a route, for `routes`.
        restarting: this process may follow another one (RFC 4724, section 4.1).
        transport: the network; None: the real one.

    Raises:
        ValueError: no router id.
    """

    def __init__(
        self,
        settings: BgpSettings,
        name: str,
        addresses: Sequence[Address],
        *,
        learned: Learned,
        settled: Callable[[], None] = lambda: None,
        installed: Callable[[Prefix], bool] = lambda _: False,
        restarting: bool = True,
        transport: Transport | None = None,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rng = rng or random.Random()
        self.transport = transport or TcpTransport(self.rng)
        self.wall = wall
        self.draining = self.first_sync = False
        self.rib = LocRib(settings.multipath)
        self.inflow = Inflow(self.rib, self._chosen)
        self.settled = False
        self._settings, self._host = settings, Host(name, tuple(addresses))
        self._tell_learned, self._tell_settled = learned, settled
        self._installed = installed
        self._restarting = restarting
        self._mesh: dict[str, MeshHost] = {}
        self._peerings: dict[Address, Peering] = {}
        self._leaving: set[Peering] = set()
        self._faults: tuple[str, ...] = ()
        self._clients: frozenset[Address] = frozenset()
        self._wanted = Desired()
        self._own: frozenset[Prefix] = frozenset()
        self._handed: dict[Prefix, Hops] = {}
        """What `learned` was told."""
        self._handover_faults = 0
        self._wake = trio.Event()
        self._told = trio.Event()
        self._down = False
        self._nursery: trio.Nursery | None = None
        self._plans = self._make()

    # What the daemon says -----------------------------------------------------------------------

    def want(self, desired: Desired) -> None:
        """Announce exactly this from now on; several in one pass of the loop count as the last."""
        self._wanted = desired
        self._wake.set()

    def set_mesh(self, hosts: Mapping[str, MeshHost]) -> None:
        """Peer with these besides the configured peers; this host itself may be among them."""
        if self._mesh != hosts:
            self._mesh = dict(hosts)
            self._apply()

    def reconfigure(self, settings: BgpSettings, addresses: Sequence[Address] = ()) -> None:
        """Other settings; no addresses: the same. Peers that do not change are not touched.

        Raises:
            ValueError: no router id; nothing has changed then.
        """
        before = self._settings, self._host
        self._settings = settings
        if addresses:
            self._host = self._host._replace(addresses=tuple(addresses))
        try:
            self._make()
        except ValueError:
            self._settings, self._host = before
            raise
        self._chosen(self.rib.allow(settings.multipath))
        self._apply()

    def synced(self) -> None:
        """The first full sync is over: mesh and wish are whole."""
        self.first_sync = True
        self._wake.set()
        self._told.set()

    async def run(self) -> None:
        """Serve until cancelled; connections end without a word then (RFC 4724)."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self.inflow.run)
                nursery.start_soon(self.transport.serve, self._accept)
                nursery.start_soon(self._follow)
                nursery.start_soon(self._settle)
                self._apply()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def shutdown(self, text: str, deadline: float) -> None:
        """Withdraw, then Cease with `text` (RFC 9003); waits `deadline` seconds at most."""
        self._down = True
        peerings = (*self._peerings.values(), *self._leaving)
        for peering in self._peerings.values():
            peering.stop(text, SHUTDOWN)
        if self._nursery is None:
            return
        with trio.move_on_after(deadline):
            for peering in peerings:
                await peering.done.wait()

    # What there is to see -----------------------------------------------------------------------

    def peers(self) -> tuple[PeerStatus, ...]:
        """All peers, sorted by address."""
        order = sorted(self._peerings, key=lambda one: (one.version, one.packed))
        return tuple(peer_status(self._peerings[address]) for address in order)

    def routes(self) -> tuple[RouteStatus, ...]:
        """All learned routes that are chosen, sorted."""
        chosen = sorted(self.rib.chosen.items(), key=lambda one: _order(one[0]))
        return tuple(
            route_status(prefix, paths, self._hops(paths, {}), self._installed(prefix))
            for prefix, paths in chosen
        )

    def counts(self) -> dict[Address, PeerCounts]:
        """By peer."""
        return {address: one.counts for address, one in self._peerings.items()}

    def totals(self) -> SpeakerCounts:
        """Of the speaker as a whole."""
        return SpeakerCounts(self.transport.strangers, self._handover_faults)

    # What the peers need ------------------------------------------------------------------------

    @property
    def restarting(self) -> bool:
        """Sessions that begin now follow an earlier process, whose routes peers may have."""
        return self._restarting and not self.settled

    @property
    def sources(self) -> Sources:
        """What there is to tell."""
        return Sources(self._own, self._paths, self._clients)

    def everything(self) -> Iterable[Prefix]:
        """All prefixes that may be told."""
        return (*self._own, *self.rib.chosen) if self._clients else self._own

    def told(self) -> None:
        """A peer has told all it has."""
        self._told.set()

    def forget(self, peer: Address) -> None:
        """Its session is gone, and its routes with it."""
        self.inflow.then(lambda: self._chosen(self.rib.remove(peer)))

    # Peers --------------------------------------------------------------------------------------

    def _make(self) -> Plans:
        return make(self._settings, self._host, self._mesh, _passwords(self._settings))

    def _apply(self) -> None:
        """Have exactly the peers that settings and mesh ask for."""
        plans = self._plans = self._make()
        if plans.faults != self._faults:
            self._faults = plans.faults
            for fault in plans.faults:
                log.error("no BGP peer of this", extra=fields(why=fault))
        self.transport.expect(plans.endpoints, {a: one.dial for a, one in plans.peers.items()})
        if self._nursery is None or self._down:
            return
        clients = frozenset(address for address, one in plans.peers.items() if one.client)
        for address in self._peerings.keys() - plans.peers.keys():
            leaving = self._peerings.pop(address)
            self._leaving.add(leaving)
            leaving.stop("", DECONFIGURED)
        others, self._clients = self._clients != clients, clients
        for address, plan in plans.peers.items():
            if (peering := self._peerings.get(address)) is None:
                peering = self._peerings[address] = Peering(plan, self)
                self._nursery.start_soon(self._serve, peering)
            elif peering.planned != plan:
                peering.adopt(plan)
            elif others:
                peering.refresh()
        self._told.set()

    async def _serve(self, peering: Peering) -> None:
        await peering.run()
        self._leaving.discard(peering)

    def _accept(self, link: Link) -> bool:
        peering = self._peerings.get(link.remote)
        return peering is not None and peering.accepted(link)

    # Tasks --------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Tell the peers what is wanted."""
        while True:
            wanted, before = self._wanted, self._own
            if wanted.announced != before:
                self._own = wanted.announced
                changed = self._own ^ before
                for peering in self._peerings.values():
                    peering.mark(changed)
                learned = self.rib.chosen
                self._chosen({one: learned[one] for one in changed if one in learned})
            if wanted.draining != self.draining:
                self.draining = wanted.draining
                for peering in self._peerings.values():
                    peering.refresh()
            if self.first_sync:
                for peering in self._peerings.values():
                    peering.synced()
            await self._wake.wait()
            self._wake = trio.Event()

    async def _settle(self) -> None:
        """Say once that all peers have told what they have, or had time to."""
        with trio.move_on_after(self._settings.stale):
            while not self._complete():
                with trio.move_on_after(LOOK):
                    await self._told.wait()
                self._told = trio.Event()
        self.settled = True
        self._hand(self._tell_settled)

    def _complete(self) -> bool:
        now = trio.current_time()
        every = self._peerings.values()
        return self.first_sync and all(peering.has_told(now) for peering in every)

    # Learned routes -----------------------------------------------------------------------------

    def _paths(self, prefix: Prefix) -> tuple[Route, ...]:
        return self.rib.chosen.get(prefix, ())

    def _chosen(self, changed: Changed) -> None:
        """Other paths are the best now, or other prefixes are our own."""
        if not changed:
            return
        learned: dict[Prefix, Hops] = {}
        made: dict[object, Hops] = {}
        for prefix, paths in changed.items():
            # What is here goes before what others say of it.
            hops = () if prefix in self._own else self._hops(paths, made)
            if hops == self._handed.get(prefix, ()):
                continue
            learned[prefix] = hops
            if hops:
                self._handed[prefix] = hops
            else:
                del self._handed[prefix]
        if learned:
            self._hand(partial(self._tell_learned, learned))
        if self._clients:
            for peering in self._peerings.values():
                if not peering.plan.peer.external:
                    peering.mark(changed)

    def _hops(self, paths: tuple[Route, ...], made: dict[object, Hops]) -> Hops:
        key = tuple([(path.attributes.next_hop, path.peer) for path in paths])
        if (hops := made.get(key)) is None:
            found = {hop for path in paths if (hop := self._hop(path)) is not None}
            order = sorted(found, key=lambda hop: (hop.gateway.packed, hop.interface))
            hops = made[key] = tuple(order)
        return hops

    def _hop(self, path: Route) -> Hop | None:
        gateway = path.attributes.next_hop
        if not isinstance(gateway, IPv6Address) or not gateway.is_link_local:
            return None if gateway is None else Hop(gateway)
        peering = self._peerings.get(path.peer)
        interface = "" if peering is None else peering.interface
        return Hop(gateway, interface) if interface else None

    def _hand(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # a fault of the kernel's side must not end sessions
            self._handover_faults += 1
            log.exception("learned BGP routes were not taken")


def _order(prefix: Prefix) -> tuple[int, bytes, int]:
    return prefix.family.afi, prefix.nlri[1:], prefix.bits


def _passwords(settings: BgpSettings) -> dict[str, bytes]:
    """TCP MD5 passwords by the path of their file.

    One that cannot be read is left out, and its peer with it: never without its password.
    """
    paths = {settings.mesh_password_file, *(peer.password_file for peer in settings.peers)} - {""}
    found = {}
    for path in sorted(paths):
        try:
            found[path] = Path(path).read_bytes().strip(b"\r\n")
        except OSError as error:
            log.error("cannot read a BGP password", extra=fields(file=path, why=error.strerror))
    return {path: password for path, password in found.items() if password}
