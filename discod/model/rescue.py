"""What rescue is to do on one host, as a value: which packets go where.

Rule: a `Plan` is a pure function of the Catalog, of what this host knows of its own containers, and
of time; the kernel's side makes it so. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, NamedTuple

from discod.model.endpoint import Address, EndpointId, Protocol


class Place(NamedTuple):
    """Where an endpoint is reached; equal to `Endpoint.place`."""

    address: Address
    port: int
    protocol: Protocol


class PoolId(NamedTuple):
    """Endpoints that can stand in for each other: one port of one service, in one family."""

    service: str
    port: str
    """The port's name; of records without one, its number."""
    protocol: Protocol
    version: Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Pool:
    """Who is alive of a `PoolId`."""

    id: PoolId
    slots: tuple[tuple[Address, int], ...]
    """Address and port for each slot, as often as its weight wants; which slot a connection falls
    into is even chance. A power of two of them, or none: nobody is alive."""
    affinity: bool = False
    """Whether all connections of one client address fall into the same slot."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A place of which the endpoint is gone, and that nobody uses since."""

    place: Place
    endpoint: EndpointId
    pool: PoolId
    """Its siblings; with none alive, connections are refused where the settings want that."""
    cut: bool
    """Whether connections that are established to it end at once: not while what stood there may
    still bring them to an end (stopping, drained). Always for UDP, which has none to end."""
    why: str
    """For people: the value of a `Reason`, ``lost``, or ``moved`` (it is up at another place)."""
    since: float
    """When it went, Unix seconds."""
    until: float
    """When it is forgotten unless clients still use it, Unix seconds."""
    backend: Place | None = None
    """Where packets to `place` went on this host: the container behind a published port."""
    mac: bytes = b""
    """Link-layer address that the place had on a bridge of this host, 6 octets; empty: unknown, or
    it was none of them."""
    shared: bool = False
    """Whether another service had the place not long before: whom its clients mean is not known,
    and they are refused rather than sent to either."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of this host that containers are attached to."""

    name: str
    mac: bytes
    networks: tuple[tuple[Address, int], ...]
    """Network address and prefix length of what is directly reached through it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that rescue wants of the kernel."""

    stale: Mapping[Place, Stale] = field(default_factory=lambda: MappingProxyType({}))
    vips: Mapping[Place, PoolId] = field(default_factory=lambda: MappingProxyType({}))
    """Service addresses with their ports."""
    pools: Mapping[PoolId, Pool] = field(default_factory=lambda: MappingProxyType({}))
    """All that `stale` and `vips` name."""
    bridges: tuple[Bridge, ...] = ()
    refuse: bool = True
    """Whether a connection to a stale place without a living sibling is refused; else it is left to
    the network."""


class Result(StrEnum):
    """What became of a client that used a stale address."""

    RESCUED = "rescued"
    """A new connection or datagram went to a sibling."""
    RESET = "reset"
    """A packet of an established connection was answered by a TCP reset."""
    REFUSED = "refused"
    """There is no sibling."""


class Usage(NamedTuple):
    """How often one client used one stale place since the kernel counts."""

    client: Address
    place: Place
    result: Result
    times: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A running container of this host, as rescue needs it."""

    container: str
    """Full id."""
    name: str
    pid: int
    """Of its main process; 0: not known."""
    addresses: Mapping[Address, bytes]
    """Its addresses in Docker's networks, with the link-layer address of each (empty: unknown).
    None with host networking."""
    published: Mapping[Place, Place] = field(default_factory=lambda: MappingProxyType({}))
    """Place on this host -> place in the container."""
