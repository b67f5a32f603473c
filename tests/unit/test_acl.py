"""Who is answered."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from discod.model.settings import DnsSettings
from resolver.acl import REMEMBERED, Acl, packed


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("127.0.0.1", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("172.31.0.1", True),
        ("172.32.0.1", False),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("192.168.1.1", True),
        ("192.0.2.1", False),
        ("8.8.8.8", False),
        ("::1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_default_list(client: str, allowed: bool) -> None:
    acl = Acl(DnsSettings().allow)
    assert acl.allows(client) is allowed
    assert acl.allows(client) is allowed  # remembered


def test_an_empty_list_allows_nobody() -> None:
    assert not Acl(()).allows("127.0.0.1")


def test_everybody() -> None:
    acl = Acl([ip_network("0.0.0.0/0")])
    assert acl.allows("203.0.113.1")
    assert not acl.allows("2001:db8::1")


def test_memory_is_bounded() -> None:
    acl = Acl([ip_network("10.0.0.0/8")])
    for i in range(3 * REMEMBERED):
        acl.allows(f"10.0.{i >> 8}.{i & 255}")
    assert acl.allows.cache_info().currsize == REMEMBERED


@pytest.mark.parametrize(
    ("client", "octets"),
    [
        ("192.0.2.1", "c0000201"),
        ("::ffff:192.0.2.1", "c0000201"),
        ("fe80::1%eth0", "fe800000000000000000000000000001"),
    ],
)
def test_packed(client: str, octets: str) -> None:
    assert packed(client).hex() == octets
