"""Services that are other names.

Rule: of several aliases of one service the first by instance counts, and none while the service has
endpoints (who asks here looks for endpoints first). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from discod.model.endpoint import Alias
from resolver.record import CNAME, RR, Name, cname, fits, to_name
from resolver.rrset import Node, Record

CHAIN_MAX = 8
"""Aliases followed for one question; more, or a loop, is SERVFAIL. Nobody means to have more."""


class Lead(NamedTuple):
    """Where an alias leads."""

    target: Name
    ttl: int
    """Seconds, of its CNAME."""
    service: str
    """The service whose name `target` is; empty: another name, or none of ours."""


class AliasNode(Node):
    """A name that is an alias."""

    def __init__(self, owner: Name, target: Name, ttl: int) -> None:
        self.target = target
        self.rr: RR = cname(owner, target, ttl)

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        """The CNAME alone; whoever asks for another type is to go to `target`."""
        return (Record(self.rr),) if type_ == CNAME else None

    def __len__(self) -> int:
        """One record."""
        return 1


class Aliases:
    """The aliases of one Catalog; nothing is looked at before it is asked for."""

    def __init__(self, domain: Name, records: Mapping[str, Mapping[str, Alias]]) -> None:
        self._domain = domain
        self._records = records

    def __iter__(self) -> Iterator[str]:
        """All names that are aliases, whether they have endpoints or not."""
        return iter(self._records)

    def get(self, service: str) -> Lead | None:
        """Where a name leads; None: it is no alias, or its target cannot be said on the wire."""
        instances = self._records.get(service)
        if not instances:
            return None
        alias = instances[min(instances)]
        target = to_name(alias.target)
        if not target or not fits(target) or any(not 0 < len(label) <= 63 for label in target):
            return None
        one = len(target) == len(self._domain) + 1 and target[1:] == self._domain
        return Lead(target, alias.ttl, target[0].decode("utf-8", "replace") if one else "")


class Followers:
    """Which aliases lead to which services, kept up to date by alias."""

    def __init__(self, aliases: Aliases) -> None:
        self._leads: dict[str, str] = {}
        self._followers: dict[str, set[str]] = {}
        for service in aliases:
            self.set(service, aliases.get(service))

    def set(self, service: str, lead: Lead | None) -> None:
        """Replace where one name leads."""
        before = self._leads.pop(service, "")
        if before:
            followers = self._followers[before]
            followers.discard(service)
            if not followers:
                del self._followers[before]
        if lead is not None and lead.service:
            self._leads[service] = lead.service
            self._followers.setdefault(lead.service, set()).add(service)

    def of(self, services: Iterable[str]) -> frozenset[str]:
        """`services`, and every alias that leads to one of them, however long the chain."""
        found = set(services)
        todo = list(found) if self._followers else []
        while todo:
            new = self._followers.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return frozenset(found)
