"""Asks an upstream on behalf of a client.

Rule: each try has its own socket, with a random port and a random id (RFC 5452), and its own
deadline; a query gets at most one retry, at the next upstream. At most `IN_FLIGHT_MAX` queries are
under way; one more gets SERVFAIL at once. Nothing is cached.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from discod.log import fields
from discod.model.settings import ListenAddress
from resolver import relay
from resolver.encode import Error
from resolver.record import NOTIMP, REFUSED, SERVFAIL
from resolver.relay import Relayed
from resolver.upstreams import Upstreams
from resolver.wire import TCP_MAX, Malformed, Query

log = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 256
"""Queries under way at upstreams; each is a task and a socket."""
TRIES_MAX: Final = 2
"""A client gives up after 5 s by default (resolv.conf(5)); two tries of 2 s fit into that."""
SHUNNED: Final = 5.0
"""Seconds for which an upstream that did not answer is asked last."""

BUSY = Error(23, "too many queries under way")
UNREACHABLE = Error(22, "no upstream answered")
NETWORK = Error(23, "no upstream could be reached")
NO_UPSTREAM = Error(22, "no upstream is configured")

_DECLINED = frozenset({SERVFAIL, NOTIMP, REFUSED})


class _TryFailed(Exception):
    """One try at one upstream came to nothing; `result` is its label in the metrics."""

    def __init__(self, result: str) -> None:
        super().__init__(result)
        self.result = result


class Forwarder:
    """Passes queries to upstreams.

    Args:
        upstreams: The ones of the moment.
        count: Called with (upstream, result) for each try.
    """

    def __init__(
        self, upstreams: Callable[[], Upstreams], count: Callable[[str, str], None]
    ) -> None:
        self._upstreams = upstreams
        self._count = count
        self._in_flight = 0
        self._shunned: dict[ListenAddress, float] = {}
        self.timeout = 2.0
        self.udp_size = 1232

    async def ask(self, query: Query, limit: int) -> Relayed:
        """The response for the client, of at most `limit` octets; SERVFAIL when nobody answers."""
        if self._in_flight >= IN_FLIGHT_MAX:
            return relay.failed(query, limit, self.udp_size, BUSY)
        self._in_flight += 1
        try:
            return await self._ask(query, limit)
        finally:
            self._in_flight -= 1

    async def _ask(self, query: Query, limit: int) -> Relayed:
        upstreams = self._upstreams()
        order = self._in_order(upstreams.servers)
        timeout = min(self.timeout, upstreams.timeout or self.timeout)
        error = NO_UPSTREAM
        declined: Relayed | None = None
        for server in (order * upstreams.attempts)[:TRIES_MAX]:
            try:
                reply = await self._try(query, server, timeout)
                relayed = relay.relayed(reply, query, limit, self.udp_size)
            except (_TryFailed, Malformed) as failure:
                result = failure.result if isinstance(failure, _TryFailed) else "malformed"
                self._count(_label(server), result)
                self._shunned[server] = trio.current_time() + SHUNNED
                error = NETWORK if result == "error" else UNREACHABLE
                continue
            if relayed.rcode not in _DECLINED:
                self._count(_label(server), "ok")
                return relayed
            self._count(_label(server), "refused")
            declined = relayed  # another upstream may know better; if not, this is the answer
            if len(order) == 1:
                break
        return declined or relay.failed(query, limit, self.udp_size, error)

    def _in_order(self, servers: tuple[ListenAddress, ...]) -> tuple[ListenAddress, ...]:
        now = trio.current_time()
        self._shunned = {s: until for s, until in self._shunned.items() if until > now}
        return tuple(sorted(servers, key=lambda server: server in self._shunned))

    async def _try(self, query: Query, server: ListenAddress, timeout: float) -> bytes:
        id_ = secrets.randbelow(65536)
        packet = relay.upstream_query(query, id_, self.udp_size)
        try:
            with trio.fail_after(timeout):
                reply = await _over_udp(packet, query, id_, server)
            if not relay.is_truncated(reply):
                return reply
        except trio.TooSlowError:
            raise _TryFailed("timeout") from None
        except OSError as error:
            log.debug("upstream failed", extra=fields(upstream=_label(server), error=error))
            raise _TryFailed("error") from None
        try:
            with trio.fail_after(timeout):
                return await _over_tcp(packet, query, id_, server)
        except (trio.TooSlowError, OSError, trio.BrokenResourceError, Malformed):
            return reply  # truncated is better than nothing, and says so itself


async def _over_udp(packet: bytes, query: Query, id_: int, server: ListenAddress) -> bytes:
    """One exchange on a socket of its own; what is no reply to the query is passed over."""
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect(_sockaddr(server))  # the kernel drops what comes from elsewhere
        await sock.send(packet)
        while True:
            reply = await sock.recv(TCP_MAX)
            if relay.is_reply(reply, query, id_):
                return reply


async def _over_tcp(packet: bytes, query: Query, id_: int, server: ListenAddress) -> bytes:
    """One exchange on a connection of its own (RFC 7766).

    Raises:
        Malformed: the upstream closed early or answered something else.
    """
    sock = trio.socket.socket(_family(server), socket.SOCK_STREAM)
    try:
        await sock.connect(_sockaddr(server))
        stream = trio.SocketStream(sock)
        await stream.send_all(len(packet).to_bytes(2, "big") + packet)
        received = bytearray()
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            chunk = await stream.receive_some(TCP_MAX)
            if not chunk:
                raise Malformed("connection closed early")
            received += chunk
        reply = bytes(received[2 : 2 + int.from_bytes(received[:2], "big")])
        if not relay.is_reply(reply, query, id_):
            raise Malformed("another message")
        return reply
    finally:
        sock.close()


def _label(server: ListenAddress) -> str:
    at = f"[{server.address}]" if server.address.version == 6 else str(server.address)
    return f"{at}:{server.port}"


def _family(server: ListenAddress) -> int:
    return socket.AF_INET6 if server.address.version == 6 else socket.AF_INET


def _sockaddr(server: ListenAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    text, _, scope = str(server.address).partition("%")
    if server.address.version == 4:
        return text, server.port
    index = 0
    if scope:
        with suppress(OSError):  # no such interface: the connect says so
            index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return text, server.port, 0, index
