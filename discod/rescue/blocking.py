"""Netlink on a blocking socket, for threads that stand in another network namespace.

Rule: nothing waits beyond the moment given at the start. `discod.kernel.netlink` is for trio; its
messages are the same. `netlink(7)`.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from discod.kernel.netlink import (
    F_ACK,
    F_DUMP,
    F_REQUEST,
    Message,
    NetlinkFailed,
    Request,
    messages,
    name_of,
)

SOCK_DIAG: Final = 4
BATCH: Final = 64
"""Requests in one send: their answers fit into the smallest receive buffer."""
_READ: Final = 1 << 16
"""Octets; the kernel makes no datagram of a dump longer than 32 KiB."""
_HEADER: Final = struct.Struct("=IHHII")
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _RCVBUFFORCE = 270, 10, 33
_BUFFER: Final = 1 << 20


class BlockingNetlink:
    """One socket in the network namespace of the thread that makes it.

    Args:
        protocol: NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER.
        until: `time.monotonic` after which it gives up.

    Raises:
        OSError: no such protocol.
    """

    def __init__(self, protocol: int, until: float) -> None:
        self._until = until
        self._sequence = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, 0))
        except BaseException:  # cleaned up, then raised on
            self._socket.close()
            raise

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

    def stream(self, kind: int, payload: bytes) -> Iterator[Message]:
        """A dump, message by message: never more than one datagram of it in memory.

        It has to be read to its end before the socket is used for anything else.

        Raises:
            NetlinkFailed: refused, or not done in time.
        """
        sequence = self._send([Request(kind, F_DUMP, payload)], F_REQUEST)
        while True:
            for message in self._receive():
                if message.sequence != sequence:
                    continue
                if message.type in (_DONE, _ERROR):
                    number = _number(message)
                    if number:
                        raise NetlinkFailed(number, f"dump {kind}: {name_of(number)}")
                    return
                yield message

    def ask(self, requests: Sequence[Request]) -> list[Message | int]:
        """What the kernel says to each: a message, or 0 or an errno.

        Raises:
            NetlinkFailed: not answered in time.
        """
        answers: list[Message | int] = []
        for start in range(0, len(requests), BATCH):
            some = requests[start : start + BATCH]
            first = self._send(some, F_REQUEST | F_ACK)
            found: dict[int, Message | int] = {}
            acknowledged = 0
            while acknowledged < len(some):
                for message in self._receive():
                    at = message.sequence - first
                    if not 0 <= at < len(some):
                        continue
                    if message.type == _ERROR:
                        acknowledged += 1
                        found.setdefault(at, _number(message))
                    else:
                        found[at] = message
            answers += [found[at] for at in range(len(some))]
        return answers

    def _send(self, requests: Sequence[Request], flags: int) -> int:
        """Sequence number of the first."""
        first = self._sequence + 1
        self._sequence += len(requests)
        data = b"".join(
            _HEADER.pack(16 + len(payload), kind, flags | own, first + i, 0)
            + payload + b"\0" * (-len(payload) & 3)
            for i, (kind, own, payload) in enumerate(requests)
        )  # fmt: skip
        self._wait()
        self._socket.send(data)
        return first

    def _receive(self) -> Iterator[Message]:
        self._wait()
        try:
            return messages(self._socket.recv(_READ))
        except TimeoutError:
            raise NetlinkFailed(errno.ETIMEDOUT, "netlink: not done in time") from None

    def _wait(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise NetlinkFailed(errno.ETIMEDOUT, "netlink: not done in time")
        self._socket.settimeout(left)


def _number(message: Message) -> int:
    if len(message.payload) < 4:
        return 0
    return -int(struct.unpack_from("=i", message.payload)[0])
