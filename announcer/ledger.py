"""The ledger: what this host wants in the store against what the store has. Pure.

Rule: producers say their *whole* present state (`offer`), the store's word comes in through
`snapshot`, `seen` and `committed`, and `pending` returns the transactions that remain. Output
depends on those states only, never on how they were reached, so a lost answer, a doubled event or a
restart needs no special case: what differs is written, once more if need be.

Of each endpoint two keys are ours, its record and its withdrawal, and one transaction changes both:

    wanted      record          withdrawal
    up          put, host lease deleted
    down        deleted         put, host lease     (its producer is still here)
    gone        deleted         put, history lease  (kept for a while, then expires by itself)

An alias has a record and no more: nothing stands behind it that could go down.

Each transaction goes with guards (`guards`): that both keys are still as this ledger knows them. So
one that was sent twice, or that a member which stood still executes late, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from announcer.packing import packed
from discod.model.endpoint import Alias, Endpoint, EndpointId, Producer, Reason, Withdrawal
from discod.model.schema import (
    HostKey,
    Keyspace,
    RecordError,
    RecordKey,
    RefusedKey,
    WithdrawnKey,
    decode_record,
    encode_alias,
    encode_endpoint,
    encode_withdrawal,
)
from discod.store.base import Delete, KeyValue, Op, Put, Removed, Snapshot, Unchanged


@dataclass(frozen=True, slots=True)
class Status:
    """One endpoint of a producer as it stands now."""

    endpoint: Endpoint
    reason: Reason | None = None
    """None: up."""
    detail: str = ""
    at: float = 0.0
    """Since when it is so, Unix seconds."""

    @property
    def up(self) -> bool:
        """Whether it belongs into DNS."""
        return self.reason is None

    def withdrawal(self) -> Withdrawal:
        """The statement that takes it out of DNS."""
        assert self.reason is not None
        return Withdrawal(self.endpoint, self.reason, self.detail, self.at)


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases that writes are attached to."""

    host: int
    """Kept alive while the daemon runs; also over its restart."""
    history: int
    """Never renewed."""


@dataclass(frozen=True, slots=True)
class _Stored:
    value: bytes
    lease: int
    revision: int


