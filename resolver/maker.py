"""RRsets from endpoints: addresses, SRV, SVCB and HTTPS.

Rule: the one place where an endpoint becomes RDATA; written for services of thousands, so each name
is put into wire form once, and records are made without ceremony. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from resolver import svcb
from resolver.front import Front
from resolver.index import Index
from resolver.offered import Offered, Served
from resolver.record import AAAA, NAME_OCTETS, RR, SRV, A, Name, name_wire, srv_head
from resolver.rrset import Record, RRset, exponent

Key = tuple[str, int]
"""SRV target and port: two records of one RRset never share both."""

_new = tuple.__new__
"""Makes a NamedTuple from all its fields in half the time."""


class Maker:
    """Makes the RRsets of one service.

    Args:
        apex: ``<service>.<domain>``.
        index: Its endpoints.
        front: What stands for it.
    """

    def __init__(self, apex: Name, index: Index, front: Front | None = None) -> None:
        self.front = front
        self.ttl = min([endpoint.ttl for endpoint in index.endpoints], default=0)
        """Seconds, of every record: the smallest that an endpoint asks for."""
        self._apex = apex
        self._apex_wire = name_wire(apex)
        self._index = index
        self._targets: dict[str, tuple[bytes, tuple[RR, ...]]] = {}

    def addresses(
        self, owner: Name, endpoints: Sequence[Offered], type_: int
    ) -> tuple[Record, ...]:
        """A or AAAA, each address once, with the highest of its weights."""
        weights: dict[bytes, int] = {}
        size = 4 if type_ == A else 16
        for endpoint in endpoints:
            packed = endpoint.packed
            if len(packed) == size:
                weight = endpoint.weight
                if weights.setdefault(packed, weight) < weight:
                    weights[packed] = weight
        ttl = self.ttl
        return RRset(
            [
                _new(Record, (_new(RR, (owner, type_, rdata, ttl)), exponent(w), (), 0))
                for rdata, w in weights.items()
            ]
        )

    def own(self, owner: Name, type_: int, address: bytes) -> tuple[Record, ...]:
        """A or AAAA of the service's own address."""
        return (Record(RR(owner, type_, address, self.ttl)),)

    def services(self, owner: Name, endpoints: Sequence[Served], type_: int) -> dict[Key, Record]:
        """SRV, SVCB or HTTPS: one for each port of each target."""
        chosen: dict[Key, Served] = {}
        for endpoint in endpoints:
            instance = endpoint.instance
            target = endpoint.target or instance
            key = target, endpoint.port
            if key not in chosen or instance == target:
                chosen[key] = endpoint
        ranked = len(set(map(attrgetter("priority"), chosen.values()))) > 1
        ttl = self.ttl
        targets = self._targets
        records: dict[Key, Record] = {}
        for key, endpoint in chosen.items():
            target, port = key
            name, extra = targets.get(target) or self._target(target)
            if not name or not port:  # a producer that names no port offers none
                continue
            priority, weight = endpoint.priority, endpoint.weight
            if type_ == SRV:
                rdata = srv_head(priority, weight, port) + name
            else:
                rdata = _svcb(endpoint, name, extra)
            rr = _new(RR, (owner, type_, rdata, ttl))
            rank = priority + 1 if ranked else 0
            records[key] = _new(Record, (rr, exponent(weight), extra, rank))
        return records

    def _target(self, target: str) -> tuple[bytes, tuple[RR, ...]]:
        """A target's name in wire form (empty: too long for the wire), and its addresses."""
        if target:
            label = target.encode()
            wire = bytes((len(label),)) + label + self._apex_wire
            owner = (label, *self._apex)
            addresses = [e.packed for e in self._index.instances[label]]
        else:
            wire, owner, endpoints = self._apex_wire, self._apex, self._index.endpoints
            front = self.front
            addresses = front.at_name(endpoints) if front else [e.packed for e in endpoints]
        ttl = self.ttl
        rrs = [
            _new(RR, (owner, A if len(packed) == 4 else AAAA, packed, ttl)) for packed in addresses
        ]
        if len(rrs) > 1:
            rrs = sorted(set(rrs))  # RRset by RRset
        made = (wire, tuple(rrs)) if len(wire) <= NAME_OCTETS else (b"", ())
        self._targets[target] = made
        return made


def _svcb(endpoint: Served, name: bytes, addresses: tuple[RR, ...]) -> bytes:
    return svcb.service_mode(
        endpoint.priority,
        name,
        endpoint.port,
        svcb.alpn_value(endpoint.alpn) if endpoint.alpn else b"",
        [rr.rdata for rr in addresses if rr.type == A],
        [rr.rdata for rr in addresses if rr.type == AAAA],
    )
