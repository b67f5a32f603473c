"""The few things that cannot wait for a run of nft: elements deleted at once, tables looked for.

Rule: blocks the caller for one exchange with the kernel, some ten microseconds, and longer only
while another transaction of the packet filter is being done (the kernel does one at a time); an
answer is waited for `DEADLINE` at most. Nothing is done in between, which is the point.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from discod.kernel.netlink import NETFILTER, name_of
from discod.rescue.elements import Stamp, answers, deletion, question, stamp
from discod.rescue.ruleset_layout import Element, Family

DEADLINE: Final = 1.0
"""Seconds for an answer; the kernel has it ready when the request has been sent."""
BATCH: Final = 200
"""Elements in one transaction: some 30 kB, which a socket's default send buffer takes."""
_TRIES: Final = 4
"""One more finds what the kernel can do, and one what is not there; what another hand deletes
meanwhile takes one more."""
_SOL_NETLINK, _CAP_ACK = 270, 10


class ElementsSocket:
    """A socket of the network namespace of the thread that makes it.

    Raises:
        OSError: the kernel has no netfilter netlink.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER
        )
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            deadline = struct.pack("@ll", int(DEADLINE), int(DEADLINE % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, deadline)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, deadline)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 1
        self._lenient = True  # as far as we know, the kernel can delete what may not be there

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def delete(self, some: Sequence[Element]) -> None:
        """Delete elements; those that are not there are skipped.

        Before Linux 6.3 one that is not there, though its table is, costs some 10 ms: the kernel
        takes the whole batch back, and it is done again without.

        Raises:
            OSError: the kernel refuses, or does not answer within `DEADLINE`; some may be left.
        """
        there = {family for family in {e.family for e in some} if self.stamp(family)}
        some = [element for element in some if element.family in there]
        for start in range(0, len(some), BATCH):
            self._delete(some[start : start + BATCH])

    def _delete(self, some: Sequence[Element]) -> None:
        for _ in range(_TRIES):
            if not some:
                return
            failed = self._tried(some)
            other = [error for error in failed.values() if error != errno.ENOENT]
            if not failed:
                return
            if self._lenient and errno.EINVAL in other:
                self._lenient = False  # an older kernel does not know the message
            elif other:
                raise OSError(other[0], f"deleting {len(some)} elements: {name_of(other[0])}")
            else:
                some = [element for i, element in enumerate(some) if i not in failed]
        raise OSError(errno.EAGAIN, f"{len(some)} elements changed {_TRIES} times while deleted")

    def _tried(self, some: Sequence[Element]) -> dict[int, int]:
        """Errno of each that failed, by number; then none of them was done."""
        first = self._next(len(some) + 2) + 1
        self._socket.send(deletion(some, first, lenient=self._lenient))
        failed: dict[int, int] = {}
        last = len(some) - 1
        while True:
            for answer in answers(self._read()):
                at = answer.sequence - first
                if at == -1 and answer.error:  # of the batch as a whole
                    raise OSError(answer.error, f"batch refused: {name_of(answer.error)}")
                if not 0 <= at <= last:
                    continue  # a late answer to what was given up
                if answer.error:
                    failed[at] = answer.error
                if at == last:
                    return failed

    def stamp(self, family: Family) -> Stamp | None:
        """Our table of a family; None: it is not there.

        Raises:
            OSError: the kernel refuses, or does not answer within `DEADLINE`.
        """
        sequence = self._next(1)
        self._socket.send(question(family, sequence))
        while True:
            for answer in answers(self._read()):
                if answer.sequence != sequence:
                    continue
                if answer.error in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    return None
                if answer.error:
                    raise OSError(answer.error, f"asking for the table: {name_of(answer.error)}")
                return stamp(answer.payload)

    def _next(self, n: int) -> int:
        if self._sequence > 0x7FFFFFFF:
            self._sequence = 1
        self._sequence += n
        return self._sequence - n

    def _read(self) -> bytes:
        try:
            return self._socket.recv(1 << 18)
        except BlockingIOError:
            late = f"no answer within {DEADLINE:g} s: {os.strerror(errno.ETIMEDOUT)}"
            raise OSError(errno.ETIMEDOUT, late) from None
