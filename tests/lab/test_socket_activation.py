"""Port 53 from the service manager: systemd's own launcher, and one that stays while discod goes.

`systemd-socket-activate` is systemd's tool for this, but knows one type of socket at a time; the
other launcher below does what PID 1 does with discod-dns.socket, on the descriptors of a real unit.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.daemon import COMMAND, Config, environment, until
from tests.lab.place import DOMAIN as D
from tests.lab.place import Place

pytestmark = pytest.mark.lab

TAIL = '[[service]]\nname = "web"\nport = 80\naddress = ["10.101.1.2"]\n'
UNIT = Path(__file__).parents[2] / "deploy/discod-dns.socket"
AT = "172.17.0.1"


@pytest.fixture(params=[0, 1, 2], ids=lambda n: f"{n} workers")
def workers(request: pytest.FixtureRequest) -> int:
    """``dns.workers``."""
    return int(request.param)


@pytest.fixture
def place(workers: int) -> Iterator[Place]:
    """A host on which discod does not run yet."""
    config: Config = {
        "dns": {
            "listen": [f"{AT}:53"],
            "allow": ["172.17.0.0/16"],
            "workers": workers,
            "forward": False,
        }
    }
    with Place("v", config, TAIL, start=False) as made:
        made.space.ip(
            "link add docker0 type bridge", "link set docker0 up", f"addr add {AT}/16 dev docker0"
        )
        yield made


def unit_sockets(place: Place, workers: int) -> list[socket.socket]:
    """What PID 1 opens for the unit, its line for UDP once for each worker."""
    lines = UNIT.read_text()
    found: list[socket.socket] = []
    for key, kind, times in (
        ("ListenDatagram", socket.SOCK_DGRAM, max(1, workers)),
        ("ListenStream", socket.SOCK_STREAM, 1),
    ):
        ((address, port),) = re.findall(rf"(?m)^{key}=(.*):(\d+)$", lines)
        for _ in range(times):
            sock = place.space.socket(socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address, int(port)))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            found.append(sock)
    return found


LAUNCH = """
import fcntl, os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.set_inheritable(3 + i, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def launched(
    place: Place, sockets: Sequence[socket.socket], *, ready: bool = True
) -> Iterator[int]:
    """discod with these sockets handed over; its process id."""
    fds = [sock.fileno() for sock in sockets]
    with place.discod.log_file.open("ab") as log:
        process = subprocess.Popen(
            [
                *place.space.prefix, sys.executable, "-c", LAUNCH, ",".join(map(str, fds)),
                *COMMAND, "run", "--config", str(place.discod.file),
            ],
            pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=place.discod.directory, env=environment(),
        )  # fmt: skip
    try:
        if ready:
            until(lambda: answers(place), deadline=20, what=f"answers\n{place.discod.log}")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def answers(place: Place, *options: str) -> bool:
    done = place.run(
        "dig", f"@{AT}", "+short", "+tries=1", "+time=1", *options, f"web.{D}", check=False
    )
    return done.stdout.split() == ["10.101.1.2"]


def inodes(pid: int) -> set[str]:
    """The sockets that a process holds."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(fd.readlink()))
    return found


def test_all_that_the_unit_opens_is_served(place: Place, workers: int) -> None:
    sockets = unit_sockets(place, workers)
    try:
        with launched(place, sockets) as pid:
            assert answers(place, "+tcp")
            mine = {f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in sockets}
            assert mine <= inodes(pid)
            # Nothing of its own at that port: what is handed over is what is used.
            listed = place.space.sh("ss", "-Hlnptu", "sport", "=", ":53")
            assert len(listed.splitlines()) == len(sockets), listed
    finally:
        for sock in sockets:
            sock.close()


def test_a_restart_loses_no_question(place: Place, workers: int) -> None:
    """What comes while nobody serves waits in the socket; without activation it is refused."""
    sockets = unit_sockets(place, workers)
    client = place.space.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with launched(place, sockets):
            pass
        client.settimeout(20)
        client.connect((AT, 53))
        name = b"".join(bytes((len(x),)) + x.encode() for x in f"web.{D}".split("."))
        for id_ in range(50):
            head = id_.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0"
            client.send(head + name + b"\0\0\1\0\1")
        with launched(place, sockets):
            # The first look at it may be before it is ready, which SERVFAIL says.
            got = {client.recv(512)[:2] for _ in range(50)}
        assert got == {id_.to_bytes(2, "big") for id_ in range(50)}
    finally:
        client.close()
        for sock in sockets:
            sock.close()


def test_a_socket_that_nobody_would_read_is_a_fault(place: Place) -> None:
    stray = place.space.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stray.bind((AT, 5399))
    try:
        with launched(place, [stray], ready=False) as pid:
            until(lambda: not Path(f"/proc/{pid}/exe").exists(), what="its end")
    except subprocess.TimeoutExpired:
        pytest.fail("it runs on")
    finally:
        stray.close()
    assert "5399" in place.discod.log and "cannot run" in place.discod.log, place.discod.log


def test_systemds_own_launcher(place: Place) -> None:
    """UDP comes from it, and TCP at the same address discod binds by itself."""
    command = [
        *place.space.prefix, "systemd-socket-activate", "--datagram", f"--listen={AT}:53",
        "--fdname=dns", *(f"--setenv={key}" for key in ("PYTHONPATH", "PATH", "HOME")),
        *COMMAND, "run", "--config", str(place.discod.file),
    ]  # fmt: skip
    with place.discod.log_file.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
            cwd=place.discod.directory,
        )  # fmt: skip
    try:
        until(
            lambda: place.space.sh("ss", "-Hlnu", "sport", "=", ":53"),
            what="the launcher listens",
        )
        # It starts the service at the first question, which waits for its answer.
        started = time.monotonic()
        done = place.run("dig", f"@{AT}", "+tries=1", "+time=20", f"web.{D}", timeout=30)
        assert "status: " in done.stdout, done.stdout
        assert time.monotonic() - started < 20
        until(lambda: answers(place) and answers(place, "+tcp"), deadline=20, what="both")
        # The launcher has become discod.
        assert b"discod" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not Path(f"/proc/{process.pid}/exe").resolve().name.startswith("systemd")
    finally:
        process.terminate()
        process.wait(15)
