"""A native speaker in a process of its own: commands on standard input, one JSON a line.

Each command is answered by one line: ``{"want": [prefix, ...]}``, ``{"sync": true}``,
``{"shutdown": text}``, ``{"status": true}``. The argument is a JSON object for `BgpSettings`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import trio

from calico_bgp.ports import Desired, Hops
from calico_bgp.prefix import Prefix, of_network
from calico_bgp.speaker import NativeSpeaker
from discod.log import setup
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule

ANY = (PrefixRule(ip_network("0.0.0.0/0"), le=32), PrefixRule(ip_network("::/0"), le=128))


def settings(raw: dict[str, Any]) -> BgpSettings:
    peers = []
    for one in raw.pop("peers"):
        one["address"] = ip_address(one["address"])
        if "families" in one:
            one["families"] = tuple(one["families"])
        peers.append(BgpPeerSettings(**{"imports": ANY, "exports": ANY, **one}))
    return BgpSettings(peers=tuple(peers), **raw)


class Driver:
    def __init__(self, raw: dict[str, Any]) -> None:
        addresses = [ip_address(one) for one in raw.pop("addresses")]
        self.learned: dict[str, list[str]] = {}
        self.settled = False
        self.speaker = NativeSpeaker(
            settings(raw), "driver", addresses, learned=self.learn, settled=self.settle
        )

    def learn(self, changed: Mapping[Prefix, Hops]) -> None:
        for prefix, hops in changed.items():
            if hops:
                self.learned[str(prefix)] = [str(hop.gateway) for hop in hops]
            else:
                del self.learned[str(prefix)]

    def settle(self) -> None:
        self.settled = True

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.speaker.run)
            stream = trio.lowlevel.FdStream(os.dup(0))
            kept = b""
            while octets := await stream.receive_some():
                *lines, kept = (kept + octets).split(b"\n")
                for line in lines:
                    print(json.dumps(await self.do(json.loads(line))), flush=True)
            nursery.cancel_scope.cancel()

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command:
            case {"want": texts}:
                wanted = frozenset(of_network(ip_network(one)) for one in texts)
                self.speaker.want(Desired(announced=wanted))
            case {"sync": True}:
                self.speaker.synced()
            case {"shutdown": text}:
                await self.speaker.shutdown(text, 5.0)
        return {
            "peers": {one.address: one._asdict() for one in self.speaker.peers()},
            "learned": self.learned,
            "settled": self.settled,
            "strangers": self.speaker.totals().strangers,
        }


if __name__ == "__main__":
    setup("info")
    trio.run(Driver(json.loads(sys.argv[1])).run)
