"""Learned routes in a real kernel: both families, many paths, strangers, flaps, ten thousand."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
import trio

from calico_bgp.exported import Exported
from calico_bgp.forwarding import KernelForwarding
from calico_bgp.ports import Delivery, Desired, Hop, Hops
from calico_bgp.prefix import Prefix, of_network
from calico_bgp.routes_kernel import RouteKernel, Routes
from discod.model.bgp_settings import BgpSettings
from tests.lab.netns import Namespace, inside, ip

pytestmark = pytest.mark.lab
SETTINGS = BgpSettings(asn=64512)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with two cables, to routers .1 and .2 of each."""
    space = Namespace(f"kr{os.getpid()}")
    ip(f"netns add {space.name}")
    try:
        space.sysctl(
            net__ipv6__conf__all__disable_ipv6=0,
            net__ipv6__conf__default__disable_ipv6=0,
            net__ipv6__conf__default__accept_dad=0,
        )
        space.ip(
            "link set lo up",
            "link add eth0 type veth peer name pa",
            "link add eth1 type veth peer name pb",
            "addr add 192.0.2.9/24 dev eth0",
            "addr add 2001:db8::9/64 dev eth0 nodad",
            "addr add 198.51.100.9/24 dev eth1",
            "addr add 2001:db8:b::9/64 dev eth1 nodad",
            *(f"link set {name} up" for name in ("eth0", "eth1", "pa", "pb")),
        )
        yield space
    finally:
        ip(f"netns del {space.name}")


def prefix(text: str) -> Prefix:
    return of_network(ip_network(text))


def hops(*texts: str) -> Hops:
    found = []
    for text in texts:
        gateway, _, interface = text.partition("%")
        found.append(Hop(ip_address(gateway), interface))
    return tuple(found)


def shown(space: Namespace, *what: str) -> list[dict[str, object]]:
    return [
        row
        for family in ("-4", "-6")
        for row in json.loads(space.sh("ip", "-j", family, "route", "show", *what) or "[]")
    ]


def ours(space: Namespace) -> dict[str, tuple[str, ...]]:
    """Destination -> gateways of the routes with our number, as iproute2 sees them."""
    found = {}
    for row in shown(space, "proto", "201"):
        paths = row.get("nexthops") or [row]
        assert isinstance(paths, list)
        found[str(row["dst"])] = tuple(sorted(str(path.get("gateway")) for path in paths))
    return found


@asynccontextmanager
async def running(
    space: Namespace, settings: BgpSettings = SETTINGS
) -> AsyncIterator[KernelForwarding]:
    def opened(table: int, protocol: int) -> RouteKernel:
        return inside(space.path, lambda: Routes(table, protocol))

    forwarding = KernelForwarding(settings, rng=random.Random(1), kernel=opened)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forwarding.run)
        yield forwarding
        nursery.cancel_scope.cancel()


async def until(space: Namespace, wanted: dict[str, tuple[str, ...]], deadline: float = 5) -> None:
    end = time.monotonic() + deadline
    while (seen := ours(space)) != wanted:
        assert time.monotonic() < end, f"{seen} is not {wanted}"
        await trio.sleep(0.02)


async def test_routes_of_both_families_with_one_and_more_paths(host: Namespace) -> None:
    async with running(host) as forwarding:
        one, many = prefix("10.9.0.1/32"), prefix("10.9.0.0/24")
        one6, many6 = prefix("2001:db8:9::1/128"), prefix("2001:db8:9::/64")
        mixed = prefix("10.9.9.0/24")
        wanted: dict[Prefix, Hops] = {
            one: hops("192.0.2.1"),
            many: hops("192.0.2.1", "198.51.100.1"),
            one6: hops("2001:db8::1"),
            many6: hops("2001:db8::1", "2001:db8:b::1"),
            mixed: hops("2001:db8::1"),
            prefix("2001:db8:a::/64"): hops("fe80::1%eth0", "fe80::1%eth1"),
            prefix("0.0.0.0/0"): hops("192.0.2.1"),
        }
        forwarding.learned(wanted)
        expected = {
            "10.9.0.1": ("192.0.2.1",),
            "10.9.0.0/24": ("192.0.2.1", "198.51.100.1"),
            "2001:db8:9::1": ("2001:db8::1",),
            "2001:db8:9::/64": ("2001:db8::1", "2001:db8:b::1"),
            "2001:db8:a::/64": ("fe80::1", "fe80::1"),
            "10.9.9.0/24": ("None",),  # `via`, not `gateway`
            "default": ("192.0.2.1",),
        }
        await until(host, expected)
        assert "via inet6 2001:db8::1" in host.sh("ip", "route", "show", "10.9.9.0/24")
        await trio.sleep(0.1)
        assert all(forwarding.installed(prefix) for prefix in wanted), forwarding.faults()

        # Fewer, other and more paths; each in place.
        forwarding.learned(
            {
                many: hops("198.51.100.2"),
                many6: hops("2001:db8:b::2"),
                one: hops("192.0.2.1", "192.0.2.2", "198.51.100.1"),
                one6: hops("2001:db8::1", "2001:db8::2", "2001:db8:b::1"),
                mixed: (),
            }
        )
        del expected["10.9.9.0/24"]
        expected["10.9.0.0/24"] = ("198.51.100.2",)
        expected["2001:db8:9::/64"] = ("2001:db8:b::2",)
        expected["10.9.0.1"] = ("192.0.2.1", "192.0.2.2", "198.51.100.1")
        expected["2001:db8:9::1"] = ("2001:db8::1", "2001:db8::2", "2001:db8:b::1")
        await until(host, expected)
        assert not forwarding.installed(mixed)
        forwarding.learned(dict.fromkeys(wanted, ()))
        await until(host, {})


