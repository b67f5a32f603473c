"""recvmmsg(2) and sendmmsg(2) by ctypes, on headers that are built once.

Rule: nothing is allocated while a load runs; what the kernel fills is read by strided slices, a
column of all packets at a time, which costs the same for one packet and for a hundred.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from ctypes import addressof, c_char, c_int, c_size_t, c_uint, c_uint32, c_void_p, sizeof

from benchmarks.dns_query import Run

WAITFORONE = 0x10000
"""Block for the first packet only (recvmmsg(2))."""
RCVBUFFORCE = 33
"""asm-generic/socket.h; Python does not name it."""
BUFFER = 4 * 1024 * 1024
"""Octets that may wait in a socket: no load is lost on the measuring side."""
TIMESTAMPNS = 35
"""asm-generic/socket.h: the kernel notes when each packet came in (socket(7))."""
_STAMP = 32
"""Octets of one such note: struct cmsghdr, and a timespec of two long."""
_UDP_SEGMENT = 103  # linux/udp.h
_SOCKADDR = 16  # struct sockaddr_in

_libc = ctypes.CDLL(None, use_errno=True)
recvmmsg = _libc.recvmmsg
recvmmsg.argtypes = [c_int, c_void_p, c_uint, c_int, c_void_p]
sendmmsg = _libc.sendmmsg
sendmmsg.argtypes = [c_int, c_void_p, c_uint, c_int]


class _Iovec(ctypes.Structure):
    _fields_ = [("base", c_void_p), ("length", c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", c_void_p),
        ("name_length", c_uint32),
        ("iov", c_void_p),
        ("iov_length", c_size_t),
        ("control", c_void_p),
        ("control_length", c_size_t),
        ("flags", c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("header", _Msghdr), ("length", c_uint)]


class _Segment(ctypes.Structure):
    """struct cmsghdr with UDP_SEGMENT's value, padded as CMSG_SPACE does."""

    _fields_ = [
        ("length", c_size_t),
        ("level", c_int),
        ("type", c_int),
        ("size", ctypes.c_uint16),
        ("padding", c_char * 6),
    ]


HEADER = sizeof(_Mmsghdr)


def _base(buffer: bytearray) -> int:
    return addressof((c_char * len(buffer)).from_buffer(buffer))


class Arena:
    """Room for `count` packets of `size` octets each, and for where they came from.

    With `stamped`, for when they came too: then the socket must have TIMESTAMPNS set.
    """

    def __init__(self, count: int, size: int, *, stamped: bool = False) -> None:
        self.count = count
        self.size = size
        self.packets = bytearray(count * size)
        self._names = bytearray(count * _SOCKADDR)
        self._control = bytearray(count * _STAMP if stamped else 1)
        self._iov = (_Iovec * count)()
        self._headers = (_Mmsghdr * count)()
        control = _base(self._control)
        packets, names = _base(self.packets), _base(self._names)
        for k in range(count):
            self._iov[k].base = packets + k * size
            self._iov[k].length = size
            header = self._headers[k].header
            header.name, header.name_length = names + k * _SOCKADDR, _SOCKADDR
            header.iov, header.iov_length = addressof(self._iov[k]), 1
            if stamped:
                header.control, header.control_length = control + k * _STAMP, _STAMP
        self._times = memoryview(self._control).cast("q") if stamped else None
        self.headers = addressof(self._headers)

    def column(self, offset: int, count: int) -> bytes:
        """Octet `offset` of each of the first `count` packets."""
        return bytes(self.packets[offset : (count - 1) * self.size + offset + 1 : self.size])

    def stamps(self, count: int) -> list[float]:
        """When each of the first `count` packets came in, Unix seconds, by the kernel."""
        assert self._times is not None
        words = _STAMP // 8
        seconds = self._times[2 : words * count : words].tolist()
        nanoseconds = self._times[3 : words * count : words].tolist()
        return [s + ns * 1e-9 for s, ns in zip(seconds, nanoseconds, strict=True)]


class Runs:
    """The headers of a ring's runs, each of which the kernel splits into its queries."""

    def __init__(self, packets: bytearray, runs: Sequence[Run], length: int) -> None:
        self._packets = packets  # keeps the memory where the headers point
        self._iov = (_Iovec * len(runs))()
        self._control = (_Segment * len(runs))()
        self._headers = (_Mmsghdr * len(runs))()
        base = _base(packets)
        for k, run in enumerate(runs):
            self._iov[k].base = base + run.start
            self._iov[k].length = run.size * length
            header = self._headers[k].header
            header.iov, header.iov_length = addressof(self._iov[k]), 1
            if length > 1:
                control = self._control[k]
                control.length = _Segment.size.offset + 2
                control.level, control.type = socket.IPPROTO_UDP, _UDP_SEGMENT
                control.size = run.size
                header.control, header.control_length = addressof(control), sizeof(_Segment)
        self._base = addressof(self._headers)

    def send(self, fd: int, first: int, count: int) -> int:
        """Send `count` runs from `first` on; how many the kernel took (at least 0)."""
        taken = sendmmsg(fd, self._base + first * HEADER, count, socket.MSG_DONTWAIT)
        return max(int(taken), 0)


def datagram(source: str, server: str, port: int) -> socket.socket:
    """A connected, non-blocking socket with room for everything that can be under way."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, BUFFER)
    sock.bind((source, 0))
    sock.connect((server, port))
    sock.setblocking(False)
    return sock
