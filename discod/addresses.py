"""The host's own addresses while it runs: a lease of DHCP, a new line or a move may change them.

Rule: tells of a change; what follows from it is the caller's. Addresses that the configuration
names never change. A host that has lost its network keeps its last ones, since a link that comes
back must not have moved anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from discod.identity import host_addresses
from discod.log import fields
from discod.model.endpoint import Address
from discod.model.settings import HostSettings

log = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks: two routing questions to the kernel."""


class AddressWatch:
    """What was found, and whether it has changed.

    Two looks in a row have to agree: an address that is being replaced may be there beside the new
    one, or not at all, for a moment.

    Args:
        present: What is offered now.
        find: Looks once.
    """

    def __init__(
        self, present: tuple[Address, ...], find: Callable[[], tuple[Address, ...]]
    ) -> None:
        self.present = present
        self._find = find
        self._last = present

    def look(self) -> bool:
        """Look once; whether `present` is another now."""
        last, self._last = self._last, self._find()
        if self._last != last or self._last == self.present:
            return False
        if all(address.is_loopback for address in self._last):
            return False
        self.present = self._last
        return True


async def watch_addresses(
    settings: HostSettings,
    present: tuple[Address, ...],
    changed: Callable[[tuple[Address, ...]], None],
) -> None:
    """Call `changed` with the host's addresses whenever they are others, until cancelled."""
    if settings.addresses:
        return
    watch = AddressWatch(present, lambda: host_addresses(settings))
    while True:
        await trio.sleep(LOOK)
        if watch.look():
            now = ",".join(map(str, watch.present))
            log.warning("this host's addresses are others now", extra=fields(now=now))
            changed(watch.present)
