"""How connections to peers are made and taken: what the sessions need of the network.

Rule: interface and values only; `tcp` and `listener` are the real one, tests have one in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import trio

from calico_bgp.prefix import Address
from discod.model.settings import ListenAddress


class Dial(NamedTuple):
    """How one peer is reached, and what its packets have to be like."""

    address: Address
    port: int = 179
    source: Address | None = None
    """Our address; None: the kernel's choice."""
    password: bytes = b""
    """TCP MD5 (RFC 2385), at most 80 octets; empty: none."""
    ttl: int = 1
    """Of what we send; with `gtsm` it is 255."""
    gtsm: int = 0
    """Hops that the peer is away at most (RFC 5082); 0: whatever."""


class Link(NamedTuple):
    """A connection that is there."""

    stream: trio.abc.HalfCloseableStream
    local: Address
    remote: Address


Accept = Callable[[Link], bool]
"""Takes a peer's connection, or refuses it by False; then the transport closes it."""


class Transport(Protocol):
    """Where connections come from."""

    async def connect(self, dial: Dial) -> Link:
        """Connect.

        Raises:
            OSError: it did not work. The caller bounds the time.
        """
        ...

    def expect(self, endpoints: Iterable[ListenAddress], dials: Mapping[Address, Dial]) -> None:
        """Listen at these from now on, for these peers; everybody else is a stranger."""
        ...

    async def serve(self, accept: Accept) -> None:
        """Listen until cancelled."""
        ...

    @property
    def strangers(self) -> int:
        """Connections that were refused, since the start."""
        ...
