"""Answers names of others: from what is kept, from the private zones, or from an upstream.

Rule: a question is asked once at a time, whoever waits for it, at two upstreams at most, and each
client has its answer, if only SERVFAIL, after twice `dns.forward_timeout`. What waits is bounded in
all and for each client; one more gets SERVFAIL at once.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
from collections.abc import Callable
from typing import Final

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.settings import DnsSettings, ListenAddress
from resolver.encode import Error, encode
from resolver.forwarding import chase, loops, private
from resolver.forwarding.attempt import Attempts
from resolver.forwarding.cache import STALE_TTL, Cache, Entry, State
from resolver.forwarding.chase import Resolved
from resolver.forwarding.exchange import Exchange, Sockets
from resolver.forwarding.flights import Flights, is_failure
from resolver.forwarding.pool import Pool
from resolver.forwarding.reply import Relayed, Reply, failed, render
from resolver.forwarding.sending import asked
from resolver.forwarding.tally import Tally
from resolver.record import IN, NXDOMAIN, SERVFAIL, Name, name_wire
from resolver.wire import TCP_MAX, Edns, Malformed, Query

log = logging.getLogger(__name__)

WAITING_MAX: Final = 1024
"""Clients that wait for them; each is a task of some 5 KB."""
STALE_AFTER: Final = 1.8
"""Seconds after which a client gets a stale answer, where there is one (RFC 8767, section 5)."""
LOG_EVERY: Final = 60.0
"""Seconds between two reports of a loop."""

BUSY = Error(23, "too many queries under way")
LOOP = Error(0, "forwarding loop")
UNREADABLE = Error(0, "an upstream's reply cannot be read")
CACHED = Error(13, "")
STALE_ANSWER = Error(3, "no upstream answers")
STALE_NXDOMAIN = Error(19, "no upstream answers")


class Forwarder:
    """The facade. Unless `run` is running, whatever needs an upstream gets SERVFAIL.

    Args:
        settings: ``[dns]``.
        metrics: Where to count.
        is_own: Whether discod listens there: it is not asked.
        rng: For the choice of upstreams and the turns of addresses (ids and case are drawn from
            the system).
        exchange: How upstreams are reached.

    Raises:
        OwnUpstreamError: as `configure`.
    """

    def __init__(
        self,
        settings: DnsSettings,
        metrics: Metrics,
        is_own: Callable[[ListenAddress], bool],
        *,
        rng: random.Random,
        exchange: Exchange | None = None,
    ) -> None:
        self._own_id = secrets.token_bytes(loops.ID_OCTETS)
        self._tally = Tally(metrics)
        self._cache = Cache(settings.cache_size, settings.serve_stale)
        self._attempts = Attempts(exchange or Sockets(), settings, self._own_id)
        self._pool = Pool(is_own, self._cache.outdate, self._tally.forget)
        self._flights = Flights(settings, self._pool, self._attempts, self._cache, self._tally, rng)
        self._waiting = 0
        self._clients: dict[str, int] = {}
        self._logged = -math.inf
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force.

        Raises:
            OwnUpstreamError: discod is named as its own upstream. Everything else is in force, and
                that server will not be asked.
        """
        self._settings = settings
        self._cache.configure(settings.cache_size, settings.serve_stale)
        self._attempts.configure(settings)
        self._flights.configure(settings)
        self._tally.entries(len(self._cache))
        self._pool.configure(settings)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the questions under way, and the probes, until cancelled."""
        await self._flights.run(task_status=task_status)

    # What clients get ---------------------------------------------------------------------------

    def try_cache(self, query: Query, limit: int) -> Relayed | None:
        """A response of at most `limit` octets that needs no upstream; None: `ask`."""
        relayed = self._private(query, limit)
        if relayed is not None:
            return relayed
        self._pool.refresh()
        what = asked(query)
        now = trio.current_time()
        found = self._cache.look(what.key, now)
        if found is None or found[0] is State.OLD:
            return None
        state, entry = found
        if state is State.FRESH:
            self._tally.looked("hit")
            return self._from(entry, query, limit, int(now - entry.stored))
        if state is State.STALE:
            return self._stale(entry, query, limit)
        self._tally.looked("failed")
        return self._say(entry.said, query, limit, CACHED)

    async def ask(self, query: Query, limit: int, client: str = "") -> Relayed:
        """The response for the client, of at most `limit` octets; SERVFAIL when nobody answers.

        `client` is its address, for the limit of each; empty: a question of our own.
        """
        trail = loops.trail(query.edns.options) if query.edns is not None else b""
        if loops.closes(trail, self._own_id):
            return self._loop(query, limit, client)
        known = self.try_cache(query, limit)
        if known is not None:
            return known
        what = asked(query, trail)
        found = self._cache.look(what.key, trio.current_time())
        old = found[1] if found is not None else None
        # Questions with a trail do not wait for others: two that wait for each other would.
        key = what.key + trail
        flight = self._flights.find(key)
        if flight is not None and (
            loops.is_echo(query.question, flight.sent)
            or (client and client == flight.to and client != flight.client)
        ):
            return self._loop(query, limit, client)
        mine = self._clients.get(client, 0)
        if (
            self._waiting >= WAITING_MAX
            or (client and mine >= self._settings.forward_client_max)
            or (flight is None and self._flights.full)
        ):
            return self._stale(old, query, limit) if old else self._say(BUSY, query, limit)
        if flight is None:
            flight = self._flights.start(key, what, query.name, client)
            self._tally.looked("miss")
        else:
            self._tally.looked("shared")
        self._waiting += 1
        if client:
            self._clients[client] = mine + 1
        try:
            if old is None:
                await flight.done.wait()
            else:
                with trio.move_on_after(STALE_AFTER):
                    await flight.done.wait()
        finally:
            self._waiting -= 1
            self._leave(client)
        if old and (not flight.done.is_set() or is_failure(flight.said)):
            return self._stale(old, query, limit)
        return self._say(flight.said, query, limit)

    def try_resolve(self, name: Name, qtype: int, query: Query) -> Resolved | None:
        """As `resolve`, when it needs no upstream; None: it does."""
        inner = _inner(name, qtype, query)
        relayed = self.try_cache(inner, TCP_MAX)
        return _read(relayed, name, qtype) if relayed is not None else None

    async def resolve(self, name: Name, qtype: int, query: Query, client: str = "") -> Resolved:
        """What there is of a type at a name that an alias of ours leads to.

        `query` is the client's, for what it wants besides (DNSSEC records, no checking); `client`
        as in `ask`.
        """
        inner = _inner(name, qtype, query)
        relayed = await self.ask(inner, TCP_MAX, client)
        return _read(relayed, name, qtype)

    def _private(self, query: Query, limit: int) -> Relayed | None:
        settings = self._settings
        zone = private.zone_of(query.name, reverse=settings.private_reverse)
        if zone is None or self._pool.route(query.name) is not None:
            return None
        local = private.answer(query.name, query.type, zone)
        if local is None:
            return None
        packet, truncated = encode(
            query,
            local.rcode,
            limit=limit,
            udp_size=settings.udp_size,
            aa=True,
            ra=True,
            answer=local.answer,
            authority=local.authority,
        )
        return Relayed(packet, local.rcode, truncated)

    def _from(
        self, entry: Entry, query: Query, limit: int, age: int, *errors: Error, stale: bool = False
    ) -> Relayed:
        assert isinstance(entry.said, Reply)
        entry.turn += 1
        return render(
            entry.said,
            query,
            limit,
            self._settings.udp_size,
            age=age,
            stale_ttl=STALE_TTL if stale else None,
            turn=entry.turn,
            errors=errors,
        )

    def _stale(self, entry: Entry, query: Query, limit: int) -> Relayed:
        self._tally.looked("stale")
        assert isinstance(entry.said, Reply)
        error = STALE_NXDOMAIN if entry.said.rcode == NXDOMAIN else STALE_ANSWER
        return self._from(entry, query, limit, 0, error, stale=True)

    def _say(self, said: Reply | Error, query: Query, limit: int, *errors: Error) -> Relayed:
        size = self._settings.udp_size
        if isinstance(said, Reply):
            return render(said, query, limit, size, errors=errors)
        return failed(query, limit, size, said, *errors)

    def _loop(self, query: Query, limit: int, client: str) -> Relayed:
        now = trio.current_time()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            log.warning(
                "a question came back: name servers ask each other in a circle",
                extra=fields(name=b".".join(query.name), client=client),
            )
        return self._say(LOOP, query, limit)

    def _leave(self, client: str) -> None:
        if client:
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]


def _read(relayed: Relayed, name: Name, qtype: int) -> Resolved:
    try:
        return chase.read(relayed.packet, name, qtype)
    except Malformed:  # names inside of records are looked at here for the first time
        return Resolved(SERVFAIL, errors=(UNREADABLE,))


def _inner(name: Name, qtype: int, query: Query) -> Query:
    """The question for an alias's target, as if the client asked it."""
    edns = query.edns
    options = edns.options if edns is not None else ()
    return query._replace(
        question=name_wire(name) + qtype.to_bytes(2, "big") + IN.to_bytes(2, "big"),
        name=name,
        type=qtype,
        edns=Edns(TCP_MAX, 0, edns is not None and edns.do, options),
    )
