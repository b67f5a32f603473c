"""What the watcher remembers of one container.

Rule: nothing here acts; `announcer.watcher` alone changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from announcer.container import Container, Status
from announcer.offer import Offer, Reading

LIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""There is a main process."""


def unit_key(container: str) -> str:
    """The roster's key of a container."""
    return f"docker:{container}"


@dataclass(slots=True)
class Tracked:
    """One container, and what is known of it beyond the engine's last word."""

    container: Container
    offers: tuple[Offer, ...] = ()
    """Of the last time it had addresses: a stopped container has none, and stays visible."""
    dead_pid: int = 0
    """The main process that is known to have ended, whatever the engine still says."""
    stopping: float = 0.0
    """`Container.started` of the run that got its stop signal; 0: none."""
    timer: trio.CancelScope | None = None
    attached: frozenset[str] = field(default_factory=frozenset)
    basis: tuple[object, ...] = ()
    """What `reading` was read from."""
    reading: Reading = field(default_factory=Reading)


def basis_of(container: Container) -> tuple[object, ...]:
    """All of a container that its reading depends on."""
    return (
        container.status in LIVE,
        container.name,
        container.image,
        container.started,
        container.network_mode,
        container.attachments,
        container.published,
        container.exposed,
        container.labels,
        container.env,
    )
