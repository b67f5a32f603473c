"""Which endpoints are near: ``dns.prefer``.

Rule: preference hides endpoints only while a preferred one is up; it never makes a name vanish.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from discod.model.endpoint import Host, Prefer
from resolver.offered import Offered


@dataclass(frozen=True, slots=True)
class View:
    """How this host looks at the endpoints of a service."""

    prefer: Prefer = "none"
    """Of services that say nothing themselves."""
    host: str = ""
    """Name of this host."""
    near: frozenset[str] = frozenset()
    """Names of the hosts of this host's zone, itself included; empty when it has no zone."""

    def preference(self, endpoints: Iterable[Offered]) -> Prefer:
        """What holds for a service: the word of its first endpoint (by instance) that says one."""
        return next((e.prefer for e in endpoints if e.prefer is not None), self.prefer)

    def chosen(self, prefer: Prefer, endpoints: Sequence[Offered]) -> Sequence[Offered]:
        """The preferred of `endpoints`; all of them (the very sequence) when none is."""
        if prefer == "none":
            return endpoints
        if prefer == "local":
            near = [e for e in endpoints if e.host == self.host]
        else:
            near = [e for e in endpoints if e.host in self.near]
        return near if 0 < len(near) < len(endpoints) else endpoints


ALL = View()


def view_of(prefer: Prefer, own: Host, hosts: Iterable[Host]) -> View:
    """The view of host `own` among `hosts`."""
    zone = own.zone
    near = {own.name, *(h.name for h in hosts if h.zone == zone and h.name != own.name)}
    return View(prefer, own.name, frozenset(near) if zone else frozenset())
