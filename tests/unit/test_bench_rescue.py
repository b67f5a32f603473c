"""The instruments of `make bench-rescue`: what they send, build and read is what they say."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest

from benchmarks import rescue, rescue_connections, rescue_packets, results
from benchmarks import rescue_plans as plans
from benchmarks.rescue_packets import Traffic, checksum, frame

LINK = "02:00:00:00:00:01"


def test_checksum_is_that_of_the_rfc() -> None:
    # RFC 1071, section 3: the sum of these is ddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert checksum(b"\x01") == checksum(b"\x01\x00")


@pytest.mark.parametrize("kind", ["udp", "ack", "syn"])
def test_frames_of_ipv4_are_valid(kind: str) -> None:
    sent = frame(LINK, ("10.101.0.2", 2048), ("192.0.2.99", 9), kind)
    assert sent[:6] == plans.mac(LINK)
    assert sent[12:14] == b"\x08\x00"
    head, segment = sent[14:34], sent[34:]
    assert checksum(head) == 0
    assert struct.unpack("!H", head[2:4])[0] == len(head) + len(segment)
    assert ip_address(head[12:16]) == ip_address("10.101.0.2")
    assert ip_address(head[16:20]) == ip_address("192.0.2.99")
    assert struct.unpack("!HH", segment[:4]) == (2048, 9)
    number = 17 if kind == "udp" else 6
    assert head[9] == number
    assert checksum(head[12:20] + struct.pack("!HH", number, len(segment)) + segment) == 0
    if kind != "udp":
        assert segment[13] == {"ack": 0x10, "syn": 0x02}[kind]


def test_frames_of_ipv6_are_valid() -> None:
    sent = frame(LINK, ("2001:db8:1::2", 2048), ("2001:db8::99", 9), "udp")
    assert sent[12:14] == b"\x86\xdd"
    head, segment = sent[14:54], sent[54:]
    assert (head[0] >> 4, head[6]) == (6, 17)
    assert struct.unpack("!H", head[4:6])[0] == len(segment)
    assert checksum(head[8:40] + struct.pack("!II", len(segment), 17) + segment) == 0


def test_flows_of_a_traffic_differ_and_are_of_one_size() -> None:
    frames = Traffic(LINK, ("192.0.2.99", 9), "udp").frames(rescue_packets.NEW)
    assert len(set(frames)) == rescue_packets.NEW
    assert len({len(one) for one in frames}) == 1


@pytest.mark.parametrize("count", [0, 1, 250])
def test_a_plan_has_what_it_says(count: int) -> None:
    plan = plans.whole(count)
    assert len(plan.stale) == len(plans.used()) + 2 * count
    assert {gone.pool for gone in plan.stale.values()} | set(plan.vips.values()) == set(plan.pools)
    assert all(gone.place == where for where, gone in plan.stale.items())
    for pool in plan.pools.values():
        assert len(pool.slots) in (0, plans.SLOTS)
        assert all(address.version == pool.id.version for address, _ in pool.slots)
    assert plans.SLOTS & (plans.SLOTS - 1) == 0


def test_more_begins_where_those_before_end_and_all_are_near() -> None:
    before, more = plans.many(10_000), plans.many(1_000, first=10_000)
    assert not set(plans.of(before).stale) & set(plans.of(more).stale)
    near = ip_network(plans.PODS[4])
    assert all(gone.place.address in near for gone, _ in [*before, *more])


WRK = """Running 1s test @ http://192.0.2.11:8081/
  1 threads and 32 connections
  7012 requests in 1.00s, 0.95MB read
{more}Requests/sec:   7001.25
Transfer/sec:      0.95MB
"""


def test_wrk_is_read_and_its_failures_are_not_passed_over() -> None:
    assert rescue_connections.parsed(WRK.format(more="")) == 7001.25
    for bad in ("  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx: 4\n"):
        with pytest.raises(ValueError, match=bad.strip()[:7]):
            rescue_connections.parsed(WRK.format(more=bad))
    with pytest.raises(ValueError, match="unable to connect"):
        rescue_connections.parsed("unable to connect to 192.0.2.11:8081")


def test_a_ratio_is_of_the_same_round() -> None:
    found = rescue_packets.ratio("c", "m", [90.0, 40.0, 9.0], [100.0, 50.0, 10.0])
    assert (found.min, found.median, found.max) == (0.8, 0.9, 0.9)


@pytest.mark.parametrize(("share", "word"), [(0.97, "met"), (0.94, "MISSED")])
def test_the_aim_is_judged_by_the_median(share: float, word: str) -> None:
    row = results.row("UDP", "10,000 entries to 0 entries", "ratio", [share])
    [text] = rescue.verdicts([row, results.row("UDP", "other", "ratio", [0.1])], 10_000)
    assert word in text


def test_servers_listen_on_every_port_that_is_asked() -> None:
    from pathlib import Path

    text = rescue_connections.nginx(Path("/nowhere"))
    for version in (4, 6):
        for _, port in rescue_connections.ways(version).values():
            assert f"listen {port} " in text
            assert f"listen [::]:{port} " in text
    assert all(address in rescue_connections.haproxy() for address in plans.SERVERS[4])
