"""Routes as octets against pyroute2's codec, which is written by others."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
import trio
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from calico_bgp import route_codec as codec
from calico_bgp.conntrack import stale
from calico_bgp.exported import METRIC, routes
from calico_bgp.forwarding import KernelForwarding
from calico_bgp.ports import Delivery, Desired, Hop, Hops
from calico_bgp.prefix import Prefix, of_network
from calico_bgp.route_codec import KernelHop, KernelRoute
from calico_bgp.routes_kernel import Change, Noticed
from calico_bgp.surroundings import Connected, Surroundings
from discod.model.bgp_settings import BgpSettings


def prefix(text: str) -> Prefix:
    return of_network(ip_network(text))


def via(*texts: str) -> Hops:
    return tuple(Hop(ip_address(text)) for text in texts)


def kernel_hops(*texts: str) -> tuple[KernelHop, ...]:
    return tuple(KernelHop(ip_address(text), 3) for text in texts)


@pytest.mark.parametrize(
    ("destination", "gateways", "table"),
    [
        ("10.9.0.0/24", ("192.0.2.1",), 254),
        ("10.9.0.1/32", ("192.0.2.1", "192.0.2.2"), 254),
        ("0.0.0.0/0", ("192.0.2.1",), 1000),
        ("2001:db8::/33", ("fe80::1",), 254),
        ("2001:db8::1/128", ("fe80::1", "fe80::2", "fe80::3"), 254),
        ("::/0", ("fe80::1",), 254),
        ("10.9.0.0/23", ("fe80::1",), 254),
    ],
)
def test_a_route_is_read_back_and_pyroute2_reads_the_same(
    destination: str, gateways: tuple[str, ...], table: int
) -> None:
    route = KernelRoute(prefix(destination), kernel_hops(*gateways), 64, table, 201)
    payload = codec.pack_route(route)
    assert codec.read_route(payload) == route
    header = (16 + len(payload)).to_bytes(4, "little") + b"\x18\0\0\0" + bytes(8)
    other = rtmsg(header + payload)
    other.decode()
    assert other["dst_len"] == route.prefix.bits
    assert other["proto"] == 201
    assert other.get_attr("RTA_TABLE") == table
    assert other.get_attr("RTA_PRIORITY") == 64
    network = ip_network(destination)
    assert other.get_attr("RTA_DST") == str(network.network_address)
    paths = other.get_attr("RTA_MULTIPATH") or [other]
    seen = [(path.get_attr("RTA_GATEWAY") or path.get_attr("RTA_VIA")["addr"]) for path in paths]
    assert seen == list(gateways)


class FakeKernel:
    """A kernel that knows one network, and gateways in it."""

    def __init__(self, *there: KernelRoute) -> None:
        self.routes = {(r.prefix, r.metric): r for r in there}
        self.strangers: set[Prefix] = set()
        self.around = Surroundings(
            [prefix("192.0.2.9/32")], [Connected(prefix("192.0.2.0/24"), 2)], {"eth0": 2}
        )
        self.written: list[Change] = []
        self.closed = False
        self._send, self._heard = trio.open_memory_channel[Noticed](10)

    def tell(self, noticed: Noticed) -> None:
        self._send.send_nowait(noticed)

    async def read(self) -> list[KernelRoute]:
        await trio.lowlevel.checkpoint()
        return list(self.routes.values())

    async def surroundings(self) -> Surroundings:
        await trio.lowlevel.checkpoint()
        return self.around

    async def write(self, changes: Sequence[Change]) -> list[int]:
        await trio.lowlevel.checkpoint()
        return [self._one(change) for change in changes]

    def _one(self, change: Change) -> int:
        self.written.append(change)
        route = change.route
        key = (route.prefix, route.metric)
        if change.delete:
            self.routes.pop(key, None)
            return 0
        if route.prefix in self.strangers or (not change.there and key in self.routes):
            return errno.EEXIST
        if any(str(hop.gateway) == "203.0.113.1" for hop in route.hops):
            return errno.ENETUNREACH
        self.routes[key] = route
        return 0

    async def noticed(self) -> Noticed:
        return await self._heard.receive()

    def close(self) -> None:
        self.closed = True


SETTINGS = BgpSettings(asn=64512)


def forwarding(kernel: FakeKernel) -> KernelForwarding:
    return KernelForwarding(SETTINGS, rng=random.Random(1), kernel=lambda _t, _p: kernel)


def left(text: str, metric: int = 64) -> KernelRoute:
    return KernelRoute(prefix(text), kernel_hops("192.0.2.1"), metric, 254, 201)


async def test_one_that_fails_is_tried_again_and_hurts_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = FakeKernel()
    subject = forwarding(kernel)
    bad, good = prefix("10.9.0.1/32"), prefix("10.9.0.2/32")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        subject.learned({bad: via("203.0.113.1"), good: via("192.0.2.1")})
        await trio.sleep(0.1)
        assert subject.installed(good)
        assert not subject.installed(bad)
        assert "ENETUNREACH" in subject.faults()[bad]
        await trio.sleep(120)
        tries = sum(change.route.prefix == bad for change in kernel.written)
        assert 5 <= tries <= 20
        subject.learned({bad: via("192.0.2.1")})
        await trio.sleep(0.1)
        assert subject.installed(bad)
        assert not subject.faults()
        nursery.cancel_scope.cancel()
    assert kernel.closed


async def test_a_change_to_a_way_that_is_none_takes_the_old_one_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = FakeKernel()
    subject = forwarding(kernel)
    one = prefix("10.9.0.1/32")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        subject.learned({one: via("192.0.2.1")})
        await trio.sleep(0.1)
        subject.learned({one: via("203.0.113.1")})
        await trio.sleep(0.1)
        assert not kernel.routes
        nursery.cancel_scope.cancel()


async def test_leftovers_are_kept_until_settled(autojump_clock: trio.testing.MockClock) -> None:
    kernel = FakeKernel(left("10.9.0.1/32"), left("10.9.0.2/32"), left("10.9.0.3/32", 99))
    subject = forwarding(kernel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        await trio.sleep(200)
        subject.learned({prefix("10.9.0.2/32"): ()})  # never told of: no reason to touch it
        await trio.sleep(1)
        assert len(kernel.routes) == 3
        assert not kernel.written
        subject.learned({prefix("10.9.0.1/32"): via("192.0.2.1")})
        await trio.sleep(1)
        assert not kernel.written, "it is as wanted already"
        assert subject.installed(prefix("10.9.0.1/32"))
        subject.settled()
        await trio.sleep(1)
        assert [p for p, _ in kernel.routes] == [prefix("10.9.0.1/32")]
        nursery.cancel_scope.cancel()


async def test_removed_by_others_comes_back_told_or_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = FakeKernel()
    subject = forwarding(kernel)
    one = prefix("10.9.0.1/32")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        subject.learned({one: via("192.0.2.1")})
        await trio.sleep(0.1)
        kernel.routes.clear()
        kernel.tell(Noticed(((one, None),)))
        await trio.sleep(0.1)
        assert kernel.routes
        kernel.routes.clear()
        await trio.sleep(61)
        assert kernel.routes
        kernel.routes.clear()
        kernel.tell(Noticed(missed=True))
        await trio.sleep(0.1)
        assert kernel.routes
        nursery.cancel_scope.cancel()


def test_what_contradicts_the_host_is_refused_and_why() -> None:
    around = Surroundings(
        [prefix("192.0.2.9/32")],
        [Connected(prefix("192.0.2.0/24"), 2), Connected(prefix("10.101.1.0/24"), 3)],
        {"eth0": 2, "docker0": 3},
    )
    hops = around.kernel_hops(via("192.0.2.1"))
    assert "address of this host" in around.forbids(prefix("192.0.2.9/32"), hops)
    assert "directly connected" in around.forbids(prefix("10.101.1.0/24"), hops)
    assert "another interface" in around.forbids(prefix("10.101.1.7/32"), hops)
    assert not around.forbids(prefix("192.0.2.77/32"), hops)
    assert not around.forbids(prefix("10.101.0.0/16"), hops)
    assert not around.forbids(prefix("0.0.0.0/0"), hops)


def test_paths_that_cannot_be_reached_are_left_out_and_onlink_only_where_named() -> None:
    around = Surroundings([], [Connected(prefix("192.0.2.0/24"), 2)], {"eth0": 2})
    assert around.kernel_hops(via("192.0.2.1", "203.0.113.1")) == (
        KernelHop(ip_address("192.0.2.1")),
    )
    assert around.kernel_hops((Hop(ip_address("203.0.113.1"), "eth0"),)) == (
        KernelHop(ip_address("203.0.113.1"), 2, onlink=True),
    )
    assert around.kernel_hops((Hop(ip_address("192.0.2.1"), "eth0"),))[0].onlink is False
    assert around.kernel_hops((Hop(ip_address("fe80::1"), "eth0"),))[0].onlink is False


def test_exported_routes_lose_to_all_others_but_for_containers() -> None:
    around = Surroundings([], [Connected(prefix("10.101.1.0/24"), 3)], {"docker0": 3})
    box, net, any_ = prefix("10.101.1.2/32"), prefix("10.101.1.0/24"), prefix("10.77.0.1/32")
    desired = Desired(
        announced=frozenset({box, net, any_}),
        local=frozenset({box}),
        deliveries=(Delivery(ip_address("10.77.0.1"), (ip_address("10.101.1.2"),)),),
    )
    found = routes(desired, around, SETTINGS)
    assert found[box].hops == (KernelHop(None, 3),)
    assert (found[net].type, found[net].metric) == (codec.UNREACHABLE, METRIC)
    assert (found[any_].type, found[any_].metric) == (codec.BLACKHOLE, METRIC)


def test_only_connections_to_targets_that_are_gone_are_forgotten() -> None:
    def part(kind: int, data: bytes) -> bytes:
        size = len(data) + 4
        return size.to_bytes(2, "little") + kind.to_bytes(2, "little") + data

    def ends(source: str, destination: str) -> bytes:
        return part(
            0x8001, part(1, ip_address(source).packed) + part(2, ip_address(destination).packed)
        )

    payload = b"\x02\0\0\0" + part(0x8001, ends("192.0.2.7", "10.77.0.1"))
    payload += part(0x8002, ends("10.101.1.2", "192.0.2.7")) + part(12, b"\1\2\3\4")
    any_, target = ip_address("10.77.0.1"), ip_address("10.101.1.2")
    assert stale(payload, {any_: {target}}) is None
    assert stale(payload, {target: set()}) is None
    delete = stale(payload, {any_: set()})
    assert delete is not None
    assert part(12, b"\1\2\3\4") in delete
    assert ends("192.0.2.7", "10.77.0.1") in delete
