"""The small parts: routes, the order of upstreams, marks against loops."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.settings import ListenAddress, Route
from resolver.forwarding import loops
from resolver.forwarding.health import EXPLORE, FORGET, Upstream, order
from resolver.forwarding.routes import Routes
from resolver.record import Name, to_name

AT = ListenAddress(ip_address("192.0.2.1"), 53)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("corp.example", "corp.example"),
        ("a.corp.example", "corp.example"),
        ("a.b.lab.corp.example", "lab.corp.example"),
        ("acorp.example", None),
        ("example", None),
        ("corp.example.net", None),
        (".", None),
    ],
)
def test_the_longest_domain_wins(name: str, domain: str | None) -> None:
    routes = Routes([Route("corp.example", (AT,)), Route("lab.corp.example", (AT,))])
    assert routes.match(to_name(name)) == (to_name(domain) if domain else None)


LABELS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4).map(tuple)


@given(st.sets(LABELS.filter(bool), max_size=6), LABELS)
def test_routes_against_the_slow_way(domains: set[Name], name: Name) -> None:
    routes = Routes([Route(b".".join(d).decode(), (AT,)) for d in domains])
    fitting = [d for d in domains if name[len(name) - len(d) :] == d]
    assert routes.match(name) == (max(fitting, key=len) if fitting else None)


def upstream(n: int, average: float | None = None, failed: float | None = None) -> Upstream:
    made = Upstream(ListenAddress(ip_address(f"192.0.2.{n}"), 53), b"c" * 8)
    if average is not None:
        made.answered(average, 0.0)
    if failed is not None:
        made.failed(failed, 1.0)
    return made


def numbers(found: list[Upstream]) -> list[int]:
    return [int(one.client.rpartition(".")[2]) for one in found]


def test_in_order_and_those_that_are_down_last() -> None:
    rng = random.Random(1)
    all_ = [upstream(1, failed=9.0), upstream(2, 5.0), upstream(3, failed=2.0), upstream(4, 0.1)]
    assert numbers(order(all_, "order", rng)) == [2, 4, 3, 1]
    all_[0].answered(0.1, 10.0)
    assert numbers(order(all_, "order", rng)) == [1, 2, 4, 3]


def test_the_fastest_first_and_the_unknown_before() -> None:
    rng = random.Random(1)
    all_ = [upstream(1, 0.3), upstream(2, 0.1), upstream(3), upstream(4, 0.01, 5.0)]
    found = [tuple(numbers(order(all_, "fastest", rng))) for _ in range(2000)]
    usual = (3, 2, 1, 4)
    explored = sum(one[0] != 3 for one in found) / len(found)
    assert found.count(usual) > 1800
    assert abs(explored - EXPLORE) < 0.02
    assert {one[0] for one in found} == {1, 2, 3}  # never the one that is down


def test_the_average_moves() -> None:
    one = upstream(1, 0.1)
    for _ in range(30):
        one.answered(0.5, 1.0)
    assert one.average == pytest.approx(0.5, abs=0.01)


def test_shortcomings_are_forgotten() -> None:
    one = upstream(1)
    assert one.keeps_case(0.0) and one.takes_edns(0.0)
    one.lost_case(0.0)
    one.refused_edns(10.0)
    assert not one.keeps_case(FORGET - 1) and not one.takes_edns(FORGET + 9)
    assert one.keeps_case(FORGET) and one.takes_edns(FORGET + 10)


def test_only_the_first_failure_is_news() -> None:
    one = upstream(1)
    assert [one.failed(1.0, 0.5), one.failed(2.0, 0.5)] == [True, False]
    one.answered(0.1, 2.5)
    assert one.failed(3.0, 2.6)


def test_who_answers_others_meanwhile_is_not_down() -> None:
    one = upstream(1)
    one.answered(0.1, 5.0)
    assert not one.failed(6.0, 4.0) and not one.down
    assert one.failed(8.0, 6.0) and one.down


@pytest.mark.parametrize(
    ("address", "label", "private"),
    [
        ("9.9.9.9", "9.9.9.9:53", False),
        ("10.0.0.1", "10.0.0.1:53", True),
        ("127.0.0.1", "127.0.0.1:53", True),
        ("2620:fe::fe", "[2620:fe::fe]:53", False),
        ("fd00::1", "[fd00::1]:53", True),
        ("fe80::1%eth0", "[fe80::1%eth0]:53", True),
    ],
)
def test_what_an_address_says(address: str, label: str, private: bool) -> None:
    one = Upstream(ListenAddress(ip_address(address), 53), b"c" * 8)
    assert (one.label, one.private) == (label, private)


OWN, OTHER = b"o" * 8, b"x" * 8


@pytest.mark.parametrize(
    ("trail", "closes"),
    [
        (b"", False),
        (OTHER, False),
        (OWN, True),
        (OTHER + OWN, True),
        (b"xxxxoooo" + b"ooooxxxx", False),
        (OTHER * 7, False),
        (OTHER * 8, True),
    ],
)
def test_trails(trail: bytes, closes: bool) -> None:
    assert loops.closes(trail, OWN) is closes
    assert loops.trail([(10, b"c" * 8), (loops.OPTION, trail)]) == trail
    assert loops.trail([(loops.OPTION, trail + b"?")]) == b""
    assert loops.trail([]) == b""


def test_echoes() -> None:
    mixed = b"\3wWw\x0dlong-eNouGh-X\0\0\1\0\1"
    assert loops.is_echo(mixed, [b"?", mixed])
    assert not loops.is_echo(mixed.swapcase(), [mixed])
    plain = b"\3www\x0dlong-enough-x\0\0\1\0\1"
    assert not loops.is_echo(plain, [plain])  # as everybody asks
    short = b"\3wWw\0\0\1\0\1"
    assert not loops.is_echo(short, [short])  # as somebody might
