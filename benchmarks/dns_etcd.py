"""What writes to etcd in `make bench-dns`: the catalog beforehand, and changes while load runs.

Rule: records are written by discod's own codec and store, in transactions, at a fixed rate. Each
function runs in a process of its own, started by `dns_child`.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import trio

from benchmarks import dns_place
from benchmarks.dns_catalog import DOMAIN, PORT, PORT_NAME, address, service_name
from benchmarks.dns_child import tell
from benchmarks.dns_query import A, query
from discod.model.endpoint import Endpoint, Producer
from discod.model.schema import Keyspace, encode_endpoint
from discod.model.settings import StoreSettings
from discod.store.base import MAX_OPS, Put
from discod.store.opening import open_store

KEYS = Keyspace(DOMAIN)
TRANSACTIONS = 200
"""A second, of a steady stream of changes."""
LARGE = "large"
"""The service with many endpoints."""
SEEN_WITHIN = 5.0
"""Seconds for one change to be seen in answers."""


def endpoint(service: str, number: int, instance: int, *, other: bool, weight: int) -> Endpoint:
    """Endpoint `number` of all, which is `instance` of its service."""
    return Endpoint(
        service=service,
        instance=f"ep-{instance}",
        address=address(number, other=other),
        port=PORT,
        port_name=PORT_NAME,
        weight=weight,
        host="elsewhere",
        producer=Producer.STATIC,
        since=1.0,
    )


def put(service: str, number: int, instance: int, *, other: bool, weight: int) -> Put:
    """The record of an `endpoint`."""
    made = endpoint(service, number, instance, other=other, weight=weight)
    return Put(KEYS.record(made.id), encode_endpoint(made))


def numbered(number: int, each: int, *, other: bool = False, weight: int = 100) -> Put:
    """Endpoint `number` of a catalog with `each` endpoints in a service."""
    return put(service_name(number // each), number, number % each, other=other, weight=weight)


def _catalog(services: int, each: int, large: int) -> Iterator[Put]:
    total = services * each
    for number in range(total):
        yield numbered(number, each)
    for instance in range(large):
        yield put(LARGE, total + instance, instance, other=False, weight=1)


def fill(endpoints: Sequence[str], services: int, each: int, large: int = 0) -> int:
    """Write the catalog, and one service of `large` endpoints; how many records that is."""

    async def main() -> int:
        written = 0
        async with open_store(StoreSettings(endpoints=tuple(endpoints), timeout=30)) as store:
            batch: list[Put] = []
            for item in _catalog(services, each, large):
                batch.append(item)
                if len(batch) == MAX_OPS:
                    await store.commit(batch)
                    written, batch = written + len(batch), []
            if batch:
                await store.commit(batch)
            return written + len(batch)

    return trio.run(main)


def churn(
    endpoints: Sequence[str], services: int, each: int, rate: int, seconds: float, seed: int = 1
) -> dict[str, Any]:
    """Change `rate` endpoints a second, drawn from all: another address and weight each time.

    Says ``"changing"`` once it is under way.
    """
    rng = random.Random(seed)
    at_other: set[int] = set()

    async def main() -> dict[str, Any]:
        done, late, slowest = 0, 0, 0.0
        async with open_store(StoreSettings(endpoints=tuple(endpoints))) as store:
            begin = trio.current_time()
            for turn in range(int(seconds * TRANSACTIONS)):
                due = begin + turn / TRANSACTIONS
                late += trio.current_time() > due + 1 / TRANSACTIONS
                await trio.sleep_until(due)
                chosen = rng.sample(range(services * each), rate // TRANSACTIONS)
                at_other.symmetric_difference_update(chosen)
                start = time.perf_counter()
                await store.commit(
                    [
                        numbered(n, each, other=n in at_other, weight=rng.randint(1, 200))
                        for n in chosen
                    ]
                )
                slowest = max(slowest, time.perf_counter() - start)
                done += len(chosen)
                if turn == 0:
                    tell("changing")
            passed = trio.current_time() - begin
        return {"changes": done, "seconds": passed, "late": late, "slowest": slowest}

    return trio.run(main)


def changes_seen(
    endpoints: Sequence[str], server: str, first: int, runs: int, seed: int = 1
) -> dict[str, Any]:
    """Change one endpoint of the large service, `runs` times; until when answers have it.

    The changed endpoint gets nearly all the weight, so that it stands in every answer, of which one
    packet holds a part only. The service is asked without a pause until its new address is seen.

    Args:
        endpoints: Of etcd.
        server: Address that is asked.
        first: Number of the large service's first endpoint.
        runs: How often.
        seed: For the pauses between.

    Returns:
        Seconds ``sent`` (from before the write) and ``stored`` (from its acknowledgement, which may
        come after the answer: then negative), a list each.
    """
    rng = random.Random(seed)
    sent: list[float] = []
    stored: list[float] = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((dns_place.client_address(0), 0))
    sock.connect((server, dns_place.PORT))
    sock.setblocking(False)
    question = query(7, f"{LARGE}.{DOMAIN}", A, edns=True)

    async def seen(wanted: bytes) -> float:
        with trio.fail_after(SEEN_WITHIN):
            while True:
                sock.send(question)
                with trio.move_on_after(0.2):
                    await trio.lowlevel.wait_readable(sock)
                    if wanted in sock.recv(4096):
                        return time.perf_counter()

    async def main() -> None:
        async with open_store(StoreSettings(endpoints=tuple(endpoints))) as store:
            for run in range(runs):
                other = run % 2 == 0
                change = put(LARGE, first, 0, other=other, weight=65535)
                begin = time.perf_counter()
                at: list[float] = []

                async def watch(wanted: bytes, at: list[float]) -> None:
                    at.append(await seen(wanted))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch, address(first, other=other).packed, at)
                    await store.commit([change])
                    acknowledged = time.perf_counter()
                sent.append(at[0] - begin)
                stored.append(at[0] - acknowledged)
                await trio.sleep(rng.uniform(0.1, 0.2))

    trio.run(main)
    sock.close()
    return {"sent": sent, "stored": stored}
