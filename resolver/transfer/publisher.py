"""Which content the zone has at which serial, for those who transfer it.

Rule: what is transferred at a serial is what the *store* said at that revision, the same on every
host, whichever of them a secondary asks. So content moves only together with the serial, and an
end that this host knows of before the store does is left out here until the store has said so (a
few milliseconds; normal answers do not wait). Usage: `note` each Catalog, then `step` until it
returns False. Between steps, `serial` and `parts` stay at what was published last. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Endpoint, EndpointId
from resolver.transfer.content import EMPTY, Part, Source, encode, records
from resolver.transfer.journal import Difference, Journal, newer, serial_of

Hidden = Mapping[EndpointId, Endpoint | None]
"""Endpoints that the store holds and the Catalog leaves out: what this host knows sooner."""

JOURNAL_ROOM: Final = 1 << 20
"""Octets that the journal may always have, however small the zone."""

_HOSTS: Final = None
"""The key of the part that holds the NS records and the hosts' names; others are services."""


@dataclass(slots=True)
class _Pending:
    """What differs between the content that was begun last and the newest Catalog."""

    whole: bool = True
    services: set[str] = field(default_factory=set)
    hosts: bool = False


@dataclass(slots=True)
class _Build:
    """A content in the making."""

    serial: int
    todo: list[str | None]
    catalog: Catalog
    staged: dict[str | None, Part] = field(default_factory=dict)
    removed: list[bytes] = field(default_factory=list)
    added: list[bytes] = field(default_factory=list)


