"""discod.rescue.slots and discod.rescue.pools: who gets how much, and where it stays."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.endpoint import Endpoint, Host
from discod.model.rescue import Place, Pool, PoolId
from discod.rescue.pools import Outlook, Pools, outlook, pool_of
from discod.rescue.slots import LEAST, MOST, Target, spread
from tests.resolving import endpoint

BASE = IPv4Address("10.0.0.0")


def targets(count: int, weight: int = 100) -> dict[Target, int]:
    return {(BASE + i, 80): weight for i in range(1, count + 1)}


# Slots ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 60), st.integers(0, 1000), min_size=1, max_size=60))
def test_every_weight_above_zero_has_a_slot_and_the_table_is_a_power_of_two(
    found: dict[int, int],
) -> None:
    weights: dict[Target, int] = {(BASE + i, 80): weight for i, weight in found.items()}
    slots = spread(weights)
    assert len(slots).bit_count() == 1
    assert LEAST <= len(slots) <= MOST
    heavy = {target for target, weight in weights.items() if weight}
    assert set(slots) == (heavy or set(weights))


@given(st.permutations(range(1, 20)))
def test_the_order_of_the_targets_does_not_matter(order: list[int]) -> None:
    weights: dict[Target, int] = {(BASE + i, 80): i for i in order}
    assert spread(weights) == spread(dict(sorted(weights.items())))


def test_nobody_has_no_slots() -> None:
    assert spread({}) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 15, 17, 33, 50, 100, 300, 1000])
def test_equal_weights_get_equal_shares(count: int) -> None:
    slots = spread(targets(count))
    assert len(slots) >= min(4 * count, MOST)
    mean = len(slots) / count
    shares = Counter(slots)
    assert len(shares) == count
    assert min(shares.values()) >= 0.65 * mean
    assert max(shares.values()) <= 1.35 * mean


def test_shares_follow_the_weights() -> None:
    shares = Counter(spread({**targets(3), (ip_address("10.0.9.9"), 80): 300}))
    heavy = shares.pop((ip_address("10.0.9.9"), 80))
    assert heavy == pytest.approx(sum(shares.values()), rel=0.2)


def test_a_very_light_one_gets_little_and_the_table_stays_small() -> None:
    slots = spread({**targets(20, 1000), (ip_address("10.0.9.9"), 80): 1})
    assert len(slots) == 1024
    assert Counter(slots)[ip_address("10.0.9.9"), 80] == 1


def test_one_against_thousands_of_light_ones_still_adds_up() -> None:
    slots = spread({**targets(4095, 1), (ip_address("10.9.9.9"), 80): 65535})
    assert len(slots) == MOST
    assert len(set(slots)) == 4096


def test_more_targets_than_slots() -> None:
    slots = spread(targets(5000))
    assert len(slots) == len(set(slots)) == MOST


@pytest.mark.parametrize("count", [4, 8, 10, 16, 50, 100])
def test_most_slots_stay_where_they_are_when_one_goes(count: int) -> None:
    """Where the table keeps its size; 8 is the worst of these (32 slots for 8, and for 7)."""
    weights = targets(count)
    before = spread(weights)
    moved = kept = 0
    for gone in weights:
        after = spread({target: 100 for target in weights if target != gone})
        assert len(after) == len(before)
        for was, now in zip(before, after, strict=True):
            if was != gone:
                kept += 1
                moved += was != now
    assert moved <= 0.2 * kept


# Pools ----------------------------------------------------------------------------------------

WEB4 = PoolId("web", "http", "tcp", 4)
LOOK = Outlook("alpha")


def made(
    endpoints: list[Endpoint],
    look: Outlook = LOOK,
    id_: PoolId = WEB4,
    inside: dict[Place, Place] | None = None,
) -> Pool:
    pools = Pools()
    pools.want(id_)
    places = inside or {}
    return pools.take(id_.service, endpoints, look, lambda e: places.get(Place(*e.place)))[id_]


def reached(*args: Any, **more: Any) -> set[str]:
    return {f"{address}:{port}" for address, port in made(*args, **more).slots}


def test_a_pool_is_one_port_name_protocol_and_family_of_a_service() -> None:
    endpoints = [
        endpoint("web", "a", "10.0.0.1"),
        endpoint("web", "b", "10.0.0.2", 8080),
        endpoint("web", "c", "10.0.0.3", port_name="admin"),
        endpoint("web", "d", "10.0.0.4", protocol="udp"),
        endpoint("web", "e", "2001:db8::1"),
        endpoint("web", "f", "10.0.0.5", 0),
    ]
    assert reached(endpoints) == {"10.0.0.1:80", "10.0.0.2:8080"}
    assert reached(endpoints, id_=PoolId("web", "http", "tcp", 6)) == {"2001:db8::1:80"}
    assert reached(endpoints, id_=PoolId("web", "http", "udp", 4)) == {"10.0.0.4:80"}


def test_without_a_port_name_the_number_counts() -> None:
    endpoints = [
        endpoint("web", "a", "10.0.0.1", port_name=""),
        endpoint("web", "b", "10.0.0.2", 81, port_name=""),
    ]
    assert pool_of(endpoints[0]) == PoolId("web", "80", "tcp", 4)
    assert reached(endpoints, id_=PoolId("web", "80", "tcp", 4)) == {"10.0.0.1:80"}


def test_only_the_lowest_priority_number() -> None:
    endpoints = [
        endpoint("web", "a", "10.0.0.1", priority=20),
        endpoint("web", "b", "10.0.0.2", priority=10, weight=0),
    ]
    assert reached(endpoints) == {"10.0.0.2:80"}


def test_weight_zero_gets_nothing_unless_all_are_zero() -> None:
    endpoints = [endpoint("web", "a", "10.0.0.1", weight=0), endpoint("web", "b", "10.0.0.2")]
    assert reached(endpoints) == {"10.0.0.2:80"}
    assert reached(endpoints[:1]) == {"10.0.0.1:80"}


def test_nobody_is_alive() -> None:
    assert made([]) == Pool(WEB4, ())


def test_near_ones_while_there_are_any() -> None:
    here = endpoint("web", "a", "10.0.0.1", host="alpha")
    near = endpoint("web", "b", "10.0.0.2", host="beta")
    far = endpoint("web", "c", "10.0.0.3", host="gamma")
    local = Outlook("alpha", "local", frozenset({"alpha", "beta"}))
    zone = Outlook("alpha", "zone", frozenset({"alpha", "beta"}))
    assert reached([here, near, far], local) == {"10.0.0.1:80"}
    assert reached([near, far], local) == {"10.0.0.2:80", "10.0.0.3:80"}
    assert reached([here, near, far], zone) == {"10.0.0.1:80", "10.0.0.2:80"}
    assert reached([far], zone) == {"10.0.0.3:80"}


def test_the_word_of_the_first_endpoint_that_says_one_holds() -> None:
    endpoints = [
        endpoint("web", "c", "10.0.0.3", host="gamma", prefer="none"),
        endpoint("web", "b", "10.0.0.2", host="beta", prefer="local"),
        endpoint("web", "a", "10.0.0.1", host="alpha"),
    ]
    assert reached(endpoints) == {"10.0.0.1:80"}
    assert reached(endpoints, Outlook("alpha", "zone")) == {"10.0.0.1:80"}
    assert len(reached(endpoints[::2])) == 2


def test_who_is_near() -> None:
    hosts = {
        name: Host(name, (), zone=zone)
        for name, zone in (("alpha", "old"), ("beta", "r1"), ("gamma", "r2"), ("delta", ""))
    }
    assert outlook("alpha", "r1", "zone", hosts).near == {"alpha", "beta"}
    assert outlook("alpha", "", "zone", hosts).near == frozenset()


def test_a_published_port_of_this_host_is_reached_in_the_container() -> None:
    endpoints = [
        endpoint("web", "a", "192.0.2.1", 32768, host="alpha"),
        endpoint("web", "b", "192.0.2.2", 32768, host="beta"),
    ]
    inside = {
        Place(e.address, e.port, e.protocol): Place(ip_address("172.17.0.2"), 80, "tcp")
        for e in endpoints
    }
    assert reached(endpoints, inside=inside) == {"172.17.0.2:80", "192.0.2.2:32768"}


def test_a_published_port_that_leads_into_the_other_family_stays_as_it_is() -> None:
    one = endpoint("web", "a", "2001:db8::1", 32768, host="alpha")
    inside = {Place(one.address, 32768, "tcp"): Place(ip_address("172.17.0.2"), 80, "tcp")}
    id_ = PoolId("web", "http", "tcp", 6)
    assert reached([one], id_=id_, inside=inside) == {"2001:db8::1:32768"}


def test_one_endpoint_that_wants_affinity_is_enough() -> None:
    a = endpoint("web", "a", "10.0.0.1")
    b = endpoint("web", "b", "10.0.0.2", affinity=True)
    assert not made([a]).affinity
    assert made([a, b]).affinity


def test_a_pool_that_did_not_change_is_the_same_object_and_an_unnamed_one_is_forgotten() -> None:
    pools = Pools()
    pools.want(WEB4)
    pools.want(WEB4)
    endpoints = [endpoint("web", "a", "10.0.0.1")]
    first = pools.take("web", endpoints, LOOK, lambda _: None)[WEB4]
    again = pools.take("web", list(endpoints), LOOK, lambda _: None)[WEB4]
    assert again is first
    pools.unwant(WEB4)
    assert pools.forget("web") == {}
    assert pools.wanted("web")
    pools.unwant(WEB4)
    assert pools.forget("web") == {WEB4: None}
    assert not pools.wanted("web")
    assert pools.take("web", endpoints, LOOK, lambda _: None) == {}
