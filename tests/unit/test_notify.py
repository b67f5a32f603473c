from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from discod.notify import STATUS_MAX, Notifier, watchdog_period


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its address as in NOTIFY_SOCKET."""
    if request.param == "path":
        address = str(tmp_path / "notify")
        bound = address
    else:
        address = f"@discod-test-{tmp_path.name}-{id(request)}"
        bound = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(bound)
        sock.settimeout(5)
        yield sock, address


def test_says_what_the_protocol_wants(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    assert notifier.listening
    assert notifier.ready("3 services")
    assert sock.recv(4096) == b"READY=1\nSTATUS=3 services"
    assert notifier.status("a\nREADY=0\tb")
    assert sock.recv(4096) == b"STATUS=a READY=0 b"
    assert notifier.status("x" * 10_000)
    assert len(sock.recv(65536)) == STATUS_MAX + len("STATUS=")
    assert notifier.watchdog()
    assert sock.recv(4096) == b"WATCHDOG=1"
    assert notifier.stopping()
    assert sock.recv(4096) == b"STOPPING=1\nSTATUS=stopping"
    before = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, second = sock.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ(environ)
    assert not notifier.listening
    assert not notifier.ready("x")


def test_a_manager_that_is_gone_is_logged_once_and_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier(address)
    assert not notifier.watchdog()
    assert not notifier.watchdog()
    assert len(caplog.records) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        assert notifier.watchdog()


def test_a_manager_that_does_not_read_never_blocks(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        notifier = Notifier(address)
        told = [notifier.watchdog() for _ in range(2000)]
    assert told[0]
    assert not told[-1]


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, 0.25),
    ],
)
def test_watchdog_period(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ, 77) == period
