"""Zone transfer as the daemon sees it: content, requests and NOTIFY put together.

Rule: `update` never waits, and costs nothing while nobody may transfer (`transfer.allow` is empty).
The content is published in slices, by `run`; a request that comes sooner publishes what is little
itself. Keys that cannot be read leave nobody able to sign, and so nobody able to transfer.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.settings import TransferSettings
from resolver.record import Name
from resolver.transfer.content import Source
from resolver.transfer.journal import serial_of
from resolver.transfer.keys import Key, KeyFault, parse_keys
from resolver.transfer.notifier import Notifier
from resolver.transfer.publisher import Hidden, Publisher
from resolver.transfer.respond import Transfer, Transfers
from resolver.transfer.tsig import Signer
from resolver.wire import Query

log = logging.getLogger(__name__)

SLICE = 0.002
"""Seconds of publishing until other tasks get their turn."""
GAP = 0.1
"""Seconds from the end of one publishing to the next, at least: bounds how many serials secondaries
are led through."""
GAP_MOST = 1.0
REST = 4.0
"""Times as long as the publishing took is the gap, up to `GAP_MOST`: a fifth of a processor goes
into a large service that changes all the time."""
SETTLE = 1.0
"""Seconds that NOTIFY waits at most for those who answer the SOA queries that it causes: a worker
that stands still is replaced sooner."""


def _nothing_hidden() -> Hidden:
    return {}


async def _at_once() -> None:
    await trio.lowlevel.checkpoint()


class TransferService:
    """Holds the domain ready for secondaries.

    Args:
        settings: ``[transfer]``.
        zone: A zone of this service's own, with the same settings as the one that answers; it is
            moved here only.
        host: Name of this host.
        metrics: Where to count.
        rng: For pauses.
        udp_size: ``dns.udp_size``.
        hidden: What the store holds and this host knows to be gone, at each moment.
        wall: Unix seconds.
    """

    def __init__(
        self,
        settings: TransferSettings,
        zone: Source,
        host: str,
        metrics: Metrics,
        *,
        rng: random.Random,
        udp_size: int = 1232,
        hidden: Callable[[], Hidden] = _nothing_hidden,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._zone = zone
        self._host = host
        self._metrics = metrics
        self._rng = rng
        self._udp_size = udp_size
        self._hidden = hidden
        self._wall = wall
        self._catalog: Catalog | None = None
        self._settings = TransferSettings()
        self._publisher = Publisher(zone, host, 0)
        self._transfers = Transfers(
            self._publisher, wall=wall, count=self._count, udp_size=udp_size
        )
        self._notifier = Notifier((), zone.apex, None, metrics, rng)
        self._changed = trio.Event()
        self._told: int | None = None
        self.settled: Callable[[], Awaitable[None]] = _at_once
        """Waits until all answers are of the newest Catalog. A secondary that is told of a serial
        asks for the SOA at once; answered with an older one, it would wait for its next refresh."""
        self._running = trio.CancelScope()
        self.configure(settings)

    def configure(self, settings: TransferSettings, *, zone_changed: bool = False) -> None:
        """Put settings in force, and read the keys again.

        The journal starts anew when its length changes. Secondaries are told of the zone once more.

        With `zone_changed`, the zone's own settings are others now; what it holds by them shows at
        the next serial.
        """
        before, self._settings = self._settings, settings
        if settings.journal != before.journal or bool(settings.allow) != bool(before.allow):
            self._publisher = Publisher(self._zone, self._host, settings.journal)
            self._transfers.publisher = self._publisher
            zone_changed = True
        if zone_changed and settings.allow and self._catalog is not None:
            self._publisher.note(self._catalog, None, self._hidden())
        keys = _load(settings.keys)
        self._transfers.configure(settings.allow, keys, signed=bool(settings.keys))
        self._notifier = Notifier(
            settings.notify,
            self._zone.apex,
            next(iter(keys.values()), None),
            self._metrics,
            self._rng,
        )
        self._told = None
        self._running.cancel()  # `run` goes on with the new parts

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one given, None: unknown."""
        self._metrics.dns_serial.set(serial_of(catalog.revision))
        self._catalog = catalog
        if self._settings.allow:
            self._publisher.note(catalog, change, self._hidden())
            if self._publisher.behind:
                self._changed.set()

    def respond(self, packet: bytes, query: Query, client: str, transport: str) -> Transfer:
        """The response to a query of type AXFR or IXFR; `Transfers.respond`."""
        return self._transfers.respond(packet, query, client, transport)

    def signed(self, packet: bytes, query: Query, response: bytes) -> bytes:
        """`response` to a signed query, signed as well; or what is wrong with the signature."""
        signer = self.verify(packet, query)
        if isinstance(signer, Signer):
            return self.sign(response, signer)
        return response if signer is None else signer

    def verify(self, packet: bytes, query: Query) -> Signer | bytes | None:
        """Check the signature of a query of any type; `Transfers.verify`."""
        return self._transfers.verify(packet, query)

    def sign(self, response: bytes, signer: Signer) -> bytes:
        """Sign the response to a query that `verify` took."""
        return self._transfers.sign(response, signer)

    async def run(self) -> None:
        """Publish what changes and tell the secondaries, until cancelled."""
        while True:
            with trio.CancelScope() as self._running:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._notifier.run)
                    await self._publish(self._publisher)

    async def _publish(self, publisher: Publisher) -> None:
        while True:
            if not publisher.behind and publisher.changed == self._told:
                await self._changed.wait()
            self._changed = trio.Event()
            took = await self._one(publisher)
            if publisher.changed != self._told:
                self._told = publisher.changed
                with trio.move_on_after(SETTLE):
                    await self.settled()
                self._notifier.changed(publisher.soa)
            await trio.sleep(min(max(GAP, REST * took), GAP_MOST))

    async def _one(self, publisher: Publisher) -> float:
        """Publish one serial, if there is one to publish; the seconds of work it took."""
        serial = publisher.serial
        took = 0.0
        start = time.perf_counter()
        while publisher.step() and publisher.serial == serial:
            now = time.perf_counter()
            if now - start > SLICE:
                took += now - start
                await trio.lowlevel.checkpoint()
                start = time.perf_counter()
        return took + time.perf_counter() - start

    def _count(self, kind: str, result: str) -> None:
        self._metrics.dns_transfers.labels(kind, result).inc()


def _load(path: str) -> Mapping[Name, Key]:
    """The keys of a file by their names; none, and a line in the log, when it cannot be had."""
    if not path:
        return {}
    try:
        return {key.name: key for key in parse_keys(Path(path).read_text())}
    except (OSError, UnicodeError, KeyFault) as error:
        log.error("no TSIG keys: every transfer is refused", extra=fields(file=path, error=error))
        return {}
