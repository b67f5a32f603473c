"""Work in the network namespaces of other processes.

Rule: namespaces are entered by threads that are made for one job and end with it, so no other code
ever runs in the wrong one; each is entered once, however many processes share it; none is held open
(a container's could otherwise not be taken down). `setns(2)`, `network_namespaces(7)`; needs
CAP_SYS_ADMIN, and CAP_SYS_PTRACE for processes of other users.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

import trio

from discod.log import fields

log = logging.getLogger(__name__)
R = TypeVar("R")

LIMIT: Final = 2.0
"""Seconds for one job in all namespaces."""
THREADS: Final = min(4, os.cpu_count() or 1)
"""At once: what is done inside is the kernel's work, and the interpreter is free meanwhile."""
_NEWNET: Final = 0x40000000
_PROC: Final = "/proc/{}/ns/net"
_GONE: Final = (errno.ENOENT, errno.ESRCH)
_libc = ctypes.CDLL(None, use_errno=True)


async def everywhere(
    pids: Iterable[int],
    work: Callable[[float], R],
    *,
    limit: float = LIMIT,
    last: Callable[[], None] | None = None,
) -> list[R]:
    """Do `work` here and in the namespaces of these processes; what it returned, in no order.

    Args:
        pids: Processes; one that is gone, or shares a namespace with another, is no fault.
        work: Called in threads, several at a time, with the `time.monotonic` at which it has to
            end. An `OSError` of it is logged, and the other namespaces are visited all the same.
        limit: Seconds for all together; what is not done by then is left out, which is logged.
        last: Called when nothing of it runs any more, in a thread, also after a cancellation.
    """
    until = time.monotonic() + limit
    job = _Job(tuple(pids), work, until, last)
    # Not one of trio's own threads for the namespaces: those are used again for other work.
    await trio.to_thread.run_sync(job.run, abandon_on_cancel=True)
    return job.results


class _Job(Generic[R]):
    def __init__(
        self,
        pids: tuple[int, ...],
        work: Callable[[float], R],
        until: float,
        last: Callable[[], None] | None,
    ) -> None:
        self._work, self._until, self._last = work, until, last
        self._left: Iterator[int] = iter((0, *pids))
        """0: where this process is."""
        self._seen = {os.stat(_PROC.format("self")).st_ino}  # noqa: PTH116 - follows to the inode
        self._lock = threading.Lock()
        self._count = len(pids)
        self.results: list[R] = []
        self._failed: list[tuple[int, OSError]] = []
        self._faults: list[BaseException] = []

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._thread, name="rescue-netns", daemon=True)
            for _ in range(max(1, min(THREADS, self._count)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self._until - time.monotonic()) + 1.0)
        if any(thread.is_alive() for thread in threads):
            # A system call that does not return; `last` would take from it what it works with.
            log.error(
                "a thread does not come back from a network namespace",
                extra=fields(threads=len(threads)),
            )
        elif self._last:
            self._last()
        if self._failed:
            # Once, not for each: where one may not be entered, none may.
            pid, error = self._failed[0]
            log.warning(
                "nothing done in some network namespaces",
                extra=fields(count=len(self._failed), pid=pid, error=error),
            )
        if self._faults:
            raise self._faults[0]

    def _thread(self) -> None:
        try:
            while (pid := self._next()) is not None:
                if time.monotonic() >= self._until:
                    log.warning(
                        "not all network namespaces visited in time", extra=fields(next=pid)
                    )
                    return
                try:
                    if pid == 0 or self._enter(pid):
                        self.results.append(self._work(self._until))
                except OSError as error:
                    self._failed.append((pid, error))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for this one
            self._faults.append(error)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._left, None)

    def _enter(self, pid: int) -> bool:
        """Whether it is there, and was not entered before in this job."""
        try:
            fd = os.open(_PROC.format(pid), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise
        try:
            inode = os.fstat(fd).st_ino
            with self._lock:
                if inode in self._seen:
                    return False
                self._seen.add(inode)
            if _libc.setns(fd, _NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), _PROC.format(pid))
        finally:
            os.close(fd)
        return True
