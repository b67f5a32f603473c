"""The worker's process: inherited sockets in, answers out.

Rule: it knows nothing but what the daemon tells it (`protocol`), writes nothing but its row of
counters (`shared`) and its log, and ends when the daemon does.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from resolver.acl import Acl
from resolver.answer import Outcome, Responder
from resolver.hot.loop import Loop
from resolver.hot.memo import Memo, settle
from resolver.hot.mmsg import Batch, address_of, piece
from resolver.hot.protocol import Config, Kind, Services, frames, read_config, read_services
from resolver.hot.replica import Replica
from resolver.hot.shared import Shared
from resolver.hot.slots import APPLIED, SERVING, STATE
from resolver.rrl import Action, Limiter
from resolver.zone import Zone

log = logging.getLogger(__name__)

READ_MAX = 65536
"""Octets of changes taken between two batches: about a millisecond's work."""


class Worker:
    """One worker: what it was told, and the loop that answers from it."""

    def __init__(
        self,
        shared: Shared,
        control: socket.socket,
        queries: socket.socket,
        sockets: Sequence[socket.socket],
    ) -> None:
        self._shared = shared
        self._control = control
        self._queries = queries
        self._sockets = sockets
        self._buffer = bytearray()
        self._rng = random.Random()
        self._config: Config | None = None
        self._replica: Replica
        self._zone: Zone
        self._responder: Responder
        self._acl: Acl
        self._memo: Memo[bytes]
        self._loop: Loop
        control.setblocking(False)
        queries.setblocking(False)

    def run(self) -> None:
        """Wait for the configuration, then serve until the daemon is gone."""
        self._control.setblocking(True)
        while self._config is None:
            if not self._read():
                return
        self._control.setblocking(False)
        self._loop.run()

    def _read(self) -> bool:
        """Take what the daemon said; False when it has ended."""
        try:
            chunk = self._control.recv(READ_MAX)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not chunk:
            return False
        self._buffer += chunk
        for kind, payload in frames(self._buffer):
            match kind:
                case Kind.CONFIG:
                    self._configure(read_config(payload))
                case Kind.SERVICES:
                    self._apply(read_services(payload))
                case Kind.GO:
                    self._go()
        return True

    def _configure(self, config: Config) -> None:
        settings = config.settings
        unlimited = replace(settings, rate_limit=0)  # the loop counts, by the batch
        if self._config is None:
            self._replica = Replica(settings.domain)
            self._zone = Zone(settings, config.own, fronted=False)
            self._responder = Responder(self._zone, unlimited, self._rng, config.secrets)
            self._memo = Memo(
                self._respond, self._limited, address_of, piece, self._zone, self._rng
            )
            batches = [Batch(sock) for sock in self._sockets]
            self._loop = Loop(
                self._memo,
                self._shared.slots,
                batches,
                self._control,
                self._queries,
                self._read,
                lambda client: self._acl.allows(str(ip_address(client))),
            )
        else:
            self._zone.configure(settings)
            self._responder.configure(unlimited, config.secrets)
        self._config = config
        self._acl = Acl(settings.allow)
        settle(self._memo, settings, config.secrets)
        loop = self._loop
        loop.forget_clients()
        loop.limiter = None
        if settings.rate_limit:
            seed = self._rng.getrandbits(64)
            loop.limiter = Limiter(settings.rate_limit, settings.rate_slip, seed)

    def _apply(self, step: Services) -> None:
        replica, memo = self._replica, self._memo
        before = replica.stale
        change = replica.apply(step)
        self._zone.update(replica.catalog, change)
        self._responder.ready, self._responder.stale = step.ready, step.stale
        memo.labels, memo.aliases = replica.labels, replica.aliases
        if change is None or change.hosts or step.stale != before:
            memo.clear()
        services = [service for service, _ in step.services]
        if step.fronted != self._zone.fronted:
            self._zone.set_fronted(step.fronted)
            services += replica.may_front()
        memo.changed(services)
        self._loop.ready = step.ready
        self._shared.slots[APPLIED] = step.number

    def _go(self) -> None:
        # What has been made so far stays: a full collection over it would take tens of
        # milliseconds, and there are no cycles to collect in what comes.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._loop.serving = True
        self._shared.slots[STATE] = SERVING

    def _respond(self, packet: bytes, client: bytes) -> Outcome:
        return self._responder.respond(packet, str(ip_address(client)), "udp", self._memo.now)

    def _limited(self, packet: bytes, client: bytes, action: Action) -> Outcome:
        return self._responder.above_rate(packet, str(ip_address(client)), action, self._memo.now)


def main(arguments: Sequence[str]) -> None:
    """Run a worker.

    Args:
        arguments: Descriptors: counters, control, queries, then the UDP sockets.
    """
    # The daemon is told to stop by signals, a terminal's included, and ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stats, control, queries, *sockets = map(int, arguments)
    shared = Shared(stats)
    os.close(stats)
    worker = Worker(
        shared,
        socket.socket(fileno=control),
        socket.socket(fileno=queries),
        [socket.socket(fileno=fd) for fd in sockets],
    )
    worker.run()
