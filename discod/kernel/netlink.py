"""Netlink on a trio socket: batches with acknowledgements, dumps, notifications.

Rule: knows messages, not what is in them. A request has a sequence number and is answered or ends
at its deadline; a late answer to an abandoned one is skipped. `netlink(7)`, RFC 3549.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import trio

ROUTE: Final = 0
NETFILTER: Final = 12

F_REQUEST: Final = 1
F_ACK: Final = 4
F_DUMP_INTR: Final = 0x10
F_REPLACE: Final = 0x100
F_EXCL: Final = 0x200
F_CREATE: Final = 0x400
F_DUMP: Final = 0x300
F_LAST: Final = F_REQUEST | F_ACK
"""Of the last request of a batch."""

BATCH: Final = 250
"""Requests in one send: the kernel does all of them before `send` returns, about 2 ms."""
DEADLINE: Final = 5.0
"""Seconds for one batch or dump; the kernel answers at once, unless it is out of memory."""
RECEIVE_BUFFER: Final = 4 << 20
"""Octets: an answer counts as some 800, a notification as more."""
DUMP_TRIES: Final = 8
"""A dump during which something changed may lack or double entries, and is done again."""
_READ: Final = 1 << 18
_SO_ATTACH_FILTER: Final = 26
_ALL: Final = 0xFFFFFFFF
_PAD: Final = (b"", b"\0", b"\0\0", b"\0\0\0")

_HEADER: Final = struct.Struct("=IHHII")
_ERROR, _DONE, _OVERRUN = 2, 3, 4
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _STRICT = 270, 1, 10, 12


class Request(NamedTuple):
    """One message to the kernel; F_REQUEST is added, and F_ACK where it is needed."""

    type: int
    flags: int
    payload: bytes


class Message(NamedTuple):
    """One message from the kernel."""

    type: int
    flags: int
    sequence: int
    port: int
    """Netlink port of who caused it; 0: the kernel itself."""
    payload: bytes


class NetlinkFailed(OSError):
    """The kernel did not do a dump, or did not answer; `errno` says why."""


class MissedNotifications(Exception):
    """The kernel had more to tell than fits; everything has to be read again."""


def name_of(number: int) -> str:
    """``ENETUNREACH (Network is unreachable)``."""
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def messages(data: bytes) -> Iterator[Message]:
    """All messages of one datagram."""
    at, size = 0, len(data)
    while at + 16 <= size:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, at)
        if length < 16 or at + length > size:
            return
        yield Message(kind, flags, sequence, port, data[at + 16 : at + length])
        at += (length + 3) & ~3


class Netlink:
    """One netlink socket of this network namespace, for requests or for notifications.

    Args:
        protocol: ROUTE or NETFILTER.
        groups: Numbers of the multicast groups to hear; then `changes` is what it is for.

    Raises:
        OSError: no such protocol, or no such group.
    """

    def __init__(self, protocol: int = ROUTE, groups: Iterable[int] = ()) -> None:
        raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            _enlarge(raw)
            raw.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            if protocol == ROUTE:
                raw.setsockopt(_SOL_NETLINK, _STRICT, 1)
            raw.bind((0, 0))
            for group in groups:
                raw.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self.port: int = raw.getsockname()[0]
            """By which others know what this socket caused."""
            raw.setblocking(False)
            self._raw = raw
            self._socket = trio.socket.from_stdlib_socket(raw)
        except BaseException:  # cancelled too: closed, then raised on
            raw.close()
            raise
        self._sequence = 0
        self._lock = trio.Lock()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def ignore(self, port: int) -> None:
        """Do not hear what the socket of that port causes.

        Ten thousand routes of ours would else be told to ourselves one by one. In the kernel, by a
        filter (classic BPF).
        """
        number = int.from_bytes(port.to_bytes(4, sys.byteorder), "big")
        program = b"".join(
            struct.pack("=HBBI", *step)
            for step in (
                (0x20, 0, 0, 12),
                (0x15, 0, 1, number),
                (0x06, 0, 0, 0),
                (0x06, 0, 0, _ALL),
            )
        )
        steps = ctypes.create_string_buffer(program, len(program))
        where = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
        self._raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)

    async def batch(self, requests: Sequence[Request]) -> list[int]:
        """Do requests in order, and say of each what the kernel said: 0 or an errno.

        ENOBUFS: its answer was lost, or did not come in time; whether it was done is not known.
        """
        results: list[int] = []
        async with self._lock:
            for start in range(0, len(requests), BATCH):
                results += await self._some(requests[start : start + BATCH])
        return results

    async def _some(self, requests: Sequence[Request]) -> list[int]:
        # A failure is always answered, so only the last request asks to be: hearing of every
        # success takes longer than all else.
        first, last = self._sequence + 1, len(requests) - 1
        self._sequence += len(requests)
        data = b"".join(
            _HEADER.pack(
                16 + len(payload), kind, flags | (F_LAST if i == last else F_REQUEST), first + i,
                self.port,
            ) + payload + _PAD[-len(payload) & 3]
            for i, (kind, flags, payload) in enumerate(requests)
        )  # fmt: skip
        results = [0] * len(requests)
        whole = False
        with trio.move_on_after(DEADLINE):
            try:
                await self._socket.send(data)
                while not whole:
                    for message in messages(await self._socket.recv(_READ)):
                        at = message.sequence - first
                        if message.type == _ERROR and 0 <= at <= last:
                            results[at] = -struct.unpack_from("=i", message.payload)[0]
                            whole |= at == last
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
        return results if whole else [result or errno.ENOBUFS for result in results]

    async def dump(self, kind: int, payload: bytes) -> list[Message]:
        """All that the kernel has of one kind, unchanged while it was read.

        Raises:
            NetlinkFailed: refused, no answer within `DEADLINE`, or changed at each of `DUMP_TRIES`.
        """
        async with self._lock:
            for _ in range(DUMP_TRIES):
                found = await self._dump_once(kind, payload)
                if found is not None:
                    return found
        raise NetlinkFailed(errno.EINTR, f"dump {kind} changed {DUMP_TRIES} times while read")

    async def _dump_once(self, kind: int, payload: bytes) -> list[Message] | None:
        self._sequence += 1
        sequence = self._sequence
        head = _HEADER.pack(16 + len(payload), kind, F_REQUEST | F_DUMP, sequence, self.port)
        found: list[Message] = []
        whole = True
        with trio.move_on_after(DEADLINE):
            try:
                await self._socket.send(head + payload)
                while True:
                    for message in messages(await self._socket.recv(_READ)):
                        if message.sequence != sequence:
                            continue
                        if message.flags & F_DUMP_INTR:
                            whole = False
                        if message.type == _DONE or message.type == _ERROR:
                            self._refused(kind, message.payload)
                            return found if whole else None
                        found.append(message)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return None
        raise NetlinkFailed(errno.ETIMEDOUT, f"dump {kind} not answered within {DEADLINE:g} s")

    @staticmethod
    def _refused(kind: int, payload: bytes) -> None:
        number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
        if number == errno.ENOENT:
            return  # a routing table that has nothing in it does not exist
        if number:
            raise NetlinkFailed(number, f"dump {kind}: {name_of(number)}")

    async def changes(self) -> list[Message]:
        """The next notifications, as many as one read gives.

        Raises:
            MissedNotifications: some were lost.
        """
        try:
            return list(messages(await self._socket.recv(_READ)))
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise MissedNotifications from None
            raise


def _enlarge(raw: socket.socket) -> None:
    force = 33  # SO_RCVBUFFORCE, beyond net.core.rmem_max; needs CAP_NET_ADMIN as routes do
    try:
        raw.setsockopt(socket.SOL_SOCKET, force, RECEIVE_BUFFER)
    except PermissionError:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
