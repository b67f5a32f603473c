"""What the Catalog tells of endpoints that are gone.

Rule: functions of Catalogs only. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.catalog_values import Catalog, Change
from discod.model.endpoint import Endpoint, EndpointId, Loss, Withdrawal

Said = Withdrawal | Loss


def said_of(catalog: Catalog, id_: EndpointId) -> Said | None:
    """What is said of the end of an endpoint."""
    return catalog.withdrawn.get(id_) or catalog.lost.get(id_)


def ends(catalog: Catalog) -> Iterable[Said]:
    """All that is said of endpoints that are gone."""
    yield from catalog.withdrawn.values()
    yield from catalog.lost.values()


def newest(catalog: Catalog) -> Iterable[Said]:
    """What is said of endpoints that are not up: of those that had one place the newest."""
    found: dict[tuple[object, ...], Said] = {}
    for said in ends(catalog):
        endpoint = said.endpoint
        if not endpoint.port or catalog.endpoint(endpoint.id) is not None:
            continue
        other = found.get(endpoint.place)
        if other is None or _life(other) < _life(said):
            found[endpoint.place] = said
    return found.values()


def _life(said: Said) -> tuple[float, float, EndpointId]:
    """The later it began, the newer; the last thing said may be of a container long gone."""
    return said.endpoint.since, said.at, said.endpoint.id


Pair = tuple[Endpoint | None, Endpoint | None]
"""An endpoint before and after a change; None: it was, or is, not up."""


def pairs(before: Catalog | None, after: Catalog, change: Change | None) -> list[Pair]:
    """The endpoints of which something is different; without a Change all are compared."""
    services = before.services if before is not None else {}
    if change is not None:
        ids = {entry.endpoint.id: None for entry in change.entries if entry.endpoint is not None}
        # Of others an alias changed, as a rule.
        others = change.services - {id_.service for id_ in ids}
    else:
        ids = {}
        others = frozenset({*services, *after.services})
    for service in others:
        instances = {**services.get(service, {}), **after.services.get(service, {})}
        ids.update((EndpointId(service, instance), None) for instance in instances)
    found = ((services.get(id_.service, {}).get(id_.instance), after.endpoint(id_)) for id_ in ids)
    return [(old, new) for old, new in found if old is not new]


def moved(found: Iterable[Pair]) -> list[Pair]:
    """Those of which the place is different."""
    return [
        (old, new) for old, new in found if old is None or new is None or old.place != new.place
    ]


def over_where_it_was(old: Endpoint, new: Endpoint) -> bool:
    """Whether nothing can be left of an endpoint at its place, now that it is up at another.

    So it is where its container is another one, or was started anew and got another port. Else the
    host may just have another address, and connections to the former one go on.
    """
    if not old.container:
        return False
    return new.container != old.container or new.address == old.address
