"""The resolver's share of the metrics, at the price of a dict look-up.

Rule: label values come from closed sets (our zones, known types and rcodes, configured upstreams),
so that no client can make the registry grow.
"""

from __future__ import annotations

from typing import Literal, get_args

from discod.metrics import Metrics
from resolver.answer import Outcome, Transport
from resolver.cookies import Verdict

_TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    13: "HINFO",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    35: "NAPTR",
    43: "DS",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    64: "SVCB",
    65: "HTTPS",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
    257: "CAA",
}
_RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}
_PROTOS: tuple[Transport, ...] = "udp", "tcp", "tls"


class Counts:
    """Counts queries and responses; `domain` is the label of our own zone."""

    def __init__(self, metrics: Metrics, domain: str) -> None:
        self._metrics = metrics
        self._zones = {"domain": domain, "reverse": "reverse", ".": "."}
        self._requests = {
            (zone, proto, type_): metrics.dns_requests.labels(label, proto, type_).inc
            for zone, label in self._zones.items()
            for proto in _PROTOS
            for type_ in (*_TYPES.values(), "other")
        }
        self._responses = {
            rcode: metrics.dns_responses.labels(text).inc for rcode, text in _RCODES.items()
        }
        self._other = metrics.dns_responses.labels("other").inc
        self._durations = {
            zone: metrics.dns_duration.labels(label).observe for zone, label in self._zones.items()
        }
        self._malformed = {p: metrics.dns_malformed.labels(p).inc for p in _PROTOS}
        self._cookies = {v: metrics.dns_cookies.labels(v).inc for v in get_args(Verdict)}
        self._limited = {a: metrics.dns_rate_limited.labels(a).inc for a in ("slip", "drop")}

    def query(self, outcome: Outcome, transport: Transport) -> None:
        """Count what came in."""
        query = outcome.query
        if query is None:
            self._malformed[transport]()
            return
        if query.fault or outcome.cookie == "malformed":
            self._malformed[transport]()
        self._requests[outcome.zone, transport, _TYPES.get(query.type, "other")]()
        if outcome.refused:
            self._metrics.dns_refused.inc()
        if outcome.cookie is not None:
            self._cookies[outcome.cookie]()
        if outcome.limited != "pass":
            self._limited[outcome.limited]()

    def response(self, zone: str, rcode: int, truncated: bool, seconds: float) -> None:
        """Count what went out, `seconds` after the query came in."""
        self._responses.get(rcode, self._other)()
        self._durations[zone](seconds)
        if truncated:
            self._metrics.dns_truncated.inc()

    # What others counted, as the worker processes do ------------------------------------------

    def add_queries(self, zone: str, transport: Transport, qtype: int, count: int) -> None:
        """Add queries of one kind; `zone` is ``domain``, ``reverse`` or ``.``."""
        self._requests[zone, transport, _TYPES.get(qtype, "other")](count)

    def add_responses(self, rcode: int, truncated: bool, count: int) -> None:
        """Add responses of one kind; any `rcode` that is not known counts as *other*."""
        self._responses.get(rcode, self._other)(count)
        if truncated:
            self._metrics.dns_truncated.inc(count)

    def add_malformed(self, transport: Transport, count: int) -> None:
        """Add packets that are no query."""
        self._malformed[transport](count)

    def add_cookies(self, verdict: Verdict, count: int) -> None:
        """Add queries with a cookie."""
        self._cookies[verdict](count)

    def add_limited(self, action: Literal["slip", "drop"], count: int) -> None:
        """Add responses above the rate limit."""
        self._limited[action](count)

    def add_refused(self, count: int) -> None:
        """Add queries of clients outside ``dns.allow``."""
        self._metrics.dns_refused.inc(count)

    # Upstreams and connections ----------------------------------------------------------------

    def forward(self, upstream: str, result: str) -> None:
        """Count a try at an upstream; `result`: ok, timeout, error, refused or malformed."""
        self._metrics.dns_forwards.labels(upstream, result).inc()

    def connections(self, count: int) -> None:
        """Set the number of open TCP connections."""
        self._metrics.dns_tcp_connections.set(count)
