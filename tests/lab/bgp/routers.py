"""The real speakers of the lab, each from Debian's package."""

from __future__ import annotations

from tests.lab.bgp.bird import Bird
from tests.lab.bgp.frr import Frr
from tests.lab.bgp.gobgp import Gobgp
from tests.lab.bgp.router import Neighbor, Router, Seen, Told

__all__ = ["ALL", "Bird", "Frr", "Gobgp", "Neighbor", "Router", "Seen", "Told"]

ALL: tuple[type[Router], ...] = (Bird, Frr, Gobgp)
