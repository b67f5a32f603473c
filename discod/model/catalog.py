"""The Catalog: the present set of all records of the cluster, as one immutable value.

Rule: `CatalogState` is the only writer. Feed it one `reset` with a snapshot, then `apply` for every
change in the store's order; each returns the `Change` from the last Catalog to the new one. What
readers hold is never altered: of what changed there is a new copy, the rest is shared. Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from discod.model import schema
from discod.model.endpoint import (
    Alias,
    Endpoint,
    EndpointId,
    Fault,
    Host,
    Loss,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.hint import Down
from discod.model.schema import (
    HostKey,
    Keyspace,
    Record,
    RecordError,
    RecordKey,
    RefusedKey,
    WithdrawnKey,
)
from discod.model.shards import Kept, Shards, regrouped

LOSSES_KEPT = 4096
"""Losses remembered for `explain`; the oldest is forgotten first."""


class What(StrEnum):
    """What happened to the subject of an `Entry`."""

    ANNOUNCED = "announced"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    LOST = "lost"
    REFUSED = "refused"
    HOST_UP = "host-up"
    HOST_CHANGED = "host-changed"
    HOST_GONE = "host-gone"
    ALIAS_UP = "alias-up"
    ALIAS_CHANGED = "alias-changed"
    ALIAS_GONE = "alias-gone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of what a person would call news."""

    what: What
    revision: int
    endpoint: Endpoint | None = None
    reason: Reason | None = None
    detail: str = ""
    host: str = ""
    alias: Alias | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """From one Catalog to the next."""

    services: frozenset[str]
    """Services of which an endpoint or an alias came, went or changed."""
    hosts: bool
    """Whether any host's record changed."""
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that discod knows of the cluster at one revision."""

    domain: str
    revision: int = 0
    services: Mapping[str, Mapping[str, Endpoint]] = field(default_factory=Shards)
    """Service -> instance -> endpoint; only what is up, and no empty service."""
    aliases: Mapping[str, Mapping[str, Alias]] = field(default_factory=Shards)
    """Service -> instance -> alias; a service that has endpoints too is not an alias in DNS, and of
    several the first by instance counts."""
    withdrawn: Mapping[EndpointId, Withdrawal] = field(default_factory=Shards)
    lost: Mapping[EndpointId, Loss] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Mapping[str, Host] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[tuple[str, str], Refusal] = field(default_factory=lambda: MappingProxyType({}))
    """(host, container) -> refusal."""
    invalid: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Key -> what is wrong with it or its value; such records are skipped."""

    def endpoints(self) -> Iterable[Endpoint]:
        """All endpoints that are up, by service and instance."""
        for instances in self.services.values():
            yield from instances.values()

    def endpoint(self, id_: EndpointId) -> Endpoint | None:
        """One endpoint that is up, or None."""
        return self.services.get(id_.service, {}).get(id_.instance)

    def alias(self, service: str) -> Alias | None:
        """The alias that counts in DNS for `service`; None when it has endpoints, or no alias."""
        instances = self.aliases.get(service)
        if not instances or service in self.services:
            return None
        return instances[min(instances)]


