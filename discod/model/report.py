"""What the parts of one daemon tell about themselves, for the API, `explain` and readiness. Values.

Rule: reports describe the present; whoever fills one in keeps no reference to it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from discod.model.endpoint import Endpoint, Fault, Reason


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One endpoint of this host, in DNS or not."""

    endpoint: Endpoint
    up: bool
    reason: Reason | None
    """None when up."""
    detail: str
    since: float
    """Since when it is so, Unix seconds."""
    stored: bool
    """Whether the store has confirmed exactly this."""
    check: str = ""
    """The own check in words, e.g. ``http :8080/health every 5s``; empty without one."""


@dataclass(frozen=True, slots=True)
class ProducerReport:
    """One container, static service or command of this host."""

    kind: str
    """``docker``, ``static`` or ``command``."""
    id: str
    """Container id; the service's name for others."""
    name: str
    image: str
    status: str
    """The engine's status with health, e.g. ``running (healthy)``."""
    endpoints: tuple[EndpointReport, ...] = ()
    faults: tuple[Fault, ...] = ()
    silent: str = ""
    """Why it offers nothing although nothing is wrong."""
    warnings: tuple[Fault, ...] = ()
    """What it asks for and does not get, which takes nothing out of DNS."""


@dataclass(frozen=True, slots=True)
class SilentHost:
    """A host that does not answer, and is taken as lost here (`discod.model.swim`)."""

    name: str
    since: float
    """Its last sign of life, Unix seconds."""
    witnesses: tuple[str, ...]
    """Hosts by whose word."""


@dataclass(frozen=True, slots=True)
class PartReport:
    """Whether one part of the daemon works."""

    name: str
    """``store``, ``docker``, ``dns``, ``announcer``, ``config``."""
    ready: bool
    """Whether it was ever complete since the start and is not broken now."""
    detail: str
    since: float
    """Unix seconds."""
