"""The lab: hosts on one LAN, each with dockerd, an etcd member and discod; all real.

Rule: a Lab is a context manager; after it nothing of it is left, whatever happened inside. It is
synchronous, so that tests, the demo and the benchmarks read like what an operator does. Names and
folders carry this process's id, so labs do not meet each other, and one whose process was killed is
removed by the next.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from tests.lab import netns, sweep
from tests.lab.daemon import Config, Daemon, Value, until
from tests.lab.dnspoll import AAAA, A, Answer, Poller, ask
from tests.lab.engine import Engine
from tests.lab.etcd import EtcdCluster, Place

DOMAIN = "discod.internal"
DNS_PORT = 53
ETCD_PORT = 2379
LEASE_TTL = 3
"""Seconds; short, so that tests of a host's death need not wait long."""

_serial = itertools.count()


class Host:
    """One machine of the lab."""

    def __init__(
        self, name: str, leg: netns.Leg, folder: Path, config: Config, tail: str = ""
    ) -> None:
        self.name = name
        self.leg = leg
        self.space = leg.space
        self.engine = Engine(folder / "d", prefix=leg.space.prefix, bip=leg.bip, cidr6=leg.pods6)
        self.discod = Daemon(folder / "s", config, prefix=leg.space.prefix, tail=tail)

    @property
    def server(self) -> tuple[str, int]:
        """Where this host's resolver listens."""
        return self.leg.ipv4, DNS_PORT

    # Asking -----------------------------------------------------------------------------------

    def dig(self, name: str, rtype: str = "A", *options: str) -> list[str]:
        """The answers of a real `dig` on this host, sorted; `name` without a dot is a service."""
        out = self.space.sh(
            "dig", f"@{self.leg.ipv4}", "-p", str(DNS_PORT), "+short", "+tries=1", "+time=2",
            "-t", rtype, full(name), *options,
        )  # fmt: skip
        return sorted(line for line in out.splitlines() if not line.startswith(";"))

    def dig_ptr(self, address: str) -> list[str]:
        """The names of an address, by a real `dig -x`."""
        out = self.space.sh(
            "dig", f"@{self.leg.ipv4}", "-p", str(DNS_PORT), "+short", "+tries=1", "+time=2",
            "-x", address,
        )  # fmt: skip
        return sorted(out.split())

    def ask(self, name: str, qtype: int = A) -> Answer:
        """One raw query, for code that asks often."""
        with self.udp() as sock:
            return ask(sock, self.server, full(name), qtype)

    def addresses(self, name: str) -> list[str]:
        """IPv4 and IPv6 addresses of a name, sorted."""
        return sorted([*self.ask(name).addresses, *self.ask(name, AAAA).addresses])

    def udp(self) -> socket.socket:
        """A UDP socket on this host."""
        return self.space.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def tcp(self) -> socket.socket:
        """A TCP socket on this host."""
        return self.space.socket(socket.AF_INET, socket.SOCK_STREAM)

    def get(self, address: str, port: int = 8080, timeout: float = 3.0) -> str:
        """One HTTP request from this host, on a connection of its own; the body.

        Raises:
            OSError: refused, reset, silent, or anything but 200.
        """
        with self.tcp() as sock:
            sock.settimeout(timeout)
            sock.connect((address, port))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := sock.recv(4096):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(f"{address}:{port}: {answer[:100]!r}")
        return body.decode().strip()

    def catalog(self) -> list[tuple[str, str, str]]:
        """All that this host's daemon holds to be up: (service, address:port, container id)."""
        found = []
        for group in self.discod.api("/v1/sd/prometheus"):
            labels = group["labels"]
            who = (labels["__meta_discod_service"], labels["__meta_discod_container_id"])
            found += [(who[0], target, who[1]) for target in group["targets"]]
        return sorted(found)

    # Hurting ----------------------------------------------------------------------------------

    def partition(self) -> float:
        """Cut this host off the LAN; returns when."""
        at = time.monotonic()
        self.leg.cut()
        return at

    def heal(self) -> None:
        """Take `partition` back, and whatever else the cable loses."""
        self.leg.pass_all()
        self.leg.mend()

    def lose_etcd(self) -> float:
        """Cut this host off etcd alone, in both directions; returns when.

        Its own member goes on, but without the others: a minority, which answers nothing.
        """
        at = time.monotonic()
        self.leg.drop(ports=(ETCD_PORT, ETCD_PORT + 1))
        return at

    def fall_silent(self) -> float:
        """Nothing that this host says arrives any more, but it hears; returns when."""
        at = time.monotonic()
        self.leg.drop(heard=False)
        return at

    def go_deaf(self) -> float:
        """This host hears nothing any more, but is heard; returns when."""
        at = time.monotonic()
        self.leg.drop(sent=False)
        return at

    def lose(self, other: Host) -> float:
        """Cut the path between this host and one other, in both directions; returns when."""
        at = time.monotonic()
        self.leg.drop(peer=other.leg)
        return at


