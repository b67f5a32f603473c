"""`announcer.address`: which network, which address, which port."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import permutations

import pytest

from announcer.address import Place, Places, choose_network, in_container, on_host, published
from announcer.container import Attachment, Publication

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
HOST = (V4, V6, ip_address("192.0.2.99"))


def bound(address: str | None, host_port: int = 8080) -> Publication:
    return Publication(80, "tcp", ip_address(address) if address else None, host_port)


def place(address: str, port: int = 8080) -> Place:
    return Place(ip_address(address), port)


@pytest.mark.parametrize(
    ("bindings", "v4", "v6"),
    [
        ([bound(None)], place("192.0.2.1"), place("2001:db8::1")),
        ([bound("0.0.0.0")], place("192.0.2.1"), None),
        ([bound("::")], None, place("2001:db8::1")),
        ([bound("0.0.0.0"), bound("::")], place("192.0.2.1"), place("2001:db8::1")),
        ([bound("0.0.0.0", 1), bound("::", 2)], place("192.0.2.1", 1), place("2001:db8::1", 2)),
        ([bound("198.51.100.7")], place("198.51.100.7"), None),
        ([bound("2001:db8::7")], None, place("2001:db8::7")),
        ([bound(None, 9), bound(None, 8)], place("192.0.2.1", 8), place("2001:db8::1", 8)),
        ([bound("192.0.2.7"), bound("192.0.2.5")], place("192.0.2.5"), None),
        ([bound("127.0.0.1", 1), bound("0.0.0.0", 2)], place("192.0.2.1", 2), None),
    ],
)
def test_published(bindings: list[Publication], v4: Place | None, v6: Place | None) -> None:
    for order in permutations(bindings):
        assert published(order, HOST) == Places(v4, v6)


@pytest.mark.parametrize(
    ("bindings", "addresses", "missing"),
    [
        ([], HOST, "not published"),
        ([bound("127.0.0.1")], HOST, "loopback"),
        ([bound("127.0.0.1"), bound("::1")], HOST, "loopback"),
        ([bound("::")], (V4,), "no address of the family"),
        ([bound(None)], (), "no address of the family"),
    ],
)
def test_nothing_published(
    bindings: list[Publication], addresses: tuple[object, ...], missing: str
) -> None:
    places = published(bindings, addresses)  # type: ignore[arg-type]
    assert not places
    assert missing in places.missing


def test_loopback_is_offered_where_it_is_the_hosts_address() -> None:
    loopback = ip_address("127.0.0.1")
    assert published([bound("127.0.0.1")], (loopback,)) == Places(place("127.0.0.1"))


def test_on_host() -> None:
    assert on_host(HOST, 80) == Places(Place(V4, 80), Place(V6, 80))
    assert on_host((V6,), 80) == Places(None, Place(V6, 80))
    assert on_host((), 80).missing == "this host has no address"


def test_in_container() -> None:
    both = Attachment("n", "1", IPv4Address("10.0.0.2"), IPv6Address("2001:db8:1::2"))
    assert in_container(both, 80) == Places(place("10.0.0.2", 80), place("2001:db8:1::2", 80))
    assert in_container(Attachment("n", "1"), 80).missing == "no address in network 'n'"


@pytest.mark.parametrize(
    ("names", "preferred", "wanted", "chosen"),
    [
        (["a"], [], None, "a"),
        (["b", "c", "a"], [], None, "a"),
        (["b", "ingress"], [], None, "b"),
        (["ingress", "z"], [], None, "z"),
        (["ingress"], [], None, "ingress"),
        (["a", "b", "c"], ["x", "c", "b"], None, "c"),
        (["a", "b", "c"], ["x"], None, "a"),
        (["a", "b", "c"], ["c"], "b", "b"),
        (["a", "b"], ["a"], "x", None),
        ([], ["a"], None, None),
    ],
)
def test_network_choice_never_depends_on_order(
    names: list[str], preferred: list[str], wanted: str | None, chosen: str | None
) -> None:
    for order in permutations(Attachment(name, name) for name in names):
        found = choose_network(order, preferred, wanted)
        assert (found.network if found else None) == chosen
