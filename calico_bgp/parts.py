"""What `calico_bgp.service` drives, beyond what the ports say. Interfaces and values only.

Rule: everything here is handed the whole wish, and works in a task of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from calico_bgp.counts import PeerCounts
from calico_bgp.ports import Desired, Forwarding, Speaker, Standing
from calico_bgp.prefix import Address, Prefix
from discod.model.bgp_settings import BgpSettings
from discod.model.endpoint import Host


class Sessions(Speaker, Protocol):
    """The native speaker, as far as it is more than the port says."""

    def reconfigure(self, settings: BgpSettings, addresses: Sequence[Address] = ()) -> None:
        """Take other settings; no addresses: the same. Peers that do not change are not touched."""
        ...

    def counts(self) -> Mapping[Address, PeerCounts]:
        """What is counted, by peer."""
        ...


class Follower(Protocol):
    """What else follows the wish: the host side, and the routes of the kernel backend."""

    def want(self, desired: Desired) -> None:
        """Have exactly this from now on. Synchronous: taken, and done soon."""
        ...

    async def run(self) -> None:
        """Work until cancelled; what is in force stays so."""
        ...

    async def leave(self) -> None:
        """Take back what draws traffic here: this is no restart. The caller bounds it.

        Raises:
            OSError: the kernel did not take it.
        """
        ...

    def status(self) -> Sequence[Standing]:
        """How it stands, for people."""
        ...


class Kernel(Forwarding, Protocol):
    """Learned routes in the kernel."""

    async def run(self) -> None:
        """Work until cancelled; routes stay."""
        ...

    def counts(self) -> Mapping[str, int]:
        """How many are ``wanted``, ``installed``, ``failed``."""
        ...

    def faults(self) -> Mapping[Prefix, str]:
        """Routes that are wanted and are not in the kernel, and why."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the service drives."""

    speaker: Sessions | None = None
    """None: the operator's BIRD or FRR is the speaker."""
    kernel: Kernel | None = None
    """None: learned routes are not installed."""
    followers: tuple[Follower, ...] = ()


Build = Callable[[BgpSettings, Host], Parts]
"""Makes the parts for the settings and this host's name and addresses, and joins them: what the
speaker has learned and settled goes to the kernel."""
