"""Where packets to stale places and to service addresses go."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest

from discod.model.endpoint import Protocol
from discod.model.rescue import Pool
from tests.lab.rescue_table.world import (
    DEAD,
    HOST,
    PORT,
    VIP,
    World,
    at,
    gateway,
    place,
    plan,
    pool,
    stale,
)  # fmt: skip

pytestmark = pytest.mark.lab
VERSIONS = pytest.mark.parametrize("version", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
NF = pytest.mark.parametrize("nf", [0, 1], ids=["bridge-nf-0", "bridge-nf-1"])
CLIENTS = pytest.mark.parametrize("client", ["c", "o", "host", "far"])
WAYS = [(client, target) for client in ("c", "o", "host", "far") for target in ("s", "far")][:-1]


def source(client: str, version: int) -> str:
    """Whom the kernel counts: the host's own process by the address it uses there."""
    return gateway("br0", version) if client == "host" else at(client, version)


@NF
@VERSIONS
@PROTOCOLS
@pytest.mark.parametrize(("client", "target"), WAYS)
def test_a_new_connection_goes_to_a_sibling(
    world: World, client: str, target: str, version: int, protocol: Protocol, nf: int
) -> None:
    world.bridge_nf(nf)
    siblings = pool(version, protocol, at(target, version))
    dead = place(DEAD[version], 80, protocol)
    world.apply(plan([stale(dead, siblings)], [siblings], bridges=world.bridges))
    name, seen = world.get(client, DEAD[version], 80, protocol).split()
    assert name == target
    if client in ("c", "o") and target == "far":
        assert seen == at(client, version)  # it stays; whether it is hidden, Docker's rules say
    assert world.usage() == {(source(client, version), DEAD[version], "rescued"): 1}


@PROTOCOLS
@pytest.mark.parametrize("client", ["c", "o"])
def test_without_rescue_it_hangs(world: World, client: str, protocol: Protocol) -> None:
    siblings = pool(4, protocol, at("s", 4))
    dead = place(DEAD[4], 80, protocol)
    world.apply(plan([stale(dead, siblings)], [siblings], bridges=world.bridges))
    assert world.get(client, DEAD[4], 80, protocol).startswith("s ")
    world.apply(plan(bridges=world.bridges))
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        world.get(client, DEAD[4], 80, protocol)


@NF
@VERSIONS
@PROTOCOLS
@CLIENTS
def test_without_a_sibling_it_is_refused(
    world: World, client: str, version: int, protocol: Protocol, nf: int
) -> None:
    world.bridge_nf(nf)
    nobody = pool(version, protocol)
    dead = place(DEAD[version], 80, protocol)
    world.apply(plan([stale(dead, nobody)], [nobody], bridges=world.bridges))
    # To a datagram of the host's own the kernel says that it may not be sent; at once, too.
    own = client == "host" and protocol == "udp"
    with pytest.raises(PermissionError if own else ConnectionRefusedError):
        world.get(client, DEAD[version], 80, protocol)
    assert [result for _, _, result in world.usage()] == ["refused"]


@VERSIONS
@pytest.mark.parametrize("client", ["c", "o"])
def test_refusing_can_be_off(world: World, client: str, version: int) -> None:
    nobody = pool(version, "tcp")
    dead = stale(place(DEAD[version], 80), nobody)
    world.apply(plan([dead], [nobody], bridges=world.bridges, refuse=False))
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        world.get(client, DEAD[version], 80)
    assert world.usage() == {}


