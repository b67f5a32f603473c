"""What the parts of `make bench-dns` share: the servers, the loads, and where findings go.

Rule: whatever is started here is ended here, by its own handle; every load is bounded in time.
"""

from __future__ import annotations

import random
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.table import Table

from benchmarks import dns_peers, dns_place, results
from benchmarks.dns_catalog import DOMAIN, Service, catalog, service_name
from benchmarks.dns_child import Child, call
from benchmarks.dns_discod import Discod
from benchmarks.dns_load import Outcome
from benchmarks.dns_pace import Times
from benchmarks.dns_query import A, query
from tests.lab.daemon import until

SERVICES = 1000
ANSWERS_WITHIN = 60.0
"""Seconds for a server to load its catalog."""
SLACK = 30.0
"""Seconds that a load may take beyond its own duration."""
LOSS_MAX = 0.001
"""Share of lost queries above which a figure is marked."""


class Server(Protocol):
    """A server that can be loaded."""

    name: str
    title: str
    address: str

    def place(self) -> None:
        """Put what answers UDP on the server's core."""
        ...

    def place_for_tcp(self) -> None:
        """Put what answers TCP there."""
        ...

    def pids(self) -> list[int]:
        """Its processes."""
        ...

    def check(self) -> None:
        """Raise RuntimeError when it has ended."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Echo:
    """Sends every packet back: what the machine lets through."""

    name = "echo"
    title = "echo (limit)"

    def __init__(self, address: str, core: int) -> None:
        self.address = address
        self._child = Child("benchmarks.dns_load:echo", core, server=address)

    def place(self) -> None:
        """It stays where it was started."""

    def place_for_tcp(self) -> None:
        """It has no TCP."""

    def pids(self) -> list[int]:
        """Its process."""
        return [self._child.process.pid]

    def check(self) -> None:
        """Raise RuntimeError when it has ended."""
        if self._child.process.poll() is not None:
            raise RuntimeError("the echo ended by itself")

    def stop(self) -> None:
        """End it."""
        self._child.stop()


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing that was promised, and what was found."""

    text: str
    found: str
    met: bool


