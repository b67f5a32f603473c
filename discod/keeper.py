"""The keeper: holds the Catalog, writes it from the store's word, and tells its readers.

Rule: the only task-side owner of a `CatalogState`. Listeners are called synchronously, in the order
they were added, right after the swap: they may take note, and nothing else. Subscribers get bounded
queues; one that falls behind is cut off and has to read the Catalog again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.brake import Brake, Why
from discod.model.catalog import Catalog, CatalogState, Change
from discod.model.endpoint import Endpoint, EndpointId, Withdrawal
from discod.model.hint import Down
from discod.model.schema import Keyspace
from discod.model.settings import BrakeSettings
from discod.store.base import Delta, KeyValue, Snapshot, StoreError

log = logging.getLogger(__name__)

SUBSCRIBER_QUEUE = 1024
"""Changes a subscriber may lag behind."""

Listener = Callable[[Catalog, Change], None]


class Keeper:
    """The present Catalog of this daemon."""

    def __init__(
        self,
        keys: Keyspace,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        metrics: Metrics,
        host: str = "",
        brake: BrakeSettings | None = None,
    ) -> None:
        self.held: Callable[[], Collection[EndpointId]] = tuple
        """This host's own endpoints that the store lost and that are answered nevertheless; set by
        who constructs the parts."""
        settings = brake or BrakeSettings(enabled=False)
        self.brake = Brake(settings, host, lambda: len(self.held()))
        self._state = CatalogState(keys, host, self.brake)
        self._suspects = 0
        self._ended = self.brake.ended.copy()  # suspects that ended before the brake engaged
        self._counted = self.brake.ended.copy()  # in metrics
        self._wall = wall
        self._monotonic = monotonic
        self._metrics = metrics
        self._listeners: list[Listener] = []
        self._subscribers: set[trio.MemorySendChannel[Change]] = set()
        self._named: set[str] = set()  # invalid keys that were logged
        self._told = -1  # revision
        self._contact = monotonic()
        self.ready = trio.Event()
        """Set with the first snapshot."""
        self.connected = False
        self.error = "no snapshot yet"
        metrics.catalog_endpoints.set_function(
            lambda: sum(len(instances) for instances in self.catalog.services.values())
        )
        metrics.catalog_services.set_function(lambda: len(self.catalog.services))
        metrics.catalog_hosts.set_function(lambda: len(self.catalog.hosts))
        metrics.catalog_invalid.set_function(lambda: len(self.catalog.invalid))

    @property
    def catalog(self) -> Catalog:
        """The present Catalog."""
        return self._state.catalog

    @property
    def age(self) -> float:
        """Seconds since the store's last sign of life."""
        return self._monotonic() - self._contact

    def listen(self, listener: Listener) -> None:
        """Call `listener` at each change, and each revision, from now on."""
        self._listeners.append(listener)

    # The store's word ---------------------------------------------------------------------------

    def snapshot(self, snapshot: Snapshot) -> None:
        """Take a whole state of the store."""
        items = [(item.key, item.value, item.revision) for item in snapshot.items]
        change = self._state.reset(items, snapshot.revision, self._wall(), self._monotonic())
        self.contact(snapshot.revision)
        self._tell(change)
        self.ready.set()

    def delta(self, delta: Delta) -> None:
        """Take changes from the watch."""
        events = [
            (event.key, event.value if isinstance(event, KeyValue) else None, event.revision)
            for event in delta.events
        ]
        change = self._state.apply(events, delta.revision, self._wall(), self._monotonic())
        self.contact(delta.revision)
        self._tell(change)

    def contact(self, revision: int) -> None:
        """Take a sign of life."""
        del revision  # signs of life carry no news
        self._contact = self._monotonic()
        if not self.connected:
            self.connected, self.error = True, ""
            self._metrics.store_connected.set(1)
            log.info("store connected", extra=fields(revision=self.catalog.revision))

    def disconnected(self, error: StoreError) -> None:
        """The watch is broken; what is known stays in force."""
        if self.connected or str(error) != self.error:
            log.warning("store away, answering from memory", extra=fields(error=error))
        self.connected, self.error = False, str(error)
        self._metrics.store_connected.set(0)

    # This host's own word -----------------------------------------------------------------------

    def suppress(self, withdrawals: Iterable[Withdrawal]) -> None:
        """Take endpoints of this host out at once, before the store has said so."""
        self._tell(self._state.suppress(withdrawals, self._wall()))

    def unsuppress(self, endpoints: Iterable[Endpoint]) -> None:
        """Take `suppress` back of what is up again, as it is now (`CatalogState.unsuppress`)."""
        self._tell(self._state.unsuppress(endpoints, self._wall()))

    # Other hosts' word, sooner than the store's ------------------------------------------------

    def hint(self, host: str, down: Iterable[Down]) -> None:
        """Take endpoints out that their own host says have ended."""
        self._tell(self._state.hint(down, host, self._wall()))

    def unhint(self, ids: Iterable[EndpointId], host: str = "") -> None:
        """Forget hints; where a host is named, of that host only."""
        self._tell(self._state.unhint(ids, self._wall(), host))

    def silence(self, host: str, detail: str) -> None:
        """Take out all that another host announces, aliases too: it does not answer.

        What the store says stays the store's; this only hides it, and new records of that host
        with it, until `unsilence`. Of this host itself it does nothing.

        Args:
            host: Its name.
            detail: For people; stands behind "host NAME does not answer: ".
        """
        self._tell(self._state.silence(host, detail, self._wall()))

    def unsilence(self, host: str) -> None:
        """Take `silence` back: what the store still has is in again."""
        self._tell(self._state.unsilence(host, self._wall()))

    def hidden(self) -> Mapping[EndpointId, Endpoint]:
        """Endpoints that the store holds and the Catalog leaves out, for what is known sooner."""
        return self._state.hidden()

    def unconfirmed(self) -> list[tuple[Withdrawal, int]]:
        """What was suppressed, with the revision of its record; 0: the store has shown none."""
        return self._state.unconfirmed()

    # What the store lost, and is kept -----------------------------------------------------------

    def configure(self, settings: BrakeSettings) -> None:
        """Put other settings of the brake in force; switched off, it lets go of all suspects."""
        self.brake.settings = settings
        self.expire()

    def probed(self, id_: EndpointId, *, ok: bool, detail: str) -> None:
        """Take the result of a probe of a suspect; of anything else it does nothing."""
        self._tell(self._state.probed(id_, self._wall(), ok=ok, detail=detail))

    def expire(self) -> None:
        """Let go of suspects that were held for long enough."""
        self._tell(self._state.expire(self._wall(), self._monotonic()))

    def _watch_brake(self) -> None:
        """Count suspects, and say so once when the brake engages and once when it lets go."""
        suspects, ended = self.catalog.suspects, self.brake.ended
        engaged, self._suspects = self._suspects > 0, len(suspects)
        self._metrics.suspects.set(self._suspects)
        for why in (Why.WITHDRAWN, Why.FAILED, Why.EXPIRED):
            self._metrics.suspects_dropped.labels(why).inc(ended[why] - self._counted[why])
        self._counted = ended.copy()
        if suspects and not engaged:
            self._ended = ended.copy()
            self._metrics.brake_engaged.inc()
            log.warning(
                "brake engaged: endpoints that the store lost are kept as suspects",
                extra=fields(
                    suspects=len(suspects),
                    known=self.brake.known,
                    hosts=len({one.endpoint.host for one in suspects.values()}),
                    revision=self.catalog.revision,
                ),
            )
        elif engaged and not suspects:
            how = {str(why): ended[why] - self._ended[why] for why in Why}
            log.warning("brake let go: no suspects are left", extra=fields(**how))

    # Readers ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[trio.MemoryReceiveChannel[Change]]:
        """Subscribe to changes from now on."""
        send, receive = trio.open_memory_channel[Change](SUBSCRIBER_QUEUE)
        self._subscribers.add(send)
        try:
            async with receive:
                yield receive
        finally:
            self._subscribers.discard(send)
            send.close()

    def _tell(self, change: Change) -> None:
        catalog = self.catalog
        self._metrics.catalog_revision.set(catalog.revision)
        for key, fault in catalog.invalid.items():
            if key not in self._named:
                self._named.add(key)
                log.warning("record skipped", extra=fields(fault=fault))
        self._named &= catalog.invalid.keys()
        self._watch_brake()
        news = bool(change.services or change.hosts or change.entries)
        moved, self._told = catalog.revision != self._told, catalog.revision
        if not news and not moved:
            return
        # A revision alone counts as well: the store has said now what was known before, and the
        # zone's serial goes on with it.
        for listener in self._listeners:
            listener(catalog, change)
        if not news:
            return
        for entry in change.entries:
            self._metrics.catalog_changes.labels(entry.what).inc()
        for send in list(self._subscribers):
            try:
                send.send_nowait(change)
            except trio.WouldBlock:
                log.warning("subscriber too slow, cut off", extra=fields(queue=SUBSCRIBER_QUEUE))
                self._subscribers.discard(send)
                send.close()
            except trio.BrokenResourceError:
                self._subscribers.discard(send)
