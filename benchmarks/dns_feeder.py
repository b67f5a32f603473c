"""A worker without its daemon: it is told of changes as a daemon would tell it.

Rule: what costs the worker time is the real thing (its process, its protocol, its sockets); who
tells it takes so little of the other core that the load, which runs there as well, is never what
ends first. With the whole daemon, etcd and a writer on that core it is.
"""

from __future__ import annotations

import random
import signal
import time
from ipaddress import ip_address
from typing import Final

import trio

from benchmarks import dns_place
from benchmarks.dns_catalog import DOMAIN, service_name
from benchmarks.dns_child import Child, tell
from benchmarks.dns_etcd import TRANSACTIONS, endpoint
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Endpoint, Host
from discod.model.settings import DnsSettings, ListenAddress
from resolver import udp
from resolver.hot import spawn
from resolver.hot.protocol import Config
from resolver.hot.slots import APPLIED, SERVING, STATE
from resolver.hot.sync import News

STEPS: Final = TRANSACTIONS
"""A second, in which changes come: as when they are written to etcd."""
LOADED_WITHIN: Final = 30.0
"""Seconds for the worker to take the catalog."""
CHANGING, QUIET = signal.SIGUSR1, signal.SIGUSR2
"""What the feeder is told to do from now on."""
_SECRET = bytes(range(16))


class FedWorker:
    """A worker, and the feeder that it belongs to; a server for `benchmarks.dns_rig`.

    Args:
        at: Address of its DNS.
        cores: The server's, and the one for all else.
        services: How many it has.
        each: Endpoints of one.
        rate: Changes a second, once it is told to.
    """

    name = "discod"
    title = "discod's worker"

    def __init__(
        self, at: str, cores: tuple[int, int], *, services: int, each: int, rate: int
    ) -> None:
        self.address = at
        self._core = cores[0]
        self._feeder = Child(
            "benchmarks.dns_feeder:feed",
            cores[1],
            server=at,
            services=services,
            each=each,
            rate=rate,
        )
        self._worker = int(self._feeder.line())
        self.feeder = self._feeder.process.pid
        self.place()

    def change(self, yes: bool) -> None:
        """Have the catalog changed all the time, or no more."""
        self._feeder.process.send_signal(CHANGING if yes else QUIET)

    def place(self) -> None:
        """The worker on its core."""
        dns_place.pin(self._worker, [self._core])

    def place_for_tcp(self) -> None:
        """It has no TCP."""

    def pids(self) -> list[int]:
        """The worker: what the feeder costs is in no figure."""
        return [self._worker]

    def check(self) -> None:
        """Raise RuntimeError when it has ended."""
        if self._feeder.process.poll() is not None:
            raise RuntimeError("the feeder ended by itself")

    def stop(self) -> None:
        """End it; the worker ends with it."""
        self._feeder.stop()


def feed(server: str, services: int, each: int, rate: int, seed: int = 1) -> None:
    """Start a worker at the address `server`, tell its process id, and feed it until SIGTERM."""
    trio.run(_feed, server, services, each, rate, seed)


async def _feed(server: str, services: int, each: int, rate: int, seed: int) -> None:
    rng = random.Random(seed)
    numbers = range(services * each)
    records = {
        service_name(n): {f"ep-{i}": _endpoint(n * each + i, each, 100) for i in range(each)}
        for n in range(services)
    }
    # As an operator has it in all other parts (`benchmarks.dns_discod.FEATURES`).
    settings = DnsSettings(domain=DOMAIN, forward=False, cookies=True, rate_limit=1_000_000)
    own = Host("bench", (ip_address(server),))
    news = News(Config(settings, own, (_SECRET,)))
    news.update(Catalog(DOMAIN, 1, services=records), None)
    news.set_stale(False, True)
    with udp.bind(ListenAddress(ip_address(server), dns_place.PORT)) as sock:
        worker = await spawn.start([sock])
        try:
            told = news.feed(lambda: None)
            control = worker.control
            slots = worker.row.slots

            async def tell_it() -> None:
                while left := memoryview(told.frames()):
                    while left:
                        try:
                            left = left[control.send(left) :]
                        except BlockingIOError:
                            await trio.lowlevel.wait_writable(control)

            await tell_it()
            with trio.fail_after(LOADED_WITHIN):
                while slots[STATE] != SERVING or slots[APPLIED] != told.number:  # noqa: ASYNC110 - by memory only
                    await trio.sleep(0.01)
            revision, changing = 1, False
            due = time.monotonic()
            with trio.open_signal_receiver(CHANGING, QUIET) as signals:
                tell(worker.pid)
                while True:
                    if not changing:
                        changing = await anext(signals) == CHANGING
                        due = time.monotonic()
                        continue
                    due += 1 / STEPS
                    with trio.move_on_at(trio.current_time() + due - time.monotonic()):
                        changing = await anext(signals) == CHANGING
                    changed = set()
                    for number in rng.sample(numbers, rate // STEPS):
                        service = service_name(number // each)
                        row = _endpoint(number, each, rng.randint(1, 200), rng.random() < 0.5)
                        records[service][row.instance] = row
                        changed.add(service)
                    revision += len(changed)
                    catalog = Catalog(DOMAIN, revision, services=records)
                    news.update(catalog, Change(frozenset(changed), False, ()))
                    await tell_it()
        finally:
            await worker.end(kill=False)
            worker.close()


def _endpoint(number: int, each: int, weight: int, other: bool = False) -> Endpoint:
    """Endpoint `number` of all."""
    return endpoint(service_name(number // each), number, number % each, other=other, weight=weight)
