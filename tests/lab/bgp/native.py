"""discod's own speaker and kernel routes as one process of the lab, without the rest of the daemon.

As a program (`python -m tests.lab.bgp.native SETTINGS`) it reads lines of JSON from a Unix socket:
``{"announced": [...]}`` is all that is wanted from then on; the answer is what it has learned.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import trio

from calico_bgp.forwarding import KernelForwarding
from calico_bgp.ports import Desired, Hops
from calico_bgp.prefix import Prefix, of_network
from calico_bgp.speaker import NativeSpeaker
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule
from tests.lab.bgp.router import Router, Routes, Seen
from tests.lab.daemon import environment

ALL = tuple(PrefixRule(ip_network(text), ge=0) for text in ("0.0.0.0/0", "::/0"))


class Native(Router):
    """`calico_bgp`, told what to announce over a socket; of its routes it says how many."""

    program = "discod"

    def start(self) -> None:
        """Start it."""
        settings = {
            "asn": self.asn, "addresses": [self.site.ipv4, self.site.ipv6],
            "socket": str(self.folder / "ctl"), "install": self.install,
            "peers": [[one.address, one.asn, one.hold_time] for one in self.neighbors],
        }  # fmt: skip
        (self.folder / "ctl").unlink(missing_ok=True)
        where = environment()["PYTHONPATH"]
        self.run(
            "env", f"PYTHONPATH={where}", sys.executable, "-m", "tests.lab.bgp.native",
            json.dumps(settings),
        )  # fmt: skip
        self._answers("ls", str(self.folder / "ctl"))
        self._wish: set[str] = set()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        self._sock.connect(str(self.folder / "ctl"))
        if self.announced:
            self._apply(self.announced, {})

    def stop(self) -> None:
        """End it."""
        self._sock.close()
        super().stop()

    def session(self, peer: str) -> str:
        """The state."""
        return str(self._ask({})["peers"][peer]["state"])

    def count(self, peer: str, version: int = 4) -> int:
        """Of both families."""
        return int(self._ask({})["peers"][peer]["received"])

    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """Not to be had."""
        raise NotImplementedError

    def installed(self) -> int:
        """Routes that it holds to be in the kernel."""
        return int(self._ask({})["learned"])

    def _apply(self, added: Routes, removed: Routes) -> None:
        # The daemon's own way: one set of all that is wanted; the difference is the speaker's.
        self._ask({"add": list(added), "remove": list(removed)})

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        self._sock.sendall(json.dumps(what).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._sock.recv(65536)
        found: dict[str, Any] = json.loads(answer)
        return found


async def serve(given: dict[str, Any]) -> None:
    """Run the speaker until the process is ended."""
    peers = tuple(
        BgpPeerSettings(ip_address(address), asn, hold_time=hold, imports=ALL, exports=ALL)
        for address, asn, hold in given["peers"]
    )
    addresses = [ip_address(one) for one in given["addresses"]]
    own = addresses[0]
    assert isinstance(own, IPv4Address)
    settings = BgpSettings(given["asn"], router_id=own, peers=peers, source=tuple(addresses))
    forwarding = KernelForwarding(settings, rng=random.Random(1)) if given["install"] else None
    learned: dict[Prefix, Hops] = {}

    def take(changed: Mapping[Prefix, Hops]) -> None:
        learned.update(changed)
        for prefix in [one for one, hops in changed.items() if not hops]:
            del learned[prefix]
        if forwarding is not None:
            forwarding.learned(changed)

    settled = (lambda: None) if forwarding is None else forwarding.settled
    speaker = NativeSpeaker(
        settings, "lab", addresses, learned=take, settled=settled, restarting=False
    )
    wanted: set[Prefix] = set()

    async def talk(stream: trio.SocketStream) -> None:
        rest = b""
        async for octets in stream:
            rest += octets
            while b"\n" in rest:
                line, rest = rest.split(b"\n", 1)
                asked = json.loads(line)
                if asked:
                    wanted.update(of_network(ip_network(one)) for one in asked["add"])
                    wanted.difference_update(of_network(ip_network(one)) for one in asked["remove"])
                    speaker.want(Desired(announced=frozenset(wanted)))
                found = {one.address: one._asdict() for one in speaker.peers()}
                answer = json.dumps({"peers": found, "learned": len(learned)}).encode()
                await stream.send_all(answer + b"\n")

    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(given["socket"])
    listener.listen(4)
    async with trio.open_nursery() as nursery:
        if forwarding is not None:
            nursery.start_soon(forwarding.run)
        nursery.start_soon(speaker.run)
        speaker.synced()
        await trio.serve_listeners(talk, [trio.SocketListener(listener)])


if __name__ == "__main__":
    trio.run(serve, json.loads(sys.argv[1]))
