"""What all real BGP speakers of the lab have in common.

Rule: a speaker is told what to do by its own configuration and its own command line tool, and is
asked by the same; what it answers is brought into one form (`Seen`), so that tests compare values.
It runs in the foreground as one or a few processes that are ended by id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.bgp.fabric import Site
from tests.lab.daemon import until
from tests.lab.netns import CommandFailed

START = 15.0
"""Seconds until a speaker answers its tool."""
COMMAND = 60.0
"""Seconds for one command of the tool."""


@dataclass(frozen=True)
class Neighbor:
    """A peer as a speaker has it configured."""

    address: str
    asn: int
    families: tuple[int, ...] = (4, 6)
    password: str = ""
    passive: bool = False
    hold_time: int = 9
    graceful_restart: bool = True
    restart_time: int = 60
    bfd: bool = False
    wide: bool = True
    """It may speak of 4-octet AS numbers; else the speaker is an old one."""
    max_prefixes: int = 0
    capabilities: bool = True
    """It knows RFC 5492."""

    @property
    def name(self) -> str:
        """An identifier."""
        return "p" + "".join(c if c.isalnum() else "_" for c in self.address)

    @property
    def version(self) -> int:
        """4 or 6: of the session itself."""
        return ip_address(self.address).version


@dataclass(frozen=True)
class Told:
    """What a route says of itself, apart from its next hop."""

    path: tuple[int, ...] = ()
    """Behind the speaker's own number, which it puts in front for an external peer."""
    med: int | None = None
    communities: frozenset[str] = frozenset()
    """``65000:1``."""
    large: frozenset[str] = frozenset()
    """``65000:1:2``."""


PLAIN = Told()


@dataclass(frozen=True)
class Seen(Told):
    """A route as a speaker has it from a peer."""

    next_hop: str = ""
    local_pref: int | None = None


Routes = Mapping[str, Told]


