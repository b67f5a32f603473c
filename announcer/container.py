"""One container as the engine describes it, read from an inspect document.

Rule: values only; whatever is malformed or missing in the document gets a neutral value here, once,
so that no later step looks at raw engine JSON. Field names follow the Engine API
(https://docs.docker.com/engine/api/v1.41/#tag/Container/operation/ContainerInspect). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from signal import SIGTERM, Signals

from discod.model.endpoint import Address, Protocol

SIGNAL_MAX = 64
"""SIGRTMAX on Linux (signal(7))."""


class Status(StrEnum):
    """``State.Status`` of the engine."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Healthcheck(StrEnum):
    """``State.Health.Status`` of the engine."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Attachment:
    """The container's place in one network (``NetworkSettings.Networks``)."""

    network: str
    network_id: str
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    mac: bytes = b""
    """Link-layer address, 6 octets; empty: unknown."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One binding of a container port to the host (``NetworkSettings.Ports``)."""

    port: int
    """The container's."""
    protocol: Protocol
    host_address: Address | None
    """None: every address of the host of either family; 0.0.0.0: every IPv4, ``::``: every IPv6."""
    host_port: int


@dataclass(frozen=True, slots=True)
class Container:
    """What the announcer knows of one container."""

    id: str
    """64 hexadecimal digits."""
    name: str
    """Without the leading slash."""
    image: str
    """As named when the container was made, e.g. ``registry:5000/team/web:1.2``."""
    status: Status
    pid: int = 0
    """Of the main process, in the engine's PID namespace; 0 when not running."""
    exit_code: int = 0
    oom_killed: bool = False
    started: float = 0.0
    """Unix seconds; 0 when never."""
    health: Healthcheck = Healthcheck.NONE
    health_output: str = ""
    """Output of the last HEALTHCHECK run, at most 200 characters, for people."""
    labels: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    network_mode: str = ""
    """``host``, ``none``, ``bridge``, ``container:<id>`` or a network's name."""
    attachments: tuple[Attachment, ...] = ()
    """Sorted by network name."""
    exposed: tuple[tuple[int, Protocol], ...] = ()
    """Sorted; ``Config.ExposedPorts``."""
    published: tuple[Publication, ...] = ()
    """Sorted."""
    stop_signal: str = "SIGTERM"

    @property
    def short_id(self) -> str:
        """The first 12 digits, as people know it."""
        return self.id[:12]

    @property
    def stop_signal_number(self) -> int:
        """`stop_signal` as a number; SIGTERM's for one that this system does not know.

        The engine takes ``SIGTERM``, ``TERM``, ``15`` and ``SIGRTMIN+3``.
        """
        text = self.stop_signal.strip().upper()
        if text.isdecimal() and text.isascii():
            return (
                int(text) if 1 <= int(text[:3]) <= SIGNAL_MAX and len(text) <= 2 else SIGTERM.value
            )
        name, plus, offset = text.removeprefix("SIG").partition("+")
        try:
            number = Signals[f"SIG{name}"].value + (int(offset) if plus else 0)
        except (KeyError, ValueError):
            return SIGTERM.value
        return number if 1 <= number <= SIGNAL_MAX else SIGTERM.value
