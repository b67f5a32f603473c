"""BIND, NSD and Knot hold the zone: AXFR once, then IXFR on NOTIFY, all of it signed.

Two primaries, as two hosts of a cluster would be: each secondary takes changes from whichever it
asks.
"""

from __future__ import annotations

import base64
import contextlib
import random
import re
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio

from discod.metrics import Metrics
from discod.model.catalog import CatalogState
from discod.model.endpoint import Alias, Endpoint, EndpointId, Host
from discod.model.schema import encode_alias, encode_endpoint, encode_host
from discod.model.settings import DnsSettings, ListenAddress, TransferSettings
from resolver import udp
from resolver.answer import Responder, Transport
from resolver.tcp import TcpServer
from resolver.transfer.service import TransferService
from resolver.transfer.tsig import Signer
from resolver.wire import read_records, skip_name
from resolver.zone import Zone
from tests.lab.secondaries import KEY_NAME, PROGRAMS, Server
from tests.resolving import BETA, HOSTS, KEYS, OWN, PUBLISHED, WEB, endpoint, packet

pytestmark = pytest.mark.lab

D = "discod.internal"
SECRET = base64.b64encode(bytes(range(1, 33))).decode()
TSIG = f"hmac-sha256:{KEY_NAME}:{SECRET}"
NAMES = tuple(PROGRAMS)
SOON = 1.0
"""Seconds in which a change has to be at a secondary: half of all in half of it, and the last in
three times as much, for the sake of machines that have other work to do."""

Events = list[tuple[str, bytes | None]]

STRANGE = (
    endpoint("text", "alpha-t-1", "10.3.0.1", attributes=(("quote", 'a "b" \\ ; c'), ("u", "ü"))),
    endpoint("text", "alpha-t-2", "10.3.0.2", text="x" * 600),
    endpoint("site", "beta-s-443", "10.3.0.3", 443, alpn=("h2", "h3"), ttl=30, host="beta"),
)
MANY = tuple(
    endpoint(f"svc{n % 60}", f"alpha-m{n}-80", str(ip_address("10.50.0.0") + n), tags=("t",))
    for n in range(600)
)
ALIAS = Alias("front", "alpha", f"web.{D}", "alpha")
OUTSIDE = Alias("mail", "alpha", "mx.example.com", "alpha")


def put(*endpoints: Endpoint) -> Events:
    return [(KEYS.record(e.id), encode_endpoint(e)) for e in endpoints]


def drop(*ids: EndpointId) -> Events:
    return [(KEYS.record(id_), None) for id_ in ids]


# The primaries ----------------------------------------------------------------------------------


