"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2) on buffers made once.

Rule: nothing is allocated for a datagram. A `Batch` holds the kernel's structures for up to `size`
datagrams of one socket; slot *i* is received into, its client's address stays where the kernel
wrote it, and a response from slot *i* goes back to that address. Responses are two pieces: the
query's own id, straight out of the receive buffer, and a body at any address.

Only for 64-bit Linux, as are the offsets below (they are computed by ctypes, not assumed).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final

SIZE: Final = 128
"""Datagrams of one batch. Fewer cost more (8 gave 128k, 64 141k answers a second), 256 and 512 made
no difference; a full batch is also what a query may have to wait for, here less than a millisecond.
"""
RECEIVE_MAX: Final = 2048
"""Octets of a query; a longer one is none."""
_STRIDE = RECEIVE_MAX + 64
"""Octets from one receive buffer to the next: by a power of two, the beginnings of all buffers, of
which alone most queries take something, would share a few places of the processor's caches."""

_MSG_DONTWAIT = 0x40
_MSG_TRUNC = 0x20
_NAME_ROOM = 32
_CONTROL_ROOM = 64
_PKTINFO4, _PKTINFO6 = 32, 40
"""CMSG_SPACE of struct in_pktinfo (12 octets) and in6_pktinfo (20)."""
_CMSG_DATA = 16
IP_PKTINFO: Final = 8
"""linux/in.h; named by Python from 3.14 on."""


_PROBE = b"where do my octets lie?"


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", _MsgHdr), ("len", ctypes.c_uint32))


_LIBC = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _LIBC.recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)
_sendmmsg = _LIBC.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_HEADER = ctypes.sizeof(_MMsgHdr)
_WORDS = _HEADER // 4
_LEN = _MMsgHdr.len.offset // 4
_FLAGS = (_MMsgHdr.hdr.offset + _MsgHdr.flags.offset) // 4


def _address_told(data: bytes) -> int:
    """Where the octets of `data` lie, as ctypes tells it."""
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    return address


def _address_known(data: bytes) -> int:
    """The same at a tenth of the price: CPython has the octets behind the head of the object."""
    return id(data) + _BYTES_HEAD


_BYTES_HEAD = bytes.__basicsize__ - 1  # it counts the final NUL

address_of = _address_known if _address_known(_PROBE) == _address_told(_PROBE) else _address_told
"""Where the octets of a bytes object lie; valid for as long as the object is held."""


Peer = int | bytes
"""A client's address, in the form that is at hand soonest: as the kernel's word for IPv4, packed
for IPv6. `packed` of it is the same for both."""

_PIECE = struct.Struct("=QQQ")
_KIND = 16
"""Where the kind stands in a piece: its lowest octet, which is all of it."""


def piece(found: tuple[int, int, int, bytes]) -> bytes:
    """An answer as `Batch.fill` takes it: where its body lies, how long it is, and its kind.

    An address of 0 is looked up; a kind is below 256. Whoever sends it holds the body until then.
    """
    address, size, kind, body = found
    return _PIECE.pack(address or address_of(body), size, kind)


def unpiece(made: bytes) -> tuple[int, int, int]:
    """Address, length and kind in a `piece`."""
    address, size, kind = _PIECE.unpack(made)
    return address, size, kind


def packed(peer: Peer) -> bytes:
    """The address of a client in network order, 4 or 16 octets."""
    return peer if isinstance(peer, bytes) else peer.to_bytes(4, sys.byteorder)