class Router(ABC):
    """One speaker in the namespace of `site`; a context manager.

    Args:
        asn: Its AS number.
        neighbors: Its peers.
        routes: What it announces from the beginning.
        install: It puts what it learns into its kernel.
        transit: It tells its peers what it learned of others (BIRD; the others always do).
    """

    program: str
    """For people."""
    plain_exit = signal.SIGTERM

    def __init__(
        self,
        site: Site,
        asn: int,
        neighbors: Sequence[Neighbor],
        routes: Routes | None = None,
        *,
        install: bool = False,
        transit: bool = False,
    ) -> None:
        self.transit = transit
        self.site, self.asn, self.neighbors, self.install = site, asn, tuple(neighbors), install
        self.announced: dict[str, Told] = dict(routes or {})
        self.processes: list[subprocess.Popen[bytes]] = []
        self.again = False
        """The next start is a restart: peers may still have its routes (RFC 4724)."""
        self.folder = site.folder / self.program
        self.folder.mkdir(exist_ok=True)
        self._log = self.folder / "out.log"

    def __str__(self) -> str:
        return f"{self.program} on {self.site.space.name}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # cleaned up, then raised on
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # To be made of each -------------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers its tool."""

    @abstractmethod
    def session(self, peer: str) -> str:
        """The state of the session with the peer of this address, as RFC 4271 calls it."""

    @abstractmethod
    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """What it has from a peer and uses, by prefix."""

    @abstractmethod
    def count(self, peer: str, version: int = 4) -> int:
        """How many it has from a peer; cheaper than `routes`."""

    @abstractmethod
    def _apply(self, added: Routes, removed: Routes) -> None:
        """Announce and withdraw."""

    # The same of all ----------------------------------------------------------------------------

    def announce(self, routes: Routes | Sequence[str]) -> None:
        """Announce more routes; a sequence of prefixes says nothing of them."""
        added = dict(routes) if isinstance(routes, Mapping) else dict.fromkeys(routes, PLAIN)
        self.announced |= added
        self._apply(added, {})

    def withdraw(self, prefixes: Sequence[str]) -> None:
        """Announce these no more."""
        self._apply({}, {prefix: self.announced.pop(prefix) for prefix in prefixes})

    def neighbor(self, peer: str) -> Neighbor:
        """The configuration of a peer."""
        return next(one for one in self.neighbors if one.address == peer)

    def established(self, *peers: str, deadline: float = 20.0) -> None:
        """Wait for the sessions with these peers, or with all."""
        for peer in peers or [one.address for one in self.neighbors]:
            until(
                lambda peer=peer: self.session(peer) == "Established",  # type: ignore[misc]
                deadline=deadline,
                step=0.05,
                what=f"session of {self} with {peer}",
            )

    def counts(self, peer: str, number: int, version: int = 4, deadline: float = 20.0) -> None:
        """Wait until it has so many routes from a peer."""
        until(
            lambda: self.count(peer, version) == number,
            deadline=deadline,
            step=0.05,
            what=f"{number} IPv{version} routes of {peer} in {self}",
        )

    @property
    def pid(self) -> int:
        """Of the process that speaks BGP."""
        return self.processes[-1].pid

    @property
    def rss(self) -> float:
        """Resident octets of all its processes, in MB (10^6)."""
        return sum(rss(one.pid) for one in self.processes)

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def run(self, *argv: str) -> None:
        """Start one of its processes."""
        with self._log.open("ab") as out:
            process = subprocess.Popen(
                [*self.site.space.prefix, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.processes.append(process)

    def tool(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """The output of a command inside its namespace."""
        return self.site.space.sh(*argv, check=check, stdin=stdin, timeout=COMMAND)

    def freeze(self) -> None:
        """It does nothing any more, but its kernel still does (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Take `freeze` back."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does."""
        self.again = bool(self.processes)
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End it as an operator does; by force when it takes too long."""
        self._signal(signal.SIGCONT)
        self._signal(self.plain_exit)
        self._wait()

    def _signal(self, number: int) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(number)

    def _wait(self, seconds: float = 8.0) -> None:
        end = time.monotonic() + seconds
        for process in self.processes:
            try:
                process.wait(max(end - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.processes.clear()

    def _answers(self, *argv: str) -> None:
        """Wait until its tool has an answer.

        Raises:
            AssertionError: it has ended, or does not answer; with its log.
        """

        def fits() -> bool:
            if dead := [one for one in self.processes if one.poll() is not None]:
                raise AssertionError(f"{self} has ended: {dead[0].args!r}\n{self.log[-2000:]}")
            try:
                return bool(self.tool(*argv).strip())
            except CommandFailed:  # nobody is there yet
                return False

        until(fits, deadline=START, step=0.03, what=f"{self} answers")


def rss(pid: int) -> float:
    """Resident memory of a process, MB (10^6 octets)."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def by_told(routes: Routes) -> dict[Told, list[str]]:
    """Prefixes that say the same."""
    groups: dict[Told, list[str]] = {}
    for prefix, told in routes.items():
        groups.setdefault(told, []).append(prefix)
    return groups


def split(routes: Routes) -> tuple[dict[str, Told], dict[str, Told]]:
    """Those of IPv4 and those of IPv6."""
    six = {prefix: told for prefix, told in routes.items() if ":" in prefix}
    return {prefix: told for prefix, told in routes.items() if prefix not in six}, six


def prefixes(number: int, version: int = 4, first: int = 0) -> list[str]:
    """Host prefixes, no two the same, for up to a million of them."""
    base = int(ip_address("10.0.0.0" if version == 4 else "2001:db8:f::"))
    length = 32 if version == 4 else 128
    return [f"{ip_address(base + first + i)}/{length}" for i in range(1, number + 1)]


def normal(prefix: str) -> str:
    """A prefix as `str(ip_network)` has it."""
    return str(ip_network(prefix, strict=False))


def bare(seen: Seen) -> Told:
    """Without what the way adds."""
    return Told(seen.path, seen.med, seen.communities, seen.large)


def passed(told: Told, *asns: int) -> Told:
    """As an external peer has it: with numbers in front."""
    return replace(told, path=(*asns, *told.path))
