"""What a worker's row adds to the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from discod.metrics import Metrics
from discod.metrics_buckets import FAST
from resolver.counts import Counts
from resolver.hot import slots
from resolver.hot.merge import Merger, Reading
from resolver.hot.shared import Shared, create
from resolver.record import AAAA, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, SRV, A

DOMAIN = "discod.internal"


class Rig:
    def __init__(self, row: Shared) -> None:
        self.metrics = Metrics()
        self.row = row
        self.merger = Merger(Counts(self.metrics, DOMAIN), self.metrics, DOMAIN)
        self.reading = Reading(self.merger, row.slots)

    def values(self) -> dict[tuple[str, ...], float]:
        """All counters of DNS that are not zero, by name and label values."""
        return {
            (sample.name.removeprefix("discod_dns_"), *sample.labels.values()): sample.value
            for family in self.metrics.registry.collect()
            if family.name.startswith("discod_dns_")
            for sample in family.samples
            if sample.value and not sample.name.endswith(("_created", "_bucket"))
        }


@pytest.fixture
def rig() -> Iterator[Rig]:
    fd = create()
    row = Shared(fd)
    os.close(fd)
    yield Rig(row)
    row.close()


@pytest.mark.parametrize(
    ("slot", "added"),
    [
        (
            slots.kind(A, NOERROR, False),
            {("requests_total", DOMAIN, "udp", "A"), ("responses_total", "NOERROR")},
        ),
        (
            slots.kind(SRV, NOERROR, True),
            {
                ("requests_total", DOMAIN, "udp", "SRV"),
                ("responses_total", "NOERROR"),
                ("truncated_total",),
            },
        ),
        (
            slots.kind(AAAA, NXDOMAIN, False),
            {("requests_total", DOMAIN, "udp", "AAAA"), ("responses_total", "NXDOMAIN")},
        ),
        (
            slots.kind(65280, SERVFAIL, False),
            {("requests_total", DOMAIN, "udp", "other"), ("responses_total", "SERVFAIL")},
        ),
        (
            slots.kind(A, REFUSED, False),
            {("requests_total", DOMAIN, "udp", "A"), ("responses_total", "other")},
        ),
        (slots.SILENT_PACKETS, {("malformed_total", "udp")}),
        (
            slots.RATE_DROPPED,
            {("rate_limited_total", "drop"), ("requests_total", DOMAIN, "udp", "other")},
        ),
        (slots.RATE_SLIPPED, {("rate_limited_total", "slip")}),
        (slots.COOKIES_VALID, {("cookies_total", "valid")}),
        (slots.COOKIES_NEW, {("cookies_total", "new")}),
        (slots.COOKIES_BAD, {("cookies_total", "bad")}),
        (slots.OVERFLOW, {("dropped_total", "overflow")}),
        (slots.SEND_FAILED, {("dropped_total", "unsent")}),
        *((slot, set()) for slot in (slots.HEARTBEAT, slots.STATE, slots.APPLIED)),
        *((slot, set()) for slot in (slots.QUERIES, slots.DELEGATED)),
    ],
)
def test_a_slot_adds_to_its_metrics(rig: Rig, slot: int, added: set[tuple[str, ...]]) -> None:
    rig.row.slots[slot] = 5
    rig.reading.merge()
    assert rig.values() == dict.fromkeys(added, 5)
    rig.reading.merge()
    rig.row.slots[slot] += 2
    rig.reading.merge()
    assert rig.values() == dict.fromkeys(added, 7)


def test_every_type_of_a_worker_has_its_label(rig: Rig) -> None:
    for type_ in slots.TYPES:
        rig.row.slots[slots.kind(type_, NOERROR, False)] += 1
    rig.reading.merge()
    labels = {key[3] for key in rig.values() if key[0] == "requests_total"}
    assert len(labels) == len(slots.TYPES)
    assert "other" not in labels


def test_every_kind_is_counted_once(rig: Rig) -> None:
    for slot in range(slots.KINDS, slots.SLOTS):
        rig.row.slots[slot] = 1
    rig.reading.merge()
    values = rig.values()
    for name in ("requests_total", "responses_total"):
        total = sum(value for key, value in values.items() if key[0] == name)
        assert total == slots.KIND_COUNT
    assert values["truncated_total",] == slots.KIND_COUNT / 2


def test_durations_come_bucket_by_bucket(rig: Rig) -> None:
    for i, bound in enumerate((*FAST, 60)):
        nanoseconds = int(bound * 1e9)
        rig.row.slots[slots.bucket(nanoseconds)] += i + 1
        rig.row.slots[slots.SECONDS] += (i + 1) * nanoseconds
    for _ in range(2):
        rig.reading.merge()
        get = rig.metrics.registry.get_sample_value
        name = "discod_dns_request_duration_seconds"
        below = 0
        for i, bound in enumerate((*FAST, float("inf"))):
            below += i + 1
            le = "+Inf" if bound == float("inf") else repr(float(bound))
            assert get(f"{name}_bucket", {"zone": DOMAIN, "le": le}) == below
        total = sum((i + 1) * bound for i, bound in enumerate((*FAST, 60)))
        assert get(f"{name}_sum", {"zone": DOMAIN}) == pytest.approx(total)


def test_the_next_workers_row_begins_at_zero(rig: Rig) -> None:
    slot = slots.kind(A, NOERROR, False)
    rig.row.slots[slot] = 5
    rig.reading.merge()
    fd = create()
    row = Shared(fd)
    os.close(fd)
    row.slots[slot] = 2
    Reading(rig.merger, row.slots).merge()
    row.close()
    assert rig.values()["responses_total", "NOERROR"] == 7


def test_a_kind_is_an_octet() -> None:
    assert slots.SLOTS <= 256
