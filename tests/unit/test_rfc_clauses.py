"""The clauses of the RFCs that a packet can show, one by one: a packet in, what must come out.

Each row names RFC and section, and says the clause in a sentence. Rows are asked of an *answerer*:
whatever takes a packet and gives a response. What they expect is written down by hand and read by
an independent codec (dnslib) or octet by octet, never by the resolver's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

import dnslib
import pytest

from discod.model.catalog import Catalog
from discod.model.settings import DnsSettings
from resolver.answer import Responder, Transport
from tests.resolving import PUBLISHED, WEB, catalog_of, endpoint, responder

D = "discod.internal"
NOW = 1_800_000_000
CLIENT = "10.1.2.3"
SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
FORWARDED = b"handed to the forwarder"

CATALOG = catalog_of(
    (
        *WEB,
        *PUBLISHED,
        *(endpoint("big", f"alpha-{i}-80", str(ip_address("10.200.0.0") + i)) for i in range(300)),
        endpoint("site", "alpha-c9-443", "10.101.1.9", 443, alpn=("h2", "http/1.1")),
        endpoint("prio", "alpha-c7-80", "10.101.1.7", priority=1),
        endpoint("prio", "beta-c8-80", "10.101.2.8", priority=2, host="beta"),
    )
)


# The answerer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What the answerer is to know."""

    settings: DnsSettings = field(default_factory=lambda: DnsSettings(listen=()))
    catalog: Catalog = CATALOG
    secrets: tuple[bytes, ...] = (SECRET,)
    ready: bool = True
    stale: bool = False


class Answerer(Protocol):
    """Answers one packet; None: silence; `FORWARDED`: it would ask an upstream."""

    def __call__(
        self, packet: bytes, *, transport: Transport, client: str, now: float
    ) -> bytes | None: ...


def slow_path(setup: Setup) -> Answerer:
    to: Responder = responder(setup.catalog, setup.settings, ready=setup.ready, stale=setup.stale)
    to.configure(setup.settings, setup.secrets)

    def exchange(packet: bytes, *, transport: Transport, client: str, now: float) -> bytes | None:
        outcome = to.respond(packet, client, transport, now)
        return FORWARDED if outcome.forward else outcome.packet

    return exchange


ANSWERERS: dict[str, Callable[[Setup], Answerer]] = {"responder": slow_path}
"""Whatever is added here has to pass all rows."""


@pytest.fixture(params=list(ANSWERERS.values()), ids=list(ANSWERERS))
def answerer(request: pytest.FixtureRequest) -> Callable[[Setup], Answerer]:
    made: Callable[[Setup], Answerer] = request.param
    return made


# Packets, by hand -----------------------------------------------------------------------------

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33
OPT, DS, RRSIG, SVCB, HTTPS, AXFR, ANY, CAA = 41, 43, 46, 64, 65, 252, 255, 257
IN, CH, HS, NONE, ANY_CLASS = 1, 3, 4, 254, 255
RD, RA, Z, AD, CD, AA, TC, QR = 0x100, 0x80, 0x40, 0x20, 0x10, 0x400, 0x200, 0x8000


def name(text: str) -> bytes:
    labels = text.encode().split(b".") if text else []
    return b"".join(bytes((len(x),)) + x for x in labels) + b"\0"


def question(qname: str | bytes = f"web.{D}", qtype: int = A, cls: int = IN) -> bytes:
    wire = name(qname) if isinstance(qname, str) else qname
    return wire + struct.pack(">HH", qtype, cls)


def rr(owner: bytes, type_: int, cls: int = IN, ttl: int = 0, rdata: bytes = b"") -> bytes:
    return owner + struct.pack(">HHIH", type_, cls, ttl, len(rdata)) + rdata


def opt(*options: bytes, size: int = 1232, flags: int = 0, version: int = 0) -> bytes:
    return rr(b"\0", OPT, size, version << 16 | flags, b"".join(options))


def option(code: int, data: bytes = b"") -> bytes:
    return struct.pack(">HH", code, len(data)) + data


def message(
    *parts: bytes,
    flags: int = 0,
    qd: int | None = None,
    an: int = 0,
    ns: int = 0,
    ar: int = 0,
    id_: int = 0x1267,
) -> bytes:
    count = (1 if parts else 0) if qd is None else qd
    return struct.pack(">6H", id_, flags, count, an, ns, ar) + b"".join(parts)


def ask(qname: str | bytes = f"web.{D}", qtype: int = A, cls: int = IN, flags: int = 0) -> bytes:
    return message(question(qname, qtype, cls), flags=flags)


def with_opt(*options: bytes, of: bytes = b"", **more: int) -> bytes:
    flags = more.pop("header", 0)
    return message(of or question(), opt(*options, **more), ar=1, flags=flags)


def cookie(data: bytes) -> bytes:
    return option(10, data)


