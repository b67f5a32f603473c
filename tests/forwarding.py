"""A forwarder for tests, and upstreams that follow scripts, over a network made of nothing.

The network is a fake so that trio's autojump clock can drive it; `tests/unit/test_forward.py` has
the same over real sockets.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, TypeVar

import dnslib
import trio

from discod.metrics import Metrics
from discod.model.settings import DnsSettings, ListenAddress
from resolver.forwarding.exchange import Exchange
from resolver.forwarding.forwarder import Forwarder
from resolver.forwarding.reply import Relayed
from resolver.wire import Query, read_query

T = TypeVar("T")

Said = bytes | OSError | None | tuple[float, bytes]
"""A reply, an error of the network, silence, or a reply after so many seconds."""
Script = Callable[[Any, str], Said]
"""(query as dnslib reads it, transport) -> what comes of it."""

UP, OTHER, THIRD = (ListenAddress(ip_address(f"192.0.2.{n}"), 53) for n in (51, 52, 53))


def reply(query: Any, count: int = 1, rcode: int = 0, ttl: int = 30, **header: int) -> bytes:
    """A reply with `count` addresses."""
    made = query.reply()
    made.ar = []
    made.header.set_rcode(rcode)
    for name, value in header.items():
        setattr(made.header, name, value)
    for i in range(count):
        rdata = dnslib.A(f"10.7.{i >> 8}.{i & 255}")
        made.add_answer(dnslib.RR(str(query.q.qname), 1, ttl=ttl, rdata=rdata))
    return bytes(made.pack())


def negative(query: Any, rcode: int, ttl: int, minimum: int) -> bytes:
    """NXDOMAIN or NODATA with the SOA of ``example.``."""
    made = dnslib.DNSRecord.parse(reply(query, 0, rcode))
    made.add_auth(
        dnslib.RR(
            "example.",
            6,
            ttl=ttl,
            rdata=dnslib.SOA("ns.example.", "root.example.", (1, 2, 3, 4, minimum)),
        )
    )
    return bytes(made.pack())


def options(query: Any) -> dict[int, bytes]:
    """The EDNS options of a message."""
    return {o.code: bytes(o.data) for rr in query.ar if rr.rtype == 41 for o in rr.rdata}


def with_options(raw: bytes, *found: tuple[int, bytes], rcode: int = 0) -> bytes:
    """A reply with an OPT record; `rcode` is the extended one."""
    made = dnslib.DNSRecord.parse(raw)
    made.header.rcode = rcode & 15
    opts = [dnslib.EDNSOption(code, data) for code, data in found]
    made.add_ar(dnslib.EDNS0(udp_len=1232, ext_rcode=rcode >> 4, opts=opts))
    return bytes(made.pack())


class Net(Exchange):
    """The network: an upstream at each address that has a script."""

    def __init__(self, scripts: dict[ListenAddress, Script]) -> None:
        self.scripts = scripts
        self.seen: list[tuple[ListenAddress, str, Any]] = []

    def asked(self, server: ListenAddress) -> int:
        """How many queries came to `server`, probes left out."""
        return sum(s == server and q.q.qname != "." for s, _, q in self.seen)

    async def udp(
        self, server: ListenAddress, packet: bytes, take: Callable[[bytes], T | None]
    ) -> T:
        taken = take(await self._say(server, "udp", packet))
        if taken is None:
            await trio.sleep_forever()
        assert taken is not None
        return taken

    async def tcp(self, server: ListenAddress, packet: bytes) -> bytes:
        return await self._say(server, "tcp", packet)

    async def _say(self, server: ListenAddress, transport: str, packet: bytes) -> bytes:
        query = dnslib.DNSRecord.parse(packet)
        self.seen.append((server, transport, query))
        await trio.lowlevel.checkpoint()
        said = self.scripts[server](query, transport)
        if isinstance(said, tuple):
            await trio.sleep(said[0])
            said = said[1]
        if isinstance(said, OSError):
            raise said
        if said is None:
            await trio.sleep_forever()
        assert isinstance(said, bytes)
        return said


class Rig:
    """A running forwarder and what it counts."""

    def __init__(self, settings: DnsSettings, exchange: Exchange | None) -> None:
        self.metrics = Metrics()
        self.own: set[ListenAddress] = set()
        self.forwarder = Forwarder(
            settings, self.metrics, self.own.__contains__, rng=random.Random(1), exchange=exchange
        )

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def tries(self) -> dict[str, int]:
        """How often each result came of a try."""
        found: dict[str, int] = {}
        for metric in self.metrics.dns_forwards.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    result = sample.labels["result"]
                    found[result] = found.get(result, 0) + int(sample.value)
        return found

    def looks(self) -> dict[str, int]:
        """How questions fared with the cache."""
        return {
            sample.labels["result"]: int(sample.value)
            for metric in self.metrics.dns_cache.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }

    async def relayed(self, query: bytes, limit: int = 1232, client: str = "") -> Relayed:
        done = await self.forwarder.ask(read(query), limit, client)
        assert len(done.packet) <= limit
        assert done.packet[:2] == query[:2]
        return done

    async def ask(self, query: bytes, limit: int = 1232, client: str = "") -> Any:
        """The response as dnslib reads it."""
        done = await self.relayed(query, limit, client)
        response = dnslib.DNSRecord.parse(done.packet)
        assert response.header.rcode == done.rcode & 15
        return response


def read(query: bytes) -> Query:
    """A query as the server reads it."""
    found = read_query(query)
    assert found is not None
    return found


@asynccontextmanager
async def running(settings: DnsSettings, exchange: Exchange | None = None) -> AsyncIterator[Rig]:
    """A forwarder that runs."""
    rig = Rig(settings, exchange)
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.forwarder.run)
        yield rig
        nursery.cancel_scope.cancel()
