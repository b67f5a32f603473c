"""A worker's replica of what the zone is made from, services still packed.

Rule: a service is unpacked when the zone asks for it, and what was unpacked is the zone's to keep
or to drop; so a change costs its own octets, whatever the size of the Catalog. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar, cast

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias, Endpoint, Host
from resolver.hot.protocol import Row, Services, aliased, may_front, unpack, unpack_hosts

T = TypeVar("T")


class _Unpacked(Mapping[str, Mapping[str, T]], Generic[T]):
    """Service -> instance -> what `part` of the packed service holds."""

    def __init__(self, packed: Mapping[str, bytes], part: int) -> None:
        self._packed = packed
        self._part = part

    def __getitem__(self, service: str) -> Mapping[str, T]:
        found: Mapping[str, T] = unpack(service, self._packed[service])[self._part]  # type: ignore[assignment]
        if not found:
            raise KeyError(service)
        return found

    def __iter__(self) -> Iterator[str]:
        return (service for service in self._packed if service in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Replica:
    """All services, packed, and the Catalog that the zone reads."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._packed: dict[str, bytes] = {}
        self._aliased: dict[str, bytes] = {}  # the part of them that has aliases
        self._hosts: Mapping[str, Host] = MappingProxyType({})
        self.labels: set[bytes] = set()
        """Names of all services and aliases."""
        self.aliases: set[bytes] = set()
        """Those that have aliases."""
        self.ready = False
        self.stale = False
        self.catalog = Catalog(domain)

    def may_front(self) -> list[str]:
        """All services that have addresses of their own; an octet of each service is looked at."""
        return [service for service, packed in self._packed.items() if may_front(packed)]

    def apply(self, step: Services) -> Change | None:
        """Take one step; the change for the zone, None when nothing is as it was."""
        if step.reset:
            self._packed, self._aliased = {}, {}
            self.labels, self.aliases = set(), set()
        for service, packed in step.services:
            label = service.encode()
            if self._aliased.pop(service, None) is not None:
                self.aliases.discard(label)
            if packed is None:
                self._packed.pop(service, None)
                self.labels.discard(label)
                continue
            self._packed[service] = packed
            self.labels.add(label)
            if aliased(packed):
                self._aliased[service] = packed
                self.aliases.add(label)
        if step.hosts is not None:
            self._hosts = MappingProxyType(unpack_hosts(step.hosts))
        self.ready, self.stale = step.ready, step.stale
        # Rows in place of endpoints: a zone reads them as `Offered`, until it is asked for a
        # reverse name, and those questions are the daemon's.
        rows: _Unpacked[Row] = _Unpacked(self._packed, 0)
        endpoints = cast(Mapping[str, Mapping[str, Endpoint]], rows)
        aliases: _Unpacked[Alias] = _Unpacked(self._aliased, 1)
        self.catalog = Catalog(
            self._domain,
            step.revision,
            services=endpoints,
            aliases=aliases,
            hosts=self._hosts,
        )
        if step.reset:
            return None
        names = frozenset(service for service, _ in step.services)
        return Change(names, step.hosts is not None, ())
