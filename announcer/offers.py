"""What routing needs to know of this host's containers.

Rule: reads the roster and asks the engine; changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from announcer.announcer import Announcer
from announcer.errors import EngineError
from discod.model.endpoint import Address
from discod.model.settings import Network


class ContainerView:
    """The containers behind one announcer."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    @property
    def units_changed(self) -> Callable[[], None]:
        """Called when any producer may have changed."""
        return self._announcer.roster.units_changed

    @units_changed.setter
    def units_changed(self, call: Callable[[], None]) -> None:
        self._announcer.roster.units_changed = call

    def listed(self) -> bool:
        """Whether all containers are known; true as well where Docker is not watched."""
        watcher = self._announcer.watcher
        return watcher is None or watcher.listed

    def running(self) -> Iterator[Address]:
        """Addresses of all running containers in their networks."""
        for unit in self._announcer.roster.units():
            yield from unit.addresses

    async def networks(self) -> tuple[Network, ...]:
        """Docker's own networks of this host.

        Raises:
            OSError: the engine does not answer.
        """
        if self._announcer.engine is None:
            return ()
        try:
            return await self._announcer.engine.networks()
        except EngineError as error:
            raise OSError(str(error)) from None

    async def settled(self) -> None:
        """Wait until the store has confirmed all that is offered."""
        await self._announcer.publisher.settled()
