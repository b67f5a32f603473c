"""`discod.model.vip`: which addresses services get."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.endpoint import Address
from discod.model.vip import (
    Refused,
    VipRecord,
    VipTable,
    VipWish,
    VipWord,
    as_vip,
    choose,
    granted,
    satisfied,
    show_vip,
)

A, B, V6 = ip_address("10.96.0.5"), ip_address("10.96.0.6"), ip_address("fd00:96::5")
POOL = (ip_network("10.96.0.0/24"), ip_network("fd00:96::/112"))
V4_POOL = POOL[:1]


def wish(service: str, word: VipWord = "auto") -> VipWish:
    return VipWish(service, word, "discod.vip", show_vip(word))


def test_an_address_of_each_family_of_the_pool() -> None:
    v4, v6 = choose(wish("web"), (), {}, POOL)
    assert v4 in POOL[0]
    assert v6 in POOL[1]
    assert choose(wish("web"), (), {}, POOL) == (v4, v6), "the same wherever it is chosen"
    assert choose(wish("web"), (), {}, V4_POOL) == (v4,)
    assert choose(wish("web"), (v4,), {v4: "web"}, POOL) == (v4, v6), "what it has stays"


def test_taken_and_avoided_addresses_are_passed_over() -> None:
    first = choose(wish("web"), (), {}, V4_POOL)[0]
    second = choose(wish("web"), (), {first: "x"}, V4_POOL)[0]
    third = choose(wish("web"), (), {first: "x"}, V4_POOL, avoid={second})[0]
    assert len({first, second, third}) == 3
    assert choose(wish("web"), (), {}, V4_POOL, before=(third,)) == (third,)
    assert choose(wish("web"), (), {third: "x"}, V4_POOL, before=(third,)) == (first,)
    assert choose(wish("web"), (), {}, V4_POOL, before=(ip_address("10.9.9.9"),)) == (first,)


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (("10.96.0.0/29",), 6),  # without the network's own address and the broadcast one
        (("10.96.0.0/31",), 2),
        (("10.96.0.0/32",), 1),
        (("fd00::/125",), 7),  # without the routers' anycast address
        (("fd00::/128",), 1),
        (("::1:0:0/126",), 3),  # small numbers stay IPv6
        (("10.96.0.0/30", "10.97.0.0/30", "10.98.0.4/32"), 5),
    ],
)
def test_a_pool_is_used_up_to_its_last_address(pool: tuple[str, ...], size: int) -> None:
    networks = tuple(map(ip_network, pool))
    owners: dict[Address, str] = {}
    for n in range(size):
        (found,) = choose(wish(f"s{n}"), (), owners, networks)
        assert found not in owners
        assert any(found in network for network in networks)
        owners[found] = f"s{n}"
    with pytest.raises(Refused, match="all taken"):
        choose(wish("late"), (), owners, networks)


def test_a_hash_spreads_services() -> None:
    found = {choose(wish(f"s{n}"), (), {}, (ip_network("10.96.0.0/16"),)) for n in range(500)}
    assert len(found) > 480


@pytest.mark.parametrize(
    ("word", "has", "owners", "pool", "words"),
    [
        ("auto", (), {}, (), "vip.pool of this host is empty"),
        ((A,), (), {}, (), "vip.pool of this host is empty"),
        ((A,), (), {A: "api"}, POOL, "service api has 10.96.0.5"),
        ((ip_address("10.97.0.1"),), (), {}, POOL, "inside vip.pool"),
        ((V6,), (), {}, V4_POOL, "inside vip.pool"),
        ((B,), (A,), {A: "web"}, POOL, "expected 10.96.0.5, which service web has until"),
    ],
)
def test_what_cannot_be_had(
    word: VipWord,
    has: tuple[Address, ...],
    owners: dict[Address, str],
    pool: tuple[()],
    words: str,
) -> None:
    with pytest.raises(Refused, match=words):
        choose(wish("web", word), has, owners, pool)


def test_fixed_addresses() -> None:
    assert choose(wish("web", (A, V6)), (), {}, POOL) == (A, V6)
    assert choose(wish("web", (V6,)), (A,), {A: "web"}, POOL) == (A, V6)
    assert choose(wish("web", (A,)), (), {A: "web"}, POOL) == (A,), "its own, half written"


def test_when_nothing_has_to_be_given_out() -> None:
    assert not satisfied(wish("web"), (), POOL)
    assert not satisfied(wish("web"), (), ())
    assert not satisfied(wish("web"), (A,), POOL)
    assert satisfied(wish("web"), (A,), V4_POOL)
    assert satisfied(wish("web"), (A,), ())
    assert satisfied(wish("web"), (A, V6), V4_POOL)
    assert satisfied(wish("web", (A,)), (A, V6), ())
    assert not satisfied(wish("web", (B,)), (A, V6), POOL)


def test_who_stands_behind_what() -> None:
    held = {"web": (A, V6)}
    assert granted(None, held) == ()
    assert granted(wish("web"), held) == (A, V6)
    assert granted(wish("web", (A,)), held) == (A, V6)
    assert granted(wish("web", (B,)), held) == ()
    assert granted(wish("api"), held) == ()


def test_an_address_counts_while_both_sides_say_so() -> None:
    table = VipTable()
    table.put_service("web", VipRecord("web", (A, V6)))
    assert table.of("web") == ()
    table.put_owner(A, "web")
    table.put_owner(V6, "api")
    assert table.of("web") == (A,)
    assert table.of("api") == ()
    table.put_owner(V6, "web")
    assert table.of("web") == (A, V6)
    table.put_owner(A, None)
    table.put_service("api", None)
    assert table.of("web") == (V6,)


@given(st.lists(st.ip_addresses(), max_size=4))
def test_own_addresses_are_unicast_and_one_a_family(addresses: list[Address]) -> None:
    found = as_vip(addresses)
    assert set(found) <= set(addresses)
    assert [one.version for one in found] in ([], [4], [6], [4, 6])
    assert not any(one.is_multicast or one.is_loopback or one.is_unspecified for one in found)
