"""The daemon: constructs every part, joins them, and runs them until it is told to stop.

Rule: the composition root. Only this module constructs features; it decides nothing that a part
could decide. Data flows one way: Docker -> roster -> store -> keeper -> resolver, API.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path

import trio

from announcer.announcer import Announcer
from announcer.offer import Scope
from announcer.offers import ContainerView
from discod import __version__
from discod.activation import ActivationError, adopt, handed
from discod.addresses import watch_addresses
from discod.banner import banner
from discod.config import ConfigError, load_config
from discod.hints import hints_for
from discod.http import build_app
from discod.http_server import serve_http
from discod.identity import host_addresses, host_name
from discod.keeper import Keeper
from discod.lag import LoopLag
from discod.liveness import watch_for
from discod.log import fields, setup
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Host
from discod.model.report import PartReport, ProducerReport
from discod.model.schema import Keyspace, encode_host
from discod.model.settings import ServiceSettings, Settings
from discod.notify import Notifier, watchdog_period
from discod.paths import SOCKET_NAME, runtime_dir, state_dir
from discod.place import Memory, PlaceError, keep, make_directory, only_host, only_one, remember
from discod.readiness import Gate
from discod.reload import needs_restart
from discod.rescuing import Rescuing
from discod.routing import BgpView, Routing
from discod.store.base import Store, StoreRejected
from discod.store.follow import follow
from discod.store.opening import open_store
from discod.store_word import StoreWord
from discod.suspects import Suspects
from discod.twin import TwinWatch
from discod.view import Announcement, StoreReport
from discod.vips import Vips
from resolver.forwarding.pool import OwnUpstreamError
from resolver.server import Resolver
from resolver.transfer.service import TransferService
from resolver.zone import Zone

log = logging.getLogger(__name__)

STORE_SILENT = 10.0
"""Seconds without a sign of life after which the store counts as away, whatever the watch says."""
BANNER_WAIT = 3.0
"""Seconds that the first summary waits for the store and the engine."""
DRAIN_WAIT = 10.0
"""Seconds that `drain` waits for the store's confirmation."""


