"""What stands for a whole service: its own addresses (VIPs), in its endpoints' stead.

Rule: a service's own name, and the names of its ports, lead to its own addresses; a name that
selects some of its endpoints leads to those, since the kernel that spreads knows no tags. Nobody is
sent to where nobody answers: a family without an endpoint that is up has no address at all, and a
port that some address of the service's name does not serve names its endpoints. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from discod.model.endpoint import Protocol
from resolver.offered import Offered, Served
from resolver.record import AAAA, A, address_type


class Port(NamedTuple):
    """A port of the service as a whole: without an instance, records of it name the service."""

    port: int
    weight: int
    priority: int
    alpn: tuple[str, ...]
    instance: str = ""
    target: str = ""
    srv_target: str = ""


class Front:
    """The own addresses of one service.

    Args:
        addresses: A or AAAA -> the address, 4 or 16 octets; of families that `endpoints` have.
        endpoints: All of the service.
    """

    def __init__(self, addresses: dict[int, bytes], endpoints: Sequence[Offered]) -> None:
        self.addresses = addresses
        """A or AAAA -> the address; of a family that is missing the name has the endpoints'."""
        self._endpoints = endpoints

    @cached_property
    def _whole(self) -> frozenset[tuple[int, Protocol]]:
        """The ports that every address of the service's name serves."""
        own = self.addresses
        every: dict[int, set[bytes]] = {}
        at: dict[tuple[int, Protocol], dict[int, set[bytes]]] = {}
        for e in self._endpoints:
            type_, packed = _family(e), e.packed
            every.setdefault(type_, set()).add(packed)
            at.setdefault((e.port, e.protocol), {}).setdefault(type_, set()).add(packed)
        return frozenset(
            port
            for port, having in at.items()
            if all(
                type_ in having and (type_ in own or having[type_] == those)
                for type_, those in every.items()
            )
        )

    def at_name(self, endpoints: Iterable[Offered]) -> list[bytes]:
        """All addresses that the service's name has."""
        others = [e.packed for e in endpoints if _family(e) not in self.addresses]
        return [*self.addresses.values(), *others]

    def serves(self, endpoint: Offered) -> bool:
        """Whether every address of the service's name serves the port of this endpoint."""
        return (endpoint.port, endpoint.protocol) in self._whole

    def shown(
        self, every: Sequence[Offered], near: Sequence[Offered]
    ) -> tuple[list[Served], list[Served]]:
        """What a name has records of, instead of `every` endpoint, and of those that are `near`.

        The ports that the service's name serves are always near: which endpoint it is to be, the
        kernel of each client's host decides.
        """
        ports = _ports([e for e in every if self.serves(e)])
        return (
            [*ports, *[e for e in every if not self.serves(e)]],
            [*ports, *[e for e in near if not self.serves(e)]],
        )


def front_of(endpoints: Sequence[Offered]) -> Front | None:
    """What stands for a service now; None: nothing, its endpoints speak for themselves.

    Args:
        endpoints: All of the service, by instance. They say the same, but for while it changes: of
            each family the first word counts.
    """
    said = dict.fromkeys([vip for e in endpoints if (vip := e.vip)])
    if not said:
        return None
    alive = {_family(e) for e in endpoints}
    addresses: dict[int, bytes] = {}
    for address in chain.from_iterable(said):
        if (type_ := address_type(address)) in alive:
            addresses.setdefault(type_, address.packed)
    return Front(addresses, endpoints) if addresses else None


def _family(endpoint: Offered) -> int:
    return A if len(endpoint.packed) == 4 else AAAA


def _ports(endpoints: Iterable[Offered]) -> list[Port]:
    """By number: best priority and highest weight of who serves it, and the ALPN ids of all.

    What speaks TCP and what speaks UDP at one number is told together, as in HTTPS records (RFC
    9460, section 7.1.2): the id tells which it is for.
    """
    at: dict[int, dict[Protocol, list[Offered]]] = {}
    for endpoint in endpoints:
        at.setdefault(endpoint.port, {}).setdefault(endpoint.protocol, []).append(endpoint)
    found: list[Port] = []
    for port, by_protocol in at.items():
        serving = [e for some in by_protocol.values() for e in some]
        alpn = [id_ for some in by_protocol.values() for id_ in _common(some)]
        found.append(
            Port(
                port,
                max([e.weight for e in serving]),
                min([e.priority for e in serving]),
                tuple(dict.fromkeys(alpn)),
            )
        )
    return found


def _common(endpoints: Sequence[Offered]) -> list[str]:
    """The ALPN ids that all of them say, in the order of the first."""
    said = set(endpoints[0].alpn).intersection(*[e.alpn for e in endpoints[1:]])
    return [id_ for id_ in endpoints[0].alpn if id_ in said]
