"""The C servers beside discod: NSD, Knot, BIND, gdnsd and dnsmasq from Debian's packages.

Rule: each gets the same zone, one thread for UDP, no log of queries, no rate limit, and else its
own defaults; it runs on one core. Whatever they write stays in one folder of ours.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from benchmarks import dns_place
from benchmarks.dns_catalog import DOMAIN, Service, dnsmasq_srv, hosts_file, zone_file

Command = list[str]
Setup = Callable[[Path, str, Sequence[Service]], Command]
"""(folder, address, catalog) -> the command that serves it in the foreground."""


def _zone(folder: Path, address: str, services: Sequence[Service], name: str = "zone") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(zone_file(services, IPv4Address(address)))
    return path


def _nsd(folder: Path, address: str, services: Sequence[Service]) -> Command:
    zone = _zone(folder, address, services)
    file = folder / "nsd.conf"
    file.write_text(
        f"""server:
    ip-address: {address}
    server-count: 1
    username: ""
    database: ""
    zonesdir: "{folder}"
    pidfile: "{folder}/pid"
    xfrdfile: "{folder}/xfrd.state"
    zonelistfile: "{folder}/zone.list"
    xfrdir: "{folder}"
    cookie-secret-file: ""
    answer-cookie: yes
    rrl-ratelimit: 0
    tcp-count: 100
    hide-version: yes
remote-control:
    control-enable: no
zone:
    name: "{DOMAIN}"
    zonefile: "{zone}"
"""
    )
    return ["nsd", "-d", "-c", str(file)]


def _knot(folder: Path, address: str, services: Sequence[Service]) -> Command:
    zone = _zone(folder, address, services)
    file = folder / "knot.conf"
    file.write_text(
        f"""server:
    rundir: "{folder}"
    listen: {address}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: "{folder}/db"
mod-cookies:
  - id: default
template:
  - id: default
    storage: "{folder}"
    global-module: mod-cookies/default
zone:
  - domain: {DOMAIN}
    file: "{zone}"
    zonefile-sync: -1
    journal-content: none
"""
    )
    return ["knotd", "-c", str(file)]


def _bind(folder: Path, address: str, services: Sequence[Service]) -> Command:
    zone = _zone(folder, address, services)
    file = folder / "named.conf"
    file.write_text(
        f"""options {{
    directory "{folder}";
    pid-file "{folder}/pid";
    session-keyfile "{folder}/session.key";
    listen-on port 53 {{ {address}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    querylog no;
    tcp-clients 1000;
}};
controls {{ }};
logging {{ category default {{ null; }}; }};
zone "{DOMAIN}" {{ type primary; file "{zone}"; }};
"""
    )
    return ["named", "-f", "-n", "1", "-c", str(file)]


def _gdnsd(folder: Path, address: str, services: Sequence[Service]) -> Command:
    _zone(folder, address, services, f"zones/{DOMAIN}")
    (folder / "config").write_text(
        f"""options => {{
    listen => {address}
    udp_threads => 1
    tcp_threads => 1
    min_ttl => 0
    run_dir => "{folder}/run"
    state_dir => "{folder}/state"
}}
"""
    )
    for name in ("run", "state"):
        (folder / name).mkdir()
    return ["gdnsd", "-c", str(folder), "start"]


def _dnsmasq(folder: Path, address: str, services: Sequence[Service]) -> Command:
    hosts = folder / "hosts"
    hosts.write_text(hosts_file(services))
    file = folder / "dnsmasq.conf"
    lines = [
        "no-resolv", "no-hosts", "bind-interfaces", f"listen-address={address}",
        f"local=/{DOMAIN}/", f"addn-hosts={hosts}", "user=root", "pid-file=",
        "local-ttl=0", *dnsmasq_srv(services),
    ]  # fmt: skip
    file.write_text("\n".join([*lines, ""]))
    return ["dnsmasq", "--keep-in-foreground", f"--conf-file={file}"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server."""

    title: str
    program: str
    package: str
    """Debian's."""
    setup: Setup


KINDS = {
    "nsd": Kind("NSD", "nsd", "nsd", _nsd),
    "knot": Kind("Knot", "knotd", "knot", _knot),
    "bind": Kind("BIND", "named", "bind9", _bind),
    "gdnsd": Kind("gdnsd", "gdnsd", "gdnsd", _gdnsd),
    "dnsmasq": Kind("dnsmasq", "dnsmasq", "dnsmasq-base", _dnsmasq),
}


def missing(names: Sequence[str]) -> list[str]:
    """The packages of those that are not installed."""
    return [KINDS[n].package for n in names if n in KINDS and not shutil.which(KINDS[n].program)]


class Peer:
    """One of them, running."""

    def __init__(
        self, name: str, address: str, core: int, folder: Path, services: Sequence[Service]
    ) -> None:
        self.name = name
        self.title = KINDS[name].title
        self.address = address
        folder.mkdir()
        command = KINDS[name].setup(folder, address, services)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        dns_place.favour(self._process.pid)

    def place(self) -> None:
        """Nothing to do: it was started on its core and stays there."""

    def place_for_tcp(self) -> None:
        """As `place`."""

    def pids(self) -> list[int]:
        """All its processes."""
        return dns_place.family(self._process.pid)

    def check(self) -> None:
        """Raise when it has ended.

        Raises:
            RuntimeError: with what it said.
        """
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.title} ended by itself: {said}")

    def stop(self) -> None:
        """End it."""
        family = self.pids()
        dns_place.end(self._process)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(map(dns_place.command_line, family)):
            time.sleep(0.02)
