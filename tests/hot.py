"""The worker's memory without its process: a memo over a replica that is told as workers are."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from discod.model.catalog import Catalog, Change
from discod.model.settings import DnsSettings
from resolver.answer import Outcome, Responder
from resolver.cookies import Cookies
from resolver.hot.entry import Found
from resolver.hot.memo import Memo, settle
from resolver.hot.mmsg import address_of
from resolver.hot.protocol import Services, pack, pack_hosts, read_services, services_frame
from resolver.hot.replica import Replica
from resolver.rrl import Action
from resolver.zone import Zone
from tests.resolving import OWN

SECRETS = (bytes(range(16)),)
CLIENT = ip_address("127.0.0.1").packed
HEAD = 5
"""Octets of a frame before its payload."""


class Hot:
    """A memo, and what a worker has around it."""

    def __init__(self, catalog: Catalog, settings: DnsSettings | None = None) -> None:
        self.settings = settings or DnsSettings()
        self.replica = Replica(self.settings.domain)
        self.zone = Zone(self.settings, OWN, fronted=False)
        self.responder = Responder(self.zone, self.settings, random.Random(5), SECRETS)
        self.memo: Memo[Found] = Memo(
            self._respond, self._limited, address_of, lambda f: f, self.zone, random.Random(6)
        )
        settle(self.memo, self.settings, SECRETS)
        self._number = 0
        self._fresh: Responder | None = None
        self.tell(catalog, catalog.services.keys() | catalog.aliases.keys(), reset=True)

    def tell(
        self,
        catalog: Catalog,
        services: Iterable[str],
        *,
        hosts: bool = True,
        reset: bool = False,
        stale: bool = False,
        fronted: bool = True,
    ) -> Change | None:
        """Take a step, over the wire form."""
        self._number += 1
        self._fresh = None
        told = []
        for service in sorted(services):
            endpoints = catalog.services.get(service, {}).values()
            aliases = catalog.aliases.get(service, {}).values()
            told.append((service, pack(endpoints, aliases) if endpoints or aliases else None))
        told_hosts = pack_hosts(catalog.hosts.values()) if hosts or reset else None
        step = Services(
            self._number, catalog.revision, True, stale, told_hosts, tuple(told), reset, fronted
        )
        step = read_services(services_frame(step)[HEAD:])
        before = self.replica.stale
        change = self.replica.apply(step)
        self.zone.update(self.replica.catalog, change)
        self.responder.ready, self.responder.stale = step.ready, step.stale
        self.memo.labels, self.memo.aliases = self.replica.labels, self.replica.aliases
        if change is None or change.hosts or step.stale != before:
            self.memo.clear()
        names = [service for service, _ in step.services]
        if step.fronted != self.zone.fronted:
            self.zone.set_fronted(step.fronted)
            names += self.replica.may_front()
        self.memo.changed(names)
        return change

    def find(self, packet: bytes, client: bytes = CLIENT) -> Found | None:
        """As the loop does it."""
        key = packet[2:]
        found = next(self.memo.answers[key])
        return found if found[2] else self.memo.find(key, client)

    def ask(self, packet: bytes, client: bytes = CLIENT) -> bytes | None:
        """The response, None when it is the daemon's to answer; empty for silence."""
        found = self.find(packet, client)
        if found is None:
            return None
        assert found[1] == len(found[3])
        return packet[:2] + found[3] if found[2] >= 0 else b""

    def fresh(self) -> Responder:
        """The slow path over a zone of its own, made anew after each step."""
        if self._fresh is not None:
            return self._fresh
        zone = Zone(self.settings, OWN, fronted=self.zone.fronted)
        zone.update(self.replica.catalog, None)
        made = Responder(zone, self.settings, random.Random(9), SECRETS)
        made.ready, made.stale = self.responder.ready, self.responder.stale
        self._fresh = made
        return made

    def _respond(self, packet: bytes, client: bytes) -> Outcome:
        return self.responder.respond(packet, str(ip_address(client)), "udp", self.memo.now)

    def _limited(self, packet: bytes, client: bytes, action: Action) -> Outcome:
        return self.responder.above_rate(packet, str(ip_address(client)), action, self.memo.now)


def cookies() -> Cookies:
    """As the workers make them."""
    return Cookies(SECRETS)


__all__ = ["CLIENT", "SECRETS", "Hot", "cookies", "replace"]
