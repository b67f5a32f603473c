"""What routing and rescue need to know of this host's containers.

Rule: reads the roster and asks the engine; changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from announcer.announcer import Announcer
from announcer.container import Container
from announcer.errors import EngineError
from announcer.tracked import addresses_of
from discod.model.endpoint import Address
from discod.model.rescue import Place, Unit
from discod.model.settings import Network


class ContainerView:
    """The containers behind one announcer."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    def listen(self, call: Callable[[], None]) -> None:
        """Call `call` whenever any producer may have changed, in the same call chain."""
        before = self._announcer.roster.units_changed

        def both() -> None:
            before()
            call()

        self._announcer.roster.units_changed = both

    def listed(self) -> bool:
        """Whether all containers are known; true as well where Docker is not watched."""
        watcher = self._announcer.watcher
        return watcher is None or watcher.listed

    def running(self) -> Iterator[Address]:
        """Addresses of all running containers in their networks."""
        for container in self._living():
            yield from addresses_of(container)

    def units(self, own: Sequence[Address]) -> dict[str, Unit]:
        """All running containers, by id.

        Args:
            own: The addresses of this host, for ports that are published on all of them.
        """
        return {container.id: _unit(container, own) for container in self._living()}

    def _living(self) -> list[Container]:
        watcher = self._announcer.watcher
        return watcher.living() if watcher is not None else []

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


def _unit(container: Container, own: Sequence[Address]) -> Unit:
    macs: dict[Address, bytes] = {}
    for attachment in container.attachments:
        for address in (attachment.ipv4, attachment.ipv6):
            if address is not None:
                macs[address] = attachment.mac
    published: dict[Place, Place] = {}
    for binding in container.published:
        bound = binding.host_address
        everywhere = bound is None or bound.is_unspecified
        for here in own if everywhere else (bound,):
            if here is None or (bound is not None and here.version != bound.version):
                continue
            # Docker publishes into the first network that has an address of the family.
            inner = next((address for address in macs if address.version == here.version), None)
            if inner is not None:
                place = Place(here, binding.host_port, binding.protocol)
                published[place] = Place(inner, binding.port, binding.protocol)
    return Unit(container.id, container.name, container.pid, macs, published)
