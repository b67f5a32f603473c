"""The names that Consul's users carry in their configurations, when ``dns.consul_names`` is on.

Rule: they are other names for what a service has anyway; nothing exists under them alone
(https://developer.hashicorp.com/consul/docs/services/discovery/dns-static-lookups):

    [<tag>.]<service>.service           A AAAA SRV (without a tag also TXT SVCB HTTPS)
    _<service>._tcp[.service]           SRV of all endpoints, whatever their protocol, as in Consul
    _<service>._udp[.service]           SRV of those that speak UDP, or have the tag ``udp``
    _<service>._<tag>[.service]         SRV of those with the tag

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from resolver.offered import Offered
from resolver.record import RR, Name
from resolver.rrset import Node
from resolver.service import SERVICE, SRV_ONLY, TAG, ServiceNames

SUBTREE: Final = b"service"
DEFAULT_DATACENTER: Final = b"dc1"
"""Consul's own default."""


class Form(NamedTuple):
    """What a name of Consul's kind asks for."""

    service: bytes
    """Empty: the name exists for those below it only."""
    tag: bytes = b""
    """Or the protocol, with `srv`; empty: all endpoints."""
    srv: bool = False
    """Whether it is ``_<service>._<tag>``."""


def parse(below: Name) -> Form | None:
    """The meaning of `below` the domain (and the data centre); None: it is no name of this kind."""
    subtree = below[-1:] == (SUBTREE,)
    inner = below[:-1] if subtree else below
    match inner:
        case () if subtree:
            return Form(b"")
        case (label,) if label[:1] == b"_":
            return Form(b"") if len(label) > 1 else None
        case (service,) if subtree:
            return Form(service)
        case (service, tag) if service[:1] == tag[:1] == b"_":
            whole = len(service) > 1 and len(tag) > 1
            return Form(service[1:], tag[1:], srv=True) if whole else None
        case (tag, service) if subtree:
            return Form(service, tag)
    return None


def node(names: ServiceNames, owner: Name, form: Form) -> Node | None:
    """What is at `owner`, which means `form` of this service; None: it does not exist."""
    if not form.tag and not form.srv:
        return names.at(owner, names.index.endpoints, SERVICE, fronted=True)
    if not form.srv:
        tagged = names.index.tags.get(form.tag, ())
        return names.at(owner, tagged, TAG) if tagged else None
    spoken = _spoken(names, form.tag)
    if not spoken:
        return None
    return names.at(owner, spoken, SRV_ONLY, fronted=_fronted(names, form.tag))


def _spoken(names: ServiceNames, tag: bytes) -> Sequence[Offered]:
    if tag == b"tcp":
        return names.index.endpoints
    if tag == b"udp":
        return [e for e in names.index.endpoints if e.protocol == "udp" or "udp" in e.tags]
    return names.index.tags.get(tag, ())


def _fronted(names: ServiceNames, tag: bytes) -> bool:
    """Whether it is the protocol that selects, and not a tag."""
    return tag == b"tcp" or (tag == b"udp" and tag not in names.index.tags)


def rrs(names: ServiceNames) -> Iterator[RR]:
    """All records of these names for one service, without a data centre, in a fixed order."""
    service, domain = names.apex[0], names.apex[1:]
    owner = (service, SUBTREE, *domain)
    yield from names.group(owner, names.index.endpoints, SERVICE, fronted=True).rrs()
    for tag in sorted(names.index.tags):
        owner = (tag, service, SUBTREE, *domain)
        yield from names.group(owner, names.index.tags.get(tag, ()), TAG).rrs()
    for tag in sorted({*names.index.tags, b"tcp", b"udp"}):
        for below in ((), (SUBTREE,)):
            owner = (b"_" + service, b"_" + tag, *below, *domain)
            spoken = _spoken(names, tag)
            yield from names.group(owner, spoken, SRV_ONLY, fronted=_fronted(names, tag)).rrs()
