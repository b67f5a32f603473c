"""The Plan, written down change by change.

Rule: a pool is in it as long as something names it, and is made anew when its service changed. What
did not change is shared with the Plan before, down to the same object. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from discod.model.catalog_values import Catalog
from discod.model.rescue import Bridge, Place, Plan, Pool, PoolId, Stale
from discod.model.shards import Shards
from discod.rescue.pools import Outlook, Pools, Translate


class Sheet:
    """Holds the present Plan."""

    def __init__(self, refuse: bool) -> None:
        self.plan = Plan(refuse=refuse)
        self.pools = Pools()
        self._stale = Shards[Place, Stale]()
        self._vips = Shards[Place, PoolId]()
        self._made = Shards[PoolId, Pool]()

    def stale(self, place: Place) -> Stale | None:
        """What the Plan says of a place."""
        return self._stale.get(place)

    def write(
        self,
        stale: Mapping[Place, Stale | None],
        vips: Mapping[Place, PoolId | None],
        services: Iterable[str],
        catalog: Catalog,
        look: Outlook,
        translate: Translate,
    ) -> None:
        """Set what is stale, and where service addresses lead; None: not any more.

        `services` are those of which pools may be different.
        """
        dirty = dict.fromkeys(services)
        named = [(self._stale.get(p), one, p) for p, one in stale.items()]
        changed = {p: after for before, after, p in named if before != after}
        for before, after, _ in named:
            self._name(before.pool if before else None, after.pool if after else None, dirty)
        self._stale = self._stale.changed(changed)
        leads = {place: to for place, to in vips.items() if self._vips.get(place) != to}
        for place, to in leads.items():
            self._name(self._vips.get(place), to, dirty)
        self._vips = self._vips.changed(leads)
        pools: dict[PoolId, Pool | None] = {}
        for service in dirty:
            pools.update(self.pools.forget(service))
            if self.pools.wanted(service):
                up = catalog.services.get(service, {}).values()
                pools.update(self.pools.take(service, up, look, translate))
        self._made = self._made.changed(
            {id_: pool for id_, pool in pools.items() if self._made.get(id_) is not pool}
        )

    def _name(self, before: PoolId | None, after: PoolId | None, dirty: dict[str, None]) -> None:
        if before == after:
            return
        if after is not None:
            self.pools.want(after)
            dirty[after.service] = None
        if before is not None:
            self.pools.unwant(before)
            dirty[before.service] = None

    def finish(self, bridges: tuple[Bridge, ...], refuse: bool) -> Plan:
        """The Plan of what was written; the same object as before when nothing changed."""
        before = self.plan
        same = (
            before.stale is self._stale
            and before.vips is self._vips
            and before.pools is self._made
            and before.bridges == bridges
            and before.refuse == refuse
        )
        if not same:
            self.plan = Plan(self._stale, self._vips, self._made, bridges, refuse)
        return self.plan
