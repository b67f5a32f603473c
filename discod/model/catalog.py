"""The Catalog: the present set of all records of the cluster, as one immutable value.

Rule: `CatalogState` is the only writer. Feed it one `reset` with a snapshot, then `apply` for every
change in the store's order; each returns the `Change` from the last Catalog to the new one. What
readers hold is never altered: only the parts that changed are copied. Pure.
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
from discod.model.schema import HostKey, Keyspace, RecordError, RecordKey, RefusedKey, WithdrawnKey

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of what a person would call news."""

    what: What
    revision: int
    endpoint: Endpoint | None = None
    reason: Reason | None = None
    detail: str = ""
    host: str = ""


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
    services: Mapping[str, Mapping[str, Endpoint]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Service -> instance -> endpoint; only what is up, and no empty service."""
    aliases: Mapping[str, Mapping[str, Alias]] = field(default_factory=lambda: MappingProxyType({}))
    """Service -> instance -> alias; a service that has endpoints too is not an alias in DNS."""
    withdrawn: Mapping[EndpointId, Withdrawal] = field(default_factory=lambda: MappingProxyType({}))
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


class CatalogState:
    """Builds the Catalog from the store's keys, and from what this host knows sooner.

    `suppress` takes endpoints of this host out at once, before the store has said so, and keeps out
    a record that was still on its way. It ends when the store says the same (the record is deleted,
    the withdrawal is there), or by `unsuppress`.
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._keys = keyspace
        self._records: dict[str, Endpoint] = {}  # raw key -> endpoint, suppressed ones included
        self._suppressed: dict[EndpointId, Withdrawal] = {}
        self._hinted: dict[EndpointId, Withdrawal] = {}
        self._services: dict[str, Mapping[str, Endpoint]] = {}
        self._withdrawn: dict[EndpointId, Withdrawal] = {}
        self._lost: dict[EndpointId, Loss] = {}
        self._hosts: dict[str, Host] = {}
        self._refused: dict[tuple[str, str], Refusal] = {}
        self._invalid: dict[str, str] = {}
        self._touched: dict[EndpointId, Endpoint | None] = {}  # -> what it was before this step
        self._entries: list[Entry] = []
        self._hosts_touched = False
        self.catalog = Catalog(keyspace.domain)

    def reset(self, items: Iterable[tuple[str, bytes, int]], revision: int, now: float) -> Change:
        """Replace everything by a snapshot of (key, value, revision of its last change).

        Records that the snapshot does not have and no withdrawal explains become losses.
        """
        present = {key: (value, changed) for key, value, changed in items}
        known = (
            set(self._records)
            | {self._keys.withdrawn(w.endpoint.host, i) for i, w in self._withdrawn.items()}
            | {self._keys.host(name) for name in self._hosts}
            | {self._keys.refused(*pair) for pair in self._refused}
            | set(self._invalid)
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
                    self._invalid[key] = str(error)
        return self._publish(max(revision, self.catalog.revision), now)

    def suppress(self, withdrawals: Iterable[Withdrawal], now: float) -> Change:
        """Take endpoints out at once, for what this host itself knows of their end."""
        for withdrawal in withdrawals:
            id_ = withdrawal.endpoint.id
            self._suppressed[id_] = withdrawal
            self._lost.pop(id_, None)
            self._touch(id_)
            self._remove_up(id_)
        return self._publish(self.catalog.revision, now)

    def unsuppress(self, ids: Iterable[EndpointId], now: float) -> Change:
        """Take `suppress` back where the endpoint is up again before the store heard of it."""
        for id_ in ids:
            if self._suppressed.pop(id_, None) is not None:
                endpoint = self._records.get(self._keys.record(id_))
                if endpoint is not None:
                    self._touch(id_)
                    self._show(endpoint)
        return self._publish(self.catalog.revision, now)

    def hint(self, hints: Iterable[Down], host: str, now: float) -> Change:
        """Take endpoints out for what their own host says, sooner than the store can.

        A hint is about one version of a record: one that is newer, or of another host, is not
        touched, and the next version ends the hint. So an old or repeated hint does no harm.
        """
        for down in hints:
            record = self._records.get(self._keys.record(down.id))
            if record is None or record.host != host or record.revision > down.revision:
                continue
            self._hinted[down.id] = Withdrawal(record, down.reason, down.detail, down.at)
            self._touch(down.id)
            self._remove_up(down.id)
        return self._publish(self.catalog.revision, now)

    def unhint(self, ids: Iterable[EndpointId], now: float) -> Change:
        """Forget hints: their host took them back, or the store did not confirm them in time."""
        for id_ in ids:
            record = self._records.get(self._keys.record(id_))
            if self._hinted.pop(id_, None) is not None and record is not None:
                self._touch(id_)
                self._show(record)
        return self._publish(self.catalog.revision, now)

    def unconfirmed(self, id_: EndpointId) -> bool:
        """Whether an endpoint is suppressed, and the store has not said so yet."""
        return id_ in self._suppressed

    def _show(self, endpoint: Endpoint) -> None:
        if endpoint.id not in self._suppressed and endpoint.id not in self._hinted:
            self._add_up(endpoint)

    def _forget(self, key: str, changed: int) -> None:
        """What cannot be read counts as absent: the outcome depends on the present value only."""
        with contextlib.suppress(RecordError):  # a malformed key: nothing is kept under it
            self._one(key, None, changed)

    def _one(self, key: str, value: bytes | None, changed: int) -> None:
        self._invalid.pop(key, None)
        parsed = self._keys.parse(key)
        match parsed:
            case RecordKey(id_):
                if value is None:
                    self._drop_record(key)
                else:
                    endpoint = schema.decode_endpoint(key, id_, value)
                    self._put_record(key, replace(endpoint, revision=changed))
            case WithdrawnKey(host, id_):
                if value is None:
                    self._withdrawn.pop(id_, None)
                else:
                    withdrawal = schema.decode_withdrawal(key, id_, value)
                    owner = withdrawal.endpoint.host
                    if owner != host:
                        raise RecordError(key, Fault("host", owner, "expected the key's host"))
                    self._withdrawn[id_] = replace(withdrawal, revision=changed)
                    self._lost.pop(id_, None)
                    self._suppressed.pop(id_, None)
            case HostKey(name):
                self._host(key, name, value, changed)
            case RefusedKey(host, container):
                if value is None:
                    self._refused.pop((host, container), None)
                else:
                    refusal = schema.decode_refusal(key, host, container, value)
                    if self._refused.get((host, container)) != refusal:
                        self._entries.append(
                            Entry(What.REFUSED, changed, host=host, detail=container)
                        )
                    self._refused[host, container] = refusal

    def _host(self, key: str, name: str, value: bytes | None, changed: int) -> None:
        before = self._hosts.get(name)
        after = None if value is None else schema.decode_host(key, name, value)
        if before == after:
            return
        self._hosts_touched = True
        if after is None:
            del self._hosts[name]
            self._entries.append(Entry(What.HOST_GONE, changed, host=name))
        else:
            self._hosts[name] = after
            what = What.HOST_CHANGED if before else What.HOST_UP
            self._entries.append(Entry(what, changed, host=name))

    def _put_record(self, key: str, endpoint: Endpoint) -> None:
        self._touch(endpoint.id)
        self._records[key] = endpoint
        self._lost.pop(endpoint.id, None)
        hinted = self._hinted.get(endpoint.id)
        if hinted is not None and endpoint.revision > hinted.endpoint.revision:
            del self._hinted[endpoint.id]
        self._show(endpoint)

    def _drop_record(self, key: str) -> None:
        endpoint = self._records.pop(key, None)
        if endpoint is not None:
            self._touch(endpoint.id)
            self._remove_up(endpoint.id)
            self._suppressed.pop(endpoint.id, None)
            self._hinted.pop(endpoint.id, None)

    def _touch(self, id_: EndpointId) -> None:
        if id_ not in self._touched:
            self._touched[id_] = self._services.get(id_.service, {}).get(id_.instance)

    def _add_up(self, endpoint: Endpoint) -> None:
        instances = dict(self._services.get(endpoint.service, {}))
        instances[endpoint.instance] = endpoint
        self._services[endpoint.service] = MappingProxyType(instances)

    def _remove_up(self, id_: EndpointId) -> None:
        instances = dict(self._services.get(id_.service, {}))
        instances.pop(id_.instance, None)
        if instances:
            self._services[id_.service] = MappingProxyType(instances)
        else:
            self._services.pop(id_.service, None)

    def _publish(self, revision: int, now: float) -> Change:
        services: dict[str, None] = {}
        for id_, before in self._touched.items():
            after = self._services.get(id_.service, {}).get(id_.instance)
            if before == after:
                continue
            services[id_.service] = None
            self._entries.append(self._news(id_, before, after, revision, now))
        while len(self._lost) > LOSSES_KEPT:
            self._lost.pop(next(iter(self._lost)))
        change = Change(frozenset(services), self._hosts_touched, tuple(self._entries))
        self._touched, self._entries, self._hosts_touched = {}, [], False
        withdrawn = {**self._withdrawn, **self._hinted, **self._suppressed}
        self.catalog = Catalog(
            domain=self._keys.domain,
            revision=revision,
            services=MappingProxyType(dict(self._services)),
            withdrawn=MappingProxyType(withdrawn),
            lost=MappingProxyType(dict(self._lost)),
            hosts=MappingProxyType(dict(self._hosts)),
            refused=MappingProxyType(dict(self._refused)),
            invalid=MappingProxyType(dict(self._invalid)),
        )
        return change

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
        said = self._suppressed.get(id_) or self._hinted.get(id_) or self._withdrawn.get(id_)
        if said is None:
            assert before is not None
            self._lost[id_] = Loss(before, revision, now)
            return Entry(What.LOST, revision, endpoint=before)
        return Entry(
            What.WITHDRAWN, revision, endpoint=before, reason=said.reason, detail=said.detail
        )
