"""Every metric of the daemon, in CoreDNS's and MetalLB's manner.

Rule: the one module that imports prometheus_client. A metric is named here and nowhere else; parts
get this object and count. `docs/metrics.md` lists them (`make docs`; a test compares).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from discod.metrics_buckets import FAST, SLOW

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Before(Collector):
    """Has no metrics of its own, only work to do before those of others are read."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Do the work."""
        for callback in self.callbacks:
            callback()
        return ()


class Row:
    """One label value's share of `Durations`."""

    __slots__ = ("_bounds", "_counts", "_created", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._created = time.time()

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def add(self, counts: Sequence[int], seconds: float) -> None:
        """Count many, that somebody else sorted into the same buckets.

        Args:
            counts: One number a bound, and one for what is longer.
            seconds: Their sum.
        """
        self._counts = [mine + more for mine, more in zip(self._counts, counts, strict=True)]
        self._sum += seconds


class Durations(Collector):
    """A histogram that takes whole buckets as well (prometheus_client's takes single values only).

    Its exposition is that of `prometheus_client.Histogram`.
    """

    def __init__(self, name: str, documentation: str, label: str, bounds: Sequence[float]) -> None:
        self.label = label
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(float(bound) for bound in bounds)
        self._rows: dict[str, Row] = {}

    def labels(self, value: str) -> Row:
        """The row of one label value, which exists from now on."""
        row = self._rows.get(value)
        if row is None:
            row = self._rows[value] = Row(self._bounds)
        return row

    def describe(self) -> Iterable[Metric]:
        """The name, type and meaning."""
        yield self._families()[0]

    def collect(self) -> Iterator[Metric]:
        """All rows."""
        times, created = self._families()
        bounds = [*map(repr, self._bounds), "+Inf"]
        for value, row in self._rows.items():
            total = 0
            buckets = []
            for bound, count in zip(bounds, row._counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            times.add_metric([value], buckets, row._sum)
            created.add_metric([value], row._created)
        yield times
        if self._rows:
            yield created

    def _families(self) -> tuple[HistogramMetricFamily, GaugeMetricFamily]:
        return (
            HistogramMetricFamily(self._name, self._documentation, labels=[self.label]),
            GaugeMetricFamily(f"{self._name}_created", self._documentation, labels=[self.label]),
        )


class Metrics:
    """The daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self._before = _Before()
        r.register(self._before)  # first, and the registry collects in the order of registration
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        GCCollector(registry=r)

        self.build_info = Gauge("discod_build_info", "Constant 1.", ["version"], registry=r)
        self.config_stale = Gauge(
            "discod_config_stale",
            "1 while the configuration file has faults and the last good one is in force.",
            registry=r,
        )

        self.loop_lag = Gauge(
            "discod_loop_lag_seconds",
            "Longest time that the event loop was blocked within the last one to two minutes.",
            registry=r,
        )
        self.loop_blocked = Counter(
            "discod_loop_blocked", "Times that it was blocked for more than a second.", registry=r
        )
        self.store_connected = Gauge(
            "discod_store_connected", "1 while the store delivers changes.", registry=r
        )
        self.store_errors = Counter(
            "discod_store_errors", "Store calls that failed.", ["call", "kind"], registry=r
        )
        self.catalog_age = Gauge(
            "discod_catalog_age_seconds",
            "Seconds since the store last gave a sign of life.",
            registry=r,
        )
        self.catalog_revision = Gauge(
            "discod_catalog_revision", "Store revision of the Catalog.", registry=r
        )
        self.catalog_endpoints = Gauge(
            "discod_catalog_endpoints", "Endpoints that are up, cluster-wide.", registry=r
        )
        self.catalog_services = Gauge(
            "discod_catalog_services", "Services with an endpoint that is up.", registry=r
        )
        self.catalog_hosts = Gauge("discod_catalog_hosts", "Hosts with a live lease.", registry=r)
        self.catalog_invalid = Gauge(
            "discod_catalog_invalid_records", "Records that were skipped as malformed.", registry=r
        )
        self.catalog_changes = Counter(
            "discod_catalog_changes", "Changes of the Catalog.", ["what"], registry=r
        )

        self.endpoints = Gauge(
            "discod_announcer_endpoints", "Endpoints of this host.", ["state"], registry=r
        )
        self.containers_refused = Gauge(
            "discod_announcer_containers_refused",
            "Containers of this host that offer nothing because their labels are at fault.",
            registry=r,
        )
        self.withdrawals = Counter(
            "discod_announcer_withdrawals", "Endpoints withdrawn.", ["reason"], registry=r
        )
        self.withdrawal_seconds = Histogram(
            "discod_announcer_withdrawal_seconds",
            "From this host's knowledge of an end to the store's confirmation.",
            buckets=SLOW,
            registry=r,
        )
        self.checks = Counter(
            "discod_announcer_checks", "Own checks run.", ["kind", "result"], registry=r
        )
        self.docker_connected = Gauge(
            "discod_docker_connected", "1 while the engine's events arrive.", registry=r
        )
        self.docker_events = Counter(
            "discod_docker_events", "Engine events received.", ["action"], registry=r
        )
        self.docker_resyncs = Counter(
            "discod_docker_resyncs", "Full comparisons with the engine's list.", registry=r
        )

        self.suspects = Gauge(
            "discod_suspects",
            "Endpoints that the store lost and that are kept for now.",
            registry=r,
        )
        self.brake_engaged = Counter(
            "discod_brake_engaged",
            "Times that the store lost so much at once that it was not believed.",
            registry=r,
        )
        self.suspects_dropped = Counter(
            "discod_suspects_dropped",
            "Suspects that were let go without the store having them again.",
            ["why"],
            registry=r,
        )
        self.liveness_host_up = Gauge(
            "discod_liveness_host_up",
            "0 while another host does not answer and is taken as lost.",
            ["host"],
            registry=r,
        )
        self.liveness_suspicions = Counter(
            "discod_liveness_suspicions",
            "Times that this host itself saw no sign of life of another.",
            registry=r,
        )
        self.liveness_confirmed = Counter(
            "discod_liveness_confirmed", "Times that a host was taken as lost.", registry=r
        )
        self.liveness_refuted = Counter(
            "discod_liveness_refuted",
            "Times that this host told the others that a suspect is alive.",
            registry=r,
        )
        self.liveness_refused = Counter(
            "discod_liveness_refused",
            "Liveness messages that were malformed or not signed by a known host.",
            registry=r,
        )
        self.liveness_late = Counter(
            "discod_liveness_late",
            "Times that this host was too late itself to judge others.",
            registry=r,
        )
        self.liveness_cut_off = Gauge(
            "discod_liveness_cut_off",
            "1 while so many hosts are silent that rather this host seems to be cut off.",
            registry=r,
        )
        self.liveness_rtt = Histogram(
            "discod_liveness_rtt_seconds",
            "From a ping of another host to its answer.",
            buckets=FAST,
            registry=r,
        )
        self.hints_sent = Counter(
            "discod_hints_sent", "Hints of ends sent to other hosts, datagrams.", registry=r
        )
        self.hints_received = Counter(
            "discod_hints_received",
            "Hints of ends from other hosts, datagrams.",
            ["result"],
            registry=r,
        )

        self.dns_requests = Counter(
            "discod_dns_requests", "Queries.", ["zone", "proto", "type"], registry=r
        )
        self.dns_responses = Counter("discod_dns_responses", "Responses.", ["rcode"], registry=r)
        self.dns_duration = Durations(
            "discod_dns_request_duration_seconds",
            "From a query's arrival to its answer.",
            "zone",
            FAST,
        )
        r.register(self.dns_duration)
        self.dns_refused = Counter(
            "discod_dns_acl_refused", "Queries from clients outside dns.allow.", registry=r
        )
        self.dns_malformed = Counter(
            "discod_dns_malformed", "Packets that are no query.", ["proto"], registry=r
        )
        self.dns_truncated = Counter("discod_dns_truncated", "Answers sent with TC.", registry=r)
        self.dns_dropped = Counter(
            "discod_dns_dropped",
            "UDP queries left unanswered: too many at once, or the kernel did not take the answer.",
            ["reason"],
            registry=r,
        )
        self.dns_forwards = Counter(
            "discod_dns_forwards",
            "Queries sent to an upstream.",
            ["upstream", "result"],
            registry=r,
        )
        self.dns_tcp_connections = Gauge(
            "discod_dns_tcp_connections", "Open TCP connections.", registry=r
        )
        self.dns_workers = Gauge(
            "discod_dns_workers", "Worker processes that answer at the moment.", registry=r
        )
        self.dns_worker_restarts = Counter(
            "discod_dns_worker_restarts",
            "Worker processes replaced because they ended or hung.",
            ["reason"],
            registry=r,
        )
        self.dns_rate_limited = Counter(
            "discod_dns_rate_limited",
            "Responses above dns.rate_limit, by what became of them.",
            ["action"],
            registry=r,
        )
        self.dns_cookies = Counter(
            "discod_dns_cookies", "Queries with a DNS Cookie.", ["result"], registry=r
        )
        self.dns_cache = Counter(
            "discod_dns_cache",
            "Look-ups in the cache of forwarded answers.",
            ["result"],
            registry=r,
        )
        self.dns_cache_entries = Gauge(
            "discod_dns_cache_entries", "Forwarded answers kept.", registry=r
        )
        self.dns_upstream_seconds = Gauge(
            "discod_dns_upstream_seconds",
            "Moving average of an upstream's response time.",
            ["upstream"],
            registry=r,
        )
        self.dns_transfers = Counter(
            "discod_dns_transfers", "Zone transfers asked for.", ["kind", "result"], registry=r
        )
        self.dns_notifies = Counter(
            "discod_dns_notifies",
            "NOTIFY messages to secondaries, by their outcome.",
            ["secondary", "result"],
            registry=r,
        )
        self.dns_serial = Gauge("discod_dns_serial", "SOA serial of the zone.", registry=r)

        peer, way = ["peer"], ["peer", "direction"]
        self.bgp_session_up = Gauge(
            "discod_bgp_session_up", "1 while the session is established.", peer, registry=r
        )
        self.bgp_announced_prefixes = Gauge(
            "discod_bgp_announced_prefixes", "Prefixes that this host announces.", registry=r
        )
        self.bgp_received_prefixes = Gauge(
            "discod_bgp_received_prefixes", "Prefixes that a peer has told.", peer, registry=r
        )
        self.bgp_advertised_prefixes = Gauge(
            "discod_bgp_advertised_prefixes", "Prefixes that a peer was told.", peer, registry=r
        )
        self.bgp_updates = Counter("discod_bgp_updates", "UPDATE messages.", way, registry=r)
        self.bgp_notifications = Counter(
            "discod_bgp_notifications", "NOTIFICATION messages.", way, registry=r
        )
        self.bgp_flaps = Counter(
            "discod_bgp_flaps", "Established sessions that ended.", peer, registry=r
        )
        self.bgp_kernel_routes = Gauge(
            "discod_bgp_kernel_routes", "Learned routes that the kernel has.", registry=r
        )
        self.bgp_kernel_errors = Counter(
            "discod_bgp_kernel_errors", "Learned routes that the kernel refused.", registry=r
        )
        self.bgp_faults = Counter(
            "discod_bgp_faults", "Faults of the program in its BGP; the log has them.", registry=r
        )

    def before_exposition(self, callback: Callable[[], None]) -> None:
        """Have `callback` count what is counted elsewhere, each time before values are read."""
        self._before.callbacks.append(callback)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
