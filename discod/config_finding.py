"""One contradiction between keys of a configuration, and which sockets meet.

Rule: every finding names all keys it rests on, so that the reader of the file can leave it out when
one of them is faulty already. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discod.config_fault import Path
from discod.model.endpoint import Address
from discod.model.settings import ListenAddress


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction."""

    path: Path
    """The key to blame."""
    value: object
    expected: str
    rests_on: tuple[Path, ...]
    """The other keys."""


def show_socket(listen: ListenAddress) -> str:
    """``192.0.2.1:53`` or ``[2001:db8::1]:53``."""
    host = f"[{listen.address}]" if listen.address.version == 6 else str(listen.address)
    return f"{host}:{listen.port}"


def overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether both cannot be bound: same port, and same address or a wildcard of its family."""
    a, b = one.address, other.address
    if one.port != other.port or a.version != b.version:
        return False
    return a == b or a.is_unspecified or b.is_unspecified


def reaches(server: ListenAddress, listen: ListenAddress, own: Sequence[Address]) -> bool:
    """Whether who asks `server` asks our socket `listen`, on a host with `own` addresses."""
    if server.port != listen.port:
        return False
    if server.address == listen.address:
        return True
    here = server.address.is_loopback or server.address in own
    # A wildcard IPv6 socket may serve IPv4 too.
    return listen.address.is_unspecified and here
