"""Our zones: the Catalog as names (RFC 1034, section 4.3.2, for a server that is authoritative).

Rule: what a name answers depends on the present Catalog, this host's own name and the settings
only. A change of the Catalog drops what it touched; names are compiled at the first question for
them. Pure: the order of answers comes from the `rng` of the caller.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host
from discod.model.settings import Network
from resolver import reverse
from resolver.record import (
    ANY,
    HINFO,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    RR,
    SOA,
    Answer,
    Name,
    ZoneKind,
    address_type,
    fits,
    name_wire,
    soa,
    to_name,
    txt,
)
from resolver.service import Node, Record, ServiceNames

NAME_SERVERS_MAX = 8
"""Hosts named in NS: with their addresses they fit one UDP answer."""
COMPILED_MAX = 20_000
"""Endpoints of compiled services kept (about 1 KB each); beyond it the oldest service goes."""
REFRESH, RETRY, EXPIRE = 60, 10, 86_400
"""Of the SOA, seconds: for secondaries that an operator may set up from our records."""

_HINFO = txt((b"RFC8482", b""))


class Zone:
    """The domain and the reverse names, answered from the present Catalog."""

    def __init__(self, domain: str, own: Host, reverse_zones: Iterable[Network] = ()) -> None:
        self.apex = to_name(domain)
        self._own = own
        self._owned = reverse.OwnedZones(reverse_zones)
        self._reset(Catalog(domain))

    def _reset(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._apex_node: tuple[Record, tuple[Record, ...]] | None = None
        self._compiled: dict[str, ServiceNames] = {}
        self._compiled_size = 0
        self._unindexed = set(catalog.services)
        self._index = reverse.ReverseIndex(self.apex)
        self._set_hosts()

    def set_reverse_zones(self, networks: Iterable[Network]) -> None:
        """Change which reverse zones are ours alone."""
        self._owned = reverse.OwnedZones(networks)

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one, None: unknown."""
        if change is None:
            self._reset(catalog)
            return
        self._catalog = catalog
        for service in change.services:
            compiled = self._compiled.pop(service, None)
            self._compiled_size -= len(compiled) if compiled else 0
        self._unindexed |= change.services
        self._apex_node = None
        if change.hosts:
            self._set_hosts()

    def _set_hosts(self) -> None:
        hosts = self._catalog.hosts
        own = self._own
        self._hosts = {name: host.addresses for name, host in hosts.items()}
        self._hosts.setdefault(own.name, own.addresses)
        self._servers = sorted(hosts)[:NAME_SERVERS_MAX] or [own.name]
        self._index.set_hosts(self._hosts)
        self._apex_node = None

    def owner(self, name: Name) -> str:
        """Whose name it is by form alone: ``domain``, ``reverse`` (one of our own zones) or ``.``.

        While there is no Catalog yet, this is all that can be told.
        """
        if name[-len(self.apex) :] == self.apex:
            return "domain"
        meaning = reverse.parse(name)
        if meaning is not None and self._owned.apex(name, meaning) is not None:
            return "reverse"
        return "."

    def lookup(self, name: Name, qtype: int, rng: random.Random) -> Answer | None:
        """Answer a question of class IN; None when the name lies in none of our zones.

        A name that exists without the type gets NOERROR and the SOA, one that does not NXDOMAIN and
        the SOA (RFC 2308); a name exists when one below it does (RFC 8020).
        """
        if name[-len(self.apex) :] == self.apex:
            return self._answer("domain", self.apex, self._node(name), name, qtype, rng)
        meaning = reverse.parse(name)
        if meaning is None:
            return None
        found = self._reverse(name, meaning)
        if found is None:
            return None
        return self._answer("reverse", found[0], found[1], name, qtype, rng)

    def _answer(
        self,
        zone: ZoneKind,
        apex: Name,
        node: Node | None,
        name: Name,
        qtype: int,
        rng: random.Random,
    ) -> Answer:
        if node is None:
            return Answer(zone, NXDOMAIN, authority=(self._soa(apex),))
        records = node.get(qtype)
        if records:
            ordered = shuffled(records, rng)
            return Answer(
                zone,
                NOERROR,
                tuple([record.rr for record in ordered]),
                additional=tuple([rr for record in ordered for rr in record.extra]),
            )
        if qtype == ANY and node:
            # One synthesised record instead of everything (RFC 8482, section 4.2).
            return Answer(zone, NOERROR, (RR(name, HINFO, _HINFO),))
        return Answer(zone, NOERROR, authority=(self._soa(apex),))

    def _node(self, name: Name) -> Node | None:
        below = name[: -len(self.apex)]
        if not below:
            return self._at_apex(self.apex)
        if below[-1] == b"node":
            return self._host_node(name, below[:-1])
        service = self._service(below[-1].decode("latin-1"))
        return service.node(below[:-1]) if service is not None else None

    def _host_node(self, name: Name, below: Name) -> Node | None:
        if not below:
            return {}
        addresses = self._hosts.get(below[0].decode("latin-1")) if len(below) == 1 else None
        if addresses is None:
            return None
        node: dict[int, tuple[Record, ...]] = {}
        for address in dict.fromkeys(addresses):
            type_ = address_type(address)
            record = Record(RR(name, type_, address.packed), 1.0)
            node[type_] = (*node.get(type_, ()), record)
        return node

    def _service(self, name: str) -> ServiceNames | None:
        compiled = self._compiled.get(name)
        if compiled is not None:
            return compiled
        instances = self._catalog.services.get(name)
        if not instances:
            return None
        compiled = ServiceNames((name.encode(), *self.apex), instances.values())
        self._compiled[name] = compiled
        self._compiled_size += len(compiled)
        while self._compiled_size > COMPILED_MAX and len(self._compiled) > 1:
            self._compiled_size -= len(self._compiled.pop(next(iter(self._compiled))))
        return compiled

    def _reverse(self, name: Name, meaning: reverse.ReverseName) -> tuple[Name, Node | None] | None:
        self._index_changes()
        apex = self._owned.apex(name, meaning)
        whole = meaning._replace(junk=False).whole
        targets = [n for n in self._index.names(meaning) if fits(n)] if whole else []
        if apex is None:
            if not targets:
                return None
            # An address that we know in a zone that is not ours: its own name is all that we claim.
            apex = name[-(meaning.bits // (8 if meaning.family == 4 else 4) + 2) :]
        if meaning.junk:
            return apex, None
        node: dict[int, tuple[Record, ...]] = {}
        if name == apex:
            node.update(self._at_apex(apex))
        if targets:
            node[PTR] = tuple(Record(RR(name, PTR, name_wire(n)), 1.0) for n in targets)
        exists = bool(node) or self._index.any_in(meaning)
        return apex, node if exists else None

    def _index_changes(self) -> None:
        for service in self._unindexed:
            self._index.set_service(service, self._catalog.services.get(service, {}).values())
        self._unindexed = set()

    def _soa(self, apex: Name) -> RR:
        return self._apex_records()[0].rr._replace(owner=apex)

    def _at_apex(self, apex: Name) -> dict[int, tuple[Record, ...]]:
        start, servers = self._apex_records()
        return {
            SOA: (start._replace(rr=start.rr._replace(owner=apex)),),
            NS: tuple(server._replace(rr=server.rr._replace(owner=apex)) for server in servers),
        }

    def _apex_records(self) -> tuple[Record, tuple[Record, ...]]:
        """SOA and NS of all our zones, owned by the domain."""
        if self._apex_node is not None:
            return self._apex_node
        names = {host: (host.encode(), b"node", *self.apex) for host in self._servers}
        servers = tuple(
            Record(
                RR(self.apex, NS, name_wire(name)),
                1.0,
                tuple(RR(name, address_type(a), a.packed) for a in self._hosts[host]),
            )
            for host, name in names.items()
            if fits(name)
        )
        first = names[self._servers[0]]
        mail = (b"hostmaster", *self.apex)
        rdata = soa(
            first if fits(first) else self.apex,
            mail if fits(mail) else self.apex,
            self._catalog.revision % 2**32 or 1,  # 0 is no serial to some secondaries
            REFRESH,
            RETRY,
            EXPIRE,
        )
        self._apex_node = Record(RR(self.apex, SOA, rdata), 1.0), servers
        return self._apex_node


def shuffled(records: Sequence[Record], rng: random.Random) -> Sequence[Record]:
    """The records in random order, the heavier the earlier on average."""
    if len(records) == 1:
        return records
    draw = rng.random
    keyed = [(draw() ** record.exponent, i) for i, record in enumerate(records)]
    keyed.sort(reverse=True)
    return [records[i] for _, i in keyed]