class CatalogState:
    """Builds the Catalog from the store's keys, and from what this host knows sooner.

    `suppress` takes endpoints of this host out at once, before the store has said so, and keeps out
    a record that was still on its way. It ends when the store says the same (the record is deleted,
    the withdrawal is there), or by `unsuppress`.
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._keys = keyspace
        self._records: dict[EndpointId, Record] = {}  # suppressed endpoints included
        self._suppressed: dict[EndpointId, Withdrawal] = {}
        self._hinted: dict[EndpointId, Withdrawal] = {}
        self._withdrawn: dict[EndpointId, Withdrawal] = {}
        self._lost = Kept[EndpointId, Loss]()
        self._hosts = Kept[str, Host]()
        self._refused = Kept[tuple[str, str], Refusal]()
        self._invalid = Kept[str, str]()
        self._services = Shards[str, Mapping[str, Endpoint]]()
        self._aliases = Shards[str, Mapping[str, Alias]]()
        self._said = Shards[EndpointId, Withdrawal]()
        self._touched: dict[EndpointId, None] = {}  # what this step may change
        self._entries: list[Entry] = []
        self._hosts_touched = False
        self.catalog = Catalog(keyspace.domain)

    def reset(self, items: Iterable[tuple[str, bytes, int]], revision: int, now: float) -> Change:
        """Replace everything by a snapshot of (key, value, revision of its last change).

        Records that the snapshot does not have and no withdrawal explains become losses.
        """
        present = {key: (value, changed) for key, value, changed in items}
        known = (
            {self._keys.record(id_) for id_ in self._records}
            | {self._keys.withdrawn(w.endpoint.host, i) for i, w in self._withdrawn.items()}
            | {self._keys.host(name) for name in self._hosts.now}
            | {self._keys.refused(*pair) for pair in self._refused.now}
            | set(self._invalid.now)
        )
        events: list[tuple[str, bytes | None, int]] = [
            (key, None, revision) for key in sorted(known - present.keys())
        ]
        events += [(key, value, changed) for key, (value, changed) in present.items()]
        return self.apply(events, revision, now)

    def apply(
        self, events: Iterable[tuple[str, bytes | None, int]], revision: int, now: float
    ) -> Change:
        """Apply changes: (key, its new value or None where it was deleted, revision)."""
        for key, value, changed in events:
            try:
                self._one(key, value, changed)
            except RecordError as error:
                self._forget(key, changed)
                if value is not None:
                    self._invalid.put(key, str(error))
        return self._publish(max(revision, self.catalog.revision), now)

    def suppress(self, withdrawals: Iterable[Withdrawal], now: float) -> Change:
        """Take endpoints out at once, for what this host itself knows of their end."""
        for withdrawal in withdrawals:
            id_ = withdrawal.endpoint.id
            self._touched[id_] = None
            self._suppressed[id_] = withdrawal
            self._lost.drop(id_)
        return self._publish(self.catalog.revision, now)

    def unsuppress(self, ids: Iterable[EndpointId], now: float) -> Change:
        """Take `suppress` back where the endpoint is up again before the store heard of it."""
        for id_ in ids:
            if self._suppressed.pop(id_, None) is not None:
                self._touched[id_] = None
        return self._publish(self.catalog.revision, now)

    def hint(self, hints: Iterable[Down], host: str, now: float) -> Change:
        """Take endpoints out for what their own host says, sooner than the store can.

        A hint is about one version of a record: one that is newer, or of another host, is not
        touched, and the next version ends the hint. So an old or repeated hint does no harm.
        """
        for down in hints:
            record = self._records.get(down.id)
            if not isinstance(record, Endpoint):
                continue
            if record.host == host and record.revision <= down.revision:
                self._touched[down.id] = None
                self._hinted[down.id] = Withdrawal(record, down.reason, down.detail, down.at)
        return self._publish(self.catalog.revision, now)

    def unhint(self, ids: Iterable[EndpointId], now: float) -> Change:
        """Forget hints: their host took them back, or the store did not confirm them in time."""
        for id_ in ids:
            if self._hinted.pop(id_, None) is not None:
                self._touched[id_] = None
        return self._publish(self.catalog.revision, now)

    def hidden(self) -> dict[EndpointId, Endpoint]:
        """Endpoints that the store holds and `catalog` leaves out, for what is known sooner."""
        ids = {*self._suppressed, *self._hinted}
        found = ((id_, self._records.get(id_)) for id_ in ids)
        return {id_: record for id_, record in found if isinstance(record, Endpoint)}

    def unconfirmed(self, id_: EndpointId) -> bool:
        """Whether an endpoint is suppressed, and the store has not said so yet."""
        return id_ in self._suppressed

    def _forget(self, key: str, changed: int) -> None:
        """What cannot be read counts as absent: the outcome depends on the present value only."""
        with contextlib.suppress(RecordError):  # a malformed key: nothing is kept under it
            self._one(key, None, changed)

    def _one(self, key: str, value: bytes | None, changed: int) -> None:
        self._invalid.drop(key)
        parsed = self._keys.parse(key)
        match parsed:
            case RecordKey(id_):
                if value is None:
                    self._drop_record(id_)
                else:
                    self._put_record(schema.decode_record(key, id_, value, changed))
            case WithdrawnKey(host, id_):
                self._withdrawal(key, host, id_, value, changed)
            case HostKey(name):
                self._host(key, name, value, changed)
            case RefusedKey(host, container):
                if value is None:
                    self._refused.drop((host, container))
                else:
                    refusal = schema.decode_refusal(key, host, container, value)
                    if self._refused.now.get((host, container)) != refusal:
                        self._entries.append(
                            Entry(What.REFUSED, changed, host=host, detail=container)
                        )
                    self._refused.put((host, container), refusal)

    def _withdrawal(
        self, key: str, host: str, id_: EndpointId, value: bytes | None, changed: int
    ) -> None:
        if value is None:
            self._touched[id_] = None
            self._withdrawn.pop(id_, None)
            return
        withdrawal = schema.decode_withdrawal(key, id_, value)
        owner = withdrawal.endpoint.host
        if owner != host:
            raise RecordError(key, Fault("host", owner, "expected the key's host"))
        self._touched[id_] = None
        self._withdrawn[id_] = replace(withdrawal, revision=changed)
        self._lost.drop(id_)
        self._suppressed.pop(id_, None)

    def _host(self, key: str, name: str, value: bytes | None, changed: int) -> None:
        before = self._hosts.now.get(name)
        after = None if value is None else schema.decode_host(key, name, value)
        if before == after:
            return
        self._hosts_touched = True
        if after is None:
            self._hosts.drop(name)
            self._entries.append(Entry(What.HOST_GONE, changed, host=name))
        else:
            self._hosts.put(name, after)
            what = What.HOST_CHANGED if before else What.HOST_UP
            self._entries.append(Entry(what, changed, host=name))

    def _put_record(self, record: Record) -> None:
        id_ = record.id
        self._touched[id_] = None
        self._records[id_] = record
        self._lost.drop(id_)
        hinted = self._hinted.get(id_)
        if hinted is not None and record.revision > hinted.endpoint.revision:
            del self._hinted[id_]

    def _drop_record(self, id_: EndpointId) -> None:
        if self._records.pop(id_, None) is not None:
            self._touched[id_] = None
            self._suppressed.pop(id_, None)
            self._hinted.pop(id_, None)

    def _publish(self, revision: int, now: float) -> Change:
        endpoints: dict[EndpointId, Endpoint | None] = {}
        aliases: dict[EndpointId, Alias | None] = {}
        said: dict[EndpointId, Withdrawal | None] = {}
        services: dict[str, None] = {}
        for id_ in self._touched:
            record = self._records.get(id_)
            up = None
            if isinstance(record, Endpoint) and not (
                id_ in self._suppressed or id_ in self._hinted
            ):
                up = record
            alias = record if isinstance(record, Alias) else None
            was_up = self.catalog.endpoint(id_)
            was_alias = self.catalog.aliases.get(id_.service, {}).get(id_.instance)
            if up is not was_up:
                endpoints[id_] = up
            if alias is not was_alias:
                aliases[id_] = alias
            said[id_] = self._statement(id_)
            if up != was_up:
                services[id_.service] = None
                self._entries.append(self._news(id_, was_up, up, revision, now))
            if alias != was_alias:
                services[id_.service] = None
                self._entries.append(_alias_news(was_alias, alias, revision))
        while len(self._lost.now) > LOSSES_KEPT:
            self._lost.drop(next(iter(self._lost.now)))
        change = Change(frozenset(services), self._hosts_touched, tuple(self._entries))
        self._touched, self._entries, self._hosts_touched = {}, [], False
        self._services = regrouped(self._services, endpoints.items())
        self._aliases = regrouped(self._aliases, aliases.items())
        self._said = self._said.changed(said)
        self.catalog = Catalog(
            domain=self._keys.domain,
            revision=revision,
            services=self._services,
            aliases=self._aliases,
            withdrawn=self._said,
            lost=self._lost.view(),
            hosts=self._hosts.view(),
            refused=self._refused.view(),
            invalid=self._invalid.view(),
        )
        return change

    def _statement(self, id_: EndpointId) -> Withdrawal | None:
        """What is said of an endpoint's end: by this host, by a hint, by the store."""
        return self._suppressed.get(id_) or self._hinted.get(id_) or self._withdrawn.get(id_)

    def _news(
        self,
        id_: EndpointId,
        before: Endpoint | None,
        after: Endpoint | None,
        revision: int,
        now: float,
    ) -> Entry:
        if after is not None:
            return Entry(What.CHANGED if before else What.ANNOUNCED, revision, endpoint=after)
        said = self._statement(id_)
        if said is None:
            assert before is not None
            self._lost.put(id_, Loss(before, revision, now))
            return Entry(What.LOST, revision, endpoint=before)
        return Entry(
            What.WITHDRAWN, revision, endpoint=before, reason=said.reason, detail=said.detail
        )


def _alias_news(before: Alias | None, after: Alias | None, revision: int) -> Entry:
    """An alias works or is gone: nothing stands behind it that could be lost or withdrawn."""
    what = What.ALIAS_GONE
    if after is not None:
        what = What.ALIAS_CHANGED if before else What.ALIAS_UP
    alias = after or before
    return Entry(what, revision, alias=alias, host=alias.host if alias else "")
