"""Who asks for the link-layer address of a dead container: fresh caches, stale ones, claims."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from discod.rescue.neighbours_codec import NOTHING, heard
from tests.lab.netns import Namespace
from tests.lab.rescue_flows.world import NET4, NET6, World, mac_of, until

pytestmark = pytest.mark.lab
DEAD4, DEAD6 = f"{NET4}.119", f"{NET6}:77"
MAC = mac_of(0x77)
WANTED = {DEAD4: MAC.replace(":", ""), DEAD6: MAC.replace(":", "")}


@pytest.fixture
def world() -> Iterator[World]:
    with World("rn") as made:
        made.start()
        yield made


def knock(space: Namespace, address: str) -> None:
    """Make its kernel resolve the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with space.socket(family, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", (address, 9))


def neighbour(space: Namespace, address: str) -> str:
    return space.sh("ip", "neigh", "show", address)


def known(space: Namespace, address: str, state: str = "REACHABLE") -> bool:
    line = neighbour(space, address)
    return MAC in line and state in line


def resolved(space: Namespace, address: str) -> bool:
    knock(space, address)
    return known(space, address)


def impatient(space: Namespace) -> None:
    """Neighbour states pass in tenths of seconds."""
    for version in ("ipv4", "ipv6"):
        for name, value in (("retrans_time_ms", 100), ("delay_first_probe_time", 1)):
            space.sysctl(**{f"net__{version}__neigh__eth0__{name}": value})


def frames_of(space: Namespace, kind: int) -> socket.socket:
    one = space.socket(socket.AF_PACKET, socket.SOCK_RAW)
    one.bind(("eth0", kind))
    one.settimeout(10.0)
    return one


def arp(does: int, mac: str, sender: str, target: str) -> bytes:
    source = bytes.fromhex(mac.replace(":", ""))
    return (
        b"\xff" * 6 + source + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, does)
        + source + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    )  # fmt: skip


@pytest.mark.parametrize("address", [DEAD4, DEAD6])
def test_a_client_that_does_not_know_it_is_told_the_former_one(world: World, address: str) -> None:
    client = world.container(5)
    impatient(client)
    knock(client, address)
    until(lambda: "FAILED" in neighbour(client, address))
    world.do("want", addresses=WANTED)
    until(lambda: resolved(client, address))
    assert "promiscuity 0" in world.host.sh("ip", "-d", "link", "show", "br0")
    # Not a word on what it is not asked to speak for.
    knock(client, f"{NET4}.120")
    until(lambda: "FAILED" in neighbour(client, f"{NET4}.120"))
    assert world.claimed == []
    # Taken back: it asks in vain again, and the sockets are gone.
    world.do("want", addresses={})
    client.sh("ip", "neigh", "flush", "all")
    knock(client, address)
    until(lambda: "FAILED" in neighbour(client, address))
    assert world.host.sh("cat", "/proc/net/packet").count("\n") == 1


@pytest.mark.parametrize("address", [DEAD4, DEAD6])
def test_a_stale_entry_is_confirmed(world: World, address: str) -> None:
    """Its first questions go to the dead one's own address, and nobody hears them."""
    client = world.container(5)
    impatient(client)
    world.do("want", addresses=WANTED)
    client.ip(f"neigh replace {address} lladdr {MAC} dev eth0 nud stale")
    until(lambda: resolved(client, address))
    assert world.do("seen")[0][1] >= 1


def test_who_takes_the_address_claims_it_first(world: World) -> None:
    world.do("want", addresses=WANTED)
    client = world.container(5)
    impatient(client)
    until(lambda: resolved(client, DEAD4))
    until(lambda: resolved(client, DEAD6))
    space = world.container(0x77, addresses=False)
    # Duplicate address detection is its first word with IPv6.
    space.sysctl(net__ipv6__conf__eth0__accept_dad=1)
    space.ip(f"addr add {DEAD6}/64 dev eth0")
    until(lambda: DEAD6 in world.claimed)
    until(lambda: "tentative" not in space.sh("ip", "addr", "show", "dev", "eth0"))
    assert "dadfailed" not in space.sh("ip", "addr", "show", "dev", "eth0")
    space.ip(f"addr add {DEAD4}/24 dev eth0")
    assert DEAD4 not in world.claimed
    # With IPv4 it is whatever it asks for.
    knock(space, f"{NET4}.1")
    until(lambda: DEAD4 in world.claimed)
    before = world.do("seen")[0][1]
    client.sh("ip", "neigh", "flush", "all")
    until(lambda: resolved(client, DEAD4))
    assert world.do("seen")[0][1] == before, "answered beside the one that has it"
    world.do("want", addresses=WANTED)
    assert sorted(world.claimed) == sorted([DEAD4, DEAD6])