@dataclass
class Rig:
    """One run of the benchmark."""

    names: Sequence[str]
    """Servers to compare discod with."""
    rounds: int
    seconds: float
    short: bool
    folder: Path
    rows: list[results.Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    capacity: dict[str, float] = field(default_factory=dict)
    """Answers a second by server, of the mixed load."""
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(dns_place.SERVERS_MAX)))

    def __post_init__(self) -> None:
        self.cores = dns_place.cores()

    @property
    def load_core(self) -> int:
        """Of the load."""
        return self.cores[1]

    def address(self) -> str:
        """One that no server has had."""
        return dns_place.server_address(next(self._numbers))

    def place(self, name: str) -> Path:
        """A folder's path for a server."""
        return self.folder / f"{name}{len(list(self.folder.iterdir()))}"

    def say(self, text: str) -> None:
        """Tell a waiting person what goes on."""
        print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)

    def goal(self, text: str, found: str, met: bool) -> None:
        """Note what became of a promise."""
        self.goals.append(Goal(text, found, met))

    # Servers ----------------------------------------------------------------------------------

    @contextmanager
    def discod(self, *, ready: bool = True, pinned: bool = True, **how: object) -> Iterator[Discod]:
        """A daemon, started and answering."""
        cores = self.cores if pinned else None
        server = Discod(self.address(), cores, self.place("d"), **how)  # type: ignore[arg-type]
        try:
            server.start(ready=ready)
            if ready:
                self.answering(server)
                dns_place.widen(server.pids())
            yield server
        finally:
            server.stop()

    @contextmanager
    def line_up(self) -> Iterator[list[Server]]:
        """discod, the C servers and the echo, all with the same catalog, all answering."""
        services = catalog(SERVICES)
        with ExitStack() as stack:
            servers: list[Server] = []
            for name in self.names:
                self.say(f"starting {name}")
                servers.append(self._peer(name, services))
                stack.callback(servers[-1].stop)
            self.say("starting discod")
            own = stack.enter_context(self.discod(services=services))
            if not own.workers():
                self.notes.append("discod had no worker process: the daemon itself answered.")
            servers.append(own)
            for server in servers:
                self.answering(server)
                dns_place.widen(server.pids())
            echo = Echo(self.address(), self.cores[0])
            stack.callback(echo.stop)
            until(lambda: listens(echo.address), deadline=10, what="the echo")
            yield [*servers, echo]

    def _peer(self, name: str, services: Sequence[Service]) -> Server:
        return dns_peers.Peer(name, self.address(), self.cores[0], self.place(name), services)

    def answering(self, server: Server, service: str = service_name(0)) -> None:
        """Wait until `server` gives the addresses of a service."""

        def answers() -> bool:
            server.check()
            return bool(asked(server.address, service))

        until(answers, deadline=ANSWERS_WITHIN, what=f"{server.title} answers")

    # Loads ------------------------------------------------------------------------------------

    def closed(
        self, server: Server, mix: str, *, services: int = SERVICES, **how: object
    ) -> Outcome:
        """Throughput over UDP."""
        seconds = float(how.pop("seconds", self.seconds))  # type: ignore[arg-type]
        core = how.pop("core", self.load_core)
        server.check()
        server.place()
        processes = server.pids()
        found = call(
            "benchmarks.dns_load:closed",
            core,  # type: ignore[arg-type]
            timeout=seconds + SLACK,
            server=server.address,
            mix=mix,
            services=services,
            seconds=seconds,
            pids=processes,
            check=server.name != "echo",
            **how,
        )
        self._see(server, processes)
        return Outcome(**found)

    def stream(self, server: Server, mix: str, connections: int) -> Outcome:
        """Throughput over TCP."""
        server.check()
        server.place_for_tcp()
        processes = server.pids()
        try:
            found = call(
                "benchmarks.dns_stream:stream",
                self.load_core,
                timeout=self.seconds + SLACK,
                server=server.address,
                mix=mix,
                services=SERVICES,
                seconds=self.seconds,
                connections=connections,
                pids=processes,
            )
        finally:
            server.place()
        self._see(server, processes)
        return Outcome(**found)

    def paced(self, server: Server, mix: str, rate: float, **how: object) -> Times:
        """Latency at a fixed rate over UDP."""
        seconds = float(how.pop("seconds", self.seconds))  # type: ignore[arg-type]
        services = how.pop("services", SERVICES)
        server.check()
        server.place()
        processes = server.pids()
        found = call(
            "benchmarks.dns_pace:paced",
            self.load_core,
            timeout=seconds + SLACK,
            server=server.address,
            mix=mix,
            services=services,
            seconds=seconds,
            rate=rate,
            pids=processes,
            **how,
        )
        self._see(server, processes)
        return Times(**found)

    def _see(self, server: Server, before: Sequence[int]) -> None:
        """Say so when a server's processes are not those from before a load: its cost is wrong."""
        server.check()
        if set(server.pids()) != set(before):
            text = f"{server.title}: processes ended or were replaced while load ran."
            self.say(text)
            if text not in self.notes:
                self.notes.append(text)

    def shuffled(self, servers: Sequence[Server]) -> list[Server]:
        """In another order each round, so that none always follows the same one."""
        return self.rng.sample(list(servers), len(servers))

    # Findings ---------------------------------------------------------------------------------

    def add(self, case: str, metric: str, unit: str, samples: Sequence[float]) -> results.Row:
        """Keep a row for the JSON; it is returned."""
        found = results.row(case, metric, unit, samples)
        self.rows.append(found)
        return found


@contextmanager
def rig(names: Sequence[str], rounds: int, seconds: float, *, short: bool) -> Iterator[Rig]:
    """A rig in a network namespace and a folder of its own."""
    dns_place.enter()
    # Short: Unix sockets lie below it. Servers that give up root may not look into it: none does.
    folder = Path(tempfile.mkdtemp(prefix="discod-bd-"))
    try:
        yield Rig(names, rounds, seconds, short, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios round by round: a slow minute of the machine hits both."""
    return statistics.median(v / b for v, b in zip(values, base, strict=True) if b)


def asked(address: str, service: str, *, type_: int = A, timeout: float = 0.2) -> int:
    """Records in the answer for a service's name; 0 when there is none, or no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.bind((dns_place.client_address(0), 0))
        sock.connect((address, dns_place.PORT))
        sock.settimeout(timeout)
        sock.send(query(99, f"{service}.{DOMAIN}", type_))
        answer = sock.recv(4096)
        if answer[3] & 15 == 0:
            return int.from_bytes(answer[6:8])
    return 0


def listens(address: str) -> bool:
    """Whether anything comes back at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.connect((address, dns_place.PORT))
        sock.settimeout(0.2)
        sock.send(query(99, DOMAIN, A))
        return bool(sock.recv(4096))
    return False


Part = Callable[[Rig], None]
