"""What one input leads to, until the caller takes it.

Rule: routes go out as one change for each input, but before an End-of-RIB that is about them; a
change withdraws nothing that the caller does not know; a timer goes out only where it is another
one. Pure.
"""

from __future__ import annotations

from calico_bgp.actions import Action, Arm, Routes
from calico_bgp.attributes import Attributes
from calico_bgp.connection import NEVER
from calico_bgp.prefix import Prefix
from calico_bgp.rib import Change


class Outbox:
    """Actions in their order."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._announced: dict[Prefix, Attributes] = {}
        self._withdrawn: set[Prefix] = set()
        self._known: set[Prefix] = set()
        self._armed: float | None = None

    def put(self, *actions: Action) -> None:
        """To be done behind all that is here."""
        self._actions += actions

    def change(self, change: Change) -> None:
        """Routes of the peer come and go."""
        for prefix in change.withdrawn:
            self._announced.pop(prefix, None)
        self._withdrawn |= change.withdrawn
        self._withdrawn -= change.announced.keys()
        self._announced.update(change.announced)

    def fired(self) -> None:
        """The timer is over, whatever it was."""
        self._armed = None

    def flush(self) -> None:
        """The routes so far go before what is put next."""
        withdrawn = frozenset(self._withdrawn & self._known)
        if self._announced or withdrawn:
            self._known -= withdrawn
            self._known |= self._announced.keys()
            self._actions.append(Routes(Change(self._announced, withdrawn)))
        self._announced, self._withdrawn = {}, set()

    def take(self, due: float) -> list[Action]:
        """All of it; `due` is when the session has to be looked at again."""
        self.flush()
        at = None if due == NEVER else due
        if at != self._armed:
            self._actions.append(Arm(at))
            self._armed = at
        done, self._actions = self._actions, []
        return done
