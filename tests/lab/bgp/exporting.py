"""A host with the kernel backend: discod puts routes into the kernel, the shipped BIRD tells them.

As a program (`python -m tests.lab.bgp.exporting WISH`) it is the part of discod alone, until its
standard input ends: ``{"announced": [...], "local": [...], "anycast": {address: [targets]}}``.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
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
from tests.lab.daemon import environment

SHIPPED = Path(__file__).parents[3] / "deploy" / "bird" / "discod.conf"


class ShippedBird(Bird):
    """BIRD with the configuration that is in ``deploy/``, but for addresses and numbers.

    Args of `Router`; its one neighbor is the top-of-rack.
    """

    tor: Site

    def _config(self) -> str:
        text = SHIPPED.read_text()
        for shipped, here in (
            ("192.0.2.254", self.tor.ipv4),
            ("2001:db8::254", self.tor.ipv6),
            ("192.0.2.11", self.site.ipv4),
            ("2001:db8::11", self.site.ipv6),
            ("64512", str(self.asn)),
            ("log syslog all;", f'log "{self._log}" all;'),
        ):
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        return text


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
