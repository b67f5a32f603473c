"""What is said of one peer: in the log, sparingly, and in its status.

Rule: every end has its reason, with the RFC's name where there is a NOTIFICATION; a peer that flaps
or cannot be reached does not flood the log. Passwords are never here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from calico_bgp.actions import Down, Up
from calico_bgp.attribute_fault import Fault
from calico_bgp.prefix import Address
from calico_bgp.sparing import Sparing
from discod.log import fields

log = logging.getLogger(__name__)

FAULTS_SHOWN: Final = 3


class Journal:
    """One peer's; times in the status are Unix seconds."""

    def __init__(self, name: str, address: Address, wall: Callable[[], float]) -> None:
        self.name, self._address, self._wall = name, address, wall
        self.since = wall()
        """When it came into its state."""
        self.last_error = ""
        self.last_error_at = 0.0
        self._sparing = Sparing()
        self._failed = ""

    def state_changed(self) -> None:
        """It is in another state now."""
        self.since = self._wall()

    def up(self, up: Up, local: Address) -> None:
        """Established."""
        self._failed = ""
        if not self._lets("up or down"):
            return
        families = ",".join(map(str, up.families))
        theirs = up.theirs
        log.info(
            "BGP session up",
            extra=fields(
                peer=self._address,
                name=self.name,
                asn=theirs.can.four_octet_as or theirs.asn,
                router_id=theirs.router_id,
                local=local,
                families=families,
                hold_time=up.hold_time,
                graceful_restart=theirs.can.graceful_restart is not None,
                unsaid=self._sparing.unsaid("up or down"),
            ),
        )

    def down(self, down: Down) -> None:
        """A session or an attempt has ended."""
        text = why(down)
        self.last_error, self.last_error_at = text, self._wall()
        if down.was_up:
            if self._lets("up or down"):
                left = self._sparing.unsaid("up or down")
                log.warning(
                    "BGP session down",
                    extra=fields(
                        peer=self._address,
                        name=self.name,
                        why=text,
                        kept=down.retained,
                        unsaid=left,
                    ),
                )
            return
        # The same again and again is said once.
        if text != self._failed and self._lets("attempt"):
            self._failed = text
            log.warning(
                "no BGP session", extra=fields(peer=self._address, name=self.name, why=text)
            )

    def faulty(self, faults: tuple[Fault, ...]) -> None:
        """An UPDATE with faults that cost its routes only (RFC 7606)."""
        shown = "; ".join(map(str, faults[:FAULTS_SHOWN]))
        self.last_error, self.last_error_at = f"faulty UPDATE: {shown}", self._wall()
        if self._lets("faulty"):
            left = self._sparing.unsaid("faulty")
            log.warning(
                "faulty BGP update",
                extra=fields(peer=self._address, name=self.name, faults=shown, unsaid=left),
            )

    def crashed(self, error: Exception, pause: float) -> None:
        """A fault of this program."""
        self.last_error = f"fault of discod: {type(error).__name__}: {error}"
        self.last_error_at = self._wall()
        log.error(
            "fault in a BGP peer, it is begun anew",
            extra=fields(peer=self._address, name=self.name, pause=round(pause, 1)),
            exc_info=error,
        )

    def _lets(self, kind: str) -> bool:
        return self._sparing.lets(kind, trio.current_time())


def why(down: Down) -> str:
    """The end of a session in words."""
    end = down.notification
    if end is None:
        return down.why
    if not down.sent:
        return f"received {end}"
    return f"sent {end}: {down.why}" if down.why else f"sent {end}"
