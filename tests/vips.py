"""Hosts that give out services' own addresses, for tests on either store."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from ipaddress import ip_network

import trio

from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.catalog import CatalogState
from discod.model.endpoint import Address
from discod.model.rescue_settings import VipSettings
from discod.model.schema import Keyspace
from discod.model.vip import VipWish, VipWord, show_vip
from discod.store.base import Delta, Snapshot, Store, StoreError
from discod.store.follow import follow
from discod.vips import Held, Vips

WALL = 1_764_000_000.0


def wish(service: str, word: VipWord = "auto") -> VipWish:
    return VipWish(service, word, "discod.vip", show_vip(word))


class VipHost:
    """One host: a keeper that follows the store, `Vips`, and an announcer that the test plays."""

    def __init__(
        self,
        store: Store,
        keys: Keyspace,
        pool: Sequence[str],
        wishes: Iterable[VipWish] = (),
        seed: int = 0,
    ) -> None:
        self.wishes = list(wishes)
        self.learned: list[tuple[dict[str, tuple[Address, ...]], bool]] = []
        self.keeper = Keeper(
            keys, wall=lambda: WALL, monotonic=trio.current_time, metrics=Metrics()
        )
        self._store, self._keys, self._seed = store, keys, seed
        settings = VipSettings(tuple(map(ip_network, pool)))
        self.vips = Vips(settings, store, keys, self, rng=random.Random(seed), wall=lambda: WALL)
        self.keeper.listen(self.vips.update)

    # As an announcer

    def vip_wishes(self) -> list[VipWish]:
        return self.wishes

    def learn_vips(self, vips: Held, *, ours: bool) -> None:
        self.learned.append((dict(vips), ours))

    # As an observer of the store

    def snapshot(self, snapshot: Snapshot) -> None:
        self.keeper.snapshot(snapshot)

    def delta(self, delta: Delta) -> None:
        self.keeper.delta(delta)

    def contact(self, revision: int) -> None:
        self.keeper.contact(revision)

    def disconnected(self, error: StoreError) -> None:
        self.keeper.disconnected(error)

    # For tests

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            rng = random.Random(self._seed)
            nursery.start_soon(lambda: follow(self._store, self._keys.prefixes, self, rng=rng))
            nursery.start_soon(self.vips.run)

    def ask(self, *wishes: VipWish) -> None:
        self.wishes = list(wishes)
        self.vips.refresh()

    async def has(self, services: int, within: float = 30.0) -> Held:
        """The Catalog's addresses, once so many services have some."""
        with trio.move_on_after(within):
            async with self.keeper.changes() as changes:
                while len(self.keeper.catalog.vips) != services:
                    await changes.receive()
        found = self.keeper.catalog.vips
        assert len(found) == services, f"{len(found)} of {services}: {self.vips.faults}"
        return found

    async def refused(self, wishes: int, within: float = 30.0) -> dict[str, str]:
        """Service -> what was expected, once so many wishes are refused."""
        with trio.move_on_after(within):
            while len(self.vips.faults) != wishes:  # noqa: ASYNC110 - it is a mapping
                await trio.sleep(0.01)
        found = {w.service: fault.expected for w, fault in self.vips.faults.items()}
        assert len(self.vips.faults) == wishes, found
        return found


async def check_store(store: Store, keys: Keyspace) -> dict[str, tuple[Address, ...]]:
    """What the store says; no address twice, and both keys of each."""
    snapshot = await store.snapshot([keys.vips])
    state = CatalogState(keys)
    state.reset([(i.key, i.value, i.revision) for i in snapshot.items], snapshot.revision, WALL)
    found = dict(state.catalog.vips)
    assert not state.catalog.invalid
    every = [address for addresses in found.values() for address in addresses]
    assert len(every) == len(set(every)), "an address twice"
    owners = [i.key for i in snapshot.items if i.key.startswith(f"{keys.vips}address/")]
    assert len(owners) == len(every), "an owner's key without its service, or the reverse"
    assert all(item.lease == 0 for item in snapshot.items)
    return found


def families(addresses: Iterable[Address]) -> list[int]:
    return [one.version for one in addresses]


__all__ = ["WALL", "VipHost", "check_store", "families", "wish"]
