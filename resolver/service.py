"""All names of one service, made from its endpoints.

Rule: built once for one state of the service and never altered; an RRset is put together at the
first question for it and kept. Names below ``<service>.<domain>`` (docs/dns.md):

    (itself)               A AAAA SRV TXT   all endpoints
    _<port name>._<proto>  SRV              endpoints with that port name (RFC 2782)
    _<proto>               (nothing: it exists because of the names below it, RFC 8020)
    <instance>             A AAAA SRV TXT   one endpoint, both halves of a dual-stack one
    <tag>                  A AAAA SRV       endpoints with the tag; an instance of that name wins

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from discod.model.endpoint import Endpoint
from resolver.record import AAAA, RR, SRV, TXT, A, Name, address_type, fits, srv, txt

STRING_MAX = 255
"""Octets of one string in TXT (RFC 1035, section 3.3)."""
TXT_MAX = 8192
"""Octets of one TXT record of ours; what does not fit is left out, so that it always fits TCP."""

_SRV_ONLY = frozenset({SRV})
_PLAIN = frozenset({A, AAAA, SRV})
_WITH_TEXT = frozenset({A, AAAA, SRV, TXT})


class Record(NamedTuple):
    """One record of an RRset, with what it takes to answer with it."""

    rr: RR
    exponent: float
    """Weight for the order of answers, as the exponent of a uniform draw: small comes early."""
    extra: tuple[RR, ...] = ()
    """Addresses of its target, for the additional section."""


class Node(Protocol):
    """What is at a name that exists; without any record it exists for the names below it."""

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        """The RRset of a type, if there is one."""
        ...

    def __len__(self) -> int:
        """0: there are no records at all."""
        ...


def exponent(weight: int) -> float:
    """The exponent of a weight (Efraimidis and Spirakis: draw ** (1 / weight), largest first)."""
    return 100.0 / weight if weight else 1e9


class ServiceNames:
    """The names of one service. Not shared between threads."""

    def __init__(self, apex: Name, endpoints: Iterable[Endpoint]) -> None:
        self.apex = apex
        self._all = sorted(endpoints, key=lambda e: e.instance)
        self._instances: defaultdict[bytes, list[Endpoint]] = defaultdict(list)
        self._tags: defaultdict[bytes, list[Endpoint]] = defaultdict(list)
        self._ports: defaultdict[Name, list[Endpoint]] = defaultdict(list)
        for endpoint in self._all:
            target = endpoint.srv_target
            if target:
                self._instances[target.encode()].append(endpoint)
            if endpoint.instance and endpoint.instance != target:
                self._instances[endpoint.instance.encode()].append(endpoint)
            for tag in set(endpoint.tags):
                self._tags[tag.encode()].append(endpoint)
            if endpoint.port and endpoint.port_name:
                port = b"_" + endpoint.port_name.encode()
                self._ports[port, b"_" + endpoint.protocol.encode()].append(endpoint)
        self._protocols = {proto for _, proto in self._ports}
        self._nodes: dict[Name, Node] = {}
        self._targets: dict[str, tuple[RR, ...]] = {}

    def __len__(self) -> int:
        """Number of endpoints."""
        return len(self._all)

    def node(self, below: Name) -> Node | None:
        """What is at the name `below` ``<service>.<domain>``; None: the name does not exist."""
        node = self._nodes.get(below)
        if node is None:
            node = self._build(below)
            if node is not None:  # only names that exist are kept, so questions cannot fill memory
                self._nodes[below] = node
        return node

    def _build(self, below: Name) -> Node | None:
        match below:
            case ():
                return _Group(self, below, self._all, _WITH_TEXT)
            case (label,) if label in self._instances:
                return _Group(self, below, self._instances[label], _WITH_TEXT)
            case (label,) if label in self._tags:
                return _Group(self, below, self._tags[label], _PLAIN)
            case (label,) if label in self._protocols:
                return {}
            case (_, _) if below in self._ports:
                return _Group(self, below, self._ports[below], _SRV_ONLY)
        return None

    def addresses(
        self, owner: Name, endpoints: Sequence[Endpoint], type_: int
    ) -> tuple[Record, ...]:
        """A or AAAA, each address once, with the highest of its weights."""
        weights: dict[bytes, int] = {}
        version = 4 if type_ == A else 6
        for endpoint in endpoints:
            if endpoint.address.version == version:
                packed = endpoint.address.packed
                weights[packed] = max(weights.get(packed, 0), endpoint.weight)
        return tuple([Record(RR(owner, type_, rdata), exponent(w)) for rdata, w in weights.items()])

    def services(self, owner: Name, endpoints: Sequence[Endpoint]) -> tuple[Record, ...]:
        """SRV, one for each port of each target."""
        chosen: dict[tuple[str, int], Endpoint] = {}
        for endpoint in endpoints:
            key = endpoint.srv_target, endpoint.port
            if endpoint.port and (key not in chosen or endpoint.instance == key[0]):
                chosen[key] = endpoint
        records: list[Record] = []
        with_extra: set[str] = set()
        for (target, port), endpoint in chosen.items():
            name = self._target_name(target)
            if not fits(name):
                continue
            rdata = srv(endpoint.priority, endpoint.weight, port, name)
            extra = () if target in with_extra else self._target_addresses(target)
            with_extra.add(target)
            records.append(Record(RR(owner, SRV, rdata), exponent(endpoint.weight), extra))
        return tuple(records)

    def _target_name(self, target: str) -> Name:
        return (target.encode(), *self.apex) if target else self.apex

    def _target_addresses(self, target: str) -> tuple[RR, ...]:
        found = self._targets.get(target)
        if found is None:
            owner = self._target_name(target)
            endpoints = self._instances[target.encode()] if target else self._all
            rrs = {RR(owner, address_type(e.address), e.address.packed) for e in endpoints}
            found = self._targets[target] = tuple(sorted(rrs))  # RRset by RRset
        return found


class _Group:
    """The records that some endpoints of a service make at one name, type by type on demand."""

    def __init__(
        self,
        names: ServiceNames,
        below: Name,
        endpoints: Sequence[Endpoint],
        types: frozenset[int],
    ) -> None:
        self._names = names
        self._owner = below + names.apex
        self._endpoints = endpoints
        self._types = types
        self._made: dict[int, tuple[Record, ...]] = {}

    def __len__(self) -> int:
        return len(self._endpoints)

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        if type_ not in self._types:
            return None
        made = self._made.get(type_)
        if made is None:
            made = self._made[type_] = self._make(type_)
        return made

    def _make(self, type_: int) -> tuple[Record, ...]:
        if type_ == SRV:
            return self._names.services(self._owner, self._endpoints)
        if type_ == TXT:
            texts = _texts(self._endpoints)
            return tuple(Record(RR(self._owner, TXT, rdata), 1.0) for rdata in texts)
        return self._names.addresses(self._owner, self._endpoints, type_)


def _texts(endpoints: Sequence[Endpoint]) -> Iterable[bytes]:
    """RDATA of the TXT records of `endpoints`, each once."""
    found: dict[bytes, None] = {}
    for endpoint in endpoints:
        pairs = [
            f"{key}={value}".encode("utf-8", "replace")
            for key, value in endpoint.attributes
            # RFC 6763, section 6.4: printable ASCII without "=".
            if key and key.isascii() and key.isprintable() and "=" not in key
        ]
        text = endpoint.text.encode("utf-8", "replace")
        chunks = [text[i : i + STRING_MAX] for i in range(0, len(text), STRING_MAX)]
        for strings in (pairs, chunks):
            if rdata := txt(_bounded(strings)):
                found[rdata] = None
    return found


def _bounded(strings: Iterable[bytes]) -> Iterable[bytes]:
    room = TXT_MAX
    for string in strings:
        if len(string) <= min(STRING_MAX, room - 1):
            room -= len(string) + 1
            yield string