@VERSIONS
@PROTOCOLS
@CLIENTS
def test_service_address(world: World, client: str, version: int, protocol: Protocol) -> None:
    if client == "host":
        world.host.ip(f"route add {VIP[version]} dev eth0")
    siblings = pool(version, protocol, at("s", version), at("t", version))
    vip = place(VIP[version], 80, protocol)
    world.apply(plan([], [siblings], {vip: siblings.id}, world.bridges))
    names = {world.get(client, VIP[version], 80, protocol).split()[0] for _ in range(40)}
    assert names == {"s", "t"}  # a fault of the test once in 2 ** 39 times
    assert world.usage() == {}  # right use is nobody's fault
    own = client == "host" and protocol == "udp"
    with pytest.raises(PermissionError if own else ConnectionRefusedError):
        world.get(client, VIP[version], 81, protocol)
    nobody = Pool(siblings.id, ())
    world.apply(plan([], [nobody], {vip: siblings.id}, world.bridges, refuse=False))
    with pytest.raises(PermissionError if own else ConnectionRefusedError):
        world.get(client, VIP[version], 80, protocol)


def test_a_process_of_the_host_needs_a_route_to_a_service_address(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    vip = place(VIP[4], 80)
    world.apply(plan([], [siblings], {vip: siblings.id}, world.bridges))
    with pytest.raises(OSError, match="unreachable"):
        world.get("host", VIP[4], 80)
    for route in (
        f"default via {at('far', 4)}",
        "198.51.100.0/24 dev eth0",
        "198.51.100.0/24 dev lo",
    ):
        world.host.ip(f"route add {route}")
        try:
            assert world.get("host", VIP[4], 80).startswith("s ")
        finally:
            world.host.ip(f"route del {route}")


def test_weights(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4), at("s", 4), at("s", 4), at("t", 4))
    vip = place(VIP[4], 80)
    world.apply(plan([], [siblings], {vip: siblings.id}, world.bridges))
    seen = Counter(world.get("c", VIP[4], 80).split()[0] for _ in range(200))
    assert 120 < seen["s"] < 180  # 150 expected; 5 standard deviations
    assert seen.total() == 200


@VERSIONS
def test_affinity(world: World, version: int) -> None:
    siblings = pool(version, "tcp", at("s", version), at("t", version), affinity=True)
    vip = place(VIP[version], 80)
    world.apply(plan([], [siblings], {vip: siblings.id}, world.bridges))
    start, length = ("10.101.3.", 32) if version == 4 else ("2001:db8:3::", 128)
    clients = [f"{start}{n}" for n in range(10, 30)]
    nodad = "" if version == 4 else " nodad"
    world.spaces["o"].ip(*(f"addr add {a}/{length} dev eth0{nodad}" for a in clients))
    chosen: dict[str, set[str]] = {}
    for turn in range(3):
        if turn == 2:  # also by the rules of a daemon that was started again
            world.restart()
            world.apply(plan([], [siblings], {vip: siblings.id}, world.bridges))
        for client in clients:
            one = world.get("o", VIP[version], 80, of=client)
            chosen.setdefault(client, set()).add(one.split()[0])
    world.spaces["o"].ip(*(f"addr del {a}/{length} dev eth0" for a in clients))
    assert all(len(names) == 1 for names in chosen.values())
    assert set.union(*chosen.values()) == {"s", "t"}


@NF
@VERSIONS
@CLIENTS
def test_an_established_connection_is_reset(
    world: World, client: str, version: int, nf: int
) -> None:
    world.bridge_nf(nf)
    address = at("t", version)
    siblings = pool(version, "tcp", at("s", version))
    with (
        closing(world.connect(client, address)) as one,
        closing(world.connect(client, at("s", version))) as other,
    ):
        assert one.recv(100)
        assert other.recv(100)
        world.apply(plan([stale(place(address), siblings)], [siblings], bridges=world.bridges))
        with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
            one.send(b"more")
            one.recv(100)
        other.send(b"more")
        assert other.recv(100) == b"more"
    assert (source(client, version), address, "reset") in world.usage()


