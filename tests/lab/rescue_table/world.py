"""A host with two bridges, what is on them, and a second host: for the packet filter alone.

Rule: all namespaces are made and taken away here; servers and clients are sockets of the test's own
process that were made inside. A server says its own name and the address of its client.

    c  s  t     o            far
     \\ | /     |           (second host, routed: no translation between the two)
    --br0----br1---host----------
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_address, ip_network
from types import MappingProxyType, TracebackType
from typing import Final, Self

import trio

from discod.kernel.commands import run
from discod.model.endpoint import EndpointId, Protocol
from discod.model.rescue import Bridge, Place, Plan, Pool, PoolId, Stale, Usage
from discod.rescue.elements_socket import ElementsSocket
from discod.rescue.table import Table
from tests.lab.netns import Namespace, inside, ip

PORT: Final = 8080
DEAD: Final = {4: "10.101.1.77", 6: "2001:db8:1::77"}
DEAD_MAC: Final = "02:00:00:00:00:77"
VIP: Final = {4: "198.51.100.10", 6: "2001:db8:a::10"}
HOST: Final = {4: "192.0.2.1", 6: "2001:db8:ff::1"}
FAR: Final = {4: "192.0.2.2", 6: "2001:db8:ff::2"}
ON: Final = {
    "c": ("br0", 1, 2), "s": ("br0", 1, 3), "t": ("br0", 1, 4), "o": ("br1", 3, 2),
}  # fmt: skip
"""Namespace -> its bridge, the network's number, and its own in there."""
WAIT: Final = 2.0
"""Seconds for an answer; on an idle machine there is one within a millisecond."""


def at(name: str, version: int) -> str:
    """The address of a namespace."""
    if name == "far":
        return FAR[version]
    _, net, number = ON[name]
    return f"10.101.{net}.{number}" if version == 4 else f"2001:db8:{net}::{number}"


def gateway(bridge: str, version: int) -> str:
    """The host's address on a bridge."""
    net = {"br0": 1, "br1": 3}[bridge]
    return f"10.101.{net}.1" if version == 4 else f"2001:db8:{net}::1"


def place(address: str, port: int = PORT, protocol: Protocol = "tcp") -> Place:
    """Short for a Place."""
    return Place(ip_address(address), port, protocol)


