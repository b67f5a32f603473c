"""Entries of connection tracking that die with a place, or stand in the way of its next user."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator

import pytest

from discod.kernel.attributes import NESTED, attribute
from tests.lab.netns import inside
from tests.lab.rescue_flows.world import NET4, NET6, World, until

pytestmark = pytest.mark.lab


@pytest.fixture
def world() -> Iterator[World]:
    with World("rk") as made:
        made.start()
        nat(made)
        yield made


def nat(world: World, *lines: str) -> None:
    rules = "\n".join(lines)
    world.host.sh(
        "nft", "-f", "-",
        stdin="add table inet lab_nat\ndelete table inet lab_nat\ntable inet lab_nat {\n"
        "chain on { type filter hook forward priority 0; ct state new counter; }\n"
        f"chain pre {{ type nat hook prerouting priority -110;\n{rules}\n}}\n}}\n",
    )  # fmt: skip


def tracked(world: World, protocol: str, asked: str = "") -> set[tuple[str, str]]:
    """(asked, answers) of the entries."""
    found = set()
    for family in ("ipv4", "ipv6"):
        out = world.host.sh("conntrack", "-L", "-f", family, "-p", protocol)
        for line in out.splitlines():
            ends = re.findall(r"src=(\S+) dst=(\S+)", line)
            if len(ends) == 2 and ends[0][1].startswith(asked):
                found.add((ends[0][1], ends[1][0]))
    return found


def test_datagrams_go_elsewhere_at_once_and_back_when_the_place_is_used_again(
    world: World,
) -> None:
    client = world.client(1)
    for n in (77, 78, 79):
        world.container(n)
    for family, address in ((socket.AF_INET, f"{NET4}."), (socket.AF_INET6, f"{NET6}:")):
        one = world.datagrams(client, family)
        for n in (77, 79):
            one.sendto(b"x", (f"{address}{n}", 53))
    before = {(f"{NET4}.77",) * 2, (f"{NET6}:77",) * 2, (f"{NET4}.79",) * 2, (f"{NET6}:79",) * 2}
    until(lambda: tracked(world, "udp") == before)
    dead = [[f"{NET4}.77", 53, "udp"], [f"{NET6}:77", 53, "udp"]]
    # The same port of TCP, another port, and a stranger: nothing.
    none = [[f"{NET4}.77", 53, "tcp"], [f"{NET6}:77", 54, "udp"], [f"{NET4}.76", 53, "udp"]]
    assert world.do("end", places=none)[0] == [0, []]
    assert tracked(world, "udp") == before
    assert world.do("end", places=dead)[0] == [2, []]
    assert tracked(world, "udp") == {pair for pair in before if "79" in pair[0]}
    nat(
        world,
        f"ip daddr {NET4}.77 udp dport 53 dnat ip to {NET4}.78:53",
        f"ip6 daddr {NET6}:77 udp dport 53 dnat ip6 to [{NET6}:78]:53",
    )
    four, six = world.datagrams(client), world.datagrams(client, socket.AF_INET6)
    four.sendto(b"x", (f"{NET4}.77", 53))
    six.sendto(b"x", (f"{NET6}:77", 53))
    moved = {(f"{NET4}.77", f"{NET4}.78"), (f"{NET6}:77", f"{NET6}:78")}
    until(lambda: moved <= tracked(world, "udp"))
    # Without the rule they still go to the sibling: that is why they have to be forgotten.
    nat(world)
    four.sendto(b"x", (f"{NET4}.77", 53))
    assert moved <= tracked(world, "udp")
    direct = world.datagrams(client)
    direct.sendto(b"x", (f"{NET4}.77", 53))
    until(lambda: (f"{NET4}.77", f"{NET4}.77") in tracked(world, "udp"))
    assert world.do("forget", places=none)[0] == 0
    assert world.do("forget", places=dead)[0] == 2
    left = tracked(world, "udp")
    assert not left & moved
    assert (f"{NET4}.77", f"{NET4}.77") in left
    four.sendto(b"x", (f"{NET4}.77", 53))
    assert not tracked(world, "udp") & moved


def test_an_answer_that_came_too_late_holds_nobody(world: World) -> None:
    """It makes an entry by which the client's datagrams are replies, which nothing translates."""
    places = [(f"{NET4}.77", socket.AF_INET), (f"{NET6}:77", socket.AF_INET6)]
    client = world.client(1)
    dead = [[address, 53, "udp"] for address, _ in places]
    container = world.container(77)
    for address, family in places:
        server = world.datagrams(container, family)
        server.bind((address, 53))
        own = world.datagrams(client, family)
        own.sendto(b"x", (address, 53))
        _, where = server.recvfrom(9)
        assert world.do("end", places=[[address, 53, "udp"]])[0] == [1, []]
        server.sendto(b"late", where)
        assert own.recv(9) == b"late"
    assert world.do("end", places=dead)[0] == [0, []]  # it is not they who answer
    assert world.do("late", places=[[address, 54, "udp"] for address, _ in places])[0] == 0
    assert world.do("late", places=dead)[0] == 2


