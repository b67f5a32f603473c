"""Where a container's port is reached: which network, which address, which port.

Rule: the choice depends on names and numbers only, never on the order of the engine's lists or on
what was chosen before, so it never alternates. At most one place for each family. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from announcer.container import Attachment, Publication
from discod.model.endpoint import Address

INGRESS = "ingress"
"""Swarm's routing mesh: its addresses are for its load balancer, so it is never a default."""


@dataclass(frozen=True, slots=True)
class Place:
    """One address and port to connect to."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Places:
    """At most one place for each family."""

    v4: Place | None = None
    v6: Place | None = None
    missing: str = ""
    """Why there is none, when there is none."""

    def __bool__(self) -> bool:
        return self.v4 is not None or self.v6 is not None


def choose_network(
    attachments: Sequence[Attachment], preferred: Sequence[str], wanted: str | None
) -> Attachment | None:
    """The network whose address to offer.

    In this order: the one that is `wanted` by label; the first of `preferred` that the container is
    in; the first by name, Swarm's ``ingress`` last.

    Returns:
        None when the container is in no network, or not in the wanted one.
    """
    by_name = {attachment.network: attachment for attachment in attachments}
    if wanted is not None:
        return by_name.get(wanted)
    for name in preferred:
        if name in by_name:
            return by_name[name]
    names = sorted(by_name, key=lambda name: (name == INGRESS, name))
    return by_name[names[0]] if names else None


def on_host(addresses: Iterable[Address], port: int) -> Places:
    """A port of the host itself: its first address of each family."""
    v4, v6 = _first(addresses, 4), _first(addresses, 6)
    return Places(
        Place(v4, port) if v4 else None,
        Place(v6, port) if v6 else None,
        missing="" if v4 or v6 else "this host has no address",
    )


def published(bindings: Sequence[Publication], addresses: Sequence[Address]) -> Places:
    """A port through its bindings to the host.

    A binding to one address is offered at this address, one to all addresses of a family at the
    host's first of that family. Of several in one family the lowest host port counts, then the
    lowest address. A loopback address is offered only where it is the host's own address (a host
    without a network).
    """
    found: dict[int, set[Place]] = {4: set(), 6: set()}
    loopback = False
    for binding in bindings:
        bound = binding.host_address
        for version in (4, 6):
            if bound is not None and bound.version != version:
                continue
            if bound is None or bound.is_unspecified:
                address = _first(addresses, version)
            elif bound.is_loopback and bound not in addresses:
                address, loopback = None, True
            else:
                address = bound
            if address is not None:
                found[version].add(Place(address, binding.host_port))
    v4, v6 = _lowest(found[4]), _lowest(found[6])
    if v4 or v6:
        return Places(v4, v6)
    if loopback:
        return Places(missing="published on the host's loopback address only")
    if bindings:
        return Places(missing="this host has no address of the family it is published on")
    return Places(missing="not published")


def in_container(attachment: Attachment, port: int) -> Places:
    """A port at the container's own addresses in one network."""
    v4, v6 = attachment.ipv4, attachment.ipv6
    return Places(
        Place(v4, port) if v4 else None,
        Place(v6, port) if v6 else None,
        missing="" if v4 or v6 else f"no address in network {attachment.network!r}",
    )


def _first(addresses: Iterable[Address], version: int) -> Address | None:
    return next((address for address in addresses if address.version == version), None)


def _lowest(places: set[Place]) -> Place | None:
    return min(places, key=lambda p: (p.port, int(p.address)), default=None)
