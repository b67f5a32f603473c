"""What the daemon and a worker say to each other, as bytes.

Two channels, both Unix socket pairs that the worker inherits:

- *control*, a stream from the daemon to the worker of frames: length of the payload (4 octets),
  kind (1 octet), payload. When it ends, so does the worker.
- *queries*, datagrams: from the worker to the daemon what it cannot answer. The daemon answers the
  client itself, on the very socket the query came in on, which both hold.

Rule: both ends are of one version, started from one installation, so payloads are Python's own
(marshal for what is frequent, pickle for settings) and carry no versions. Pure.
"""

from __future__ import annotations

import marshal
import pickle
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple, cast

from discod.model.endpoint import Address, Alias, Host, Prefer, Protocol
from discod.model.settings import DnsSettings
from resolver.offered import Offered

_FRAME = struct.Struct(">IB")
FRAME_HEAD: Final = _FRAME.size
BATCH_OCTETS: Final = 65536
"""Services are sent in frames of about this size, so that a worker can go on answering between."""
QUERY_MAX: Final = 4096 + 64
"""Octets of the largest datagram on *queries*."""


class Kind(IntEnum):
    """What a frame holds."""

    CONFIG = 1
    """`Config`, before all else, and again when it changed."""
    SERVICES = 2
    """`Services`: what changed."""
    GO = 3
    """All has been told: begin to answer."""


@dataclass(frozen=True, slots=True)
class Config:
    """What rarely changes."""

    settings: DnsSettings
    own: Host
    secrets: tuple[bytes, ...] = ()
    """For cookies, the first makes them."""


