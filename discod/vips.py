"""Addresses that services have of their own: given out once, in the store, to last.

Rule: an address is given out by one transaction that writes who has it and what the service has,
guarded by both being as they were read. So it works from any number of hosts at once, and none of
them is in charge. Nothing here takes an endpoint out of DNS: who cannot have what it asks for goes
on with its own address, and its fault is told.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn, Protocol

import trio

from discod.backoff import Backoff
from discod.log import fields
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Fault
from discod.model.fields import RecordError
from discod.model.report import ProducerReport
from discod.model.rescue_settings import VipSettings
from discod.model.schema import Keyspace, VipKey, VipOwnerKey
from discod.model.vip import Refused, VipRecord, VipTable, VipWish, choose, satisfied
from discod.model.vip_records import decode_vip, decode_vip_owner, encode_vip, encode_vip_owner
from discod.store.base import Delete, Op, Put, Store, StoreRejected, StoreUnavailable, Unchanged

log = logging.getLogger(__name__)

LOOK_AGAIN = 30.0
"""Seconds after which a wish that is not fulfilled is looked at again, though nothing changed."""
RELEASE_TRIES = 5
"""Tries of a release that somebody's change got ahead of."""

SLICE = 64
"""Keys that are read in one go; about a millisecond."""

Held = Mapping[str, tuple[Address, ...]]
"""Service -> its own addresses."""


class Asking(Protocol):
    """The announcer, as far as services' own addresses are concerned."""

    def vip_wishes(self) -> Iterable[VipWish]:
        """What producers of this host ask for."""
        ...

    def learn_vips(self, vips: Held, *, ours: bool) -> None:
        """Take the addresses that services have of their own.

        Args:
            vips: Of all services.
            ours: Whether any is of a service that is asked for here.
        """
        ...


