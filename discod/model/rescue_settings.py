"""The settings of rescue and of service addresses. Defaults here are the documented defaults.

Rule: as `discod.model.settings`. Times are seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network


@dataclass(frozen=True, slots=True)
class RescueSettings:
    """``[rescue]``: clients that go on using the address of an endpoint that is gone."""

    enabled: bool = False
    hold: float = 600.0
    """How long a stale address is looked after once no client uses it any more."""
    max_hold: float = 86_400.0
    """And how long at most, used or not."""
    max_entries: int = 4096
    """Stale addresses at most; when full, the one that was used longest ago makes room."""
    refuse: bool = True
    """Refuse connections to a stale address without a living sibling, else they hang."""
    takeover: bool = False
    """Announce the addresses of containers of a dead host over BGP, on one of those that live."""


@dataclass(frozen=True, slots=True)
class VipSettings:
    """``[vip]``: addresses of services that never change."""

    pool: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where they are taken from; the same on every host. Empty: there are none."""
