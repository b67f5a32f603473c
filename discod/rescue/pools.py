"""Who stands in for whom: the living endpoints of one port of one service, as slots.

Rule: what a client would be told that asked now: of the lowest priority number only, near ones
while there are any (as `resolver.locality` has it), by weight. A published port of this host is
replaced by the container's own place: Docker's translation is not looked at after ours. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from discod.model.endpoint import Address, Endpoint, Host, Prefer
from discod.model.rescue import Place, Pool, PoolId
from discod.rescue.slots import Target, spread

Translate = Callable[[Endpoint], Place | None]
"""Place in the container behind an endpoint of this host; None: it is reached as announced."""


def pool_of(endpoint: Endpoint) -> PoolId:
    """The pool that an endpoint belongs to."""
    return pool_in(endpoint, endpoint.address)


def pool_in(endpoint: Endpoint, address: Address) -> PoolId:
    """The pool of an endpoint's port in the family of `address`."""
    port = endpoint.port_name or str(endpoint.port)
    return PoolId(endpoint.service, port, endpoint.protocol, address.version)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How this host looks at endpoints."""

    host: str
    prefer: Prefer = "none"
    """Of services that say nothing themselves."""
    near: frozenset[str] = frozenset()
    """Hosts of this host's zone; empty when it has none."""

    def preference(self, endpoints: Iterable[Endpoint]) -> Prefer:
        """What holds for a service: the word of its first endpoint (by instance) that says one."""
        words = [(e.instance, e.prefer) for e in endpoints if e.prefer is not None]
        return min(words)[1] if words else self.prefer

    def chosen(self, prefer: Prefer, endpoints: list[Endpoint]) -> list[Endpoint]:
        """The preferred of `endpoints`, all of them when none is."""
        if prefer == "none":
            return endpoints
        if prefer == "local":
            near = [e for e in endpoints if e.host == self.host]
        else:
            near = [e for e in endpoints if e.host in self.near]
        return near or endpoints


def outlook(host: str, zone: str, prefer: Prefer, hosts: Mapping[str, Host]) -> Outlook:
    """How `host`, which stands in `zone`, looks at endpoints among these hosts."""
    if not zone:
        return Outlook(host, prefer)
    near = {h.name for h in hosts.values() if h.zone == zone and h.name != host}
    return Outlook(host, prefer, frozenset(near | {host}))


class Pools:
    """The pools that something names, each made anew when its service changed.

    Not safe for threads.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, Counter[PoolId]] = {}  # by service; no empty counter
        self._made: dict[str, dict[PoolId, tuple[Mapping[Target, int], Pool]]] = {}  # likewise

    def services(self) -> Iterable[str]:
        """Services of which a pool is named."""
        return tuple(self._wanted)

    def wanted(self, service: str) -> bool:
        """Whether a pool of a service is named."""
        return service in self._wanted

    def want(self, id_: PoolId) -> None:
        """One more names it. `take` its service afterwards."""
        counts = self._wanted.setdefault(id_.service, Counter())
        counts[id_] += 1

    def unwant(self, id_: PoolId) -> None:
        """One less names it. `take` its service afterwards."""
        counts = self._wanted[id_.service]
        counts[id_] -= 1
        if not counts[id_]:
            del counts[id_]
            if not counts:
                del self._wanted[id_.service]

    def forget(self, service: str) -> dict[PoolId, None]:
        """What is made of a service and nobody names any more, for good."""
        wanted = self._wanted.get(service, ())
        made = self._made.get(service, {})
        over = [id_ for id_ in made if id_ not in wanted]
        for id_ in over:
            del made[id_]
        if not made:
            self._made.pop(service, None)
        return dict.fromkeys(over)

    def take(
        self, service: str, endpoints: Iterable[Endpoint], look: Outlook, translate: Translate
    ) -> dict[PoolId, Pool]:
        """Make the pools of a service that are named; `endpoints` are all of it that are up."""
        wanted = self._wanted.get(service)
        if not wanted:
            return {}
        members: dict[PoolId, list[Endpoint]] = {id_: [] for id_ in wanted}
        endpoints = tuple(endpoints)
        for endpoint in endpoints:
            of = members.get(pool_of(endpoint))
            if of is not None and endpoint.port:
                of.append(endpoint)
        prefer = look.preference(endpoints)
        return {
            id_: self._make(id_, ones, prefer, look, translate) for id_, ones in members.items()
        }

    def _make(
        self,
        id_: PoolId,
        members: list[Endpoint],
        prefer: Prefer,
        look: Outlook,
        translate: Translate,
    ) -> Pool:
        affinity = any(e.affinity for e in members)
        first = min((e.priority for e in members), default=0)
        chosen = look.chosen(prefer, [e for e in members if e.priority == first])
        weights: dict[Target, int] = {}
        for endpoint in chosen:
            target: Target = (endpoint.address, endpoint.port)
            if endpoint.host == look.host:
                inside = translate(endpoint)
                if inside is not None and inside.address.version == id_.version:
                    target = (inside.address, inside.port)
            weights[target] = weights.get(target, 0) + endpoint.weight
        made = self._made.setdefault(id_.service, {})
        known = made.get(id_)
        if known is not None and known[0] == weights and known[1].affinity == affinity:
            return known[1]
        pool = Pool(id_, spread(weights), affinity)
        made[id_] = weights, pool
        return pool
