"""Our zones: the Catalog as names (RFC 1034, section 4.3.2, for a server that is authoritative).

Rule: what a name answers depends on the present Catalog, this host's own name, whether services'
own addresses work where the answers go, and the settings only, never on the path that led to it.
Pure: the order of answers comes from the caller's `rng`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host
from discod.model.settings import DnsSettings
from resolver import reverse
from resolver.alias import CHAIN_MAX, AliasNode
from resolver.domain import Domain
from resolver.record import (
    AAAA,
    ANY,
    CNAME,
    HINFO,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    RR,
    SERVFAIL,
    SOA,
    A,
    Answer,
    Name,
    ZoneKind,
    fits,
    name_wire,
    to_name,
    txt,
)
from resolver.rrset import Node, Plain, Record, additional, drawn, limit

_HINFO = txt((b"RFC8482", b""))


class Zone:
    """The domain and the reverse names, answered from the present Catalog.

    Args:
        settings: ``[dns]``; its domain holds for good.
        own: This host.
        fronted: See `set_fronted`; a zone for many hosts, as in transfers, is.
    """

    def __init__(self, settings: DnsSettings, own: Host, *, fronted: bool = True) -> None:
        self.apex = to_name(settings.domain)
        self._domain = Domain(self.apex, settings, own, fronted=fronted)
        self._catalog = Catalog(settings.domain)
        self._index: reverse.ReverseIndex | None = None
        self._start: RR | None = None
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force."""
        self._owned = reverse.OwnedZones(settings.reverse_zones)
        self._limit = settings.answer_limit
        self._flatten = settings.flatten
        self._domain.configure(settings)

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one, None: unknown.

        Costs what changed, whatever the size of the Catalog.
        """
        before, self._catalog = self._catalog.services, catalog
        self._domain.update(catalog, change)
        self._start = None
        if change is None:
            self._index = None
        if self._index is None or change is None:
            return
        for service in change.services:
            self._index.change(before.get(service, {}), catalog.services.get(service, {}))
        if change.hosts:
            self._index.set_hosts(self._domain.hosts.addresses)

    @property
    def fronted(self) -> bool:
        """See `set_fronted`."""
        return self._domain.fronted

    def set_fronted(self, fronted: bool) -> None:
        """Say whether services' own addresses (VIPs) stand for their endpoints.

        If not, every name of the domain is as if there were none. Whose such an address is, its PTR
        says all the same: it is true on every host, and leads nobody there.
        """
        self._domain.set_fronted(fronted)

    @property
    def serial(self) -> int:
        """Of the SOA: the Catalog's revision, modulo 2^32."""
        return self._catalog.revision % 2**32 or 1  # 0 is no serial to some secondaries

    @property
    def subtrees(self) -> frozenset[bytes]:
        """See `Domain.subtrees`."""
        return self._domain.subtrees

    # Questions ----------------------------------------------------------------------------------

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

    def lookup(self, name: Name, qtype: int, rng: random.Random, most: int = 0) -> Answer | None:
        """Answer a question of class IN; None when the name lies in none of our zones.

        A name that exists without the type gets NOERROR and the SOA, one that does not NXDOMAIN and
        the SOA (RFC 2308); a name exists when one below it does (RFC 8020). An alias is followed as
        far as the domain goes (RFC 1034, section 4.3.2); the rcode is that of its end (RFC 6604).

        Args:
            name: In lower case.
            qtype: Number of the type.
            rng: For the order of answers.
            most: Records of the answer that are of any use, as no more can fit (be generous: what
                does not fit is what sets TC); 0: all. Drawing a few of many is quicker.
        """
        if name[-len(self.apex) :] == self.apex:
            node = self._node(name)
            if isinstance(node, AliasNode) and qtype not in (CNAME, ANY):
                return self._follow(name, node, qtype, rng, most)
            return self._answer("domain", self.apex, node, name, qtype, rng, most)
        meaning = reverse.parse(name)
        found = self._reverse(name, meaning) if meaning is not None else None
        return self._answer("reverse", *found, name, qtype, rng, most) if found else None

    def rrset(self, name: Name, qtype: int) -> tuple[Record, ...] | None:
        """The whole RRset at a name of the domain, when `lookup` answers with all of it.

        Empty where the name exists without the type. None where nothing can be said so: the name
        does not exist or is an alias, or only some records are chosen (`dns.answer_limit`).
        """
        node = self._node(name)
        if node is None or isinstance(node, AliasNode):
            return None
        records = node.get(qtype) or ()
        return None if 0 < limit(node, qtype, self._limit) < len(records) else records

    def _answer(
        self,
        zone: ZoneKind,
        apex: Name,
        node: Node | None,
        name: Name,
        qtype: int,
        rng: random.Random,
        most: int,
    ) -> Answer:
        if node is None:
            return Answer(zone, NXDOMAIN, authority=(self._soa(apex),))
        records = node.get(qtype)
        if records:
            allowed = limit(node, qtype, self._limit) or most
            ordered = drawn(records, rng, min(allowed, most) if most else allowed)
            answer = tuple([record.rr for record in ordered])
            return Answer(zone, NOERROR, answer, additional=additional(ordered))
        if qtype == ANY and node:
            # One record instead of everything: what is there if it is an alias, else synthesised
            # (RFC 8482, section 4.2).
            rr = node.rr if isinstance(node, AliasNode) else RR(name, HINFO, _HINFO)
            return Answer(zone, NOERROR, (rr,))
        return Answer(zone, NOERROR, authority=(self._soa(apex),))

    def _follow(
        self, name: Name, first: AliasNode, qtype: int, rng: random.Random, most: int
    ) -> Answer:
        """The answer at the end of the chain of aliases that begins with `first`, at `name`."""
        flatten = self._flatten and qtype in (A, AAAA)
        chain: list[RR] = []
        node: Node | None = first
        target = name
        while isinstance(node, AliasNode):
            if len(chain) == CHAIN_MAX:
                return Answer("domain", SERVFAIL, tuple(chain))
            chain.append(node.rr)
            target = node.target
            if target[-len(self.apex) :] != self.apex:
                ttl = min(rr.ttl for rr in chain)
                negative = (self._soa(self.apex),) if flatten else ()
                return Answer(
                    "domain",
                    NOERROR,
                    tuple(chain),
                    chase=target,
                    flatten=flatten,
                    ttl=ttl,
                    negative=negative,
                )
            node = self._node(target)
        end = self._answer("domain", self.apex, node, target, qtype, rng, most)
        if not flatten:
            answer = (*chain, *end.answer)
            return Answer("domain", end.rcode, answer, end.authority, end.additional)
        ttl = min(rr.ttl for rr in (*chain, *end.answer))
        answer = tuple([rr._replace(owner=name, ttl=ttl) for rr in end.answer])
        # The name exists, wherever it leads to: without its CNAME in the answer, NXDOMAIN would
        # deny the name that was asked.
        return Answer("domain", NOERROR, answer, () if answer else (self._soa(self.apex),))

    # Names --------------------------------------------------------------------------------------

    def _node(self, name: Name) -> Node | None:
        return self._domain.node(name) if name != self.apex else self._at_apex(self.apex)

    def _reverse(self, name: Name, meaning: reverse.ReverseName) -> tuple[Name, Node | None] | None:
        index = self._reverse_index()
        apex = self._owned.apex(name, meaning)
        whole = meaning._replace(junk=False).whole
        targets = [n for n in index.names(meaning) if fits(n)] if whole else []
        if apex is None:
            if not targets:
                return None
            # An address that we know in a zone that is not ours: its own name is all that we claim.
            apex = name[-(meaning.bits // (8 if meaning.family == 4 else 4) + 2) :]
        if meaning.junk:
            return apex, None
        found: dict[int, tuple[Record, ...]] = {}
        if name == apex:
            found.update(self._apex_records(apex))
        if targets:
            found[PTR] = tuple(Record(RR(name, PTR, name_wire(n))) for n in targets)
        exists = bool(found) or index.any_in(meaning)
        return apex, Plain(found) if exists else None

    def _reverse_index(self) -> reverse.ReverseIndex:
        """Made at the first question for a reverse name, kept up to date from then on."""
        if self._index is None:
            self._index = reverse.ReverseIndex(self.apex, self._catalog.services)
            self._index.set_hosts(self._domain.hosts.addresses)
        return self._index

    def _soa(self, apex: Name) -> RR:
        if self._start is None:
            self._start = self._domain.hosts.start(self.serial)
        return self._start if apex == self.apex else self._start._replace(owner=apex)

    def _at_apex(self, apex: Name) -> Node:
        return Plain(self._apex_records(apex))

    def _apex_records(self, apex: Name) -> dict[int, tuple[Record, ...]]:
        servers = self._domain.hosts.servers
        if apex != self.apex:
            servers = tuple(s._replace(rr=s.rr._replace(owner=apex)) for s in servers)
        return {SOA: (Record(self._soa(apex)),), NS: servers}

    # All of it, for zone transfers --------------------------------------------------------------

    def apex_rrs(self) -> tuple[RR, ...]:
        """The domain's own records, SOA first, then NS."""
        return (self._soa(self.apex), *(server.rr for server in self._domain.hosts.servers))

    def host_rrs(self) -> tuple[RR, ...]:
        """See `Domain.host_rrs`."""
        return self._domain.host_rrs()

    def service_rrs(self, service: str) -> tuple[RR, ...]:
        """See `Domain.service_rrs`."""
        return self._domain.service_rrs(service)

    def affected(self, services: Iterable[str]) -> frozenset[str]:
        """See `Domain.affected`."""
        return self._domain.affected(services)
