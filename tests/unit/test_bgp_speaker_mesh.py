"""A mesh of native speakers: who connects, who peers with whom, and reflection (RFC 4456)."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import Any

import trio

from calico_bgp.decision import Path
from calico_bgp.plan import Host, make
from calico_bgp.policy import Importer, Peering, Policy
from calico_bgp.ports import MeshHost
from calico_bgp.reflection import reflected, reflects
from discod.model.bgp_settings import BgpSettings
from tests.bgp import route
from tests.bgp_speakers import Net, Rig, host, peer, prefixes, until, wish

ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3", "d": "192.0.2.4"}


class Mesh:
    """Hosts a, b, c, ... each announcing one route."""

    def __init__(
        self, names: str, reflectors: str = "", asns: dict[str, int] | None = None
    ) -> None:
        self.net = Net()
        self.rigs: dict[str, Rig] = {}
        self.hosts: dict[str, MeshHost] = {}
        for n, name in enumerate(names, 1):
            asn = (asns or {}).get(name, 64512)
            self.hosts[name] = host(name, ADDRESSES[name], asn, reflector=name in reflectors)
            settings = BgpSettings(asn, mesh=True, reflector=name in reflectors)
            rig = self.rigs[name] = Rig(self.net, settings, name, ADDRESSES[name], f"2001:db8::{n}")
            rig.speaker.want(wish(f"10.0.0.{n}/32", f"2001:db8:{n}::1/128"))

    async def up(self, nursery: trio.Nursery) -> Mesh:
        for rig in self.rigs.values():
            rig.speaker.set_mesh(self.hosts)
            rig.speaker.synced()
            nursery.start_soon(rig.run)
        await until(lambda: all(set(r.states) == {"Established"} for r in self.rigs.values()))
        return self


async def test_everybody_has_everybodys_routes_over_one_connection_a_pair(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    mesh = await Mesh("abcd").up(nursery)
    await until(lambda: all(len(rig.learned) == 6 for rig in mesh.rigs.values()))
    assert [rig.end.attempts for rig in mesh.rigs.values()][-1] == 0, "the highest one connects"
    assert mesh.rigs["a"].hops("10.0.0.3/32") == ["192.0.2.3"]
    assert mesh.rigs["a"].hops("2001:db8:3::1/128") == ["2001:db8::3"]
    for rig in mesh.rigs.values():
        assert [one.established for one in rig.speaker.peers()] == [1, 1, 1]
        assert all(one.mesh and not one.external for one in rig.speaker.peers())


async def test_a_host_that_leaves_the_mesh_is_let_go(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    mesh = await Mesh("abc").up(nursery)
    await until(lambda: len(mesh.rigs["a"].learned) == 4)
    without = {name: one for name, one in mesh.hosts.items() if name != "c"}
    mesh.rigs["a"].speaker.set_mesh(without)
    await until(lambda: len(mesh.rigs["a"].learned) == 2)
    assert [one.name for one in mesh.rigs["a"].speaker.peers()] == ["b"]
    assert mesh.rigs["a"].speaker.peers()[0].established == 1


async def test_hosts_of_other_ases_are_external_and_believed(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    mesh = await Mesh("ab", asns={"b": 64999}).up(nursery)
    await until(lambda: all(len(rig.learned) == 2 for rig in mesh.rigs.values()))
    assert mesh.rigs["a"].speaker.peers()[0].external
    assert mesh.rigs["a"].speaker.routes()[0].as_path == "64999"


async def test_with_a_reflector_the_others_peer_with_it_alone(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    mesh = await Mesh("abcd", reflectors="b").up(nursery)
    await until(lambda: all(len(rig.learned) == 6 for rig in mesh.rigs.values()))
    assert [len(rig.states) for rig in mesh.rigs.values()] == [1, 3, 1, 1]
    assert mesh.rigs["a"].hops("10.0.0.4/32") == ["192.0.2.4"], "not through the reflector"
    path = mesh.rigs["a"].speaker.rib.chosen[next(iter(prefixes("10.0.0.4/32")))][0]
    assert path.attributes.originator_id == IPv4Address("192.0.2.4")
    assert path.attributes.cluster_list == (IPv4Address("192.0.2.2"),)
    mesh.rigs["d"].speaker.want(wish())
    await until(lambda: len(mesh.rigs["a"].learned) == 4)
    # Nobody hears his own routes again.
    assert "10.0.0.1/32" not in {one.prefix for one in mesh.rigs["a"].speaker.routes()}


async def test_two_reflectors_make_no_loop_and_one_may_die(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    mesh = await Mesh("abcd", reflectors="ab").up(nursery)
    await until(lambda: all(len(rig.learned) == 6 for rig in mesh.rigs.values()))
    await trio.sleep(10)
    calls = [len(rig.calls) for rig in mesh.rigs.values()]
    await trio.sleep(60)
    assert [len(rig.calls) for rig in mesh.rigs.values()] == calls, "it does not come to rest"
    await mesh.rigs["a"].speaker.shutdown("away", 5)
    await trio.sleep(5)
    assert mesh.rigs["c"].hops("10.0.0.4/32") == ["192.0.2.4"]
    assert mesh.rigs["c"].hops("10.0.0.1/32") == []


def test_what_is_reflected_to_whom() -> None:
    source, target = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    path = Path(route("192.0.2.1"), source, IPv4Address("10.0.0.1"), False)
    table = {
        (True, True): True,
        (True, False): True,
        (False, True): True,
        (False, False): False,
    }
    for (from_client, to_client), told in table.items():
        assert reflects(path, from_client, target, to_client) is told
    assert not reflects(path, True, source, True)
    assert not reflects(path._replace(external=True), True, target, True)
    secret = path._replace(attributes=route("192.0.2.1", communities=(0xFFFFFF02,)))
    assert not reflects(secret, True, target, True)
    made = reflected(path, IPv4Address("9.9.9.9"))
    again = reflected(path._replace(attributes=made), IPv4Address("8.8.8.8"))
    assert again.originator_id == IPv4Address("10.0.0.1")
    assert again.cluster_list == (IPv4Address("8.8.8.8"), IPv4Address("9.9.9.9"))
    assert again.next_hop == source


def test_a_loop_of_clusters_is_refused() -> None:
    mine, other = IPv4Address("9.9.9.9"), IPv4Address("8.8.8.8")
    peering = Peering(64512, 64512, IPv4Address("10.0.0.1"), {}, cluster_id=mine)
    importer = Importer(Policy(), peering)
    assert importer.judge(route("192.0.2.1", cluster_list=(other, mine))) is None
    assert importer.judge(route("192.0.2.1", cluster_list=(other,))) is not None


def planned(settings: BgpSettings, *others: MeshHost, addresses: tuple[str, ...] = ()) -> Any:
    own = tuple(map(ip_address, addresses or ("192.0.2.2", "2001:db8::2")))
    return make(settings, Host("me", own), {one.name: one for one in others}, {})


def test_what_cannot_be_is_named_and_left_out() -> None:
    settings = BgpSettings(64512, mesh=True, peers=(peer("192.0.2.2", 64513),))
    plans = planned(settings, host("six", "2001:db8::9"), addresses=("192.0.2.2",))
    assert plans.peers == {}
    assert plans.faults == (
        "192.0.2.2: it is this host",
        "2001:db8::9: host six has an IPv6 address and this host has none",
    )


def test_the_lower_address_connects_and_a_configured_peer_goes_first() -> None:
    settings = BgpSettings(64512, mesh=True, peers=(peer("192.0.2.9", 64513, name="top"),))
    others = (host("low", "192.0.2.1"), host("high", "192.0.2.3"), host("nine", "192.0.2.9"))
    plans = planned(settings, host("me", "192.0.2.2"), *others)
    assert {one.name: one.peer.passive for one in plans.peers.values()} == {
        "top": False,
        "low": True,
        "high": False,
    }
    assert {(str(one.address), one.port) for one in plans.endpoints} == {
        ("192.0.2.2", 179),
        ("2001:db8::2", 179),
    }
    assert planned(BgpSettings(64512, peers=(peer("192.0.2.9", 64513),))).endpoints == ()
