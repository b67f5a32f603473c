"""Three hosts with one service, clients beside it, and what happens to it.

Rule: containers of all hosts reach one another by the lab's own routes, so that rescue is the only
thing looked at; discod runs with it or without, on the same hosts.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.daemon import Config, Value, until
from tests.lab.engine import Box, each
from tests.lab.rescue.clients import Task, inside
from tests.lab.rig import DOMAIN, Host, Lab

SOURCE = Path(__file__).with_name("answers.c")
PORT = 8080
PUBLISHED = 18080
LINGER = 400
"""Milliseconds that a server goes on after SIGTERM, as one that ends its requests."""
ON: Config = {"rescue": {"enabled": True}}
NFT_TABLE = "discod_rescue"

_serial = itertools.count(1)


def compiled(folder: Path) -> Path:
    """`answers.c` as a static program."""
    program = folder / "answers"
    if not program.exists():
        command = ["musl-gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-static", "-o", str(program)]
        subprocess.run([*command, str(SOURCE)], check=True, timeout=60)
    return program


class Site:
    """What tests do with a Lab here.

    Args:
        lab: Its daemons do not run yet.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = lab.hosts
        self.program = compiled(lab.root)
        self.clients: dict[str, Box] = {}
        """Host name -> a container to be a client in."""
        self._shape: Config | None = None
        self._served = ""  # the last service
        self._bare = {host.name: dict(host.discod.config) for host in lab.hosts}

    # What runs ----------------------------------------------------------------------------------

    def become(self, config: Config, hosts: Sequence[Host] | None = None) -> None:
        """(Re)start discod with these tables added to every host's configuration."""
        chosen = self.hosts if hosts is None else hosts
        if self._shape == config and all(host.discod.running for host in chosen):
            return
        self._shape = config if hosts is None else None
        each(lambda host: host.discod.stop(), chosen)
        for host in chosen:
            self.configure(host, config)
        with ThreadPoolExecutor(len(chosen)) as pool:
            list(pool.map(lambda host: host.discod.start(), chosen))
        if len(self.hosts) > 1 and chosen is self.hosts:
            settled(self.lab)

    def configure(self, host: Host, config: Config) -> None:
        """Write one host's configuration; the daemon is not told."""
        base: dict[str, Mapping[str, Value]] = dict(self._bare[host.name])
        for table, keys in config.items():
            base[table] = {**base.get(table, {}), **keys}
        host.discod.config = base
        host.discod.write()

    def populate(self, labels: Mapping[str, str] | None = None) -> None:
        """One container on each host for clients, which discod leaves alone without `labels`."""

        def make(host: Host) -> Box:
            # Docker's sleeper ends at once on SIGTERM.
            return host.engine.look(
                host.engine.run(name="client", labels=labels or {"discod.ignore": "true"})
            )

        self.clients = {
            host.name: box
            for host, box in zip(self.hosts, each(make, self.hosts), strict=True)
        }  # fmt: skip

    def _forget(self) -> None:
        """Have all daemons begin without a memory of who had which address."""
        each(lambda host: host.discod.stop(), self.hosts)
        self.lab.etcdctl("del", "--prefix", f"/discod/v1/{DOMAIN}/withdrawn/")
        each(lambda host: host.discod.start(), self.hosts)
        if len(self.hosts) > 1:
            settled(self.lab)

    def serve(
        self,
        service: str,
        hosts: Sequence[Host] | None = None,
        *,
        publish: int = 0,
        linger: int = LINGER,
        network: str | None = None,
        port: int = PORT,
        wait: bool = True,
        **labels: str,
    ) -> dict[str, Box]:
        """One endpoint on each host, answering TCP and UDP with the container's name.

        Args:
            service: Its name.
            hosts: Default: all.
            publish: Port of the host; 0: none.
            linger: See `LINGER`; -1: ignores SIGTERM.
            network: Docker's network.
            port: Of the container.
            wait: Until every host's DNS has them all.
            labels: Further labels, without ``discod.``.

        Where the last ones were of another service, nobody knows of those any more: Docker gives
        the same addresses again, and one that two services had is refused, not rescued.
        """
        if self._served not in ("", service):
            self._forget()
        self._served = service
        chosen = self.hosts if hosts is None else hosts
        made = each(
            lambda host: self.start(
                host,
                service,
                publish=publish,
                linger=linger,
                network=network,
                port=port,
                labels=labels,
            ),
            chosen,
        )
        boxes = {host.name: box for host, box in zip(chosen, made, strict=True)}
        if wait:
            if publish or network == "host":
                addresses = [a for host in chosen for a in (host.leg.ipv4, host.leg.ipv6)]
            else:
                addresses = [a for box in made for a in (box.ipv4, box.ipv6)]
            self.lab.everywhere(service, addresses, deadline=20)
        return boxes

    def start(
        self,
        host: Host,
        service: str,
        *,
        publish: int = 0,
        linger: int = LINGER,
        network: str | None = None,
        port: int = PORT,
        labels: Mapping[str, str] | None = None,
    ) -> Box:
        """Start one container of a service; its name tells the service and the host."""
        name = f"{service}-{host.name}-{next(_serial)}"
        how: dict[str, Any] = {"host": {"binds": [f"{self.program}:/answers:ro"]}}
        if publish:
            how["publish"] = {port: publish, f"{port}/udp": publish}
        if network:
            how["network"] = network
        more = {f"discod.{key}": value for key, value in (labels or {}).items()}
        wanted = {"discod.name": service, "discod.port": f"{port},{port}/udp", **more}
        return host.engine.box(name, wanted, "/answers", name, str(port), str(linger), **how)

    # Clients ------------------------------------------------------------------------------------

    def place(self, where: str) -> tuple[str, ...]:
        """``container on X`` or ``host X``, as a command prefix."""
        kind, name = where.rsplit(" ", 1)
        if kind == "host":
            return self.lab[name].space.prefix
        return inside(self.clients[name].pid)

    def places(self, wheres: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """`place` for each."""
        return {where: self.place(where) for where in wheres}

    def resolve(self, host: Host, service: str, wanted: Sequence[str]) -> None:
        """The one time that a client asks: what it keeps is among the answers."""
        found = host.addresses(service)
        assert set(wanted) <= set(found), (wanted, found)

    # What the kernel has ------------------------------------------------------------------------

    def ruleset(self, host: Host) -> str:
        """`nft list ruleset` without what counts."""
        return host.space.sh("nft", "-s", "list", "ruleset")

    def has_table(self, host: Host) -> bool:
        """Whether rescue's tables are there."""
        out = host.space.sh("nft", "list", "tables")
        return f"table inet {NFT_TABLE}" in out


def default_routes(host: Host, verb: str = "replace") -> None:
    """Give a host a default route, as real ones have: a process can only begin a connection to
    where some route leads. ``del`` takes it back."""
    for family in ("-4", "-6"):
        host.space.sh("ip", family, "route", verb, "default", "dev", "eth0")


def tasks(addresses: Sequence[str], port: int, kinds: Sequence[str] = ("tcp", "udp")) -> list[Task]:
    """Every kind of flow to every address."""
    return [Task(kind, address, port) for address in addresses for kind in kinds]


def settled(lab: Lab) -> None:
    """Wait until every host watches all others and trusts what it sees."""
    names = {host.name for host in lab.hosts}
    for host in lab.hosts:
        others = [f'discod_liveness_host_up{{host="{n}"}}' for n in sorted(names - {host.name})]
        until(
            lambda h=host, o=others: all(h.discod.metrics().get(k) == 1 for k in o),  # type: ignore[misc]
            deadline=20,
            what=f"{host.name} sees all others",
        )


@contextmanager
def site(hosts: int = 3, config: Config | None = None) -> Iterator[Site]:
    """Hosts with dockerd and etcd, and a container for clients on each; discod does not run."""
    base: Config = {"log": {"level": "info"}, **(config or {})}
    with Lab(hosts, memory=True, config=base, discod=False) as lab:
        made = Site(lab)
        made.populate()
        yield made


def drop_servers(site: Site) -> None:
    """Take all containers but the clients away, and wait until DNS has none."""
    keep = {box.id for box in site.clients.values()}

    def clear(host: Host) -> None:
        rows = host.engine.client.containers(all=True, quiet=True)
        host.engine.remove(*(row["Id"] for row in rows if row["Id"] not in keep))

    each(clear, site.hosts)
    for host in site.hosts:
        if host.discod.running:
            until(lambda h=host: not h.catalog(), deadline=20, what=f"{host.name} offers nothing")  # type: ignore[misc]


def elapsed(since: float) -> float:
    """Seconds since a moment of `time.monotonic()`."""
    return time.monotonic() - since
