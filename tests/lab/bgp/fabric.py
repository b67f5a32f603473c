"""A switch with hosts and a top-of-rack router on it, for BGP: both families, no routes.

Rule: a Fabric is a context manager, synchronous, and after it nothing of it is left. Its names and
folder are those of a lab (`tests.lab.sweep`), so what a killed run leaves behind is removed by the
next one. What starts a process gives it to `Fabric.use`.
"""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.lab import netns, sweep
from tests.lab.netns import Namespace
from tests.lab.rig import Lab

T = TypeVar("T")

LAN4, LAN6 = "192.0.2", "2001:db8"
TOR = 254
"""The number of the top-of-rack router."""
LETTERS = "nopqrstuvwxyz"
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Site:
    """One machine on the switch; `n` is in its addresses."""

    space: Namespace
    switch: Namespace
    n: int
    folder: Path
    """For files of whatever runs there; its path is short enough for Unix sockets."""

    @property
    def ipv4(self) -> str:
        """Its address."""
        return f"{LAN4}.{self.n}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address."""
        return f"{LAN6}::{self.n:x}"

    @property
    def router_id(self) -> str:
        """As a BGP identifier."""
        return self.ipv4

    @property
    def port(self) -> str:
        """The switch's end of the cable."""
        return f"port{self.n}"

    def build(self) -> None:
        """Its folder, its cable to the switch, and both addresses; the namespace is there."""
        self.folder.mkdir(mode=0o755)
        # Namespaces start with what the machine has, which may be IPv6 off.
        self.space.sysctl(
            net__ipv6__conf__all__disable_ipv6=0,
            net__ipv6__conf__default__disable_ipv6=0,
            net__ipv6__conf__default__accept_dad=0,
            net__ipv6__conf__all__forwarding=1,
            net__ipv4__ip_forward=1,
        )
        self.switch.ip(
            f"link add {self.port} type veth peer name eth0 netns {self.space.name}",
            f"link set {self.port} master lan",
            f"link set {self.port} up",
        )
        self.space.ip(
            "link set lo up",
            f"addr add {self.ipv4}/24 dev eth0",
            f"addr add {self.ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
        )

    def cut(self) -> None:
        """The cable carries nothing any more, and neither end is told."""
        self.switch.ip(f"link set {self.port} nomaster")

    def mend(self) -> None:
        """Take `cut` back."""
        self.switch.ip(f"link set {self.port} master lan")

    def kernel(self, family: int = 4, protocol: str = "") -> int:
        """How many routes the kernel has, of one routing protocol."""
        by = ("proto", protocol) if protocol else ()
        return self.space.sh("ip", f"-{family}", "route", "show", *by).count("\n")

    def has(self, prefix: str) -> bool:
        """Whether the kernel has a route to exactly this prefix."""
        family = "-6" if ":" in prefix else "-4"
        return bool(self.space.sh("ip", family, "route", "show", "exact", prefix).strip())


class Fabric:
    """`hosts` are numbered from 1; `tor` is one more machine, called 254.

    Args:
        hosts: How many besides it.
    """

    def __init__(self, hosts: int = 2) -> None:
        self.name = f"{sweep.PREFIX}{os.getpid()}{LETTERS[next(_serial) % len(LETTERS)]}"
        # The session's check that no lab leaves anything behind asks for these.
        Lab.built.append(self.name)
        self.root = sweep.root(self.name)
        self.switch = Namespace(f"{self.name}-sw")
        numbers = [*range(1, hosts + 1), TOR]
        sites = [
            Site(Namespace(f"{self.name}-h{n}"), self.switch, n, self.root / f"h{n}")
            for n in numbers
        ]
        self.hosts, self.tor = sites[:-1], sites[-1]
        self._stack = ExitStack()
        self._used: list[object] = []

    def __enter__(self) -> Fabric:
        for name in sweep.abandoned():
            sweep.remove(name)
        self._stack.callback(sweep.remove, self.name)
        try:
            self._build()
        except BaseException:  # cleaned up, then raised on
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for one in self._used:
                print(f"--- {one}\n{getattr(one, 'log', '')[-4000:]}")
        self._stack.close()

    def use(self, one: AbstractContextManager[T]) -> T:
        """Start something that ends before the fabric does; its log is shown on a failure."""
        entered = self._stack.enter_context(one)
        self._used.append(entered)
        return entered

    def _build(self) -> None:
        self.root.mkdir(mode=0o755)  # FRR runs as a user of its own
        sites = [*self.hosts, self.tor]
        netns.ip(
            f"netns add {self.switch.name}", *(f"netns add {site.space.name}" for site in sites)
        )
        self.switch.ip("link add lan type bridge", "link set lan up", "link set lo up")
        for site in sites:
            site.build()


def absent(*programs: str) -> str:
    """Which of these programs are not there, in words; empty: all are."""
    lacking = [name for name in programs if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)}" if lacking else ""
