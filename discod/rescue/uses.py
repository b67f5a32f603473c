"""Who uses which place: endpoints that are up anywhere, and what runs on this host.

Rule: says what is so now; of the past only what `Local` remembers of this host's containers. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.catalog_values import Catalog
from discod.model.endpoint import Address, Endpoint, EndpointId
from discod.model.rescue import Place
from discod.rescue.local import Local
from discod.rescue.telling import Pair


class Uses:
    """Places in use, as host `host` knows them."""

    def __init__(self, host: str) -> None:
        self.local = Local()
        self._host = host
        self._live: dict[Place, tuple[EndpointId, ...]] = {}
        self._hosts: frozenset[Address] = frozenset()
        self._known = False  # whether this host's own addresses are among them

    def __contains__(self, place: Place) -> bool:
        """Whether an endpoint that is up has this place."""
        return place in self._live

    def services(self, place: Place) -> Iterable[str]:
        """Services that have an endpoint at a place."""
        return [id_.service for id_ in self._live.get(place, ())]

    def take(self, moved: Iterable[Pair]) -> list[Endpoint]:
        """Take endpoints from where they were to where they are; returns who came."""
        came = []
        for old, _ in moved:
            if old is not None:
                left = tuple(id_ for id_ in self._live.get(Place(*old.place), ()) if id_ != old.id)
                if left:
                    self._live[Place(*old.place)] = left
                else:
                    self._live.pop(Place(*old.place), None)
        for _, new in moved:
            if new is not None:
                self._enter(new)
                came.append(new)
        return came

    def _enter(self, endpoint: Endpoint) -> None:
        place = Place(*endpoint.place)
        self._live[place] = (*self._live.get(place, ()), endpoint.id)

    def hosts(self, catalog: Catalog) -> bool:
        """Take the addresses of hosts; whether they are others than before."""
        known = self._host in catalog.hosts
        found = frozenset(a for host in catalog.hosts.values() for a in host.addresses)
        changed = (known, found) != (self._known, self._hosts)
        self._known, self._hosts = known, found
        return changed

    def may_be_claimed(self, endpoint: Endpoint, backend: Place | None) -> bool:
        """Whether an answer on a bridge for the address of an endpoint means somebody else.

        Not for a published port, where the host answers, nor for a container that is still there.
        """
        return (
            endpoint.container not in ("", *self.local.units)
            and backend is None
            and endpoint.address not in self._hosts
            and self.local.on_bridge(endpoint.address)
        )

    def departed(self, endpoint: Endpoint) -> bool:
        """Whether it was of a container of this host that does not run any more."""
        container = endpoint.container
        own = endpoint.host == self._host and bool(container)
        return own and self.local.known and container not in self.local.units

    def behind(self, endpoint: Endpoint) -> tuple[Place | None, bytes]:
        """What an endpoint of this host that is gone had.

        Its place in the container, if it was a published one and nobody else uses that; and its
        link-layer address, if it was on a bridge here. A host's address never has one: to answer
        for it on a bridge would take it away from the host.
        """
        if endpoint.host != self._host or not endpoint.container:
            return None, b""
        backend = self.local.backend(Place(*endpoint.place), endpoint.container)
        if backend is not None:
            return (None if self._in_use(backend, endpoint.container) else backend), b""
        if not self._known or endpoint.address in self._hosts:
            return None, b""
        return None, self.local.mac(endpoint.address, endpoint.container)

    def _in_use(self, backend: Place, container: str) -> bool:
        return (
            backend in self._live
            or self.local.held(backend.address, container)
            or any(front in self._live for front in self.local.fronts(backend))
        )
