"""The name servers of a resolv.conf (resolv.conf(5)).

Rule: the file belongs to others; a line that makes no sense is passed over, never a fault. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from discod.model.endpoint import Address
from discod.model.settings import ListenAddress

PORT = 53
SERVERS_MAX = 3
"""As the C library: MAXNS."""
TIMEOUT_MAX, ATTEMPTS_MAX = 30, 5
"""As the C library: RES_MAXRETRANS (seconds) and RES_MAXRETRY."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Whom to ask, and how patiently."""

    servers: tuple[ListenAddress, ...] = ()
    """In order of preference."""
    timeout: float | None = None
    """Seconds for one try; None: not said."""
    attempts: int = 2
    """Rounds through `servers`."""
    own: tuple[ListenAddress, ...] = ()
    """Left out of `servers`, for they are discod itself: it would ask itself for ever."""


def parse(text: str, is_own: Callable[[ListenAddress], bool] = lambda _: False) -> Upstreams:
    """Read a resolv.conf; servers that are ourselves (`is_own`) are left out: they would loop."""
    servers: list[ListenAddress] = []
    own: list[ListenAddress] = []
    timeout: float | None = None
    attempts = 2
    for line in text.split("\n"):
        words = line.split()
        match words:
            case ["nameserver", text_, *_]:
                server = _server(text_)
                if server is not None and server not in (*servers, *own):
                    (own if is_own(server) else servers).append(server)
            case ["options", *options]:
                for option in options:
                    name, _, value = option.partition(":")
                    if not (value.isascii() and value.isdigit()):
                        continue
                    if name == "timeout":
                        timeout = float(min(max(int(value[:6]), 1), TIMEOUT_MAX))
                    elif name == "attempts":
                        attempts = min(max(int(value[:6]), 1), ATTEMPTS_MAX)
    return Upstreams(tuple(servers[:SERVERS_MAX]), timeout, attempts, tuple(own))


def _server(text: str) -> ListenAddress | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address.is_unspecified:  # means this host to the C library
        address = IPv4Address("127.0.0.1") if address.version == 4 else IPv6Address("::1")
    return ListenAddress(address, PORT)


def is_listening(
    server: ListenAddress, bound: tuple[ListenAddress, ...], own: tuple[Address, ...]
) -> bool:
    """Whether `server` is where we listen ourselves; `own` are this host's addresses."""
    for at in bound:
        if server.port != at.port:
            continue
        if server.address == at.address:
            return True
        if at.address.is_unspecified and at.address.version == server.address.version:
            local = server.address.is_loopback or server.address.is_unspecified
            if local or server.address in own:
                return True
    return False
