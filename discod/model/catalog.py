"""The Catalog's one writer: from the store's keys, and from what is known sooner or better.

Rule: `CatalogState` is the only writer. Feed it one `reset` with a snapshot, then `apply` for every
change in the store's order; each returns the `Change` from the last Catalog to the new one. What
readers hold is never altered: of what changed there is a new copy, the rest is shared. Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from discod.model import schema
from discod.model.brake import Brake, Suspect, Why
from discod.model.catalog_values import Catalog, Change, Entry, What, alias_news, silence
from discod.model.directory import Directory
from discod.model.endpoint import (
    Alias,
    Endpoint,
    EndpointId,
    Fault,
    Loss,
    Withdrawal,
)
from discod.model.hint import Down
from discod.model.hinted import Hinted
from discod.model.records import Records
from discod.model.schema import (
    HostKey,
    Keyspace,
    Record,
    RecordError,
    RecordKey,
    RefusedKey,
    VipKey,
    VipOwnerKey,
    WithdrawnKey,
)
from discod.model.settings import BrakeSettings
from discod.model.shards import Kept, Shards, regrouped
from discod.model.suppressed import Suppressed

__all__ = ["LOSSES_KEPT", "Catalog", "CatalogState", "Change", "Entry", "What"]

LOSSES_KEPT = 4096
"""Losses remembered for `explain`; the oldest is forgotten first."""


class CatalogState:
    """Builds the Catalog from the store's keys, and from what this host knows sooner.

    `suppress` takes endpoints of this host out at once, before the store has said so, and keeps out
    a record that was still on its way, until the store has the same statement, or `unsuppress`.

    What the store has lost may be kept for a while: `brake` decides. `now` is Unix seconds; `time`
    is of a clock that never jumps, and `now` where none is handed in.
    """

    def __init__(self, keyspace: Keyspace, host: str = "", brake: Brake | None = None) -> None:
        self._keys = keyspace
        self._here = host
        self.brake = brake or Brake(BrakeSettings(enabled=False))
        self._records = Records()  # hidden ones included
        self._vanished: dict[EndpointId, Endpoint] = {}  # in this step, and nobody said why
        self._applied = 0  # revision that the store named last
        self._silent: dict[str, tuple[str, float]] = {}  # host -> detail, since (Unix seconds)
        self._suppressed = Suppressed()
        self._hinted = Hinted()
        self._withdrawn: dict[EndpointId, Withdrawal] = {}
        self._lost = Kept[EndpointId, Loss]()
        self._directory = Directory(keyspace)
        self._invalid = Kept[str, str]()
        self._services = Shards[str, Mapping[str, Endpoint]]()
        self._aliases = Shards[str, Mapping[str, Alias]]()
        self._said = Shards[EndpointId, Withdrawal]()
        self._touched: dict[EndpointId, None] = {}  # what this step may change
        self._entries: list[Entry] = []
        self.catalog = Catalog(keyspace.domain)

    def reset(
        self,
        items: Iterable[tuple[str, bytes, int]],
        revision: int,
        now: float,
        time: float | None = None,
    ) -> Change:
        """Replace everything by a snapshot of (key, value, revision of its last change).

        Records that the snapshot does not have and no withdrawal explains become losses.
        """
        present = {key: (value, changed) for key, value, changed in items}
        for id_ in self._suppressed.settle(lambda id_: self._keys.record(id_) in present):
            self._touched[id_] = None
        known = (
            {self._keys.record(id_) for id_ in self._records}
            | {self._keys.withdrawn(w.endpoint.host, i) for i, w in self._withdrawn.items()}
            | self._directory.known()
            | set(self._invalid.now)
        )
        events = [
            *((key, None, revision) for key in sorted(known - present.keys())),
            *((key, value, changed) for key, (value, changed) in present.items()),
        ]
        return self.apply(events, revision, now, time, set_back=revision < self._applied)

    def apply(
        self,
        events: Iterable[tuple[str, bytes | None, int]],
        revision: int,
        now: float,
        time: float | None = None,
        *,
        set_back: bool = False,
    ) -> Change:
        """Apply changes: (key, its new value or None where it was deleted, revision).

        `set_back`: they are not what came after what is known (`Brake.decide`).
        """
        time = now if time is None else time
        self.brake.count(self._records.endpoints + len(self.brake.suspects.now), time)
        self._applied = revision
        for key, value, changed in events:
            try:
                self._one(key, value, changed)
            except RecordError as error:
                self._forget(key, changed)
                if value is not None:
                    self._invalid.put(key, str(error))
        self._lose(revision, now, time, set_back)
        return self._publish(max(revision, self.catalog.revision), now)

    def _lose(self, revision: int, now: float, time: float, set_back: bool) -> None:
        vanished, self._vanished = self._vanished, {}
        lost = [e for id_, e in vanished.items() if self._statement(id_) is None]
        for endpoint in lost:
            self._lost.put(endpoint.id, Loss(endpoint, revision, now))
            self.brake.lose(endpoint, revision, now, time)
        for id_ in self.brake.decide(time, set_back=set_back) if lost else ():
            self._touched[id_] = None
            self._lost.drop(id_)
            if self.catalog.endpoint(id_) is not None:  # of the others, `_news` speaks
                self._entries.append(Entry(What.SUSPECT, revision, endpoint=vanished.get(id_)))

    def probed(self, id_: EndpointId, now: float, *, ok: bool, detail: str) -> Change:
        """Take the result of a probe of a suspect."""
        return self._let_go(self.brake.probed(id_, ok=ok, detail=detail), now)

    def expire(self, now: float, time: float) -> Change:
        """Let go of suspects that were held for long enough."""
        return self._let_go(self.brake.expire(time), now)

    def _let_go(self, dropped: Iterable[Suspect], now: float) -> Change:
        for one in dropped:
            self._touched[one.endpoint.id] = None
            detail = f"kept as a suspect, then dropped: {one.detail}"
            self._lost.put(one.endpoint.id, Loss(one.endpoint, one.revision, one.at, detail))
        return self._publish(self.catalog.revision, now)

    def suppress(self, withdrawals: Iterable[Withdrawal], now: float) -> Change:
        """Take endpoints out at once, for what this host itself knows of their end."""
        for withdrawal in withdrawals:
            id_ = withdrawal.endpoint.id
            self._touched[id_] = None
            self._suppressed.put(withdrawal)
            self._lost.drop(id_)
            self.brake.hear(id_, Why.WITHDRAWN)
        return self._publish(self.catalog.revision, now)

    def unsuppress(self, endpoints: Iterable[Endpoint], now: float) -> Change:
        """Take `suppress` back of what is up again before the store heard of it, as it is now."""
        for endpoint in endpoints:
            if self._suppressed.back(endpoint, self._records.get(endpoint.id)):
                self._touched[endpoint.id] = None
        return self._publish(self.catalog.revision, now)

    def hint(self, hints: Iterable[Down], host: str, now: float) -> Change:
        """Take endpoints out for what their own host says, sooner than the store can.

        See `discod.model.hinted`.
        """
        for down in hints:
            if self._hinted.put(down, host, self._standing(down.id)):
                self._touched[down.id] = None
                self.brake.hear(down.id, Why.WITHDRAWN)
        return self._publish(self.catalog.revision, now)

    def unhint(self, ids: Iterable[EndpointId], now: float, host: str = "") -> Change:
        """Forget hints: `host` took its own back, or the store did not confirm them in time."""
        for id_ in ids:
            if self._hinted.drop(id_, host):
                self._touched[id_] = None
        return self._publish(self.catalog.revision, now)

    def silence(self, host: str, detail: str, now: float) -> Change:
        """Leave out all that `host` announces, now and from now on: it does not answer.

        Never this host's own. The first word counts until `unsilence`.
        """
        if host and host != self._here and host not in self._silent:
            self._silent[host] = (detail, now)
            self._touch(host)
        return self._publish(self.catalog.revision, now)

    def unsilence(self, host: str, now: float) -> Change:
        """Take `silence` back; what the store still has is in again."""
        if self._silent.pop(host, None) is not None:
            self._touch(host)
        return self._publish(self.catalog.revision, now)

    def _touch(self, host: str) -> None:
        self._touched.update(dict.fromkeys(self._records.of(host)))
        suspects = self.brake.suspects.now.items()
        self._touched.update({id_: None for id_, one in suspects if one.endpoint.host == host})

    def hidden(self) -> dict[EndpointId, Endpoint]:
        """Endpoints that the store holds and `catalog` leaves out, for what is known sooner."""
        ids = {*self._suppressed, *self._hinted}
        for host in self._silent:
            ids.update(self._records.of(host))
        found = ((id_, self._records.get(id_)) for id_ in ids)
        return {id_: record for id_, record in found if isinstance(record, Endpoint)}

    def unconfirmed(self) -> list[tuple[Withdrawal, int]]:
        """What is suppressed, with the revision of its record; 0: the store has shown none."""
        has = ((said, self._records.get(said.endpoint.id)) for said in self._suppressed.said())
        return [(said, r.revision if isinstance(r, Endpoint) else 0) for said, r in has]

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
                    self._drop_record(id_, changed)
                else:
                    self._put_record(schema.decode_record(key, id_, value, changed))
            case WithdrawnKey(host, id_):
                self._withdrawal(key, host, id_, value, changed)
            case HostKey() | RefusedKey() | VipKey() | VipOwnerKey():
                self._entries += self._directory.take(key, parsed, value, changed)

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
        self._suppressed.confirmed(withdrawal)
        self.brake.hear(id_, Why.WITHDRAWN)

    def _put_record(self, record: Record) -> None:
        id_ = record.id
        self._touched[id_] = None
        self._suppressed.renewed(record, self._records.get(id_))
        self._records.put(record)
        self._lost.drop(id_)
        self._vanished.pop(id_, None)
        if self.brake.hear(id_, Why.RETURNED) and record == self.catalog.endpoint(id_):
            self._entries.append(Entry(What.ANNOUNCED, record.revision, endpoint=record))
        self._hinted.renewed(record)

    def _drop_record(self, id_: EndpointId, changed: int) -> None:
        record = self._records.pop(id_)
        if record is None:
            return
        self._touched[id_] = None
        said = self._suppressed.get(id_), self._hinted.removed(id_, changed)
        known = record.host in self._silent or self.catalog.endpoint(id_) is not None
        if known and said == (None, None) and isinstance(record, Endpoint):
            self._vanished[id_] = record

    def _publish(self, revision: int, now: float) -> Change:
        endpoints: dict[EndpointId, Endpoint | None] = {}
        aliases: dict[EndpointId, Alias | None] = {}
        said: dict[EndpointId, Withdrawal | None] = {}
        services: dict[str, None] = {}
        for id_ in self._touched:
            record = self._standing(id_)
            if record is not None and record.host in self._silent:
                record = None
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
                self._entries.append(alias_news(was_alias, alias, revision))
        while len(self._lost.now) > LOSSES_KEPT:
            self._lost.drop(next(iter(self._lost.now)))
        hosts, renamed = self._directory.changed()
        change = Change(frozenset({*services, *renamed}), hosts, tuple(self._entries))
        self._touched, self._entries = {}, []
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
            suspects=self.brake.suspects.view(),
            hosts=self._directory.hosts.view(),
            refused=self._directory.refused.view(),
            invalid=self._invalid.view(),
            vips=self._directory.vips.view(),
        )
        return change

    def _standing(self, id_: EndpointId) -> Record | None:
        """What the store holds, or what is kept of what it held."""
        record = self._records.get(id_)
        if record is None and id_ in self.brake.suspects.now:
            return self.brake.suspects.now[id_].endpoint
        return record

    def _statement(self, id_: EndpointId) -> Withdrawal | None:
        """What is said of an endpoint's end: by this host, by a hint, by others, by the store."""
        said = self._suppressed.get(id_) or self._hinted.get(id_)
        record = self._standing(id_)
        if said is None and isinstance(record, Endpoint) and record.host in self._silent:
            said = silence(record, *self._silent[record.host])
        return said or self._withdrawn.get(id_)

    def _news(
        self,
        id_: EndpointId,
        before: Endpoint | None,
        after: Endpoint | None,
        revision: int,
        now: float,
    ) -> Entry:
        if after is not None:
            what = What.CHANGED if before else What.ANNOUNCED
            if id_ in self.brake.suspects.now:
                what = What.SUSPECT
            return Entry(what, revision, endpoint=after)
        said = self._statement(id_)
        if said is None:
            assert before is not None
            loss = self._lost.now.get(id_) or Loss(before, revision, now)
            self._lost.put(id_, loss)  # anew where an alias took its place
            return Entry(What.LOST, revision, endpoint=before, detail=loss.detail)
        return Entry(
            What.WITHDRAWN, revision, endpoint=before, reason=said.reason, detail=said.detail
        )
