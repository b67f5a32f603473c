"""Runs a program as confined as deploy/discod.service has systemd confine it, without systemd.

Rule: everything is read from the unit itself: the system call filter with its sets (expanded by
`systemd-analyze syscall-filter`), MemoryDenyWriteExecute, RestrictAddressFamilies, where a drop-in
says so RestrictNamespaces, and the capabilities; what needs a service manager (mounts, users) is
left out. As a command: ``python -m tests.lab.sandbox [--drop-in FILE] PROGRAM ARGUMENT...``. See
systemd.exec(5), and systemd's ``seccomp-util.c`` for what its settings mean to the kernel.
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
# fmt: off
NAMESPACES = {
    "cgroup": 0x02000000, "ipc": 0x08000000, "net": 0x40000000, "mnt": 0x00020000,
    "pid": 0x20000000, "user": 0x10000000, "uts": 0x04000000,
}
# fmt: on
"""CLONE_NEW* of linux/sched.h, by systemd's names."""


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def setting(key: str, *drop_ins: Path) -> list[str]:
    """All values of a setting of the unit and its drop-ins, in order."""
    lines = [line for file in (UNIT, *drop_ins) for line in file.read_text().splitlines()]
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def words(key: str, *drop_ins: Path) -> list[str]:
    """The words of a list that its drop-ins add to, each once."""
    return list(dict.fromkeys(" ".join(setting(key, *drop_ins)).split()))


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


def confine(*drop_ins: Path) -> None:
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
    families = {getattr(socket, word) for word in words("RestrictAddressFamilies", *drop_ins)}
    unknown = _ERRNO | errno.EAFNOSUPPORT
    for family in range(max(families)):
        if family not in families:
            more.rule(unknown, "socket", (0, _EQ, family, 0))
    more.rule(unknown, "socket", (0, _GT, max(families), 0))
    if drop_ins:
        _restrict_namespaces(more, set(words("RestrictNamespaces", *drop_ins)), denied)
    only = _Filter(denied)
    for call in sorted(calls):
        only.rule(_ALLOW, call)
    more.load()
    only.load()  # last: it leaves no way to load another


def _restrict_namespaces(filter_: _Filter, left: set[str], denied: int) -> None:
    """As systemd does: other kinds cannot be made or entered, and what is entered must be named."""
    for word, flag in NAMESPACES.items():
        if word not in left:
            filter_.rule(denied, "setns", (1, _MASKED, flag, flag))
            filter_.rule(denied, "unshare", (0, _MASKED, flag, flag))
            filter_.rule(denied, "clone", (0, _MASKED, flag, flag))
    filter_.rule(denied, "setns", (1, _EQ, 0, 0))
    filter_.rule(_ERRNO | errno.ENOSYS, "clone3")


def capabilities(*drop_ins: Path, without: str = "") -> list[str]:
    """A command prefix that leaves the unit's capabilities alone, and no way to get more."""
    key = "AmbientCapabilities"
    assert setting(key, *drop_ins) == setting("CapabilityBoundingSet", *drop_ins)
    kept = "".join(
        f",+{word.lower().removeprefix('cap_')}"
        for word in words(key, *drop_ins)
        if word != without
    )
    return [
        "setpriv", "--securebits=+noroot", f"--inh-caps=-all{kept}", f"--ambient-caps=-all{kept}",
        f"--bounding-set=-all{kept}", "--no-new-privs",
    ]  # fmt: skip


def command(*drop_ins: Path, without: str = "") -> list[str]:
    """The command prefix of a confined program.

    Args:
        drop_ins: Files that are installed beside the unit.
        without: A capability that is taken away all the same.
    """
    options = [word for file in drop_ins for word in ("--drop-in", str(file))]
    prefix = capabilities(*drop_ins, without=without)
    return [*prefix, sys.executable, "-m", "tests.lab.sandbox", *options]


def main(argv: Sequence[str]) -> None:
    """Confine this process and become the program."""
    drop_ins = []
    while argv[0] == "--drop-in":
        drop_ins.append(Path(argv[1]))
        argv = argv[2:]
    confine(*drop_ins)
    os.execvp(argv[0], list(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
