"""BGP joined to the daemon: where ``[bgp]`` is configured, and nothing of it anywhere else.

Rule: beside `discod.daemon` the one module that imports `calico_bgp`, and only once ``[bgp]`` is
there. Without it every method does nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import trio

from discod.backoff import Backoff
from discod.keeper import Keeper
from discod.log import fields
from discod.metrics import Metrics
from discod.model.bgp_settings import BgpSettings
from discod.model.endpoint import Address, Host, HostBgp
from discod.model.settings import Network
from discod.reload import BGP_LIVE

if TYPE_CHECKING:
    from calico_bgp.service import BgpService

log = logging.getLogger(__name__)

SYNC_MAX = 60.0
"""Seconds after the first snapshot that Docker and the store may take to say what there is; then
End-of-RIB is told all the same, so that peers do not keep what is gone."""
LISTED_PERIOD = 0.05
"""Seconds between two looks whether Docker's list is there."""
NETWORKS_PERIOD = 30.0
"""Seconds between two looks at Docker's networks; `NETWORKS_FIRST` after the start or a failure."""
NETWORKS_FIRST = 0.5


class Offers(Protocol):
    """The announcer, as far as routing needs it."""

    def listen(self, call: Callable[[], None]) -> None:
        """Call `call` whenever a container may have changed."""
        ...

    def listed(self) -> bool:
        """Whether all containers are known; true as well where Docker is not watched."""
        ...

    def running(self) -> Iterator[Address]:
        """Addresses of all running containers in their networks."""
        ...

    async def networks(self) -> tuple[Network, ...]:
        """Docker's own networks of this host.

        Raises:
            OSError: the engine does not answer.
        """
        ...

    async def settled(self) -> None:
        """Wait until the store has confirmed all that is offered."""
        ...


class Routing:
    """BGP as the daemon has it.

    Args:
        settings: ``[bgp]``; None: there is none.
        host: The present record of this host.
        keeper: Has the Catalog.
        offers: The announcer.
        metrics: Where it counts.
        state: The directory for what has to be known after a restart.
        rng: For jitter.
        changed: Called when this host's record is another one.
    """

    def __init__(
        self,
        settings: BgpSettings | None,
        host: Host,
        keeper: Keeper,
        offers: Offers,
        metrics: Metrics,
        state: Path,
        rng: random.Random,
        changed: Callable[[], None],
    ) -> None:
        self.service: BgpService | None = None
        self._keeper = keeper
        self._offers = offers
        self._rng = rng
        self._changed = changed
        if settings is None:
            return
        from calico_bgp.assembly import assembly
        from calico_bgp.service import BgpService

        self.service = BgpService(
            settings, host, assembly(state, rng), metrics, running=offers.running, rng=rng
        )
        keeper.listen(self.service.update)
        offers.listen(self.service.refresh)

    @property
    def record(self) -> HostBgp | None:
        """What the record of this host says of it."""
        return self.service.record() if self.service is not None else None

    @property
    def view(self) -> BgpView | None:
        """What the API sees."""
        return BgpView(self.service) if self.service is not None else None

    def moved(self, host: Host) -> None:
        """Take other addresses of this host."""
        if self.service is not None:
            self.service.moved(host)

    def take_over(self, addresses: Iterable[Address]) -> None:
        """Announce addresses of dead hosts' containers, which rescue looks after."""
        if self.service is not None:
            self.service.take_over(addresses)

    def drained(self, drained: bool) -> None:
        """Take the drain mark of this host, before its endpoints leave the Catalog."""
        if self.service is not None:
            self.service.drain() if drained else self.service.undrain()

    def reconfigure(self, settings: BgpSettings | None) -> None:
        """Take what of other settings needs no restart."""
        if self.service is not None and settings is not None:
            live: dict[str, Any] = {name: getattr(settings, name) for name in BGP_LIVE}
            self.service.reconfigure(replace(self.service.settings, **live))

    async def run(self) -> None:
        """Serve until cancelled; without ``[bgp]`` it returns at once."""
        if self.service is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.run)
            nursery.start_soon(self._watch_networks, self.service)
            nursery.start_soon(self._synchronise, self.service)

    async def shutdown(self) -> None:
        """Say good-bye to peers where this is no restart; bounded."""
        if self.service is not None:
            await self.service.shutdown()

    async def _synchronise(self, service: BgpService) -> None:
        await self._keeper.ready.wait()
        service.begin(self._keeper.catalog)
        with trio.move_on_after(
            min(SYNC_MAX, service.settings.graceful_restart or SYNC_MAX)
        ) as lim:
            while not self._offers.listed():  # noqa: ASYNC110 - once, at the start
                await trio.sleep(LISTED_PERIOD)
            await self._offers.settled()
        if lim.cancelled_caught:
            log.warning(
                "routes taken as complete before Docker and the store have said so",
                extra=fields(listed=self._offers.listed()),
            )
        service.synced()

    async def _watch_networks(self, service: BgpService) -> None:
        backoff = Backoff(self._rng, NETWORKS_FIRST, NETWORKS_PERIOD)
        while True:
            try:
                if service.docker_networks(await self._offers.networks()):
                    self._changed()
                backoff.reset()
                await trio.sleep(NETWORKS_PERIOD * self._rng.uniform(0.9, 1.1))
            except OSError:  # the watcher says that the engine is away
                await trio.sleep(backoff.pause())


async def cleanup(settings: BgpSettings | None, state: Path) -> tuple[list[str], list[str]]:
    """Take away all that BGP has left on this host, without a running daemon.

    Args:
        settings: ``[bgp]``; None: with its defaults for table and protocol number.
        state: The directory where the host side remembers what it changed.

    Returns:
        What was done, and what could not be, in words.
    """
    from calico_bgp.cleanup import cleanup as clean

    # The AS number plays no part here.
    return await clean(settings or BgpSettings(asn=64512), state)


class BgpView:
    """What `discod.view.BgpView` asks for, in rows that are ready for JSON."""

    def __init__(self, service: BgpService) -> None:
        self._service = service

    def status(self) -> Mapping[str, Any]:
        """How BGP stands as a whole."""
        return self._service.status()

    def peers(self) -> Sequence[Mapping[str, Any]]:
        """All peers."""
        return [peer._asdict() for peer in self._service.peers()]

    def routes(self) -> Sequence[Mapping[str, Any]]:
        """All learned routes that are used."""
        return [route._asdict() for route in self._service.routes()]

    def announced(self, address: Address) -> bool:
        """Whether this host announces an address as a /32 or /128, or as a fixed one."""
        return self._service.announced(address)