CLIENT_COOKIE = b"\x24\x64\xc4\xab\xcf\x10\xc9\x57"
MAPPED = question(f"web.{D}")


# What came out --------------------------------------------------------------------------------


class Reply:
    """A response taken apart; octet by octet where it matters."""

    def __init__(self, raw: bytes, query: bytes) -> None:
        self.raw = raw
        self.query = query
        self.id, self.flags, *counts = struct.unpack_from(">6H", raw)
        self.qd, self.an, self.ns, self.ar = map(int, counts)
        self.parsed: Any = dnslib.DNSRecord.parse(raw)
        found = [x for x in self.parsed.ar if x.rtype == OPT]
        assert len(found) <= 1
        self.opt: Any = found[0] if found else None
        self.rcode: int = self.flags & 15 | ((self.opt.ttl >> 24) << 4 if self.opt else 0)

    def has(self, *bits: int) -> bool:
        return all(self.flags & bit for bit in bits)

    @property
    def options(self) -> dict[int, bytes]:
        assert self.opt is not None
        return {o.code: bytes(o.data) for o in self.opt.rdata}

    @property
    def errors(self) -> list[int]:
        data = self.options.get(15)
        return [] if data is None else [int.from_bytes(data[:2], "big")]

    def rrs(self, section: str = "rr") -> list[Any]:
        return [x for x in getattr(self.parsed, section) if x.rtype != OPT]

    def data(self, section: str = "rr") -> set[str]:
        return {f"{dnslib.QTYPE.get(x.rtype, x.rtype)} {x.rdata}" for x in self.rrs(section)}

    def types(self, section: str = "rr") -> list[int]:
        return [x.rtype for x in self.rrs(section)]


Check = Callable[[Reply], object]


@dataclass(frozen=True)
class Row:
    rfc: int
    section: str
    clause: str
    packet: bytes
    check: Check | None
    """None: there must be no response."""
    setup: Setup = field(default_factory=Setup)
    transport: Transport = "udp"
    client: str = CLIENT
    now: int = NOW


def rcode(expected: int) -> Check:
    return lambda r: r.rcode == expected


def refused(r: Reply) -> bool:
    return r.rcode == 5 and not r.has(AA) and r.an == 0


def formerr(r: Reply) -> bool:
    return r.rcode == 1 and r.an == r.ns == 0


def nodata(r: Reply) -> bool:
    return r.rcode == 0 and r.has(AA) and r.an == 0 and r.types("auth") == [SOA]


def nxdomain(r: Reply) -> bool:
    return r.rcode == 3 and r.has(AA) and r.an == 0 and r.types("auth") == [SOA]


def answered(r: Reply) -> bool:
    return r.rcode == 0 and r.has(AA) and r.data() == {"A 10.101.1.2", "A 10.101.2.2"}


def setup(**settings: Any) -> Setup:
    return Setup(DnsSettings(listen=(), **settings))


