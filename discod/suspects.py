"""Probes the suspects: endpoints that the store lost together with many others.

Rule: asks, and tells the keeper what it saw; what follows from that is decided in
`discod.model.brake`. A probe is one TCP connection, opened and closed. Their rate is bounded, since
every host of the cluster may do the same at the same time.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import socket
from collections.abc import Awaitable, Callable

import trio

from discod.keeper import Keeper
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Endpoint, EndpointId

TIMEOUT = 1.0
"""Seconds that a probe may take: as long as a lost SYN takes to be sent again."""
RETRY = 0.5
"""Seconds from a failed probe to the next."""
AGAIN = 3.0
"""Seconds from a good probe to the next."""
JITTER = 0.2
"""Of each pause, so that the hosts of a cluster do not keep step."""
TICK = 0.05
"""Seconds between two looks at what is due."""
EXPIRY = 1.0
"""Seconds between two looks at what was held for long enough."""
PROBES_MAX = 128
"""Probes under way at once; what is due waits for one to end."""

UNDECIDED = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EPERM,
        errno.EACCES,
    }
)
"""What is wrong with this host, or with its way there, and says nothing of the endpoint."""

Connect = Callable[[Endpoint], Awaitable[None]]
"""Opens a connection and closes it; raises OSError where that fails."""


class Suspects:
    """The probing task.

    Args:
        keeper: Has the suspects, and the settings that say how fast to probe.
        rng: Spreads the probes.
        connect: Probes once.
    """

    def __init__(
        self, keeper: Keeper, *, rng: random.Random, connect: Connect | None = None
    ) -> None:
        self._keeper = keeper
        self._rng = rng
        self._connect = connect or open_and_close
        self._wanted = trio.Event()
        self._due: list[tuple[float, float, EndpointId]] = []  # a heap: when, a random number
        self._planned: set[EndpointId] = set()  # due or under way
        self._under_way = 0
        keeper.listen(self._note)

    def _note(self, catalog: Catalog, change: Change) -> None:
        del change
        if catalog.suspects:
            self._wanted.set()

    async def run(self) -> None:
        """Probe while there are suspects, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                await self._while_there_are(nursery)

    async def _while_there_are(self, nursery: trio.Nursery) -> None:
        allowed, last = 1.0, trio.current_time()
        expired = last
        while self._keeper.catalog.suspects:
            now = trio.current_time()
            rate = self._keeper.brake.settings.rate
            # What was not used is not saved up beyond one look: no bursts.
            allowed = min(allowed + (now - last) * rate, max(1.0, TICK * rate))
            last = now
            if now - expired >= EXPIRY:
                expired = now
                self._keeper.expire()
            self._plan(now)
            while allowed >= 1 and self._under_way < PROBES_MAX:
                if not self._due or self._due[0][0] > now:
                    break
                id_ = heapq.heappop(self._due)[2]
                suspect = self._keeper.catalog.suspects.get(id_)
                if suspect is None:
                    self._planned.discard(id_)
                    continue
                allowed -= 1
                self._under_way += 1
                nursery.start_soon(self._probe, suspect.endpoint)
            await trio.sleep(TICK)

    def _plan(self, now: float) -> None:
        for id_, suspect in self._keeper.catalog.suspects.items():
            if suspect.probed and id_ not in self._planned:
                self._planned.add(id_)
                heapq.heappush(self._due, (now, self._rng.random(), id_))

    async def _probe(self, endpoint: Endpoint) -> None:
        pause = AGAIN
        try:
            detail, ok = await self._result(endpoint)
        finally:
            self._under_way -= 1
        if ok is not None:
            self._keeper.probed(endpoint.id, ok=ok, detail=detail)
            pause = AGAIN if ok else RETRY
        due = trio.current_time() + pause * (1 + self._rng.uniform(-JITTER, JITTER))
        heapq.heappush(self._due, (due, self._rng.random(), endpoint.id))

    async def _result(self, endpoint: Endpoint) -> tuple[str, bool | None]:
        """What a probe saw, in words, and whether it succeeded; None: it says nothing."""
        with trio.move_on_after(TIMEOUT):
            try:
                await self._connect(endpoint)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                return f"probe failed: {why}", None if error.errno in UNDECIDED else False
            return "answers probes", True
        return f"probe failed: no answer within {TIMEOUT:g} s", False


async def open_and_close(endpoint: Endpoint) -> None:
    """Connect to an endpoint's port by TCP, and close the connection."""
    family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
        await sock.connect((str(endpoint.address), endpoint.port))
