"""What each key allows alone but the file as a whole does not: keys that contradict one another.

Rule: every finding names all keys it rests on, so that the reader of the file can leave it out when
one of them is faulty already. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discod.config_cross_dns import dns_contradictions
from discod.config_fault import Path
from discod.config_finding import Finding
from discod.config_values import show_duration
from discod.model.settings import ServiceSettings, Settings

SHORTER = (
    ("store", "timeout", "lease_ttl", "or the lease can end during one call"),
    ("checks", "timeout", "interval", "or a hung check stretches the interval"),
    ("rescue", "hold", "max_hold", "which ends it in any case"),
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
    yield from dns_contradictions(settings)
    yield from _aliases(settings, services)
    for index, service in services.items():
        if service.prefer == "zone" and not settings.host.zone:
            yield Finding(
                ("service", index, "prefer"),
                "zone",
                "expected also host.zone: the endpoint stands in no zone without it",
                (("host", "zone"),),
            )
    yield from service_contradictions(services)


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


def _aliases(settings: Settings, services: Mapping[int, ServiceSettings]) -> Iterator[Finding]:
    at: Path = ("announce", "aliases")
    domain = f".{settings.dns.domain}"
    # A target in the domain is known by its service's label, as it may be written.
    targets = {name: to.removesuffix(domain) for name, to in settings.announce.aliases}
    offered: dict[str, int] = {}
    for index, service in services.items():
        offered.setdefault(service.name, index)
    looping: set[str] = set()
    for name, target in targets.items():
        if name in offered:
            index = offered[name]
            yield Finding(
                (*at, name),
                target,
                f"expected a name that service[{index}] does not have: its endpoints would hide"
                " the alias",
                (("service", index),),
            )
        chain = [name]
        while target in targets and target not in chain:
            chain.append(target)
            target = targets[target]
        if target == name and name not in looping:
            looping.update(chain)
            yield Finding(
                (*at, name),
                targets[name],
                "expected a name that does not lead back: " + " -> ".join([*chain, name]),
                (at, ("dns", "domain")),
            )


def service_contradictions(services: Mapping[int, ServiceSettings]) -> Iterator[Finding]:
    """What does not go together among services alone."""
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
