"""Rescue joined to the daemon, where it or service addresses are configured.

Rule: beside `discod.daemon` the one module that imports `discod.rescue`, and only once it is
configured. Without it every method does nothing, but for `run`: what an earlier run with other
settings has left in the packet filter is taken away.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from discod.backoff import Backoff
from discod.keeper import Keeper
from discod.log import fields
from discod.metrics import Metrics
from discod.model.endpoint import Address, Host
from discod.model.rescue import Unit
from discod.model.settings import Settings
from discod.view import RescueView

if TYPE_CHECKING:
    from discod.rescue.service import RescueService

log = logging.getLogger(__name__)

MARK = "rescue-on"
"""File that says that there may be tables of ours."""
RESTART_FIRST, RESTART_MOST = 0.5, 30.0
"""Seconds of the first pause after a failure of rescue as a whole, and of the longest."""
LISTED_MAX = 5.0
"""Seconds that Docker's list of containers is waited for at the start; an address that a container
turns out to have after that is no longer looked after then."""
LISTED_PERIOD = 0.05
"""Seconds between two looks whether it is there."""


class Containers(Protocol):
    """The announcer, as far as rescue needs it."""

    def listen(self, call: Callable[[], None]) -> None:
        """Call `call` whenever a container may have changed."""
        ...

    def listed(self) -> bool:
        """Whether all containers are known; true as well where Docker is not watched."""
        ...

    def units(self, own: Sequence[Address]) -> Mapping[str, Unit]:
        """All running containers, by id."""
        ...


class Rescuing:
    """Rescue as the daemon has it.

    Args:
        settings: All of them.
        host: The record of this host.
        keeper: Has the Catalog. What is used again leaves the kernel before later listeners hear.
        containers: The announcer.
        metrics: Where it counts.
        rng: For jitter.
        state: The directory for what has to be known after a restart.
        take_over: Called with the addresses of dead hosts' containers that are to be announced.
        follows: Called with whether this host's kernel spreads over services' own addresses.
    """

    def __init__(
        self,
        settings: Settings,
        host: Host,
        keeper: Keeper,
        containers: Containers,
        metrics: Metrics,
        rng: random.Random,
        *,
        state: Path,
        take_over: Callable[[frozenset[Address]], None],
        follows: Callable[[bool], None],
    ) -> None:
        self._service: RescueService | None = None
        self._keeper = keeper
        self._containers = containers
        self._host = host
        self._rng = rng
        self._mark = state / MARK
        if not settings.rescue.enabled and not settings.vip.pool:
            return
        from discod.rescue.assembly import kernel
        from discod.rescue.service import RescueService

        self._service = RescueService(
            settings.rescue,
            host,
            settings.dns.prefer,
            kernel(rng),
            metrics,
            units=lambda: containers.units(self._host.addresses),
            rng=rng,
            wall=time.time,
        )
        self._service.took_over = take_over
        if settings.vip.pool:
            self._service.follows = follows
        keeper.listen(self._service.update)
        containers.listen(self._service.refresh)

    @property
    def view(self) -> RescueView | None:
        """What the API sees."""
        return self._service

    def reconfigure(self, settings: Settings, host: Host) -> None:
        """Take what of other settings needs no restart, and another record of this host."""
        self._host = host
        if self._service is not None:
            self._service.reconfigure(settings.rescue, host, settings.dns.prefer)

    async def run(self) -> None:
        """Serve until cancelled; without rescue it returns as soon as nothing of it is left."""
        if self._service is None:
            await self._clean_up()
            return
        try:
            self._mark.touch()
        except OSError as error:
            log.warning("not remembered that rescue is on", extra=fields(error=error))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, self._service)
            await self._keeper.ready.wait()
            with trio.move_on_after(LISTED_MAX):
                while not self._containers.listed():  # noqa: ASYNC110 - once, at the start
                    await trio.sleep(LISTED_PERIOD)
            self._service.begin(self._keeper.catalog)

    async def _keep(self, service: RescueService) -> None:
        """Run it for ever; where it fails by a fault of ours, once more."""
        backoff = Backoff(self._rng, RESTART_FIRST, RESTART_MOST)
        while True:
            began = trio.current_time()
            try:
                await service.run()
            except Exception as error:  # names are answered whatever becomes of rescue
                log.error("rescue failed, started again", exc_info=error)
            if trio.current_time() - began > RESTART_MOST:
                backoff.reset()
            await trio.sleep(backoff.pause())

    async def _clean_up(self) -> None:
        """Nobody would look after tables that stay when rescue is switched off."""
        if not self._mark.exists():
            return
        done, failed = await cleanup()
        if failed:
            log.error(
                "rules of rescue are left in the packet filter", extra=fields(error=failed[0])
            )
            return
        self._mark.unlink(missing_ok=True)
        log.info("rescue is off", extra=fields(done=done[0]))


async def cleanup() -> tuple[list[str], list[str]]:
    """Take away all that rescue has left on this host, without a running daemon.

    Returns:
        What was done, and what could not be, in words.
    """
    from discod.kernel.commands import CommandFailed
    from discod.rescue.table import Table

    try:
        await Table().remove()
    except (CommandFailed, OSError) as error:
        return [], [f"tables: {error}"]
    return ["tables removed"], []
