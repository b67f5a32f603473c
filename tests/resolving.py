"""Catalogs and packets for the resolver's tests; dnslib is the independent reader of answers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import dnslib

from discod.model.catalog import Catalog, CatalogState
from discod.model.endpoint import Alias, Endpoint, Host
from discod.model.schema import Keyspace, encode_endpoint, encode_host
from discod.model.settings import DnsSettings
from resolver.answer import Outcome, Responder, Transport
from resolver.zone import Zone

KEYS = Keyspace("discod.internal")
OWN = Host("alpha", (ip_address("192.0.2.1"), ip_address("2001:db8::1")))
BETA = Host("beta", (ip_address("192.0.2.2"),))
HOSTS = (OWN, BETA)

Item = tuple[str, bytes, int]


def endpoint(service: str, instance: str, address: str, port: int = 80, **more: Any) -> Endpoint:
    more.setdefault("port_name", "http")
    more.setdefault("host", "alpha")
    return Endpoint(service, instance, ip_address(address), port, **more)


def items(endpoints: Iterable[Endpoint] = (), hosts: Iterable[Host] = HOSTS) -> list[Item]:
    found = [(KEYS.record(e.id), encode_endpoint(e), 1) for e in endpoints]
    return found + [(KEYS.host(h.name), encode_host(h), 1) for h in hosts]


def state_of(found: Iterable[Item], revision: int = 7) -> CatalogState:
    state = CatalogState(KEYS)
    state.reset(found, revision, 0.0)
    return state


def catalog_of(endpoints: Iterable[Endpoint] = (), hosts: Iterable[Host] = HOSTS) -> Catalog:
    return state_of(items(endpoints, hosts)).catalog


def made(
    endpoints: Iterable[Endpoint] = (),
    aliases: Iterable[Alias] = (),
    hosts: Iterable[Host] = HOSTS,
    revision: int = 7,
) -> Catalog:
    """A Catalog without the detour over records."""
    services: dict[str, dict[str, Endpoint]] = {}
    for e in endpoints:
        services.setdefault(e.service, {})[e.instance] = e
    leads: dict[str, dict[str, Alias]] = {}
    for a in aliases:
        leads.setdefault(a.service, {})[a.instance] = a
    return Catalog(
        "discod.internal", revision, services, leads, hosts={host.name: host for host in hosts}
    )


WEB = (
    endpoint(
        "web", "alpha-c1-80", "10.101.1.2", tags=("v1", "blue"), attributes=(("env", "prod"),)
    ),
    endpoint("web", "alpha-c1-80-v6", "2001:db8:1::2", tags=("v1", "blue"), target="alpha-c1-80"),
    endpoint("web", "beta-c2-80", "10.101.2.2", tags=("v2",), weight=50, host="beta"),
    endpoint("web", "beta-c2-53-udp", "10.101.2.2", 53, protocol="udp", port_name="dns"),
)
"""Two containers on two hosts; one of them dual-stack, one with two ports."""

PUBLISHED = (
    endpoint("api", "alpha-c3-8080", "192.0.2.1", 32768),
    endpoint("api", "beta-c4-8080", "192.0.2.2", 32769),
)
"""Published ports: the addresses are the hosts'."""


def foreign() -> list[Item]:
    base = KEYS.records
    return [
        (f"{base}legacy", b'{"host":"10.9.9.9","port":99}', 1),
        (f"{base}legacy/noport", b'{"host":"10.9.9.8","text":"hello"}', 1),
        (f"{base}node/x", b'{"host":"10.9.9.7","port":1}', 1),
    ]


NAMED = {
    "empty": state_of(items(hosts=())).catalog,
    "web": catalog_of(WEB),
    "published": catalog_of(PUBLISHED),
    "foreign": state_of(items() + foreign()).catalog,
    "all": state_of(items(WEB + PUBLISHED) + foreign()).catalog,
    "big": catalog_of(
        endpoint("big", f"alpha-{i}-80", str(ip_address("10.200.0.0") + i)) for i in range(1000)
    ),
}


def zone_of(catalog: Catalog, *reverse: Any) -> Zone:
    return zone_with(catalog, DnsSettings(reverse_zones=reverse))


def zone_with(catalog: Catalog, settings: DnsSettings, own: Host = OWN) -> Zone:
    zone = Zone(settings, own)
    zone.update(catalog, None)
    return zone


def responder(
    catalog: Catalog,
    settings: DnsSettings | None = None,
    *,
    ready: bool = True,
    stale: bool = False,
) -> Responder:
    settings = settings or DnsSettings()
    made = Responder(zone_with(catalog, settings), settings, random.Random(1))
    made.ready, made.stale = ready, stale
    return made


def packet(
    name: str,
    qtype: str | int = "A",
    *,
    size: int | None = None,
    rd: bool = True,
    do: bool = False,
    version: int = 0,
    cls: int = 1,
    id_: int = 4711,
) -> bytes:
    number = qtype if isinstance(qtype, int) else int(getattr(dnslib.QTYPE, qtype))
    query = dnslib.DNSRecord(
        dnslib.DNSHeader(id=id_, qr=0, rd=int(rd)), q=dnslib.DNSQuestion(name, number, cls)
    )
    if size is not None:
        flags = "do" if do else ""
        query.add_ar(dnslib.EDNS0(udp_len=size, flags=flags, version=version))
    return bytes(query.pack())


def ask(
    to: Responder, query: bytes, transport: Transport = "udp", client: str = "127.0.0.1"
) -> tuple[Any, Outcome]:
    """The parsed response and the outcome."""
    outcome = to.respond(query, client, transport)
    assert outcome.packet is not None
    return dnslib.DNSRecord.parse(outcome.packet), outcome


def section(rrs: Iterable[Any]) -> set[str]:
    """Records as ``owner TYPE rdata``."""
    return {
        f"{str(rr.rname).removesuffix('.')} {dnslib.QTYPE[rr.rtype]} {rr.rdata}"
        for rr in rrs
        if rr.rtype != 41
    }


def errors(response: Any) -> list[int]:
    """Extended DNS Errors of a response."""
    return [
        int.from_bytes(option.data[:2], "big")
        for rr in response.ar
        if rr.rtype == 41
        for option in rr.rdata
        if option.code == 15
    ]