NAMED_SERVER = setup(server_id="ns-a", server_version="discod 1")
NO_FORWARD = setup(forward=False)
EVERYBODY = setup(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")), forward=False)
OWN_REVERSE = setup(reverse_zones=(ip_network("10.101.0.0/16"), ip_network("2001:db8::/32")))
V6_PTR = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
LONG = b"\x3f" + b"x" * 63

# One row a clause reads better than one argument a line.
# fmt: off
RFC1035 = [
    Row(1035, "4.1.1", "The id is copied into the response.", ask(), lambda r: r.id == 0x1267),
    Row(1035, "4.1.1", "QR is set, and the opcode is the query's.", ask(), lambda r: r.has(QR)),
    Row(1035, "4.1.1", "AA is set on answers of our zone.", ask(), lambda r: r.has(AA)),
    Row(1035, "4.1.1", "RD is copied.", ask(flags=RD), lambda r: r.has(RD) and answered(r)),
    Row(1035, "4.1.1", "RD is not set of its own.", ask(), lambda r: not r.has(RD)),
    Row(1035, "4.1.1", "RA says that we forward.", ask(), lambda r: r.has(RA)),
    Row(1035, "4.1.1", "RA is clear where we do not.", ask(), lambda r: not r.has(RA), NO_FORWARD),
    Row(1035, "4.1.1", "Z is zero in responses.", ask(flags=Z), lambda r: not r.has(Z)),
    Row(1035, "4.1.1", "AA, TC and RA of a query are ignored.", ask(flags=AA | TC | RA), answered),
    Row(1035, "4.1.1", "An rcode in a query is ignored.", ask(flags=5), answered),
    Row(1035, "4.1.1", "STATUS is not implemented.", ask(flags=2 << 11), rcode(4)),
    Row(1035, "4.1.1", "Inverse queries are not (RFC 3425).", ask(flags=1 << 11), rcode(4)),
    Row(1035, "4.1.1", "A response is never answered.", ask(flags=QR), None),
    Row(1035, "4.1.1", "Less than a header is no message.", ask()[:11], None),
    Row(1035, "4.1.2", "The question comes back.", ask(), lambda r: r.raw[12:37] == r.query[12:37]),
    Row(1035, "4.1.2", "A question that is cut off is FORMERR.", ask()[:-1], formerr),
    Row(1035, "4.1.3", "A record that is cut off is FORMERR.", with_opt()[:-1], formerr),
    Row(1035, "4.1.3", "Records that are announced and missing.", message(MAPPED, ar=1), formerr),
    Row(1035, "4.1.4", "A question cannot point to itself.", ask(b"\xc0\x0c"), formerr),
    Row(1035, "4.1.4", "Nor forward.", ask(b"\3web\xc0\x30"), formerr),
    Row(1035, "4.1.4", "Label types 01 and 10 are reserved.",
        ask(b"\x41" + b"x" * 65 + b"\0"), formerr),
    Row(1035, "4.1.4", "Owner names may be compressed.",
        message(MAPPED, rr(b"\xc0\x0c", A, rdata=b"\1\2\3\4"), opt(), ar=2), answered),
    Row(1035, "2.3.4", "A name has at most 255 octets.", ask(LONG * 4 + b"\0"), formerr),
    Row(1035, "2.3.4", "One of 255 octets is a name.",
        ask(LONG * 3 + b"\x3d" + b"y" * 61 + b"\0", flags=RD), lambda r: refused(r), NO_FORWARD),
    Row(1035, "4.2.1", "Without EDNS, UDP carries 512 octets; what does not fit sets TC.",
        ask(f"big.{D}"), lambda r: r.has(TC) and len(r.raw) <= 512),
    Row(1035, "4.2.2", "Over TCP all of it fits.",
        ask(f"big.{D}"), lambda r: not r.has(TC) and r.an == 300, transport="tcp"),
    Row(1035, "3.3.13", "SOA stands at the apex.", ask(D, SOA), lambda r: r.types() == [SOA]),
    Row(1035, "3.3.11", "NS stands at the apex, with addresses.",
        ask(D, NS), lambda r: set(r.types()) == {NS} and A in r.types("ar")),
    Row(1035, "3.5", "An IPv4 address has its PTR below in-addr.arpa.",
        ask("2.1.101.10.in-addr.arpa", PTR), lambda r: r.data() == {f"PTR alpha-c1-80.web.{D}."}),
    Row(1035, "3.2.4", "A class that we do not have is refused.", ask(cls=HS), refused),
    Row(1035, "3.2.4", "Class NONE is no class of queries.", ask(cls=NONE), refused),
    Row(1035, "6.2", "With QCLASS * no answer is authoritative.",
        ask(cls=ANY_CLASS), lambda r: r.rcode == 0 and r.an == 2 and not r.has(AA)),
    Row(1034, "4.3.1", "Who does not desire recursion is not forwarded.",
        ask("a.example"), refused),
    Row(1034, "3.7.1", "A zone that is not ours is refused.",
        ask("a.example"), refused, NO_FORWARD),
]

RFC2181 = [
    Row(2181, "5.2", "All TTLs of an RRset are the same.",
        ask(f"big.{D}"), lambda r: len({x.ttl for x in r.rrs()}) == 1, transport="tcp"),
    Row(2181, "9", "TC is not set for what is missing of the additional section.",
        with_opt(of=question(f"web.{D}", SRV), size=512),
        lambda r: r.an == 3 and not r.has(TC) and len(r.raw) <= 512),
    Row(2181, "9", "Where TC is set, there are no additional records.",
        ask(f"big.{D}", SRV), lambda r: r.has(TC) and r.ar == 0),
    Row(2181, "11", "A label may hold any octets.",
        message(question(b"\3\0.!\7unknown" + name(D)), flags=RD), rcode(3)),
    Row(2181, "6.1", "The apex is ours with authority.", ask(D, SOA), lambda r: r.has(AA)),
    Row(2181, "5", "No record comes twice.",
        ask(f"web.{D}"), lambda r: len(r.rrs()) == len(r.data()) == 2),
]

RFC2308 = [
    Row(2308, "2.1", "A name that does not exist: NXDOMAIN and SOA.", ask(f"no.{D}"), nxdomain),
    Row(2308, "2.2", "A name without the type: NODATA and SOA.", ask(qtype=MX), nodata),
    Row(2308, "3", "The TTL of that SOA is its minimum.",
        ask(f"no.{D}"), lambda r: r.rrs("auth")[0].ttl == r.rrs("auth")[0].rdata.times[4] == 0),
    Row(2308, "2.1", "The SOA is owned by the zone's apex.",
        ask(f"no.{D}"), lambda r: str(r.rrs("auth")[0].rname) == f"{D}."),
    Row(8020, "2", "A name above one that exists is there.", ask(f"_tcp.web.{D}"), nodata),
    Row(8020, "2", "Below NXDOMAIN there is nothing.", ask(f"a.b.no.{D}"), nxdomain),
    Row(2308, "2.1", "Own reverse zones have NXDOMAIN too.",
        ask("9.9.101.10.in-addr.arpa", PTR), nxdomain, OWN_REVERSE),
]

OTHERS = [
    Row(2782, "-", "Priority, weight, port and target.",
        ask(f"_http._tcp.web.{D}", SRV),
        lambda r: r.data() == {f"SRV 10 100 80 alpha-c1-80.web.{D}.",
                               f"SRV 10 50 80 beta-c2-80.web.{D}."}),
    Row(2782, "-", "Addresses of the targets come along.",
        ask(f"_http._tcp.web.{D}", SRV),
        lambda r: r.data("ar") == {"A 10.101.1.2", "A 10.101.2.2", "AAAA 2001:db8:1::2"}),
    Row(2782, "-", "Names with underscores are taken in any case.",
        ask(f"_HTTP._Tcp.web.{D}", SRV), lambda r: r.an == 2),
    Row(2782, "-", "The protocol tells.", ask(f"_http._udp.web.{D}", SRV), nxdomain),
    Row(2782, "-", "Targets are not compressed.",
        ask(f"_http._tcp.web.{D}", SRV), lambda r: r.raw.count(name(f"alpha-c1-80.web.{D}")) >= 1),
    Row(2782, "-", "Priorities are the endpoint's.",
        ask(f"prio.{D}", SRV), lambda r: {x.rdata.priority for x in r.rrs()} == {1, 2}),
    Row(3596, "2.1", "AAAA is 28 and has 16 octets.",
        ask(qtype=AAAA), lambda r: r.data() == {"AAAA 2001:db8:1::2"}),
    Row(3596, "2.5", "An IPv6 address has its PTR below ip6.arpa.",
        ask(V6_PTR, PTR), lambda r: r.data() == {f"PTR alpha-c1-80-v6.web.{D}."}),
    Row(4074, "3", "No AAAA is NODATA, never NXDOMAIN.", ask(f"api.{D}", AAAA), nodata),
    Row(3597, "3", "A type that we do not know is NODATA.", ask(qtype=65280), nodata),
    Row(3597, "3", "So is the largest number.", ask(qtype=65535), nodata),
    Row(3597, "3", "And below a name that is not there NXDOMAIN.", ask(f"no.{D}", 65280), nxdomain),
    Row(8659, "3", "Without CAA anybody may issue: NODATA, no error.", ask(qtype=CAA), nodata),
    Row(4034, "5", "No DS: the zone is not signed.", ask(D, DS), nodata),
    Row(4035, "3.1.6", "CD is clear where we speak with authority.",
        ask(flags=CD), lambda r: answered(r) and not r.has(CD)),
    Row(4035, "3.2.2", "CD comes back where recursion is offered.",
        ask("a.example", flags=CD), lambda r: refused(r) and r.has(CD)),
    Row(6840, "5.8", "AD is never set on what nobody validated.",
        ask(flags=AD), lambda r: answered(r) and not r.has(AD)),
    Row(4343, "3", "Case does not matter.", ask("wEb.DISCOD.internal"), answered),
    Row(4343, "4.1", "The response keeps the question's case.",
        ask("wEb.DISCOD.internal"),
        lambda r: r.raw[12:37] == r.query[12:37] and b"web" not in r.raw),
    Row(4343, "2", "Only letters have case: [ is no {.", ask(f"[web.{D}"), nxdomain),
    Row(4343, "2", "Octets beyond ASCII have none.",
        message(question(b"\4\xc3\x84wb" + name(D))), rcode(3)),
    Row(4592, "2", "There are no wildcards: * is a name like others.", ask(f"*.{D}"), nxdomain),
    Row(4592, "2", "Nothing is made up below a service.", ask(f"any.thing.web.{D}"), nxdomain),
    Row(4592, "4", "Nor below an instance.", ask(f"x.alpha-c1-80.web.{D}"), nxdomain),
    Row(5452, "9.1", "Question and id come back unchanged.",
        message(question("wEB." + D, AAAA), id_=0xBEEF),
        lambda r: r.raw[:2] == b"\xbe\xef" and r.raw[12 : len(r.query)] == r.query[12:]),
    Row(5625, "4.5", "The name of others goes to the forwarder.",
        ask("a.example", flags=RD), lambda r: False),
    Row(7766, "8", "A response over TCP may have all of 64 KiB.",
        ask(f"big.{D}", SRV), lambda r: not r.has(TC) and r.an == 300, transport="tcp"),
    Row(7766, "5", "TCP answers what UDP answers.", ask(), answered, transport="tcp"),
    Row(7858, "3", "So does TLS.", ask(), answered, transport="tls"),
    Row(8482, "4.2", "ANY gets one synthesised HINFO.",
        ask(qtype=ANY), lambda r: r.types() == [HINFO] and b"\7RFC8482\0" in r.raw and r.has(AA)),
    Row(8482, "4", "ANY of nothing is NXDOMAIN.", ask(f"no.{D}", ANY), nxdomain),
    Row(8482, "2", "ANY amplifies nothing.",
        ask(f"big.{D}", ANY), lambda r: len(r.raw) < 80 and r.an == 1),
    Row(9460, "2.2", "SVCB has priority, target and parameters in ascending order.",
        ask(qtype=SVCB), lambda r: r.an == 3 and all(_ascending(x) for x in r.rrs())),
    Row(9460, "2.4.1", "No record is in alias form.",
        ask(qtype=SVCB),
        lambda r: r.an == 3 and all(bytes(x.rdata.data)[:2] != b"\0\0" for x in r.rrs())),
    Row(9460, "4.1", "Addresses of SVCB targets come along.",
        ask(qtype=SVCB), lambda r: {"A 10.101.1.2", "AAAA 2001:db8:1::2"} <= r.data("ar")),
    Row(9460, "9.5", "HTTPS is for services that say ALPN: it forbids plain HTTP.",
        ask(qtype=HTTPS), nodata),
    Row(9460, "7.1", "Where ALPN is said, it is told.",
        ask(f"site.{D}", HTTPS), lambda r: r.an == 1 and b"\2h2\x08http/1.1" in r.raw),
]

RFC6891 = [
    Row(6891, "6.1.1", "OPT is answered with OPT.", with_opt(), lambda r: r.opt is not None),
    Row(6891, "6.1.1", "No OPT, none back.", ask(), lambda r: r.opt is None and r.ar == 0),
    Row(6891, "6.1.1", "Two OPT records are FORMERR.",
        message(MAPPED, opt(), opt(), ar=2), formerr),
    Row(6891, "6.1.2", "OPT is owned by the root.",
        message(MAPPED, rr(b"\1x\0", OPT), ar=1), formerr),
    Row(6891, "6.1.1", "OPT belongs into the additional section.",
        message(MAPPED, opt(), an=1), formerr),
    Row(6891, "6.1.1", "It need not be the last record.",
        message(MAPPED, opt(), rr(b"\0", A), ar=2), lambda r: answered(r) and r.opt),
    Row(6891, "6.1.2", "Unknown options are ignored.",
        with_opt(option(65001, b"abc")), lambda r: answered(r) and r.options == {}),
    Row(6891, "6.1.2", "An option that does not end is FORMERR.", with_opt(b"\0\1\0\5ab"), formerr),
    Row(6891, "6.1.3", "Another version is BADVERS, and ours is 0.",
        with_opt(version=1), lambda r: r.rcode == 16 and r.opt.edns_ver == 0 and r.an == 0),
    Row(6891, "6.1.3", "Whatever its options hold.", with_opt(b"\0\1\0\5ab", version=1), rcode(16)),
    Row(6891, "6.1.3", "BADVERS has OPT, or it could not be said.",
        with_opt(version=255), lambda r: r.opt is not None and r.rcode == 16),
    Row(6891, "6.1.4", "DO comes back.", with_opt(flags=0x8000), lambda r: r.opt.ttl & 0x8000),
    Row(6891, "6.1.4", "Z is zero, whatever came.",
        with_opt(flags=0x7FFF), lambda r: answered(r) and r.opt.ttl & 0xFFFF == 0),
    Row(6891, "6.2.3", "Sizes below 512 are taken for 512.",
        with_opt(of=question(f"big.{D}"), size=100), lambda r: 490 < len(r.raw) <= 512),
    Row(6891, "6.2.3", "A response has at most the octets that the client takes.",
        with_opt(of=question(f"big.{D}"), size=800), lambda r: 780 < len(r.raw) <= 800),
    Row(6891, "6.2.4", "And at most what we send.",
        with_opt(of=question(f"big.{D}"), size=65535), lambda r: 1200 < len(r.raw) <= 1232),
    Row(6891, "6.2.3", "We tell what we take.", with_opt(), lambda r: r.opt.edns_len == 1232),
    Row(6891, "6.1.1", "OPT is no type to ask for.", ask(qtype=OPT), formerr),
    Row(6891, "7", "FORMERR for a bad option has no OPT that agrees.",
        with_opt(b"\0\1\0\5"), lambda r: r.rcode == 1),
]

COOKIES = [
    Row(7873, "5.2.1", "Without the option there is none.",
        with_opt(), lambda r: 10 not in r.options),
    Row(7873, "5.2.2", "A length of 7 is FORMERR.", with_opt(cookie(b"x" * 7)), formerr),
    Row(7873, "5.2.2", "A length of 0 is FORMERR.", with_opt(cookie(b"")), formerr),
    Row(7873, "5.2.2", "A length of 15 is FORMERR.", with_opt(cookie(b"x" * 15)), formerr),
    Row(7873, "5.2.2", "A length of 41 is FORMERR.", with_opt(cookie(b"x" * 41)), formerr),
    Row(7873, "5.2.3", "A client cookie alone is answered, with a server cookie.",
        with_opt(cookie(CLIENT_COOKIE)),
        lambda r: answered(r) and len(r.options[10]) == 24 and r.options[10][:8] == CLIENT_COOKIE),
    Row(7873, "5.2.4", "A wrong server cookie is answered, with the right one.",
        with_opt(cookie(CLIENT_COOKIE + b"y" * 16)),
        lambda r: answered(r) and r.options[10][8:] != b"y" * 16),
    Row(7873, "5.2.4", "One of 32 octets is a cookie of others.",
        with_opt(cookie(CLIENT_COOKIE + b"y" * 32)), lambda r: len(r.options[10]) == 24),
    Row(7873, "5.2", "Of two cookies the first counts.",
        with_opt(cookie(CLIENT_COOKIE), cookie(b"z" * 8)),
        lambda r: answered(r) and r.options[10][:8] == CLIENT_COOKIE),
    Row(7873, "5.2", "Errors have cookies too.",
        with_opt(cookie(CLIENT_COOKIE), of=question(f"no.{D}")), lambda r: 10 in r.options),
    Row(7873, "5.4", "A query without a question asks for a cookie.",
        message(opt(cookie(CLIENT_COOKIE)), qd=0, ar=1),
        lambda r: r.rcode == 0 and r.qd == 0 and len(r.options[10]) == 24),
    Row(7873, "5.4", "With a bad server cookie that is BADCOOKIE.",
        message(opt(cookie(CLIENT_COOKIE + b"y" * 16)), qd=0, ar=1),
        lambda r: r.rcode == 23 and len(r.options[10]) == 24),
    Row(7873, "5.4", "Without a cookie it asks for nothing.", message(opt(), qd=0, ar=1), formerr),
    Row(7873, "5.2.1", "Who is set to speak no cookies, ignores them.",
        with_opt(cookie(CLIENT_COOKIE)), lambda r: answered(r) and r.options == {},
        setup(cookies=False)),
    Row(9018, "4", "Version 1, three octets of zero, the time.",
        with_opt(cookie(CLIENT_COOKIE)),
        lambda r: r.options[10][8:16] == b"\1\0\0\0" + NOW.to_bytes(4, "big")),
    Row(9018, "A.1", "The hash is SipHash-2-4 over cookie, head and address.",
        with_opt(cookie(CLIENT_COOKIE)),
        lambda r: r.options[10].hex() == "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
        EVERYBODY, client="198.51.100.100", now=1559731985),
    Row(9018, "A.4", "Over IPv6 too.",
        with_opt(cookie(bytes.fromhex("22681ab97d52c298"))),
        lambda r: r.options[10].hex() == "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
        replace(EVERYBODY, secrets=(bytes.fromhex("445536bcd2513298075a5d379663c962"),)),
        client="2001:db8:220:1:59de:d0f4:8769:82b8", now=1559741961),
]

ODD = [
    Row(8906, "3.1.4", "An unknown opcode is NOTIMP.", ask(flags=15 << 11), rcode(4)),
    Row(8906, "3.1.4", "So it is for a header alone.", message(flags=15 << 11), rcode(4)),
    Row(8906, "3.1.4", "The opcode comes back.",
        ask(flags=6 << 11), lambda r: r.flags >> 11 & 15 == 6 and r.rcode == 4),
    Row(8906, "3.1.4", "NOTIFY is for secondaries; we are none.",
        ask(D, SOA, flags=4 << 11), rcode(4)),
    Row(8906, "3.1.4", "Nothing here takes UPDATE.", ask(D, SOA, flags=5 << 11), rcode(4)),
    Row(8906, "3.1.2", "An unknown type is answered.", ask(qtype=1000), nodata),
    Row(8906, "3.1.2", "Type 0 too.", ask(qtype=0), nodata),
    Row(8906, "3.1.3", "AD, CD and Z in a query change nothing.", ask(flags=AD | CD | Z), answered),
    Row(8906, "3.1.5", "TCP is served.", ask(), answered, transport="tcp"),
    Row(8906, "3.2.1", "EDNS with another version is answered.", with_opt(version=1), rcode(16)),
    Row(8906, "3.2.2", "Unknown options are.", with_opt(option(100)), answered),
    Row(8906, "3.2.3", "Unknown flags are.", with_opt(flags=0x40), answered),
    Row(8906, "3.2.4", "All of it at once is BADVERS.",
        with_opt(option(100), flags=0x80C0, version=1),
        lambda r: r.rcode == 16 and r.opt.ttl & 0xFFFF == 0x8000),
    Row(8906, "3.2.5", "Truncated answers keep OPT.",
        with_opt(of=question(f"big.{D}"), size=512), lambda r: r.has(TC) and r.opt is not None),
    Row(8906, "3.2.6", "DO=1 gets OPT with DO.",
        with_opt(flags=0x8000), lambda r: answered(r) and r.opt.ttl & 0x8000),
    Row(8906, "4", "What is malformed is FORMERR, not silence.", ask() + b"x", formerr),
    Row(8906, "4", "Records in answer and authority are no reason for silence.",
        message(MAPPED, rr(b"\xc0\x0c", A), rr(b"\xc0\x0c", NS), an=1, ns=1), answered),
    Row(9619, "4", "Two questions are FORMERR.", message(MAPPED, MAPPED, qd=2), formerr),
    Row(9619, "4", "65,535 are.", message(MAPPED, qd=65535), formerr),
    Row(9619, "4", "None, and nothing else, is too.", message(), formerr),
    Row(9619, "4", "With another opcode the number is not ours to judge.",
        message(MAPPED, MAPPED, qd=2, flags=5 << 11), rcode(4)),
    Row(5936, "4.2", "AXFR over UDP is not defined.", ask(D, AXFR), refused),
    Row(8945, "5.2", "TSIG is the last record, or FORMERR.",
        message(MAPPED, rr(b"\1k\0", 250, 255), opt(), ar=2), formerr),
    Row(8945, "5.2", "TSIG has class ANY, or FORMERR.",
        message(MAPPED, rr(b"\1k\0", 250, IN), ar=1), formerr),
    Row(6895, "3.1", "TSIG is no type to ask for.", ask(qtype=250), formerr),
    Row(5358, "4", "Who is not in the list gets REFUSED, and no RA.",
        ask("a.example", flags=RD), lambda r: refused(r) and not r.has(RA), client="203.0.113.1"),
]

RFC8914 = [
    Row(8914, "4.4", "Stale answers say 3.",
        with_opt(), lambda r: answered(r) and r.errors == [3], Setup(stale=True)),
    Row(8914, "4.20", "Stale NXDOMAIN says 19.",
        with_opt(of=question(f"no.{D}")), lambda r: r.errors == [19], Setup(stale=True)),
    Row(8914, "4.15", "Not ready says 14, with SERVFAIL.",
        with_opt(), lambda r: r.rcode == 2 and r.errors == [14], Setup(ready=False)),
    Row(8914, "4.19", "A stranger is told 18.",
        with_opt(), lambda r: refused(r) and r.errors == [18], client="203.0.113.1"),
    Row(8914, "4.21", "A name of others is told 20.",
        with_opt(of=question("a.example")), lambda r: refused(r) and r.errors == [20]),
    Row(8914, "3", "Who speaks no EDNS is told nothing.",
        ask(), lambda r: answered(r) and r.opt is None, Setup(stale=True)),
    Row(8914, "2", "All is well: no error.", with_opt(), lambda r: r.errors == []),
]

IDENTITY = [
    Row(5001, "2.2", "NSID is told to who asks.",
        with_opt(option(3)), lambda r: answered(r) and r.options == {3: b"ns-a"}, NAMED_SERVER),
    Row(5001, "2.2", "Not to who does not ask.",
        with_opt(), lambda r: r.options == {}, NAMED_SERVER),
    Row(5001, "3.1", "Without a name there is none.",
        with_opt(option(3)), lambda r: r.options == {}),
    Row(5001, "2.2", "Data in the request is ignored.",
        with_opt(option(3, b"abc")), lambda r: r.options == {3: b"ns-a"}, NAMED_SERVER),
    Row(4892, "3", "id.server of class CHAOS.",
        ask("id.server", TXT, CH), lambda r: r.data() == {'TXT "ns-a"'}, NAMED_SERVER),
    Row(4892, "3", "hostname.bind says the same.",
        ask("HostName.Bind", TXT, CH), lambda r: r.data() == {'TXT "ns-a"'}, NAMED_SERVER),
    Row(4892, "2", "version.bind says what was configured.",
        ask("version.bind", TXT, CH), lambda r: r.data() == {'TXT "discod 1"'}, NAMED_SERVER),
    Row(4892, "3", "Its record is of class CHAOS and of TTL 0.",
        ask("id.server", TXT, CH), lambda r: [(x.rclass, x.ttl) for x in r.rrs()] == [(CH, 0)],
        NAMED_SERVER),
    Row(4892, "3", "Unconfigured, it is refused.", ask("id.server", TXT, CH), refused),
    Row(4892, "2", "So is the version.", ask("version.bind", TXT, CH), refused),
    Row(4892, "3", "Other names of CHAOS are.", ask("x.y", TXT, CH), refused, NAMED_SERVER),
    Row(4892, "3", "Other types are.", ask("id.server", A, CH), refused, NAMED_SERVER),
    Row(4892, "3", "They are no names of class IN.", ask("id.server", TXT), refused, NAMED_SERVER),
    Row(4892, "3", "Strangers are told nothing.",
        ask("id.server", TXT, CH), refused, NAMED_SERVER, client="203.0.113.1"),
]

TRANSPORT = [
    Row(7828, "3.3.2", "Over TCP keepalive tells how long we wait, in 100 ms.",
        with_opt(option(11)), lambda r: r.options == {11: b"\0\x64"}, transport="tcp"),
    Row(7828, "3.3.2", "Over TLS too.",
        with_opt(option(11)), lambda r: r.options == {11: b"\0\x64"}, transport="tls"),
    Row(7828, "3.3.1", "Over UDP it is ignored.",
        with_opt(option(11)), lambda r: answered(r) and r.options == {}),
    Row(7828, "3.3.2", "Who does not ask is not told.",
        with_opt(), lambda r: r.options == {}, transport="tcp"),
    Row(7830, "4", "Padding is answered with padding, over TLS.",
        with_opt(option(12, bytes(40))), lambda r: answered(r) and 12 in r.options,
        transport="tls"),
    Row(8467, "4.1", "To a multiple of 468 octets.",
        with_opt(option(12)), lambda r: len(r.raw) == 468, transport="tls"),
    Row(8467, "4.1", "Larger ones to the next.",
        with_opt(option(12), of=question(f"big.{D}")),
        lambda r: len(r.raw) % 468 == 0 and r.an == 300, transport="tls"),
    Row(7830, "3", "Padding is all zero.",
        with_opt(option(12)), lambda r: not any(r.options[12]), transport="tls"),
    Row(7830, "4", "Who does not pad gets none.",
        with_opt(), lambda r: 12 not in r.options, transport="tls"),
    Row(7830, "6", "In the clear there is none.",
        with_opt(option(12)), lambda r: 12 not in r.options),
]

ROWS = [
    *RFC1035, *RFC2181, *RFC2308, *OTHERS, *RFC6891, *COOKIES, *ODD, *RFC8914, *IDENTITY,
    *TRANSPORT,
]
WANTED = {
    1035, 2181, 2308, 2782, 3596, 3597, 4343, 4592, 5452, 6891, 7766, 7830, 7873, 8482, 8906, 8914,
    9018, 9460, 9619, 5001, 4892,
}
# fmt: on


def _ascending(record: Any) -> bool:
    """Whether the parameters of SVCB come in ascending order (RFC 9460, section 2.2)."""
    data = bytes(record.rdata.data)
    at = 2
    while data[at]:
        at += 1 + data[at]
    at += 1
    keys = []
    while at < len(data):
        key, length = struct.unpack_from(">HH", data, at)
        keys.append(key)
        at += 4 + length
    assert at == len(data)
    return keys == sorted(set(keys)) and 3 in keys


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{row.rfc}-{row.section}-{i}" for i, row in enumerate(ROWS)]
)
def test_clause(row: Row, answerer: Callable[[Setup], Answerer]) -> None:
    exchange = answerer(row.setup)
    raw = exchange(row.packet, transport=row.transport, client=row.client, now=row.now)
    if row.check is None:
        assert raw is None, row.clause
    elif row.rfc == 5625:
        assert raw == FORWARDED, row.clause
    else:
        assert raw is not None and raw != FORWARDED, row.clause
        reply = Reply(raw, row.packet)
        assert row.check(reply), f"{row.clause}\n{reply.parsed}"


def test_every_rfc_has_its_rows() -> None:
    assert {row.rfc for row in ROWS} >= WANTED
    assert len(ROWS) >= 80
    assert len({(row.rfc, row.clause) for row in ROWS}) == len(ROWS)


WRONG = [
    struct.pack(">6H", 1, 0xFFFF, 0, 0, 0, 0),
    struct.pack(">6H", 1, 0, 1, 1, 1, 2)
    + question("x.example", 999)
    + rr(name("y.example"), 999, rdata=b"x")
    + rr(name("y.example"), 999, rdata=b"x")
    + rr(name("y.example"), 999, rdata=b"x")
    + opt(*(option(code, b"\xff") for code in range(1, 20)), size=1, flags=0x7FFF, version=1),
]
"""Two responses that are wrong in every way, one with everything and one with nothing."""


def test_the_checks_can_fail() -> None:
    for row in ROWS:
        if row.check is None or row.rfc == 5625:
            continue
        passed = 0
        for wrong in WRONG:
            try:
                passed += bool(row.check(Reply(wrong, row.packet)))
            except (AssertionError, AttributeError, KeyError, IndexError):
                continue
        assert passed < len(WRONG), row.clause
