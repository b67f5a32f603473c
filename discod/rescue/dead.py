"""The endpoints that are gone, by the place that each had.

Rule: one a place, the newest. They stand in the order in which they were last used: when there are
too many, the first goes. One whose place was used by somebody else since is *closed*: it is kept so
that it is not taken up again, and does nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from discod.model.endpoint import Address, Endpoint, Loss, Reason, Withdrawal
from discod.model.rescue import Place
from discod.model.rescue_settings import RescueSettings

LOST: Final = "lost"
MOVED: Final = "moved"
"""The endpoint is up, elsewhere."""

LINGERING: Final = frozenset(
    {Reason.STOPPING, Reason.DRAINED, Reason.UNOFFERED, Reason.STARTING, MOVED}
)
"""Ends after which established connections may still be brought to an end by what stood there. All
others cut them, unhealthy too: who does not answer is no better than who is gone."""


@dataclass(slots=True)
class Dead:
    """One endpoint that is gone."""

    place: Place
    endpoint: Endpoint
    """As it was when it was up."""
    why: str
    cut: bool
    since: float
    """When it went, by the clock of who said so."""
    born: float
    """When we heard of it, or `since` where that is earlier."""
    used: float
    """When it was last used, `born` at first."""
    closed: bool = False
    shared: bool = False
    """Whether another service had the place not long before."""
    backend: Place | None = None
    mac: bytes = b""

    @property
    def life(self) -> tuple[float, float]:
        """When it began and ended: of two that had one place, the greater was there later."""
        return self.endpoint.since, self.since

    def until(self, settings: RescueSettings) -> float:
        """When it is forgotten."""
        return min(self.used + settings.hold, self.born + settings.max_hold)

    @classmethod
    def of(cls, endpoint: Endpoint, said: Withdrawal | Loss | None, heard: float) -> Dead:
        """What is said of an endpoint, heard at `heard`; None: it is lost for all we know."""
        since = heard if said is None else said.at
        why = why_of(said)
        # Datagrams have no connection to bring to an end: the next one may as well go elsewhere.
        cut = why not in LINGERING or endpoint.protocol == "udp"
        return cls(Place(*endpoint.place), endpoint, why, cut, since, heard, heard)


def why_of(said: Withdrawal | Loss | None) -> str:
    """The word for an end."""
    return said.reason.value if isinstance(said, Withdrawal) else LOST


class Deads:
    """Who is gone, in the order of last use."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._by_place: dict[Place, Dead] = {}
        self._by_address: dict[Address, dict[Place, None]] = {}
        self._own: dict[Place, Dead] = {}  # of this host's containers
        self._lingering: dict[Place, Dead] = {}

    def __len__(self) -> int:
        """How many there are, closed ones included."""
        return len(self._by_place)

    def __iter__(self) -> Iterator[Dead]:
        return iter(tuple(self._by_place.values()))

    def get(self, place: Place) -> Dead | None:
        """The one that had a place, or None."""
        return self._by_place.get(place)

    def at(self, address: Address) -> Iterable[Dead]:
        """Those that had an address."""
        return [self._by_place[place] for place in self._by_address.get(address, ())]

    def own(self) -> Iterable[Dead]:
        """Those of containers of this host."""
        return tuple(self._own.values())

    def lingering(self) -> Iterable[Dead]:
        """Those of which established connections go on."""
        return tuple(self._lingering.values())

    def put(self, dead: Dead) -> None:
        """Add one, in place of whoever had the place before."""
        place = dead.place
        self.pop(place)
        self._by_place[place] = dead
        self._by_address.setdefault(place.address, {})[place] = None
        if dead.endpoint.host == self._host and dead.endpoint.container:
            self._own[place] = dead
        if not dead.cut:
            self._lingering[place] = dead

    def pop(self, place: Place) -> Dead | None:
        """Take one out, and return it."""
        dead = self._by_place.pop(place, None)
        if dead is not None:
            places = self._by_address[place.address]
            del places[place]
            if not places:
                del self._by_address[place.address]
            self._own.pop(place, None)
            self._lingering.pop(place, None)
        return dead

    def cut(self, dead: Dead) -> None:
        """Its established connections end, too."""
        dead.cut = True
        self._lingering.pop(dead.place, None)

    def use(self, dead: Dead, now: float) -> None:
        """It was used just now."""
        dead.used = max(dead.used, now)
        self._by_place[dead.place] = self._by_place.pop(dead.place)

    def sort(self) -> None:
        """Put them in order, after some were added that were used earlier."""
        self._by_place = dict(sorted(self._by_place.items(), key=lambda item: item[1].used))

    def oldest(self) -> Dead:
        """The one that was used longest ago."""
        return next(iter(self._by_place.values()))
