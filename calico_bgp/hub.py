"""What all peers share, as one of them sees it.

Rule: interface only; the speaker is it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Protocol

from calico_bgp.exporter import Sources
from calico_bgp.inflow import Inflow
from calico_bgp.prefix import Address, Prefix
from calico_bgp.transport import Transport


class Hub(Protocol):
    """What all peers share."""

    transport: Transport
    inflow: Inflow
    rng: random.Random
    wall: Callable[[], float]
    draining: bool
    first_sync: bool
    """The first full sync is over."""

    @property
    def restarting(self) -> bool:
        """Sessions that begin now follow those of an earlier process."""
        ...

    @property
    def sources(self) -> Sources:
        """What there is to tell."""
        ...

    def everything(self) -> Iterable[Prefix]:
        """All prefixes that may be told."""
        ...

    def told(self) -> None:
        """A peer may have told all it has."""
        ...

    def forget(self, peer: Address) -> None:
        """Its session is gone without a word: so are its routes."""
        ...
