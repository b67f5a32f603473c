"""Idle clients of a dead place, in the host's namespace and others: destroyed, and no one else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.lab.netns import ip
from tests.lab.rescue_flows.world import NET4, NET6, World, aborted, until, waits

pytestmark = pytest.mark.lab
DEAD = [[f"{NET4}.77", 80, "tcp"], [f"{NET6}:77", 80, "tcp"]]


@pytest.fixture
def world() -> Iterator[World]:
    with World("rs") as made:
        made.start()
        yield made


def test_waiting_clients_everywhere_are_told_and_no_others(world: World) -> None:
    dead, other = world.container(77), world.container(78)
    near, far = world.container(5), world.client(1)
    pids = [world.resident(space) for space in (near, far)]
    for space, ports in ((dead, (80, 81)), (other, (80,))):
        for port in ports:
            world.listen(space, port)
    places = (f"{NET4}.77", f"::ffff:{NET4}.77", f"{NET6}:77")
    hit = [
        world.connect(space, address, 80) for space in (near, far, world.host) for address in places
    ]
    spared = [
        world.connect(space, address, port)
        for space in (near, far, world.host)
        for address, port in ((f"{NET4}.77", 81), (f"{NET4}.78", 80), (f"{NET6}:78", 80))
    ]
    world.die(77)
    assert all(map(waits, hit))
    # Without the pids only the host's own; that is the control for what follows.
    flows, _ = world.do("cut", places=DEAD)
    assert len(flows) == 3
    assert [aborted(one) for one in hit] == [False] * 6 + [True] * 3
    flows, _ = world.do("cut", places=DEAD, pids=[*pids, *pids, 2**22])
    assert len(flows) == 6
    assert all(map(aborted, hit[:6]))
    assert [row[2:] for row in flows].count([f"{NET4}.77", 80, "tcp"]) == 4
    assert all(map(waits, spared))
    assert world.do("cut", places=DEAD, pids=pids)[0] == []


def test_who_is_excepted_is_spared(world: World) -> None:
    world.listen(world.container(77), 80)
    one, two = (world.connect(world.host, f"{NET4}.77", 80) for _ in range(2))
    row = [*one.getsockname()[:2], f"{NET4}.77", 80, "tcp"]
    assert len(world.do("cut", places=DEAD, **{"except": [row]})[0]) == 1
    assert waits(one)
    assert aborted(two)


def test_a_complete_answer_is_still_read(world: World) -> None:
    server = world.listen(world.container(77), 80)
    client = world.connect(world.host, f"{NET4}.77", 80)
    accepted, _ = server.accept()
    accepted.sendall(b"all of it")
    accepted.close()
    until(lambda: len(client.recv(100, socket.MSG_PEEK)) == 9)
    time.sleep(0.05)
    world.die(77)
    assert world.do("cut", places=DEAD)[0] == []
    assert client.recv(100) == b"all of it"
    assert client.recv(100) == b""


def test_a_connection_that_is_being_opened_fails_at_once(world: World) -> None:
    world.host.ip(f"neigh replace {NET4}.77 lladdr 02:00:00:00:00:99 dev br0 nud permanent")
    world.container(5)
    client = world.keep(world.host.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.setblocking(False)
    client.connect_ex((f"{NET4}.77", 80))
    assert len(world.do("cut", places=DEAD)[0]) == 1
    with pytest.raises(ConnectionAbortedError):
        client.recv(1)


def test_a_listener_with_the_ports_of_a_flow_is_left_alone(world: World) -> None:
    world.listen(world.container(77), 80)
    mine = world.listen(world.host, 4000)
    row = [f"{NET4}.1", 4000, f"{NET4}.77", 80, "tcp"]
    assert world.do("cut", places=[], exact=[row])[0] == []
    world.connect(world.container(5), f"{NET4}.1", 4000)
    mine.accept()[0].close()


def nat(world: World, *lines: str) -> None:
    table = "table inet lab_nat {\n chain pre { type nat hook prerouting priority -110;\n"
    world.host.sh(
        "nft", "-f", "-",
        stdin="add table inet lab_nat\ndelete table inet lab_nat\n"
        + table + "\n".join(lines) + "\n}\n}\n",
    )  # fmt: skip


def test_what_was_sent_to_a_living_sibling_is_spared_until_that_dies(world: World) -> None:
    world.listen(world.container(77), 80)
    sibling = world.listen(world.container(78), 80)
    client = world.client(1)
    pids = [world.resident(client)]
    nat(world)
    old = [world.connect(client, f"{NET4}.77", 80), world.connect(client, f"{NET6}:77", 80)]
    world.die(77)
    nat(
        world,
        f"ip daddr {NET4}.77 tcp dport 80 dnat ip to {NET4}.78:80",
        f"ip6 daddr {NET6}:77 tcp dport 80 dnat ip6 to [{NET6}:78]:80",
    )
    new = [
        world.connect(client, f"{NET4}.77", 80),
        world.connect(client, f"::ffff:{NET4}.77", 80),
        world.connect(client, f"{NET6}:77", 80),
    ]
    accepted = [sibling.accept()[0] for _ in new]
    flows, _ = world.do("cut", places=DEAD, pids=pids)
    assert len(flows) == 2
    assert all(map(aborted, old))
    for one in (*new, *accepted):
        assert waits(one)
    for one in new:
        one.sendall(b"x")
    assert [one.recv(1) for one in accepted] == [b"x"] * 3
    world.die(78)
    gone = [[f"{NET4}.78", 80, "tcp"], [f"{NET6}:78", 80, "tcp"]]
    (deleted, ended), _ = world.do("end", places=gone)
    assert deleted == 0
    assert len(ended) == 3
    assert {row[2] for row in ended} == {f"{NET4}.77", f"{NET6}:77"}
    # By the place alone they are not found: their clients believe to talk to the first.
    assert world.do("cut", places=gone, pids=pids)[0] == []
    assert world.do("cut", places=gone, exact=ended, pids=pids)[0] == ended
    assert all(map(aborted, new))
    for one in accepted:
        one.close()


def test_one_hundred_namespaces(world: World) -> None:
    """Half of them have a client of the dead place, all have others."""
    dead = world.container(200)
    server = world.listen(dead, 80)
    server.settimeout(None)
    spaces = [world.container(n) for n in range(2, 102)]
    pids = [world.resident(space) for space in spaces]
    other = world.listen(world.container(201), 80)
    hit = [world.connect(space, f"{NET4}.200", 80) for space in spaces[::2]]
    spared = [world.connect(space, f"{NET4}.201", 80) for space in spaces]
    world.die(200)
    flows, ms = world.do("cut", places=[[f"{NET4}.200", 80, "tcp"]], pids=pids)
    assert len(flows) == 50
    assert all(map(aborted, hit))
    assert all(map(waits, spared))
    empty = sorted(
        world.do("cut", places=[[f"{NET4}.200", 80, "tcp"]], pids=pids)[1] for _ in range(5)
    )
    print(f"100 namespaces: {ms:.1f} ms with 50 sockets to destroy, {empty[2]:.1f} ms with none")
    # Some 20 ms of both cores of a small machine, if it has nothing else to do.
    assert min(ms, *empty) < 250
    other.close()


def test_each_namespace_is_entered_once_and_none_is_held(world: World) -> None:
    space = world.container(5)
    pids = [world.resident(space), world.resident(space), world.resident(world.host), 2**22]
    (unmoved, own, visited), _ = world.do("where", pids=pids)
    assert unmoved
    assert own
    assert visited == 2
    # A namespace without file or process goes at once, and its end of the cable with it.
    for process in world._processes[1:3]:
        process.kill()
        process.wait()
    ip(f"netns del {space.name}")
    until(lambda: "v5" not in world.host.sh("ip", "link"))
