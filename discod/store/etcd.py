"""The etcd store: etcd v3 through etcd3's message definitions and gRPC.

Rule: what the store's calls mean in etcd's terms, and which member is asked. Channels, threads and
gRPC are `etcd_member`'s, the watch's life is `etcd_watch`'s, errors are `etcd_errors`'.

Members: one is preferred, and stays so until it fails; then the next one is, for every later call.
Calls that may be repeated go round all members within their one deadline, each getting an even
share of what is left. A commit is sent to another member only if it surely was not executed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from discod.model.settings import StoreSettings
from discod.store import etcd_proto
from discod.store.base import (
    Commit,
    Compacted,
    KeyValue,
    LeaseNotFound,
    Op,
    Put,
    Snapshot,
    StoreUnavailable,
    Unchanged,
)
from discod.store.etcd_auth import Login, target, tls_files
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_events import key_value, prefix_range
from discod.store.etcd_member import Member, tls_credentials
from discod.store.etcd_watch import EtcdWatch
from discod.store.ops import check_commit, normal_prefixes, whole_seconds

PAGE = 10_000
"""Keys a page of a snapshot."""
SNAPSHOT_TRIES = 3
"""A compaction between two pages makes a snapshot start again, this often at most."""

_EQUAL, _MOD = 0, 2
"""``Compare.CompareResult.EQUAL`` and ``Compare.CompareTarget.MOD``."""


@dataclass(frozen=True, slots=True)
class _History:
    """By what a store that was set back can be told, besides its revision."""

    cluster: int
    term: int


class EtcdStore:
    """A `Store` on an etcd cluster.

    The deadline holds for each request; a snapshot of more than `PAGE` keys makes several.
    """

    def __init__(self, members: Sequence[Member], proto: etcd_proto.Proto, timeout: float) -> None:
        self.proto = proto
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
        )
        _, response = await self._call("KV/Txn", request, repeatable=False)
        return Commit(response.succeeded, response.header.revision)

    async def grant(self, ttl: float) -> int:
        """A new lease; etcd raises short ones to its floor (1.5 election timeouts, about 2 s)."""
        # Repeated after a lost answer it leaves a lease that nobody knows, which ends by itself.
        request = self.proto.message("LeaseGrantRequest")(TTL=whole_seconds(ttl))
        _, response = await self._call("Lease/LeaseGrant", request)
        return int(response.ID)

    async def renew(self, lease: int) -> float:
        """Renew a lease; the seconds it now has."""
        request = self.proto.message("LeaseKeepAliveRequest")(ID=lease)
        member, response = await self._call("Lease/LeaseKeepAlive", request)
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
        self, name: str, request: Any, *, repeatable: bool = True
    ) -> tuple[Member, Any]:
        """One call, to the preferred member or to the others after it."""
        deadline = trio.current_time() + self._timeout
        failures: list[str] = []
        for others, member in self._rotation():
            left = deadline - trio.current_time()
            if failures and left <= 0:
                break
            share = left / (others + 1) if repeatable else left
            try:
                return member, await member.call(name, request, share)
            except RpcFailure as failure:
                error = failure.as_store_error(member.url)
                if not failure.transient:
                    raise error from None
                failures.append(str(error))
                self.avoid(member)
                if not repeatable and not failure.not_sent:
                    break
        raise StoreUnavailable("; ".join(failures))

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
    credentials = tls_credentials(*tls_files(settings)) if secure else None
    members = [
        Member(url, name, credentials if https else None, proto, login)
        for url, name, https in targets
    ]
    store = EtcdStore(members, proto, settings.timeout)
    try:
        yield store
    finally:
        store.close()
