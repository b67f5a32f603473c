"""The kernel's side of BGP as a process of its own, in whatever namespace it is started.

``act.py run STATE_DIR JSON`` keeps the host so until its standard input ends, and says ``ready`` as
soon as all is so; ``act.py cleanup STATE_DIR`` takes everything back.
"""

from __future__ import annotations

import json
import random
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import trio

from calico_bgp.cleanup import cleanup
from calico_bgp.forwarding import KernelForwarding
from calico_bgp.host import HostSide
from calico_bgp.ports import Delivery, Desired, Hop
from calico_bgp.prefix import of_network
from discod import log
from discod.model.bgp_settings import BgpSettings

SETTINGS = BgpSettings(asn=64512, proxy_arp=True)


async def run(state: Path, what: dict[str, dict[str, list[str]] | list[str]]) -> None:
    """Serve until standard input ends."""
    rng = random.Random(1)
    routes, anycast = what.get("routes", {}), what.get("anycast", {})
    local, routed = what.get("local", []), what.get("routed", [])
    assert isinstance(routes, dict)
    assert isinstance(anycast, dict)
    host = HostSide(SETTINGS, state, rng=rng)
    host.want(
        Desired(
            local=frozenset(of_network(ip_network(text)) for text in local),
            routed=tuple(ip_network(text) for text in routed),
            deliveries=tuple(
                Delivery(ip_address(a), tuple(map(ip_address, t))) for a, t in anycast.items()
            ),
        )
    )
    forwarding = KernelForwarding(SETTINGS, rng=rng)
    forwarding.learned(
        {
            of_network(ip_network(text)): tuple(Hop(ip_address(via)) for via in hops)
            for text, hops in routes.items()
        }
    )
    async with trio.open_nursery() as nursery:
        if what.get("host", ["on"]):
            good = await host.once()
            nursery.start_soon(host.run)
        else:
            good = True
        nursery.start_soon(forwarding.run)
        while forwarding.counts()["pending"]:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        print("ready" if good else host.status(), forwarding.faults() or "", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


def main(argv: list[str]) -> None:
    """What is said above."""
    log.setup("debug")
    state = Path(argv[2])
    if argv[1] == "cleanup":
        done, failed = trio.run(cleanup, SETTINGS, state)
        print(*done, *failed, sep="\n")
        sys.exit(bool(failed))
    trio.run(run, state, json.loads(argv[3]))


if __name__ == "__main__":
    main(sys.argv)
