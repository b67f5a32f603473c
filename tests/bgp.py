"""BGP speakers for tests: values, strategies, and two sessions joined by a wire in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import count
from typing import Any

from hypothesis import strategies as st

from calico_bgp.actions import (
    Action,
    Arm,
    Cancel,
    Close,
    Connect,
    Down,
    EndOfRib,
    Faulty,
    Routes,
    Send,
    Up,
)
from calico_bgp.as_path import AS_SEQUENCE, AS_SET, Segment
from calico_bgp.attributes import Attributes, Unknown
from calico_bgp.peer import Peer
from calico_bgp.prefix import IPV4, IPV6, Family, Prefix, of_network
from calico_bgp.rib import Import
from calico_bgp.session import Session

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
ASN = st.integers(1, 0xFFFFFFFF)
ASN2 = st.integers(1, 0xFFFF)
V4 = st.integers(1, 0xDFFFFFFF).map(IPv4Address).filter(lambda a: not a.is_loopback)
V6 = st.integers(2, 2**127).map(IPv6Address)
ROUTER_ID = st.integers(1, 2**32 - 1).map(IPv4Address)
PREFIX4 = st.builds(
    lambda n, bits: of_network(IPv4Network((n, bits), strict=False)), U32, st.integers(0, 32)
)
PREFIX6 = st.builds(
    lambda n, bits: of_network(IPv6Network((n, bits), strict=False)),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


def paths(asn: st.SearchStrategy[int] = ASN) -> st.SearchStrategy[tuple[Segment, ...]]:
    """AS paths whose segments fit one each."""
    asns = st.lists(asn, min_size=1, max_size=6).map(tuple)
    segment = st.builds(Segment, st.sampled_from((AS_SEQUENCE, AS_SET)), asns)
    return st.lists(segment, max_size=4).map(tuple)


def _tuples(one: st.SearchStrategy[Any], size: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, max_size=size, unique=True).map(tuple)


def attributes(
    family: Family, asn: st.SearchStrategy[int] = ASN, *, internal: bool = True
) -> st.SearchStrategy[Attributes]:
    """Whatever a sound UPDATE can carry."""
    inside = st.none() if not internal else U32
    types = st.integers(33, 254)
    return st.builds(
        Attributes,
        origin=st.integers(0, 2),
        as_path=paths(asn),
        next_hop=V4 if family == IPV4 else V6,
        link_local=st.none() if family == IPV4 else st.none() | V6,
        med=st.none() | U32,
        local_pref=inside,
        atomic_aggregate=st.booleans(),
        aggregator=st.none() | st.tuples(asn, V4),
        communities=_tuples(U32),
        originator_id=st.none() | V4 if internal else st.none(),
        cluster_list=_tuples(V4) if internal else st.just(()),
        extended_communities=_tuples(st.integers(0, 2**64 - 1)),
        large_communities=_tuples(st.tuples(U32, U32, U32)),
        unknown=st.lists(
            st.builds(Unknown, types, st.binary(max_size=300)), max_size=3, unique_by=lambda u: u[0]
        ).map(lambda many: tuple(sorted(many))),
    )


def prefix(text: str) -> Prefix:
    return of_network(ip_network(text))


def route(hop: str = "192.0.2.1", *asns: int, **more: Any) -> Attributes:
    path = (Segment(AS_SEQUENCE, asns),) if asns else ()
    return Attributes(as_path=path, next_hop=ip_address(hop), **more)


def routes(*texts: str, told: Attributes | None = None) -> dict[Prefix, Attributes]:
    return {prefix(text): told or route("192.0.2.1", 64512) for text in texts}


LATENCY = 0.001
"""Seconds that the wire takes."""


class Side:
    """One session with what it did, driven as a real caller would drive it."""

    def __init__(self, world: World, name: str, peer: Peer, policy: Import | None = None) -> None:
        self.world, self.name = world, name
        self.rng = random.Random(name)
        self.session = Session(peer, policy or Import(), self.rng)
        self.other: Side
        self.log: list[Action] = []
        self.armed: float | None = None
        self.ends: dict[int, int] = {}
        """Our connection -> theirs."""
        self.routes: dict[Prefix, Attributes] = {}
        self.reachable = True
        self.deaf = False
        """What is sent to it is lost, and it does not know (a cut wire)."""

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.log if isinstance(one, kind)]

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            self.log.append(action)
            match action:
                case Connect():
                    self.world.later(LATENCY, self._connect)
                case Cancel():
                    pass
                case Send(id_, octets):
                    self.world.send(self.other._hear, self.ends.get(id_), octets)
                case Close(id_):
                    theirs = self.ends.pop(id_, None)
                    self.world.send(self.other._lost, theirs)
                case Arm(at):
                    self.armed = at
                    if at is not None:
                        self.world.later(at - self.world.now, self._tick, at)
                case Routes(change):
                    for gone in change.withdrawn:
                        del self.routes[gone]
                    self.routes.update(change.announced)
                case Up() | Down() | EndOfRib() | Faulty():
                    pass

    def _connect(self) -> None:
        if not self.session._attempts.connecting:
            return
        if not self.other.reachable:
            self.do(self.session.connect_failed(self.world.now, "Connection refused"))
            return
        mine, theirs = next(self.world.ids), next(self.world.ids)
        self.ends[mine], self.other.ends[theirs] = theirs, mine
        self.world.lags[mine], self.world.lags[theirs] = self.world.lag(), self.world.lag()
        self.world.later(self.world.lags[theirs] - LATENCY, self.other._accept, theirs)
        self.do(self.session.connected(self.world.now, mine, outgoing=True))

    def _accept(self, id_: int) -> None:
        if id_ in self.ends:
            self.do(self.session.connected(self.world.now, id_, outgoing=False))

    def _hear(self, id_: int | None, octets: bytes) -> None:
        if id_ in self.ends and not self.deaf:
            self.do(self.session.received(self.world.now, id_, octets))

    def _lost(self, id_: int | None) -> None:
        if id_ in self.ends and not self.deaf:
            del self.ends[id_]
            self.do(self.session.lost(self.world.now, id_))

    def _tick(self, at: float) -> None:
        if self.armed == at:
            self.do(self.session.tick(self.world.now))

    def die(self) -> None:
        """As by kill -9: its kernel closes the connections."""
        for theirs in self.ends.values():
            self.world.later(LATENCY, self.other._lost, theirs)
        self.ends.clear()
        self.reachable, self.armed = False, None

    def drop(self) -> None:
        """The network resets its connections."""
        for mine, theirs in list(self.ends.items()):
            self._lost(mine)
            self.other._lost(theirs)

    def reborn(self, peer: Peer) -> None:
        self.session = Session(peer, Import(), self.rng)
        self.reachable, self.routes = True, {}


class World:
    """Two sides and their clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ids = count(1)
        self.lags: dict[int, float] = {}
        """What each end of a connection has to wait for octets."""
        self.lag: Callable[[], float] = lambda: LATENCY
        """That of the next end."""
        self._order = count()
        self._queue: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self.a: Side
        self.b: Side

    def join(self, a: Peer, b: Peer, import_a: Import | None = None) -> World:
        self.a, self.b = Side(self, "a", a, import_a), Side(self, "b", b)
        self.a.other, self.b.other = self.b, self.a
        return self

    def send(self, call: Any, end: int | None, *arguments: Any) -> None:
        """Something for that end of a connection: in order, and after its lag."""
        self.later(self.lags.get(end or 0, LATENCY), call, end, *arguments)

    def later(self, seconds: float, call: Any, *arguments: Any) -> None:
        entry = (self.now + max(seconds, 0), next(self._order), call, arguments)
        heapq.heappush(self._queue, entry)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, call, arguments = heapq.heappop(self._queue)
            call(*arguments)
        self.now = end

    def start(self) -> World:
        for side in (self.a, self.b):
            side.do(side.session.start(self.now))
        return self


A = Peer(64512, 64513, IPv4Address("10.0.0.1"))
B = Peer(64513, 64512, IPv4Address("10.0.0.2"))
FAMILIES_BOTH = (IPV4, IPV6)
