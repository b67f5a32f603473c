"""What each key allows alone but the file as a whole does not: keys that contradict one another.

Rule: every finding names all keys it rests on, so that the reader of the file can leave it out when
one of them is faulty already. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from discod.config_fault import Path
from discod.config_values import show_duration
from discod.model.endpoint import Address
from discod.model.settings import ListenAddress, ServiceSettings, Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction."""

    path: Path
    """The key to blame."""
    value: object
    expected: str
    rests_on: tuple[Path, ...]
    """The other keys."""


SHORTER = (
    ("store", "timeout", "lease_ttl", "or the lease can end during one call"),
    ("checks", "timeout", "interval", "or a hung check stretches the interval"),
)
"""Section, a time, the time of that section that bounds it, and why."""


def contradictions(
    settings: Settings, services: Mapping[int, ServiceSettings]
) -> Iterator[Finding]:
    """Everything that does not go together.

    Args:
        settings: The file without its services.
        services: Those without fault, by their index in the file.
    """
    yield from _store(settings)
    yield from _times(settings)
    yield from _sockets(settings)
    yield from _dns(settings)
    yield from _services(services)


def _store(settings: Settings) -> Iterator[Finding]:
    store = settings.store
    at: Path = ("store", "endpoints")
    for one, other in (("cert", "key"), ("username", "password_file")):
        for named, missing in ((one, other), (other, one)):
            if getattr(store, named) and not getattr(store, missing):
                yield Finding(
                    ("store", named),
                    getattr(store, named),
                    f"expected store.{missing} beside it",
                    (("store", missing),),
                )
    schemes = {endpoint.split(":", 1)[0] for endpoint in store.endpoints}
    if len(schemes) > 1:
        yield Finding(at, store.endpoints, "expected either http or https for all of them", ())
    if "https" not in schemes:
        for named in ("ca", "cert", "key"):
            if getattr(store, named):
                yield Finding(
                    ("store", named), getattr(store, named), "expected https endpoints", (at,)
                )
    if not store.endpoints and store.username:
        yield Finding(
            ("store", "username"),
            store.username,
            "expected etcd endpoints: the memory store has no users",
            (at,),
        )


def _times(settings: Settings) -> Iterator[Finding]:
    for section, short, long, why in SHORTER:
        values = getattr(settings, section)
        low, high = getattr(values, short), getattr(values, long)
        if low > high:
            yield Finding(
                (section, short),
                show_duration(low),
                f"expected at most {section}.{long}, {show_duration(high)}, {why}",
                ((section, long),),
            )


def _show(listen: ListenAddress) -> str:
    host = f"[{listen.address}]" if listen.address.version == 6 else str(listen.address)
    return f"{host}:{listen.port}"


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether both cannot be bound: same port, and same address or a wildcard of its family."""
    a, b = one.address, other.address
    if one.port != other.port or a.version != b.version:
        return False
    return a == b or a.is_unspecified or b.is_unspecified


def _sockets(settings: Settings) -> Iterator[Finding]:
    placed: list[tuple[str, int, ListenAddress]] = [
        (section, index, listen)
        for section, listens in (("dns", settings.dns.listen), ("http", settings.http.listen))
        for index, listen in enumerate(listens)
    ]
    for number, (section, index, listen) in enumerate(placed):
        for earlier, at, taken in placed[:number]:
            if _overlap(listen, taken):
                yield Finding(
                    (section, "listen", index),
                    _show(listen),
                    f"expected a port that {earlier}.listen[{at}] ({_show(taken)}) leaves free",
                    ((earlier, "listen"), (section, "listen")),
                )
                break


def _reaches(upstream: ListenAddress, listen: ListenAddress, own: Sequence[Address]) -> bool:
    if upstream.port != listen.port:
        return False
    if upstream.address == listen.address:
        return True
    here = upstream.address.is_loopback or upstream.address in own
    # A wildcard IPv6 socket may serve IPv4 too.
    return listen.address.is_unspecified and here


def _dns(settings: Settings) -> Iterator[Finding]:
    dns = settings.dns
    for index, upstream in enumerate(dns.upstreams):
        for at, listen in enumerate(dns.listen):
            if _reaches(upstream, listen, settings.host.addresses):
                yield Finding(
                    ("dns", "upstreams", index),
                    _show(upstream),
                    f"expected another server: this is discod itself (dns.listen[{at}])",
                    (("dns", "listen"), ("dns", "upstreams"), ("host", "addresses")),
                )
                break
    if dns.upstreams and not dns.forward:
        yield Finding(
            ("dns", "upstreams"),
            [_show(upstream) for upstream in dns.upstreams],
            "expected none, for dns.forward is false",
            (("dns", "forward"),),
        )
    for index, network in enumerate(dns.allow):
        if network.prefixlen == 0 and dns.forward:
            yield Finding(
                ("dns", "allow", index),
                str(network),
                "expected the networks of your own clients, or dns.forward = false:"
                " with forwarding this is an open resolver",
                (("dns", "forward"), ("dns", "allow")),
            )


def _services(services: Mapping[int, ServiceSettings]) -> Iterator[Finding]:
    first: dict[tuple[str, int, str], int] = {}
    for index, service in services.items():
        # What the instance label is made of, so two of them would be one endpoint.
        identity = (service.name, service.port, service.protocol)
        earlier = first.setdefault(identity, index)
        if earlier != index:
            yield Finding(
                ("service", index),
                service.name,
                f"expected another name, port or protocol than service[{earlier}] has"
                " (several addresses go in one table)",
                (("service", earlier),),
            )
        check = service.check
        if check and check.kind != "cmd" and service.protocol == "udp" and not check.port:
            yield Finding(
                ("service", index, "check"),
                check.kind,
                f"expected a port of its own: the service's is UDP, a {check.kind} check is TCP",
                (),
            )
