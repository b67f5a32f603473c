"""Where `make bench-dns` takes place: a network namespace of its own, one core for the server.

Rule: everything runs in a namespace that dies with the last process in it, on addresses that no
other network sees and that no server takes for loopback (discod's limits do not count loopback).
Processor time is the scheduler's own count, so that a busy machine changes it little.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.dns_mmsg import BUFFER, RCVBUFFORCE
from tests.lab.netns import CLONE_NEWNET, ip

SERVERS_MAX = 40
PORT = 53
_PIDFD_GETFD = 438
"""Number of the system call (pidfd_getfd(2)); Python does not name it."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Move this process, and all that it starts from now on, into a new network namespace.

    Raises:
        OSError: no permission.
    """
    if _LIBC.unshare(CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "unshare(CLONE_NEWNET)")
    # An address on lo makes its whole network local: clients take what they like. Servers may look
    # for an address of an interface's own (BIND does).
    ip(
        "link set lo up",
        "addr add 10.77.0.1/16 dev lo",
        *(f"addr add {server_address(n)}/32 dev lo" for n in range(SERVERS_MAX)),
    )


def server_address(number: int) -> str:
    """Of the server with this number."""
    return f"10.77.0.{10 + number}"


def client_address(number: int) -> str:
    """Of the socket with this number: eight networks of clients, as /24 prefixes count them."""
    return f"10.77.{1 + number % 8}.1"


def cores() -> tuple[int, int]:
    """The server's core, and the one for all else; the same where there is only one."""
    found = sorted(os.sched_getaffinity(0))
    return found[0], found[-1]


def pin(pid: int, allowed: Iterable[int]) -> None:
    """Keep all threads of a process on these cores; no fault when it has ended."""
    chosen = set(allowed)
    for thread in _threads(pid):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, chosen)


def busy(pids: Iterable[int]) -> float:
    """Seconds that the living threads of these processes have run (proc(5), schedstat)."""
    total = 0
    for pid in pids:
        for thread in _threads(pid):
            with suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9


def family(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for pid in found:
        for thread in _threads(pid):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                found += map(int, text.split())
    return found


def command_line(pid: int) -> str:
    """Of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Octets of memory that are the process's own (not shared with any other)."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def widen(pids: Iterable[int]) -> int:
    """Give every UDP socket of these processes the same large receive buffer; how many there are.

    Not every server asks for one, and what a default-sized one loses says nothing of its speed.
    """
    found = 0
    for pid in pids:
        handle = os.pidfd_open(pid)
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - numbers
                copy = _LIBC.syscall(_PIDFD_GETFD, handle, int(number), 0)
                if copy < 0:
                    continue
                if _is_socket(copy):
                    with socket.socket(fileno=copy) as sock:
                        if sock.type == socket.SOCK_DGRAM and sock.family == socket.AF_INET:
                            sock.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, BUFFER)
                            found += 1
                else:
                    os.close(copy)
        finally:
            os.close(handle)
    return found


def favour(pid: int) -> None:
    """Give a process's session the largest share there is (sched(7), autogroups).

    All of ours get it: they count the same among themselves, and little else comes between.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-20")


def end(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """SIGTERM, then SIGKILL; no fault when it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - numbers
    except OSError:
        return []
