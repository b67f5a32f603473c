"""Beside the rules that hosts have: Docker's, ufw's, firewalld's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from discod.model.endpoint import Protocol
from tests.lab.rescue_table.world import (
    DEAD,
    VIP,
    World,
    at,
    place,
    plan,
    pool,
    stale,
)  # fmt: skip

pytestmark = pytest.mark.lab

NETS = {4: {"br0": "10.101.1.0/24", "br1": "10.101.3.0/24"},
        6: {"br0": "2001:db8:1::/64", "br1": "2001:db8:3::/64"}}  # fmt: skip


def docker(version: int) -> str:
    """What Docker 20 to 27 sets for two networks, as iptables-restore reads it."""
    lines = ["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT"]
    lines += [f":{c} -" for c in ("DOCKER", "DOCKER-USER", "DOCKER-ISOLATION-STAGE-1",
                                  "DOCKER-ISOLATION-STAGE-2")]  # fmt: skip
    lines += ["-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"]
    for bridge in ("br0", "br1"):
        lines += [
            f"-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A FORWARD -o {bridge} -j DOCKER",
            f"-A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT",
            f"-A FORWARD -i {bridge} -o {bridge} -j ACCEPT",
            f"-A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2",
            f"-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP",
        ]
    lines += ["-A DOCKER-USER -j RETURN", "COMMIT", "*nat", ":PREROUTING ACCEPT", ":INPUT ACCEPT",
              ":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":DOCKER -",
              "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
              "-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER"]  # fmt: skip
    lines += [f"-A POSTROUTING -s {net} ! -o {bridge} -j MASQUERADE"
              for bridge, net in NETS[version].items()]  # fmt: skip
    return "\n".join([*lines, "COMMIT", ""])


def ufw(version: int) -> str:
    """The gist of ufw when it is on: nothing comes in or is forwarded but what belongs."""
    chains = () if version == 4 else ("INPUT", "FORWARD")
    icmp = "".join(f"-A {chain} -p ipv6-icmp -j ACCEPT\n" for chain in chains)
    return (
        "*filter\n:INPUT DROP\n:FORWARD DROP\n:OUTPUT ACCEPT\n"
        "-A INPUT -i lo -j ACCEPT\n"
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        "-A INPUT -m conntrack --ctstate INVALID -j DROP\n"
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        f"{icmp}"
        # What a host with containers has to have, in ufw's place for it.
        "-A FORWARD -i br0 -j ACCEPT\n"
        "-A FORWARD -i br1 -j ACCEPT\n"
        "COMMIT\n"
    )


FIREWALLD = """
table inet firewalld {
  chain mangle_PREROUTING {
    type filter hook prerouting priority -140; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain filter_INPUT {
    type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    iifname { "br0", "br1" } accept
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT {
    type filter hook output priority 10; policy accept;
    ct state { established, related } accept
    oifname "lo" accept
  }
}
"""


@contextmanager
def rules(world: World, kind: str, version: int) -> Iterator[None]:
    """Somebody else's rules, as long as it lasts."""
    iptables = "iptables-nft" if version == 4 else "ip6tables-nft"
    if kind == "firewalld":
        world.nft(FIREWALLD)
    else:
        words = docker(version) if kind == "docker" else ufw(version)
        world.host.sh(f"{iptables}-restore", stdin=words)
    try:
        yield
    finally:
        world.nft("flush ruleset")
        world.host.sh("conntrack", "-F", check=False)


KINDS = pytest.mark.parametrize("kind", ["docker", "ufw", "firewalld"])
VERSIONS = pytest.mark.parametrize("version", [4, 6])
NF = pytest.mark.parametrize("nf", [0, 1], ids=["bridge-nf-0", "bridge-nf-1"])


@KINDS
@VERSIONS
@NF
def test_beside_the_rules_of_others(world: World, kind: str, version: int, nf: int) -> None:
    world.bridge_nf(nf)
    with rules(world, kind, version):
        others = world.ruleset()
        protocols: tuple[Protocol, ...] = ("tcp", "udp")
        for protocol in protocols:
            works(world, version, protocol)
        trio.run(world.table.remove)
        assert world.ruleset() == others


def works(world: World, version: int, protocol: Protocol) -> None:
    dead = place(DEAD[version], 80, protocol)
    vip = place(VIP[version], 80, protocol)
    for client, target in (("c", "s"), ("c", "far"), ("o", "far"), ("host", "s"), ("host", "far")):
        siblings = pool(version, protocol, at(target, version))
        gone = stale(dead, siblings)
        world.apply(plan([gone], [siblings], {vip: siblings.id}, world.bridges))
        assert world.get(client, DEAD[version], 80, protocol).startswith(f"{target} ")
        if client != "host":
            assert world.get(client, VIP[version], 80, protocol).startswith(f"{target} ")
    nobody = pool(version, protocol)
    world.apply(plan([stale(dead, nobody)], [nobody], bridges=world.bridges))
    for client in ("c", "o", "host"):
        own = client == "host" and protocol == "udp"
        with pytest.raises(PermissionError if own else ConnectionRefusedError):
            world.get(client, DEAD[version], 80, protocol)
    if protocol == "tcp":
        for client in ("c", "host"):
            one = world.connect(client, at("t", version))
            assert one.recv(100)
            siblings = pool(version, protocol, at("s", version))
            gone = stale(place(at("t", version)), siblings)
            world.apply(plan([gone], [siblings], bridges=world.bridges))
            with pytest.raises(ConnectionResetError):  # an acknowledgement may have met it before
                one.send(b"more")
                one.recv(100)
            one.close()
            world.apply(plan(bridges=world.bridges))


@pytest.mark.parametrize(
    ("kind", "passes"), [("docker", False), ("ufw", False), ("firewalld", True)]
)
@VERSIONS
def test_from_outside_the_forward_policy_decides(
    world: World, kind: str, passes: bool, version: int
) -> None:
    """A limit: what others drop cannot be accepted from a table of ours."""
    siblings = pool(version, "tcp", at("s", version))
    gone = stale(place(DEAD[version], 80), siblings)
    with rules(world, kind, version):
        world.apply(plan([gone], [siblings], bridges=world.bridges))
        if passes:
            assert world.get("far", DEAD[version], 80).startswith("s ")
        else:
            with pytest.raises(OSError, match="timed out"):
                world.get("far", DEAD[version], 80)
        trio.run(world.table.remove)
