"""What the HTTP API may see and do of the running daemon.

Rule: an interface only, so that the API and the daemon can be read, tested and changed apart. The
daemon (`discod.daemon`) implements it; `discod.http` uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Endpoint
from discod.model.report import PartReport, ProducerReport, SilentHost
from discod.model.settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class StoreReport:
    """How the daemon stands with its store."""

    kind: str
    """``memory`` or ``etcd``."""
    connected: bool
    age: float
    """Seconds since the store last gave a sign of life; 0 for the memory store."""
    error: str
    """What is wrong while not connected."""


class Announcement(Protocol):
    """A live ``discod announce``; ends when its context ends."""

    async def status(self) -> str:
        """The state in words, ``up`` or ``down: <reason>``: the present one, then each new one."""
        ...

    async def withdraw(self) -> None:
        """Take the endpoints out of DNS and return once the store has confirmed it."""
        ...


class BgpView(Protocol):
    """BGP on this host, in rows that are ready for JSON."""

    def status(self) -> Mapping[str, Any]:
        """How it stands as a whole."""
        ...

    def peers(self) -> Sequence[Mapping[str, Any]]:
        """All peers."""
        ...

    def routes(self) -> Sequence[Mapping[str, Any]]:
        """All learned routes that are used."""
        ...

    def announced(self, address: Address) -> bool:
        """Whether this host announces an address as a /32 or /128."""
        ...


class RescueView(Protocol):
    """Rescue and service addresses on this host, in rows that are ready for JSON."""

    def status(self) -> Mapping[str, Any]:
        """How it stands as a whole, and what it did for each service."""
        ...

    def entries(self) -> Sequence[Mapping[str, Any]]:
        """All stale places, and where packets to them go."""
        ...

    def clients(self) -> Sequence[Mapping[str, Any]]:
        """Who still uses stale places: those seen last come first."""
        ...

    def vips(self) -> Sequence[Mapping[str, Any]]:
        """All service addresses, and where connections to them go."""
        ...

    def word(self, endpoint: Endpoint) -> str:
        """What becomes of packets to an endpoint that is gone, in words; empty: nothing."""
        ...


class View(Protocol):
    """The daemon, seen from its API."""

    @property
    def host(self) -> str:
        """Name of this host."""
        ...

    @property
    def catalog(self) -> Catalog:
        """The present Catalog."""
        ...

    @property
    def store(self) -> StoreReport:
        """How it stands with the store."""
        ...

    @property
    def silent(self) -> Mapping[str, SilentHost]:
        """Hosts that do not answer the others and are taken as lost here, by name."""
        ...

    @property
    def bgp(self) -> BgpView | None:
        """BGP on this host; None where ``[bgp]`` is not configured."""
        ...

    @property
    def rescue(self) -> RescueView | None:
        """Rescue on this host; None where neither it nor service addresses are configured."""
        ...

    def producers(self) -> tuple[ProducerReport, ...]:
        """Everything of this host that offers or could offer endpoints."""
        ...

    def parts(self) -> tuple[PartReport, ...]:
        """Every part that readiness depends on."""
        ...

    def answers(self, name: str) -> Sequence[str]:
        """What this host's resolver answers for a name or an address now, one line a record.

        One word, the rcode, ``NODATA`` or ``FORWARDED``, where there is no record.

        Raises:
            ValueError: `name` cannot be asked.
        """
        ...

    def changes(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Change]]:
        """Subscribe to changes of the Catalog.

        The queue is bounded (1,024); a reader that falls behind gets its channel closed, and has to
        subscribe and read the Catalog again.
        """
        ...

    async def drain(self, container: str | None) -> str:
        """Withdraw this host's endpoints, or one container's (name or id prefix), until undrained.

        Returns what was done, in words, once the store has confirmed it.

        Raises:
            LookupError: no such container here, or more than one.
        """
        ...

    async def undrain(self, container: str | None) -> str:
        """Take `drain` back.

        Raises:
            LookupError: no such container here, or it is not drained.
        """
        ...

    async def release_vip(self, service: str) -> str:
        """Give the addresses of a service back, so that another one can get them.

        Returns what was done, in words, once the store has confirmed it.

        Raises:
            LookupError: the service has no address of its own.
            ValueError: an endpoint of it is up.
        """
        ...

    def announce(
        self, services: tuple[ServiceSettings, ...]
    ) -> AbstractAsyncContextManager[Announcement]:
        """Offer endpoints for as long as the context lasts.

        Raises:
            ValueError: a name is one that this host may not claim, or the same is announced twice.
                Raised on entering, and never inside an ExceptionGroup.
        """
        ...