@NF
@VERSIONS
@CLIENTS
def test_a_rescued_connection_goes_on_until_its_sibling_dies(
    world: World, client: str, version: int, nf: int
) -> None:
    world.bridge_nf(nf)
    siblings = pool(version, "tcp", at("t", version))
    others = pool(version, "tcp", at("s", version))
    dead = stale(place(DEAD[version], 80), siblings)
    world.apply(plan([dead], [siblings], bridges=world.bridges))
    with closing(world.connect(client, DEAD[version], 80)) as one:
        assert one.recv(100).startswith(b"t ")

        def goes_on() -> bool:
            one.send(b"more")
            return one.recv(100) == b"more"

        assert goes_on()
        world.apply(plan([dead], [others], bridges=world.bridges))
        assert goes_on()
        world.restart()
        world.apply(plan([dead], [others], bridges=world.bridges))
        assert goes_on()
        world.apply(
            plan([dead, stale(place(at("t", version)), others)], [others], bridges=world.bridges)
        )
        with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
            one.send(b"more")
            one.recv(100)
    assert (source(client, version), DEAD[version], "reset") in world.usage()


@VERSIONS
@CLIENTS
def test_service_address_connections_go_on_and_end_with_their_endpoint(
    world: World, client: str, version: int
) -> None:
    if client == "host":
        world.host.ip(f"route add {VIP[version]} dev eth0")
    first, second = (pool(version, "tcp", at(name, version)) for name in ("t", "s"))
    vip = place(VIP[version], 80)
    world.apply(plan([], [first], {vip: first.id}, world.bridges))
    with closing(world.connect(client, VIP[version], 80)) as one:
        assert one.recv(100).startswith(b"t ")
        world.apply(plan([], [second], {vip: first.id}, world.bridges))
        one.send(b"more")
        assert one.recv(100) == b"more"
        assert world.get(client, VIP[version], 80).startswith("s ")
        gone = stale(place(at("t", version)), second)
        world.apply(plan([gone], [second], {vip: first.id}, world.bridges))
        with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
            one.send(b"more")
            one.recv(100)


@NF
@VERSIONS
@CLIENTS
def test_what_is_only_stopping_keeps_its_connections(
    world: World, client: str, version: int, nf: int
) -> None:
    world.bridge_nf(nf)
    address = at("t", version)
    siblings = pool(version, "tcp", at("s", version))
    with closing(world.connect(client, address)) as old:
        assert old.recv(100)
        going = stale(place(address), siblings, cut=False)
        world.apply(plan([going], [siblings], bridges=world.bridges))
        with closing(world.connect(client, address)) as new:
            assert new.recv(100).startswith(b"s ")
            for one in (old, new):
                one.send(b"more")
                assert one.recv(100) == b"more"
            gone = stale(place(address), siblings)
            world.apply(plan([gone], [siblings], bridges=world.bridges))
            new.send(b"more")
            assert new.recv(100) == b"more"
            with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
                old.send(b"more")
                old.recv(100)


@VERSIONS
def test_behind_a_published_port(world: World, version: int) -> None:
    """What Docker translates to a container ends with the container; new ones are ours."""
    name = "ip" if version == 4 else "ip6"
    target = at("t", version) if version == 4 else f"[{at('t', version)}]"
    world.nft(
        f"table {name} nat {{ chain pre {{ type nat hook prerouting priority -100;"
        f" {name} daddr {HOST[version]} tcp dport 80 dnat to {target}:{PORT}; }}; }}"
    )
    try:
        with closing(world.connect("far", HOST[version], 80)) as one:
            assert one.recv(100).startswith(b"t ")
            siblings = pool(version, "tcp", at("s", version))
            backend = place(at("t", version))
            gone = stale(place(HOST[version], 80), siblings, backend=backend)
            world.apply(plan([gone], [siblings], bridges=world.bridges))
            with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
                one.send(b"more")
                one.recv(100)
            assert world.get("far", HOST[version], 80).startswith("s ")
    finally:
        world.nft(f"delete table {name} nat")


def test_only_bridges_with_something_dead_have_a_table(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    elsewhere = stale(place("10.101.9.9"), siblings)
    here = stale(place(DEAD[4]), siblings)
    for some, there in (([elsewhere], False), ([elsewhere, here], True), ([elsewhere], False)):
        world.apply(plan(some, [siblings], bridges=world.bridges))
        assert ("table bridge" in world.ruleset()) == there
