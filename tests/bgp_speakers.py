"""Native speakers for tests: joined by a network in memory, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import trio
from trio.testing import memory_stream_pair

from calico_bgp.ports import Desired, Hops, MeshHost
from calico_bgp.prefix import Address, Prefix, of_network
from calico_bgp.speaker import NativeSpeaker
from calico_bgp.transport import Accept, Dial, Link
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule
from discod.model.settings import ListenAddress

ANY = (
    PrefixRule(ip_network("0.0.0.0/0"), le=32),
    PrefixRule(ip_network("::/0"), le=128),
)


def prefixes(*texts: str) -> frozenset[Prefix]:
    return frozenset(of_network(ip_network(text)) for text in texts)


def wish(*texts: str, **more: Any) -> Desired:
    return Desired(announced=prefixes(*texts), **more)


def peer(address: str, asn: int, **more: Any) -> BgpPeerSettings:
    return BgpPeerSettings(ip_address(address), asn, **{"imports": ANY, "exports": ANY, **more})


def host(name: str, address: str, asn: int = 64512, *, reflector: bool = False) -> MeshHost:
    return MeshHost(name, ip_address(address), 179, asn, reflector)


class Net:
    """Who can be connected to, by address."""

    def __init__(self) -> None:
        self.ends: dict[Address, End] = {}
        self.cut: set[Address] = set()

    def end(self, *addresses: str) -> End:
        return End(self, [ip_address(one) for one in addresses])


class End:
    """One host's `Transport`."""

    def __init__(self, net: Net, addresses: list[Address]) -> None:
        self.net, self.addresses = net, addresses
        self.strangers = 0
        self.dials: Mapping[Address, Dial] = {}
        self.links: list[Link] = []
        self.accept: Accept | None = None
        self.attempts = 0

    async def connect(self, dial: Dial) -> Link:
        self.attempts += 1
        await trio.sleep(0.001)
        other = self.net.ends.get(dial.address)
        if other is None or other.accept is None or dial.address in self.net.cut:
            raise ConnectionRefusedError(111, "Connection refused")
        version = dial.address.version
        local = dial.source or next(a for a in self.addresses if a.version == version)
        ours, theirs = memory_stream_pair()
        self.links.append(Link(ours, local, dial.address))
        back = Link(theirs, dial.address, local)
        other.links.append(back)
        if not other.accept(back):
            other.strangers += 1
            await theirs.aclose()
        return self.links[-1]

    def expect(self, endpoints: Iterable[ListenAddress], dials: Mapping[Address, Dial]) -> None:
        self.dials = dict(dials)

    async def serve(self, accept: Accept) -> None:
        self.accept = accept
        for address in self.addresses:
            self.net.ends[address] = self
        try:
            await trio.sleep_forever()
        finally:
            self.accept = None

    def sever(self) -> None:
        """Its connections break."""
        for link in self.links:
            stream: Any = link.stream
            stream.send_stream.close()
            stream.receive_stream.close()
        self.links.clear()


class Rig:
    """A speaker, and what it handed on."""

    def __init__(self, net: Net, settings: BgpSettings, name: str, *addresses: str, **more: Any):
        self.learned: dict[Prefix, Hops] = {}
        self.calls: list[Mapping[Prefix, Hops]] = []
        self.settled: list[float] = []
        self.end = net.end(*addresses)
        self.scope = trio.CancelScope()
        self.speaker = NativeSpeaker(
            settings,
            name,
            [ip_address(one) for one in addresses],
            learned=self._learn,
            settled=lambda: self.settled.append(trio.current_time()),
            transport=self.end,
            rng=random.Random(name),
            **more,
        )

    def _learn(self, changed: Mapping[Prefix, Hops]) -> None:
        self.calls.append(changed)
        for prefix, hops in changed.items():
            if hops:
                self.learned[prefix] = hops
            else:
                del self.learned[prefix]

    async def run(self) -> None:
        with self.scope:
            await self.speaker.run()

    def hops(self, text: str) -> list[str]:
        found = self.learned.get(of_network(ip_network(text)), ())
        return [str(hop.gateway) for hop in found]

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.speaker.peers()]


async def until(condition: Callable[[], bool], most: float = 30.0) -> None:
    """Wait in virtual time.

    Raises:
        AssertionError: it did not come.
    """
    end = trio.current_time() + most
    while not condition():
        assert trio.current_time() < end, "it did not come"
        await trio.sleep(0.01)
