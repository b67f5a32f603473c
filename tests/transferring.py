"""A secondary for the tests of zone transfer: asks, and applies what it gets, to the letter.

dnslib reads the messages, so nothing of discod's own codec is taken on trust. A record that is to
be removed and is not there, or to be added and is, fails the test at once: real secondaries fall
back to the whole zone then, and would hide the fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import dnslib

from discod.model.catalog import Catalog, CatalogState, Change
from discod.model.endpoint import Endpoint, EndpointId, Host
from discod.model.settings import DnsSettings
from resolver.transfer.publisher import Publisher
from resolver.transfer.respond import Transfers
from resolver.wire import Query, read_query
from resolver.zone import Zone
from tests.resolving import KEYS, OWN

D = "discod.internal"
AXFR, IXFR, SOA, TSIG, OPT = 252, 251, 6, 250, 41
NOW = 1_800_000_000.0

TEST_NETS = (ip_network("192.0.2.0/24"),)

Record = tuple[str, int, int, str]
"""Owner, type, TTL, RDATA."""


def request(
    kind: int = AXFR,
    serial: int | None = None,
    *,
    name: str = D,
    cls: int = 1,
    size: int | None = None,
    id_: int = 77,
) -> bytes:
    """A request for a transfer; `serial` goes into the authority section."""
    query = dnslib.DNSRecord(
        dnslib.DNSHeader(id=id_, qr=0, rd=0), q=dnslib.DNSQuestion(name, kind, cls)
    )
    if serial is not None:
        times = (serial, 60, 10, 86400, 0)
        query.add_auth(dnslib.RR(name, SOA, rdata=dnslib.SOA("ns.example", "m.example", times)))
    if size is not None:
        query.add_ar(dnslib.EDNS0(udp_len=size))
    return bytes(query.pack())


def query_of(packet: bytes) -> Query:
    query = read_query(packet)
    assert query is not None
    return query


def record_of(rr: Any) -> Record:
    return str(rr.rname).lower(), rr.rtype, rr.ttl, str(rr.rdata)


def serial_in(record: Record) -> int:
    return int(record[3].split()[2])


class Secondary:
    """Holds the zone as far as it was transferred."""

    def __init__(self) -> None:
        self.records: set[Record] = set()
        """All but the SOA."""
        self.soa: Record | None = None
        self.kinds: list[str] = []
        """What each transfer was: ``whole``, ``incremental`` or ``current``."""

    @property
    def serial(self) -> int | None:
        return serial_in(self.soa) if self.soa else None

    def refresh(self, transfers: Transfers, *, transport: str = "tcp") -> str:
        """Ask for what changed, or for all; returns what came."""
        packet = request(AXFR if self.soa is None else IXFR, self.serial)
        messages = transfers.respond(packet, query_of(packet), "192.0.2.9", transport)
        return self.take(messages)

    def take(self, messages: Iterable[bytes]) -> str:
        """Apply a response."""
        found: list[Record] = []
        for number, message in enumerate(messages):
            parsed = dnslib.DNSRecord.parse(message)
            assert parsed.header.rcode == 0, (number, parsed.header.rcode)
            assert parsed.header.qr and parsed.header.aa and not parsed.header.tc
            found += [record_of(rr) for rr in parsed.rr]
        kind = self._apply(found)
        self.kinds.append(kind)
        return kind

    def _apply(self, found: list[Record]) -> str:
        first = found[0]
        assert first[1] == SOA
        if len(found) == 1:
            return "current"
        assert found[-1] == first, "the last record is the SOA of the first"
        if found[1][1] != SOA:
            body = found[1:-1]
            assert all(record[1] != SOA for record in body)
            assert len(set(body)) == len(body), "records are listed twice"
            self.records = set(body)
            self.soa = first
            return "whole"
        removing = False
        for record in found[1:-1]:
            if record[1] == SOA:
                removing = not removing
                if removing:
                    assert record == self.soa, "a difference begins at what is there"
                self.soa = record
            elif removing:
                self.records.remove(record)
            else:
                assert record not in self.records, record
                self.records.add(record)
        assert not removing and self.soa == first
        return "incremental"


class Primary:
    """One host: a Catalog that follows the store, and what it transfers."""

    def __init__(
        self,
        limit: int = 100,
        own: Host = OWN,
        settings: DnsSettings | None = None,
        udp_size: int = 1232,
    ) -> None:
        self.state = CatalogState(KEYS)
        self.zone = Zone(settings or DnsSettings(), own)
        self.publisher = Publisher(self.zone, own.name, limit)
        self.counted: list[tuple[str, str]] = []
        self.now = NOW
        self.transfers = Transfers(
            self.publisher,
            wall=lambda: self.now,
            count=lambda kind, result: self.counted.append((kind, result)),
            udp_size=udp_size,
        )
        self.transfers.configure(DnsSettings().allow + TEST_NETS, {}, signed=False)

    @property
    def catalog(self) -> Catalog:
        return self.state.catalog

    def hidden(self) -> dict[EndpointId, Endpoint]:
        """What the store holds and this host takes for gone."""
        hidden = {}
        for id_ in (*self.state._suppressed, *self.state._hinted):
            record = self.state._records.get(id_)
            if isinstance(record, Endpoint):
                hidden[id_] = record
        return hidden

    def note(self, change: Change | None) -> None:
        self.publisher.note(self.catalog, change, self.hidden())

    def apply(self, events: Iterable[tuple[str, bytes | None]], revision: int) -> None:
        """A change of the store."""
        told = [(key, value, revision) for key, value in events]
        self.note(self.state.apply(told, revision, 0.0))

    def publish(self) -> None:
        while self.publisher.step():
            pass


def wanted(catalog: Catalog, settings: DnsSettings | None = None) -> set[Record]:
    """All records that a zone made anew from `catalog` holds, less its SOA."""
    own = OWN
    if catalog.hosts and OWN.name not in catalog.hosts:  # made by a host that the store knows
        own = next(iter(catalog.hosts.values()))
    zone = Zone(settings or DnsSettings(), own)
    zone.update(catalog, None)
    rrs = [*zone.apex_rrs()[1:], *zone.host_rrs()]
    for service in dict.fromkeys([*catalog.services, *catalog.aliases]):
        rrs += zone.service_rrs(service)
    found = set()
    for rr in rrs:
        head = b"".join(bytes((len(label),)) + label for label in rr.owner) + b"\0"
        wire = head + struct.pack(">HHIH", rr.type, 1, rr.ttl, len(rr.rdata)) + rr.rdata
        found.add(record_of(dnslib.RR.parse(dnslib.DNSBuffer(wire))))
    return found
