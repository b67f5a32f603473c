"""Another installation under this host's name: the two would take each other's records away.

Rule: it is told, in the log once and to readiness; nothing is done about it.
"""

from __future__ import annotations

import logging

from discod.log import fields
from discod.model.catalog import Catalog, Change

log = logging.getLogger(__name__)


class TwinWatch:
    """Looks at this host's own record in the Catalog.

    Args:
        host: Name of this host.
        machine: Identity of this installation.
    """

    def __init__(self, host: str, machine: str) -> None:
        self._host = host
        self._machine = machine
        self._twin = ""

    @property
    def error(self) -> str:
        """What is wrong, in words; empty: nothing."""
        if not self._twin:
            return ""
        return f"another installation (machine {self._twin}) uses the host name {self._host}"

    def update(self, catalog: Catalog, change: Change) -> None:
        """Take a change of the Catalog."""
        if not change.hosts:
            return
        record = catalog.hosts.get(self._host)
        twin = record.machine if record and record.machine != self._machine else ""
        if twin and twin != self._twin:
            log.error(
                "another installation uses this host's name; give one a host.name of its own",
                extra=fields(host=self._host, other=twin),
            )
        self._twin = twin
