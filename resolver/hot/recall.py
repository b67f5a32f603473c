"""The daemon's own memory, for what comes over TCP and TLS.

Rule: as in a worker, but for one thing: nothing is limited to a datagram. The zone and the
responder are the daemon's; what is not remembered here goes to them as if there were no memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from discod.model.catalog import Catalog, Change
from discod.model.settings import DnsSettings
from resolver.acl import Acl, packed
from resolver.answer import Outcome, Responder, Transport
from resolver.faults import Faults
from resolver.hot.entry import Found
from resolver.hot.memo import Memo, settle
from resolver.hot.mmsg import address_of
from resolver.hot.slots import (
    COOKIES_BAD,
    COOKIES_NEW,
    COOKIES_VALID,
    SECONDS,
    SLOTS,
    bucket,
)
from resolver.rrl import Action
from resolver.zone import Zone

OCTETS_MAX: Final = 8 * 1024 * 1024
"""Of memory, less than a worker's: few clients come over TCP, and they ask for little."""
ID: Final = 2
"""Octets of a message's id, which no answer in memory has."""
Ready = tuple[bytes, bytes, int]
"""An answer as it goes over a stream: the length of the whole message, what follows the id, and its
kind (`resolver.hot.slots`)."""
STREAMS: Final[tuple[Transport, ...]] = ("tcp", "tls")


class Recall:
    """Answers remembered, and how many were given.

    Args:
        zone: The daemon's.
        responder: The daemon's.
        settings: ``[dns]``.
        secrets: For cookies, the first makes them.
        rng: For the order of answers.
    """

    def __init__(
        self,
        zone: Zone,
        responder: Responder,
        settings: DnsSettings,
        secrets: Sequence[bytes],
        rng: random.Random,
    ) -> None:
        self._responder = responder
        self._client = ""
        self._faults = Faults()
        self.memo: Memo[Ready] = Memo(
            self._respond, self._limited, address_of, _ready, zone, rng, octets_max=OCTETS_MAX
        )
        self.memo.stream = True
        self.rows = {t: memoryview(bytearray(8 * SLOTS)).cast("Q") for t in STREAMS}
        """What was counted, as workers do (`resolver.hot.slots`)."""
        self.configure(settings, secrets)

    def configure(self, settings: DnsSettings, secrets: Sequence[bytes]) -> None:
        """Put other settings in force."""
        self._acl = Acl(settings.allow)
        settle(self.memo, settings, secrets)

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take note that the zone has taken a new Catalog."""
        memo = self.memo
        if change is None or change.hosts:
            memo.clear()
        if change is None:
            memo.aliases = {service.encode() for service in catalog.aliases}
            memo.labels = {service.encode() for service in catalog.services} | memo.aliases
            memo.changed(())
            return
        for service in change.services:
            label = service.encode()
            aliased = service in catalog.aliases
            (memo.aliases.add if aliased else memo.aliases.discard)(label)
            exists = aliased or service in catalog.services
            (memo.labels.add if exists else memo.labels.discard)(label)
        memo.changed(tuple(change.services))

    def changed(self, services: Sequence[str]) -> None:
        """Take note that the zone answers otherwise for `services`."""
        self.memo.changed(services)

    def forget(self) -> None:
        """How the Catalog stands with the store is different: so are the answers."""
        self.memo.clear()

    def usable(self, client: str, now: int) -> bool:
        """Whether queries of a client may be answered from here at the moment, Unix time `now`."""
        if not self._responder.ready or not self._acl.allows(client):
            return False
        self.memo.now = now
        self._client = client
        return True

    def find_all(self, keys: Sequence[bytes], client: str, octets: int) -> Sequence[Ready]:
        """The answers to the first of these queries.

        They end before one that the responder is to answer, and with so many octets.

        Args:
            keys: Packets without their ids; at least one.
            client: Address.
            octets: Of all answers; the one that reaches it is the last.
        """
        nothing = self.memo.answers.nothing
        # All at once, as a worker does: misses of the caches overlap (`resolver.hot.loop`).
        found = next(zip(*map(self.memo.answers.__getitem__, keys), strict=True))
        if nothing not in found and sum([len(body) for _, body, _ in found]) < octets:
            return found
        some: list[Ready] = []
        for key, first in zip(keys, found, strict=True):
            ready = self.find(key, client) if first is nothing else first
            if ready is None:
                break
            some.append(ready)
            octets -= len(ready[1])
            if octets <= 0:
                break
        return some

    def find(self, key: bytes, client: str) -> Ready | None:
        """The answer to a query that the first tier had none for; None: ask the responder."""
        # A question that was asked twice has been found meanwhile.
        ready = next(self.memo.answers[key])
        if ready is not self.memo.answers.nothing:
            return ready
        try:
            found = self.memo.find(key, packed(client))
        except Exception:  # noqa: BLE001 - a fault of ours over one packet must not end the service
            self._faults.report(key, client)
            return None
        return None if found is None or found[2] < 0 else _ready(found)

    def told(self, transport: Transport, given: Sequence[Ready], nanoseconds: int) -> None:
        """Count answers that were given together, `nanoseconds` after they were asked for."""
        row = self.rows[transport]
        kinds = bytes([kind for _, _, kind in given])
        for kind in set(kinds):
            row[kind] += kinds.count(kind)
        row[bucket(nanoseconds)] += len(kinds)
        row[SECONDS] += nanoseconds * len(kinds)
        verdicts = self.memo.verdicts
        if any(verdicts.values()):
            row[COOKIES_VALID] += verdicts["valid"]
            row[COOKIES_NEW] += verdicts["new"]
            row[COOKIES_BAD] += verdicts["bad"]
            for verdict in verdicts:
                verdicts[verdict] = 0
        self.memo.retired.clear()

    def _respond(self, packet: bytes, client: bytes) -> Outcome:
        del client  # as text it is at hand
        return self._responder.respond(packet, self._client, "tcp", self.memo.now)

    def _limited(self, packet: bytes, client: bytes, action: Action) -> Outcome:
        raise AssertionError("there is no rate limit over TCP")


def _ready(found: Found) -> Ready:
    _, size, kind, body = found
    return (size + ID).to_bytes(2, "big"), body, kind
