"""A host with the kernel backend: discod puts routes into the kernel, the shipped BIRD tells them.

As a program (`python -m tests.lab.bgp.exporting WISH`) it is the part of discod alone, until its
standard input ends: ``{"announced": [...], "local": [...], "anycast": {address: [targets]}}``.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import trio

from calico_bgp.exported import Exported
from calico_bgp.ports import Delivery, Desired
from calico_bgp.prefix import of_network
from discod.model.bgp_settings import BgpSettings
from tests.lab.bgp.bird import Bird
from tests.lab.bgp.fabric import Site
from tests.lab.bgp.frr import USER, Frr
from tests.lab.daemon import environment

SHIPPED = Path(__file__).parents[3] / "deploy"


def shipped(name: str, site: Site, tor: Site, asn: int, more: Mapping[str, str]) -> str:
    """A configuration of ``deploy/`` with this lab's addresses and numbers."""
    text = (SHIPPED / name / "discod.conf").read_text()
    here = {
        "192.0.2.254": tor.ipv4,
        "2001:db8::254": tor.ipv6,
        "192.0.2.11": site.ipv4,
        "64512": str(asn),
        **more,
    }
    for theirs, ours in here.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


class ShippedBird(Bird):
    """BIRD as it is in ``deploy/``; `neighbors` are not used."""

    tor: Site

    def _config(self) -> str:
        more = {"2001:db8::11": self.site.ipv6, "log syslog all;": f'log "{self._log}" all;'}
        return shipped("bird", self.site, self.tor, self.asn, more)


class ShippedFrr(Frr):
    """FRR as it is in ``deploy/``; `neighbors` are not used."""

    tor: Site

    def start(self) -> None:
        """Start zebra, bfdd and bgpd, and configure them as `vtysh -b` does."""
        shutil.chown(self.folder, USER, USER)
        more = {
            "10.101.1.0/24": f"10.101.{self.site.n}.0/24",
            "2001:db8:1::/64": f"2001:db8:{self.site.n}::/64",
        }
        text = shipped("frr", self.site, self.tor, self.asn, more)
        (self.folder / "frr.conf").write_text(text)
        for name in ("zebra", "bgpd", "bfdd", "vtysh"):
            file = self.folder / f"{name}.conf"
            file.write_text("\n")
            shutil.chown(file, USER, USER)
        self._run("zebra")
        self._answers(*self._vtysh("zebra", "show version"))
        self._run("bfdd", "--bfdctl", str(self.folder / "bfdd.sock"))
        self._answers(*self._vtysh("bfdd", "show version"))
        self._run("bgpd", "-l", self.site.ipv4, "-l", self.site.ipv6)
        self._answers(*self._vtysh("bgpd", "show version"))
        folder = str(self.folder)
        self.tool(
            "vtysh", "--vty_socket", folder, "--config_dir", folder, "-f", f"{folder}/frr.conf"
        )


def exporting(site: Site, wish: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start discod's part in a namespace; close its standard input to end it."""
    where = environment()["PYTHONPATH"]
    return subprocess.Popen(
        [
            *site.space.prefix, "env", f"PYTHONPATH={where}",
            sys.executable, "-m", "tests.lab.bgp.exporting", json.dumps(wish),
        ],
        stdin=subprocess.PIPE,
    )  # fmt: skip


async def run(wish: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    exported = Exported(BgpSettings(asn=64512, backend="kernel"), rng=random.Random(1))
    nets = {key: [of_network(ip_network(t)) for t in wish[key]] for key in ("announced", "local")}
    deliveries = tuple(
        Delivery(ip_address(a), tuple(map(ip_address, targets)))
        for a, targets in wish["anycast"].items()
    )
    exported.want(Desired(frozenset(nets["announced"]), deliveries, frozenset(nets["local"])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exported.run)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(run, json.loads(sys.argv[1]))
