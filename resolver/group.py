"""One name of a service and its RRsets.

Rule: of the endpoints at a name answers may show a part (``dns.prefer``); what a record says does
not depend on that. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from resolver.maker import Maker
from resolver.offered import Offered, Served
from resolver.record import AAAA, HTTPS, RR, TXT, A, Name, fits
from resolver.rrset import Node, Record, RRset
from resolver.text import texts


class Group(Node):
    """The records that some endpoints of a service make at one name, type by type on demand.

    Args:
        maker: Of the service.
        owner: The name.
        endpoints: All that belong there.
        near: Those of them that answers show.
        types: What the name may have.
        limited: Whether ``dns.answer_limit`` holds.
        fronted: Whether it leads to what stands for the service, if anything does.
    """

    def __init__(
        self,
        maker: Maker,
        owner: Name,
        endpoints: Sequence[Offered],
        near: Sequence[Offered],
        types: frozenset[int],
        *,
        limited: bool,
        fronted: bool = False,
    ) -> None:
        self.limited = limited
        self._maker = maker
        self._owner = owner
        self._endpoints = endpoints
        self._near = near
        self._types = types
        self._front = maker.front if fronted else None
        self._made: dict[int, tuple[Record, ...]] = {}

    def __len__(self) -> int:
        """Number of endpoints."""
        return len(self._endpoints)

    def get(self, type_: int, /) -> tuple[Record, ...] | None:
        """The RRset of a type, of preferred endpoints only while there are any."""
        if type_ not in self._types:
            return None
        made = self._made.get(type_)
        if made is None:
            made = self._made[type_] = self._make(type_, self._near)
        return made

    def rrs(self) -> tuple[RR, ...]:
        """All records of all endpoints."""
        if not fits(self._owner):
            return ()
        every = self._endpoints
        return tuple(r.rr for type_ in sorted(self._types) for r in self._make(type_, every))

    def _make(self, type_: int, near: Sequence[Offered]) -> tuple[Record, ...]:
        maker, owner = self._maker, self._owner
        if type_ == TXT:
            return tuple(Record(RR(owner, TXT, rdata, maker.ttl)) for rdata in texts(near))
        front = self._front
        if type_ in (A, AAAA):
            own = front.addresses.get(type_) if front else None
            return maker.own(owner, type_, own) if own else maker.addresses(owner, near, type_)
        if front:
            return self._services(type_, *front.shown(self._endpoints, near))
        return self._services(type_, self._endpoints, near)

    def _services(
        self, type_: int, every: Sequence[Served], near: Sequence[Served]
    ) -> tuple[Record, ...]:
        maker, owner = self._maker, self._owner
        if type_ == HTTPS:
            # A browser that sees one goes to https (RFC 9460, section 9.5), so there is one only
            # for those who said by their ALPN that they speak it.
            every = [e for e in every if e.alpn]
            near = [e for e in near if e.alpn]
        # What one record says depends on all who share it; preference only leaves records out.
        records = maker.services(owner, every, type_)
        if len(near) == len(every):
            return RRset(records.values())
        keys = {(e.srv_target, e.port) for e in near}
        return RRset(record for key, record in records.items() if key in keys)
