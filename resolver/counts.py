"""The resolver's share of the metrics, at the price of a dict look-up.

Rule: label values come from closed sets (our zones, known types and rcodes, configured upstreams),
so that no client can make the registry grow.
"""

from __future__ import annotations

from discod.metrics import Metrics
from resolver.answer import Outcome, Transport

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
    16: "BADVERS",
}


class Counts:
    """Counts queries and responses; `domain` is the label of our own zone."""

    def __init__(self, metrics: Metrics, domain: str) -> None:
        self._metrics = metrics
        self._zones = {"domain": domain, "reverse": "reverse", ".": "."}
        self._requests = {
            (zone, proto, type_): metrics.dns_requests.labels(label, proto, type_).inc
            for zone, label in self._zones.items()
            for proto in ("udp", "tcp")
            for type_ in (*_TYPES.values(), "other")
        }
        self._responses = {
            rcode: metrics.dns_responses.labels(text).inc for rcode, text in _RCODES.items()
        }
        self._other = metrics.dns_responses.labels("other").inc
        self._durations = {
            zone: metrics.dns_duration.labels(label).observe for zone, label in self._zones.items()
        }
        self._malformed = {p: metrics.dns_malformed.labels(p).inc for p in ("udp", "tcp")}

    def query(self, outcome: Outcome, transport: Transport) -> None:
        """Count what came in."""
        query = outcome.query
        if query is None:
            self._malformed[transport]()
            return
        if query.fault:
            self._malformed[transport]()
        self._requests[outcome.zone, transport, _TYPES.get(query.type, "other")]()
        if outcome.refused:
            self._metrics.dns_refused.inc()

    def response(self, zone: str, rcode: int, truncated: bool, seconds: float) -> None:
        """Count what went out, `seconds` after the query came in."""
        self._responses.get(rcode, self._other)()
        self._durations[zone](seconds)
        if truncated:
            self._metrics.dns_truncated.inc()

    def forward(self, upstream: str, result: str) -> None:
        """Count a try at an upstream; `result`: ok, timeout, error, refused or malformed."""
        self._metrics.dns_forwards.labels(upstream, result).inc()

    def connections(self, count: int) -> None:
        """Set the number of open TCP connections."""
        self._metrics.dns_tcp_connections.set(count)
