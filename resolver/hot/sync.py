"""What the workers still have to be told of the present state.

Rule: a `Feed` holds no history, only which services its worker does not know as they are; what is
told is read from the present Catalog at the moment of telling. So many changes of one service are
told once, and what waits for a worker that does not listen is bounded by the number of services.
Revision and readiness are told with the step that completes the state: a worker's SOA serial never
runs ahead of its contents, and it starts with the first whole snapshot, since it would deny a name
that it has not been told of (before, the daemon itself answers). Pure.

Usage: one `News`, told of every change; for each worker `News.feed`, and then, whenever the feed
has called `wake` or the last octets are gone, `Feed.frames` until it returns nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from discod.model.catalog import Catalog, Change
from resolver.hot.protocol import (
    BATCH_OCTETS,
    Config,
    Kind,
    Services,
    config_frame,
    frame,
    pack,
    pack_hosts,
    services_frame,
)

_NAME_COST = 16
"""Octets that a service takes in a frame beside its name and its packed form, about."""


class News:
    """The present state, for all workers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.catalog = Catalog(config.settings.domain)
        self.stale = False
        self.ready = False
        self.fronted = False
        self._feeds: list[Feed] = []
        self._packed: dict[str, bytes | None] = {}

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one, None: unknown.

        Costs microseconds for each changed service and feed (all services, when unknown).
        """
        before, self.catalog = self.catalog, catalog
        if change is None:
            self._packed.clear()
        else:
            for service in change.services:
                self._packed.pop(service, None)
        for feed in self._feeds:
            if change is None:
                # What a worker knows is what there was before, and what it is to be told anyway.
                # It is not told to forget: names that stay would be missing for a while.
                feed.changed((*_names(before), *_names(catalog)), hosts=True)
            else:
                feed.changed(change.services, hosts=change.hosts)

    def set_stale(self, stale: bool, ready: bool) -> None:
        """Say how the Catalog stands with the store."""
        if (stale, ready) != (self.stale, self.ready):
            self.stale, self.ready = stale, ready
            for feed in self._feeds:
                feed.moved()

    def set_fronted(self, fronted: bool) -> None:
        """Say whether services' own addresses stand for their endpoints; no service is re-told."""
        if fronted != self.fronted:
            self.fronted = fronted
            for feed in self._feeds:
                feed.moved()

    def configure(self, config: Config) -> None:
        """Take other settings."""
        if config != self.config:
            self.config = config
            for feed in self._feeds:
                feed.configured()

    def feed(self, wake: Callable[[], None]) -> Feed:
        """For a worker that knows nothing yet; `wake` is called when there is news for it."""
        made = Feed(self, wake)
        self._feeds.append(made)
        return made

    def leave(self, feed: Feed) -> None:
        """Its worker is gone."""
        self._feeds.remove(feed)
        self._packed.clear()

    def packed(self, service: str, asking: Feed) -> bytes | None:
        """A service as `protocol.pack` has it; None when there is none of that name.

        Packed once for all feeds that want it at about the same time, and kept no longer.
        """
        if service in self._packed:
            found = self._packed[service]
        else:
            endpoints = self.catalog.services.get(service, {})
            aliases = self.catalog.aliases.get(service, {})
            found = pack(endpoints.values(), aliases.values()) if endpoints or aliases else None
            self._packed[service] = found
        if not any(service in feed for feed in self._feeds if feed is not asking):
            del self._packed[service]
        return found


class Feed:
    """What one worker has to be told."""

    def __init__(self, news: News, wake: Callable[[], None]) -> None:
        self._news = news
        self._wake = wake
        self._number = 0
        self._revision = 0  # of the state that the worker knows whole
        self._ready = False
        self._started = False
        self._config = self._reset = self._hosts = self._head = True
        # By name, in the order in which they are told.
        self._services = OrderedDict.fromkeys(_names(news.catalog))

    def __contains__(self, service: str) -> bool:
        return service in self._services

    @property
    def number(self) -> int:
        """Of the last frame of changes; what `slots.APPLIED` comes to when it is in force."""
        return self._number

    @property
    def idle(self) -> bool:
        """Whether everything has been told."""
        return not (self._config or self._head or self._services)

    def changed(self, services: Iterable[str], *, hosts: bool) -> None:
        """The Catalog is another one: in these services, and in its hosts or not."""
        for service in services:
            self._services[service] = None
        self._hosts |= hosts
        self._head = True
        self._wake()

    def moved(self) -> None:
        """What each step says beside the Catalog is different."""
        self._head = True
        self._wake()

    def configured(self) -> None:
        """The settings are others."""
        self._config = True
        self._wake()

    def frames(self, octets: int = BATCH_OCTETS) -> bytes:
        """The next frames, of about `octets` octets in all (one service more at most).

        Empty when the worker has been told everything. An endpoint costs about 2 us, so
        the default is some 700 of them in 1.5 ms, whatever the Catalog's size; a service is never
        divided.
        """
        out = b""
        if self._config:
            self._config = False
            out += config_frame(self._news.config)
        if self._head or self._services:
            out += self._step(octets)
        if self._ready and not self._started:
            self._started = True
            out += frame(Kind.GO)
        return out

    def _step(self, octets: int) -> bytes:
        news = self._news
        batch: list[tuple[str, bytes | None]] = []
        size = 0
        waiting = self._services
        while waiting and size < octets:
            service, _ = waiting.popitem(last=False)
            packed = news.packed(service, self)
            if packed is not None or not self._reset:
                batch.append((service, packed))
                size += len(service) + _NAME_COST + len(packed or b"")
        self._ready &= news.ready
        if not waiting:
            self._revision, self._ready = news.catalog.revision, news.ready
        self._number += 1
        step = Services(
            number=self._number,
            revision=self._revision,
            ready=self._ready,
            stale=news.stale,
            hosts=pack_hosts(news.catalog.hosts.values()) if self._hosts else None,
            services=tuple(batch),
            reset=self._reset,
            fronted=news.fronted,
        )
        self._reset = self._hosts = self._head = False
        return services_frame(step)


def _names(catalog: Catalog) -> Iterator[str]:
    """Of all services, those that are aliases included; some twice."""
    yield from catalog.services
    yield from catalog.aliases
