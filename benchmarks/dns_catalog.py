"""The catalog that every server of `make bench-dns` holds, in the form that each of them reads.

Rule: one catalog, many notations: service n has the same addresses and the same name everywhere, so
that one set of questions fits all. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

DOMAIN = "bench.internal"
PORT = 8080
"""Of every endpoint."""
PORT_NAME = "http"
_FIRST = int(IPv4Address("10.128.0.1"))
_OTHER = int(IPv4Address("10.192.0.1"))


@dataclass(frozen=True, slots=True)
class Service:
    """One service and where its endpoints are."""

    name: str
    addresses: tuple[IPv4Address, ...]


def service_name(number: int) -> str:
    """All are of one length, and so are the questions for them."""
    return f"svc-{number:05d}"


def address(number: int, *, other: bool = False) -> IPv4Address:
    """The address of endpoint `number`; each has an `other` one to move to."""
    return IPv4Address((_OTHER if other else _FIRST) + number)


def catalog(services: int, endpoints: int = 3) -> tuple[Service, ...]:
    """`services` services of `endpoints` endpoints each, all at different addresses."""
    return tuple(
        Service(service_name(n), tuple(address(n * endpoints + k) for k in range(endpoints)))
        for n in range(services)
    )


def instances(service: Service) -> Iterator[tuple[str, IPv4Address]]:
    """The instance labels of a service, for servers that have to be told them."""
    for k, at in enumerate(service.addresses):
        yield f"ep-{k}", at


def zone_file(services: Iterable[Service], name_server: IPv4Address) -> str:
    """The zone in master file format (RFC 1035, section 5): NSD, Knot, BIND, gdnsd."""
    lines = [
        f"$ORIGIN {DOMAIN}.",
        "$TTL 0",
        f"@ SOA node.{DOMAIN}. hostmaster.{DOMAIN}. 1 60 10 86400 0",
        f"@ NS node.{DOMAIN}.",
        f"node A {name_server}",
    ]
    for service in services:
        for label, at in instances(service):
            target = f"{label}.{service.name}"
            lines += [
                f"{service.name} A {at}",
                f"{target} A {at}",
                f"_{PORT_NAME}._tcp.{service.name} SRV 10 100 {PORT} {target}.{DOMAIN}.",
            ]
    return "\n".join([*lines, ""])


def hosts_file(services: Iterable[Service]) -> str:
    """The addresses as a hosts file: dnsmasq."""
    lines = [
        f"{at} {name}"
        for service in services
        for label, at in instances(service)
        for name in (f"{service.name}.{DOMAIN}", f"{label}.{service.name}.{DOMAIN}")
    ]
    return "\n".join([*lines, ""])


def dnsmasq_srv(services: Iterable[Service]) -> list[str]:
    """The SRV records as lines of dnsmasq's configuration."""
    return [
        f"srv-host=_{PORT_NAME}._tcp.{service.name}.{DOMAIN},"
        f"{label}.{service.name}.{DOMAIN},{PORT},10,100"
        for service in services
        for label, _ in instances(service)
    ]


def static_services(services: Iterable[Service]) -> str:
    """The catalog as ``[[service]]`` tables: discod."""
    return "\n".join(
        f'[[service]]\nname = "{service.name}"\nport = {PORT}\nport_name = "{PORT_NAME}"\n'
        f"address = {json.dumps([str(at) for at in service.addresses])}\n"
        for service in services
    )
