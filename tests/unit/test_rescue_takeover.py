"""Which host announces the addresses of a dead one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from discod.model.catalog import Catalog
from discod.model.endpoint import (
    Endpoint,
    Host,
    HostBgp,
    Loss,
    Producer,
    Reason,
    Withdrawal,
)
from discod.model.rescue import Place, Plan, Pool, PoolId, Stale
from discod.rescue.takeover import LOST, taken_over

BGP = HostBgp(
    64512, IPv4Address("192.0.2.1"), ip_address("192.0.2.1"), networks=(ip_network("10.0.0.0/8"),)
)
HOSTS = {
    name: Host(name, (ip_address(f"192.0.2.{n}"),), bgp=BGP)
    for n, name in enumerate(("alpha", "beta", "gamma", "delta"), 1)
}
POOL = PoolId("web", "http", "tcp", 4)
DEAD = [
    Endpoint(
        "web", f"delta-{n}-80", ip_address(f"10.4.0.{n}"), 80, host="delta", container="c" * 64,
        producer=Producer.DOCKER,
    )
    for n in range(1, 61)
]  # fmt: skip


OUTSIDE = ip_address("203.0.113.9")


def plan(*endpoints: Endpoint, why: str = LOST, alive: bool = True) -> Plan:
    stale = {
        place: Stale(place, e.id, POOL, True, why, 0.0, 600.0)
        for e in endpoints
        for place in [Place(*e.place)]
    }
    return Plan(stale, pools={POOL: Pool(POOL, ((ip_address("10.1.0.1"), 80),) if alive else ())})


def catalog(*endpoints: Endpoint, hosts: dict[str, Host] = HOSTS) -> Catalog:
    lost = {e.id: Loss(e, 1, 0.0) for e in endpoints}
    return Catalog("discod.internal", lost=lost, hosts=hosts)


def test_each_address_has_exactly_one_of_those_that_live() -> None:
    taken = {
        n: taken_over(plan(*DEAD), catalog(*DEAD), HOSTS, n) for n in ("alpha", "beta", "gamma")
    }
    assert sum(map(len, taken.values())) == len(DEAD)
    assert frozenset().union(*taken.values()) == {e.address for e in DEAD}
    assert all(len(addresses) > 5 for addresses in taken.values())
    assert not taken_over(plan(*DEAD), catalog(*DEAD), HOSTS, "delta"), (
        "not the one that is dead itself"
    )


def test_who_has_no_bgp_takes_nothing() -> None:
    hosts = HOSTS | {"beta": replace(HOSTS["beta"], bgp=None)}
    found = catalog(*DEAD, hosts=hosts)
    assert not taken_over(plan(*DEAD), found, HOSTS, "beta")
    others = [taken_over(plan(*DEAD), found, HOSTS, name) for name in ("alpha", "gamma")]
    assert sum(map(len, others)) == len(DEAD)


def test_its_record_may_be_gone_with_it() -> None:
    hosts = {name: host for name, host in HOSTS.items() if name != "delta"}
    found = [taken_over(plan(*DEAD), catalog(*DEAD, hosts=hosts), HOSTS, name) for name in hosts]
    assert sum(map(len, found)) == len(DEAD)


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (plan(*DEAD, alive=False), catalog(*DEAD)),
        (plan(*DEAD, why=Reason.CRASHED), catalog(*DEAD)),
        (plan(*DEAD), catalog()),
        (plan(*DEAD), catalog(*(replace(e, producer=Producer.STATIC) for e in DEAD))),
        (plan(*DEAD), catalog(*DEAD, hosts=HOSTS | {"delta": replace(HOSTS["delta"], bgp=None)})),
        (plan(*DEAD), catalog(*DEAD, hosts={"delta": HOSTS["delta"]})),
        (plan(replace(DEAD[0], address=OUTSIDE)), catalog(replace(DEAD[0], address=OUTSIDE))),
        (Plan(), catalog(*DEAD)),
    ],
    ids=[
        "no sibling",
        "its host lives",
        "unknown",
        "no container",
        "no bgp",
        "alone",
        "not in its prefixes",
        "not stale",
    ],
)
def test_what_nobody_takes(wanted: Plan, known: Catalog) -> None:
    assert not any(taken_over(wanted, known, {**HOSTS, **known.hosts}, name) for name in HOSTS)


def test_a_silent_host_is_dead_too() -> None:
    (one,) = DEAD[:1]
    said = {one.id: Withdrawal(one, Reason.SILENT, "", 0.0)}
    found = Catalog("discod.internal", withdrawn=said, hosts=HOSTS)
    takers = [n for n in HOSTS if taken_over(plan(one, why=Reason.SILENT), found, HOSTS, n)]
    assert len(takers) == 1 and takers != ["delta"]


def test_a_published_port_is_an_address_of_the_host() -> None:
    one = replace(DEAD[0], address=HOSTS["delta"].addresses[0])
    assert not any(taken_over(plan(one), catalog(one), HOSTS, name) for name in HOSTS)
