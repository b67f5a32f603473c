"""The service addresses with their ports, and what each leads to.

Rule: one that leads nowhere any more is kept for a while, so that its clients are refused, or sent
to the service's other endpoints, and do not hang. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from discod.model.endpoint import Address, Endpoint
from discod.model.rescue import Place, PoolId
from discod.model.rescue_settings import RescueSettings
from discod.rescue.pools import pool_in


@dataclass(slots=True)
class _Former:
    pool: PoolId
    born: float
    used: float

    def until(self, settings: RescueSettings) -> float:
        return min(self.used + settings.hold, self.born + settings.max_hold)


class Vips:
    """Place of a service address -> its pool."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Place, PoolId]] = {}  # by service; none is empty
        self._claims: dict[Place, dict[str, PoolId]] = {}  # the same by place, and service
        self._former: dict[Place, _Former] = {}  # in the order of last use

    def services(self) -> Iterable[str]:
        """Services that have an address now."""
        return tuple(self._of)

    def get(self, place: Place) -> PoolId | None:
        """Where a place leads; of several services that claim it, the first by name has it."""
        claims = self._claims.get(place)
        if claims:
            return claims[min(claims)]
        former = self._former.get(place)
        return former.pool if former is not None else None

    def places(self) -> Iterator[Place]:
        """All places that lead somewhere."""
        yield from self._claims
        yield from (place for place in self._former if place not in self._claims)

    def take(self, service: str, endpoints: Iterable[Endpoint], now: float) -> set[Place]:
        """Take all endpoints of a service that are up; returns the places that may be different."""
        before = self._of.get(service, {})
        after = places_of(endpoints)
        if after == before:
            return set()
        for place, pool in before.items():
            if place not in after:
                claims = self._claims[place]
                del claims[service]
                if not claims:
                    del self._claims[place]
                self.leave(place, pool, now)
        for place, pool in after.items():
            self._claims.setdefault(place, {})[service] = pool
            self._former.pop(place, None)
        if after:
            self._of[service] = after
        else:
            self._of.pop(service, None)
        return {*before, *after}

    def leave(self, place: Place, pool: PoolId, since: float) -> None:
        """A place had a pool until `since`; nothing where it has one, or had one later."""
        known = self._former.get(place)
        if place in self._claims or (known is not None and known.born >= since):
            return
        used = max(since, known.used) if known is not None else since
        self._former.pop(place, None)
        self._former[place] = _Former(pool, since, used)

    def use(self, place: Place, now: float) -> None:
        """A place was used."""
        former = self._former.pop(place, None)
        if former is not None:
            former.used = max(former.used, now)
            self._former[place] = former

    def expire(self, now: float, settings: RescueSettings) -> list[Place]:
        """Forget what led nowhere for long enough, and what there is too much of."""
        over = [p for p, former in self._former.items() if former.until(settings) <= now]
        for place in over:
            del self._former[place]
        while len(self._former) > settings.max_entries:
            place = next(iter(self._former))
            del self._former[place]
            over.append(place)
        return over

    def next_expiry(self, settings: RescueSettings) -> float | None:
        """When the next one is to be forgotten."""
        return min((former.until(settings) for former in self._former.values()), default=None)


def addresses_of(endpoints: Iterable[Endpoint]) -> tuple[Address, ...]:
    """A service's own addresses: the word of its first endpoint (by instance) that says any."""
    words = [(e.instance, e) for e in endpoints if e.vip]
    return min(words, key=lambda word: word[0])[1].vip if words else ()


def places_of(endpoints: Iterable[Endpoint]) -> dict[Place, PoolId]:
    """The places of a service's own addresses; of two names of one port the first by instance."""
    endpoints = tuple(endpoints)
    addresses = addresses_of(endpoints)
    found: dict[Place, PoolId] = {}
    if not addresses:
        return found
    for endpoint in sorted(endpoints, key=lambda e: e.instance):
        if endpoint.port:
            for address in addresses:
                place = Place(address, endpoint.port, endpoint.protocol)
                found.setdefault(place, pool_in(endpoint, address))
    return found
