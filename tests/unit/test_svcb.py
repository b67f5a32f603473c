"""SVCB and HTTPS (RFC 9460), read back by another codec."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest

from resolver import record, svcb
from resolver.record import name_wire, to_name
from tests.resolving import ask, endpoint, made, packet, responder, section, zone_of

D = "discod.internal"


def params(rdata: bytes) -> tuple[int, str, dict[int, bytes]]:
    """Priority, target and parameters; the parameters in strictly ascending order."""
    (priority,) = struct.unpack_from(">H", rdata)
    at, labels = 2, []
    while rdata[at]:
        labels.append(rdata[at + 1 : at + 1 + rdata[at]].decode())
        at += 1 + rdata[at]
    at += 1
    found: dict[int, bytes] = {}
    last = -1
    while at < len(rdata):
        key, length = struct.unpack_from(">HH", rdata, at)
        assert key > last
        last = key
        found[key] = rdata[at + 4 : at + 4 + length]
        assert len(found[key]) == length
        at += 4 + length
    return priority, ".".join(labels), found


def answers(catalog: Any, name: str, qtype: int) -> list[tuple[int, str, dict[int, bytes]]]:
    found = zone_of(catalog).lookup(to_name(name), qtype, random.Random(1))
    assert found is not None
    assert bool(found.answer) != bool(found.authority)
    assert all(rr.type == qtype and rr.owner == to_name(name) for rr in found.answer)
    return sorted((params(rr.rdata) for rr in found.answer), key=str)


WEB = made(
    [
        endpoint("web", "a-443", "10.0.0.1", 443, port_name="https", alpn=("h3", "h2")),
        endpoint(
            "web", "a-443-v6", "2001:db8::1", 443, port_name="https", alpn=("h2",), target="a-443"
        ),
        endpoint("web", "b-80", "10.0.0.2", 80, priority=0),
        endpoint("web", "c-53-udp", "10.0.0.3", 53, protocol="udp", port_name="dns"),
        endpoint("web", "noport", "10.0.0.4", 0, port_name=""),
    ]
)
V4, V6 = ip_address("10.0.0.1").packed, ip_address("2001:db8::1").packed
A443 = (
    10,
    f"a-443.web.{D}",
    {1: b"\x02h3\x02h2", 3: b"\x01\xbb", 4: V4, 6: V6},
)
B80 = (1, f"b-80.web.{D}", {3: b"\0\x50", 4: ip_address("10.0.0.2").packed})
C53 = (10, f"c-53-udp.web.{D}", {3: b"\0\x35", 4: ip_address("10.0.0.3").packed})


@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        (f"web.{D}", record.SVCB, [A443, B80, C53]),
        (f"web.{D}", record.HTTPS, [A443]),
        (f"_https._tcp.web.{D}", record.SVCB, [A443]),
        (f"_http._tcp.web.{D}", record.SVCB, [B80]),
        (f"_dns._udp.web.{D}", record.SVCB, [C53]),
        (f"_https._tcp.web.{D}", record.HTTPS, []),
        (f"a-443.web.{D}", record.HTTPS, []),
        (f"_tcp.web.{D}", record.SVCB, []),
        (f"_headless.web.{D}", record.SVCB, []),
    ],
)
def test_records(name: str, qtype: int, expected: list[Any]) -> None:
    assert answers(WEB, name, qtype) == sorted(expected, key=str)


def test_https_only_for_those_who_said_that_they_speak_it() -> None:
    """A browser that sees an HTTPS record asks for https (RFC 9460, section 9.5)."""
    plain = made([endpoint("web", "a", "10.0.0.1", 80)])
    assert answers(plain, f"web.{D}", record.HTTPS) == []
    assert len(answers(plain, f"web.{D}", record.SVCB)) == 1


def test_targets_bring_their_addresses() -> None:
    response, _ = ask(responder(WEB), packet(f"web.{D}", record.HTTPS, size=1232))
    assert section(response.ar) == {
        f"a-443.web.{D} A 10.0.0.1",
        f"a-443.web.{D} AAAA 2001:db8::1",
    }
    (rr,) = response.rr
    assert isinstance(rr.rdata, dnslib.HTTPS)
    text = str(rr.rdata)
    assert text.startswith(f"10 a-443.web.{D}.")
    for part in ("alpn=h3,h2", "port=443", "ipv4hint=10.0.0.1", "ipv6hint=2001:db8::1"):
        assert part in text


def test_priority_is_never_that_of_an_alias() -> None:
    for priority in (0, 1, 65535):
        rdata = svcb.service_mode(priority, name_wire((b"t",)), 1, b"", [], [])
        assert params(rdata) == (max(priority, 1), "t", {3: b"\0\1"})


def test_hints_are_few() -> None:
    many = [bytes((10, 0, 0, i)) for i in range(40)]
    _, _, found = params(svcb.service_mode(1, b"\0", 1, b"", many, []))
    assert found[svcb.IPV4HINT] == b"".join(many[: svcb.HINTS_MAX])


@pytest.mark.parametrize(
    ("ids", "value"),
    [
        ((), b""),
        (("h2",), b"\x02h2"),
        (("h2", "", "x" * 256, "http/1.1"), b"\x02h2\x08http/1.1"),
    ],
)
def test_alpn_ids(ids: tuple[str, ...], value: bytes) -> None:
    assert svcb.alpn_value(ids) == value
