"""Upstreams from resolv.conf."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing

from discod.model.settings import ListenAddress
from resolver.forwarding.resolv_conf import ResolvConf
from resolver.forwarding.upstreams import Upstreams, is_listening, parse


def servers(found: Upstreams) -> list[str]:
    assert all(server.port == 53 for server in found.servers)
    return [str(server.address) for server in found.servers]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", ["192.0.2.1", "192.0.2.2"]),
        ("nameserver\t192.0.2.1   # comment\n", ["192.0.2.1"]),
        ("  nameserver 192.0.2.1", ["192.0.2.1"]),
        ("#nameserver 192.0.2.1\n;nameserver 192.0.2.2", []),
        ("nameserver 2001:db8::53\nnameserver fe80::1%eth0", ["2001:db8::53", "fe80::1%eth0"]),
        ("nameserver dns.example\nnameserver\nnameserver 1.2.3\n", []),
        ("nameserver 0.0.0.0\nnameserver ::\n", ["127.0.0.1", "::1"]),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
        (
            "".join(f"nameserver 192.0.2.{i}\n" for i in range(1, 6)),
            [f"192.0.2.{i}" for i in (1, 2, 3)],
        ),
        ("search example.com\ndomain x\nsortlist y\n", []),
        ("", []),
        ("\0\x85nameserver 192.0.2.1\n", []),
    ],
)
def test_servers(text: str, expected: list[str]) -> None:
    assert servers(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "timeout", "attempts"),
    [
        ("", None, 2),
        ("options timeout:1 attempts:3 rotate\n", 1.0, 3),
        ("options timeout:99 attempts:99\n", 30.0, 5),
        ("options timeout:0 attempts:0\n", 1.0, 1),
        ("options timeout: attempts:x timeout:-1 ndots:5\n", None, 2),
        ("options timeout:99999999999999999999999\n", 30.0, 2),
        ("options attempts:1\noptions timeout:4\n", 4.0, 1),
    ],
)
def test_options(text: str, timeout: float | None, attempts: int) -> None:
    found = parse(text)
    assert (found.timeout, found.attempts) == (timeout, attempts)


def listen(address: str, port: int = 53) -> ListenAddress:
    return ListenAddress(ip_address(address), port)


@pytest.mark.parametrize(
    ("server", "bound", "own"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.53", "127.0.0.1", False),
        ("127.0.0.53", "0.0.0.0", True),
        ("192.0.2.1", "0.0.0.0", True),
        ("192.0.2.9", "0.0.0.0", False),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
    ],
)
def test_our_own_addresses_are_no_upstreams(server: str, bound: str, own: bool) -> None:
    at = listen(bound), listen("127.0.0.1", 5354)

    def is_own(asked: ListenAddress) -> bool:
        return is_listening(asked, at, (ip_address("192.0.2.1"),))

    assert is_own(listen(server)) is own
    found = parse(f"nameserver {server}", is_own)
    assert servers(found) == ([] if own else [server])
    assert found.own == ((listen(server),) if own else ())
    assert not is_own(listen(server, 54))


async def test_the_file_is_followed(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    path = tmp_path / "resolv.conf"
    conf = ResolvConf(str(path), lambda _: False)
    assert servers(conf.current()) == []
    path.write_text("nameserver 192.0.2.1\n")
    assert servers(conf.current()) == []  # looked less than a second ago
    await trio.sleep(1.1)
    assert servers(conf.current()) == ["192.0.2.1"]

    other = tmp_path / "other"
    other.write_text("nameserver 192.0.2.2\n")
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)  # same size and time, another file
    await trio.sleep(1.1)
    assert servers(conf.current()) == ["192.0.2.2"]

    path.unlink()
    await trio.sleep(1.1)
    assert servers(conf.current()) == []


async def test_discod_itself_is_left_out_and_said_so_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\nnameserver 127.0.0.1\n")
    conf = ResolvConf(str(path), lambda server: server.address.is_loopback)
    for _ in range(3):
        assert servers(conf.current()) == ["192.0.2.1"]
        await trio.sleep(1.1)
    assert sum("names discod itself" in r.message for r in caplog.records) == 1


async def test_a_directory_or_binary_file_names_no_server(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    assert servers(ResolvConf(str(tmp_path), lambda _: False).current()) == []
    (tmp_path / "x").write_bytes(bytes(range(256)) * 300)
    assert servers(ResolvConf(str(tmp_path / "x"), lambda _: False).current()) == []
