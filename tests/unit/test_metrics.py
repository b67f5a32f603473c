"""discod.metrics: what a scrape sees, and that the documentation lists it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from discod.metrics import CONTENT_TYPE, Durations, Metrics
from discod.metrics_buckets import FAST
from scripts.metrics_table import render

ROOT = Path(__file__).resolve().parents[2]


def own(metrics: Metrics) -> list[MetricWrapperBase | Durations]:
    kinds = MetricWrapperBase | Durations
    return [value for value in vars(metrics).values() if isinstance(value, kinds)]


def filled() -> Metrics:
    """Metrics of which every one has a sample."""
    metrics = Metrics()
    for metric in own(metrics):
        if isinstance(metric, Durations):
            metric.labels("x").observe(0.1)
        elif metric._labelnames:  # no public way to ask for them
            metric.labels(*["x"] * len(metric._labelnames))
    return metrics


def test_there_are_metrics_and_each_is_named_by_the_rules() -> None:
    metrics = own(Metrics())
    assert len(metrics) > 20
    for metric in metrics:
        (family,) = metric.describe()
        assert re.fullmatch(r"discod_[a-z]+(_[a-z]+)*", family.name), family.name
        # https://prometheus.io/docs/practices/naming/: base units, the unit last, no type words
        assert not re.search(r"_(ms|us|minutes|counter|gauge|histogram|total)$", family.name)
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.dns_truncated.inc()
    assert "discod_dns_truncated_total 1.0" in one.exposition().decode()
    assert "discod_dns_truncated_total 0.0" in other.exposition().decode()


def test_the_exposition_parses_and_has_every_metric() -> None:
    metrics = filled()
    text = metrics.exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in own(metrics):
        (described,) = metric.describe()
        assert families[described.name].type == described.type
        assert families[described.name].samples, described.name
    assert {"process_resident_memory_bytes", "python_gc_collections"} <= families.keys()
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("discod_dns_requests_total", ("zone", "proto", "type")),
        ("discod_dns_responses_total", ("rcode",)),
        ("discod_dns_request_duration_seconds_bucket", ("zone", "le")),
        ("discod_config_stale", ()),
        ("discod_rescue_flows_total", ("service", "result")),
        ("discod_rescue_clients", ("service",)),
        ("discod_rescue_sockets_cut_total", ("service",)),
        ("discod_rescue_apply_seconds_bucket", ("le",)),
        ("discod_rescue_fault", ()),
        ("discod_vips", ()),
    ],
)
def test_names_and_labels_that_dashboards_rely_on(name: str, labels: tuple[str, ...]) -> None:
    samples = [
        sample
        for family in text_string_to_metric_families(filled().exposition().decode())
        for sample in family.samples
        if sample.name == name
    ]
    assert samples
    assert set(samples[0].labels) == set(labels)


def test_durations_look_like_the_clients_own_histogram() -> None:
    registry, others = CollectorRegistry(), CollectorRegistry()
    text = ("discod_x_seconds", "Meaning.")
    durations = Durations(*text, "zone", FAST)
    registry.register(durations)
    histogram = Histogram(*text, ["zone"], buckets=FAST, registry=others)
    assert generate_latest(registry) == generate_latest(others)
    for zone, seconds in (("a", 0.0), ("a", 0.00005), ("b", 0.00006), ("b", 5.0), ("a", 5.1)):
        durations.labels(zone).observe(seconds)
        histogram.labels(zone).observe(seconds)

    def lines(of: CollectorRegistry) -> list[str]:
        return [
            line.split()[0] if "_created{" in line else line
            for line in generate_latest(of).decode().splitlines()
        ]

    assert len(lines(registry)) == 2 * (len(FAST) + 3) + 6
    assert lines(registry) == lines(others)


def test_durations_take_whole_buckets() -> None:
    registry = CollectorRegistry()
    durations = Durations("discod_x_seconds", "Meaning.", "zone", (1, 2))
    registry.register(durations)
    durations.labels("a").observe(1.5)
    durations.labels("a").add([3, 1, 2], 20.0)
    get = registry.get_sample_value
    for le, count in (("1.0", 3), ("2.0", 5), ("+Inf", 7)):
        assert get("discod_x_seconds_bucket", {"zone": "a", "le": le}) == count
    assert get("discod_x_seconds_count", {"zone": "a"}) == 7
    assert get("discod_x_seconds_sum", {"zone": "a"}) == 21.5
    with pytest.raises(ValueError, match="shorter"):
        durations.labels("a").add([1], 1.0)


def test_what_is_counted_elsewhere_is_fetched_before_anything_is_read() -> None:
    metrics = Metrics()
    metrics.before_exposition(metrics.dns_truncated.inc)
    assert "discod_dns_truncated_total 1.0" in metrics.exposition().decode()
    assert "discod_dns_truncated_total 2.0" in metrics.exposition().decode()
    assert metrics.registry.get_sample_value("discod_dns_truncated_total") == 3


def test_the_documentation_lists_exactly_these() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == render(), "run: make docs"


@pytest.mark.lab
def test_promtool_has_nothing_to_object() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing (Debian package prometheus)"
    text = "".join(
        line + "\n"
        for line in filled().exposition().decode().splitlines()
        if re.match(r"(# (HELP|TYPE) )?discod_", line)
    )
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
