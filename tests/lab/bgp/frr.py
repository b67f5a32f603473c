"""FRR (https://frrouting.org/), driven by `vtysh`: zebra, bgpd and where it is needed bfdd."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from tests.lab.bgp.router import (
    COMMAND,
    Neighbor,
    Router,
    Routes,
    Seen,
    Told,
    by_told,
    normal,
    split,
)

PROGRAMS = "/usr/lib/frr"
USER = "frr"
SOME = 200
"""Questions that one `vtysh` asks."""


class Frr(Router):
    """Announces by ``network`` statements with a route map for each kind of route."""

    program = "frr"

    def start(self) -> None:
        """Start its daemons, each with its files in the folder."""
        self._maps: dict[Told, str] = {}
        shutil.chown(self.folder, USER, USER)
        for name in ("zebra", "bgpd", "bfdd", "vtysh"):
            file = self.folder / f"{name}.conf"
            file.write_text(self._config() if name == "bgpd" else "\n")
            shutil.chown(file, USER, USER)
        self._run("zebra")
        self._answers(*self._vtysh("zebra", "show version"))
        if any(one.bfd for one in self.neighbors):
            self._run("bfdd", "--bfdctl", str(self.folder / "bfdd.sock"))
        own = (self.site.ipv4, self.site.ipv6)
        kernel = () if self.install else ("-n",)
        self._run("bgpd", *(word for one in own for word in ("-l", one)), *kernel)
        self._answers(*self._vtysh("bgpd", "show bgp summary json"))
        if self.announced:
            self._apply(self.announced, {})

    def command(self, *lines: str) -> str:
        """The output of `vtysh` at bgpd."""
        return self.tool(*self._vtysh("bgpd", *lines))

    def session(self, peer: str) -> str:
        """From ``show bgp neighbors``."""
        shown = json.loads(self.command(f"show bgp neighbors {peer} json"))
        return str(shown.get(peer, {}).get("bgpState", "Idle"))

    def count(self, peer: str, version: int = 4) -> int:
        """From ``show bgp summary``."""
        shown = json.loads(self.command(f"show bgp ipv{version} unicast summary json"))
        return int(shown.get("peers", {}).get(peer, {}).get("pfxRcd", 0))

    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """From ``show bgp PREFIX`` of each: no list of this version has all attributes."""
        unicast = f"show bgp ipv{version} unicast"
        listed = json.loads(self.command(f"{unicast} neighbors {peer} routes json"))
        wanted = list(listed.get("routes", {}))
        found = {}
        for at in range(0, len(wanted), SOME):
            lines = [f"{unicast} {prefix} json" for prefix in wanted[at : at + SOME]]
            for entry in _documents(self.command(*lines)):
                for path in entry.get("paths", ()):
                    if path.get("peer", {}).get("peerId") == peer:
                        found[normal(entry["prefix"])] = _seen(path)
        return found

    def _run(self, name: str, *more: str) -> None:
        self.run(
            f"{PROGRAMS}/{name}", "-f", str(self.folder / f"{name}.conf"),
            "-i", str(self.folder / f"{name}.pid"), "-z", str(self.folder / "zserv.api"),
            "--vty_socket", str(self.folder), "-P", "0", "--log", "stdout", *more,
        )  # fmt: skip

    def _vtysh(self, daemon: str, *lines: str) -> tuple[str, ...]:
        commands = [word for line in lines for word in ("-c", line)]
        return (
            "vtysh", "--vty_socket", str(self.folder), "--config_dir", str(self.folder),
            "-d", daemon, *commands,
        )  # fmt: skip

    def _apply(self, added: Routes, removed: Routes) -> None:
        lines: list[str] = []
        for told in by_told(added):
            if told not in self._maps:
                self._maps[told] = f"m{len(self._maps)}"
                lines += _route_map(self._maps[told], told)
        lines.append(f"router bgp {self.asn}")
        pairs = zip(split(added), split(removed), strict=True)
        for version, (new, old) in zip((4, 6), pairs, strict=True):
            if not new and not old:
                continue
            lines.append(f" address-family ipv{version} unicast")
            lines += [f"  network {one} route-map {self._maps[told]}" for one, told in new.items()]
            lines += [
                f"  no network {one} route-map {self._maps[told]}" for one, told in old.items()
            ]
            lines.append(" exit-address-family")
        self._configure(lines)

    def _configure(self, lines: Sequence[str]) -> None:
        """What `vtysh` does with a file, without starting a process: it is measured.

        A command ends with a NUL, its answer with three of them and a status.
        """
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(COMMAND)
            sock.connect(str(self.folder / "bgpd.vty"))
            for line in ("enable", "configure terminal", *lines, "end"):
                sock.sendall(line.strip().encode() + b"\0")
                answer = b""
                while answer[-4:-1] != b"\0\0\0":
                    octets = sock.recv(4096)
                    assert octets, f"bgpd is gone at {line!r}"
                    answer += octets
                assert answer[-1] in (0, 1), (line, answer)  # done, or only a warning

    def _config(self) -> str:
        lines = [
            f"router bgp {self.asn}",
            f" bgp router-id {self.site.router_id}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " no bgp network import-check",
        ]
        if any(one.graceful_restart for one in self.neighbors):
            most = max(one.restart_time for one in self.neighbors)
            lines += [" bgp graceful-restart", f" bgp graceful-restart restart-time {most}"]
            lines.append(" bgp graceful-restart preserve-fw-state")
        for one in self.neighbors:
            lines += [f" {line}" for line in _neighbor(one)]
        for version in (4, 6):
            lines.append(f" address-family ipv{version} unicast")
            for one in self.neighbors:
                if version in one.families:
                    lines.append(f"  neighbor {one.address} activate")
                    if one.max_prefixes:
                        most = one.max_prefixes
                        lines.append(f"  neighbor {one.address} maximum-prefix {most} restart 1")
            lines.append(" exit-address-family")
        return "\n".join([*lines, "exit", ""])


def _neighbor(one: Neighbor) -> list[str]:
    who = f"neighbor {one.address}"
    lines = [
        f"{who} remote-as {one.asn}",
        f"{who} timers {max(one.hold_time // 3, 1)} {one.hold_time}",
        f"{who} timers connect 1",
        f"{who} advertisement-interval 0",
    ]
    lines += [f"{who} password {one.password}"] * bool(one.password)
    lines += [f"{who} passive"] * one.passive
    lines += [f"{who} bfd", f"{who} bfd 3 50 50"] * one.bfd
    return lines


def _route_map(name: str, told: Told) -> list[str]:
    lines = [f"route-map {name} permit 10"]
    if told.path:
        lines.append(f" set as-path prepend {' '.join(map(str, told.path))}")
    if told.med is not None:
        lines.append(f" set metric {told.med}")
    if told.communities:
        lines.append(f" set community {' '.join(sorted(told.communities))}")
    if told.large:
        lines.append(f" set large-community {' '.join(sorted(told.large))}")
    return [*lines, "exit"]


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """JSON documents one behind the other."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        document, end = decoder.raw_decode(text, at)
        yield document
        at = text.find("{", end)


def _seen(path: dict[str, Any]) -> Seen:
    hops = path.get("nexthops", [])
    hop = next((one["ip"] for one in hops if one.get("scope", "global") == "global"), "")
    words = path.get("aspath", {}).get("string", "").split()
    return Seen(
        path=tuple(int(word) for word in words if word.isdigit()),
        med=path.get("metric", path.get("med")),
        communities=frozenset(path.get("community", {}).get("string", "").split()),
        large=frozenset(path.get("largeCommunity", {}).get("string", "").split()),
        next_hop=hop,
        local_pref=path.get("locPrf"),
    )