class Daemon:
    """One running discod; also what the API sees of it (`discod.view.View`)."""

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        environ: Mapping[str, str],
        store: Store,
        runtime: Path,
        state: Path,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.settings = settings
        self._config_path = config_path
        self._state_dir = state
        self._handed = sockets
        self._socket = runtime / SOCKET_NAME if settings.http.socket else None
        self._notifier = Notifier.from_environ(environ)
        self._tick_period = min(1.0, watchdog_period(environ, os.getpid()) or 1.0)
        self._quiet = self._notifier.listening  # under systemd the journal is no screen
        self._store = store
        self._started = time.time()
        self._config_fault = ""
        self._memory: Memory = remember(state)
        self.host = host_name(settings.host)
        self._addresses = host_addresses(settings.host)
        self._zone = settings.host.zone
        self._keys = Keyspace(settings.dns.domain, settings.store.prefix)
        self.metrics = Metrics()
        self.metrics.build_info.labels(__version__).set(1)
        rng = random.Random()
        self._rng = rng
        self.keeper = Keeper(
            self._keys,
            wall=time.time,
            monotonic=time.monotonic,
            metrics=self.metrics,
            host=self.host,
            brake=settings.brake,
        )
        self._suspects = Suspects(self.keeper, rng=rng)
        who = (self.host, settings.dns.domain, self._addresses, store.kind)
        self._hints = hints_for(self.keeper, *who, settings.announce.hint_port, self.metrics)
        self._liveness = watch_for(self.keeper, *who, settings.liveness, self.metrics)
        self.silent = self._liveness.silent if self._liveness else {}
        self.announcer = Announcer(
            store,
            settings.store,
            self._keys,
            self._scope(settings),
            self._hints or self.keeper,
            self.metrics,
            lease_file=None if store.kind == "memory" else runtime / "lease.json",
            rng=rng,
            wall=time.time,
        )
        self.keeper.held = self.announcer.publisher.shield.held
        view = ContainerView(self.announcer)
        routed = (self.keeper, view, self.metrics, state, rng)
        record = self._host_record(bgp=False)
        self._routing = Routing(settings.bgp, record, *routed, self._announce_host)
        # Before the resolver hears of a change: what is used again is not redirected any more.
        self._vips = Vips(settings.vip, store, self._keys, self.announcer, rng=rng, wall=time.time)
        self.keeper.listen(self._vips.update)
        view.listen(self._vips.refresh)
        self._rescuing = Rescuing(
            settings, record, self.keeper, view, self.metrics, rng,
            state=state, take_over=self._routing.take_over,
            follows=lambda follows: self.resolver.set_fronted(follows),
        )  # fmt: skip
        self.rescue = self._rescuing.view
        self._transfer_zone = Zone(settings.dns, self._host_record())
        self._transfers = TransferService(
            settings.transfer,
            self._transfer_zone,
            self.host,
            self.metrics,
            rng=rng,
            udp_size=settings.dns.udp_size,
            hidden=lambda: {**self.keeper.hidden(), **self.announcer.publisher.shield.held()},
        )
        self.resolver = Resolver(
            settings.dns, self._host_record(), self.metrics, rng=rng, transfers=self._transfers
        )
        self._transfers.settled = self._answers_settled
        self.keeper.listen(self.resolver.update)
        self.keeper.listen(self._transfers.update)
        self._twin = TwinWatch(self.host, self._memory.machine)
        self.keeper.listen(self._twin.update)
        self._gate = Gate()
        self._dns_ready = False
        self._bound: list[str] = []
        self.metrics.catalog_age.set_function(lambda: self.store.age)

    # Tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. What is announced stays so: a restart causes no gap.

        Each nursery needs those around it, so leaving them stops the API first, then announcing
        (which renews the lease once more), and the answers last.
        """
        self._drain_marks()
        self.announcer.set_static(self.settings.services)
        self._announce_host()
        async with trio.open_nursery() as answering:
            if self.settings.dns.listen:
                bound = await answering.start(self.resolver.serve, self._handed)
                self._bound += [f"dns/{b.transport} {b.address}:{b.port}" for b in bound]
            self._dns_ready = True
            answering.start_soon(self._follow)
            answering.start_soon(self._transfers.run)
            answering.start_soon(self._suspects.run)
            answering.start_soon(self._routing.run)
            answering.start_soon(self._rescuing.run)
            answering.start_soon(self._vips.run)
            if self._hints is not None:
                answering.start_soon(self._hints.run)
            if self._liveness is not None:
                answering.start_soon(self._liveness.run)
            async with trio.open_nursery() as announcing:
                announcing.start_soon(self.announcer.run)
                await self._face_people()
                announcing.cancel_scope.cancel()
            await self._routing.shutdown()
            answering.cancel_scope.cancel()
        log.info("discod stopped")

    async def _face_people(self) -> None:
        """Serve the API, until a signal says stop."""
        http = self.settings.http
        app = build_app(self, self.metrics, self._gate, self.settings.checks)
        async with trio.open_nursery() as facing:
            await facing.start(self._handle_signals, facing.cancel_scope)
            self._bound += await facing.start(serve_http, app, http.listen, self._socket)
            log.info(
                "discod runs",
                extra=fields(
                    version=__version__,
                    host=self.host,
                    store=self._store.kind,
                    serves=",".join(self._bound),
                ),
            )
            self._notifier.ready(f"host {self.host}, store {self._store.kind}")
            facing.start_soon(self._tick)
            facing.start_soon(self._greet)
            facing.start_soon(watch_addresses, self.settings.host, self._addresses, self._move)

    async def _follow(self) -> None:
        word = StoreWord(self.keeper, self.announcer.publisher, self._mark_stale)
        await follow(self._store, self._keys.prefixes, word, rng=self._rng)

    def _mark_stale(self) -> None:
        """Have answers say how the Catalog stands with the store."""
        self.resolver.set_stale(not self.store.connected, self.keeper.ready.is_set())

    async def _answers_settled(self) -> None:
        """Wait until what is answered is the present Catalog, by workers too."""
        if self.resolver.workers is not None:
            await self.resolver.workers.settled()

    async def _tick(self) -> None:
        """Once a second: the watchdog's sign of life, and what depends on the passing of time."""
        # What the start has made lives as long as the daemon: it need not be looked through again
        # by every full collection, tens of milliseconds in which an end would wait.
        gc.collect()
        gc.freeze()
        trio.lowlevel.add_instrument(LoopLag(self.metrics))
        while True:
            self._notifier.watchdog()
            self._gate.look(self.parts())
            self._mark_stale()
            await trio.sleep(self._tick_period)

    async def _greet(self) -> None:
        """Say once what is served, as soon as the store and the engine have answered."""
        with trio.move_on_after(BANNER_WAIT):
            await self.keeper.ready.wait()
            await self.announcer.publisher.settled()
            if self.announcer.watcher is not None:
                await self.announcer.watcher.answered.wait()
            await self.announcer.publisher.settled()
        self._mark_stale()
        if not self._quiet:
            sys.stdout.write(banner(self.settings, self.host, self.catalog, self.parts()))
            sys.stdout.flush()

    async def _handle_signals(
        self,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                    continue
                log.info("stopping", extra=fields(signal=signal.Signals(number).name))
                self._notifier.stopping()
                scope.cancel()
                return

    # Settings and state -------------------------------------------------------------------------

    def _scope(self, settings: Settings) -> Scope:
        allow = settings.bgp.anycast_allow if settings.bgp else None
        return Scope(self.host, self._addresses, settings.announce, settings.checks, allow)

    def _reload(self) -> None:
        """Take the configuration file again; one with faults changes nothing."""
        self._notifier.reloading()
        try:
            if self._config_path is None:
                log.warning("nothing to reload: discod was started without a configuration file")
                return
            settings = load_config(self._config_path)
        except ConfigError as error:
            self._config_fault = "; ".join(str(fault) for fault in error.faults)
            self.metrics.config_stale.set(1)
            for fault in error.faults:
                log.error(
                    "configuration fault, the last good one stays in force",
                    extra=fields(file=self._config_path, fault=fault),
                )
            return
        finally:
            self._notifier.ready(f"host {self.host}, store {self._store.kind}")
        self._config_fault = ""
        self.metrics.config_stale.set(0)
        fixed = needs_restart(self.settings, settings)
        if fixed:
            log.warning("these changes need a restart", extra=fields(keys=",".join(fixed)))
        setup(settings.log.level)
        zone_changed = settings.dns != self.settings.dns
        self.settings = settings
        self.announcer.rescope(self._scope(settings), settings.services)
        self.keeper.configure(settings.brake)
        self._routing.reconfigure(settings.bgp)
        self._rescuing.reconfigure(settings, self._host_record())
        self.resolver.reload(settings.dns)
        self._transfer_zone.configure(settings.dns)
        self._transfers.configure(settings.transfer, zone_changed=zone_changed)
        log.info("configuration reloaded", extra=fields(file=self._config_path))

    def _host_record(self, *, bgp: bool = True) -> Host:
        return Host(
            name=self.host,
            addresses=self._addresses,
            version=__version__,
            machine=self._memory.machine,
            started=self._started,
            zone=self._zone,
            drained=self._memory.drained,
            hint_port=self._hints.port if self._hints else 0,
            hint_key=self._hints.key if self._hints else "",
            liveness_port=self._liveness.port if self._liveness else 0,
            liveness_key=self._liveness.key if self._liveness else "",
            bgp=self._routing.record if bgp else None,
        )

    def _announce_host(self) -> None:
        ledger = self.announcer.publisher.ledger
        ledger.keep(self._keys.host(self.host), encode_host(self._host_record()))
        self.announcer.publisher.wake()

    def _move(self, addresses: tuple[Address, ...]) -> None:
        """Offer what this host offers at its new addresses."""
        self._addresses = addresses
        self._routing.moved(self._host_record(bgp=False))
        self._rescuing.reconfigure(self.settings, self._host_record())
        self.announcer.rescope(self._scope(self.settings), self.settings.services)
        self._announce_host()

    def _drain_marks(self) -> None:
        memory = self._memory
        host = None if memory.drained is None else f"host drained since {_at(memory.drained)}"
        units = {
            id_: f"container drained since {_at(since)}" for id_, since in memory.containers.items()
        }
        self.announcer.set_drained(host, units)

    # View ---------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """The present Catalog."""
        return self.keeper.catalog

    @property
    def store(self) -> StoreReport:
        """How it stands with the store."""
        if self._store.kind == "memory":
            return StoreReport("memory", True, 0.0, "")
        age, error = self.keeper.age, self.keeper.error
        connected = self.keeper.connected and age < STORE_SILENT
        if self.keeper.connected and not connected:
            error = f"no sign of life for {age:.0f} s"
        return StoreReport(self._store.kind, connected, age, error)

    @property
    def bgp(self) -> BgpView | None:
        """How it stands with BGP; None without it."""
        return self._routing.view

    def producers(self) -> tuple[ProducerReport, ...]:
        """Everything of this host that offers or could offer endpoints."""
        return self._vips.told(self.announcer.reports())

    def parts(self) -> tuple[PartReport, ...]:
        """Every part that readiness depends on."""
        store = self.store
        ready = self.keeper.ready.is_set()
        said = store.error or (f"revision {self.catalog.revision}" if ready else "no snapshot yet")
        error = self._twin.error or self.announcer.publisher.error
        now = time.time()
        return (
            PartReport("store", ready and store.connected, said, now - store.age),
            PartReport("announcer", not error, error or "all written", now),
            PartReport(
                "dns", self._dns_ready and ready, "serving" if ready else "no snapshot yet", now
            ),
            *self.announcer.parts(),
            PartReport("config", not self._config_fault, self._config_fault or "in force", now),
        )

    def answers(self, name: str) -> tuple[str, ...]:
        """What this host's resolver answers for a name or an address now, one line a record."""
        return self.resolver.explain(name)

    def changes(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Change]]:
        """Subscribe to changes of the Catalog."""
        return self.keeper.changes()

    async def drain(self, container: str | None) -> str:
        """Withdraw this host's endpoints, or one container's, until undrained."""
        return await self._mark(container, drained=True)

    async def undrain(self, container: str | None) -> str:
        """Take `drain` back."""
        return await self._mark(container, drained=False)

    async def _mark(self, container: str | None, *, drained: bool) -> str:
        memory = self._memory
        if container is None:
            what = f"host {self.host}"
            memory.drained = (memory.drained or time.time()) if drained else None
        else:
            id_ = self.announcer.find_container(container)
            what = f"container {container}"
            if drained:
                memory.containers.setdefault(id_, time.time())
            elif memory.containers.pop(id_, None) is None:
                raise LookupError(f"container {container!r} is not drained")
        unsaved = keep(self._state_dir, memory)
        self._routing.drained(memory.drained is not None)
        self._drain_marks()
        self._announce_host()
        confirmed = False
        with trio.move_on_after(DRAIN_WAIT):
            await self.announcer.publisher.settled()
            confirmed = True
        said = "drained" if drained else "undrained"
        log.info("maintenance mark set", extra=fields(what=what, mark=said, confirmed=confirmed))
        if confirmed:
            return f"{what} {said}, confirmed by the store{unsaved}"
        return f"{what} {said}; the store is yet to confirm ({self.store.error or 'busy'}){unsaved}"

    async def release_vip(self, service: str) -> str:
        """Give the addresses of a service back, so that another one can get them."""
        return await self._vips.release(service)

    def announce(
        self, services: tuple[ServiceSettings, ...]
    ) -> AbstractAsyncContextManager[Announcement]:
        """Offer endpoints for as long as the context lasts."""
        return self.announcer.announce(services)


