"""A connection or an exchange of datagrams, as its client sees it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from discod.model.endpoint import Address, Protocol
from discod.model.rescue import Place


class Flow(NamedTuple):
    """Who talks to which address: before any translation."""

    client: Address
    client_port: int
    address: Address
    port: int
    protocol: Protocol

    @property
    def place(self) -> Place:
        """Where the client believes to talk to."""
        return Place(self.address, self.port, self.protocol)
