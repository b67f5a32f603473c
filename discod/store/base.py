"""The key-value store as the features see it.

Rule: interface and values only. Both implementations (`discod.store.memory`, `discod.store.etcd`)
pass one conformance suite (`tests/conformance/test_store.py`); whatever that suite does not say, no
caller may rely on. Semantics are etcd v3's (https://etcd.io/docs/v3.4/learning/api/): one revision
for the whole store, raised by one with each transaction that changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

MAX_OPS = 128
"""Operations in one transaction: etcd's default ``--max-txn-ops``."""


class StoreError(Exception):
    """Any failure of the store."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, has no leader, or did not answer in time. Worth a retry.

    A commit that ends like this may or may not have been applied.
    """


class StoreRejected(StoreError):
    """The store answered and said no: credentials, permission, space, a malformed request."""


class LeaseNotFound(StoreError):
    """The lease expired or was revoked; everything attached to it is gone."""


class Compacted(StoreError):
    """The revision asked for is gone; take a new snapshot."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as it stands."""

    key: str
    value: bytes
    revision: int
    """Of its last change (etcd's ``mod_revision``)."""
    lease: int = 0
    """0 when it has none."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A key that was deleted, by hand or because its lease ended."""

    key: str
    revision: int


Event = KeyValue | Removed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys below some prefixes at one revision."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed, in the store's order; all events of one revision are in one Delta.

    Without events it is a sign of life: everything up to `revision` has been delivered.
    """

    revision: int
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; `lease` 0 attaches none."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key; no fault when it is absent."""

    key: str


Op = Put | Delete


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Guard: the key's last change is `revision`; 0 means that the key is absent.

    Absence may return, a revision never does: what must not happen after a later deletion needs a
    second guard on a key that the deletion writes.
    """

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Commit:
    """How a transaction ended."""

    applied: bool
    """False when a guard did not hold; then nothing was changed."""
    revision: int
    """The store's revision after it."""


class Watch(Protocol):
    """An open watch; iterate to receive. At least one Delta arrives per progress interval."""

    def __aiter__(self) -> Watch:
        """Itself."""
        ...

    async def __anext__(self) -> Delta:
        """The next changes or sign of life.

        Raises:
            Compacted: start again from a snapshot.
            StoreUnavailable: the stream broke or was silent for too long; watch again from the
                last revision delivered + 1.
            StoreRejected: the store refuses the watch.
        """
        ...


class Store(Protocol):
    """A key-value store with revisions, leases, transactions and watches.

    Every request ends within the store's own deadline (configured, default 3 s) by an answer or by
    `StoreUnavailable`, and is cancellable at once. A snapshot makes one request for each 10,000
    keys, every other call one.
    """

    @property
    def kind(self) -> str:
        """``memory`` or ``etcd``."""
        ...

    async def snapshot(self, prefixes: Sequence[str]) -> Snapshot:
        """All keys below `prefixes`, at one revision, sorted by key.

        Raises:
            StoreUnavailable, StoreRejected.
        """
        ...

    async def commit(self, ops: Sequence[Op], guards: Sequence[Unchanged] = ()) -> Commit:
        """Apply at most `MAX_OPS` operations on different keys as one transaction.

        Raises:
            LeaseNotFound: a Put names a lease that is gone; nothing was changed.
            StoreUnavailable, StoreRejected.
        """
        ...

    async def grant(self, ttl: float) -> int:
        """A new lease of at least `ttl` seconds (rounded up to whole ones).

        Raises:
            StoreUnavailable, StoreRejected.
        """
        ...

    async def renew(self, lease: int) -> float:
        """Renew a lease; the seconds it now has.

        Raises:
            LeaseNotFound, StoreUnavailable, StoreRejected.
        """
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease and delete what is attached to it; no fault when it is gone.

        Raises:
            StoreUnavailable, StoreRejected.
        """
        ...

    def watch(self, prefixes: Sequence[str], after: int) -> AbstractAsyncContextManager[Watch]:
        """Watch `prefixes` for everything that changes after revision `after`.

        `after` beyond the store's revision raises `Compacted`: this is another store, or an older
        state of it.
        """
        ...
