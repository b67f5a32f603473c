"""`make bench-rescue` in miniature: every row is there, and nothing of it is left behind."""

from __future__ import annotations

import os

import pytest

from benchmarks import rescue, rescue_connections
from tests.lab.netns import existing

pytestmark = pytest.mark.lab

ROUNDS = {"rules": 2, "packets": 2, "connections": 1, "latency": 5}


def test_rules_and_packets_have_every_row() -> None:
    rows, notes = rescue.measure(("rules", "packets"), entries=20, sizes=(0, 50), rounds=ROUNDS)
    assert notes == []
    found = {(row.case, row.metric) for row in rows}
    for size in (0, 50):
        for metric in ("1 more", "1 less", "1,000 more", "1,000 less"):
            assert (f"rules, {size} stale places there", metric) in found
    assert ("rules, 1,000 stale places there", "1 revoked") in found
    assert ("rules", "endpoint of a service address") in found
    for case in ("UDP, known flows", "TCP, known flows", "UDP, each packet a new flow"):
        for metric in ("no rescue", "0 entries", "20 entries", "20 entries to 0 entries"):
            assert (case, metric) in found
    # What was sent to a stale place came out at its sibling, or there would be no row.
    assert ("UDP, rescued, each packet a new flow", "the same bridge's to direct") in found
    assert all(row.median > 0 for row in rows if row.unit != "ns")
    assert len(rescue.verdicts(rows, 20)) == 6
    assert existing(f"drb{os.getpid()}-") == []


def test_connections_have_every_row_or_say_what_is_missing() -> None:
    rows, notes = rescue.measure(("connections", "latency"), entries=20, sizes=(), rounds=ROUNDS)
    assert existing(f"drb{os.getpid()}-") == []
    if lack := rescue_connections.absent():
        assert rows == []
        assert lack in notes[0]
        return
    assert notes == []
    found = {(row.case, row.metric) for row in rows}
    for metric in ("service address to direct", "HAProxy to direct", "service address to HAProxy"):
        assert ("HTTP, a connection for each request", metric) in found
    for version in (4, 6):
        case = f"one connection, IPv{version}: until connected"
        for metric in ("direct", "service address", "rescued from the same bridge's"):
            assert (case, metric) in found
        assert ("no sibling: until refused", f"IPv{version}") in found