def test_a_probe_is_a_claim_and_is_not_answered(world: World) -> None:
    world.do("want", addresses={DEAD4: WANTED[DEAD4]})
    space = world.container(5)
    with frames_of(space, 0x0806) as wire:
        until(lambda: resolved(space, DEAD4))
        wire.settimeout(0.5)
        wire.send(arp(1, mac_of(5), "0.0.0.0", DEAD4))
        until(lambda: world.claimed == [DEAD4])
        answers = []
        try:
            while True:
                frame = wire.recv(100)
                if frame[6:12].hex(":") == MAC:
                    answers.append(frame)
        except TimeoutError:
            pass
        # One for the question at the start: the probe has none.
        assert len(answers) == world.do("seen")[0][1]
        assert all(frame[20:22] == b"\0\2" for frame in answers)


def test_answers_are_as_the_rfcs_want_them(world: World) -> None:
    world.do("want", addresses=WANTED)
    space = world.container(5)
    with frames_of(space, 0x0806) as four, frames_of(space, 0x86DD) as six:
        until(lambda: resolved(space, DEAD4))
        until(lambda: resolved(space, DEAD6))
        arped = until(lambda: (f := four.recv(200))[6:12].hex(":") == MAC and f)
        assert heard(arped).claims == (ip_address(DEAD4),)
        advert = until(lambda: (f := six.recv(200))[6:12].hex(":") == MAC and f)
        assert heard(advert).claims == (ip_address(DEAD6),)
        # Solicited, not override, hop limit 255.
        assert advert[21] == 255
        assert advert[54:62] == b"\x88\0" + advert[56:58] + b"\x40\0\0\0"
        assert heard(advert[:56] + b"\xff\xff" + advert[58:]) == NOTHING


def test_what_does_not_concern_it_does_not_wake_it(world: World) -> None:
    world.do("want", addresses=WANTED)
    space = world.container(5)
    with frames_of(space, 0x0806) as wire:
        for n in range(50):
            wire.send(arp(1, mac_of(5), f"{NET4}.5", f"{NET4}.{200 + n}"))
        for _ in range(20):
            knock(space, f"{NET4}.1")
            knock(space, f"{NET6}:1")
        assert world.do("seen")[0] == [0, 0]
        wire.send(arp(1, mac_of(5), f"{NET4}.5", DEAD4))
        until(lambda: world.do("seen")[0] == [1, 1])


def test_a_flood_is_bounded(world: World) -> None:
    world.do("want", addresses=WANTED)
    space = world.container(5)
    start = time.monotonic()
    with frames_of(space, 0x0806) as wire:
        for _ in range(20_000):
            wire.send(arp(1, mac_of(5), f"{NET4}.5", DEAD4))
    frames, answered = world.do("seen")[0]
    assert 0 < answered <= frames <= 500 + 500 * (time.monotonic() - start) + 100
    client = world.container(6)
    until(lambda: resolved(client, DEAD4))


def test_bridges_come_and_go(world: World) -> None:
    world.do("want", addresses=WANTED)
    client = world.container(5)
    impatient(client)
    until(lambda: resolved(client, DEAD4))
    # Down and up: the same socket.
    world.host.ip("link set br0 down")
    client.sh("ip", "neigh", "flush", "all")
    world.host.ip("link set br0 up")
    until(lambda: resolved(client, DEAD4))
    # Another one of the same name.
    world.host.ip("link del br0", "link add br0 type bridge", f"addr add {NET4}.1/24 dev br0")
    world.host.ip("link set br0 up", "link set v5 master br0")
    client.sh("ip", "neigh", "flush", "all")
    until(lambda: resolved(client, DEAD4))


def test_bridges_are_listed_with_their_networks(world: World) -> None:
    world.container(5)
    world.client(1)
    world.host.ip("link add br1 type bridge", f"addr add {NET4}.129/25 dev br1")
    rows, _ = world.do("bridges")
    shown = world.host.sh("ip", "-br", "link", "show", "type", "bridge")
    assert [row[0] for row in rows] == ["br0", "br1"]
    assert all(row[1] in shown for row in rows)
    assert [row[2] for row in rows] == [
        [f"{NET4}.0/24", "2001:db8:9::/64"],
        [f"{NET4}.128/25"],
    ]
