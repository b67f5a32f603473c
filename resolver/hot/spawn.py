"""Starts a worker process and holds all that belongs to it.

Rule: a worker is executed, not forked (the daemon has threads, and a worker shall not hold its
memory), and inherits the descriptors named on its command line and standard error, nothing else.
Its end is told by the kernel through a pidfd, and it leaves no zombie.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

import resolver
from resolver.hot import shared
from resolver.hot.shared import Shared

CONTROL_BUFFER: Final = 1024 * 1024
"""Octets of changes on their way to a worker: telling it 10,000 endpoints takes no waiting."""
QUERIES_BUFFER: Final = 1024 * 1024
"""Octets of queries on their way to the daemon; a short one takes about 800 with what the kernel
adds. When it is full, a worker drops what the daemon would have to answer."""
END_WAIT: Final = 1.0
"""Seconds for a worker to end by itself, and as many again after it was killed: a process that
waits for a disk (state D) may take longer, and is then left to the kernel."""

_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python does not name it

_ROOT = str(Path(resolver.__file__).resolve().parents[1])
BOOT: Final = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from resolver.hot import worker; "
    "raise SystemExit(worker.main(sys.argv[1:]))"
)
"""What a worker runs: the very source that this process runs, wherever it lies. Python's isolated
mode keeps the environment and the current directory out of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """A running worker process, and the daemon's ends of what it shares with it."""

    process: trio.Process
    control: socket.socket
    """`resolver.hot.protocol`; not blocking, like `queries`."""
    queries: socket.socket
    row: Shared

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def state(self) -> str:
        """How the kernel sees it: one letter (proc(5)); ``X`` when it is gone."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return "X"
        # The name stands in brackets and may hold anything, brackets included.
        return stat[stat.rindex(b")") + 2 :][:1].decode()

    async def ended(self) -> int:
        """Wait for its end, for as long as it runs; its exit status, or minus the signal."""
        return await self.process.wait()

    async def end(self, *, kill: bool) -> bool:
        """End it: by the end of its control stream, or at once by SIGKILL. It cannot be cancelled.

        Takes 2 * `END_WAIT` at most. Returns whether the process is gone.
        """
        with trio.CancelScope(shield=True):
            self.control.close()
            if not kill:
                with trio.move_on_after(END_WAIT):
                    await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
                with trio.move_on_after(END_WAIT):
                    await self.process.wait()
        return self.process.returncode is not None

    def close(self) -> None:
        """Let go of what the daemon holds of it."""
        self.control.close()
        self.queries.close()
        self.row.close()


async def start(sockets: Sequence[socket.socket], boot: str = BOOT) -> Worker:
    """Start a worker that serves `sockets`, of which it gets copies.

    Raises:
        OSError: no process, descriptor or memory is to be had.
    """
    with ExitStack() as ours, ExitStack() as its:
        stats = shared.create()
        its.callback(os.close, stats)
        row = Shared(stats)
        ours.callback(row.close)
        control, its_control = _pair(socket.SOCK_STREAM, ours, its)
        queries, its_queries = _pair(socket.SOCK_DGRAM, ours, its)
        _enlarge(control, CONTROL_BUFFER)
        _enlarge(its_queries, QUERIES_BUFFER)  # a Unix socket's sender pays for what waits
        fds = [stats, its_control.fileno(), its_queries.fileno(), *(s.fileno() for s in sockets)]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-c", boot, *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # a terminal's Ctrl-C is for the daemon, which ends its workers
        )
        ours.pop_all()
    return Worker(process, control, queries, row)


def _pair(
    type_: socket.SocketKind, ours: ExitStack, its: ExitStack
) -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair(socket.AF_UNIX, type_)
    ours.callback(one.close)
    its.callback(other.close)
    one.setblocking(False)
    return one, other


def _enlarge(sock: socket.socket, octets: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, octets)  # as far as the system allows
    with suppress(PermissionError):  # needs CAP_NET_ADMIN
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, octets)
