"""Running containers as rescue sees them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import SimpleNamespace
from typing import Any, cast

from announcer.announcer import Announcer
from announcer.container import Attachment, Container, Publication, Status
from announcer.offers import ContainerView
from discod.model.rescue import Place, Unit

MAC = bytes.fromhex("02420a650102")
V4, V6 = IPv4Address("10.101.1.2"), IPv6Address("2001:db8:1::2")
OWN = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
WEB = Container(
    id="1" * 64,
    name="web",
    image="web",
    status=Status.RUNNING,
    pid=42,
    attachments=(Attachment("back", "n0"), Attachment("front", "n1", V4, V6, MAC)),
)


def units(*containers: Container, watched: bool = True) -> dict[str, Unit]:
    watcher = SimpleNamespace(living=lambda: list(containers)) if watched else None
    fake: Any = SimpleNamespace(watcher=watcher)
    return ContainerView(cast("Announcer", fake)).units(OWN)


def test_addresses_with_their_macs() -> None:
    assert units(WEB) == {WEB.id: Unit(WEB.id, "web", 42, {V4: MAC, V6: MAC})}


def test_what_is_published_leads_into_the_container() -> None:
    published = (
        Publication(80, "tcp", ip_address("0.0.0.0"), 8080),
        Publication(80, "tcp", ip_address("::"), 8080),
        Publication(53, "udp", None, 5353),
        Publication(81, "tcp", ip_address("192.0.2.9"), 8081),
    )
    (unit,) = units(replace(WEB, published=published)).values()
    assert unit.published == {
        Place(OWN[0], 8080, "tcp"): Place(V4, 80, "tcp"),
        Place(OWN[1], 8080, "tcp"): Place(V6, 80, "tcp"),
        Place(OWN[0], 5353, "udp"): Place(V4, 53, "udp"),
        Place(OWN[1], 5353, "udp"): Place(V6, 53, "udp"),
        Place(ip_address("192.0.2.9"), 8081, "tcp"): Place(V4, 81, "tcp"),
    }


def test_a_family_that_the_container_has_not_is_published_by_a_proxy_only() -> None:
    only = replace(WEB, attachments=(Attachment("front", "n1", V4),))
    (unit,) = units(replace(only, published=(Publication(80, "tcp", None, 8080),))).values()
    assert unit.published == {Place(OWN[0], 8080, "tcp"): Place(V4, 80, "tcp")}


def test_host_networking_has_no_address_of_its_own() -> None:
    (unit,) = units(replace(WEB, attachments=(Attachment("host", "h"),))).values()
    assert unit.addresses == {} and unit.published == {}


def test_without_docker_there_is_none() -> None:
    assert units(WEB, watched=False) == {}
