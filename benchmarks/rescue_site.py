"""Where `make bench-rescue` takes place: a Docker host, a container on its bridge, machines beyond.

Rule: each is a network namespace of the benchmark's own, which `Site` makes and removes; several
sites of the same addresses stand beside one another, so that what is compared takes turns in
milliseconds and nothing is rebuilt in between. The host has the packet filter rules that Docker
leaves on one, so that connection tracking is at work with and without rescue.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from benchmarks import rescue_plans as plans
from tests.lab.netns import Namespace, inside, ip, remove

NOBODY_MAC = "02:00:00:00:00:99"
"""No interface has it: frames to it are counted where they come in, and dropped at once."""

DOCKER = """
table ip nat {
  chain DOCKER { iifname "br0" return; }
  chain pre { type nat hook prerouting priority -100; fib daddr type local jump DOCKER; }
  chain out {
    type nat hook output priority -100
    ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER
  }
  chain post {
    type nat hook postrouting priority 100
    ip saddr 10.101.0.0/16 oifname != "br0" masquerade
  }
}
table ip filter {
  chain USER { return; }
  chain FORWARD {
    type filter hook forward priority 0; policy drop
    jump USER
    oifname "br0" ct state related,established accept
    iifname "br0" oifname != "br0" accept
    iifname "br0" oifname "br0" accept
  }
}
table ip6 nat {
  chain post { type nat hook postrouting priority 100; }
}
table ip6 filter {
  chain FORWARD {
    type filter hook forward priority 0; policy drop
    oifname "br0" ct state related,established accept
    iifname "br0" accept
  }
}
"""


class Counter:
    """Packets received by one interface; the open file keeps to the namespace it was opened in."""

    def __init__(self, file: TextIO, device: str) -> None:
        self._file, self._device = file, device

    def __call__(self) -> int:
        """How many so far."""
        self._file.seek(0)
        for line in self._file:
            name, _, numbers = line.partition(":")
            if name.strip() == self._device:
                return int(numbers.split()[1])
        raise RuntimeError(f"no interface {self._device}")

    def close(self) -> None:
        """Let go of the file, and with it of the namespace."""
        self._file.close()


class Site:
    """Three namespaces: `client` - bridge of `host` - LAN - `server`. A context that removes them.

    The server also has a port on the bridge, of a container that only counts.
    """

    def __init__(self, name: str) -> None:
        label = f"drb{os.getpid()}-{name}"
        self.client, self.host, self.server = (
            Namespace(f"{label}-{role}") for role in ("c", "h", "s")
        )

    def __enter__(self) -> Site:
        try:
            self._build()
        except BaseException:  # cleaned up, then raised on
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove((self.client, self.host, self.server))

    def _build(self) -> None:
        ip(*(f"netns add {space.name}" for space in (self.client, self.host, self.server)))
        for space in (self.client, self.host, self.server):
            space.ip("link set lo up")
            space.sysctl(
                net__ipv6__conf__all__disable_ipv6=0,
                net__ipv6__conf__default__disable_ipv6=0,
                net__ipv6__conf__default__accept_dad=0,
                net__ipv6__conf__default__accept_ra=0,
                net__ipv4__ip_local_port_range="1024 65535",
                net__core__somaxconn=4096,
            )
        self.host.sysctl(
            net__ipv4__ip_forward=1,
            net__ipv6__conf__all__forwarding=1,
            net__netfilter__nf_conntrack_tcp_be_liberal=1,  # the same packet again and again
            **{f"net__bridge__bridge-nf-call-{which}tables": 1 for which in ("ip", "ip6")},
        )
        self.host.ip(
            f"link add {plans.BRIDGE} address {plans.BRIDGE_MAC} type bridge",
            f"link set {plans.BRIDGE} up",
            f"addr add {plans.GATEWAY[4]}/16 dev {plans.BRIDGE}",
            f"addr add {plans.GATEWAY[6]}/64 dev {plans.BRIDGE} nodad",
            f"link add pc type veth peer name eth0 netns {self.client.name}",
            f"link add ps type veth peer name beside netns {self.server.name}",
            *(f"link set {port} master {plans.BRIDGE} up" for port in ("pc", "ps")),
            f"link add eth0 type veth peer name eth0 netns {self.server.name}",
            "link set eth0 up",
            f"addr add {plans.HOST[4]}/24 dev eth0",
            f"addr add {plans.HOST[6]}/64 dev eth0 nodad",
            *(
                f"neigh add {plans.NOWHERE[version]} lladdr {NOBODY_MAC} dev eth0 nud permanent"
                for version in (4, 6)
            ),
        )
        self.host.sh("bridge", "fdb", "add", NOBODY_MAC, "dev", "ps", "master", "static")
        self.client.ip(
            "link set eth0 up",
            f"addr add {plans.CLIENT[4]}/16 dev eth0",
            f"addr add {plans.CLIENT[6]}/64 dev eth0 nodad",
            *(f"route add default via {plans.GATEWAY[version]}" for version in (4, 6)),
            # What discod's answers to ARP and neighbour solicitations make of it.
            *(
                f"neigh add {plans.DEAD_NEAR[version]} lladdr {plans.DEAD_MAC} dev eth0"
                " nud permanent"
                for version in (4, 6)
            ),
        )
        self.server.ip(
            "link set eth0 up",
            "link set beside up",
            *(f"addr add {address}/24 dev eth0" for address in plans.SERVERS[4]),
            *(f"addr add {address}/64 dev eth0 nodad" for address in plans.SERVERS[6]),
            f"route add {plans.PODS[6]} via {plans.HOST[6]}",
        )
        self.host.sh("nft", "-f", "-", stdin=DOCKER)

    def forget(self) -> None:
        """Empty the host's connection tracking: its size is one for all namespaces."""
        self.host.sh("conntrack", "-F")

    def counter(self, device: str) -> Counter:
        """Of packets that come in on one of the server's interfaces."""
        path = Path("/proc/thread-self/net/dev")
        return Counter(inside(self.server.path, path.open), device)
