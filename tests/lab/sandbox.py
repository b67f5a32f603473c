"""Runs a program as confined as deploy/discod.service has systemd confine it, without systemd.

Rule: everything is read from the unit itself: the system call filter with its sets (expanded by
`systemd-analyze syscall-filter`), MemoryDenyWriteExecute, RestrictAddressFamilies and the
capabilities; what needs a service manager (mounts, users) is left out. As a command:
``python -m tests.lab.sandbox PROGRAM ARGUMENT...``. See systemd.exec(5), and systemd's
``seccomp-util.c`` for what its settings mean to the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

UNIT = Path(__file__).parents[2] / "deploy/discod.service"
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_SHM_EXEC = 0o100000
_NE, _LT, _LE, _EQ, _GE, _GT, _MASKED = range(1, 8)
"""enum scmp_compare of seccomp.h."""


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def setting(key: str) -> list[str]:
    """All values of a setting of the unit, in order."""
    lines = UNIT.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def members(name: str) -> set[str]:
    """The system calls of a set, with those of the sets in it."""
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= members(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def allowed() -> set[str]:
    """The system calls that the unit leaves."""
    calls: set[str] = members("@default")  # always in a list of what is allowed
    for value in setting("SystemCallFilter"):
        inverted = value.startswith("~")
        for word in value.lstrip("~").split():
            named = members(word) if word.startswith("@") else {word}
            calls = calls - named if inverted else calls | named
    return calls


class _Filter:
    """One seccomp filter."""

    def __init__(self, default: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._lib.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, call: str, *compared: tuple[int, int, int, int]) -> None:
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number == -1:  # __NR_SCMP_ERROR: the library does not know it
            return
        array = (_Compare * len(compared))(*(_Compare(*one) for one in compared))
        failed = self._lib.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(compared), array
        )
        if failed not in (0, -errno.EDOM):  # EDOM: of another architecture
            raise OSError(-failed, f"{call}: {os.strerror(-failed)}")

    def load(self) -> None:
        failed = self._lib.seccomp_load(self._context)
        if failed:
            raise OSError(-failed, os.strerror(-failed))


def confine() -> None:
    """Confine this process, and all that it will execute."""
    assert setting("MemoryDenyWriteExecute") == ["yes"]
    assert setting("SystemCallErrorNumber") == ["EPERM"]
    denied = _ERRNO | errno.EPERM
    calls = allowed()
    more = _Filter(_ALLOW)
    writable_code = mmap.PROT_WRITE | mmap.PROT_EXEC
    more.rule(denied, "mmap", (2, _MASKED, writable_code, writable_code))
    for call in ("mprotect", "pkey_mprotect"):
        more.rule(denied, call, (2, _MASKED, mmap.PROT_EXEC, mmap.PROT_EXEC))
    more.rule(denied, "shmat", (2, _MASKED, _SHM_EXEC, _SHM_EXEC))
    families = {getattr(socket, word) for word in setting("RestrictAddressFamilies")[0].split()}
    unknown = _ERRNO | errno.EAFNOSUPPORT
    for family in range(max(families)):
        if family not in families:
            more.rule(unknown, "socket", (0, _EQ, family, 0))
    more.rule(unknown, "socket", (0, _GT, max(families), 0))
    only = _Filter(denied)
    for call in sorted(calls):
        only.rule(_ALLOW, call)
    more.load()
    only.load()  # last: it leaves no way to load another


def capabilities() -> list[str]:
    """A command prefix that leaves the unit's capabilities alone, and no way to get more."""
    assert setting("AmbientCapabilities") == setting("CapabilityBoundingSet")
    kept = "".join(
        f",+{word.lower().removeprefix('cap_')}"
        for word in setting("AmbientCapabilities")[0].split()
    )
    return [
        "setpriv", "--securebits=+noroot", f"--inh-caps=-all{kept}", f"--ambient-caps=-all{kept}",
        f"--bounding-set=-all{kept}", "--no-new-privs",
    ]  # fmt: skip


def command() -> list[str]:
    """The command prefix of a confined program."""
    return [*capabilities(), sys.executable, "-m", "tests.lab.sandbox"]


def main(argv: Sequence[str]) -> None:
    """Confine this process and become the program."""
    confine()
    os.execvp(argv[0], list(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
