"""The endpoints of one service, by what names are made of.

Rule: made from one state of the service; each index at the first question for it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import attrgetter

from discod.model.names import is_label
from resolver.offered import Offered
from resolver.record import Name


class Index:
    """The endpoints of one service; those of each list by instance."""

    def __init__(self, endpoints: Iterable[Offered]) -> None:
        self.endpoints: Sequence[Offered] = sorted(endpoints, key=attrgetter("instance"))

    @cached_property
    def instances(self) -> dict[bytes, list[Offered]]:
        """By label: the endpoint of that name, and those whose SRV target it is."""
        found: dict[bytes, list[Offered]] = {}
        for endpoint in self.endpoints:
            instance, target = endpoint.instance, endpoint.target
            if target and target != instance:
                found.setdefault(target.encode(), []).append(endpoint)
            if instance:
                found.setdefault(instance.encode(), []).append(endpoint)
        return found

    @cached_property
    def tags(self) -> dict[bytes, list[Offered]]:
        """By tag."""
        found: dict[bytes, list[Offered]] = {}
        for endpoint in self.endpoints:
            for tag in dict.fromkeys(endpoint.tags):
                found.setdefault(tag.encode(), []).append(endpoint)
        return found

    @cached_property
    def ports(self) -> dict[Name, list[Offered]]:
        """By ``(_<port name>, _<proto>)``."""
        found: dict[tuple[str, str], list[Offered]] = {}
        for endpoint in self.endpoints:
            if endpoint.port and endpoint.port_name:
                found.setdefault((endpoint.port_name, endpoint.protocol), []).append(endpoint)
        return {
            (b"_" + name.encode(), b"_" + protocol.encode()): endpoints
            for (name, protocol), endpoints in found.items()
        }

    @cached_property
    def protocols(self) -> frozenset[bytes]:
        """Every ``_<proto>`` of `ports`."""
        return frozenset(protocol for _, protocol in self.ports)

    @cached_property
    def attributes(self) -> dict[Name, list[Offered]]:
        """By ``(<value>, <key>)``, of attributes that make labels."""
        found: dict[tuple[str, str], dict[str, Offered]] = {}
        for endpoint in self.endpoints:
            for key, value in endpoint.attributes:
                if key.isascii() and value.isascii():
                    pair = value.lower(), key.lower()
                    found.setdefault(pair, {})[endpoint.instance] = endpoint
        return {
            (value.encode(), key.encode()): list(endpoints.values())
            for (value, key), endpoints in found.items()
            if is_label(value) and is_label(key)
        }

    @cached_property
    def keys(self) -> frozenset[bytes]:
        """Every ``<key>`` of `attributes`."""
        return frozenset(key for _, key in self.attributes)