class Services(NamedTuple):
    """One step of changes."""

    number: int
    """Counts up; told back in `slots.APPLIED`."""
    revision: int
    """Of the Catalog."""
    ready: bool
    stale: bool
    hosts: tuple[tuple[str, tuple[bytes, ...], str], ...] | None
    """(name, addresses, zone) of all hosts; None: as before."""
    services: tuple[tuple[str, bytes | None], ...]
    """(name, what `pack` made); None: gone."""
    reset: bool = False
    """Forget all services first."""
    fronted: bool = False
    """Whether services' own addresses stand for their endpoints (`Zone.set_fronted`); what is told
    of services does not depend on it."""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame."""
    return _FRAME.pack(len(payload), kind) + payload


def config_frame(config: Config) -> bytes:
    """A `Kind.CONFIG` frame."""
    return frame(Kind.CONFIG, pickle.dumps(config))


def services_frame(services: Services) -> bytes:
    """A `Kind.SERVICES` frame."""
    return frame(Kind.SERVICES, marshal.dumps(tuple(services)))


def read_config(payload: bytes) -> Config:
    """The payload of a `Kind.CONFIG` frame."""
    config = pickle.loads(payload)  # noqa: S301 - from our own daemon, by an inherited socket
    assert isinstance(config, Config)
    return config


def read_services(payload: bytes) -> Services:
    """The payload of a `Kind.SERVICES` frame."""
    return Services(*marshal.loads(payload))  # noqa: S302 - as above


def frames(buffer: bytearray) -> Iterator[tuple[Kind, bytes]]:
    """Take the whole frames off the front of `buffer`, one by one."""
    while len(buffer) >= FRAME_HEAD:
        size, kind = _FRAME.unpack_from(buffer)
        end = FRAME_HEAD + size
        if len(buffer) < end:
            return
        payload = bytes(memoryview(buffer)[FRAME_HEAD:end])
        del buffer[:end]
        yield Kind(kind), payload


# Services ---------------------------------------------------------------------------------------


_ALIASED, _FRONTED = 1, 2
"""Bits of the first octet of a packed service: it has aliases; its rows have one item more."""


def pack(endpoints: Collection[Offered], aliases: Iterable[Alias] = ()) -> bytes:
    """All of one service that its answers depend on."""
    rows: list[tuple[object, ...]] = [
        (
            e.instance,
            e.packed,
            e.port,
            e.protocol,
            e.port_name,
            e.tags,
            e.weight,
            e.priority,
            e.attributes,
            e.text,
            e.host,
            e.target,
            e.ttl,
            e.alpn,
            e.prefer,
        )
        for e in endpoints
    ]
    vips = {e.instance: tuple([a.packed for a in e.vip]) for e in endpoints if e.vip}
    if vips:
        rows = [(*row, vips.get(str(row[0]), ())) for row in rows]
    others = [(a.instance, a.target, a.ttl) for a in aliases]
    kind = (_ALIASED if others else 0) | (_FRONTED if vips else 0)
    return bytes((kind,)) + marshal.dumps((rows, others))


def aliased(packed: bytes) -> bool:
    """Whether a packed service has aliases."""
    return bool(packed[0] & _ALIASED)


def may_front(packed: bytes) -> bool:
    """Whether a packed service has addresses of its own."""
    return bool(packed[0] & _FRONTED)


class Row(NamedTuple):
    """An endpoint as `pack` packs it (`resolver.offered.Offered`)."""

    instance: str
    packed: bytes
    port: int
    protocol: Protocol
    port_name: str
    tags: tuple[str, ...]
    weight: int
    priority: int
    attributes: tuple[tuple[str, str], ...]
    text: str
    host: str
    target: str
    ttl: int
    alpn: tuple[str, ...]
    prefer: Prefer | None

    @property
    def vip(self) -> tuple[Address, ...]:
        """As `Endpoint.vip`."""
        return ()

    @property
    def srv_target(self) -> str:
        """As `Endpoint.srv_target`."""
        return self.target or self.instance


class FrontedRow(Row):
    """One of a service with addresses of its own: behind the fields it has them, packed.

    So those of all others take neither octets nor time for it.
    """

    __slots__ = ()

    @property
    def vip(self) -> tuple[Address, ...]:
        """As `Endpoint.vip`."""
        return _addresses(cast(tuple[bytes, ...], tuple.__getitem__(self, -1)))


@lru_cache(maxsize=256)
def _addresses(packed: tuple[bytes, ...]) -> tuple[Address, ...]:
    """Those of a service come with each of its endpoints."""
    return tuple([ip_address(address) for address in packed])


def unpack(service: str, packed: bytes) -> tuple[dict[str, Row], dict[str, Alias]]:
    """What `pack` packed, by instance."""
    rows, aliases = marshal.loads(memoryview(packed)[1:])  # noqa: S302 - as above
    new = tuple.__new__
    form = FrontedRow if packed[0] & _FRONTED else Row
    return (
        {row[0]: new(form, row) for row in rows},
        {i: Alias(service, i, target, ttl=ttl) for i, target, ttl in aliases},
    )


def pack_hosts(hosts: Iterable[Host]) -> tuple[tuple[str, tuple[bytes, ...], str], ...]:
    """Hosts for `Services.hosts`."""
    return tuple((h.name, tuple(a.packed for a in h.addresses), h.zone) for h in hosts)


def unpack_hosts(
    hosts: tuple[tuple[str, tuple[bytes, ...], str], ...],
) -> dict[str, Host]:
    """What `pack_hosts` packed, by name."""
    return {
        name: Host(name, tuple(ip_address(a) for a in addresses), zone=zone)
        for name, addresses, zone in hosts
    }


# Queries ----------------------------------------------------------------------------------------

_DELEGATED = struct.Struct(">BBH")


class Delegated(NamedTuple):
    """A query that a worker hands to the daemon."""

    socket: int
    """Index of the socket it came in on, in the order in which the worker was given them."""
    source: bytes
    """struct sockaddr_in or sockaddr_in6 of the client."""
    local: bytes
    """Address (4 or 16 octets) that was asked, then the interface's index (4 octets, native), where
    the socket is a wildcard; else empty."""
    packet: bytes


def delegated(query: Delegated) -> bytes:
    """One datagram for the daemon."""
    head = _DELEGATED.pack(query.socket, len(query.source), len(query.local))
    return b"".join((head, query.source, query.local, query.packet))


def read_delegated(datagram: bytes) -> Delegated:
    """What `delegated` made."""
    socket, source, local = _DELEGATED.unpack_from(datagram)
    at = _DELEGATED.size
    return Delegated(
        socket,
        datagram[at : at + source],
        datagram[at + source : at + source + local],
        datagram[at + source + local :],
    )


def client_address(source: bytes) -> Address:
    """The address in a struct sockaddr_in (16 octets) or sockaddr_in6 (28)."""
    return ip_address(source[4:8] if len(source) == 16 else source[8:24])
