"""Bridges and their networks as octets; the work in namespaces as far as it needs none."""

from __future__ import annotations

import struct
import threading
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.kernel.attributes import NESTED, attribute
from discod.model.rescue import Bridge
from discod.rescue import bridges_codec as codec
from discod.rescue import spaces

MAC = bytes.fromhex("024200000001")


def link(number: int, name: str, kind: str = "bridge", mac: bytes = MAC) -> bytes:
    data = struct.pack("=BxHiII", 0, 1, number, 0, 0) + attribute(3, name.encode() + b"\0")
    info = attribute(18 | NESTED, attribute(1, kind.encode() + b"\0"))
    return data + attribute(1, mac) + info


def address(number: int, text: str, bits: int) -> bytes:
    octets = ip_address(text).packed
    data = struct.pack("=BBBBI", 2 if len(octets) == 4 else 10, bits, 0, 0, number)
    return data + attribute(1, octets) + (attribute(2, octets) if len(octets) == 4 else b"")


def test_bridges_have_their_networks_and_no_link_local_ones() -> None:
    links = [codec.read_bridge(link(4, "docker0")), codec.read_bridge(link(3, "br-1"))]
    local = [
        codec.read_address(address(4, "172.17.0.1", 16)),
        codec.read_address(address(4, "fe80::1", 64)),
        codec.read_address(address(4, "2001:db8::1", 64)),
        codec.read_address(address(9, "192.0.2.1", 24)),
    ]
    assert codec.joined(filter(None, links), filter(None, local)) == (
        Bridge("br-1", MAC, ()),
        Bridge("docker0", MAC, ((ip_address("172.17.0.0"), 16), (ip_address("2001:db8::"), 64))),
    )
    assert codec.read_bridge(link(4, "eth0", "veth")) is None
    assert codec.read_bridge(link(4, "docker0", mac=b"")) is None
    assert codec.read_address(address(4, "172.17.0.1", 33)) is None
    assert codec.read_own(address(4, "172.17.0.1", 16)) == ip_address("172.17.0.1").packed


@given(st.binary(max_size=120))
def test_garbage_is_nothing(data: bytes) -> None:
    assert codec.read_bridge(data) is None
    found = codec.read_address(data)
    assert found is None or found.bits <= found.network.max_prefixlen
    codec.read_own(data)


async def test_work_here_is_done_in_a_thread_of_its_own_and_ends() -> None:
    ended = []
    names = await spaces.everywhere(
        (), lambda until: threading.current_thread().name, last=lambda: ended.append(1)
    )
    assert names == ["rescue-netns"]
    assert ended == [1]
    assert "rescue-netns" not in {thread.name for thread in threading.enumerate()}


async def test_what_fails_there_is_said_and_what_is_wrong_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(until: float) -> None:
        raise PermissionError(1, "not permitted")

    def wrong(until: float) -> None:
        raise ZeroDivisionError

    assert await spaces.everywhere((), fails) == []
    assert "nothing done in some network namespaces" in caplog.text
    with pytest.raises(ZeroDivisionError):
        await spaces.everywhere((), wrong)


async def test_no_work_begins_after_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    assert await spaces.everywhere((), lambda until: time.monotonic(), limit=0.0) == []
    assert "not all network namespaces visited in time" in caplog.text
