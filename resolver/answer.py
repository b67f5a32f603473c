"""One packet in, the decision out: a response, a question for an upstream, or silence.

Rule: every decision about a single query is taken here, in one order, without I/O; who sends what
(`resolver.udp`, `resolver.tcp`, `resolver.forward`) decides nothing. Pure: randomness is the
caller's `rng`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal, NamedTuple

from discod.model.settings import DnsSettings
from resolver.acl import Acl
from resolver.encode import Error, encode, limit
from resolver.record import (
    AXFR,
    FORMERR,
    IN,
    IXFR,
    NOERROR,
    NXDOMAIN,
    OPT,
    REFUSED,
    SERVFAIL,
    Answer,
)
from resolver.wire import TCP_MAX, Query, read_query
from resolver.zone import Zone

Transport = Literal["udp", "tcp"]

STALE_ANSWER = Error(3, "the store is not reachable")
NOT_READY = Error(14, "no snapshot of the store yet")
PROHIBITED = Error(18, "")
STALE_NXDOMAIN = Error(19, "the store is not reachable")
NOT_AUTHORITATIVE = Error(20, "")


class Outcome(NamedTuple):
    """What is to be done with one packet."""

    packet: bytes | None
    """The response; None with `query`: ask an upstream; None without: stay silent."""
    query: Query | None = None
    zone: str = "."
    """``domain``, ``reverse`` or ``.``."""
    rcode: int = NOERROR
    truncated: bool = False
    refused: bool = False
    """Whether the client is not in the list of those that are answered."""


class Responder:
    """Answers from our zones, under the settings in force."""

    def __init__(self, zone: Zone, settings: DnsSettings, rng: random.Random) -> None:
        self.zone = zone
        self.stale = False
        self.ready = False
        self._rng = rng
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force."""
        self._acl = Acl(settings.allow)
        self._forward = settings.forward
        self._udp_size = settings.udp_size

    def respond(self, packet: bytes, client: str, transport: Transport) -> Outcome:
        """Decide on one packet from `client` (address in text form)."""
        query = read_query(packet)
        if query is None:
            return Outcome(None)
        if not self._acl.allows(client):
            return self._plain(query, transport, REFUSED, PROHIBITED)._replace(refused=True)
        if query.fault:
            return self._plain(query, transport, query.fault)
        if query.cls != IN or query.type in (AXFR, IXFR):
            return self._plain(query, transport, REFUSED)
        if query.type == OPT:
            return self._plain(query, transport, FORMERR)
        if not self.ready:
            owner = self.zone.owner(query.name)
            if owner != ".":
                return self._plain(query, transport, SERVFAIL, NOT_READY)._replace(zone=owner)
        answer = self.zone.lookup(query.name, query.type, self._rng)
        if answer is not None:
            return self._ours(query, transport, answer)
        if self._forward and query.rd:
            return Outcome(None, query)
        return self._plain(query, transport, REFUSED, NOT_AUTHORITATIVE)

    def limit(self, query: Query, transport: Transport) -> int:
        """Octets that a response may have."""
        return TCP_MAX if transport == "tcp" else limit(query, self._udp_size)

    def _ours(self, query: Query, transport: Transport, answer: Answer) -> Outcome:
        errors: Iterable[Error] = ()
        if self.stale:
            errors = (STALE_NXDOMAIN if answer.rcode == NXDOMAIN else STALE_ANSWER,)
        packet, truncated = encode(
            query,
            answer.rcode,
            limit=self.limit(query, transport),
            udp_size=self._udp_size,
            aa=True,
            ra=self._forward,
            answer=answer.answer,
            authority=answer.authority,
            additional=answer.additional,
            errors=errors,
        )
        return Outcome(packet, query, answer.zone, answer.rcode, truncated)

    def _plain(self, query: Query, transport: Transport, rcode: int, *errors: Error) -> Outcome:
        packet, _ = encode(
            query,
            rcode,
            limit=self.limit(query, transport),
            udp_size=self._udp_size,
            ra=self._forward and PROHIBITED not in errors,
            errors=errors,
        )
        return Outcome(packet, query, ".", rcode)
