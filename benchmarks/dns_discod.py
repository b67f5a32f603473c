"""discod in `make bench-dns`: the real daemon, started as an operator would, and put on its cores.

Rule: it is known by its command line, its configuration and its processes only. The process that
answers (the worker; the daemon itself where there is none) gets the server's core, the other half
the other one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import dns_place
from benchmarks.dns_catalog import DOMAIN, Service, static_services
from tests.lab.daemon import Config, Daemon, Value

WORKER = "resolver.hot"
"""In the command line of a worker."""
WORKERS_WITHIN = 5.0
"""Seconds for the workers to appear once the daemon is ready."""

FEATURES: Mapping[str, Value] = {"rate_limit": 1_000_000, "cookies": True}
"""What is switched on for every comparison, beside rotation, metrics and the ACL, which always are.
The limit is never reached: what counts is what keeping it costs."""


class Discod:
    """One daemon with a catalog of its own or a store.

    Args:
        title: For tables.
        address: Of its DNS.
        cores: The server's, and the one for all else; None leaves it to the kernel.
        folder: Of its own; short.
        services: Announced by itself, with the memory store.
        endpoints: URLs of etcd instead.
        workers: ``dns.workers``.
        dns: Further keys of ``[dns]``.
    """

    name = "discod"

    def __init__(
        self,
        address: str,
        cores: tuple[int, int] | None,
        folder: Path,
        *,
        title: str = "discod",
        services: Sequence[Service] = (),
        endpoints: Sequence[str] = (),
        workers: int = 1,
        dns: Mapping[str, Value] = FEATURES,
    ) -> None:
        self.title = title
        self.address = address
        self.cores = cores
        self._wanted = workers
        config: Config = {
            "host": {"name": "bench", "addresses": [address]},
            "store": {"endpoints": list(endpoints)} if endpoints else {},
            "announce": {"docker": "", "hint_port": 0},
            "dns": {
                "listen": [f"{address}:{dns_place.PORT}"],
                "domain": DOMAIN,
                "forward": False,
                "workers": workers,
                **dns,
            },
            "http": {"listen": []},
            "log": {"level": "info"},
        }
        self.daemon = Daemon(
            folder,
            config,
            ("taskset", "-c", str(cores[1])) if cores else (),
            tail=static_services(services),
        )

    def start(self, *, ready: bool = True) -> None:
        """Start it and put it on its cores."""
        self.daemon.start(ready=ready, deadline=60)
        if ready:
            self.settle()

    def settle(self) -> None:
        """Wait for the workers, and put all on their cores."""
        dns_place.favour(self.daemon.pid)
        end = time.monotonic() + WORKERS_WITHIN
        while len(self.workers()) < self._wanted and time.monotonic() < end:
            time.sleep(0.05)
        self.place()

    def workers(self) -> list[int]:
        """The processes that answer UDP; empty when the daemon itself does."""
        below = dns_place.family(self.daemon.pid)[1:]
        return [pid for pid in below if WORKER in dns_place.command_line(pid)]

    def place(self) -> None:
        """Answers of UDP on the server's core; a worker may have been replaced since."""
        if self.cores is None:
            return
        server, other = self.cores
        workers = self.workers()
        dns_place.pin(self.daemon.pid, [other if workers else server])
        for pid in workers:
            dns_place.pin(pid, [server])

    def place_for_tcp(self) -> None:
        """The daemon, which serves TCP, on the server's core."""
        if self.cores is None:
            return
        server, other = self.cores
        dns_place.pin(self.daemon.pid, [server])
        for pid in self.workers():
            dns_place.pin(pid, [other])

    def pids(self) -> list[int]:
        """All its processes."""
        return dns_place.family(self.daemon.pid)

    def check(self) -> None:
        """Raise when it has ended.

        Raises:
            RuntimeError: with what it said.
        """
        if not self.daemon.running:
            raise RuntimeError(f"{self.title} ended by itself: {self.daemon.log[-2000:]}")

    def stop(self) -> None:
        """End it."""
        self.daemon.stop()