async def test_what_is_not_ours_is_never_touched(host: Namespace) -> None:
    host.ip(
        "route add 10.9.0.0/24 via 192.0.2.77 metric 64",
        "route add 2001:db8:9::/64 via 2001:db8::77 metric 64",
        "route add 10.9.1.0/24 via 192.0.2.77 proto bird",
    )
    before = shown(host)
    async with running(host) as forwarding:
        taken = {
            prefix("10.9.0.0/24"): hops("192.0.2.1"),
            prefix("2001:db8:9::/64"): hops("2001:db8::1"),
        }
        forwarding.learned({**taken, prefix("10.9.2.0/24"): hops("192.0.2.1")})
        await until(host, {"10.9.2.0/24": ("192.0.2.1",)})
        assert not any(forwarding.installed(prefix) for prefix in taken)
        assert set(forwarding.faults()) == set(taken)
        assert all("EEXIST" in fault for fault in forwarding.faults().values())
        # Back when the stranger goes.
        host.ip("route del 10.9.0.0/24 via 192.0.2.77 metric 64")
        await until(host, {"10.9.0.0/24": ("192.0.2.1",), "10.9.2.0/24": ("192.0.2.1",)})
        forwarding.learned(dict.fromkeys([*taken, prefix("10.9.2.0/24")], ()))
        await until(host, {})
    host.ip("route add 10.9.0.0/24 via 192.0.2.77 metric 64")
    assert sorted(map(str, shown(host))) == sorted(map(str, before))


async def test_an_earlier_run_is_kept_until_settled_then_swept(host: Namespace) -> None:
    host.ip(
        "route add 10.9.0.1/32 via 192.0.2.1 proto 201 metric 64",
        "route add 10.9.0.2/32 via 192.0.2.1 proto 201 metric 64",
        "route add 10.9.0.3/32 via 192.0.2.1 proto 201 metric 99",
        "route add 2001:db8:9::2/128 via 2001:db8::1 proto 201 metric 64",
        "route add 10.9.0.4/32 via 192.0.2.1 proto 201 metric 64 table 77",
    )
    left = ours(host)
    async with running(host) as forwarding:
        forwarding.learned({prefix("10.9.0.9/32"): hops("192.0.2.1")})
        await until(host, {**left, "10.9.0.9": ("192.0.2.1",)})
        assert forwarding.counts()["leftover"] == 3
        forwarding.learned({prefix("10.9.0.1/32"): hops("192.0.2.1")})
        forwarding.settled()
        await until(host, {"10.9.0.1": ("192.0.2.1",), "10.9.0.9": ("192.0.2.1",)})
    assert "10.9.0.4" in host.sh("ip", "route", "show", "table", "77")
    # The end of a run leaves them, cleanup does not.
    assert len(ours(host)) == 2


async def test_removed_by_others_comes_back_at_once(host: Namespace) -> None:
    async with running(host) as forwarding:
        forwarding.learned(
            {
                prefix("10.9.0.1/32"): hops("192.0.2.1"),
                prefix("2001:db8:9::1/128"): hops("2001:db8::1", "2001:db8:b::1"),
            }
        )
        expected = {
            "10.9.0.1": ("192.0.2.1",),
            "2001:db8:9::1": ("2001:db8::1", "2001:db8:b::1"),
        }
        await until(host, expected)
        for family in ("-4", "-6"):
            host.sh("ip", family, "route", "flush", "proto", "201")
        await until(host, expected, deadline=2)


async def test_a_link_that_flaps_hurts_only_its_routes_and_they_come_back(host: Namespace) -> None:
    async with running(host) as forwarding:
        forwarding.learned(
            {
                prefix("10.9.0.1/32"): hops("192.0.2.1"),
                prefix("10.9.0.2/32"): hops("198.51.100.1"),
                prefix("10.9.0.3/32"): hops("192.0.2.1", "198.51.100.1"),
                prefix("2001:db8:9::2/128"): hops("2001:db8:b::1"),
            }
        )
        whole = {
            "10.9.0.1": ("192.0.2.1",),
            "10.9.0.2": ("198.51.100.1",),
            "10.9.0.3": ("192.0.2.1", "198.51.100.1"),
            "2001:db8:9::2": ("2001:db8:b::1",),
        }
        await until(host, whole)
        host.ip("link set eth1 down")
        await until(host, {"10.9.0.1": ("192.0.2.1",), "10.9.0.3": ("192.0.2.1",)})
        assert not forwarding.installed(prefix("10.9.0.2/32"))
        assert forwarding.installed(prefix("10.9.0.1/32"))
        # Its IPv6 address went with it.
        host.ip("link set eth1 up", "addr add 2001:db8:b::9/64 dev eth1 nodad")
        await until(host, whole)


