"""Every metric of the daemon, in CoreDNS's and MetalLB's manner.

Rule: the one module that imports prometheus_client. A metric is named here and nowhere else; parts
get this object and count. `docs/metrics.md` lists them (`make docs`; a test compares).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

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
        gauge, counter = partial(Gauge, registry=r), partial(Counter, registry=r)
        histogram = partial(Histogram, registry=r)

        self.build_info = gauge("discod_build_info", "Constant 1.", ["version"])
        self.config_stale = gauge(
            "discod_config_stale",
            "1 while the configuration file has faults and the last good one is in force.",
        )

        self.loop_lag = gauge(
            "discod_loop_lag_seconds",
            "Longest time that the event loop was blocked within the last one to two minutes.",
        )
        self.loop_blocked = counter(
            "discod_loop_blocked", "Times that it was blocked for more than a second."
        )
        self.store_connected = gauge(
            "discod_store_connected", "1 while the store delivers changes."
        )
        self.store_errors = counter(
            "discod_store_errors", "Store calls that failed.", ["call", "kind"]
        )
        self.catalog_age = gauge(
            "discod_catalog_age_seconds", "Seconds since the store last gave a sign of life."
        )
        self.catalog_revision = gauge("discod_catalog_revision", "Store revision of the Catalog.")
        self.catalog_endpoints = gauge(
            "discod_catalog_endpoints", "Endpoints that are up, cluster-wide."
        )
        self.catalog_services = gauge(
            "discod_catalog_services", "Services with an endpoint that is up."
        )
        self.catalog_hosts = gauge("discod_catalog_hosts", "Hosts with a live lease.")
        self.catalog_invalid = gauge(
            "discod_catalog_invalid_records", "Records that were skipped as malformed."
        )
        self.catalog_changes = counter(
            "discod_catalog_changes", "Changes of the Catalog.", ["what"]
        )

        self.endpoints = gauge("discod_announcer_endpoints", "Endpoints of this host.", ["state"])
        self.containers_refused = gauge(
            "discod_announcer_containers_refused",
            "Containers of this host that offer nothing because their labels are at fault.",
        )
        self.withdrawals = counter(
            "discod_announcer_withdrawals", "Endpoints withdrawn.", ["reason"]
        )
        self.withdrawal_seconds = histogram(
            "discod_announcer_withdrawal_seconds",
            "From this host's knowledge of an end to the store's confirmation.",
            buckets=SLOW,
        )
        self.checks = counter("discod_announcer_checks", "Own checks run.", ["kind", "result"])
        self.docker_connected = gauge(
            "discod_docker_connected", "1 while the engine's events arrive."
        )
        self.docker_events = counter("discod_docker_events", "Engine events received.", ["action"])
        self.docker_resyncs = counter(
            "discod_docker_resyncs", "Full comparisons with the engine's list."
        )

        self.suspects = gauge(
            "discod_suspects", "Endpoints that the store lost and that are kept for now."
        )
        self.brake_engaged = counter(
            "discod_brake_engaged",
            "Times that the store lost so much at once that it was not believed.",
        )
        self.suspects_dropped = counter(
            "discod_suspects_dropped",
            "Suspects that were let go without the store having them again.",
            ["why"],
        )
        self.liveness_host_up = gauge(
            "discod_liveness_host_up",
            "0 while another host does not answer and is taken as lost.",
            ["host"],
        )
        self.liveness_suspicions = counter(
            "discod_liveness_suspicions",
            "Times that this host itself saw no sign of life of another.",
        )
        self.liveness_confirmed = counter(
            "discod_liveness_confirmed", "Times that a host was taken as lost."
        )
        self.liveness_refuted = counter(
            "discod_liveness_refuted",
            "Times that this host told the others that a suspect is alive.",
        )
        self.liveness_refused = counter(
            "discod_liveness_refused",
            "Liveness messages that were malformed or not signed by a known host.",
        )
        self.liveness_late = counter(
            "discod_liveness_late", "Times that this host was too late itself to judge others."
        )
        self.liveness_cut_off = gauge(
            "discod_liveness_cut_off",
            "1 while so many hosts are silent that rather this host seems to be cut off.",
        )
        self.liveness_rtt = histogram(
            "discod_liveness_rtt_seconds",
            "From a ping of another host to its answer.",
            buckets=FAST,
        )
        self.hints_sent = counter(
            "discod_hints_sent", "Hints of ends sent to other hosts, datagrams."
        )
        self.hints_received = counter(
            "discod_hints_received", "Hints of ends from other hosts, datagrams.", ["result"]
        )

        self.dns_requests = counter("discod_dns_requests", "Queries.", ["zone", "proto", "type"])
        self.dns_responses = counter("discod_dns_responses", "Responses.", ["rcode"])
        self.dns_duration = Durations(
            "discod_dns_request_duration_seconds",
            "From a query's arrival to its answer.",
            "zone",
            FAST,
        )
        r.register(self.dns_duration)
        self.dns_refused = counter(
            "discod_dns_acl_refused", "Queries from clients outside dns.allow."
        )
        self.dns_malformed = counter(
            "discod_dns_malformed", "Packets that are no query.", ["proto"]
        )
        self.dns_truncated = counter("discod_dns_truncated", "Answers sent with TC.")
        self.dns_dropped = counter(
            "discod_dns_dropped",
            "UDP queries left unanswered: too many at once, or the kernel did not take the answer.",
            ["reason"],
        )
        self.dns_forwards = counter(
            "discod_dns_forwards", "Queries sent to an upstream.", ["upstream", "result"]
        )
        self.dns_tcp_connections = gauge("discod_dns_tcp_connections", "Open TCP connections.")
        self.dns_workers = gauge(
            "discod_dns_workers", "Worker processes that answer at the moment."
        )
        self.dns_worker_restarts = counter(
            "discod_dns_worker_restarts",
            "Worker processes replaced because they ended or hung.",
            ["reason"],
        )
        self.dns_rate_limited = counter(
            "discod_dns_rate_limited",
            "Responses above dns.rate_limit, by what became of them.",
            ["action"],
        )
        self.dns_cookies = counter("discod_dns_cookies", "Queries with a DNS Cookie.", ["result"])
        self.dns_cache = counter(
            "discod_dns_cache", "Look-ups in the cache of forwarded answers.", ["result"]
        )
        self.dns_cache_entries = gauge("discod_dns_cache_entries", "Forwarded answers kept.")
        self.dns_upstream_seconds = gauge(
            "discod_dns_upstream_seconds",
            "Moving average of an upstream's response time.",
            ["upstream"],
        )
        self.dns_transfers = counter(
            "discod_dns_transfers", "Zone transfers asked for.", ["kind", "result"]
        )
        self.dns_notifies = counter(
            "discod_dns_notifies",
            "NOTIFY messages to secondaries, by their outcome.",
            ["secondary", "result"],
        )
        self.dns_serial = gauge("discod_dns_serial", "SOA serial of the zone.")

        peer, way = ["peer"], ["peer", "direction"]
        self.bgp_session_up = gauge(
            "discod_bgp_session_up", "1 while the session is established.", peer
        )
        self.bgp_announced_prefixes = gauge(
            "discod_bgp_announced_prefixes", "Prefixes that this host announces."
        )
        self.bgp_received_prefixes = gauge(
            "discod_bgp_received_prefixes", "Prefixes that a peer has told.", peer
        )
        self.bgp_advertised_prefixes = gauge(
            "discod_bgp_advertised_prefixes", "Prefixes that a peer was told.", peer
        )
        self.bgp_updates = counter("discod_bgp_updates", "UPDATE messages.", way)
        self.bgp_notifications = counter("discod_bgp_notifications", "NOTIFICATION messages.", way)
        self.bgp_flaps = counter("discod_bgp_flaps", "Established sessions that ended.", peer)
        self.bgp_kernel_routes = gauge(
            "discod_bgp_kernel_routes", "Learned routes that the kernel has."
        )
        self.bgp_kernel_errors = counter(
            "discod_bgp_kernel_errors", "Learned routes that the kernel refused."
        )
        self.bgp_faults = counter(
            "discod_bgp_faults", "Faults of the program in its BGP; the log has them."
        )

        service = ["service"]
        self.rescue_flows = counter(
            "discod_rescue_flows",
            "Connections and datagrams to stale addresses, by what became of them.",
            ["service", "result"],
        )
        self.rescue_entries = gauge(
            "discod_rescue_entries", "Stale addresses that are looked after."
        )
        self.rescue_clients = gauge(
            "discod_rescue_clients",
            "Clients seen using stale addresses of a service within rescue.hold.",
            service,
        )
        self.rescue_sockets_cut = counter(
            "discod_rescue_sockets_cut",
            "Sockets of this host and its containers that were ended, as their peer is gone.",
            service,
        )
        self.rescue_dropped = counter(
            "discod_rescue_dropped",
            "Stale addresses that were let go early because there were rescue.max_entries.",
        )
        self.rescue_apply_seconds = histogram(
            "discod_rescue_apply_seconds",
            "From a change of what rescue wants until the kernel has it.",
            buckets=FAST,
        )
        self.rescue_fault = gauge(
            "discod_rescue_fault",
            "1 while the kernel does not have what rescue wants; `discod rescue status` says why.",
        )
        self.vips = gauge("discod_vips", "Service addresses that this host spreads over endpoints.")

    def before_exposition(self, callback: Callable[[], None]) -> None:
        """Have `callback` count what is counted elsewhere, each time before values are read."""
        self._before.callbacks.append(callback)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