class Vips:
    """Services' own addresses, on this host.

    Args:
        settings: ``[vip]``.
        store: Where they are kept.
        keys: Of the store.
        asking: Who asks for them, and learns them.
        rng: For jitter.
        wall: Unix seconds.
    """

    def __init__(
        self,
        settings: VipSettings,
        store: Store,
        keys: Keyspace,
        asking: Asking,
        *,
        rng: random.Random,
        wall: Callable[[], float],
    ) -> None:
        self._pool = settings.pool
        self._store = store
        self._keys = keys
        self._asking = asking
        self._rng = rng
        self._wall = wall
        self._catalog: Catalog | None = None
        self._wake = trio.Event()
        self._judged: tuple[frozenset[VipWish], Held] | None = None
        self._given = 0
        self.held: Held = MappingProxyType({})
        """What services have; of those asked for here also what the store has lost and is to get
        again."""
        self.faults: Mapping[VipWish, Fault] = MappingProxyType({})
        """Wishes of this host that cannot be fulfilled."""

    # What is told to it -------------------------------------------------------------------------

    def update(self, catalog: Catalog, change: Change) -> None:
        """Take another Catalog: a listener of the keeper.

        Producers are read anew here, and not by a task: at the start, before anything is written,
        they must have the addresses that they had before.
        """
        before, self._catalog = self._catalog, catalog
        if before is not None and before.vips is catalog.vips:
            return
        named = catalog.vips if before is None else change.services
        wished = {wish.service for wish in self._asking.vip_wishes()}
        held = dict(catalog.vips)
        gone = self.held.keys() - held.keys()
        if gone:  # those of services that are asked for here are to be had again
            taken = {address for addresses in held.values() for address in addresses}
            kept = [s for s in gone & wished if taken.isdisjoint(self.held[s])]
            held.update((service, self.held[service]) for service in kept)
        moved = {s for s in (*named, *gone) if held.get(s) != self.held.get(s)}
        if moved:
            self.held = MappingProxyType(held)
            self._asking.learn_vips(self.held, ours=not moved.isdisjoint(wished))
        self._wake.set()

    def refresh(self) -> None:
        """Producers of this host may ask for something else."""
        self._wake.set()

    def told(self, reports: Iterable[ProducerReport]) -> tuple[ProducerReport, ...]:
        """The reports, with what is wrong with the addresses that their services ask for."""
        faults: dict[str, list[Fault]] = {}
        for wish, fault in self.faults.items():
            faults.setdefault(wish.service, []).append(fault)
        if not faults:
            return tuple(reports)
        return tuple(
            replace(
                report,
                warnings=tuple(
                    fault
                    for service in dict.fromkeys(one.endpoint.service for one in report.endpoints)
                    for fault in faults.get(service, ())
                ),
            )
            for report in reports
        )

    # Giving out ---------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Give out what is asked for, until cancelled.

        Tried again, after a pause of 50 ms to 2 s with jitter: what failed for the store
        (`StoreUnavailable`, `StoreRejected`), and what another host's change got ahead of.
        """
        backoff = Backoff(self._rng)
        failing = False
        while True:
            self._wake = trio.Event()
            try:
                before = self._given
                settled = await self._settle()
                failing = False
                if self._given != before:
                    backoff.reset()  # there is progress
            except (StoreUnavailable, StoreRejected) as error:
                if not failing:
                    log.warning("service addresses wait for the store", extra=fields(error=error))
                failing, settled = True, False
            if not settled:
                await trio.sleep(backoff.pause())
                continue
            backoff.reset()
            with trio.move_on_after(LOOK_AGAIN) as waited:
                await self._wake.wait()
            if waited.cancelled_caught:
                self._judged = None

    async def _settle(self) -> bool:
        """Give out all that is asked for; False: another host was quicker, look again."""
        catalog = self._catalog
        if catalog is None:
            return True
        unmet = [
            wish
            for wish in set(self._asking.vip_wishes())
            if not satisfied(wish, catalog.vips.get(wish.service, ()), self._pool)
        ]
        judged = frozenset(unmet), catalog.vips
        if not unmet:
            self._tell({})
            return True
        if (
            self._judged is not None
            and judged[0] == self._judged[0]
            and judged[1] is self._judged[1]
        ):
            return True
        book = await self._read()
        avoid = {address for host in catalog.hosts.values() for address in host.addresses}
        faults: dict[VipWish, Fault] = {}
        overtaken = False
        for wish in self._ordered(unmet):
            has = book.of(wish.service)
            if satisfied(wish, has, self._pool):
                continue
            before = self.held.get(wish.service, ())
            try:
                found = choose(
                    wish,
                    has,
                    book.owners,
                    self._pool,
                    avoid=avoid | book.unreadable,
                    before=before,
                )
            except Refused as refused:
                faults[wish] = Fault(wish.subject, wish.value, str(refused))
                continue
            # Whoever was quicker has changed some keys, not all: the others are gone on with.
            overtaken |= not await self._give(book, wish, found)
        if overtaken:
            return False
        self._tell(faults)
        self._judged = judged
        return True

    def _ordered(self, wishes: Iterable[VipWish]) -> Sequence[VipWish]:
        """Fixed ones first, lest another service gets their address; the others in any order.

        Else hosts that begin together would all go for the same service, one after the other.
        """
        ranked = sorted(wishes, key=lambda wish: (wish.service, wish.subject, wish.value))
        fixed = [wish for wish in ranked if not isinstance(wish.word, str)]
        auto = [wish for wish in ranked if isinstance(wish.word, str)]
        self._rng.shuffle(auto)
        return [*fixed, *auto]

    async def _read(self) -> _Book:
        snapshot = await self._store.snapshot([self._keys.vips])
        book = _Book()
        for number, item in enumerate(snapshot.items, 1):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()  # the end of an endpoint shall not wait for it
            book.revisions[item.key] = item.revision
            try:
                match self._keys.parse(item.key):
                    case VipKey(service):
                        record = decode_vip(item.key, service, item.value, item.revision)
                        book.put_service(service, record)
                    case VipOwnerKey(address):
                        book.unreadable.add(address)
                        book.put_owner(address, decode_vip_owner(item.key, item.value))
                        book.unreadable.discard(address)
            except RecordError:
                pass  # the Catalog names it; its revision guards what is written over it
        return book

    async def _give(self, book: _Book, wish: VipWish, found: tuple[Address, ...]) -> bool:
        """Write what a service gets; False: not so, somebody changed what was read.

        Raises:
            StoreUnavailable: perhaps it is written; who looks again sees it.
            StoreRejected.
        """
        service, known = wish.service, book.services.get(wish.service)
        fixed = not isinstance(wish.word, str) or (known and known.requested == "fixed")
        record = VipRecord(
            service,
            found,
            "fixed" if fixed else "auto",
            known.since if known else self._wall(),
        )
        key = self._keys.vip(service)
        ops: list[Op] = [Put(key, encode_vip(record))]
        guards = [Unchanged(key, book.revisions.get(key, 0))]
        for address in found:
            if book.owners.get(address) != service:
                owner = self._keys.vip_owner(address)
                ops.append(Put(owner, encode_vip_owner(service)))
                guards.append(Unchanged(owner, 0))
        commit = await self._store.commit(ops, guards)
        if not commit.applied:
            return False
        for op in ops:
            book.revisions[op.key] = commit.revision
        book.put_service(service, record)
        for address in found:
            book.put_owner(address, service)
        self._given += 1
        log.info(
            "service address given out",
            extra=fields(
                service=service,
                addresses=",".join(map(str, found)),
                requested=record.requested,
            ),
        )
        return True

    def _tell(self, faults: Mapping[VipWish, Fault]) -> None:
        for wish, fault in faults.items():
            if self.faults.get(wish) != fault:
                log.error(
                    "service address refused", extra=fields(service=wish.service, fault=fault)
                )
        self.faults = MappingProxyType(dict(faults))

    # Taking back --------------------------------------------------------------------------------

    async def release(self, service: str) -> str:
        """Give a service's own addresses back, so that others can have them.

        Returns what was done, in words, once the store has confirmed it.

        Raises:
            LookupError: it has none.
            ValueError: an endpoint of it is up, somebody here asks for it, or the store cannot do
                it now.
        """
        catalog = self._catalog
        if catalog is None:
            raise ValueError("expected a state of the store, and none is known yet")
        up = len(catalog.services.get(service, ()))
        if up:
            raise ValueError(
                f"expected a service without endpoints that are up, and {service} has {up}"
            )
        askers = [wish for wish in self._asking.vip_wishes() if wish.service == service]
        if askers:
            raise ValueError(
                f"expected nobody on this host who asks for it: {askers[0].subject} ="
                f" {askers[0].value} would get it again"
            )
        backoff = Backoff(self._rng)
        for _ in range(RELEASE_TRIES):
            try:
                released = await self._take_back(service)
            except (StoreUnavailable, StoreRejected) as error:
                raise ValueError(f"the store has not confirmed it: {error}") from None
            if released is not None:
                shown = ", ".join(map(str, released))
                log.info("service address released", extra=fields(service=service, addresses=shown))
                return f"service {service} has released {shown or 'what it had'}"
            await trio.sleep(backoff.pause())
        raise ValueError(f"the addresses of {service} are being changed by others, try again")

    async def _take_back(self, service: str) -> tuple[Address, ...] | None:
        book = await self._read()
        released = tuple(a for a, owner in book.owners.items() if owner == service)
        keys = [self._keys.vip(service), *map(self._keys.vip_owner, released)]
        ours = [key for key in keys if key in book.revisions]
        if not ours:
            raise LookupError(f"service {service!r} has no address of its own")
        guards = [Unchanged(key, book.revisions[key]) for key in ours]
        commit = await self._store.commit([Delete(key) for key in ours], guards)
        return released if commit.applied else None


class _Book(VipTable):
    """What the store had when it was read, and what was written since."""

    def __init__(self) -> None:
        super().__init__()
        self.revisions: dict[str, int] = {}
        """Of every key."""
        self.unreadable: set[Address] = set()
        """Addresses of which it cannot be read who has them."""
