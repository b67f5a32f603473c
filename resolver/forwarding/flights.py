"""Questions under way at upstreams.

Rule: a question is asked once at a time, whoever waits for it, and at two upstreams at most; after
twice the time of one try there is an outcome, which is kept before anybody hears of it. An upstream
that did not answer is probed until it does.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from typing import Final

import trio

from discod.backoff import Backoff
from discod.log import fields
from discod.model.settings import DnsSettings
from resolver.encode import Error
from resolver.forwarding.attempt import Attempts, TryFailed
from resolver.forwarding.cache import Cache
from resolver.forwarding.health import Upstream, order
from resolver.forwarding.pool import Pool
from resolver.forwarding.reply import Reply
from resolver.forwarding.sending import Asked
from resolver.forwarding.tally import Tally
from resolver.record import IN, NOTIMP, NS, REFUSED, SERVFAIL, Name

log = logging.getLogger(__name__)

FLIGHTS_MAX: Final = 256
"""Different questions under way; each is a task and a socket."""
TRIES_MAX: Final = 2
"""A client gives up after 5 s by default (resolv.conf(5)); two tries of 2 s fit into that."""
PROBE_FIRST, PROBE_MOST = 0.5, 30.0
"""Seconds between probes of an upstream that is down."""
LOG_EVERY: Final = 60.0
"""Seconds between two reports of faults of our own."""

UNREACHABLE = Error(22, "no upstream answered")
NETWORK = Error(23, "no upstream could be reached")
NO_UPSTREAM = Error(22, "no upstream is configured")
FAULT = Error(0, "fault of discod")

_DECLINED = frozenset({SERVFAIL, NOTIMP, REFUSED})
_PROBE = Asked(b"\0" + NS.to_bytes(2, "big") + IN.to_bytes(2, "big"), False, False)


class Flight:
    """A question under way."""

    __slots__ = ("client", "done", "said", "sent", "to")

    def __init__(self, client: str) -> None:
        self.client = client
        """Who asked first."""
        self.done = trio.Event()
        self.said: Reply | Error = FAULT
        self.sent: list[bytes] = []
        """The question as it was sent."""
        self.to = ""
        """Address of the upstream that is being asked."""


class Flights:
    """All questions under way. `run` has to be running while anything is asked."""

    def __init__(
        self,
        settings: DnsSettings,
        pool: Pool,
        attempts: Attempts,
        cache: Cache,
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._attempts = attempts
        self._cache = cache
        self._tally = tally
        self._rng = rng
        self._flights: dict[bytes, Flight] = {}
        self._nursery: trio.Nursery | None = None
        self._logged = -math.inf

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force."""
        self._settings = settings

    @property
    def full(self) -> bool:
        """Whether no other question can be asked now; without `run`, as at the end, none can."""
        return self._nursery is None or len(self._flights) >= FLIGHTS_MAX

    def find(self, key: bytes) -> Flight | None:
        """The question that is under way under this key."""
        return self._flights.get(key)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the questions and the probes until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()  # until cancelled
            finally:
                self._nursery = None

    def start(self, key: bytes, what: Asked, name: Name, client: str) -> Flight:
        """Ask upstreams, in a task of its own; `client` is who wants to know."""
        assert self._nursery is not None
        flight = self._flights[key] = Flight(client)
        self._nursery.start_soon(self._fly, key, flight, what, name)
        return flight

    async def _fly(self, key: bytes, flight: Flight, what: Asked, name: Name) -> None:
        try:
            flight.said = await self._settle(flight, what, name)
        except Exception:  # a fault of ours over one reply must not end the service
            now = trio.current_time()
            if now - self._logged >= LOG_EVERY:
                self._logged = now
                log.exception(
                    "forwarding failed by a fault of discod",
                    extra=fields(question=what.question.hex()),
                )
        finally:
            del self._flights[key]
            flight.done.set()

    async def _settle(self, flight: Flight, what: Asked, name: Name) -> Reply | Error:
        era = self._cache.era
        said = await self._ask_some(flight, what, name)
        now = trio.current_time()
        if isinstance(said, Reply) and said.rcode not in _DECLINED:
            if era == self._cache.era:  # else others would be asked by now
                self._cache.keep(what.key, said, now)
        elif said is not NO_UPSTREAM and is_failure(said):
            self._cache.fail(what.key, said, now)
        self._tally.entries(len(self._cache))
        return said

    async def _ask_some(self, flight: Flight, what: Asked, name: Name) -> Reply | Error:
        group = self._pool.group(name)
        candidates = order(group.upstreams, self._settings.forward_policy, self._rng)
        end = trio.current_time() + TRIES_MAX * group.timeout
        error = NO_UPSTREAM
        declined: Reply | None = None
        for to in (candidates * group.attempts)[:TRIES_MAX]:
            flight.to = to.client
            deadline = min(trio.current_time() + group.timeout, end)
            try:
                reply = await self._try(to, what, deadline, flight.sent.append)
            except TryFailed as failure:
                error = NETWORK if failure.result == "error" else UNREACHABLE
                continue
            if reply.rcode not in _DECLINED:
                return reply
            declined = reply  # another upstream may know better; if not, this is the answer
            if len(candidates) == 1:
                break
        return declined or error

    async def _try(
        self, to: Upstream, what: Asked, deadline: float, sent: Callable[[bytes], object]
    ) -> Reply:
        """One try, counted, and what it says about the upstream's health.

        Raises:
            TryFailed.
        """
        start = trio.current_time()
        try:
            reply = await self._attempts.ask(to, what, deadline, sent)
        except TryFailed as failure:
            self._tally.tried(to.label, failure.result)
            if to.failed(trio.current_time(), start) and self._nursery is not None:
                log.warning(
                    "upstream is down", extra=fields(upstream=to.label, result=failure.result)
                )
                self._nursery.start_soon(self._probe, to)
            raise
        self._tally.tried(to.label, "refused" if reply.rcode in _DECLINED else "ok")
        self._tally.seconds(to.label, to.average or 0.0)
        return reply

    async def _probe(self, to: Upstream) -> None:
        """Ask an upstream for the root's servers until it answers, whatever it answers."""
        backoff = Backoff(self._rng, PROBE_FIRST, PROBE_MOST)
        while True:
            await trio.sleep(backoff.pause())
            if not to.down:
                break  # it was asked, since all others are down as well
            if not self._pool.is_known(to):
                return
            now = trio.current_time()
            deadline = now + self._settings.forward_timeout
            try:
                await self._attempts.ask(to, _PROBE, deadline, _nobody)
            except TryFailed as failure:
                self._tally.tried(to.label, failure.result)
                to.failed(trio.current_time(), now)
        log.info("upstream is up again", extra=fields(upstream=to.label))


def _nobody(_: bytes) -> None:
    """Nobody waits for a probe's question."""


def is_failure(said: Reply | Error) -> bool:
    """Whether an older answer is better than this (RFC 8767, section 5): REFUSED is an answer."""
    return not isinstance(said, Reply) or said.rcode == SERVFAIL
