"""The row of counters, in memory that a worker shares with the daemon.

Rule: `resolver.hot.slots` says what is in it and who may write; here it is made and mapped.
"""

from __future__ import annotations

import mmap
import os

from resolver.hot.slots import SLOTS


class Shared:
    """The row, mapped into this process.

    Args:
        fd: Of the memory, as `create` made it; it may be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SLOTS * 8)
        self.slots = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap it."""
        self.slots.release()
        self._map.close()


def create() -> int:
    """Memory for one row, all zero, as a file descriptor.

    Raises:
        OSError: the system has none left.
    """
    fd = os.memfd_create("discod-worker", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SLOTS * 8)
    except OSError:
        os.close(fd)
        raise
    return fd