def full(name: str) -> str:
    """A service's whole name; a name with a final dot is whole already."""
    return name if name.endswith(".") else f"{name}.{DOMAIN}."


def offer(name: str, port: int = 8080, **more: str) -> dict[str, str]:
    """Labels of a container that offers one port; `more` are further ``discod.*`` labels, written
    with ``__`` for a dot and ``_`` for a dash."""
    return {
        "discod.name": name,
        "discod.port": str(port),
        **{f"discod.{k.replace('__', '.').replace('_', '-')}": v for k, v in more.items()},
    }


class Lab:
    """Hosts `a`, `b`, `c`... with everything on them.

    Args:
        hosts: How many.
        etcd: A three-member (or as many as there are hosts) etcd, else each has the memory store.
        memory: Keep etcd's data in memory instead of on the disk.
        config: Added to every host's configuration, table by table.
        discod: Start the daemons; without, they are started one by one.
        lease_ttl: Seconds.
        etcd_options: Added to every etcd member's command line.
        tail: Added to every host's configuration file as it is.
    """

    built: ClassVar[list[str]] = []
    """Names of all labs of this process."""

    def __init__(
        self,
        hosts: int = 3,
        *,
        etcd: bool = True,
        memory: bool = False,
        config: Config | None = None,
        discod: bool = True,
        lease_ttl: int = LEASE_TTL,
        etcd_options: Sequence[str] = (),
        tail: str = "",
    ) -> None:
        self.name = f"{sweep.PREFIX}{os.getpid()}{'abcdefghijklmnopqrstuvwxyz'[next(_serial) % 26]}"
        self.built.append(self.name)
        self.root = sweep.root(self.name)
        self.hosts: list[Host] = []
        self.etcd: EtcdCluster | None = None
        self._count = hosts
        self._with_etcd = etcd
        self._memory = memory
        self._config = config or {}
        self._start_discod = discod
        self._lease_ttl = lease_ttl
        self._etcd_options = etcd_options
        self._tail = tail
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        for name in sweep.abandoned():
            sweep.remove(name)
        # Outermost, so that it runs last and finds nothing when all else went well.
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
            self.tell()
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def _build(self) -> None:
        self.root.mkdir(mode=0o700)
        lan, legs = netns.build_lan(self.name, self._count)
        self._stack.callback(netns.remove, [lan, *(leg.space for leg in legs)])
        if self._with_etcd:
            self.etcd = self._stack.enter_context(self._cluster(legs))
        for leg in legs:
            name = "abcdefgh"[leg.n - 1]
            config = self._host_config(name, leg)
            self.hosts.append(Host(name, leg, self.root / name, config, self._tail))
        with ThreadPoolExecutor(len(legs)) as pool:
            list(pool.map(self._start_engine, self.hosts))
            for host in self.hosts:
                self._stack.callback(host.discod.stop)
            if self._start_discod:
                list(pool.map(lambda host: host.discod.start(), self.hosts))

    def _cluster(self, legs: Sequence[netns.Leg]) -> EtcdCluster:
        folder = sweep.shm(self.name) if self._memory else self.root / "e"
        folder.mkdir(mode=0o700)
        places = [Place(leg.ipv4, leg.space.prefix, ETCD_PORT, ETCD_PORT + 1) for leg in legs]
        return EtcdCluster(places=places, folder=folder, options=self._etcd_options)

    def _start_engine(self, host: Host) -> None:
        self._stack.callback(host.engine.close)
        host.engine.start()
        host.engine.import_busybox()
        netns.forwarding(host.leg)

    def _host_config(self, name: str, leg: netns.Leg) -> Config:
        # The member on this very host first, as an operator would have it.
        endpoints = sorted(
            self.etcd.endpoints if self.etcd else (), key=lambda url: f"//{leg.ipv4}:" not in url
        )
        base: dict[str, dict[str, Value]] = {
            "host": {"name": name, "addresses": [leg.ipv4, leg.ipv6]},
            "store": {"endpoints": endpoints, "lease_ttl": f"{self._lease_ttl}s"}
            if endpoints
            else {},
            "announce": {"docker": f"unix://{self.root / name}/d/docker.sock"},
            "dns": {
                "listen": [f"{leg.ipv4}:{DNS_PORT}", f"127.0.0.1:{DNS_PORT}"],
                "allow": ["127.0.0.0/8", "192.0.2.0/24", "10.101.0.0/16", "2001:db8::/32"],
                "forward": False,
            },
            "http": {"listen": ["127.0.0.1:9353"]},
            "log": {"level": "debug"},
        }
        for table, keys in self._config.items():
            base[table] = {**base.get(table, {}), **keys}
        return base

    def etcdctl(self, *argv: str) -> str:
        """Output of `etcdctl` on the first member."""
        assert self.etcd is not None
        return self.etcd.members[0].etcdctl(*argv).stdout.decode()

    # All hosts --------------------------------------------------------------------------------

    def poller(
        self,
        name: str,
        qtype: int = A,
        interval: float = 0.001,
        hosts: Iterable[Host] | None = None,
    ) -> Poller:
        """Poll a name on every host (or some); to be used as a context manager."""
        return Poller(
            {h.name: (h.udp(), h.server) for h in (self.hosts if hosts is None else hosts)},
            full(name),
            qtype,
            interval,
        )

    def everywhere(
        self,
        name: str,
        addresses: Iterable[str],
        *,
        deadline: float = 10.0,
        hosts: Iterable[Host] | None = None,
    ) -> None:
        """Wait until `name` has exactly these addresses (of both families) on every host."""
        wanted = sorted(addresses)
        for host in self.hosts if hosts is None else hosts:
            until(
                lambda host=host: _safely(host.addresses, name) == wanted,  # type: ignore[misc]
                deadline=deadline,
                what=f"{name} = {wanted} on {host.name}",
            )

    def clear(self, deadline: float = 20.0) -> None:
        """Remove all containers and networks, and wait until no daemon holds anything of Docker's
        to be up."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(_clear_engine, self.hosts))
        for host in self.hosts:
            if host.discod.running:
                until(
                    lambda host=host: not [e for e in host.catalog() if e[2]],  # type: ignore[misc]
                    deadline=deadline,
                    what=f"nothing of Docker's up on {host.name}",
                )

    def tell(self) -> None:
        """Print the end of every daemon's log, for the report of a failed test."""
        for host in self.hosts:
            print(f"--- discod on {host.name}\n{host.discod.log[-6000:]}")


def _clear_engine(host: Host) -> None:
    host.engine.remove_all()
    for network in host.engine.client.networks(filters={"type": "custom"}):
        host.engine.client.remove_network(network["Id"])


def _safely(act: Callable[[str], list[str]], name: str) -> list[str] | None:
    try:
        return act(name)
    except OSError:  # not listening yet, or cut off
        return None
