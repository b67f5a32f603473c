"""The resolver as the daemon sees it: sockets, the zones and the forwarder put together.

Rule: `update` and `set_stale` are called by the task that owns the Catalog and never wait;
everything else happens inside `serve`.
"""

from __future__ import annotations

import errno
import logging
import random
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Host
from discod.model.settings import DnsSettings, ListenAddress
from resolver import binding, encode, record, udp, upstreams, wire
from resolver.answer import Responder, Transport
from resolver.counts import Counts
from resolver.forward import Forwarder
from resolver.resolv_conf import ResolvConf
from resolver.tcp import TcpServer
from resolver.upstreams import Upstreams
from resolver.wire import Query
from resolver.zone import Zone

log = logging.getLogger(__name__)

PORT_TRIES = 20
"""Ports tried when the configuration leaves the port open (0) and UDP and TCP must share it."""
FAULT_LOG_EVERY = 10.0
"""Seconds between two reports of a fault of our own, whatever comes in meanwhile."""

_SHOWN = (record.A, record.AAAA, record.SRV, record.TXT, record.PTR)


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
    """

    def __init__(
        self, settings: DnsSettings, host: Host, metrics: Metrics, *, rng: random.Random
    ) -> None:
        self._first = self._settings = settings
        self._host = host
        self._zone = Zone(settings.domain, host, settings.reverse_zones)
        self._responder = Responder(self._zone, settings, rng)
        self._counts = Counts(metrics, settings.domain)
        self._forwarder = Forwarder(self._upstreams, self._counts.forward)
        self._tcp = TcpServer(self._handle, self._relay, self._counts.connections)
        self._listening: tuple[ListenAddress, ...] = settings.listen
        self._fault_logged = float("-inf")
        self._configure(settings)

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one given, None: unknown.

        Costs microseconds: names are compiled when they are asked for.
        """
        self._zone.update(catalog, change)

    def set_stale(self, stale: bool, ready: bool) -> None:
        """Say how the Catalog stands with the store.

        Args:
            stale: Answers may be out of date, and say so to clients that speak EDNS.
            ready: There has been a snapshot; until then our names get SERVFAIL, not NXDOMAIN.
        """
        self._responder.stale = stale
        self._responder.ready = ready

    def reload(self, settings: DnsSettings) -> tuple[str, ...]:
        """Put changed settings in force; the names of those that need a restart are returned."""
        fixed = tuple(
            name
            for name in ("listen", "domain")
            if getattr(settings, name) != getattr(self._first, name)
        )
        self._configure(settings)
        return fixed

    def explain(self, name: str) -> tuple[str, ...]:
        """What a client that we answer would get for `name`, in presentation format.

        One line a record; or one word: the rcode, ``NODATA``, or ``FORWARDED``. `name` may be an
        address, for its PTR.

        Raises:
            ValueError: `name` cannot be asked.
        """
        try:
            asked = record.to_name(str(ip_address(name).reverse_pointer))
        except ValueError:
            asked = record.to_name(name)
        if not record.fits(asked) or any(not 0 < len(label) <= 63 for label in asked):
            raise ValueError(f"{name!r} is no DNS name")
        lines: list[str] = []
        rng = random.Random(0)
        for type_ in (*_SHOWN, record.SOA, record.NS):
            if lines and type_ not in _SHOWN:
                break
            answer = self._zone.lookup(asked, type_, rng)
            if answer is None:
                return ("FORWARDED",)
            if answer.rcode == record.NXDOMAIN:
                return ("NXDOMAIN",)
            question = record.name_wire(asked) + type_.to_bytes(2, "big") + b"\0\1"
            query = Query(0, 0, question, asked, type_, record.IN, None, 0)
            packet, _ = encode.encode(
                query, answer.rcode, limit=wire.TCP_MAX, udp_size=0, answer=answer.answer
            )
            lines += wire.shown(packet)
        return tuple(lines) or ("NODATA",)

    async def serve(
        self, *, task_status: trio.TaskStatus[list[Bound]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Bind everything, report it as started, and serve until cancelled.

        Raises:
            OSError: an address cannot be bound; the message says which.
        """
        with ExitStack() as stack:
            pairs = []
            for at in self._first.listen:
                datagram, listener = _bind(at)
                stack.callback(datagram.close)
                stack.callback(listener.socket.close)
                pairs.append((datagram, listener))
            bound = []
            for datagram, listener in pairs:
                bound.append(_bound("udp", datagram.getsockname()))
                bound.append(_bound("tcp", listener.socket.getsockname()))
            self._listening = tuple(ListenAddress(b.address, b.port) for b in bound)
            async with trio.open_nursery() as nursery:
                for datagram, listener in pairs:
                    nursery.start_soon(udp.serve, datagram, self._handle, self._relay, nursery)
                    nursery.start_soon(self._tcp.serve, listener)
                task_status.started(bound)
                await trio.sleep_forever()  # until cancelled, with nothing to listen on as well

    def _configure(self, settings: DnsSettings) -> None:
        self._settings = settings
        self._zone.set_reverse_zones(settings.reverse_zones)
        self._responder.configure(settings)
        self._forwarder.timeout = settings.forward_timeout
        self._forwarder.udp_size = settings.udp_size
        self._tcp.idle = settings.tcp_idle
        self._tcp.connections_max = settings.tcp_connections
        self._resolv_conf = ResolvConf(settings.resolv_conf, self._is_own)

    def _is_own(self, server: ListenAddress) -> bool:
        return upstreams.is_listening(server, self._listening, self._host.addresses)

    def _upstreams(self) -> Upstreams:
        configured = self._settings.upstreams
        if not configured:
            return self._resolv_conf.current()
        return Upstreams(tuple(server for server in configured if not self._is_own(server)))

    def _handle(self, packet: bytes, client: str, transport: Transport) -> bytes | Query | None:
        start = time.perf_counter()
        try:
            outcome = self._responder.respond(packet, client, transport)
        except Exception:  # noqa: BLE001 - a fault of ours over one packet must not end the service
            self._report_fault(packet, client)
            return None
        self._counts.query(outcome, transport)
        if outcome.packet is None:
            return outcome.query
        self._counts.response(
            outcome.zone, outcome.rcode, outcome.truncated, time.perf_counter() - start
        )
        return outcome.packet

    async def _relay(self, query: Query, transport: Transport) -> bytes:
        start = time.perf_counter()
        response = await self._forwarder.ask(query, self._responder.limit(query, transport))
        self._counts.response(".", response.rcode, response.truncated, time.perf_counter() - start)
        return response.packet

    def _report_fault(self, packet: bytes, client: str) -> None:
        now = time.monotonic()
        if now - self._fault_logged >= FAULT_LOG_EVERY:
            self._fault_logged = now
            log.exception(
                "query failed by a fault of discod",
                extra=fields(client=client, packet=packet[:150].hex()),
            )


def _bound(transport: Transport, name: tuple[str, int]) -> Bound:
    return Bound(transport, ip_address(name[0].partition("%")[0]), name[1])


def _bind(at: ListenAddress) -> tuple[socket.socket, trio.SocketListener]:
    """UDP and TCP on one port.

    Raises:
        OSError.
    """
    for left in reversed(range(PORT_TRIES)):
        tcp = _bind_tcp(at)
        try:
            port = tcp.getsockname()[1]
            datagram = udp.bind(ListenAddress(at.address, port))
        except OSError as error:
            tcp.close()
            if at.port == 0 and left and error.errno == errno.EADDRINUSE:
                continue  # somebody has that port for UDP: let the kernel choose another
            raise OSError(error.errno, f"udp {at.address} port {port}: {error.strerror}") from error
        return datagram, trio.SocketListener(trio.socket.from_stdlib_socket(tcp))
    raise AssertionError("unreachable")


def _bind_tcp(at: ListenAddress) -> socket.socket:
    v6 = at.address.version == 6
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        binding.bind(sock, at)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"tcp {at.address} port {at.port}: {error.strerror}") from error
    return sock
