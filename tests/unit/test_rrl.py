"""Response rate limiting."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest

from resolver.rrl import SLOTS, Limiter

SEED = 0x9E3779B97F4A7C15


def at(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize(
    ("slip", "above"),
    [
        (0, ["drop"] * 6),
        (1, ["slip"] * 6),
        (2, ["drop", "slip"] * 3),
        (3, ["drop", "drop", "slip"] * 2),
    ],
)
def test_what_goes_beyond(slip: int, above: list[str]) -> None:
    limiter = Limiter(5, slip, SEED)
    got = [limiter.verdict(at("192.0.2.1"), 7.0 + i / 100) for i in range(11)]
    assert got == ["pass"] * 5 + above
    assert limiter.verdict(at("192.0.2.1"), 8.0) == "pass"  # a new second


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:0:1200::1", "2001:db8:0:12ff::9", True),  # one /56
        ("2001:db8:0:1200::1", "2001:db8:0:1300::1", False),
        ("192.0.2.1", "::192.0.2.1", False),
    ],
)
def test_a_prefix_is_one_client(one: str, other: str, shared: bool) -> None:
    limiter = Limiter(1, 0, SEED)
    assert limiter.verdict(at(one), 1.0) == "pass"
    assert limiter.verdict(at(other), 1.0) == ("drop" if shared else "pass")


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_not_limited(client: str) -> None:
    limiter = Limiter(1, 0, SEED)
    assert {limiter.verdict(at(client), 1.0) for _ in range(100)} == {"pass"}


def test_a_clock_that_goes_back() -> None:
    limiter = Limiter(1, 0, SEED)
    assert [limiter.verdict(at("192.0.2.1"), t) for t in (9.5, 9.6, 3.0, 3.1, 9.7)] == [
        "pass",
        "drop",
        "pass",
        "drop",
        "pass",
    ]


def test_a_flood_of_forged_prefixes_makes_no_room() -> None:
    """However many there are, memory stays, and the victim's count with it."""
    limiter = Limiter(10, 0, SEED)
    victim = at("192.0.2.1")
    for _ in range(10):
        assert limiter.verdict(victim, 1.0) == "pass"
    forged = Counter(limiter.verdict(i.to_bytes(4, "big"), 1.0) for i in range(0, 1 << 26, 256))
    assert forged["pass"] > 200_000  # four to a slot and up to ten pass
    assert limiter.verdict(victim, 1.0) == "drop"
    assert len(limiter._counts) == SLOTS


def test_few_honest_prefixes_share_a_slot() -> None:
    limiter = Limiter(1, 0, SEED)
    got = Counter(limiter.verdict(at(f"10.{i >> 8}.{i & 255}.1"), 1.0) for i in range(1000))
    assert got["drop"] < 30


def test_a_rate_of_zero_is_no_limiter() -> None:
    with pytest.raises(ValueError, match="no limit"):
        Limiter(0, 2, SEED)
