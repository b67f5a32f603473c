"""One packet in, the decision out: a response, a question for an upstream, or silence.

Rule: every decision about a single query is taken here, in one order, without I/O; who sends what
(`resolver.udp`, `resolver.tcp`, `resolver.forward`) decides nothing. Pure: randomness is the
caller's `rng`, time the caller's `now`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from discod.model.settings import DnsSettings
from resolver import chaos
from resolver.acl import Acl, packed
from resolver.cookies import BADCOOKIE, COOKIE, Cookies, Verdict, is_cookie
from resolver.encode import PADDING, Error, encode, limit
from resolver.record import (
    ANY,
    AXFR,
    FORMERR,
    IN,
    IXFR,
    NOERROR,
    NXDOMAIN,
    OPT,
    REFUSED,
    SERVFAIL,
    TKEY,
    TSIG,
    Answer,
)
from resolver.rrl import Action, Limiter
from resolver.wire import TCP_MAX, Query, read_query
from resolver.zone import Zone

Transport = Literal["udp", "tcp", "tls"]

LOOP = Error(0, "too many aliases")
STALE_ANSWER = Error(3, "the store is not reachable")
NOT_READY = Error(14, "no snapshot of the store yet")
PROHIBITED = Error(18, "")
STALE_NXDOMAIN = Error(19, "the store is not reachable")
NOT_AUTHORITATIVE = Error(20, "")

NSID: Final = 3
"""Option code (RFC 5001)."""
KEEPALIVE: Final = 11
"""Option code of edns-tcp-keepalive (RFC 7828)."""
RECORD_MIN: Final = 16
"""Octets of the smallest record: an address whose owner is a pointer."""
_NEVER_ASKED = frozenset({OPT, TKEY, TSIG})
"""Parts of messages that no zone holds: who asks for them made no query."""
_SIGNATURE_MORE = 70
"""Octets by which our TSIG may be longer than the client's: a whole digest for a shortened one, and
the time that goes with BADTIME (RFC 8945)."""


class Outcome(NamedTuple):
    """What is to be done with one packet."""

    packet: bytes | None
    """The response; None: see `forward`, else stay silent."""
    query: Query | None = None
    zone: str = "."
    """``domain``, ``reverse`` or ``.``."""
    rcode: int = NOERROR
    truncated: bool = False
    refused: bool = False
    """Whether the client is not in the list of those that are answered."""
    answer: Answer | None = None
    """An alias that leads out of our zones (`Answer.chase`), for whom it may be followed: who
    can composes the response; `packet` has the alias alone."""
    transfer: bool = False
    """A zone transfer is asked for. `packet` refuses it; who has the means answers instead."""
    limit: int = TCP_MAX
    """Octets that a response made by others may have before `options` are added."""
    options: tuple[tuple[int, bytes], ...] = ()
    """What the OPT record of a response made by others is to say (`encode.add_options`)."""
    padded: bool = False
    """Whether that response is to be padded."""
    client: str = ""
    """Address."""
    cookie: Verdict | None = None
    limited: Action = "pass"

    @property
    def forward(self) -> bool:
        """Whether `query` is to be asked of an upstream."""
        return self.packet is None and self.query is not None and self.limited == "pass"


class _Asked(NamedTuple):
    """A query, and what any response to it has to keep to."""

    query: Query
    limit: int
    options: tuple[tuple[int, bytes], ...] = ()
    padded: bool = False
    cookie: Verdict | None = None


class Responder:
    """Answers from our zones, under the settings in force.

    Args:
        zone: Our zones.
        settings: ``[dns]``.
        rng: For the order of answers.
        secrets: For cookies, the first makes them; none: no cookies.
    """

    def __init__(
        self,
        zone: Zone,
        settings: DnsSettings,
        rng: random.Random,
        secrets: Sequence[bytes] = (),
    ) -> None:
        self.zone = zone
        self.stale = False
        self.ready = False
        self._rng = rng
        self._limiter: Limiter | None = None
        self._limits = 0, 0
        self._secrets: Sequence[bytes] = ()
        self._cookies: Cookies | None = None
        self.configure(settings, secrets)

    def configure(self, settings: DnsSettings, secrets: Sequence[bytes] | None = None) -> None:
        """Put other settings in force, and other secrets where they are given."""
        self._acl = Acl(settings.allow)
        self._forward = settings.forward
        self._forward_acl = Acl(settings.forward_allow) if settings.forward_allow else self._acl
        self._udp_size = settings.udp_size
        self._version = settings.server_version
        self._identity = settings.server_id
        self._keepalive = min(int(settings.tcp_idle * 10), 0xFFFF).to_bytes(2, "big")
        if secrets is not None and tuple(secrets) != tuple(self._secrets):
            self._secrets = secrets
            self._cookies = None
        if not settings.cookies or not self._secrets:
            self._cookies = None
        elif self._cookies is None:
            self._cookies = Cookies(self._secrets)
        limits = settings.rate_limit, settings.rate_slip
        if limits != self._limits:  # else what was counted stands
            self._limits = limits
            self._limiter = Limiter(*limits, self._rng.getrandbits(64)) if limits[0] else None

    def respond(
        self, packet: bytes, client: str, transport: Transport, now: float = 0.0
    ) -> Outcome:
        """Decide on one packet.

        Args:
            packet: As it came.
            client: Address in text form.
            transport: What it came over.
            now: Unix seconds.
        """
        query = read_query(packet)
        if query is None:
            return Outcome(None)
        edns = query.edns
        if edns is None or not edns.options:
            asked = _Asked(query, self.limit(query, transport))
        else:
            asked = self._with_options(query, client, transport, now)
        if self._limiter is not None and transport == "udp" and asked.cookie != "valid":
            action = self._limiter.verdict(packed(client), now)
            if action != "pass":
                return self._limited(asked, action)
        if not self._acl.allows(client):
            return self._stranger(asked)
        if query.fault or asked.cookie == "malformed":
            return self._plain(asked, query.fault or FORMERR)
        if not query.question:
            return self._cookie_only(asked)
        if query.cls != IN and query.cls != ANY:
            return self._other_class(asked)
        if query.type in (AXFR, IXFR):
            refusal = self._plain(asked, REFUSED)
            return refusal._replace(transfer=query.cls == IN, client=client)
        if query.type in _NEVER_ASKED:
            return self._plain(asked, FORMERR)
        if not self.ready:
            owner = self.zone.owner(query.name)
            if owner != ".":
                return self._plain(asked, SERVFAIL, NOT_READY)._replace(zone=owner)
        most = asked.limit // RECORD_MIN + 1
        answer = self.zone.lookup(query.name, query.type, self._rng, most)
        may = self._forward and query.rd and query.cls == IN
        if answer is not None:
            outcome = self._ours(asked, answer)
            if answer.chase and may and self._forward_acl.allows(client):
                return self._handed_on(outcome, asked, client)._replace(answer=answer)
            return outcome
        if not may:
            return self._plain(asked, REFUSED, NOT_AUTHORITATIVE)
        if not self._forward_acl.allows(client):
            return self._plain(asked, REFUSED, PROHIBITED)
        return self._handed_on(Outcome(None, query), asked, client)

    def limit(self, query: Query, transport: Transport) -> int:
        """Octets that a response may have; less what its signature takes, where it gets one."""
        most = limit(query, self._udp_size) if transport == "udp" else TCP_MAX
        if query.tsig is not None:
            most -= query.tsig.end - query.tsig.start + _SIGNATURE_MORE
        return most

    def above_rate(self, packet: bytes, client: str, action: Action, now: float) -> Outcome:
        """What a query gets over UDP that the caller found to come above the rate.

        Args:
            packet: As for `respond`.
            client: As for `respond`.
            action: ``slip`` or ``drop``.
            now: As for `respond`.
        """
        query = read_query(packet)
        if query is None:
            return Outcome(None)
        return self._limited(self._with_options(query, client, "udp", now), action)

    def _with_options(self, query: Query, client: str, transport: Transport, now: float) -> _Asked:
        """What the options of a query call for; of each the first counts, others are ignored."""
        options: dict[int, bytes] = {}
        cookie: Verdict | None = None
        padded = False
        for code, data in query.edns.options if query.edns is not None else ():
            if code == COOKIE:
                if not is_cookie(data):
                    cookie = cookie or "malformed"
                elif self._cookies is not None and cookie is None:
                    cookie, options[COOKIE] = self._cookies.answer(data, packed(client), int(now))
            elif code == NSID:
                if self._identity:
                    options[NSID] = self._identity.encode()
            elif code == KEEPALIVE:
                if transport != "udp":  # there it is ignored (RFC 7828, section 3.3.1)
                    options[KEEPALIVE] = self._keepalive
            elif code == PADDING:
                padded = transport == "tls"  # in the clear it hides nothing
        return _Asked(query, self.limit(query, transport), tuple(options.items()), padded, cookie)

    def _limited(self, asked: _Asked, action: Action) -> Outcome:
        """Drop it, or say in few octets how to come back.

        Who sent a cookie gets BADCOOKIE and the right one (RFC 7873, section 5.2.3), as BIND does
        it; others TC, so that they come over TCP.
        """
        if action == "drop":
            return Outcome(None, asked.query, cookie=asked.cookie, limited=action)
        fault = asked.query.fault or (FORMERR if asked.cookie == "malformed" else NOERROR)
        if fault:
            outcome = self._plain(asked, fault)
        elif asked.cookie is not None:
            outcome = self._plain(asked, BADCOOKIE)
        else:
            outcome = self._plain(asked._replace(options=()), NOERROR, tc=True)
        return outcome._replace(limited=action)

    def _stranger(self, asked: _Asked) -> Outcome:
        cookie_alone = tuple(option for option in asked.options if option[0] == COOKIE)
        outcome = self._plain(asked._replace(options=cookie_alone), REFUSED, PROHIBITED)
        return outcome._replace(refused=True)

    def _cookie_only(self, asked: _Asked) -> Outcome:
        """A query without a question (RFC 7873, section 5.4)."""
        if asked.cookie is None:  # cookies are switched off
            return self._plain(asked, FORMERR)
        return self._plain(asked, BADCOOKIE if asked.cookie == "bad" else NOERROR)

    def _other_class(self, asked: _Asked) -> Outcome:
        query = asked.query
        if query.cls != chaos.CH:
            return self._plain(asked, REFUSED)
        rr = chaos.answer(query.name, query.type, self._identity, self._version)
        if rr is None:
            return self._plain(asked, REFUSED)
        packet, truncated = encode(
            query,
            NOERROR,
            limit=asked.limit,
            udp_size=self._udp_size,
            ra=self._forward,
            answer=(rr,),
            options=asked.options,
            cls=chaos.CH,
            padded=asked.padded,
        )
        return Outcome(packet, query, truncated=truncated, cookie=asked.cookie)

    def _handed_on(self, outcome: Outcome, asked: _Asked, client: str) -> Outcome:
        room = sum([len(data) + 4 for _, data in asked.options])
        return outcome._replace(
            limit=asked.limit - room,
            options=asked.options,
            padded=asked.padded,
            client=client,
            cookie=asked.cookie,
        )

    def _ours(self, asked: _Asked, answer: Answer) -> Outcome:
        query = asked.query
        errors: tuple[Error, ...] = ()
        if answer.rcode == SERVFAIL:
            errors = (LOOP,)
        elif self.stale:
            errors = (STALE_NXDOMAIN if answer.rcode == NXDOMAIN else STALE_ANSWER,)
        packet, truncated = encode(
            query,
            answer.rcode,
            limit=asked.limit,
            udp_size=self._udp_size,
            # For class ANY no answer is authoritative (RFC 1035, section 6.2).
            aa=answer.rcode != SERVFAIL and query.cls == IN,
            ra=self._forward,
            answer=answer.answer,
            authority=answer.authority,
            additional=answer.additional,
            errors=errors,
            options=asked.options,
            padded=asked.padded,
        )
        return Outcome(packet, query, answer.zone, answer.rcode, truncated, cookie=asked.cookie)

    def _plain(self, asked: _Asked, rcode: int, *errors: Error, tc: bool = False) -> Outcome:
        packet, _ = encode(
            asked.query,
            rcode,
            limit=asked.limit,
            udp_size=self._udp_size,
            ra=self._forward and PROHIBITED not in errors,
            errors=errors,
            options=asked.options,
            tc=tc,
            padded=asked.padded,
        )
        return Outcome(packet, asked.query, ".", rcode, tc, cookie=asked.cookie)
