"""What one peer is told, route by route.

Rule: the answer for a prefix depends on what is there now, so many changes of it are told once; own
routes share one `Attributes` a family, which makes packing them cheap. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from calico_bgp.attributes import Attributes
from calico_bgp.decision import Path
from calico_bgp.policy import Peering, Policy, told_to
from calico_bgp.prefix import Address, Family, Prefix
from calico_bgp.reflection import reflected, reflects

OWN: Final = Attributes()
"""A route of this host before anything is said of it."""


class Sources(NamedTuple):
    """Where routes to tell come from."""

    own: Collection[Prefix]
    chosen: Callable[[Prefix], tuple[Path, ...]]
    """Learned paths, best first."""
    clients: Collection[Address]
    """Of this reflector; empty: it is none."""


class Exporter:
    """The view of one peer."""

    def __init__(self, policy: Policy, peering: Peering, address: Address, client: bool) -> None:
        self.policy, self.peering = policy, peering
        self._address, self._client = address, client
        self._own: dict[Family, Attributes | None] = {}

    def of(
        self, prefixes: Iterable[Prefix], sources: Sources
    ) -> tuple[dict[Prefix, Attributes], list[Prefix]]:
        """What is told of these, and which of them are not told (any more)."""
        permitted = self.policy.exports
        if permitted is None and self.peering.external:
            return {}, list(prefixes)
        told: dict[Prefix, Attributes] = {}
        untold: list[Prefix] = []
        made: dict[tuple[int, int], Attributes] = {}
        for prefix in prefixes:
            new = None
            if permitted is None or permitted.permits(prefix):
                if prefix in sources.own:
                    new = self._ours(prefix.family)
                elif sources.clients and not self.peering.external:
                    new = self._reflected(prefix, sources, made)
            if new is None:
                untold.append(prefix)
            else:
                told[prefix] = new
        return told, untold

    def _ours(self, family: Family) -> Attributes | None:
        if family not in self._own:
            self._own[family] = told_to(OWN, family, self.policy, self.peering)
        return self._own[family]

    def _reflected(
        self, prefix: Prefix, sources: Sources, made: dict[tuple[int, int], Attributes]
    ) -> Attributes | None:
        cluster = self.peering.cluster_id
        if cluster is None or not (paths := sources.chosen(prefix)):
            return None
        path = paths[0]
        if not reflects(path, path.peer in sources.clients, self._address, self._client):
            return None
        # Routes that came together go together: the very same attributes for all of them.
        key = (id(path.attributes), int(path.router_id))
        if key not in made:
            made[key] = reflected(path, cluster)
        return made[key]
