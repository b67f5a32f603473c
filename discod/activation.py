"""Sockets that the service manager opened for us (sd_listen_fds(3), systemd.socket(5)).

Rule: what is handed over is known by what it is bound to, never by its order or its name; whatever
cannot serve DNS is a fault that says which socket and why, since a socket that nobody reads
swallows queries. The environment is handed in, not read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

FIRST: Final = 3
"""Descriptor of the first socket; the others follow (sd_listen_fds(3), SD_LISTEN_FDS_START)."""
COUNT_MAX: Final = 1024
"""Sockets in one unit: more is no unit's doing, but a damaged variable."""


class ActivationError(Exception):
    """What was handed over cannot be used; the text names the variable or the socket."""


class Handed(NamedTuple):
    """One descriptor that was handed over."""

    fd: int
    name: str
    """FileDescriptorName= of the unit, for people; ``unknown`` when it has none."""


def handed(environ: Mapping[str, str], pid: int) -> tuple[Handed, ...]:
    """The descriptors that ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` tell of.

    Args:
        environ: The environment.
        pid: Of this process: what is meant for another one is none of ours, as in a child of a
            daemon that was activated.

    Raises:
        ActivationError: a variable does not say what it should.
    """
    owner = environ.get("LISTEN_PID", "")
    if not owner:
        return ()
    if _number(environ, "LISTEN_PID") != pid:
        return ()
    count = _number(environ, "LISTEN_FDS")
    if count > COUNT_MAX:
        raise ActivationError(f"LISTEN_FDS: {count} sockets, expected at most {COUNT_MAX}")
    text = environ.get("LISTEN_FDNAMES", "")
    names = text.split(":") if text else ["unknown"] * count
    if len(names) != count:
        raise ActivationError(f"LISTEN_FDNAMES: {len(names)} names for {count} sockets")
    return tuple(Handed(FIRST + i, name) for i, name in enumerate(names))


def adopt(found: Iterable[Handed]) -> tuple[socket.socket, ...]:
    """The sockets behind the descriptors, not blocking, and closed in programs that are executed.

    Several may be bound to one place, whose load they share (ReusePort=, one Listen... line for
    each).

    Raises:
        ActivationError: one is no socket, or neither UDP nor listening TCP over IPv4 or IPv6; all
            are closed then.
    """
    sockets: list[socket.socket] = []
    try:
        for one in found:
            sock = _socket(one)
            sockets.append(sock)
            if fault := _fault(sock):
                raise ActivationError(f"descriptor {one.fd} ({one.name}): {fault}")
    except BaseException:  # cleaned up, then raised on
        for sock in sockets:
            sock.close()
        raise
    return tuple(sockets)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    # int() takes signs, spaces and underscores as well.
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        raise ActivationError(f"{name}: {text[:40]!r}, expected a decimal number")
    return int(text)


def _socket(one: Handed) -> socket.socket:
    try:
        os.set_inheritable(one.fd, False)
        sock = socket.socket(fileno=one.fd)
    except OSError as error:
        raise ActivationError(f"descriptor {one.fd} ({one.name}): {error.strerror}") from error
    sock.setblocking(False)
    return sock


def _fault(sock: socket.socket) -> str:
    """Why DNS cannot be served on it; empty: it can."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "neither IPv4 nor IPv6"
    if sock.type not in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        return "neither UDP nor TCP"
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        return "a TCP socket that does not listen (Accept= has to be no)"
    host, port = sock.getsockname()[:2]
    if port == 0:
        return "bound to no port"
    if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return "[::] for both families (BindIPv6Only= has to be ipv6-only)"
    return ""
