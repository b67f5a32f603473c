"""Binds a socket to an address that this host may not have yet.

Rule: an address that is configured is served from the moment it exists. Docker's bridge, for one,
comes with the engine, and a resolver that refused to start before it would take the host's other
names away with it.
"""

from __future__ import annotations

import errno
import logging
import socket

from discod.log import fields
from discod.model.settings import ListenAddress

log = logging.getLogger(__name__)

_IP_FREEBIND = 15  # linux/in.h
_IPV6_FREEBIND = 78  # linux/in6.h


def bind(sock: socket.socket, at: ListenAddress) -> None:
    """Bind `sock`; in advance (ip(7), IP_FREEBIND), and said so, where the address is not here.

    Raises:
        OSError: it is in use, or needs privileges.
    """
    try:
        sock.bind((str(at.address), at.port))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        if at.address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((str(at.address), at.port))
        log.warning(
            "this host has no such address yet, served as soon as it has",
            extra=fields(address=at.address, port=at.port, proto=sock.type.name),
        )
