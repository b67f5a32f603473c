"""The daemon and its workers live with what the unit leaves them.

The unit's own system call filter, its capabilities, and no writable code are put on a real discod
(`tests.lab.sandbox`); mounts and users, which need systemd itself, are not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import sandbox
from tests.lab.daemon import Config, environment, until
from tests.lab.place import DOMAIN as D
from tests.lab.place import Place

pytestmark = pytest.mark.lab

TAIL = '[[service]]\nname = "web"\nport = 80\naddress = ["10.101.1.2"]\n'
NET_BIND_SERVICE = 1 << 10

PROBE = """
import ctypes, errno, mmap, os, socket, sys

def denied(act, number=errno.EPERM):
    try:
        act()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError("not denied")

# What a worker does: foreign calls, a callback, shared memory, batches of datagrams.
libc = ctypes.CDLL(None, use_errno=True)
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)(1) == 2

class Iov(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
class Hdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p),
                ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("pad", ctypes.c_int),
                ("len", ctypes.c_uint)]

one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("127.0.0.1", 53))
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
two = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
two.connect(one.getsockname())
buffers = [ctypes.create_string_buffer(b"hello", 16) for _ in range(4)]
iovs = (Iov * 4)(*((ctypes.addressof(b), 5) for b in buffers))
at = [ctypes.addressof(iovs) + i * ctypes.sizeof(Iov) for i in range(4)]
headers = (Hdr * 4)(*((None, 0, address, 1, None, 0, 0, 0, 0) for address in at))
assert libc.sendmmsg(two.fileno(), headers, 4, 0) == 4, os.strerror(ctypes.get_errno())
assert libc.recvmmsg(one.fileno(), headers, 4, 0x10000, None) == 4, ctypes.get_errno()
fd = os.memfd_create("probe", os.MFD_CLOEXEC)
os.ftruncate(fd, 4096)
shared = mmap.mmap(fd, 4096)
shared[:2] = b"ok"
# SO_ATTACH_FILTER: one instruction, accept everything.
code = ctypes.create_string_buffer(bytes.fromhex("0600000000000400"))
program = (1).to_bytes(8, sys.byteorder) + ctypes.addressof(code).to_bytes(8, sys.byteorder)
one.setsockopt(socket.SOL_SOCKET, 26, program)
os.close(os.pidfd_open(os.getpid()))
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

# The control: what the unit takes away is gone.
denied(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
denied(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
denied(lambda: os.sched_setaffinity(0, {0}))
denied(lambda: os.chown("/proc/self", 0, 0))
denied(lambda: os.chroot("/"))
denied(lambda: one.setsockopt(socket.SOL_SOCKET, 33, 4 << 20))  # SO_RCVBUFFORCE
denied(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), errno.EAFNOSUPPORT)
denied(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
print("as confined as it should be")
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """discod with two workers, confined, at port 53."""
    config: Config = {"dns": {"workers": 2}}
    with Place("w", config, TAIL, under=sandbox.command()) as made:
        yield made


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def workers(place: Place) -> list[int]:
    """Processes that the daemon has started to answer."""
    found = []
    for pid in place.space.pids():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if int(status(pid)["PPid"]) == place.discod.pid and b"resolver.hot" in command:
                found.append(pid)
    return found


def answers(place: Place, *options: str) -> bool:
    done = place.run(
        "dig", "@127.0.0.1", "+short", "+tries=1", "+time=1", *options, f"web.{D}", check=False
    )
    return done.stdout.split() == ["10.101.1.2"]


def test_everything_serves(place: Place) -> None:
    until(lambda: answers(place), what="UDP")
    assert answers(place, "+tcp")
    until(lambda: len(workers(place)) == 2, what="two workers")
    for pid in [place.discod.pid, *workers(place)]:
        said = status(pid)
        assert said["Seccomp"] == "2" and said["NoNewPrivs"] == "1"
        assert int(said["CapBnd"], 16) == NET_BIND_SERVICE
        assert int(said["CapEff"], 16) == NET_BIND_SERVICE


def test_a_worker_that_was_killed_comes_back(place: Place) -> None:
    until(lambda: len(workers(place)) == 2, what="two workers")
    victim = workers(place)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in workers(place) and len(workers(place)) == 2, what="another one")
    until(lambda: all(answers(place) for _ in range(20)), what="answers")


def test_nothing_was_denied_that_it_missed(place: Place) -> None:
    assert answers(place)
    assert "Operation not permitted" not in place.discod.log
    assert "MemoryError" not in place.discod.log and "Traceback" not in place.discod.log


def test_what_the_sandbox_leaves_and_takes() -> None:
    """Each thing that a worker needs, and, as the control, each that it must not have."""
    with Place("u", start=False) as made:
        done = subprocess.run(
            [*made.space.prefix, *sandbox.command(), sys.executable, "-c", PROBE],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
            cwd=made.root,
        )  # fmt: skip
    assert done.stdout == "as confined as it should be\n", done.stderr
