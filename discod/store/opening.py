"""Which store the settings ask for.

Rule: the etcd adapter, and with it gRPC, is imported only where it is used: a host on the memory
store pays for neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from discod.model.settings import StoreSettings
from discod.store.base import Store


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[Store]:
    """The store of these settings, open for as long as the context lasts.

    Opening connects to nothing: with etcd down it succeeds at once, and calls raise
    `StoreUnavailable` until etcd is up.

    Raises:
        StoreRejected: a TLS file cannot be read, or an endpoint is no URL.
    """
    if not settings.endpoints:
        from discod.store.memory import open_memory_store

        async with open_memory_store() as memory:
            yield memory
    else:
        from discod.store.etcd import open_etcd_store

        async with open_etcd_store(settings) as etcd:
            yield etcd