def test_a_syn_on_its_way_is_looked_at_anew(world: World) -> None:
    """Its client's next try, a second later, is translated."""
    client = world.client(1)
    world.host.ip(f"neigh replace {NET4}.77 lladdr 02:00:00:00:00:99 dev br0 nud permanent")
    sibling = world.listen(world.container(78), 80)
    one = world.keep(client.socket(socket.AF_INET, socket.SOCK_STREAM))
    one.setblocking(False)
    one.connect_ex((f"{NET4}.77", 80))
    until(lambda: tracked(world, "tcp"))
    nat(world, f"ip daddr {NET4}.77 tcp dport 80 dnat ip to {NET4}.78:80")
    assert world.do("end", places=[[f"{NET4}.77", 80, "tcp"]])[0] == [1, []]
    accepted, _ = sibling.accept()
    accepted.close()


def test_tcp_is_named_and_kept(world: World) -> None:
    client, far = world.client(1), world.client(2)
    dead = world.container(77)
    for port in (80, 81):
        world.listen(dead, port)
    names = []
    for space, address in ((client, f"{NET4}.77"), (far, f"{NET6}:77"), (far, f"{NET4}.77")):
        one = world.connect(space, address, 80)
        names.append([*one.getsockname()[:2], address, 80, "tcp"])
        world.connect(space, address, 81)
    before = tracked(world, "tcp")
    places = [[f"{NET4}.77", 80, "tcp"], [f"{NET6}:77", 80, "tcp"]]
    assert world.do("end", places=places)[0] == [0, sorted(names)]
    assert tracked(world, "tcp") == before
    # Many places are one look at everything, with the same result.
    many = [[f"{NET4}.{n}", port, "tcp"] for n in range(100, 130) for port in range(90, 120)]
    many += [[f"{NET6}:{n}", 1000 + n, "udp"] for n in range(100, 130)]
    assert world.do("end", places=places + many)[0] == [0, sorted(names)]


def fill(world: World, count: int) -> None:
    """Entries of 10.1/16 and 10.2/16, half of UDP, a thousand for each place."""

    def ends(kind: int, a: bytes, b: bytes, protocol: int, p: int, q: int) -> bytes:
        return attribute(
            kind | NESTED,
            attribute(1 | NESTED, attribute(1, a) + attribute(2, b))
            + attribute(
                2 | NESTED,
                attribute(1, bytes([protocol]))
                + attribute(2, struct.pack(">H", p))
                + attribute(3, struct.pack(">H", q)),
            ),
        )

    def make() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
            for start in range(0, count, 200):
                data = b""
                for i in range(start, start + 200):
                    client = socket.inet_aton(f"10.1.{i >> 8 & 255}.{i & 255}")
                    server = socket.inet_aton(f"10.2.0.{i // 1000}")
                    protocol, port = (17, 53) if i & 1 else (6, 80)
                    what = struct.pack("=BBH", 2, 0, 0)
                    what += ends(1, client, server, protocol, 1024 + i, port)
                    what += ends(2, server, client, protocol, port, 1024 + i)
                    what += attribute(3, struct.pack(">I", 0xE))
                    what += attribute(7, struct.pack(">I", 600))
                    if protocol == 6:
                        what += attribute(4 | NESTED, attribute(1 | NESTED, attribute(1, b"\3")))
                    data += struct.pack("=IHHII", 16 + len(what), 0x100, 0x601, i, 0) + what
                kernel.send(data)

    inside(world.host.path, make)


def test_fifty_thousand_entries(world: World) -> None:
    fill(world, 50_000)
    assert int(world.host.sh("conntrack", "-C")) >= 50_000
    places = [["10.2.0.7", 80, "tcp"], ["10.2.0.7", 53, "udp"]]
    nobody = [["10.2.0.99", 80, "tcp"]]
    many = [[f"10.2.1.{n}", 1000 + n, "tcp"] for n in range(100)]
    one = min(world.do("end", places=nobody)[1] for _ in range(3))
    (deleted, flows), both = world.do("end", places=places)
    assert (deleted, len(flows)) == (500, 500)
    (none, unheard), hundred = world.do("end", places=many)
    assert (none, unheard) == (0, [])
    deleted, forgot = world.do("forget", places=[["10.2.0.8", 53, "udp"]])
    assert deleted == 0
    print(
        f"50,000 entries: a place {one:.0f} ms, with 500 to delete and 500 to name {both:.0f} ms, "
        f"100 places {hundred:.0f} ms, forget {forgot:.0f} ms"
    )
    assert one < 500
    assert hundred < 3000