class World:
    """All namespaces, with a `Table` in ``host``."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.spaces = {n: Namespace(f"rt{pid}{n}") for n in ("host", "c", "s", "t", "o", "far")}
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self.table = Table()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:  # cleaned up, then raised on
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def host(self) -> Namespace:
        return self.spaces["host"]

    def _build(self) -> None:
        ip(*(f"netns add {space.name}" for space in self.spaces.values()))
        for space in self.spaces.values():
            space.sysctl(
                net__ipv6__conf__all__disable_ipv6=0,
                net__ipv6__conf__default__disable_ipv6=0,
                net__ipv6__conf__default__accept_dad=0,
            )
            space.ip("link set lo up")
        self.host.sysctl(
            net__ipv4__ip_forward=1,
            net__ipv6__conf__all__forwarding=1,
            # Else the kernel sends a client no more than one "port unreachable" a second.
            net__ipv4__icmp_ratelimit=0,
            net__ipv6__icmp__ratelimit=0,
        )
        for bridge in ("br0", "br1"):
            self.host.ip(
                f"link add {bridge} type bridge forward_delay 0",
                *(
                    f"addr add {gateway(bridge, v)}/{24 if v == 4 else 64} dev {bridge}"
                    + (" nodad" if v == 6 else "")
                    for v in (4, 6)
                ),
                f"link set {bridge} up",
            )
        for name, (bridge, _, _) in ON.items():
            space = self.spaces[name]
            self.host.ip(
                f"link add v{name} type veth peer name eth0 netns {space.name}",
                f"link set v{name} master {bridge} up",
            )
            space.ip(
                f"addr add {at(name, 4)}/24 dev eth0",
                f"addr add {at(name, 6)}/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {gateway(bridge, 4)}",
                f"route add default via {gateway(bridge, 6)}",
            )
        far = self.spaces["far"]
        self.host.ip(
            f"link add eth0 type veth peer name eth0 netns {far.name}",
            f"addr add {HOST[4]}/24 dev eth0",
            f"addr add {HOST[6]}/64 dev eth0 nodad",
            "link set eth0 up",
        )
        far.ip(
            f"addr add {FAR[4]}/24 dev eth0",
            f"addr add {FAR[6]}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add 10.101.0.0/16 via {HOST[4]}",
            f"route add 198.51.100.0/24 via {HOST[4]}",
            f"route add 2001:db8::/32 via {HOST[6]}",
        )
        # What answers for a dead address on a bridge is not the table's; the cache says it here.
        self.spaces["c"].ip(
            *(f"neigh replace {DEAD[v]} lladdr {DEAD_MAC} dev eth0 nud permanent" for v in (4, 6))
        )
        self.table = self.another()

    def another(self) -> Table:
        """A Table as a daemon has it that has just been started."""

        async def execute(argv: Sequence[str], stdin: str) -> str:
            return await run([*self.host.prefix, *argv], stdin)

        return Table(execute, lambda: inside(self.host.path, ElementsSocket))

    def restart(self) -> None:
        """As after ``kill -9`` of a daemon: the tables stay, what it knew is gone."""
        self.table.close()
        self.table = self.another()

    def _remove(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()
        self.table.close()
        for space in self.spaces.values():
            if space.path.exists():
                ip(f"netns del {space.name}")

    @property
    def bridges(self) -> tuple[Bridge, ...]:
        """As the daemon would find them."""
        return tuple(
            Bridge(
                name,
                self._mac(name),
                tuple(
                    (ip_network(f"{gateway(name, v)}/{n}", strict=False).network_address, n)
                    for v, n in ((4, 24), (6, 64))
                ),
            )
            for name in ("br0", "br1")
        )

    def _mac(self, name: str) -> bytes:
        words = self.host.sh("ip", "-o", "link", "show", name).split()
        return bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))

    # Rules

    def apply(self, plan: Plan) -> None:
        """Have the kernel follow."""
        trio.run(self.table.apply, plan)

    def usage(self) -> dict[tuple[str, str, str], int]:
        """Counts by client, address and result."""
        found: tuple[Usage, ...] = trio.run(self.table.usage)
        return {(str(u.client), str(u.place.address), u.result.value): u.times for u in found}

    def ruleset(self) -> str:
        return self.host.sh("nft", "-s", "list", "ruleset")

    # Traffic

    def serve(self, name: str, port: int = PORT, where: Namespace | None = None) -> None:
        """Serve on all addresses of a namespace, both protocols, until the world ends."""
        space = where or self.spaces[name]
        stream = space.socket(socket.AF_INET6, socket.SOCK_STREAM)
        datagram = space.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._sockets += [stream, datagram]
        for one in (stream, datagram):
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("::", port))
            one.setblocking(False)
        stream.listen(200)
        thread = threading.Thread(target=self._serve, args=(name, stream, datagram))
        self._threads.append(thread)
        thread.start()

    def _serve(self, name: str, stream: socket.socket, datagram: socket.socket) -> None:
        open_: list[socket.socket] = []

        def word(peer: str) -> bytes:
            return f"{name} {peer.removeprefix('::ffff:')}".encode()

        while not self._over.is_set():
            ready, _, _ = select.select([stream, datagram, *open_], [], [], 0.1)
            for one in ready:
                try:
                    if one is stream:
                        one, peer = stream.accept()
                        open_.append(one)
                        one.send(word(peer[0]))
                    elif one is datagram:
                        _, peer = datagram.recvfrom(2000)
                        datagram.sendto(word(peer[0]), peer)
                    elif data := one.recv(2000):
                        one.send(data)
                    else:
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    if one in open_:
                        open_.remove(one)
                        one.close()
        for one in open_:
            one.close()

    def connect(self, name: str, address: str, port: int = PORT, of: str = "") -> socket.socket:
        """A connection, from the address `of`; reads and writes end after `WAIT`.

        Raises:
            OSError: refused, or not there within `WAIT`.
        """
        one = self._socket(name, address, socket.SOCK_STREAM)
        try:
            if of:
                one.bind((of, 0))
            one.connect((address, port))
        except BaseException:  # cleaned up, then raised on
            one.close()
            raise
        return one

    def get(
        self, name: str, address: str, port: int = PORT, protocol: Protocol = "tcp", of: str = ""
    ) -> str:
        """Who answers, and whom they take us for: ``s 10.101.1.2``.

        Raises:
            OSError: refused, reset, or no answer within `WAIT`.
        """
        if protocol == "tcp":
            with closing(self.connect(name, address, port, of)) as one:
                return one.recv(100).decode()
        with closing(self._socket(name, address, socket.SOCK_DGRAM)) as one:
            one.connect((address, port))
            one.send(b"?")
            return one.recv(100).decode()

    def _socket(self, name: str, address: str, kind: socket.SocketKind) -> socket.socket:
        version = ip_address(address).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        one = self.spaces[name].socket(family, kind)
        one.settimeout(WAIT)
        return one

    def bridge_nf(self, on: int) -> None:
        """Whether frames on bridges pass iptables, as Docker wants it (br_netfilter)."""
        names = ("iptables", "ip6tables")
        self.host.sysctl(**{f"net__bridge__bridge-nf-call-{name}": on for name in names})

    def nft(self, words: str) -> None:
        """Rules of others, for example Docker's."""
        self.host.sh("nft", "-f", "-", stdin=words)


def pool(
    version: int, protocol: Protocol, *targets: str, port: int = PORT, n: int = 16,
    affinity: bool = False, service: str = "web",
) -> Pool:  # fmt: skip
    """A pool with its slots dealt out in turn; `targets` are addresses."""
    assert version in (4, 6)
    id_ = PoolId(service, "http", protocol, 4 if version == 4 else 6)
    slots = tuple((ip_address(targets[i % len(targets)]), port) for i in range(n if targets else 0))
    return Pool(id_, slots, affinity)


def stale(where: Place, of: Pool, *, cut: bool = True, backend: Place | None = None) -> Stale:
    """A stale place of a pool."""
    return Stale(where, EndpointId("web", "gone"), of.id, cut, "crashed", 1.0, 2.0, backend)


def plan(
    some: Iterable[Stale] = (), pools: Iterable[Pool] = (),
    vips: Mapping[Place, PoolId] = MappingProxyType({}), bridges: tuple[Bridge, ...] = (),
    refuse: bool = True,
) -> Plan:  # fmt: skip
    """A plan of its parts."""
    return Plan(
        MappingProxyType({one.place: one for one in some}),
        vips,
        MappingProxyType({one.id: one for one in pools}),
        bridges,
        refuse,
    )


def eventually(what: Callable[[], bool], within: float = 5.0) -> None:
    """Wait until it is so.

    Raises:
        AssertionError: it is not, within so many seconds.
    """
    end = time.monotonic() + within
    while not what():
        assert time.monotonic() < end, f"not so within {within:g} s"
        time.sleep(0.02)
