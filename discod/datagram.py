"""UDP sockets between hosts."""

from __future__ import annotations

import socket

from discod.model.endpoint import Address


def bound(address: Address, port: int) -> socket.socket:
    """A UDP socket at an address, not blocking.

    Raises:
        OSError: it cannot be had.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock
