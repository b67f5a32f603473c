"""The Catalog, the present set of all records of the cluster as one value, and what changed in it.

Rule: immutable values; `discod.model.catalog` makes them. An `Entry` is one line of what a person
would call news, a `Change` is what readers of the Catalog need in order to follow it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from discod.model.brake import Suspect
from discod.model.endpoint import (
    Address,
    Alias,
    Endpoint,
    EndpointId,
    Host,
    Loss,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.shards import Shards


class What(StrEnum):
    """What happened to the subject of an `Entry`."""

    ANNOUNCED = "announced"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    LOST = "lost"
    SUSPECT = "suspect"
    """Lost by the store together with many others, and kept (`discod.model.brake`)."""
    REFUSED = "refused"
    HOST_UP = "host-up"
    HOST_CHANGED = "host-changed"
    HOST_GONE = "host-gone"
    ALIAS_UP = "alias-up"
    ALIAS_CHANGED = "alias-changed"
    ALIAS_GONE = "alias-gone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of what a person would call news."""

    what: What
    revision: int
    endpoint: Endpoint | None = None
    reason: Reason | None = None
    detail: str = ""
    host: str = ""
    alias: Alias | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """From one Catalog to the next."""

    services: frozenset[str]
    """Services of which an endpoint, an alias or an address of its own came, went or changed."""
    hosts: bool
    """Whether any host's record changed."""
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that discod knows of the cluster at one revision."""

    domain: str
    revision: int = 0
    services: Mapping[str, Mapping[str, Endpoint]] = field(default_factory=Shards)
    """Service -> instance -> endpoint; only what is up, and no empty service."""
    aliases: Mapping[str, Mapping[str, Alias]] = field(default_factory=Shards)
    """Service -> instance -> alias; a service that has endpoints too is not an alias in DNS, and of
    several the first by instance counts."""
    withdrawn: Mapping[EndpointId, Withdrawal] = field(default_factory=Shards)
    lost: Mapping[EndpointId, Loss] = field(default_factory=lambda: MappingProxyType({}))
    suspects: Mapping[EndpointId, Suspect] = field(default_factory=lambda: MappingProxyType({}))
    """Endpoints that the store lost and that are kept; but for those of a silent host, they are
    among `services`."""
    hosts: Mapping[str, Host] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[tuple[str, str], Refusal] = field(default_factory=lambda: MappingProxyType({}))
    """(host, container) -> refusal."""
    invalid: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Key -> what is wrong with it or its value; such records are skipped."""
    vips: Mapping[str, tuple[Address, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Service -> its own addresses, at most one of a family, IPv4 first; no two services have the
    same. It keeps them when no endpoint is up."""

    def endpoints(self) -> Iterable[Endpoint]:
        """All endpoints that are up, by service and instance."""
        for instances in self.services.values():
            yield from instances.values()

    def endpoint(self, id_: EndpointId) -> Endpoint | None:
        """One endpoint that is up, or None."""
        return self.services.get(id_.service, {}).get(id_.instance)

    def alias(self, service: str) -> Alias | None:
        """The alias that counts in DNS for `service`; None when it has endpoints, or no alias."""
        instances = self.aliases.get(service)
        if not instances or service in self.services:
            return None
        return instances[min(instances)]


def alias_news(before: Alias | None, after: Alias | None, revision: int) -> Entry:
    """An alias works or is gone: nothing stands behind it that could be lost or withdrawn."""
    what = What.ALIAS_GONE
    if after is not None:
        what = What.ALIAS_CHANGED if before else What.ALIAS_UP
    alias = after or before
    return Entry(what, revision, alias=alias, host=alias.host if alias else "")


def silence(endpoint: Endpoint, detail: str, since: float) -> Withdrawal:
    """What is said of an endpoint whose host does not answer."""
    words = f"host {endpoint.host} does not answer" + (f": {detail}" if detail else "")
    return Withdrawal(endpoint, Reason.SILENT, words, since)
