"""All names of one service, made from its endpoints.

Rule: built once for one state of the service and never altered; an index or an RRset is put
together at the first question for it and kept. Names below ``<service>.<domain>`` (docs/dns.md):

    (itself)               A AAAA SRV TXT SVCB HTTPS  all endpoints, or what stands for them
    _headless              A AAAA SRV TXT             all endpoints, never preferred or limited
    _<port name>._<proto>  SRV SVCB                   endpoints with that port name (RFC 2782), or
                                                      what stands for them
    _<proto>               (nothing: it exists because of the names below it, RFC 8020)
    <instance>             A AAAA SRV TXT             one endpoint, both halves of a dual-stack one
    <tag>                  A AAAA SRV                 with the tag; an instance of that name wins
    <value>.<key>          A AAAA SRV                 with the attribute, where both are labels
    <key>                  (nothing, unless it is an instance or a tag)

Where something stands for the service (`resolver.front`), ``_headless`` has SVCB and HTTPS too, and
there are ``_<port name>._<proto>._headless``: all that the service would say of its endpoints.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resolver import locality
from resolver.front import front_of
from resolver.group import Group
from resolver.index import Index
from resolver.locality import View
from resolver.maker import Maker
from resolver.offered import Offered
from resolver.record import AAAA, HTTPS, RR, SRV, SVCB, TXT, A, Name
from resolver.rrset import EMPTY, Node

HEADLESS = b"_headless"

SRV_ONLY = frozenset({SRV})
PORT = frozenset({SRV, SVCB})
TAG = frozenset({A, AAAA, SRV})
INSTANCE = frozenset({A, AAAA, SRV, TXT})
SERVICE = frozenset({A, AAAA, SRV, TXT, SVCB, HTTPS})
"""Types at the kinds of names above."""


class ServiceNames:
    """The names of one service. Not shared between threads.

    Args:
        apex: ``<service>.<domain>``.
        endpoints: Those that are up, in any order.
        view: Whom to prefer.
        fronted: Whether what stands for the service may stand there.
    """

    def __init__(
        self,
        apex: Name,
        endpoints: Iterable[Offered],
        view: View = locality.ALL,
        *,
        fronted: bool = True,
    ) -> None:
        self.apex = apex
        self.index = Index(endpoints)
        front = front_of(self.index.endpoints)
        self.may_front = front is not None
        """Whether it matters to these names if they are `fronted`."""
        self._front = front if fronted else None
        self._maker = Maker(apex, self.index, self._front)
        self._view = view
        self._prefer = view.preference(self.index.endpoints)
        self._nodes: dict[Name, Node] = {}

    def __len__(self) -> int:
        """Number of endpoints."""
        return len(self.index.endpoints)

    def node(self, below: Name) -> Node | None:
        """What is at the name `below` ``<service>.<domain>``; None: the name does not exist."""
        owner = below + self.apex
        node = self._nodes.get(owner)
        if node is None:
            node = self._build(owner, below)
            if node is not None:  # only names that exist are kept, so questions cannot fill memory
                self._nodes[owner] = node
        return node

    def at(
        self,
        owner: Name,
        endpoints: Sequence[Offered],
        types: frozenset[int],
        *,
        fronted: bool = False,
    ) -> Node:
        """Some endpoints of this service at a name elsewhere, as the service's name shows them.

        All but `owner` is taken at the first call for it only.
        """
        node = self._nodes.get(owner)
        if node is None:
            node = self._nodes[owner] = self.group(owner, endpoints, types, fronted=fronted)
        return node

    def group(
        self,
        owner: Name,
        endpoints: Sequence[Offered],
        types: frozenset[int],
        *,
        viewed: bool = True,
        fronted: bool = False,
    ) -> Group:
        """As `at`, and not kept.

        Args:
            owner: The name.
            endpoints: Who belongs there.
            types: What it may have.
            viewed: Whether some are preferred, or left out where there are many.
            fronted: Whether it leads to what stands for the service, if anything does.
        """
        near = self._view.chosen(self._prefer, endpoints) if viewed else endpoints
        return Group(self._maker, owner, endpoints, near, types, limited=viewed, fronted=fronted)

    def has_port(self, below: Name) -> bool:
        """Whether ``_<port name>._<proto>`` or ``_<proto>`` exists."""
        index = self.index
        return below in index.ports or (len(below) == 1 and below[0] in index.protocols)

    def rrs(self) -> tuple[RR, ...]:
        """Every record at and below ``<service>.<domain>``, nothing preferred, nothing limited.

        In a fixed order, none twice; names too long for the wire have none.
        """
        index = self.index
        below: list[Name] = [(), (HEADLESS,), *sorted(index.ports)]
        if self._front:
            below += [(*port, HEADLESS) for port in sorted(index.ports)]
        below += [(tag,) for tag in sorted(index.tags) if tag not in index.instances]
        below += sorted(index.attributes)
        below += [(label,) for label in sorted(index.instances)]
        found: list[RR] = []
        for labels in below:
            group = self._build(labels + self.apex, labels)
            assert isinstance(group, Group)
            found += group.rrs()
        return tuple(found)

    def _build(self, owner: Name, below: Name) -> Node | None:
        index = self.index
        match below:
            case ():
                return self.group(owner, index.endpoints, SERVICE, fronted=True)
            case (label,) if label == HEADLESS:
                types = SERVICE if self._front else INSTANCE
                return self.group(owner, index.endpoints, types, viewed=False)
            case (label,) if label in index.instances:
                return self.group(owner, index.instances[label], INSTANCE, viewed=False)
            case (label,) if label in index.tags:
                return self.group(owner, index.tags[label], TAG)
            case (label,) if label in index.protocols or label in index.keys:
                return EMPTY
            case (_, _) if below in index.ports:
                return self.group(owner, index.ports[below], PORT, fronted=True)
            case (_, _) if below in index.attributes:
                return self.group(owner, index.attributes[below], TAG)
            case (*port, last) if last == HEADLESS and self._front:
                name = tuple(port)
                if name in index.ports:
                    return self.group(owner, index.ports[name], PORT, viewed=False)
                return EMPTY if self.has_port(name) else None
        return None
