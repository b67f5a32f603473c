"""The publisher: keeps the host's leases, and writes what the ledger says remains.

Rule: the one place of the announcer that awaits the store. Nothing is decided here; a failed write
is forgotten and asked of the ledger again.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

import trio

from announcer.ledger import Leases, Ledger
from announcer.shield import Shield
from discod.backoff import Backoff
from discod.log import fields
from discod.metrics import Metrics
from discod.model.endpoint import EndpointId
from discod.model.schema import Keyspace
from discod.store.base import (
    Delete,
    Delta,
    LeaseNotFound,
    Op,
    Put,
    Snapshot,
    Store,
    StoreError,
    StoreRejected,
    StoreUnavailable,
    Unchanged,
)

log = logging.getLogger(__name__)

CALM_PUTS = 5
CALM_WINDOW = 10.0
"""A value that was undone `CALM_PUTS` times within so many seconds is not put again sooner: two
hosts with one name, a tool that fights with us, or an endpoint that flaps, must not load the
store."""
CALM_PAUSE = 1.0
"""Seconds between two looks while nothing else is to be written."""
OUTDATED = 0.3
"""Seconds that the watch has, after a guard did not hold, to say what we do not know. Then the same
is written without guards: what stands in the way is nothing that a ledger knows (a stranger's value
under our key)."""
LAST_RENEWAL = 0.5
"""Seconds that stopping may wait for the last renewal of the lease."""


class Publisher:
    """Makes the store agree with the ledger."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        keys: Keyspace,
        lease_ttl: float,
        history_ttl: float,
        lease_file: Path | None,
        metrics: Metrics,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self.ledger = ledger
        self.shield = Shield(ledger)
        self._keys = keys
        self._lease_ttl = lease_ttl
        self._history_ttl = history_ttl
        self._lease_file = lease_file
        self._metrics = metrics
        self._rng = rng
        self._clock = clock
        self._host_lease = 0
        self._history_lease = 0
        self._wake = trio.Event()
        self._quiet = trio.Event()
        self._lease_doubt = trio.Event()
        self._history_doubt = trio.Event()
        self._puts: dict[str, tuple[bytes, list[float]]] = {}  # key -> value, when it was put
        self._fought_over: set[str] = set()
        self._outdated: dict[str, tuple[float, list[Unchanged]]] = {}  # see OUTDATED
        self._no_history = False  # the history lease is refused: nothing can be put
        self._unsaved = False
        """Whether the lease file could not be written; it is tried again at each renewal."""
        self._leaving: dict[str, float] = {}  # record key -> when its end was known, trio's clock
        self.error = ""
        """Why the last write failed; empty when it worked."""

    @property
    def leases(self) -> Leases | None:
        """The present leases; None before both are granted."""
        if self._host_lease and self._history_lease:
            return Leases(self._host_lease, self._history_lease)
        return None

    # The store's word, passed on from the daemon's one watch ------------------------------------

    def snapshot(self, snapshot: Snapshot) -> None:
        """Pass a snapshot of all keys on to the ledger."""
        self.ledger.snapshot(snapshot)
        self.wake()

    def delta(self, delta: Delta) -> None:
        """Pass changes on to the ledger."""
        for event in delta.events:
            self.ledger.seen(event)
        self.wake()

    def wake(self) -> None:
        """Something was offered or seen: look what remains."""
        self._wake.set()

    def expect_withdrawal(self, id_: EndpointId) -> None:
        """An endpoint's end is known now: measure until the store confirms its withdrawal."""
        self._leaving[self._keys.record(id_)] = trio.current_time()

    async def settled(self) -> None:
        """Wait until the store has confirmed everything; bounded by the caller."""
        quiet = self._quiet  # set only by a look at the ledger that comes after this
        self.wake()
        await quiet.wait()

    # Tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled. Leaves records and lease as they are: a restart causes no gap."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_host_lease)
                nursery.start_soon(self._keep_history_lease)
                nursery.start_soon(self._write)
        finally:
            with trio.move_on_after(LAST_RENEWAL, shield=True):
                await self._renew_once_more()

    async def _renew_once_more(self) -> None:
        """Leave the successor a whole TTL to start in."""
        if self._host_lease:
            try:
                await self._store.renew(self._host_lease)
            except StoreError as error:
                self._failed("lease", error)

    async def _write(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            leases = self.leases
            if leases is None:
                if self._no_history and self._host_lease:
                    await self._only_delete(Leases(self._host_lease, 0))
                continue
            transactions = self.ledger.pending(leases, self._clock())
            if not transactions:
                if self.ledger.known:
                    self._quiet.set()
                    self._quiet = trio.Event()
                    now = trio.current_time()
                    old = [k for k, (_, at) in self._puts.items() if at[-1] < now - CALM_WINDOW]
                    for key in old:
                        del self._puts[key]
                        self._fought_over.discard(key)
                continue
            wrote = False
            refused: StoreRejected | None = None
            try:
                for ops in transactions:
                    calm = [op for op in ops if self._calm(op)]
                    if calm:
                        refused = await self._commit_or_delete(calm) or refused
                        wrote = True
                if refused is not None:  # all others were tried: none waits behind it
                    raise refused
            except LeaseNotFound as error:
                self._failed("commit", error)
                self._lease_doubt.set()  # which of the two it was, renewing them tells
                self._history_doubt.set()
                await trio.sleep(backoff.pause())
            except StoreError as error:
                self._failed("commit", error)
                await trio.sleep(backoff.pause())
            else:
                self.error = ""
                backoff.reset()
                if not wrote:  # all of it is fought over: see who gives in
                    with trio.move_on_after(CALM_PAUSE):
                        await self._wake.wait()
            self.wake()

    def _calm(self, op: Op) -> bool:
        """Whether to write now: not what somebody else has undone again and again."""
        if not isinstance(op, Put):
            return True
        if len(self._lately(op)) < CALM_PUTS:
            return True
        if op.key not in self._fought_over:
            self._fought_over.add(op.key)
            log.error(
                "undone again and again, so written less often now: another writer, or flapping",
                extra=fields(key=op.key),
            )
        return False

    def _lately(self, op: Put) -> list[float]:
        """When this very value was put, within the window."""
        value, times = self._puts.get(op.key, (b"", []))
        since = trio.current_time() - CALM_WINDOW
        return [at for at in times if at > since] if value == op.value else []

    async def _commit_or_delete(self, ops: list[Op]) -> StoreRejected | None:
        """Commit; of what the store refuses, take at least the records away that have to go.

        A store whose space is used up refuses every Put and grants deletions. The withdrawal's
        reason is put later: the ledger goes on asking for it.
        """
        try:
            await self._commit(ops)
        except StoreRejected as error:
            for op in ops:
                if isinstance(op, Delete) and self.ledger.endpoint_of(op.key):
                    try:
                        await self._commit([op], guarded=False)
                    except StoreRejected:  # it refuses us altogether, and says so by `error`
                        break
            return error
        return None

    async def _only_delete(self, leases: Leases) -> None:
        """Without leases: nothing can be put, but what is gone can go."""
        for ops in self.ledger.pending(leases, self._clock()):
            for op in ops:
                if isinstance(op, Delete) and self.ledger.endpoint_of(op.key):
                    try:
                        await self._commit([op], guarded=False)
                    except StoreError as error:
                        self._failed("commit", error)
                        return

    async def _commit(self, ops: list[Op], *, guarded: bool = True) -> None:
        guards = self.ledger.guards(ops) if guarded else []
        now = trio.current_time()
        since, failed = self._outdated.get(ops[0].key, (now, None))
        if failed == guards and now - since >= OUTDATED:
            guards = []
        commit = await self._store.commit(ops, guards)
        if not commit.applied:
            if failed != guards:
                self._outdated[ops[0].key] = (now, guards)
            raise StoreUnavailable("the store holds other than was seen; looking again")
        self._outdated.pop(ops[0].key, None)
        self.ledger.committed(ops, commit.revision)
        for op in ops:
            if isinstance(op, Put):
                self._puts[op.key] = (op.value, [*self._lately(op), trio.current_time()])
            known = self._leaving.pop(op.key, None)
            if known is not None and isinstance(op, Delete):
                self._metrics.withdrawal_seconds.observe(trio.current_time() - known)

    async def _keep_host_lease(self) -> None:
        """Adopt the lease of the last run if it lives, else take a new one; renew at TTL / 3."""
        backoff = Backoff(self._rng)
        lease = await self._remembered()
        while True:
            try:
                if lease:
                    await self._store.renew(lease)
                else:
                    lease = await self._store.grant(self._lease_ttl)
                    await self._remember(lease)
                    log.info("lease granted", extra=fields(lease=f"{lease:x}", ttl=self._lease_ttl))
            except LeaseNotFound:
                log.warning("lease lost, announcing anew", extra=fields(lease=f"{lease:x}"))
                lease = self._host_lease = 0
                continue
            except StoreUnavailable as error:
                self._failed("lease", error)
                await trio.sleep(min(backoff.pause(), self._lease_ttl / 6))
                continue
            except StoreRejected as error:
                self._failed("lease", error)
                await trio.sleep(backoff.pause())
                continue
            backoff.reset()
            if self._unsaved:
                await self._remember(lease)
            if self._host_lease != lease:
                self._host_lease = lease
                self.ledger.leases_changed()
                self.wake()
            with trio.move_on_after(self._lease_ttl / 3):
                await self._lease_doubt.wait()
            self._lease_doubt = trio.Event()

    async def _keep_history_lease(self) -> None:
        """Take a new lease each half TTL: a withdrawal lives from half to a whole of it."""
        backoff = Backoff(self._rng)
        while True:
            try:
                self._history_lease = await self._store.grant(self._history_ttl)
            except StoreError as error:
                self._no_history = isinstance(error, StoreRejected)
                self._failed("lease", error)
                self.wake()
                await trio.sleep(backoff.pause())
                continue
            self._no_history = False
            backoff.reset()
            self.wake()
            with trio.move_on_after(self._history_ttl / 2):
                await self._history_doubt.wait()
            self._history_doubt = trio.Event()

    def _failed(self, call: str, error: StoreError) -> None:
        self._metrics.store_errors.labels(call, type(error).__name__).inc()
        if str(error) != self.error:
            log.warning("store call failed, will be repeated", extra=fields(call=call, error=error))
        self.error = str(error)

    async def _remembered(self) -> int:
        """The lease id that the last run left, 0 without one for these very keys.

        Of another host name, domain or prefix the records would never be ours to delete: with that
        lease renewed they would stay in DNS for ever, and without it they leave by themselves.
        """
        if self._lease_file is None:
            return 0
        try:
            saved = json.loads(await trio.Path(self._lease_file).read_text())
            mine = self._whose()
            # What an earlier version has not written down counts as the same.
            if any(saved.get(name, said) != said for name, said in mine.items()):
                log.info("lease of another configuration left to end", extra=fields(**mine))
                return 0
            lease = saved["lease"]
            return lease if isinstance(lease, int) else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning(
                "lease file unreadable, taking a new lease",
                extra=fields(file=self._lease_file, error=error),
            )
            return 0

    async def _remember(self, lease: int) -> None:
        if self._lease_file is None:
            return
        path = trio.Path(self._lease_file)
        new = path.with_suffix(".new")
        try:
            await new.write_text(json.dumps({"lease": lease, **self._whose()}))
            await new.replace(path)
        except OSError as error:
            if not self._unsaved:
                log.error(
                    "lease file not written, a restart now would announce anew; trying again",
                    extra=fields(file=self._lease_file, error=error),
                )
            self._unsaved = True
        else:
            if self._unsaved:
                log.info("lease file written", extra=fields(file=self._lease_file))
            self._unsaved = False

    def _whose(self) -> dict[str, str]:
        """What a lease's records have in common, and how long it lasts."""
        keys = self._keys
        return {
            "domain": keys.domain,
            "prefix": keys.prefix,
            "host": self.ledger.host,
            "ttl": f"{self._lease_ttl:g}",
        }
