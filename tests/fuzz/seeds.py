"""Queries of every kind, and the catalog that they are about.

Rule: built octet by octet with nothing of discod's codec, so that a fault there cannot hide itself.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from discod.model.endpoint import Host
from tests.resolving import catalog_of, endpoint

D = "discod.internal"
HOST = Host("alpha", (ip_address("192.0.2.1"), ip_address("2001:db8::1")))
CATALOG = catalog_of(
    (
        endpoint("web", "a-1-80", "10.101.1.2", tags=("blue",)),
        endpoint("web", "a-1-80-v6", "2001:db8:1::2", tags=("blue",), target="a-1-80"),
        endpoint("web", "b-2-80", "10.101.2.2", weight=50),
        *(endpoint("big", f"c-{i}-80", str(ip_address("10.200.0.0") + i)) for i in range(200)),
    ),
    (HOST,),
)
EXISTING = frozenset(
    tuple(name.encode().split(b"."))
    for name in (
        D,
        f"node.{D}",
        f"alpha.node.{D}",
        f"web.{D}",
        f"_tcp.web.{D}",
        f"_http._tcp.web.{D}",
        f"blue.web.{D}",
        f"a-1-80.web.{D}",
        f"a-1-80-v6.web.{D}",
        f"b-2-80.web.{D}",
        f"big.{D}",
        f"_tcp.big.{D}",
        f"_http._tcp.big.{D}",
        *(f"c-{i}-80.big.{D}" for i in range(200)),
    )
)
"""All names of `CATALOG` in the domain, but those of `OPTIONAL`."""
OPTIONAL = (b"_headless",)
"""First labels below a service under which more may exist."""

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "DS": 43, "DNSKEY": 48, "SVCB": 64, "HTTPS": 65, "TKEY": 249, "TSIG": 250, "IXFR": 251,
    "AXFR": 252, "ANY": 255, "CAA": 257, "TYPE1234": 1234,
}  # fmt: skip
RD, AD, CD = 0x0100, 0x0020, 0x0010


def name(text: str) -> bytes:
    """A name in wire form; ``.`` is the root."""
    labels = text.rstrip(".").encode().split(b".") if text != "." else []
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def record(owner: bytes, type_: int, cls: int, ttl: int, rdata: bytes) -> bytes:
    """A record in wire form."""
    return owner + struct.pack(">HHIH", type_, cls, ttl, len(rdata)) + rdata


def option(code: int, data: bytes = b"") -> bytes:
    """An EDNS option in wire form."""
    return struct.pack(">HH", code, len(data)) + data


def opt(*options: bytes, size: int = 1232, ttl: int = 0) -> bytes:
    """An OPT record in wire form; `ttl` is extended rcode, version and flags."""
    return record(b"\0", 41, size, ttl, b"".join(options))


def query(
    text: str = f"web.{D}",
    qtype: str = "A",
    *,
    cls: int = 1,
    flags: int = RD,
    id_: int = 0x1267,
    authority: tuple[bytes, ...] = (),
    extra: tuple[bytes, ...] = (),
) -> bytes:
    """A query in wire form."""
    head = struct.pack(">6H", id_, flags, 1, 0, len(authority), len(extra))
    question = name(text) + struct.pack(">HH", TYPES[qtype], cls)
    return b"".join((head, question, *authority, *extra))


_SOA = name(f"alpha.node.{D}") + name(f"hostmaster.{D}") + struct.pack(">5I", 3, 60, 10, 86400, 0)
COOKIE = bytes.fromhex("2464c4abcf10c957")
LONGEST = ".".join(["a" * 63] * 3 + ["b" * 45, D])
assert len(name(LONGEST)) == 255


def signature(owner: bytes, *, mac: bytes = bytes(32), seconds: int = 1_800_000_000) -> bytes:
    """A TSIG record in wire form (RFC 8945, section 4.2); `mac` is as good as any."""
    rdata = name("hmac-sha256") + struct.pack(">HIHH", 0, seconds, 300, len(mac)) + mac
    return record(owner, 250, 255, 0, rdata + struct.pack(">HHH", 0x1267, 0, 0))


def seeds() -> list[bytes]:
    """Queries, one or more of each kind that a server meets."""
    plain = [
        query(text, qtype, extra=extra)
        for text, qtype in (
            (f"web.{D}", "A"), (f"WeB.{D}", "AAAA"), (f"web.{D}", "SRV"), (f"web.{D}", "TXT"),
            (f"web.{D}", "MX"), (f"web.{D}", "ANY"), (f"web.{D}", "HTTPS"), (f"web.{D}", "SVCB"),
            (f"_http._tcp.web.{D}", "SRV"), (f"_tcp.web.{D}", "SRV"), (f"blue.web.{D}", "A"),
            (f"a-1-80.web.{D}", "AAAA"), (f"nope.{D}", "A"), (f"alpha.node.{D}", "A"),
            (f"node.{D}", "A"), (D, "SOA"), (D, "NS"), (D, "DS"), (D, "DNSKEY"), (D, "CAA"),
            (f"big.{D}", "A"), (f"big.{D}", "SRV"), ("2.1.101.10.in-addr.arpa", "PTR"),
            ("8.b.d.0.1.0.0.2.ip6.arpa", "PTR"), ("example.com", "A"), (".", "NS"),
            (LONGEST, "A"), (f"web.{D}", "TYPE1234"), (f"web.{D}", "TSIG"), (f"web.{D}", "TKEY"),
        )
        for extra in ((), (opt(),))
    ]  # fmt: skip
    edns = [
        query(extra=(opt(*options, size=size, ttl=ttl),))
        for options, size, ttl in (
            ((), 0, 0), ((), 512, 0x8000), ((), 4096, 0), ((), 65535, 0xFFFF & ~0x8000),
            ((), 1232, 1 << 16), ((option(3),), 1232, 0), ((option(10, COOKIE),), 1232, 0),
            ((option(10, COOKIE + bytes(16)),), 1232, 0), ((option(10, COOKIE[:7]),), 1232, 0),
            ((option(10, bytes(41)),), 1232, 0), ((option(8, b"\0\1\x18\0\xc0\0\2"),), 1232, 0),
            ((option(11),), 1232, 0), ((option(12, bytes(60)),), 1232, 0),
            ((option(65001, b"x"), option(10, COOKIE), option(3)), 4096, 0x8000),
        )
    ]  # fmt: skip
    odd = [
        query("version.bind", "TXT", cls=3),
        query("id.server", "TXT", cls=3, extra=(opt(),)),
        query(cls=255),
        query(flags=0),
        query(flags=RD | AD | CD, extra=(opt(ttl=0x8000),)),
        query("example.com", flags=0),
        query(D, "AXFR", flags=0),
        query(D, "IXFR", flags=0, authority=(record(name(D), 6, 1, 0, _SOA),)),
        query(D, "SOA", extra=(signature(name("key.example")),)),
        query(D, "SOA", flags=0x2400, authority=()),
        query(D, "SOA", flags=0x2800),
        query(extra=(opt(), opt())),
        query(extra=(record(b"\xc0\x0c", 1, 1, 0, bytes(4)), opt())),
        struct.pack(">6H", 1, RD, 0, 0, 0, 1) + opt(option(10, COOKIE)),
        struct.pack(">6H", 1, RD, 0, 0, 0, 0),
    ]
    found = plain + edns + odd
    assert len(set(found)) == len(found) > 80
    return found
