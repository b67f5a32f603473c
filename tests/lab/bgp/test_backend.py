"""The kernel backend: what discod puts into the kernel the shipped speaker tells; BFD ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.bgp.bird import Bird
from tests.lab.bgp.exporting import ShippedBird, ShippedFrr, exporting
from tests.lab.bgp.fabric import Fabric
from tests.lab.bgp.router import Neighbor
from tests.lab.daemon import until

pytestmark = pytest.mark.lab

TOR_ASN = 64600
ANYCAST, ANYCAST6 = "203.0.113.80", "2001:db8:a::80"
BFD = 2.0
"""Seconds until a host that is cut off is out of the router. BFD is set to 0.3 and takes about as
long; the rest is for a machine on which BIRD does not run in time."""
SILENT = 1.5
"""Seconds for which the control, without BFD, still has it: its hold time is 9."""


class Rack:
    """Two hosts with the kernel backend behind one router.

    Args:
        fabric: Is up.
        kind: The hosts' speaker.
        bfd: The router takes part in BFD.
        stack: Ends what is started.
    """

    def __init__(
        self,
        fabric: Fabric,
        kind: type[ShippedBird] | type[ShippedFrr],
        *,
        bfd: bool,
        stack: ExitStack,
    ) -> None:
        self.hosts = fabric.hosts
        self.pods = [f"10.101.{host.n}.2" for host in self.hosts]
        neighbors = []
        for host, pod in zip(self.hosts, self.pods, strict=True):
            host.space.ip(
                "link add docker0 type bridge",
                f"addr add 10.101.{host.n}.1/24 dev docker0",
                f"addr add 2001:db8:{host.n}::1/64 dev docker0 nodad",
                "link set docker0 up",
            )
            pod6 = f"2001:db8:{host.n}::2"
            own = [f"{pod}/32", f"{pod6}/128"]
            wish = {
                "announced": [*own, f"10.101.{host.n}.0/24", f"{ANYCAST}/32", f"{ANYCAST6}/128"],
                "local": own,
                "anycast": {ANYCAST: [pod], ANYCAST6: [pod6]},
            }
            discod = exporting(host, wish)
            stack.callback(discod.wait, 10)
            assert discod.stdin is not None
            stack.callback(discod.stdin.close)
            speaker = kind(host, 64512 + host.n, [])
            speaker.tor = fabric.tor
            fabric.use(speaker)
            neighbors += [
                Neighbor(address, speaker.asn, families=(version,), bfd=bfd)
                for version, address in ((4, host.ipv4), (6, host.ipv6))
            ]
        self.router = fabric.use(Bird(fabric.tor, TOR_ASN, neighbors, install=True, transit=True))

    def paths(self, prefix: str) -> int:
        """How many hosts the router's kernel spreads a destination over."""
        family = "-6" if ":" in prefix else "-4"
        shown = self.router.site.space.sh("ip", family, "route", "show", "exact", prefix)
        return shown.count(" via ")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "bfd"), [(ShippedBird, True), (ShippedBird, False), (ShippedFrr, True)]
)
def test_a_host_that_is_cut_off(
    kind: type[ShippedBird] | type[ShippedFrr], bfd: bool, stack: ExitStack
) -> None:
    """Both hosts are used; one that dies is out within a second with BFD, and not without."""
    fabric = stack.enter_context(Fabric(2))
    rack = Rack(fabric, kind, bfd=bfd, stack=stack)
    for address, wanted in ((ANYCAST, 2), (ANYCAST6, 2), *((pod, 1) for pod in rack.pods)):
        until(
            lambda a=address, n=wanted: rack.paths(a) == n,  # type: ignore[misc]
            deadline=20.0,
            what=f"paths to {address}",
        )
    bird = kind is ShippedBird
    assert rack.paths("10.101.1.0/24") == bird  # see the note on aggregates in FRR's
    # What the rack has of others, each host has in its kernel; its own it keeps to itself.
    one, other = rack.hosts
    until(lambda: one.has(rack.pods[1]), what="the other host's container")
    assert f"proto {'bird' if bird else 'bgp'}" in one.space.sh(
        "ip", "route", "show", "exact", rack.pods[1]
    )
    assert "proto 201" in one.space.sh("ip", "route", "show", "exact", rack.pods[0])
    if bfd:
        until(
            lambda: rack.router.command("show bfd sessions").count(" Up ") == 4,
            what="BFD with both hosts, both families",
        )
    other.cut()
    at = time.monotonic()
    if not bfd:
        time.sleep(SILENT)
        assert rack.paths(ANYCAST) == rack.paths(ANYCAST6) == 2
        return
    until(lambda: rack.paths(ANYCAST) == rack.paths(ANYCAST6) == 1, step=0.01, what="one path")
    took = time.monotonic() - at
    print(f"bgp-hosts: a dead host's fixed addresses, with BFD: {took * 1e3:.0f} ms")
    assert took < BFD
    other.mend()
    until(lambda: rack.paths(ANYCAST) == 2, deadline=30.0, what="both again")
