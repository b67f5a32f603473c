"""Addresses of containers of dead hosts that this host announces in their stead.

Rule: of the hosts with BGP that live, exactly one takes an address, the same by every host's
reckoning (rendezvous hashing), and only for as long as the address is stale. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from discod.model.catalog import Catalog
from discod.model.endpoint import Address, Endpoint, EndpointId, Host, Producer, Reason
from discod.model.rescue import Plan

LOST = "lost"
"""What `Stale.why` says of an endpoint that vanished without a word."""


def taken_over(
    plan: Plan, catalog: Catalog, known: Mapping[str, Host], host: str
) -> frozenset[Address]:
    """What `host` has to announce beside its own.

    Args:
        plan: The present one of `host`.
        catalog: The present one.
        known: The last record of each host, of those too that are gone: only what such a host said
            to be its containers' is ever announced for it.
        host: Name of this host.
    """
    left: list[Endpoint] = []
    for stale in plan.stale.values():
        gone = stale.why in (LOST, Reason.SILENT) and not stale.shared
        if gone and plan.pools[stale.pool].slots:
            endpoint = _endpoint(catalog, stale.endpoint)
            if endpoint is not None and _announced(endpoint, known.get(endpoint.host)):
                left.append(endpoint)
    dead = {endpoint.host for endpoint in left} - {host}
    alive = [name for name, record in catalog.hosts.items() if record.bgp and name not in dead]
    return frozenset(
        endpoint.address
        for endpoint in left
        if endpoint.host in dead
        and alive
        and max(alive, key=lambda name: _weight(name, endpoint.address)) == host
    )


def _announced(endpoint: Endpoint, owner: Host | None) -> bool:
    if endpoint.producer is not Producer.DOCKER or owner is None or owner.bgp is None:
        return False
    return endpoint.address not in owner.addresses and any(
        endpoint.address in network for network in owner.bgp.networks
    )


def _endpoint(catalog: Catalog, id_: EndpointId) -> Endpoint | None:
    said, lost = catalog.withdrawn.get(id_), catalog.lost.get(id_)
    known = said or lost
    return known.endpoint if known is not None else None


def _weight(name: str, address: Address) -> bytes:
    return blake2b(name.encode() + b"\0" + address.packed, digest_size=8).digest()