class Publisher:
    """Content and journal of one zone.

    Args:
        source: A zone of the publisher's own: nobody else moves it.
        host: Name of this host.
        limit: Changes kept in the journal.
    """

    def __init__(self, source: Source, host: str, limit: int) -> None:
        self._source = source
        self._host = host
        self._journal = Journal(limit)
        self._latest: Catalog | None = None
        self._hidden: Hidden = {}
        self._pending = _Pending()
        self._build: _Build | None = None
        self._parts: dict[str | None, Part] = {}
        self._octets = 0
        self.apex = source.apex
        self.serial: int | None = None
        """What was published last; None: nothing yet."""
        self.changed: int | None = None
        """The serial at which the content, and not the serial alone, last moved."""
        self.soa = b""
        """Of `serial`, as a transfer has it."""

    def note(self, catalog: Catalog, change: Change | None, hidden: Hidden) -> None:
        """Take the newest Catalog; costs what `change` is large.

        Args:
            catalog: What this host answers from.
            change: From the Catalog noted last; None: unknown.
            hidden: What the store holds beyond it; None: what the store lacks of it.
        """
        pending = self._pending
        if change is None or self._latest is None:
            pending.whole = True
        else:
            pending.services |= change.services
            pending.hosts |= change.hosts
        for id_ in {*hidden, *self._hidden}:
            if hidden.get(id_) != self._hidden.get(id_):
                pending.services.add(id_.service)
        self._latest, self._hidden = catalog, dict(hidden)

    @property
    def behind(self) -> bool:
        """Whether there is something to publish."""
        if self._build is not None:
            return True
        return self._latest is not None and serial_of(self._latest.revision) != self.serial

    def work(self) -> int:
        """About how many endpoints the publishing of all that is pending has to look at."""
        keys: set[str | None] = set(self._build.todo) if self._build is not None else set()
        catalog = self._latest
        if catalog is None:
            return 0
        if self._pending.whole:
            keys |= {*catalog.services, *catalog.aliases, *self._parts}
        keys |= self._pending.services
        services = catalog.services
        count = sum(1 + len(services.get(key, ())) for key in keys if key is not None)
        return count + (len(catalog.hosts) if self._pending.hosts or self._pending.whole else 0)

    def step(self) -> bool:
        """Do one piece of the work (one service); False: all is published."""
        build = self._build
        if build is None:
            if not self.behind:
                return False
            self._begin()
            return True
        if build.todo:
            self._one(build, build.todo.pop())
            return True
        self._build = None
        self._commit(build)
        return self.behind

    def _begin(self) -> None:
        assert self._latest is not None
        catalog = _stored(self._latest, self._hidden)
        pending, self._pending = self._pending, _Pending(whole=False)
        todo: list[str | None] = []
        if pending.whole:
            self._source.update(catalog, None)
            known = (key for key in self._parts if key is not None)
            todo += dict.fromkeys([*catalog.services, *catalog.aliases, *known])
        else:
            services = frozenset(pending.services)
            self._source.update(catalog, Change(services, pending.hosts, ()))
            todo += self._source.affected(services)
        if pending.whole or pending.hosts:
            todo.append(_HOSTS)
        self._build = _Build(serial_of(catalog.revision), todo, catalog)

    def _one(self, build: _Build, key: str | None) -> None:
        if key is None:
            rrs = (*self._source.apex_rrs()[1:], *self._source.host_rrs())
            hosts = build.catalog.hosts
            if hosts and self._host not in hosts:
                # A zone knows its own host before the store does: others do not.
                own = (self._host.encode(), b"node")
                rrs = tuple(rr for rr in rrs if rr.owner[:2] != own)
        else:
            rrs = self._source.service_rrs(key)
        part = encode(rrs, self.apex)
        before = self._parts.get(key, EMPTY)
        if part.wire == before.wire:
            return
        build.staged[key] = part
        if self.serial is not None:
            old = dict.fromkeys(records(before))
            new = dict.fromkeys(records(part))
            build.removed += [record for record in old if record not in new]
            build.added += [record for record in new if record not in old]

    def _commit(self, build: _Build) -> None:
        for key, part in build.staged.items():
            self._octets += len(part.wire) - len(self._parts.pop(key, EMPTY).wire)
            if part.size:
                self._parts[key] = part
        soa = encode(self._source.apex_rrs()[:1], self.apex).wire
        if self.serial is None or not newer(build.serial, self.serial):
            self._journal.reset(build.serial, soa)
            self.changed = build.serial
        else:
            room = max(self._octets, JOURNAL_ROOM)
            self._journal.append(build.serial, soa, build.removed, build.added, room)
            if build.removed or build.added:
                self.changed = build.serial
        self.serial, self.soa = build.serial, soa

    # For transfers ------------------------------------------------------------------------------

    @property
    def octets(self) -> int:
        """Of all records but the SOA."""
        return self._octets

    def parts(self) -> tuple[Part, ...]:
        """All records but the SOA, at `serial`; later changes do not alter it."""
        return tuple(self._parts.values())

    def since(self, serial: int) -> tuple[Difference, ...] | None:
        """The way from `serial` to the present one; None: the whole zone has to be taken."""
        return self._journal.since(serial)


def _stored(catalog: Catalog, hidden: Hidden) -> Catalog:
    """The Catalog with what the store holds beyond it."""
    if not hidden:
        return catalog
    layers: dict[str, dict[str, Endpoint]] = {}
    for id_, endpoint in hidden.items():
        layer = layers.setdefault(id_.service, dict(catalog.services.get(id_.service, {})))
        if endpoint is None:
            layer.pop(id_.instance, None)
        else:
            layer[id_.instance] = endpoint
    return replace(catalog, services=_Layered(layers, catalog.services))


class _Layered(Mapping[str, Mapping[str, Endpoint]]):
    """Some services in front of all others."""

    def __init__(
        self,
        front: Mapping[str, Mapping[str, Endpoint]],
        back: Mapping[str, Mapping[str, Endpoint]],
    ) -> None:
        self._front = front
        self._back = back

    def __getitem__(self, service: str) -> Mapping[str, Endpoint]:
        found = self._front.get(service)
        if found is None:
            return self._back[service]
        if not found:  # the store has none of it
            raise KeyError(service)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from (service for service, instances in self._front.items() if instances)
        yield from (service for service in self._back if service not in self._front)

    def __len__(self) -> int:
        return sum(1 for _ in self)
