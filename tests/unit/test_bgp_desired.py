"""What this host wants announced: a function of the Catalog, however it came about."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from calico_bgp.desired import (
    Phase,
    Wish,
    desired,
    host_bgp,
    mesh,
    overlaps,
    own_networks,
    routed_networks,
)
from calico_bgp.ports import Delivery, MeshHost
from calico_bgp.prefix import Address
from discod.model.bgp_settings import BgpSettings
from discod.model.catalog import Catalog, CatalogState
from discod.model.endpoint import Endpoint, Host, HostBgp, Producer, Reason, Withdrawal
from discod.model.schema import Keyspace, encode_endpoint, encode_withdrawal

KEYS = Keyspace()
HERE = Host("alpha", (ip_address("192.0.2.1"), ip_address("2001:db8::1")))
SETTINGS = BgpSettings(asn=64512)
RUNNING = (ip_address("10.101.1.9"), ip_address("10.101.1.2"), ip_address("192.0.2.1"))


def endpoint(
    address: str = "10.101.1.2",
    service: str = "web",
    host: str = "alpha",
    producer: Producer = Producer.DOCKER,
    anycast: str = "",
    port: int = 80,
) -> Endpoint:
    return Endpoint(
        service,
        f"{host}-{address.replace('.', '-').replace(':', '-')}-{port}",
        ip_address(address),
        port,
        port_name="http",
        host=host,
        container="a" * 64,
        producer=producer,
        anycast=tuple(map(ip_address, anycast.split())),
    )


def catalog(*endpoints: Endpoint) -> Catalog:
    state = CatalogState(KEYS, "alpha")
    state.reset([(KEYS.record(e.id), encode_endpoint(e), 1) for e in endpoints], 1, 0.0)
    return state.catalog


def announced(settings: BgpSettings, *endpoints: Endpoint, drained: bool = False) -> list[str]:
    found = desired(catalog(*endpoints), HERE, settings, drained, running=RUNNING)
    return sorted(map(str, found.announced))


def test_containers_of_this_host_and_of_no_other_kind() -> None:
    found = announced(
        SETTINGS,
        endpoint(),
        endpoint("2001:db8:1::2"),
        endpoint("10.101.2.2", host="beta"),
        endpoint("10.101.1.7", producer=Producer.STATIC),
        endpoint("10.101.1.8", producer=Producer.COMMAND),
        endpoint("192.0.2.1"),
        endpoint("127.0.0.1", port=81),
    )
    assert found == ["10.101.1.2/32", "2001:db8:1::2/128"]


def test_networks_say_what_may_be_announced() -> None:
    settings = replace(SETTINGS, networks=(ip_network("10.101.1.0/29"),))
    assert announced(settings, endpoint(), endpoint("10.101.1.9"), endpoint("2001:db8:1::2")) == [
        "10.101.1.2/32"
    ]


def test_aggregates_are_announced_and_are_no_containers() -> None:
    settings = replace(SETTINGS, aggregates=(ip_network("10.101.1.0/24"),), announce="none")
    found = desired(catalog(endpoint()), HERE, settings, drained=False)
    assert [str(p) for p in found.announced] == ["10.101.1.0/24"]
    assert found.local == frozenset()


def test_running_containers_healthy_or_not() -> None:
    settings = replace(SETTINGS, announce="running")
    assert announced(settings, endpoint("10.101.1.3")) == ["10.101.1.2/32", "10.101.1.9/32"]


def test_a_drained_host_announces_nothing_but_stays_a_router() -> None:
    settings = replace(
        SETTINGS,
        networks=(ip_network("10.101.1.0/24"),),
        aggregates=(ip_network("10.101.1.0/24"),),
    )
    found = desired(catalog(endpoint()), HERE, settings, drained=True)
    assert found.announced == found.local == frozenset()
    assert found.routed == settings.networks


# Fixed addresses -----------------------------------------------------------------------------


def test_a_fixed_address_leads_to_the_endpoints_of_its_family() -> None:
    allow = (ip_network("192.0.2.64/26"), ip_network("2001:db8:80::/64"))
    settings = replace(
        SETTINGS, anycast=(("web", (ip_address("192.0.2.81"),)),), anycast_allow=allow
    )
    label = "192.0.2.80 2001:db8:80::80 198.51.100.1"
    found = desired(
        catalog(
            endpoint("10.101.1.3", anycast=label),
            endpoint("10.101.1.2"),
            endpoint("2001:db8:1::2", anycast=label),
            endpoint("10.101.2.2", host="beta", anycast=label),
        ),
        HERE,
        settings,
        drained=False,
    )
    two, three = ip_address("10.101.1.2"), ip_address("10.101.1.3")
    assert found.deliveries == (
        Delivery(ip_address("192.0.2.80"), (three,)),
        Delivery(ip_address("192.0.2.81"), (two, three)),
        Delivery(ip_address("2001:db8:80::80"), (ip_address("2001:db8:1::2"),)),
    )
    assert {str(p) for p in found.announced - found.local} == {
        "192.0.2.80/32",
        "192.0.2.81/32",
        "2001:db8:80::80/128",
    }


@pytest.mark.parametrize("label", ["10.101.1.77", "192.0.2.1"])
def test_a_fixed_address_that_is_taken_is_not_one(label: str) -> None:
    settings = replace(
        SETTINGS,
        networks=(ip_network("10.101.1.0/24"),),
        anycast_allow=(ip_network("0.0.0.0/0"),),
    )
    found = desired(catalog(endpoint(anycast=label)), HERE, settings, drained=False)
    assert found.deliveries == ()


def test_a_label_is_nothing_where_nothing_is_allowed() -> None:
    found = desired(catalog(endpoint(anycast="192.0.2.80")), HERE, SETTINGS, drained=False)
    assert found.deliveries == ()


# The same, however it came about -------------------------------------------------------------


def test_any_history_ends_in_the_wish_from_scratch() -> None:
    rng = random.Random(7)
    settings = replace(SETTINGS, anycast_allow=(ip_network("192.0.2.0/24"),))
    state = CatalogState(KEYS, "alpha")
    wish = Wish(HERE, settings)
    pool = [
        endpoint(f"10.101.1.{n % 9 + 2}", service, anycast=f"192.0.2.{80 + n % 3}", port=80 + n % 2)
        for service in ("web", "db", "api")
        for n in range(12)
    ]
    for revision in range(1, 300):
        one = rng.choice(pool)
        value = encode_endpoint(one) if rng.random() < 0.6 else None
        change = state.apply([(KEYS.record(one.id), value, revision)], revision, 0.0)
        before = wish.desired((), Phase.SERVING)
        moved = wish.take(state.catalog, change.services, Phase.SERVING)
        after = wish.desired((), Phase.SERVING)
        assert after == replace(desired(state.catalog, HERE, settings, drained=False), routed=())
        assert moved or before == after


def test_while_draining_only_the_drain_takes_nothing_out() -> None:
    one, other = endpoint("10.101.1.2"), endpoint("10.101.1.3")
    state = CatalogState(KEYS, "alpha")
    state.reset([(KEYS.record(e.id), encode_endpoint(e), 1) for e in (one, other)], 1, 0.0)
    wish = Wish(HERE, SETTINGS)
    wish.take(state.catalog, None, Phase.SERVING)
    said = [
        Withdrawal(one, Reason.DRAINED, "host drained", 1.0),
        Withdrawal(other, Reason.CRASHED, "exit status 1", 1.0),
    ]
    change = state.apply(
        [
            event
            for w in said
            for event in (
                (KEYS.record(w.endpoint.id), None, 2),
                (KEYS.withdrawn("alpha", w.endpoint.id), encode_withdrawal(w), 2),
            )
        ],
        2,
        1.0,
    )
    wish.take(state.catalog, change.services, Phase.DRAINING)
    found = wish.desired((), Phase.DRAINING)
    assert [str(p) for p in found.announced] == ["10.101.1.2/32"]
    assert found.draining
    wish.take(state.catalog, change.services, Phase.SERVING)
    assert wish.desired((), Phase.SERVING).announced == frozenset()


class Counting(Wish):
    """How many endpoints were judged."""

    judged = 0

    def may_announce(self, address: Address) -> bool:
        self.judged += 1
        return super().may_announce(address)


def test_one_change_among_ten_thousand_looks_at_its_service_only() -> None:
    many = [endpoint(f"10.1.{n // 250}.{n % 250 + 1}", f"s{n % 500}") for n in range(10_000)]
    state = CatalogState(KEYS, "alpha")
    state.reset([(KEYS.record(e.id), encode_endpoint(e), 1) for e in many], 1, 0.0)
    wish = Counting(HERE, SETTINGS)
    wish.take(state.catalog, None, Phase.SERVING)
    assert wish.judged == 10_000
    whole = wish.desired((), Phase.SERVING)
    for n in range(20):
        wish.judged = 0
        change = state.apply([(KEYS.record(many[n].id), None, 2 + n)], 2 + n, 0.0)
        assert wish.take(state.catalog, change.services, Phase.SERVING)
        after = wish.desired((), Phase.SERVING)
        assert wish.judged == 19  # of 20 in its service, less the one that went
    assert len(after.announced) == len(whole.announced) - 20


# Other hosts ---------------------------------------------------------------------------------

BETA = HostBgp(
    64512,
    ip_address("192.0.2.2"),  # type: ignore[arg-type]  # an IPv4 address it is
    ip_address("192.0.2.2"),
    1790,
    True,
    True,
    (ip_network("10.101.2.0/24"),),
)
HOSTS = {
    "alpha": replace(HERE, bgp=replace(BETA, networks=(ip_network("10.101.1.0/24"),))),
    "beta": Host("beta", (ip_address("192.0.2.2"),), bgp=BETA),
    "gamma": Host("gamma", (ip_address("192.0.2.3"),), bgp=replace(BETA, mesh=False)),
    "delta": Host("delta", (ip_address("192.0.2.4"),)),
}


def test_the_mesh_is_of_those_who_want_it() -> None:
    assert mesh(HOSTS, "alpha", SETTINGS) == {}
    assert mesh(HOSTS, "alpha", replace(SETTINGS, mesh=True)) == {
        "beta": MeshHost("beta", ip_address("192.0.2.2"), 1790, 64512, True)
    }


def test_what_is_routed() -> None:
    docker = (ip_network("172.17.0.0/16"),)
    assert list(map(str, routed_networks(HOSTS, SETTINGS, docker))) == [
        "10.101.1.0/24",
        "10.101.2.0/24",
        "172.17.0.0/16",
        "192.0.2.1/32",
        "192.0.2.2/32",
        "192.0.2.3/32",
        "2001:db8::1/128",
    ]
    fixed = replace(SETTINGS, routed=(ip_network("2001:db8::/32"), ip_network("10.0.0.0/8")))
    assert list(map(str, routed_networks(HOSTS, fixed, docker))) == ["10.0.0.0/8", "2001:db8::/32"]


def test_own_networks_are_the_settings_or_dockers() -> None:
    docker = (ip_network("172.17.0.0/16"),)
    settings = replace(SETTINGS, aggregates=(ip_network("10.9.0.0/16"),))
    assert own_networks(settings, docker) == (ip_network("10.9.0.0/16"), *docker)
    settings = replace(settings, networks=(ip_network("10.9.0.0/24"),))
    assert (
        own_networks(settings, docker) == (ip_network("10.9.0.0/16"), ip_network("10.9.0.0/24"))[:2]
    )


def test_the_record_of_this_host() -> None:
    found = host_bgp(HERE, SETTINGS, (ip_network("172.17.0.0/16"),))
    assert found is not None
    assert (str(found.router_id), str(found.address)) == ("192.0.2.1", "192.0.2.1")
    assert found.networks == (ip_network("172.17.0.0/16"),)
    six = Host("alpha", (ip_address("2001:db8::1"),))
    assert host_bgp(six, SETTINGS, ()) is None
    settings = replace(SETTINGS, router_id=ip_address("192.0.2.9"))
    found = host_bgp(six, settings, ())
    assert found is not None
    assert str(found.address) == "2001:db8::1"


def test_two_hosts_with_one_prefix_are_noticed() -> None:
    own = (ip_network("10.101.2.0/24"), ip_network("10.101.1.0/24"))
    assert overlaps(HOSTS, "alpha", own) == (
        ("beta", own[0], own[0]),
        ("gamma", own[0], own[0]),
    )
    assert overlaps(HOSTS, "alpha", own[1:]) == ()
