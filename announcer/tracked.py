"""What the watcher remembers of one container.

Rule: nothing here acts; `announcer.watcher` alone changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from announcer.container import Container, Status
from announcer.offer import Offer, Reading
from discod.model.endpoint import Address

LIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""There is a main process."""


Run = tuple[int, float]
"""One run of a container: pid of its main process, and `Container.started`. The pid alone would not
do: the kernel gives it out again, after 32,768 others on many hosts."""


def run_of(container: Container) -> Run:
    """The present run; the pid is 0 where there is none."""
    return container.pid, container.started


def unit_key(container: str) -> str:
    """The roster's key of a container."""
    return f"docker:{container}"


@dataclass(slots=True)
class Tracked:
    """One container, and what is known of it beyond the engine's last word."""

    container: Container
    offers: tuple[Offer, ...] = ()
    """Of the last time it had addresses: a stopped container has none, and stays visible."""
    dead: Run | None = None
    """The run that is known to have ended, whatever the engine still says."""
    stopping: float = 0.0
    """`Container.started` of the run that got its stop signal; 0: none."""
    timer: trio.CancelScope | None = None
    attached: frozenset[str] = field(default_factory=frozenset)
    basis: tuple[object, ...] = ()
    """What `reading` was read from."""
    reading: Reading = field(default_factory=Reading)

    @property
    def living(self) -> int:
        """Pid of the main process; 0: there is none, or it is known to have ended."""
        container = self.container
        here = container.status in LIVE and self.dead != run_of(container)
        return container.pid if here else 0


def addresses_of(container: Container) -> tuple[Address, ...]:
    """Its addresses in its networks, IPv4 first."""
    found = {a for at in container.attachments for a in (at.ipv4, at.ipv6) if a is not None}
    return tuple(sorted(found, key=lambda a: (a.version, a.packed)))


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


def find(containers: Iterable[Container], text: str) -> str:
    """The id of the one container with this name or id prefix (of 4 digits at least).

    Raises:
        LookupError: there is none, or more than one.
    """
    found = [
        c.id for c in containers if c.name == text or (len(text) >= 4 and c.id.startswith(text))
    ]
    if len(found) != 1:
        what = "no container" if not found else "more than one container"
        raise LookupError(f"{what} of this host is named {text!r}")
    return found[0]
