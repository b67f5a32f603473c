"""TCP sockets as BGP wants them: TCP MD5, hop limits, precedence, source address.

Rule: all socket options of BGP are set here and nowhere else. Linux.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from calico_bgp.prefix import Address
from calico_bgp.transport import Dial, Link

TCP_MD5SIG: Final = 14
PASSWORD_MAX: Final = 80
"""Octets: the kernel's TCP_MD5SIG_MAXKEYLEN."""
_IP_MINTTL: Final = 21
_IPV6_MINHOPCOUNT: Final = 73
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_PRECEDENCE: Final = 0xC0
"""Internetwork Control (RFC 791), as routers mark BGP."""
FAR: Final = 255
"""Hops that a packet can go at most."""
BACKLOG: Final = 64

RawSocket = socket.socket | trio.socket.SocketType


def family_of(address: Address) -> socket.AddressFamily:
    """The socket family of an address."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def set_key(sock: RawSocket, peer: Address, password: bytes) -> None:
    """Sign what goes to this peer, and take only what it signed (RFC 2385); empty: no more.

    Raises:
        OSError: the kernel has no TCP MD5, or the key is too long. Taking away a key that is not
            there is no fault.
    """
    if peer.version == 4:
        name = struct.pack("=HH4s", socket.AF_INET, 0, peer.packed)
    else:
        name = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, peer.packed, 0)
    # struct tcp_md5sig of linux/tcp.h: address, flags, prefix length, key length, interface, key.
    value = struct.pack("=128sBBHi80s", name, 0, 0, len(password), 0, password[:PASSWORD_MAX])
    if len(password) > PASSWORD_MAX:
        raise OSError(errno.EINVAL, f"password of {len(password)} octets, at most {PASSWORD_MAX}")
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, value)
    except OSError as error:
        if password or error.errno != errno.ENOENT:
            raise


def set_hops(sock: RawSocket, family: int, *, ttl: int, gtsm: int) -> None:
    """The hop limit of what is sent and, with `gtsm`, the least of what is taken (RFC 5082).

    A neighbour (1 hop) sends 255 and we see 255, since only routers take one off.
    """
    least = FAR + 1 - gtsm if gtsm else 0
    sent = FAR if gtsm else ttl
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, sent)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, least)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, sent)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, least)


def prepare(sock: RawSocket, family: int) -> None:
    """What every socket of ours has."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _PRECEDENCE)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _PRECEDENCE)


async def connect(dial: Dial) -> Link:
    """Connect to a peer.

    Raises:
        OSError: it did not work.
    """
    family = family_of(dial.address)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare(sock, family)
        set_hops(sock, family, ttl=dial.ttl, gtsm=dial.gtsm)
        if dial.password:
            set_key(sock, dial.address, dial.password)
        if dial.source is not None:
            await sock.bind((str(dial.source), 0))
        await sock.connect((str(dial.address), dial.port))
        return Link(trio.SocketStream(sock), _name(sock.getsockname), dial.address)
    except BaseException:  # cancelled too: closed, then raised on
        sock.close()
        raise


async def listen(address: Address, port: int) -> trio.socket.SocketType:
    """A listening socket.

    Raises:
        OSError: the port is taken, or may not be used.
    """
    family = family_of(address)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The address may come later than we do.
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        prepare(sock, family)
        # A peer that uses GTSM takes a SYN-ACK with 255 only.
        set_hops(sock, family, ttl=FAR, gtsm=0)
        await sock.bind((str(address), port))
        sock.listen(BACKLOG)
    except BaseException:  # cancelled too: closed, then raised on
        sock.close()
        raise
    return sock


def local_of(sock: trio.socket.SocketType) -> Address:
    """Our address of a connection."""
    return _name(sock.getsockname)


def refuse(sock: RawSocket) -> None:
    """Close at once, with a reset: nothing of a stranger is kept."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def interface_of(address: Address) -> str:
    """The interface that has this IPv6 address, for link-local next hops; empty: none, or IPv4."""
    if address.version != 6:
        return ""
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:  # IPv6 is not there
        return ""
    for line in lines:
        words = line.split()
        if words[0] == address.packed.hex():
            return words[-1]
    return ""


def why(error: OSError) -> str:
    """What went wrong, in the system's words; trio adds more, and puts some behind a cause."""
    if error.errno is None:
        return str(error)
    return os.strerror(error.errno)


def _name(ask: Callable[[], tuple[str, int]]) -> Address:
    return ip_address(ask()[0].partition("%")[0])
