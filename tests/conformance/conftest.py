"""The stores under test: the in-memory one, and a real etcd."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import trio

from discod.model.settings import StoreSettings
from discod.store.base import Put, Store
from discod.store.memory import HISTORY
from discod.store.opening import open_store
from tests.lab.etcd import EtcdCluster

_prefixes = itertools.count(1)

Compact = Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.lab)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[EtcdCluster]:
    if shutil.which("etcd") is None:
        if os.environ.get("CI"):
            pytest.fail("etcd is not installed")
        pytest.skip("etcd is not installed")
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture
def clock(kind: str) -> trio.abc.Clock | None:
    """Jumps where the store lives by trio's clock; real time for etcd."""
    return trio.testing.MockClock(autojump_threshold=0) if kind == "memory" else None


@pytest.fixture
def settings(kind: str, request: pytest.FixtureRequest) -> StoreSettings:
    if kind == "memory":
        return StoreSettings()
    cluster: EtcdCluster = request.getfixturevalue("shared_etcd")
    return StoreSettings(endpoints=cluster.endpoints)


@pytest.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Store]:
    async with open_store(settings) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    """A part of the key space that no other test uses."""
    return f"/test/{next(_prefixes):04}/"


@pytest.fixture
def compact(kind: str, store: Store, request: pytest.FixtureRequest) -> Compact:
    """Makes the store forget all its history."""

    async def memory() -> None:
        for _ in range(HISTORY + 1):
            await store.commit([Put("/elsewhere", b"")])

    async def etcd() -> None:
        cluster: EtcdCluster = request.getfixturevalue("shared_etcd")
        revision = (await store.commit([Put("/elsewhere", b"")])).revision
        await trio.to_thread.run_sync(cluster.members[0].etcdctl, "compact", str(revision))

    return memory if kind == "memory" else etcd
