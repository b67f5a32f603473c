"""Who this host is, where the configuration does not say: its name and its addresses."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from discod.model.endpoint import Address
from discod.model.names import to_label
from discod.model.settings import HostSettings

# Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket sends nothing, and the
# kernel tells which source address its route would use.
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def host_name(settings: HostSettings) -> str:
    """The configured name, or the first label of the system's host name, as an LDH label."""
    return settings.name or to_label(socket.gethostname().partition(".")[0]) or "localhost"


def host_addresses(settings: HostSettings) -> tuple[Address, ...]:
    """The configured addresses, or the sources of the default routes, or 127.0.0.1."""
    if settings.addresses:
        return settings.addresses
    found: list[Address] = []
    for family, probe in _PROBES:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((probe, 53))
            except OSError:
                continue  # no route for this family
            address = ip_address(sock.getsockname()[0])
            if not address.is_link_local:
                found.append(address)
    return tuple(found) or (ip_address("127.0.0.1"),)
