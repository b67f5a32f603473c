"""Contradictions within ``[dns]`` and ``[transfer]``, and between them and their neighbours.

Rule: as in `discod.config_cross`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import collapse_addresses

from discod.config_fault import Path
from discod.config_finding import Finding, overlap, reaches, show_socket
from discod.model.settings import ListenAddress, Network, Settings


def dns_contradictions(settings: Settings) -> Iterator[Finding]:
    """Everything of DNS that does not go together."""
    yield from _sockets(settings)
    yield from _tls(settings)
    yield from _loops(settings)
    yield from _routes(settings)
    yield from _unforwarded(settings)
    yield from _clients(settings)
    if settings.dns.prefer == "zone" and not settings.host.zone:
        yield Finding(
            ("dns", "prefer"),
            "zone",
            "expected also host.zone: without it no endpoint is of this host's zone",
            (("host", "zone"),),
        )
    if settings.transfer.notify and not settings.transfer.allow:
        yield Finding(
            ("transfer", "notify"),
            [show_socket(secondary) for secondary in settings.transfer.notify],
            "expected transfer.allow beside it: whoever is told of a change has to fetch it",
            (("transfer", "allow"),),
        )


def _sockets(settings: Settings) -> Iterator[Finding]:
    placed: list[tuple[Path, int, ListenAddress]] = [
        (path, index, listen)
        for path, listens in (
            (("dns", "listen"), settings.dns.listen),
            (("dns", "tls_listen"), settings.dns.tls_listen),
            (("http", "listen"), settings.http.listen),
        )
        for index, listen in enumerate(listens)
    ]
    for number, (path, index, listen) in enumerate(placed):
        for earlier, at, taken in placed[:number]:
            if overlap(listen, taken):
                key = f"{earlier[0]}.{earlier[1]}[{at}]"
                yield Finding(
                    (*path, index),
                    show_socket(listen),
                    f"expected a port that {key} ({show_socket(taken)}) leaves free",
                    (earlier, path),
                )
                break


def _tls(settings: Settings) -> Iterator[Finding]:
    dns = settings.dns
    given: dict[str, object] = {
        "tls_listen": [show_socket(listen) for listen in dns.tls_listen],
        "tls_cert": dns.tls_cert,
        "tls_key": dns.tls_key,
    }
    missing = [f"dns.{key}" for key, value in given.items() if not value]
    if not missing or len(missing) == len(given):
        return
    first = next(key for key, value in given.items() if value)
    yield Finding(
        ("dns", first),
        given[first],
        f"expected {' and '.join(missing)} beside it",
        tuple(("dns", key) for key in given),
    )


def _loops(settings: Settings) -> Iterator[Finding]:
    """Servers to forward to that are our own listeners."""
    dns = settings.dns
    servers: list[tuple[Path, ListenAddress]] = [
        (("dns", "upstreams", index), server) for index, server in enumerate(dns.upstreams)
    ]
    for route in dns.routes:
        servers += [
            (("dns", "routes", route.domain, index), server)
            for index, server in enumerate(route.servers)
        ]
    for path, server in servers:
        for at, listen in enumerate(dns.listen):
            if reaches(server, listen, settings.host.addresses):
                yield Finding(
                    path,
                    show_socket(server),
                    f"expected another server: this is discod itself (dns.listen[{at}])",
                    (("dns", "listen"), path[:2], ("host", "addresses")),
                )
                break


def _routes(settings: Settings) -> Iterator[Finding]:
    own = settings.dns.domain
    for route in settings.dns.routes:
        if f".{route.domain}".endswith(f".{own}"):
            yield Finding(
                ("dns", "routes", route.domain),
                [show_socket(server) for server in route.servers],
                f"expected a domain outside {own}, which is answered here (dns.domain)",
                (("dns", "domain"),),
            )


def _unforwarded(settings: Settings) -> Iterator[Finding]:
    """Keys that say how to forward where nothing is forwarded."""
    dns = settings.dns
    if dns.forward:
        return
    idle: tuple[tuple[str, object], ...] = (
        ("upstreams", [show_socket(upstream) for upstream in dns.upstreams]),
        ("forward_allow", [str(network) for network in dns.forward_allow]),
        ("routes", {route.domain: "" for route in dns.routes}),
    )
    for key, value in idle:
        if value:
            expected = "expected none, for dns.forward is false"
            yield Finding(("dns", key), value, expected, (("dns", "forward"),))


def _clients(settings: Settings) -> Iterator[Finding]:
    dns = settings.dns
    if dns.forward:
        # Who is forwarded for: those of forward_allow, where there is one.
        key, clients = "allow", dns.allow
        instead = "dns.forward_allow, or dns.forward = false"
        if dns.forward_allow:
            key, clients, instead = "forward_allow", dns.forward_allow, "or dns.forward = false"
        for index, network in enumerate(clients):
            if network.prefixlen == 0:
                yield Finding(
                    ("dns", key, index),
                    str(network),
                    f"expected the networks of your own clients, {instead}:"
                    " with forwarding this is an open resolver",
                    (("dns", "forward"), ("dns", "allow"), ("dns", "forward_allow")),
                )
    for index, network in enumerate(dns.forward_allow):
        if not _covered(network, dns.allow):
            yield Finding(
                ("dns", "forward_allow", index),
                str(network),
                "expected a network inside dns.allow, outside which nothing is answered at all",
                (("dns", "allow"), ("dns", "forward_allow")),
            )


def _covered(network: Network, allowed: Sequence[Network]) -> bool:
    """Whether all of `network` is in the union of `allowed`."""
    if network.version == 4:
        v4 = collapse_addresses(one for one in allowed if one.version == 4)
        return any(network.subnet_of(one) for one in v4)
    v6 = collapse_addresses(one for one in allowed if one.version == 6)
    return any(network.subnet_of(one) for one in v6)