async def test_own_addresses_and_own_networks_are_never_routed_away(host: Namespace) -> None:
    async with running(host) as forwarding:
        refused = [
            prefix(text)
            for text in ("192.0.2.9/32", "192.0.2.0/24", "198.51.100.7/32", "2001:db8:b::7/128")
        ]
        via = dict.fromkeys(refused[:3], hops("192.0.2.1"))
        forwarding.learned({**via, refused[3]: hops("2001:db8::1")})
        # Beside its own neighbour it may be: that is what a host route is.
        forwarding.learned({prefix("198.51.100.8/32"): hops("198.51.100.1")})
        await until(host, {"198.51.100.8": ("198.51.100.1",)})
        assert set(forwarding.faults()) == set(refused)


async def test_ten_thousand_routes(host: Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    first = int(ip_address("10.32.0.0"))
    routes = {prefix(f"{ip_address(first + i)}/32"): hops("192.0.2.1") for i in range(10_000)}
    paths = hops("192.0.2.1", "198.51.100.1")
    figures = {}
    async with running(host) as forwarding:
        await trio.sleep(0.1)
        lag = [0.0]

        async def beat() -> None:
            while True:
                at = time.monotonic()
                await trio.sleep(0.001)
                lag[0] = max(lag[0], time.monotonic() - at)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            for name, change, count in (
                ("install", routes, 10_000),
                ("to 2 paths", dict.fromkeys(routes, paths), 10_000),
                ("remove", dict.fromkeys(routes, ()), 0),
            ):
                at = time.monotonic()
                forwarding.learned(change)
                while forwarding.counts()["pending"] or forwarding.counts()["installed"] != count:
                    await trio.sleep(0.005)
                    assert time.monotonic() - at < 30
                figures[name] = round(time.monotonic() - at, 3)
                assert len(host.sh("ip", "route", "show", "proto", "201").splitlines()) in (
                    count,
                    count * 3,
                )
                lag[0] = 0.0 if name != "remove" else lag[0]
            nursery.cancel_scope.cancel()
        at = time.monotonic()
        forwarding.learned({prefix("10.9.0.1/32"): hops("192.0.2.1")})
        while not forwarding.installed(prefix("10.9.0.1/32")):
            await trio.lowlevel.checkpoint()
        figures["one"] = round(time.monotonic() - at, 5)
    with capsys.disabled():
        print(f"\n10,000 routes, seconds: {figures}, longest pause of the loop {lag[0]:.4f}")
    assert not any(forwarding.faults())


async def test_what_this_host_announces_as_routes_for_another_speaker(host: Namespace) -> None:
    def opened(table: int, protocol: int) -> RouteKernel:
        return inside(host.path, lambda: Routes(table, protocol))

    host.ip("route add 10.9.9.0/24 via 192.0.2.1 proto 201 metric 64")
    exported = Exported(SETTINGS, rng=random.Random(1), kernel=opened)
    box, box6 = prefix("198.51.100.7/32"), prefix("2001:db8:b::7/128")
    nets = {prefix("198.51.100.0/24"), prefix("2001:db8:b::/64")}
    anycast = (Delivery(ip_address("10.77.0.1"), (ip_address("198.51.100.7"),)),)
    desired = Desired(
        announced=frozenset({box, box6, prefix("10.77.0.1/32"), *nets}),
        deliveries=anycast,
        local=frozenset({box, box6}),
    )

    def seen() -> set[tuple[str, str, str]]:
        return {
            (str(row.get("type", "unicast")), str(row["dst"]), str(row.get("dev", "")))
            for row in shown(host, "proto", "201")
        }

    async def become(wanted: set[tuple[str, str, str]]) -> None:
        end = time.monotonic() + 5
        while (found := {(t, d, "" if t != "unicast" else i) for t, d, i in seen()}) != wanted:
            assert time.monotonic() < end, found
            await trio.sleep(0.02)

    expected = {
        ("unicast", "198.51.100.7", "eth1"),
        ("unicast", "2001:db8:b::7", "eth1"),
        ("blackhole", "10.77.0.1", ""),
        ("unreachable", "198.51.100.0/24", ""),
        ("unreachable", "2001:db8:b::/64", ""),
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exported.run)
        await trio.sleep(0.2)
        assert seen() == {("unicast", "10.9.9.0/24", "eth0")}, (
            "an earlier run's, until all is known"
        )
        exported.want(desired)
        await become(expected)
        exported.want(Desired(announced=frozenset({box}), local=frozenset({box})))
        await become({("unicast", "198.51.100.7", "eth1")})
        assert [row.good for row in exported.status()] == [True]
        await exported.leave()
        await become(set())
        nursery.cancel_scope.cancel()
    # The container's link is still connected, and the stranger's routes are as they were.
    assert "198.51.100.0/24 dev eth1 proto kernel" in host.sh("ip", "route")
