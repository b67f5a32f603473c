"""The endpoints of one command, as ``discod announce`` sees them."""

from __future__ import annotations

from collections.abc import Sequence

from announcer.publish import Publisher
from announcer.roster import Roster
from discod.model.endpoint import Reason


class Announced:
    """Offered until `leave` or `withdraw`; fulfils `discod.view.Announcement`."""

    def __init__(self, keys: Sequence[str], roster: Roster, publisher: Publisher) -> None:
        self._keys = keys
        self._roster = roster
        self._publisher = publisher
        self._said = ""

    async def status(self) -> str:
        """The state in words, ``up`` or ``down: <reason>``: the present one, then each new one."""
        while (said := self._roster.in_words(self._keys)) == self._said:
            await self._roster.changed()
        self._said = said
        return said

    def leave(self) -> None:
        """Withdraw the endpoints; nothing where that was done before."""
        for key in self._keys:
            self._roster.remove(key, Reason.PRODUCER_LEFT)

    async def withdraw(self) -> None:
        """Withdraw the endpoints and return once the store has confirmed it."""
        self.leave()
        await self._publisher.settled()
