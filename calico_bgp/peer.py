"""What is configured of one peer, and the OPEN that follows from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from calico_bgp.capability import Capabilities, GracefulRestart
from calico_bgp.opening import Open
from calico_bgp.prefix import FAMILIES, Family

HOLD_TIME: Final = 9
"""Seconds. RFC 4271, section 10, suggests 90; a dead host is to be noticed sooner, and three
KEEPALIVEs in 9 s cost nothing between neighbours."""
RESTART_TIME: Final = 120
"""Seconds: Calico's."""


@dataclass(frozen=True)
class Peer:
    """One peer; times are in seconds."""

    local_asn: int
    peer_asn: int
    router_id: IPv4Address
    families: tuple[Family, ...] = FAMILIES
    required: tuple[Family, ...] = ()
    """Families without which there is no session; none: one in common will do."""
    hold_time: int = HOLD_TIME
    """0: none, and no KEEPALIVEs."""
    passive: bool = False
    """Never connects (RFC 4271, section 8.1.1, PassiveTcpEstablishment)."""
    retry_first: float = 0.5
    retry_most: float = 5.0
    """Between attempts to connect. RFC 4271, section 10, suggests 120; one segment each 5 s for a
    peer that is away is nothing, and it may be back."""
    restart_time: int = RESTART_TIME
    """That our restarts take at most (RFC 4724); 0: graceful restart is off, for both."""
    restarting: bool = False
    """This process follows another one whose routes the peer may still have."""
    stale_most: float = 120.0
    """Routes of a lost peer are kept so long at most, whatever restart time it asks for, and again
    so long at most while it tells its routes anew."""
    keep_on_notification: bool = False
    """RFC 8538: only a Hard Reset ends routes at once."""
    end_of_rib_most: float = 60.0
    """Our End-of-RIB waits so long at most for the first full sync: until then peers that restart
    may hear nothing from others."""
    max_prefixes: int = 0
    """Of one family; 0: no maximum."""
    max_prefixes_restart: float | None = None
    """After so long a peer that sent too many gets another chance; None: `start` only."""
    idle_hold: float = 1.0
    """Nothing is done for so long after an error of the protocol (RFC 4271, section 8.1.1)."""

    @property
    def external(self) -> bool:
        """Whether the peer is in another AS."""
        return self.local_asn != self.peer_asn

    def open(self, *, restarting: bool, plain: bool = False) -> Open:
        """Our OPEN.

        With `plain` it has no capabilities, for a peer that knows of none (RFC 5492, section 3).
        Forwarding is always preserved: routes of the kernel outlive the process.
        """
        if plain:
            return Open(self.local_asn, self.hold_time, self.router_id, None)
        restart = None
        if self.restart_time:
            kept = tuple((family, True) for family in self.families)
            restart = GracefulRestart(
                self.restart_time, kept, restarting, notification=self.keep_on_notification
            )
        able = Capabilities(self.families, True, self.local_asn, restart)
        return Open(self.local_asn, self.hold_time, self.router_id, able)
