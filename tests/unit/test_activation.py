"""Sockets handed over by the service manager: what is taken, and what is a fault."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discod.activation import COUNT_MAX, FIRST, ActivationError, Handed, adopt, handed

PID = 4711


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"LISTEN_FDS": "2"}, ()),
        ({"LISTEN_PID": "4712", "LISTEN_FDS": "2"}, ()),
        ({"LISTEN_PID": "4712", "LISTEN_FDS": "what"}, ()),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "0"}, ()),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1"}, ((3, "unknown"),)),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, ((3, "a"), (4, "b"))),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": ":"}, ((3, ""), (4, ""))),
    ],
)
def test_what_is_handed_over(
    environ: dict[str, str], expected: tuple[tuple[int, str], ...]
) -> None:
    assert handed(environ, PID) == expected


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"LISTEN_PID": "self", "LISTEN_FDS": "1"}, "LISTEN_PID"),
        ({"LISTEN_PID": "٤٧١١", "LISTEN_FDS": "1"}, "LISTEN_PID"),
        ({"LISTEN_PID": "4711"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": ""}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "-1"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1_0"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": " 1"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": str(COUNT_MAX + 1)}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "9" * 5000}, "LISTEN_FDS"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES"),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "0", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES"),
    ],
)
def test_variables_that_say_nothing_sensible(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ActivationError, match=named):
        handed(environ, PID)


@contextlib.contextmanager
def opened(*kinds: tuple[socket.AddressFamily, socket.SocketKind, str]) -> Iterator[list[int]]:
    """Bound sockets as bare descriptors, as a service manager leaves them: inherited, blocking."""
    fds = []
    for family, kind, address in kinds:
        sock = socket.socket(family, kind)
        sock.setblocking(True)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        sock.set_inheritable(True)
        fds.append(sock.detach())
    try:
        yield fds
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


def test_sockets_that_can_serve() -> None:
    kinds = (
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::"),
        (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
    )
    with opened(*kinds) as fds:
        sockets = adopt(Handed(fd, "dns") for fd in fds)
        try:
            assert [(s.family, s.type, s.getsockname()[0]) for s in sockets] == list(kinds)
            for sock in sockets:
                assert not sock.getblocking()
                assert not sock.get_inheritable()
        finally:
            for sock in sockets:
                sock.close()


def test_several_sockets_at_one_place() -> None:
    with contextlib.ExitStack() as stack:
        pair = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        ]
        for sock in pair:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        pair[0].bind(("127.0.0.1", 0))
        pair[1].bind(pair[0].getsockname())
        sockets = adopt(Handed(sock.detach(), "dns") for sock in pair)
        assert len(sockets) == 2
        assert sockets[0].getsockname() == sockets[1].getsockname()
        for sock in sockets:
            sock.close()


def made(kind: str, folder: Path) -> socket.socket | int:
    match kind:
        case "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.bind(str(folder / "s"))
        case "unbound":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        case "accepted":
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", 0))
        case "both families":
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 0))
        case "file":
            return os.open(folder / "file", os.O_CREAT | os.O_RDWR)
        case _:
            return 1000  # nothing at all
    return sock


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("unix", "neither IPv4 nor IPv6"),
        ("unbound", "bound to no port"),
        ("accepted", "does not listen"),
        ("both families", "BindIPv6Only"),
        ("file", "socket"),
        ("nothing", "descriptor"),
    ],
)
def test_what_cannot_serve_is_named_and_all_is_closed(kind: str, why: str, tmp_path: Path) -> None:
    with opened((socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")) as good:
        bad = made(kind, tmp_path)
        fd = bad if isinstance(bad, int) else bad.detach()
        try:
            with pytest.raises(ActivationError, match=why) as raised:
                adopt((Handed(good[0], "dns"), Handed(fd, "odd")))
            assert f"descriptor {fd} (odd)" in str(raised.value)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(good[0])
        finally:
            if kind == "file":
                os.close(fd)


LAUNCHED = """
import os
from discod.activation import adopt, handed
for sock in adopt(handed(os.environ, os.getpid())):
    print(sock.type.name, sock.getsockname()[0])
"""


def test_a_real_launch() -> None:
    """As a manager does it: descriptors from 3 on, and the process id of what is executed."""
    with opened(
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
    ) as fds:
        launcher = (
            "import os, sys\n"
            f"copies = [os.dup(fd) for fd in {fds!r}]\n"
            f"for to, fd in enumerate(copies, {FIRST}):\n"
            "    os.dup2(fd, to)\n"
            "    os.set_inheritable(to, True)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')\n"
            f"os.execv(sys.executable, [sys.executable, '-c', {LAUNCHED!r}])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", launcher],
            cwd=Path(__file__).parents[2],
            pass_fds=fds,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout.splitlines() == ["SOCK_DGRAM 127.0.0.1", "SOCK_STREAM 127.0.0.1"], (
        done.stderr
    )
