"""Network namespaces: hosts on a LAN, all on one machine.

Rule: everything that changes interfaces, addresses and routes of the lab is here, by the `ip` of
iproute2; whoever wants to act inside a namespace gets a command prefix, or a socket that was made
there. A namespace is entered with `nsenter --net=FILE`, never with `ip netns exec`: the latter
remounts /sys, and dockerd then finds no devices cgroup.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/var/run/netns")
COMMAND_TIMEOUT = 20.0
"""Seconds for one short administrative command."""

_libc = ctypes.CDLL(None, use_errno=True)


class CommandFailed(Exception):
    """A command of the lab's own ended with a status other than 0; the text has its output."""


def sh(*argv: str, check: bool = True, stdin: str = "", timeout: float = COMMAND_TIMEOUT) -> str:
    """Run one command and return its standard output.

    Raises:
        CommandFailed: it failed, and `check` is set.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def ip(*lines: str) -> None:
    """Run several `ip` commands in one process, in order; the first failure ends it.

    Raises:
        CommandFailed: one of them failed.
    """
    sh("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return NETNS_DIR / self.name

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs inside."""
        return ("nsenter", f"--net={self.path}")

    def sh(self, *argv: str, check: bool = True, stdin: str = "", timeout: float = 20.0) -> str:
        """`sh` inside."""
        return sh(*self.prefix, *argv, check=check, stdin=stdin, timeout=timeout)

    def ip(self, *lines: str) -> None:
        """Several `ip` commands inside."""
        sh("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, **values: int | str) -> None:
        """Set sysctls inside; ``__`` in a name stands for a slash."""
        script = "".join(
            f"echo {value} > /proc/sys/{name.replace('__', '/')}\n"
            for name, value in values.items()
        )
        self.sh("sh", "-e", stdin=script)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket that lives inside; any thread can use it."""
        return inside(self.path, lambda: socket.socket(family, kind))

    def pids(self) -> list[int]:
        """Processes inside."""
        out = sh("ip", "netns", "pids", self.name, check=False)
        return [int(word) for word in out.split()]


def inside(path: Path | str, act: Callable[[], T]) -> T:
    """Run `act` in a thread that has entered the network namespace `path`, and return its result.

    The thread ends with it, so no other code ever runs in the wrong namespace.
    """
    result: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), str(path))
            finally:
                os.close(fd)
            result.append(act())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


LAN4 = "192.0.2"
LAN6 = "2001:db8"
POD4 = "10.101"
DROPS = "lab-drops"
"""The table of packet filter rules that `Leg.drop` makes."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One host's place on the LAN, and the prefix of its containers. `n` counts from 1."""

    space: Namespace
    lan: Namespace
    n: int

    @property
    def ipv4(self) -> str:
        """Its address."""
        return f"{LAN4}.{self.n}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address."""
        return f"{LAN6}::{self.n}"

    @property
    def bip(self) -> str:
        """dockerd's ``--bip``."""
        return f"{POD4}.{self.n}.1/24"

    @property
    def pods4(self) -> str:
        """Containers' prefix."""
        return f"{POD4}.{self.n}.0/24"

    @property
    def pods6(self) -> str:
        """Containers' IPv6 prefix (dockerd's ``--fixed-cidr-v6``)."""
        return f"{LAN6}:{self.n}::/64"

    @property
    def port(self) -> str:
        """The LAN's end of the cable."""
        return f"leg{self.n}"

    def cut(self) -> None:
        """Partition: the cable carries nothing any more, and neither end is told."""
        self.lan.ip(f"link set {self.port} nomaster")

    def mend(self) -> None:
        """Take `cut` back."""
        self.lan.ip(f"link set {self.port} master lan")

    def drop(
        self,
        *,
        heard: bool = True,
        sent: bool = True,
        peer: Leg | None = None,
        ports: Sequence[int] = (),
        percent: int = 100,
    ) -> None:
        """Lose packets that cross the cable, silently; adds to what is dropped already.

        Args:
            heard: What comes in.
            sent: What goes out.
            peer: To and from this host alone; else to and from all.
            ports: Of TCP, at either end; empty: everything.
            percent: How many of them, at random.
        """
        rules = [f"add table inet {DROPS}"]
        for on, chain, hook, device, side in (
            (heard, "heard", "prerouting", "iifname", "saddr"),
            (sent, "sent", "postrouting", "oifname", "daddr"),
        ):
            if not on:
                continue
            # Before connection tracking's NAT on the way in, after it on the way out.
            priority = -300 if chain == "heard" else 300
            rules.append(
                f"add chain inet {DROPS} {chain} "
                f"{{ type filter hook {hook} priority {priority}; policy accept; }}"
            )
            whom = [f'{device} "eth0"']
            if percent < 100:
                whom.append(f"numgen random mod 100 < {percent}")
            hosts = [f"ip {side} {peer.ipv4}", f"ip6 {side} {peer.ipv6}"] if peer else [""]
            which = [""]
            if ports:
                listed = ", ".join(map(str, ports))
                which = [f"tcp {end} {{ {listed} }}" for end in ("sport", "dport")]
            rules += [
                f"add rule inet {DROPS} {chain} {' '.join([*whom, host, port])} drop"
                for host in hosts
                for port in which
            ]
        self.space.sh("nft", "-f", "-", stdin="\n".join(rules) + "\n")

    def pass_all(self) -> None:
        """Take every `drop` back; none is no fault."""
        self.space.sh(
            "nft", "-f", "-", stdin=f"add table inet {DROPS}\ndelete table inet {DROPS}\n"
        )


def build_lan(name: str, hosts: int) -> tuple[Namespace, list[Leg]]:
    """A bridge in a namespace of its own, and `hosts` namespaces on it, with all static routes.

    Containers of every host are reachable from every other host by their own addresses as far as
    routes go; the filter rules are up to `forwarding`.
    """
    lan = Namespace(f"{name}-lan")
    legs = [Leg(Namespace(f"{name}-h{n}"), lan, n) for n in range(1, hosts + 1)]
    ip(f"netns add {lan.name}", *(f"netns add {leg.space.name}" for leg in legs))
    lan.ip("link add lan type bridge", "link set lan up", "link set lo up")
    for leg in legs:
        # Namespaces start with what the machine has, which may be IPv6 off.
        leg.space.sysctl(
            net__ipv6__conf__all__disable_ipv6=0,
            net__ipv6__conf__default__disable_ipv6=0,
            net__ipv6__conf__default__accept_dad=0,
            net__ipv6__conf__all__forwarding=1,
            net__ipv4__ip_forward=1,
        )
        lan.ip(
            f"link add {leg.port} type veth peer name eth0 netns {leg.space.name}",
            f"link set {leg.port} master lan",
            f"link set {leg.port} up",
        )
        leg.space.ip(
            "link set lo up",
            f"addr add {leg.ipv4}/24 dev eth0",
            f"addr add {leg.ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
            *(f"route add {other.pods4} via {other.ipv4}" for other in legs if other != leg),
            *(f"route add {other.pods6} via {other.ipv6}" for other in legs if other != leg),
        )
    return lan, legs


def forwarding(leg: Leg) -> None:
    """Let the other hosts' traffic reach containers here, with source addresses kept.

    dockerd masquerades what leaves its bridge and, on hosts where forwarding was off before it
    started, drops what comes in; its DOCKER-USER chain is the place to except the LAN.
    """
    for table, pods, lan in (
        ("iptables", "10.101.0.0/16", "192.0.2.0/24"),
        ("ip6tables", "2001:db8::/32", "2001:db8::/64"),
    ):
        leg.space.sh(table, "-w", "-P", "FORWARD", "ACCEPT")
        for other in dict.fromkeys((pods, lan)):
            leg.space.sh(
                table, "-w", "-t", "nat", "-I", "POSTROUTING", "-d", other, "-o", "eth0",
                "-j", "ACCEPT", check=False,
            )  # fmt: skip


def remove(spaces: Sequence[Namespace]) -> None:
    """Delete namespaces that exist; no fault when they do not."""
    for space in spaces:
        if space.path.exists():
            sh("ip", "netns", "del", space.name, check=False)


def existing(prefix: str) -> list[Namespace]:
    """Namespaces whose name starts with `prefix`."""
    if not NETNS_DIR.is_dir():
        return []
    return [Namespace(p.name) for p in sorted(NETNS_DIR.iterdir()) if p.name.startswith(prefix)]
