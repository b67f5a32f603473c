"""The resolver as the daemon sees it: sockets, the zones and the forwarder put together.

Rule: `update`, `set_stale` and `set_fronted` are called by the task that owns the Catalog and never
wait; everything else happens inside `serve`.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import chain

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Host
from discod.model.settings import DnsSettings, ListenAddress
from resolver import encode, secret_file, shown, udp
from resolver.answer import Outcome, Responder, Transport
from resolver.counts import Counts
from resolver.faults import Faults
from resolver.forwarding import upstreams
from resolver.forwarding.chase import compose
from resolver.forwarding.forwarder import Forwarder
from resolver.forwarding.pool import OwnUpstreamError
from resolver.forwarding.reply import Relayed
from resolver.hot.merge import Merger, Reading
from resolver.hot.protocol import Config
from resolver.hot.recall import Recall
from resolver.hot.supervisor import Workers
from resolver.hot.sync import News
from resolver.sockets import bind_tcp, open_all
from resolver.tcp import TcpServer
from resolver.tls import tls_context
from resolver.transfer.service import TransferService
from resolver.zone import Zone

log = logging.getLogger(__name__)

_FIXED = ("listen", "tls_listen", "domain", "workers")
"""Settings that need a restart."""
_SERVED: tuple[Transport, ...] = ("udp", "tcp")


@dataclass(frozen=True, slots=True)
class Bound:
    """One socket that is served."""

    transport: Transport
    address: Address
    port: int


class Resolver:
    """Answers DNS from the Catalog and forwards the rest.

    Args:
        settings: ``[dns]``.
        host: This host, for the names it has before its own record is in the Catalog.
        metrics: Where to count.
        rng: For the order of answers.
        secrets: For DNS Cookies, the first makes them; none: as the settings say.
        transfers: Answers queries for zone transfer, and those that are signed.

    Raises:
        OSError: a file that the settings name cannot be used.
        OwnUpstreamError: discod is named as its own upstream.
    """

    def __init__(
        self,
        settings: DnsSettings,
        host: Host,
        metrics: Metrics,
        *,
        rng: random.Random,
        secrets: Sequence[bytes] = (),
        transfers: TransferService | None = None,
    ) -> None:
        self._first = self._settings = settings
        self._host = host
        self._metrics = metrics
        self._rng = rng
        self._transfers = transfers
        self._given = tuple(secrets)
        self._secrets = self._given or secret_file.load(settings.cookie_secret_file)
        self._news = News(self._config(settings))
        self.workers: Workers | None = None
        """Those that serve, if any do."""
        self._zone = Zone(settings, host, fronted=False)
        self._responder = Responder(self._zone, settings, rng, self._secrets)
        self._counts = Counts(metrics, settings.domain)
        self._listening: tuple[ListenAddress, ...] = settings.listen
        self._forwarder = Forwarder(settings, metrics, self._is_own, rng=rng)
        self._recall = Recall(self._zone, self._responder, settings, self._secrets, rng)
        for transport, row in self._recall.rows.items():
            merger = Merger(self._counts, metrics, settings.domain, transport)
            metrics.before_exposition(Reading(merger, row).merge)
        self._tcp = TcpServer(self._handle, self._relay, self._counts.connections)
        self._tcp.recall = self._recall
        self._faults = Faults()
        if settings.tls_listen:
            self._tcp.tls = tls_context(settings.tls_cert, settings.tls_key)
        self._configure(settings)

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one given, None: unknown.

        Costs microseconds: names are compiled when they are asked for.
        """
        self._zone.update(catalog, change)
        self._recall.update(catalog, change)
        self._news.update(catalog, change)

    def set_stale(self, stale: bool, ready: bool) -> None:
        """Say how the Catalog stands with the store.

        Args:
            stale: Answers may be out of date, and say so to clients that speak EDNS.
            ready: There has been a snapshot; until then our names get SERVFAIL, not NXDOMAIN.
        """
        if stale != self._responder.stale:
            self._recall.forget()
        self._responder.stale = stale
        self._responder.ready = ready
        self._news.set_stale(stale, ready)

    def set_fronted(self, fronted: bool) -> None:
        """Say whether this host's kernel spreads services' own addresses (VIPs); at first not.

        Until it does, names lead to the endpoints, as if there were no such addresses. Zone
        transfers always have them. Nothing is done when it is as before; a change costs a look at
        each endpoint, and answers of services with such addresses are made anew.
        """
        zone = self._zone
        if fronted == zone.fronted:
            return
        zone.set_fronted(fronted)
        services = self._news.catalog.services
        self._recall.changed(
            [name for name, some in services.items() if any(e.vip for e in some.values())]
        )
        self._news.set_fronted(fronted)

    def reload(self, settings: DnsSettings) -> tuple[str, ...]:
        """Put changed settings in force; the names of those that need a restart are returned."""
        fixed = tuple(
            name for name in _FIXED if getattr(settings, name) != getattr(self._first, name)
        )
        self._read_files(settings)
        self._configure(settings)
        return fixed

    def explain(self, name: str) -> tuple[str, ...]:
        """What a client that we answer would get for `name`, in presentation format.

        One line a record; or one word: the rcode, ``NODATA``, or ``FORWARDED``. `name` may be an
        address, for its PTR.

        Raises:
            ValueError: `name` cannot be asked.
        """
        return shown.answers(self._zone, name, random.Random(0))

    async def serve(
        self,
        sockets: Sequence[socket.socket] = (),
        *,
        task_status: trio.TaskStatus[list[Bound]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Bind everything, report it as started, and serve until cancelled.

        Args:
            sockets: Bound already (socket activation): served in place of new ones at the same
                transport, address and port; closed at the end.
            task_status: Gets what is served.

        Raises:
            OSError: an address cannot be bound, or nothing in ``listen`` is at that of one of
                `sockets`; the message says which.
        """
        workers = self._first.workers
        with ExitStack() as stack:
            opened = open_all(self._first.listen, max(1, workers), sockets, stack)
            self._listening = tuple(one.at for one in opened)
            secure = [bind_tcp(at) for at in self._first.tls_listen]
            for listener in secure:
                stack.callback(listener.close)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._forwarder.run)
                lanes = list(zip(*(one.datagrams for one in opened), strict=True))
                flat = [[sock for socks in lane for sock in socks] for lane in lanes]
                if workers and opened:
                    self.workers = self._hot(flat)
                    nursery.start_soon(self.workers.run)
                else:
                    for sock in chain.from_iterable(flat):
                        nursery.start_soon(udp.serve, sock, self._handle, self._relay, nursery)
                for listener in chain.from_iterable(one.listeners for one in opened):
                    nursery.start_soon(self._tcp.serve, _served(listener))
                for listener in secure:
                    nursery.start_soon(self._tcp.serve_tls, _served(listener))
                bound = [Bound(t, at.address, at.port) for at in self._listening for t in _SERVED]
                for listener in secure:
                    host, port = listener.getsockname()[:2]
                    bound.append(Bound("tls", ip_address(host), port))
                task_status.started(bound)
                await trio.sleep_forever()  # until cancelled, with nothing to listen on as well

    def _hot(self, lanes: Sequence[Sequence[socket.socket]]) -> Workers:
        return Workers(
            self._news,
            lanes,
            self._handle,
            self._relay,
            self._counts,
            self._metrics,
            self._first.domain,
            rng=self._rng,
        )

    def _config(self, settings: DnsSettings) -> Config:
        """What the workers are told of the settings: those that need a restart are as they were."""
        fixed = {name: getattr(self._first, name) for name in _FIXED}
        return Config(replace(settings, **fixed), self._host, self._secrets)

    def _read_files(self, settings: DnsSettings) -> None:
        """Read again what may have been replaced; what cannot be read stays as it was."""
        try:
            if not self._given and settings.cookie_secret_file:
                self._secrets = secret_file.load(settings.cookie_secret_file)
            if settings.tls_listen:
                self._tcp.tls = tls_context(settings.tls_cert, settings.tls_key)
        except OSError as error:  # ssl.SSLError is one
            log.error("a file of the DNS settings cannot be used", extra=fields(error=error))

    def _configure(self, settings: DnsSettings) -> None:
        self._settings = settings
        self._zone.configure(settings)
        self._responder.configure(settings, self._secrets)
        self._recall.configure(settings, self._secrets)
        try:
            self._forwarder.configure(settings)
        except OwnUpstreamError as error:
            log.error("discod is named as its own upstream", extra=fields(error=error))
        self._tcp.idle = settings.tcp_idle
        self._tcp.connections_max = settings.tcp_connections
        self._news.configure(self._config(settings))

    def _is_own(self, server: ListenAddress) -> bool:
        return upstreams.is_listening(server, self._listening, self._host.addresses)

    def _handle(
        self, packet: bytes, client: str, transport: Transport
    ) -> bytes | Outcome | Iterator[bytes] | None:
        start = time.perf_counter()
        try:
            outcome = self._responder.respond(packet, client, transport, time.time())
        except Exception:  # noqa: BLE001 - a fault of ours over one packet must not end the service
            self._faults.report(packet, client)
            return None
        self._counts.query(outcome, transport)
        if outcome.forward or outcome.answer is not None:
            known = self._known(outcome)
            return self._sent(outcome, known, start) if known is not None else outcome
        if outcome.packet is None:
            return None
        query, response, rcode = outcome.query, outcome.packet, outcome.rcode
        if self._transfers is not None and query is not None:
            if outcome.transfer:
                transfer = self._transfers.respond(packet, query, client, transport)
                took = time.perf_counter() - start
                self._counts.response(outcome.zone, transfer.rcode, False, took)
                return transfer
            if query.tsig is not None:
                response = self._transfers.signed(packet, query, response)
                rcode = response[3] & 15
        self._counts.response(outcome.zone, rcode, outcome.truncated, time.perf_counter() - start)
        return response

    def _known(self, outcome: Outcome) -> Relayed | None:
        query, answer = outcome.query, outcome.answer
        assert query is not None
        if answer is None:
            return self._forwarder.try_cache(query, outcome.limit)
        resolved = self._forwarder.try_resolve(answer.chase, query.type, query)
        if resolved is None:
            return None
        return compose(query, answer, resolved, outcome.limit, self._settings.udp_size)

    async def _relay(self, outcome: Outcome, transport: Transport) -> bytes:
        start = time.perf_counter()
        query, answer = outcome.query, outcome.answer
        assert query is not None
        if answer is None:
            relayed = await self._forwarder.ask(query, outcome.limit, outcome.client)
        else:
            resolved = await self._forwarder.resolve(
                answer.chase, query.type, query, outcome.client
            )
            relayed = compose(query, answer, resolved, outcome.limit, self._settings.udp_size)
        return self._sent(outcome, relayed, start)

    def _sent(self, outcome: Outcome, relayed: Relayed, start: float) -> bytes:
        self._counts.response(
            outcome.zone, relayed.rcode, relayed.truncated, time.perf_counter() - start
        )
        if not outcome.options and not outcome.padded:
            return relayed.packet
        room = sum(len(data) + 4 for _, data in outcome.options)
        return encode.add_options(
            relayed.packet, outcome.options, outcome.limit + room, outcome.padded
        )


def _served(listener: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))
