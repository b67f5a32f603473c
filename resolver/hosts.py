"""The hosts as names: ``<host>.node.<domain>``, and the name servers of the domain.

Rule: made from the hosts of one Catalog and this host's own, never altered. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from discod.model.endpoint import Address, Host
from resolver.record import NS, RR, SOA, Name, address_type, fits, name_wire, soa
from resolver.rrset import EMPTY, Node, Plain, Record

SUBTREE: Final = b"node"
NAME_SERVERS_MAX: Final = 8
"""Hosts named in NS: with their addresses they fit one UDP answer."""
REFRESH, RETRY, EXPIRE = 60, 10, 86_400
"""Of the SOA, seconds: for secondaries that an operator may set up from our records."""


class HostNames:
    """The names of all hosts.

    Args:
        domain: The zone's apex.
        hosts: Those of the Catalog, by name.
        own: This host, for as long as the Catalog does not have it.
    """

    def __init__(self, domain: Name, hosts: Mapping[str, Host], own: Host) -> None:
        self._domain = domain
        self.addresses: dict[str, tuple[Address, ...]] = {
            name: host.addresses for name, host in hosts.items()
        }
        """Of each host, by name."""
        self.addresses.setdefault(own.name, own.addresses)
        servers = sorted(hosts)[:NAME_SERVERS_MAX] or [own.name]
        names = [self._name(host) for host in servers]
        self.servers: tuple[Record, ...] = tuple(
            Record(RR(domain, NS, name_wire(name)), extra=self._records(name, host))
            for name, host in zip(names, servers, strict=True)
            if fits(name)
        )
        """NS of the domain, with their addresses."""
        self._first = names[0] if fits(names[0]) else domain

    def node(self, name: Name, below: Name) -> Node | None:
        """What is at `name`, which is `below` the subtree; None: it does not exist."""
        if not below:
            return EMPTY
        host = below[0].decode("latin-1")
        if len(below) > 1 or host not in self.addresses:
            return None
        found: dict[int, tuple[Record, ...]] = {}
        for rr in self._records(name, host):
            found[rr.type] = (*found.get(rr.type, ()), Record(rr))
        return Plain(found)

    def rrs(self) -> tuple[RR, ...]:
        """The addresses of all hosts, by name, none twice."""
        found: list[RR] = []
        for host in sorted(self.addresses):
            if fits(self._name(host)):
                found += self._records(self._name(host), host)
        return tuple(found)

    def start(self, serial: int) -> RR:
        """The SOA of the domain."""
        mail = (b"hostmaster", *self._domain)
        return RR(
            self._domain,
            SOA,
            soa(
                self._first,
                mail if fits(mail) else self._domain,
                serial,
                REFRESH,
                RETRY,
                EXPIRE,
            ),
        )

    def _name(self, host: str) -> Name:
        return (host.encode(), SUBTREE, *self._domain)

    def _records(self, name: Name, host: str) -> tuple[RR, ...]:
        """By family, so that they are whole RRsets."""
        made = [RR(name, address_type(a), a.packed) for a in dict.fromkeys(self.addresses[host])]
        return tuple(sorted(made, key=lambda rr: rr.type))