def run_daemon(settings: Settings, config_path: Path | None, environ: Mapping[str, str]) -> int:
    """Run the daemon until a signal ends it; its exit status."""
    setup(settings.log.level)
    faulthandler.enable()  # a watchdog's SIGABRT tells in the journal where each thread stood

    async def main() -> None:
        runtime = runtime_dir(settings.host, os.getuid(), environ)
        state = state_dir(settings.host, os.getuid(), environ)
        make_directory(runtime, 0o755)
        make_directory(state, 0o700)
        sockets = adopt(handed(environ, os.getpid()))
        with ExitStack() as mine:
            mine.enter_context(only_one(runtime))
            if settings.store.endpoints:  # in its own memory nobody fights over keys
                mine.enter_context(only_host(host_name(settings.host), settings.dns.domain))
            async with open_store(settings.store) as store:
                daemon = Daemon(settings, config_path, environ, store, runtime, state, sockets)
                await daemon.run()

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        known, rest = group.split(
            (PlaceError, StoreRejected, ActivationError, OwnUpstreamError, OSError)
        )
        if rest is not None or known is None:
            raise
        error: BaseException = known
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return _cannot_run(error)
    except (PlaceError, StoreRejected, ActivationError, OwnUpstreamError, OSError) as error:
        return _cannot_run(error)
    return 0


def _cannot_run(error: BaseException) -> int:
    log.error("discod cannot run", extra=fields(error=error))
    return 1


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
