"""What one container offers: the result of reading its labels under the host's settings. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from discod.model.endpoint import Address, Endpoint, Fault
from discod.model.settings import AnnounceSettings, Check, CheckSettings, Network
from discod.model.vip import VipWish


@dataclass(frozen=True, slots=True)
class Offer:
    """One endpoint a container would offer if it were up, and how to tell whether it is."""

    endpoint: Endpoint
    check: Check | None = None
    """Own check, with every default filled in; None: the container's state alone decides."""
    vip: VipWish | None = None
    """The service's own addresses that it asks for; None: it asks for none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that a container's labels amount to."""

    offers: tuple[Offer, ...] = ()
    faults: tuple[Fault, ...] = ()
    """Non-empty: the container is refused as a whole, and `offers` is empty."""
    silent: str = ""
    """Why it offers nothing although nothing is wrong: ignored, no port, no label where one is
    required. For `explain`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What reading a container depends on besides the container."""

    host: str
    """Name of this host."""
    addresses: tuple[Address, ...]
    """Of this host, for published ports and host networking."""
    announce: AnnounceSettings
    checks: CheckSettings
    anycast_allow: tuple[Network, ...] | None = None
    """Where the label ``discod.anycast`` may point; None: there is no BGP, and it does nothing."""
    vips: Mapping[str, tuple[Address, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Service -> its own addresses, as far as they are allocated."""
