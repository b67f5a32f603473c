"""The etcd store: etcd v3 through etcd3's message definitions and gRPC.

Rule: what the store's calls mean in etcd's terms, and which member is asked. Channels, threads and
gRPC are `etcd_member`'s, the watch's life is `etcd_watch`'s, errors are `etcd_errors`'.

Members: one is preferred, and stays so until it fails; then the next one is, for every later call.
Calls that may be repeated go round all members within their one deadline, each getting an even
share of what is left; the renewal of a lease, which has little time, does not wait for a member
that is slow to answer, but is sent to the next one as well. A commit is sent to another member only
if it surely was not executed, or if its guards cover every key that it changes: the second copy
then finds the work of the first, sees by the values that it is its own, and changes nothing. TLS
files that have changed are taken up as soon as a call fails.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from discod.log import fields
from discod.model.settings import StoreSettings
from discod.store import etcd_proto
from discod.store.base import (
    Commit,
    Compacted,
    Delete,
    KeyValue,
    LeaseNotFound,
    Op,
    Put,
    Snapshot,
    StoreError,
    StoreRejected,
    StoreUnavailable,
    Unchanged,
)
from discod.store.etcd_auth import Login, TlsFiles, target
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_events import key_value, prefix_range
from discod.store.etcd_member import Member, tls_credentials
from discod.store.etcd_watch import EtcdWatch
from discod.store.ops import check_commit, normal_prefixes, whole_seconds

log = logging.getLogger(__name__)

PAGE = 10_000
"""Keys a page of a snapshot."""
SNAPSHOT_TRIES = 3
"""A compaction between two pages makes a snapshot start again, this often at most."""
HEAD_START = 0.1
"""Part of the deadline of a renewal after which it is sent to the next member as well: one that is
cut off from the leader holds a call until its deadline, and a lease of 3 s is over by then."""

_EQUAL, _MOD = 0, 2
"""``Compare.CompareResult.EQUAL`` and ``Compare.CompareTarget.MOD``."""


@dataclass(frozen=True, slots=True)
class _History:
    """By what a store that was set back can be told, besides its revision."""

    cluster: int
    term: int


@dataclass(slots=True)
class _Tries:
    """How many members a call was sent to."""

    count: int = 0


class EtcdStore:
    """A `Store` on an etcd cluster.

    The deadline holds for each request; a snapshot of more than `PAGE` keys makes several.
    """

    def __init__(
        self,
        members: Sequence[Member],
        proto: etcd_proto.Proto,
        timeout: float,
        tls: TlsFiles | None = None,
    ) -> None:
        self.proto = proto
        self._tls = tls
        self._members = tuple(members)
        self._preferred = 0
        self._timeout = timeout
        self._histories: dict[tuple[str, ...], _History] = {}  # of each set of prefixes in use
        self._denied_spans: set[tuple[str, ...]] = set()

    @property
    def kind(self) -> str:
        """``etcd``."""
        return "etcd"

    async def snapshot(self, prefixes: Sequence[str]) -> Snapshot:
        """All keys below `prefixes`, at one revision, sorted by key."""
        wanted = normal_prefixes(prefixes)
        for _ in range(SNAPSHOT_TRIES):
            try:
                return await self._snapshot(wanted)
            except Compacted as error:
                failure = error
        raise StoreUnavailable(f"compacted again and again during a snapshot: {failure}")

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        """Apply `ops` as one transaction if all `guards` hold."""
        check_commit(ops, guards)
        if len(ops) == 1 and not guards and isinstance(ops[0], Delete):
            return await self._delete(ops[0])
        guarded = {guard.key for guard in guards}
        request = self.proto.message("TxnRequest")(
            compare=[
                {
                    "result": _EQUAL,
                    "target": _MOD,
                    "key": guard.key.encode(),
                    "mod_revision": guard.revision,
                }
                for guard in guards
            ],
            success=[_request_op(op) for op in ops],
            # What is there instead, should a guard not hold: perhaps the work of a first copy.
            failure=[{"request_range": {"key": op.key.encode()}} for op in ops],
        )
        repeatable = guarded.issuperset(op.key for op in ops)
        tries = _Tries()
        _, response = await self._call("KV/Txn", request, repeatable=repeatable, tries=tries)
        if not response.succeeded and tries.count > 1:
            found = [r.response_range for r in response.responses]
            done = _done(ops, found, response.header.revision)
            if done:
                return Commit(True, done)
        return Commit(response.succeeded, response.header.revision)

    async def _delete(self, op: Delete) -> Commit:
        """A deletion by itself, which etcd grants even when its space is used up.

        (A transaction of nothing but deletions is refused then, up to etcd 3.4 at least.)
        """
        request = self.proto.message("DeleteRangeRequest")(key=op.key.encode())
        _, response = await self._call("KV/DeleteRange", request, repeatable=False)
        return Commit(True, response.header.revision)

    async def grant(self, ttl: float) -> int:
        """A new lease; etcd raises short ones to its floor (1.5 election timeouts, about 2 s)."""
        # Repeated after a lost answer it leaves a lease that nobody knows, which ends by itself.
        request = self.proto.message("LeaseGrantRequest")(TTL=whole_seconds(ttl))
        _, response = await self._call("Lease/LeaseGrant", request)
        return int(response.ID)

    async def renew(self, lease: int) -> float:
        """Renew a lease; the seconds it now has."""
        request = self.proto.message("LeaseKeepAliveRequest")(ID=lease)
        member, response = await self._race("Lease/LeaseKeepAlive", request)
        if response.TTL <= 0:  # how etcd says so here
            raise LeaseNotFound(f"{member.url}: lease {lease:x}")
        return float(response.TTL)

    async def revoke(self, lease: int) -> None:
        """End a lease and delete what is attached to it; no fault when it is gone."""
        request = self.proto.message("LeaseRevokeRequest")(ID=lease)
        try:
            await self._call("Lease/LeaseRevoke", request)
        except LeaseNotFound:
            return

    @asynccontextmanager
    async def watch(self, prefixes: Sequence[str], after: int) -> AsyncIterator[EtcdWatch]:
        """Watch `prefixes` for everything that changes after revision `after`.

        Several prefixes are one etcd watch over the range from the first to the end of the last,
        filtered here; see `etcd_events` for the reason, the cost, and what happens where the user
        may not read that range.
        """
        watch = EtcdWatch(self, normal_prefixes(prefixes), after)
        try:
            yield watch
        finally:
            await watch.aclose()

    def close(self) -> None:
        """End every call and stream."""
        for member in self._members:
            member.close()

    # For EtcdWatch ----------------------------------------------------------------------------

    async def verify(self, prefixes: tuple[str, ...], after: int) -> Member:
        """A member that is up to date, in the history that `after` belongs to.

        Raises:
            Compacted: the store was set back or replaced since the snapshot of these prefixes. (An
                etcd restored with the same cluster id, at the same raft term, that has already
                written past `after` again cannot be told from the old one.)
            StoreUnavailable, StoreRejected.
        """
        key, end = prefix_range(prefixes[0])
        request = self.proto.message("RangeRequest")(
            key=key, range_end=end, limit=1, keys_only=True
        )
        member, response = await self._call("KV/Range", request)
        header = response.header
        known = self._histories.get(prefixes)
        if header.revision < after:
            raise Compacted(f"{member.url}: at revision {header.revision}, was at {after} before")
        if known and (header.cluster_id != known.cluster or header.raft_term < known.term):
            raise Compacted(f"{member.url}: not the cluster that it was before")
        self._histories[prefixes] = _History(header.cluster_id, header.raft_term)
        return member

    def avoid(self, member: Member) -> None:
        """Prefer the next member, if this is the one that is preferred."""
        if self._members[self._preferred] is member:
            self._preferred = (self._preferred + 1) % len(self._members)

    def _prefer(self, member: Member) -> None:
        self._preferred = self._members.index(member)

    def must_split(self, prefixes: tuple[str, ...], learned: bool = False) -> bool:
        """Whether the span of these prefixes may not be read; `learned`: remember that."""
        if learned:
            self._denied_spans.add(prefixes)
        return prefixes in self._denied_spans

    # ------------------------------------------------------------------------------------------

    async def _snapshot(self, prefixes: tuple[str, ...]) -> Snapshot:
        items: list[KeyValue] = []
        revision = 0  # of the first page; 0 there: the present one, linearizable
        make = self.proto.message("RangeRequest")
        for prefix in prefixes:
            key, end = prefix_range(prefix)
            while True:
                request = make(key=key, range_end=end, limit=PAGE, revision=revision)
                _, response = await self._call("KV/Range", request)
                header = response.header
                if not revision:
                    revision = header.revision
                    history = _History(header.cluster_id, header.raft_term)
                items += [key_value(kv) for kv in response.kvs]
                if not response.more:
                    break
                key = response.kvs[-1].key + b"\0"
        items.sort(key=lambda kv: kv.key)
        self._histories[prefixes] = history
        return Snapshot(revision, tuple(items))

    async def _call(
        self, name: str, request: Any, *, repeatable: bool = True, tries: _Tries | None = None
    ) -> tuple[Member, Any]:
        """One call, to the preferred member or to the others after it."""
        deadline = trio.current_time() + self._timeout
        failures: list[str] = []
        for others, member in self._rotation():
            left = deadline - trio.current_time()
            if failures and left <= 0:
                break
            share = left / (others + 1) if repeatable else left
            if tries is not None:
                tries.count += 1
            try:
                return member, await member.call(name, request, share)
            except RpcFailure as failure:
                error = failure.as_store_error(member.url)
                if not failure.transient:
                    raise error from None
                failures.append(str(error))
                self.avoid(member)
                await self._renew_tls()
                if not repeatable and not failure.not_sent:
                    break
        raise StoreUnavailable("; ".join(failures))

    async def _race(self, name: str, request: Any) -> tuple[Member, Any]:
        """One call that may be executed twice: the first answer of any member counts."""
        won: list[tuple[Member, Any]] = []
        rejected: list[StoreError] = []
        failures: list[str] = []

        async def ask(member: Member, left: float, failed: trio.Event) -> None:
            try:
                won.append((member, await member.call(name, request, left)))
            except RpcFailure as failure:
                error = failure.as_store_error(member.url)
                if failure.transient:
                    failures.append(str(error))
                    self.avoid(member)
                    failed.set()
                    return
                rejected.append(error)
            nursery.cancel_scope.cancel()

        deadline = trio.current_time() + self._timeout
        async with trio.open_nursery() as nursery:
            for others, member in self._rotation():
                failed = trio.Event()
                nursery.start_soon(ask, member, deadline - trio.current_time(), failed)
                if others:
                    with trio.move_on_after(HEAD_START * self._timeout):
                        await failed.wait()
        if won:
            self._prefer(won[0][0])  # and not one that was overtaken
            return won[0]
        if rejected:
            raise rejected[0]
        await self._renew_tls()
        raise StoreUnavailable("; ".join(failures))

    async def _renew_tls(self) -> None:
        """Connect anew with what the TLS files hold now, if that is something else.

        gRPC keeps the credentials that a channel was made with. A call that has just failed may
        have done so for an old certificate; the next one must not.
        """
        if self._tls is None:
            return
        try:
            files = await trio.to_thread.run_sync(self._tls.changed, abandon_on_cancel=True)
        except StoreRejected as error:
            log.warning("TLS files not taken up", extra=fields(error=error))
            return
        if files is not None:
            credentials = tls_credentials(*files)
            for member in self._members:
                member.reconnect(credentials)
            log.info("TLS files have changed, connecting anew")

    def _rotation(self) -> Iterator[tuple[int, Member]]:
        """Every member once, the preferred one first, with how many come after it."""
        first, count = self._preferred, len(self._members)
        for step in range(count):
            yield count - 1 - step, self._members[(first + step) % count]


def _request_op(op: Op) -> dict[str, Any]:
    key = op.key.encode()
    if isinstance(op, Put):
        return {"request_put": {"key": key, "value": op.value, "lease": op.lease}}
    return {"request_delete_range": {"key": key}}


def _done(ops: Sequence[Op], found: Sequence[Any], revision: int) -> int:
    """The revision of a transaction that all of `found` is the work of; 0: it is not.

    Args:
        ops: The transaction.
        found: What etcd holds of each key, in the same order (``RangeResponse``).
        revision: Counts for a transaction that only deletes: when it was absent.
    """
    changed = set()
    for op, held in zip(ops, found, strict=True):
        kvs = list(held.kvs)
        if isinstance(op, Delete):
            if kvs:
                return 0
        elif not kvs or (kvs[0].value, kvs[0].lease) != (op.value, op.lease):
            return 0
        else:
            changed.add(kvs[0].mod_revision)
    if len(changed) > 1:  # not of one transaction
        return 0
    return int(changed.pop()) if changed else revision


@asynccontextmanager
async def open_etcd_store(settings: StoreSettings) -> AsyncIterator[EtcdStore]:
    """The store at `settings.endpoints`; connects at the first call.

    Raises:
        StoreRejected: a TLS file cannot be read, or an endpoint is no URL.
    """
    proto = etcd_proto.load()
    login = None
    if settings.username:
        login = Login(settings.username, settings.password_file, proto)
    targets = [(url, *target(url)) for url in settings.endpoints]
    secure = any(https for _, _, https in targets)
    tls = TlsFiles(settings) if secure else None
    credentials = tls_credentials(*tls.content) if tls else None
    members = [
        Member(url, name, credentials if https else None, proto, login)
        for url, name, https in targets
    ]
    store = EtcdStore(members, proto, settings.timeout, tls)
    try:
        yield store
    finally:
        store.close()
