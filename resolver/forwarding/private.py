"""Names that mean something on this host or network only, and are nobody else's business.

Rule: the reverse zones of RFC 6303 and RFC 7793 (the registry of locally served zones) are
answered as empty zones, so that no upstream, and not AS112, hears of private addresses; so are
``localhost``, ``invalid`` (RFC 6761) and ``onion`` (RFC 7686). Not among them, since an upstream
may well know better: ``ipv4only.arpa`` (RFC 8880: it may be a DNS64), ``home.arpa`` (RFC 8375: the
home's router), ``resolver.arpa`` (RFC 9462), ``test`` and ``local``. Pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from resolver.record import (
    AAAA,
    ANY,
    HINFO,
    NOERROR,
    NS,
    NXDOMAIN,
    RR,
    SOA,
    A,
    Name,
    name_wire,
    soa,
    to_name,
    txt,
)

DS: Final = 43
SERIAL, REFRESH, RETRY, EXPIRE = 1, 3600, 1200, 604_800
"""As RFC 6303, section 3, has them."""

REVERSE: Final = (
    # RFC 6303, section 4.1: RFC 1918
    "10.in-addr.arpa",
    *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
    "168.192.in-addr.arpa",
    # section 4.2: this network, loopback, link-local, documentation, broadcast
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    # sections 4.3 to 4.6: unspecified, loopback, local unique, link-local, documentation
    "0." * 32 + "ip6.arpa",
    "1." + "0." * 31 + "ip6.arpa",
    "d.f.ip6.arpa",
    *(f"{n}.e.f.ip6.arpa" for n in "89ab"),
    "8.b.d.0.1.0.0.2.ip6.arpa",
    # RFC 7793: shared address space
    *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),
)
_ZONES = frozenset(map(to_name, REVERSE))
_LENGTHS: dict[Name, tuple[int, ...]] = {
    suffix: tuple(sorted({len(zone) for zone in _ZONES if zone[-2:] == suffix}))
    for suffix in ((b"in-addr", b"arpa"), (b"ip6", b"arpa"))
}
_TOPS = frozenset((b"localhost", b"invalid", b"onion"))
_LOOPBACK = {A: IPv4Address("127.0.0.1").packed, AAAA: IPv6Address("::1").packed}


class Local(NamedTuple):
    """An answer without an upstream."""

    rcode: int
    answer: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()


def zone_of(name: Name, *, reverse: bool) -> Name | None:
    """The private zone that a name lies in; `reverse`: whether reverse zones count."""
    if name and name[-1] in _TOPS:
        return name[-1:]
    for length in _LENGTHS.get(name[-2:], ()) if reverse else ():
        if len(name) >= length and name[-length:] in _ZONES:
            return name[-length:]
    return None


def answer(name: Name, qtype: int, zone: Name) -> Local | None:
    """What is said to a question in a private zone; None: ask the upstream after all.

    TTLs are 0 where RFC 6303 suggests 10800: an address of such a zone may be a container's, and
    has a name as soon as it is announced.
    """
    apex = name == zone
    if apex and qtype == DS:
        return None  # that is the parent's to say: a validator needs its proof (RFC 4035)
    start = RR(zone, SOA, soa(zone, (b"nobody", b"invalid"), SERIAL, REFRESH, RETRY, EXPIRE))
    if zone == (b"localhost",):
        address = _LOOPBACK.get(qtype)
        if address is not None:  # RFC 6761, section 6.3: and for all names below it
            return Local(NOERROR, (RR(name, qtype, address),))
    elif not apex or len(zone) == 1:
        return Local(NXDOMAIN, (), (start,))
    if apex and qtype == SOA:
        return Local(NOERROR, (start,))
    if apex and qtype == NS:
        return Local(NOERROR, (RR(zone, NS, name_wire(zone)),))
    if qtype == ANY:
        return Local(NOERROR, (RR(name, HINFO, txt((b"RFC8482", b""))),))
    return Local(NOERROR, (), (start,))