class Ledger:
    """Desired against stored, for the keys of one host."""

    def __init__(self, keys: Keyspace, host: str) -> None:
        self._keys = keys
        self._host = host
        self._marker = f'"host":"{host}"'.encode()
        self._offers: dict[EndpointId, dict[str, Status]] = {}
        self._units: dict[str, tuple[Status, ...]] = {}
        self._gone: dict[EndpointId, Status] = {}
        self._aliases: dict[EndpointId, Alias] = {}
        self._singles: dict[str, bytes] = {}  # host record, refusals: key -> value
        self._stored: dict[str, _Stored] = {}
        self._foreign: dict[str, int] = {}  # what a stranger wrote over ours -> revision
        self._deleted: dict[str, int] = {}  # own deletions the watch has not confirmed -> revision
        self._dirty: dict[EndpointId, None] = {}
        self._dirty_singles: dict[str, None] = {}
        self.known = False
        """Whether a snapshot came: before it, nothing is pending."""
        self.docker_known = False
        """Whether the engine's list is in: before it, records of containers are left alone."""

    @property
    def host(self) -> str:
        """Whose keys these are."""
        return self._host

    # What producers say -------------------------------------------------------------------------

    def offer(self, unit: str, statuses: Iterable[Status], *, gone: Reason, now: float) -> None:
        """Replace everything that `unit` offers; what it offered before and not now is `gone`."""
        after = {status.endpoint.id: status for status in statuses}
        for before in self._units.get(unit, ()):
            id_ = before.endpoint.id
            if id_ in after:
                continue
            offers = self._offers[id_]
            del offers[unit]
            if not offers:
                del self._offers[id_]
                said = before if not before.up else Status(before.endpoint, gone, "", now)
                self._gone[id_] = said
            self._dirty[id_] = None
        for id_, status in after.items():
            if self._offers.setdefault(id_, {}).get(unit) != status:
                self._offers[id_][unit] = status
                self._dirty[id_] = None
                self._gone.pop(id_, None)
        if after:
            self._units[unit] = tuple(after.values())
        else:
            self._units.pop(unit, None)

    def set_aliases(self, aliases: Iterable[Alias]) -> None:
        """Want exactly these aliases."""
        before, self._aliases = self._aliases, {alias.id: alias for alias in aliases}
        for id_ in before.keys() | self._aliases.keys():
            if before.get(id_) != self._aliases.get(id_):
                self._dirty[id_] = None

    def keep(self, key: str, value: bytes | None) -> None:
        """Want a single key (host record, refusal) to have `value`, or to be absent."""
        if value is None:
            self._singles.pop(key, None)
        else:
            self._singles[key] = value
        self._dirty_singles[key] = None

    def engine_listed(self) -> None:
        """The engine's list is complete: records of containers that it lacks may go."""
        if not self.docker_known:
            self.docker_known = True
            self._all_dirty()

    def wanted(self, id_: EndpointId) -> Status | None:
        """The status that counts for an endpoint: of several claims the first that is up."""
        offers = self._offers.get(id_)
        if not offers:
            return self._gone.get(id_)
        return min(offers.items(), key=lambda o: (not o[1].up, o[1].endpoint.since, o[0]))[1]

    # What the store says ------------------------------------------------------------------------

    def snapshot(self, snapshot: Snapshot) -> None:
        """Take the store's whole state.

        What was committed after it was read is forgotten too: the watch will say it again, and a
        write repeated meanwhile is harmless. So nothing depends on revisions that only go up.
        """
        self._stored.clear()
        self._foreign.clear()
        self._deleted.clear()
        for item in snapshot.items:
            self.seen(item)
        self.known = True
        self._all_dirty()

    def seen(self, event: KeyValue | Removed) -> None:
        """Take one change from the watch; changes older than what is known are ignored."""
        key = event.key
        stored = self._stored.get(key)
        if isinstance(event, Removed):
            self._foreign.pop(key, None)
            if stored is not None and stored.revision < event.revision:
                del self._stored[key]
                self._mark(key)
            if self._deleted.get(key, event.revision + 1) <= event.revision:
                del self._deleted[key]
            return
        if stored is not None and stored.revision >= event.revision:
            return
        if self._deleted.get(key, 0) >= event.revision:
            return
        if self._mine(key, event.value):
            self._stored[key] = _Stored(event.value, event.lease, event.revision)
            self._foreign.pop(key, None)
            self._mark(key)
        elif stored is not None or key in self._foreign:  # ours was overwritten by something else
            self._stored.pop(key, None)
            self._foreign[key] = event.revision
            self._mark(key)

    def committed(self, ops: Iterable[Op], revision: int) -> None:
        """Take the store's confirmation of a transaction."""
        for op in ops:
            stored = self._stored.get(op.key)
            if stored is not None and stored.revision > revision:
                continue  # the watch was faster, and has newer word
            self._foreign.pop(op.key, None)
            if isinstance(op, Put):
                self._stored[op.key] = _Stored(op.value, op.lease, revision)
                self._deleted.pop(op.key, None)
            else:
                self._stored.pop(op.key, None)
                self._deleted[op.key] = revision
            self._mark(op.key)

    def is_stored(self, id_: EndpointId, leases: Leases | None) -> bool:
        """Whether the store has confirmed exactly what is wanted for an endpoint or an alias."""
        if leases is None or not self.known:
            return False
        return not any(True for _ in self._record_ops(id_, leases, 0.0))

    def as_stored(self, endpoint: Endpoint) -> Endpoint:
        """With the revision at which the store is known to hold just this, else with 0."""
        stored = self._stored.get(self._keys.record(endpoint.id))
        same = stored is not None and stored.value == encode_endpoint(endpoint)
        return replace(endpoint, revision=stored.revision if stored and same else 0)

    # What remains -------------------------------------------------------------------------------

    def pending(self, leases: Leases, now: float) -> list[list[Op]]:
        """The transactions that remain, withdrawals first; empty when store and wish agree.

        Both keys of an endpoint are always in the same transaction; at most `MAX_OPS` in one, and
        as many guards.
        """
        if not self.known:
            return []
        withdraw: list[list[Op]] = []
        other: list[list[Op]] = []
        for id_ in list(self._dirty):
            ops = list(self._record_ops(id_, leases, now))
            if not ops:
                del self._dirty[id_]
                self._gone.pop(id_, None)
                continue
            first = any(isinstance(op, Delete) and op.key == self._keys.record(id_) for op in ops)
            (withdraw if first else other).append(ops)
        for key in list(self._dirty_singles):
            ops = list(self._single_ops(key, leases))
            if ops:
                other.append(ops)
            else:
                del self._dirty_singles[key]
        return list(packed(withdraw)) + list(packed(other))

    def guards(self, ops: Iterable[Op]) -> list[Unchanged]:
        """What must hold for a transaction of `pending` to be the one that is meant.

        Of an endpoint both keys, whichever is written: a late "put" must not outlive a withdrawal.
        """
        keys: dict[str, None] = {}
        for op in ops:
            keys.update(dict.fromkeys(self._together(op.key)))
        return [Unchanged(key, self._revision(key)) for key in keys]

    def endpoint_of(self, key: str) -> EndpointId | None:
        """Whose record a key is; None: it is no record's."""
        parsed = self._keys.parse(key)
        return parsed.id if isinstance(parsed, RecordKey) else None

    def wants(self, key: str) -> bytes | None:
        """The value that an endpoint's record shall have; None: none, or it is not one of ours."""
        id_ = self.endpoint_of(key)
        status = None if id_ is None or id_ in self._aliases else self.wanted(id_)
        return encode_endpoint(status.endpoint) if status is not None and status.up else None

    def own_endpoint(self, event: Removed) -> bytes | None:
        """The value of a record of ours that this takes away; None: of no such record."""
        had = self._stored.get(event.key)
        known = had is not None and had.revision < event.revision
        return had.value if had and known and self.endpoint_of(event.key) else None

    def own_endpoints(self) -> dict[str, bytes]:
        """Every record of ours that the store has, as far as is known."""
        return {key: had.value for key, had in self._stored.items() if self.endpoint_of(key)}

    def _together(self, key: str) -> tuple[str, ...]:
        match self._keys.parse(key):
            case RecordKey(id_) | WithdrawnKey(_, id_):
                return self._keys.record(id_), self._keys.withdrawn(self._host, id_)
        return (key,)

    def _revision(self, key: str) -> int:
        stored = self._stored.get(key)
        return stored.revision if stored is not None else self._foreign.get(key, 0)

    def leases_changed(self) -> None:
        """Compare everything again: what was attached to other leases is written anew."""
        self._all_dirty()

    def _record_ops(self, id_: EndpointId, leases: Leases, now: float) -> Iterator[Op]:
        alias = self._aliases.get(id_)
        if alias is None:
            yield from self._endpoint_ops(id_, leases, now)
        else:
            yield from self._up_ops(self._keys.record(id_), encode_alias(alias), leases)

    def _endpoint_ops(self, id_: EndpointId, leases: Leases, now: float) -> Iterator[Op]:
        record, withdrawn = self._keys.record(id_), self._keys.withdrawn(self._host, id_)
        has_record, has_withdrawn = self._stored.get(record), self._stored.get(withdrawn)
        status = self.wanted(id_)
        if status is None:
            yield from self._orphan_ops(id_, leases, now)
        elif status.up:
            yield from self._up_ops(record, encode_endpoint(status.endpoint), leases)
            if has_withdrawn is not None:
                yield Delete(withdrawn)
        else:
            value = encode_withdrawal(status.withdrawal())
            if has_record is not None:
                yield Delete(record)
            if id_ in self._offers:
                right = has_withdrawn is not None and has_withdrawn.lease == leases.host
                lease = leases.host
            else:
                right = has_withdrawn is not None and has_withdrawn.lease != leases.host
                lease = leases.history
            if not right or has_withdrawn is None or has_withdrawn.value != value:
                yield Put(withdrawn, value, lease)

    def _up_ops(self, key: str, value: bytes, leases: Leases) -> Iterator[Op]:
        stored = self._stored.get(key)
        if stored is None or (stored.value, stored.lease) != (value, leases.host):
            yield Put(key, value, leases.host)

    def _orphan_ops(self, id_: EndpointId, leases: Leases, now: float) -> Iterator[Op]:
        """Of what nobody here offers: left by an earlier run of the daemon."""
        record, withdrawn = self._keys.record(id_), self._keys.withdrawn(self._host, id_)
        has_record, has_withdrawn = self._stored.get(record), self._stored.get(withdrawn)
        if has_record is not None:
            endpoint = decode_record(record, id_, has_record.value)
            if isinstance(endpoint, Alias):
                yield Delete(record)
                return
            if endpoint.producer is Producer.DOCKER and not self.docker_known:
                if has_record.lease != leases.host:
                    yield Put(record, has_record.value, leases.host)
                return
            said = Withdrawal(endpoint, Reason.UNOFFERED, "its producer is no longer here", now)
            yield Delete(record)
            yield Put(withdrawn, encode_withdrawal(said), leases.history)
        elif has_withdrawn is not None and has_withdrawn.lease == leases.host and self.docker_known:
            yield Put(withdrawn, has_withdrawn.value, leases.history)

    def _single_ops(self, key: str, leases: Leases) -> Iterator[Op]:
        value, stored = self._singles.get(key), self._stored.get(key)
        if value is not None:
            yield from self._up_ops(key, value, leases)
        elif stored is not None:
            yield Delete(key)

    def _mine(self, key: str, value: bytes) -> bool:
        try:
            match self._keys.parse(key):
                case RecordKey(id_):
                    if self._marker not in value:  # spares decoding every other host's records
                        return False
                    return decode_record(key, id_, value).host == self._host
                case WithdrawnKey(host, _) | RefusedKey(host, _) | HostKey(host):
                    return host == self._host
        except RecordError:
            return False
        return False

    def _mark(self, key: str) -> None:
        match self._keys.parse(key):
            case RecordKey(id_) | WithdrawnKey(_, id_):
                self._dirty[id_] = None
            case HostKey() | RefusedKey():
                self._dirty_singles[key] = None

    def _all_dirty(self) -> None:
        for key in self._stored:
            self._mark(key)
        self._dirty.update(dict.fromkeys(self._offers))
        self._dirty.update(dict.fromkeys(self._gone))
        self._dirty.update(dict.fromkeys(self._aliases))
        self._dirty_singles.update(dict.fromkeys(self._singles))
