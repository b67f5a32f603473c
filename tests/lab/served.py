"""discod on a port of loopback with some static services, for tests of who answers for it.

Rule: as `tests.lab.daemon`: known by its command line, its signals, its metrics and its DNS port.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab.daemon import WORKER, Daemon, Value, children, until
from tests.lab.dnspoll import AAAA, A, ask
from tests.lab.etcd import EtcdCluster
from tests.lab.primaries import free_port
from tests.lab.stream import SRV, TXT, Stream

D = "discod.internal"
SERVICES = 20
TYPES = {A: "A", AAAA: "AAAA", SRV: "SRV", TXT: "TXT"}
QUESTIONS = (
    *((f"svc{n}.{D}", A) for n in range(SERVICES)),
    *((f"svc{n}.{D}", AAAA) for n in range(SERVICES)),
    *((f"_http._tcp.svc{n}.{D}", SRV) for n in range(SERVICES)),
    *((f"blue.svc{n}.{D}", A) for n in range(0, SERVICES, 5)),
)
TAIL = "".join(
    f'[[service]]\nname = "svc{n}"\nport = {8000 + n}\nport_name = "http"\ntags = ["blue"]\n'
    f'address = ["10.101.1.{n + 1}", "10.101.2.{n + 1}", "2001:db8:1::{n + 1:x}"]\n'
    for n in range(SERVICES)
)


class Server:
    """discod on a port of loopback."""

    def __init__(
        self, folder: Path, workers: int, etcd: EtcdCluster | None = None, lease_ttl: str = "30s"
    ) -> None:
        self.address = ("127.0.0.1", free_port())
        store: Mapping[str, Value] = {}
        if etcd is not None:
            store = {"endpoints": list(etcd.endpoints), "lease_ttl": lease_ttl}
        self.etcd = etcd
        self.discod = Daemon(
            folder,
            {
                "host": {"name": "alpha", "addresses": ["127.0.0.1"]},
                "store": store,
                "announce": {"docker": "", "hint_port": 0},
                "dns": {
                    "listen": [f"127.0.0.1:{self.address[1]}"],
                    "workers": workers,
                    "forward": False,
                },
                "http": {"listen": []},
            },
            tail=TAIL,
        )

    def start(self, serving: int) -> None:
        """Start it, and wait until so many workers serve and the services are there."""
        self.discod.start()
        until(lambda: self.value("discod_dns_workers") == serving, what="the workers serve")
        until(lambda: self.asked(QUESTIONS[0][0]), what="the services")

    def stream(self, sockets: int = 1, linger: float = 1.0) -> Stream:
        return Stream(self.address, QUESTIONS, sockets=sockets, linger=linger)

    def asked(self, name: str, timeout: float = 1.0) -> tuple[str, ...]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return ask(sock, self.address, name, timeout=timeout).addresses

    def workers(self) -> list[int]:
        """Process ids, in their order."""
        return children(self.discod.pid)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        total = 0.0
        for key, value in self.discod.metrics().items():
            head, _, rest = key.partition("{")
            have = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            if head == name and labels.items() <= have.items():
                total += value
        return total

    def requests(self) -> dict[str, float]:
        """Queries over UDP, by type."""
        return {
            text: self.value("discod_dns_requests_total", proto="udp", type=text)
            for text in TYPES.values()
        }

    def restarts(self) -> tuple[float, float]:
        """Workers replaced: because they ended, because they were frozen."""
        name = "discod_dns_worker_restarts_total"
        return self.value(name, reason="ended"), self.value(name, reason="frozen")


@contextlib.contextmanager
def running(
    workers: int = 1, etcd: EtcdCluster | None = None, lease_ttl: str = "30s"
) -> Iterator[Server]:
    """A daemon that serves; afterwards none of its processes is there."""
    folder = Path(tempfile.mkdtemp(prefix="discod-workers-"))
    server = Server(folder, workers, etcd, lease_ttl)
    daemon = server.discod
    pids: list[int] = []
    try:
        server.start(workers)
        pids += server.workers()
        assert len(pids) == workers
        yield server
        if daemon.running:
            pids += server.workers()
            assert daemon.terminate() == 0
        until(lambda: not alive(pids), deadline=2, what="no worker outlives the daemon")
    except BaseException:  # told, then raised on
        print(daemon.log[-6000:])
        raise
    finally:
        if daemon.running:
            pids += server.workers()
            os.kill(daemon.pid, signal.SIGCONT)
            daemon.stop()
        for pid in alive(pids):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


def alive(pids: list[int]) -> list[int]:
    """Those of these processes that are workers of discod still."""
    left = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes():
                left.append(pid)
    return left