class Primary:
    """One host's resolver, with its zone open for secondaries."""

    def __init__(self, own: Host, settings: TransferSettings) -> None:
        dns = DnsSettings(forward=False)
        self.metrics = Metrics()
        self.zone = Zone(dns, own)
        self.responder = Responder(self.zone, dns, random.Random(1))
        self.responder.ready = True
        self.scope = trio.CancelScope()
        self._made: Callable[[], TransferService] = lambda: TransferService(
            settings, Zone(dns, own), own.name, self.metrics, rng=random.Random(2)
        )
        self.transfers = self._made()
        self.tcp = TcpServer(self.handle, _never, lambda count: None)
        self._running = trio.CancelScope()

    async def serve(self, port: int) -> None:
        """Serve on a port of loopback until `scope` is cancelled."""
        with self.scope:
            (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
            with udp.bind(ListenAddress(ip_address("127.0.0.1"), port)) as datagram:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(udp.serve, datagram, self.handle, _never, nursery)
                    nursery.start_soon(self.tcp.serve, listener)
                    while True:
                        with trio.CancelScope() as self._running:
                            await self.transfers.run()

    def restart(self) -> None:
        """Forget all that was published, as a daemon that starts again."""
        self.transfers = self._made()
        self._running.cancel()

    def handle(
        self, packet: bytes, client: str, transport: Transport
    ) -> bytes | Iterator[bytes] | None:
        """What the resolver does with a packet, as far as secondaries see it."""
        outcome = self.responder.respond(packet, client, transport)
        query = outcome.query
        if query is None or outcome.packet is None:
            return None
        if outcome.transfer:
            return self.transfers.respond(packet, query, client, transport)
        if query.tsig is None:
            return outcome.packet
        signer = self.transfers.verify(packet, query)
        if isinstance(signer, Signer):
            return self.transfers.sign(outcome.packet, signer)
        return signer

    def value(self, **labels: str) -> float:
        name = "discod_dns_transfers_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


async def _never(query: None, transport: Transport) -> bytes:
    raise AssertionError("nothing is forwarded")


@dataclass
class Cluster:
    """The store's word, and the hosts that follow it."""

    ports: Sequence[int]
    primaries: list[Primary] = field(default_factory=list)
    secondaries: dict[str, Server] = field(default_factory=dict)
    state: CatalogState = field(default_factory=lambda: CatalogState(KEYS))
    revision: int = 100

    def apply(self, events: Events) -> int:
        """Change the store; the new serial."""
        self.revision += 1
        told = [(key, value, self.revision) for key, value in events]
        change = self.state.apply(told, self.revision, 0.0)
        for primary in self.primaries:
            primary.zone.update(self.state.catalog, change)
            primary.transfers.update(self.state.catalog, change)
        return self.revision

    def count(self, kind: str, result: str) -> int:
        """Transfers given by all primaries."""
        return int(sum(p.value(kind=kind, result=result) for p in self.primaries))

    def tell(self) -> str:
        """The logs of all, for a failed test."""
        return "\n".join(f"--- {s.name}\n{s.log[-5000:]}" for s in self.secondaries.values())


def free_port() -> int:
    """A port of loopback that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
            ):
                datagram.bind(("127.0.0.1", port))
                return port


@contextlib.asynccontextmanager
async def lab(
    folder: Path,
    *names: str,
    journal: int = 1000,
    keys: bool = True,
    allow: str = "127.0.0.0/8",
) -> AsyncIterator[Cluster]:
    """Two primaries and the named secondaries, which hold the zone when this is entered."""
    key_file = folder / "transfer.keys"
    key_file.write_text(f"{KEY_NAME} hmac-sha256 {SECRET}\n")
    cluster = Cluster((free_port(), free_port()))
    ports = {name: free_port() for name in names}
    settings = TransferSettings(
        allow=(ip_network(allow),),
        keys=str(key_file) if keys else "",
        notify=tuple(ListenAddress(ip_address("127.0.0.1"), port) for port in ports.values()),
        journal=journal,
    )
    cluster.primaries = [Primary(own, settings) for own in (OWN, BETA)]
    everything: Events = [(KEYS.host(h.name), encode_host(h)) for h in HOSTS]
    everything += put(*WEB, *PUBLISHED, *STRANGE, *MANY)
    everything += [(KEYS.record(a.id), encode_alias(a)) for a in (ALIAS, OUTSIDE)]
    cluster.apply(everything)
    async with contextlib.AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        for primary, port in zip(cluster.primaries, cluster.ports, strict=True):
            nursery.start_soon(primary.serve, port)
        try:
            for name, port in ports.items():
                server = Server(name, folder / name, port, cluster.ports, SECRET)
                cluster.secondaries[name] = server
                stack.push_async_callback(server.stop)
                await server.start()
            for server in cluster.secondaries.values():
                await until(lambda s=server: serial_of(s.port), cluster.revision, 30)  # type: ignore[misc]
            yield cluster
        except BaseException:  # told, then raised on
            print(cluster.tell())
            raise


# Asking -----------------------------------------------------------------------------------------


async def serial_of(port: int) -> int | None:
    """The SOA serial that the server at `port` answers with; None: none."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.connect(("127.0.0.1", port))
        with contextlib.suppress(OSError), trio.move_on_after(0.5):
            await sock.send(packet(D, "SOA", rd=False))
            reply = await sock.recv(4096)
            if reply[6:8] == b"\0\1":
                after = skip_name(reply, 12) + 4
                (soa,) = read_records(reply, after, 1)  # not by dnslib: this is asked often
                return int.from_bytes(reply[soa.end - 20 : soa.end - 16], "big")
    return None


async def until(ask: Callable[[], Awaitable[object]], wanted: object, seconds: float) -> float:
    """Ask until the answer is `wanted`; how long that took."""
    start = time.perf_counter()
    seen: object = None
    with trio.move_on_after(seconds):
        while True:
            seen = await ask()
            if seen == wanted:
                return time.perf_counter() - start
            await trio.sleep(0.005)
    raise AssertionError(f"not within {seconds} s: {wanted!r}; last: {seen!r}")


async def run(*argv: str) -> tuple[int, str]:
    """A program's status and output."""
    with trio.fail_after(30):
        done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


async def dig(port: int, *args: str, tsig: str = TSIG) -> str:
    sign = ["-y", tsig] if tsig else []
    at = ["@127.0.0.1", "-p", str(port), "+time=5", "+tries=1"]
    return (await run("dig", *at, *sign, *args))[1]


async def zone_text(port: int) -> list[str]:
    """The zone as `dig AXFR` prints it, sorted; the SOA once."""
    output = await dig(port, D, "AXFR", "+noall", "+answer", "+onesoa")
    lines = [re.sub(r"\s+", " ", line) for line in output.splitlines() if line[:1] not in ("", ";")]
    return sorted(line for line in lines if " ANY TSIG " not in line)


async def same_zone(cluster: Cluster) -> int:
    """Assert that all hold the same; the number of records."""
    ours = await zone_text(cluster.ports[0])
    assert ours == await zone_text(cluster.ports[1])
    assert len(ours) == len(set(ours))
    for name, server in cluster.secondaries.items():
        theirs = await zone_text(server.port)
        assert set(theirs) ^ set(ours) == set(), name
        assert theirs == ours, name
    return len(ours)


# Tests ------------------------------------------------------------------------------------------


LAST_IXFR = {
    "bind": rf"zone {D}/IN: transferred serial {{}}: TSIG '{KEY_NAME}'",
    "nsd": rf"zone {D} serial \d+ is updated to {{}}",
    "knot": rf"\[{D}\.\] IXFR, incoming, remote \S+, finished",
}
"""What the log of each says of a change that it took."""


async def settled(cluster: Cluster) -> int:
    """Wait until no secondary asks any more; how often the whole zone was taken."""
    before = -1
    while True:
        now = cluster.count("axfr", "whole") + cluster.count("ixfr", "whole")
        if now == before:
            return now
        before = now
        await trio.sleep(0.3)


async def test_changes_reach_every_secondary_by_ixfr(tmp_path: Path) -> None:
    took: dict[str, list[float]] = {name: [] for name in NAMES}
    async with lab(tmp_path, *NAMES) as cluster:
        assert await same_zone(cluster) > 4000
        whole = await settled(cluster)
        assert whole >= len(NAMES)
        before = cluster.count("ixfr", "incremental")
        solo = endpoint("solo", "alpha-x-1", "10.9.9.9")
        steps: list[Events] = [
            put(solo),
            put(replace(solo, tags=("new",), weight=7)),
            put(*(replace(e, weight=50) for e in MANY[:50])),
            drop(solo.id),
            drop(ALIAS.id),
            [(KEYS.host("gamma"), encode_host(Host("gamma", (ip_address("192.0.2.3"),))))],
            [(KEYS.host("gamma"), None)],
            drop(*(e.id for e in MANY[:100])),
        ]
        for events in steps:
            serial = cluster.apply(events)

            async def watch(name: str, server: Server, serial: int = serial) -> None:
                took[name].append(await until(lambda: serial_of(server.port), serial, 10))

            async with trio.open_nursery() as nursery:
                for name, server in cluster.secondaries.items():
                    nursery.start_soon(watch, name, server)
            await trio.sleep(0.4)  # Knot 3.2 may let what follows sooner wait for a second
        assert await settled(cluster) == whole, "a secondary took the whole zone again"
        assert cluster.count("ixfr", "incremental") - before >= len(NAMES) * len(steps)
        await same_zone(cluster)
        for name, server in cluster.secondaries.items():
            assert re.search(LAST_IXFR[name].format(serial), server.log), name
    for name, times in took.items():
        median, worst = statistics.median(times) * 1000, max(times) * 1000
        print(f"{name}: median {median:.0f} ms, worst {worst:.0f} ms")
        # Alone on the machine the worst of Knot is 0.8 s, of the others a tenth of that.
        assert median < SOON * 500 and worst < SOON * 3000, name


@pytest.mark.parametrize("name", NAMES)
async def test_who_was_away_for_longer_than_the_journal_takes_it_all(
    tmp_path: Path, name: str
) -> None:
    async with lab(tmp_path, name, journal=3) as cluster:
        server = cluster.secondaries[name]
        cluster.apply(drop(MANY[0].id))
        await until(lambda: serial_of(server.port), cluster.revision, 10)
        await server.stop()
        whole = await settled(cluster)
        for n in range(1, 8):
            serial = cluster.apply(drop(MANY[n].id))
            await trio.sleep(0.15)  # published one by one
        await server.start()
        await until(lambda: serial_of(server.port), serial, 20)
        assert await settled(cluster) == whole + 1
        await same_zone(cluster)
        whole = await settled(cluster)
        cluster.apply(drop(MANY[8].id))  # and is back to differences
        await until(lambda: serial_of(server.port), cluster.revision, 10)
        assert await settled(cluster) == whole


@pytest.mark.parametrize("name", NAMES)
async def test_who_was_away_for_less_takes_what_it_missed(tmp_path: Path, name: str) -> None:
    async with lab(tmp_path, name) as cluster:
        server = cluster.secondaries[name]
        cluster.apply(drop(MANY[0].id))  # so that a journal is on its disk
        await until(lambda: serial_of(server.port), cluster.revision, 10)
        await server.stop()
        whole = await settled(cluster)
        for n in range(1, 8):
            serial = cluster.apply(drop(MANY[n].id))
            await trio.sleep(0.15)
        await server.start()
        await until(lambda: serial_of(server.port), serial, 20)
        if name != "nsd":  # NSD writes what it has to its disk once an hour (zonefiles-write)
            assert await settled(cluster) == whole
        await same_zone(cluster)


async def test_a_host_that_is_gone_and_one_that_starts_again(tmp_path: Path) -> None:
    """Secondaries go on with the other host; its fresh journal begins at what they have."""
    async with lab(tmp_path, *NAMES) as cluster:
        whole = await settled(cluster)
        cluster.primaries.pop(0).scope.cancel()
        other = cluster.primaries[0]
        serial = cluster.apply(drop(MANY[0].id, MANY[1].id))
        for server in cluster.secondaries.values():
            await until(lambda s=server: serial_of(s.port), serial, 15)  # type: ignore[misc]
        other.restart()
        other.transfers.update(cluster.state.catalog, None)
        await trio.sleep(0.5)
        serial = cluster.apply(drop(MANY[2].id))
        for server in cluster.secondaries.values():
            await until(lambda s=server: serial_of(s.port), serial, 15)  # type: ignore[misc]
        assert cluster.count("ixfr", "incremental") >= 2 * len(NAMES)
        assert cluster.count("axfr", "whole") + cluster.count("ixfr", "whole") <= whole
        ours = await zone_text(cluster.ports[1])
        for server in cluster.secondaries.values():
            assert await zone_text(server.port) == ours


async def test_keys_are_demanded(tmp_path: Path) -> None:
    async with lab(tmp_path) as cluster:
        port = cluster.ports[0]
        wrong = f"hmac-sha256:{KEY_NAME}:{base64.b64encode(bytes(32)).decode()}"
        assert "Transfer failed" in await dig(port, D, "AXFR", tsig="")
        assert "BADSIG" in await dig(port, D, "AXFR", tsig=wrong)
        assert "BADKEY" in await dig(port, D, "AXFR", tsig=f"hmac-sha256:other:{SECRET}")
        assert "BADKEY" in await dig(port, D, "AXFR", tsig=f"hmac-sha512:{KEY_NAME}:{SECRET}")
        assert cluster.count("axfr", "refused") == 1 and cluster.count("axfr", "notauth") == 3
        assert "Transfer failed" in await dig(port, D, "IXFR=1", tsig="")
        assert cluster.count("ixfr", "refused") == 1
        output = await dig(port, D, "SOA")
        assert "NOERROR" in output and "Couldn't verify" not in output
        assert "Couldn't verify" not in await dig(port, D, "AXFR")
        late = await run(
            "kdig", "@127.0.0.1", "-p", str(port), "-y", wrong, D, "SOA", "+retry=0", "+time=3"
        )
        assert "BADSIG" in late[1] or "NOTAUTH" in late[1]


async def test_the_list_of_clients(tmp_path: Path) -> None:
    async with lab(tmp_path, allow="192.0.2.0/24") as cluster:
        output = await dig(cluster.ports[0], D, "AXFR")
        assert "Transfer failed" in output
        assert cluster.count("axfr", "refused") == 1


async def test_dig_and_kdig(tmp_path: Path) -> None:
    """Both check every message's signature, and the form of the whole."""
    async with lab(tmp_path) as cluster:
        port = cluster.ports[0]
        first = cluster.revision
        await trio.sleep(0.3)
        cluster.apply(put(endpoint("solo", "alpha-x-1", "10.9.9.9")))
        await trio.sleep(0.3)
        ours = await zone_text(port)
        status, by_kdig = await run(
            "kdig", "@127.0.0.1", "-p", str(port), "-y", TSIG, D, "AXFR", "+noall", "+answer"
        )
        assert status == 0
        assert len({line for line in by_kdig.splitlines() if line[:1] not in ("", ";")}) == len(
            ours
        )
        difference = await dig(port, D, f"IXFR={first}", "+noall", "+answer")
        lines = [line for line in difference.splitlines() if line[:1] not in ("", ";")]
        lines = [line for line in lines if "TSIG" not in line]
        assert sum("SOA" in line.split() for line in lines) == 4
        assert 8 < len(lines) < 20 and all("solo" in x or "SOA" in x for x in lines)
        status, output = await run(
            "kdig", "@127.0.0.1", "-p", str(port), "-y", TSIG, D, f"IXFR={first}"
        )
        assert status == 0 and "solo" in output and "WARNING" not in output
        small = await dig(port, D, f"IXFR={first}", "+notcp", "+bufsize=4096")
        assert "solo" in small and "Couldn't verify" not in small
        alone = await dig(port, D, "IXFR=1", "+notcp", "+noall", "+answer")
        assert sum("SOA" in line.split() for line in alone.splitlines()) == 1


async def test_ldns_finds_no_difference(tmp_path: Path) -> None:
    async with lab(tmp_path, "knot") as cluster:
        cluster.apply(drop(MANY[0].id))
        server = cluster.secondaries["knot"]
        await until(lambda: serial_of(server.port), cluster.revision, 10)
        files = []
        for name, port in (("ours", cluster.ports[0]), ("theirs", server.port)):
            file = tmp_path / name
            file.write_text("\n".join(await zone_text(port)) + "\n")
            files.append(str(file))
        status, output = await run("ldns-compare-zones", "-a", "-s", *files)
        assert status == 0, output
        assert re.search(r"\+0\s+-0\s+~0", output), output