class Batch:
    """Buffers for one socket.

    Args:
        sock: A bound UDP socket; a wildcard one must deliver packet information.
        size: Datagrams at once.
    """

    def __init__(self, sock: socket.socket, size: int = SIZE) -> None:
        if ctypes.sizeof(ctypes.c_void_p) != 8:
            raise OSError(errno.ENOSYS, "worker processes need a 64-bit system (dns.workers = 0)")
        self.size = size
        self.fd = sock.fileno()
        self.v6 = sock.family == socket.AF_INET6
        self.wildcard = sock.getsockname()[0] in ("0.0.0.0", "::")
        self.name_length = 28 if self.v6 else 16
        self._received = mmap.mmap(-1, size * _STRIDE)
        self._names = mmap.mmap(-1, size * _NAME_ROOM)
        self._control = mmap.mmap(-1, size * _CONTROL_ROOM)
        received, names, control = map(_address, (self._received, self._names, self._control))
        control_length = (_PKTINFO6 if self.v6 else _PKTINFO4) if self.wildcard else 0
        self._control_length = control_length
        self._in = (_MMsgHdr * size)()
        self._in_iov = (_IoVec * size)()
        self._send = (_MMsgHdr * size)()
        self._send_iov = (_IoVec * (2 * size))()
        for i in range(size):
            self._in_iov[i] = _IoVec(received + i * _STRIDE, RECEIVE_MAX)
            self._send_iov[2 * i] = _IoVec(received + i * _STRIDE, 2)
            for headers, iov, pieces in (
                (self._in, self._in_iov, 1),
                (self._send, self._send_iov, 2),
            ):
                headers[i].hdr = _MsgHdr(
                    names + i * _NAME_ROOM,
                    self.name_length,
                    ctypes.addressof(iov) + pieces * i * ctypes.sizeof(_IoVec),
                    pieces,
                    control + i * _CONTROL_ROOM if control_length else None,
                    control_length,
                    0,
                )
        self._in_at = ctypes.addressof(self._in)
        self._send_at = ctypes.addressof(self._send)
        self._in_words = memoryview(self._in).cast("B").cast("I")
        self.pieces = memoryview(self._send_iov).cast("B").cast("Q")
        """Of slot i: address of its body at 4 * i + 2, length at 4 * i + 3."""
        self._starts = [i * _STRIDE for i in range(size)]
        self._behind_id = [start + 2 for start in self._starts]
        self._name_words = memoryview(self._names).cast("I")
        self.failed = 0
        """Responses that the kernel did not take, so far."""

    def receive(self) -> int:
        """Take what waits, at most `size` datagrams; how many there are, 0 when none.

        Raises:
            OSError: the socket is no good any more.
        """
        count: int = _recvmmsg(self.fd, self._in_at, self.size, _MSG_DONTWAIT, None)
        if count >= 0:
            return count
        error = ctypes.get_errno()
        if error in (errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL, errno.ENOSYS):
            raise OSError(error, os.strerror(error))
        return 0  # nothing there, or an ICMP error of an earlier response, which is told but once

    def packets(self, count: int) -> list[bytes]:
        """The first `count` datagrams without their ids; one that was cut off is empty."""
        last = _WORDS * count
        lengths = self._in_words[_LEN:last:_WORDS].tolist()
        received = self._received
        if RECEIVE_MAX in lengths:
            flags = self._in_words[_FLAGS:last:_WORDS].tolist()
            lengths = [
                0 if flag & _MSG_TRUNC else length
                for flag, length in zip(flags, lengths, strict=True)
            ]
        starts = zip(self._starts, self._behind_id, lengths, strict=False)
        return [received[behind : start + length] for start, behind, length in starts]

    def id(self, slot: int) -> bytes:
        """The first two octets of a datagram."""
        start = slot * _STRIDE
        return self._received[start : start + 2]

    def peers(self, count: int) -> Sequence[Peer]:
        """The first `count` clients."""
        if self.v6:
            names = self._names
            return [names[at + 8 : at + 24] for at in range(0, _NAME_ROOM * count, _NAME_ROOM)]
        last = _NAME_ROOM // 4 * count
        return self._name_words[1 : last : _NAME_ROOM // 4].tolist()

    def client(self, slot: int) -> bytes:
        """The packed address of one client."""
        at = slot * _NAME_ROOM
        return self._names[at + 8 : at + 24] if self.v6 else self._names[at + 4 : at + 8]

    def source(self, slot: int) -> bytes:
        """The client's struct sockaddr_in or sockaddr_in6."""
        return self._names[slot * _NAME_ROOM : slot * _NAME_ROOM + self.name_length]

    def local(self, slot: int) -> bytes:
        """Of a wildcard socket the address that was asked and the interface's index; else empty."""
        if not self._control_length:
            return b""
        at = slot * _CONTROL_ROOM + _CMSG_DATA
        if self.v6:  # struct in6_pktinfo: address, interface
            return self._control[at : at + 20]
        # struct in_pktinfo: interface, local address, the header's address
        return self._control[at + 4 : at + 8] + self._control[at : at + 4]

    def fill(self, found: Sequence[bytes]) -> bytearray:
        """Make each `piece` what its slot sends, from the first one on; their kinds."""
        end = 4 * len(found)
        octets = memoryview(b"".join(found))
        words = octets.cast("Q")
        pieces = self.pieces
        pieces[2:end:4] = words[0::3]
        pieces[3:end:4] = words[1::3]
        return bytearray(octets[_KIND :: _PIECE.size])

    def put(self, slot: int, address: int, size: int) -> None:
        """Make a body what one slot sends."""
        self.pieces[4 * slot + 2] = address
        self.pieces[4 * slot + 3] = size

    def send(self, first: int, end: int) -> None:
        """Send the responses of the slots from `first` up to `end`.

        What the kernel does not take is dropped, as the network might have: the client asks again.
        """
        if self._control_length:
            self._leave_from_asked(first, end)
        while first < end:
            sent: int = _sendmmsg(
                self.fd, self._send_at + first * _HEADER, end - first, _MSG_DONTWAIT
            )
            if sent < 0:
                if ctypes.get_errno() == errno.EINTR:
                    continue
                self.failed += 1  # of this one alone: no route back, a firewall, no buffer left
                sent = 1
            first += sent

    def _leave_from_asked(self, first: int, end: int) -> None:
        """Routes choose the interface, except for link-local addresses, which need theirs."""
        control = self._control
        for slot in range(first, end):
            at = slot * _CONTROL_ROOM + _CMSG_DATA
            if not self.v6:
                control[at : at + 4] = b"\0\0\0\0"
            elif control[at : at + 2] != b"\xfe\x80":
                control[at + 16 : at + 20] = b"\0\0\0\0"


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
