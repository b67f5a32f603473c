"""The names of Consul's users, when they are switched on."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from discod.model.endpoint import Alias
from discod.model.settings import DnsSettings
from resolver.record import CNAME, NOERROR, NXDOMAIN, SRV, TXT, A, Answer, to_name
from tests.resolving import OWN, ask, endpoint, made, packet, responder, section, zone_with

D = "discod.internal"
WEB = (
    endpoint("web", "a-80", "10.0.0.1", tags=("v1",), attributes=(("k", "v"),)),
    endpoint("web", "b-53", "10.0.0.2", 53, protocol="udp", port_name="dns", tags=("v1", "v2")),
    endpoint("web", "c-81", "10.0.0.3", 81, port_name="", tags=("udp",)),
    endpoint("tcp-only", "d", "10.0.0.4"),
)
CATALOG = made(WEB, (Alias("db", "a", f"web.{D}", ttl=9),))


def lookup(
    name: str, qtype: int = A, catalog: Any = CATALOG, zone: str = "", **more: Any
) -> Answer:
    more.setdefault("consul_names", True)
    own = replace(OWN, zone=zone)
    found = zone_with(catalog, DnsSettings(**more), own)
    answer = found.lookup(to_name(f"{name}.{D}"), qtype, random.Random(1))
    assert answer is not None
    return answer


NAMES: list[tuple[str, int, set[int] | None]] = [
    # name, type, last octets of addresses or ports of SRV; None: NXDOMAIN
    ("web.service", A, {1, 2, 3}),
    ("web.service", SRV, {80, 53, 81}),
    ("v1.web.service", A, {1, 2}),
    ("v2.web.service", SRV, {53}),
    ("v3.web.service", A, None),
    ("a-80.web.service", A, None),
    ("_http._tcp.web.service", SRV, None),
    ("service", A, set()),
    ("nope.service", A, None),
    ("x.v1.web.service", A, None),
    ("_web._tcp.service", SRV, {80, 53, 81}),
    ("_web._tcp", SRV, {80, 53, 81}),
    ("_web._udp", SRV, {53, 81}),  # by protocol, and by a tag of that name
    ("_web._udp.service", SRV, {53, 81}),
    ("_web._v2.service", SRV, {53}),
    ("_web._v2", SRV, {53}),
    ("_web._v3", SRV, None),
    ("_tcp-only._udp", SRV, None),
    ("_nope._tcp", SRV, None),
    ("_web._tcp", A, set()),
    ("_tcp", SRV, set()),
    ("_tcp.service", SRV, set()),
    ("_web._", SRV, None),
    ("_._tcp", SRV, None),
    ("_", A, None),
    ("x._web._tcp", SRV, None),
    ("web._tcp", SRV, None),
    ("alpha.node", A, {1}),
]


@pytest.mark.parametrize("datacenter", ["", ".dc1", ".east"])
@pytest.mark.parametrize(("name", "qtype", "expected"), NAMES)
def test_names(name: str, qtype: int, expected: set[int] | None, datacenter: str) -> None:
    answer = lookup(name + datacenter, qtype, zone="east")
    assert answer.rcode == (NXDOMAIN if expected is None else NOERROR)
    at = slice(4, 6) if qtype == SRV else slice(-1, None)
    assert {int.from_bytes(rr.rdata[at], "big") for rr in answer.answer} == (expected or set())
    assert {rr.owner for rr in answer.answer} <= {to_name(f"{name}{datacenter}.{D}")}
    if answer.answer and qtype == SRV:
        assert len(answer.additional) == len(answer.answer)


@pytest.mark.parametrize("name", [n for n, _, _ in NAMES if n != "alpha.node"] + ["x.node.dc1"])
def test_without_the_setting_there_are_none(name: str) -> None:
    assert lookup(name, consul_names=False).rcode == NXDOMAIN
    assert lookup(f"{name}.dc1", consul_names=False).rcode == NXDOMAIN


def test_other_data_centres_are_not_ours() -> None:
    for name in ("web.service.dc2", "alpha.node.west", "east", "_web._tcp.dc2"):
        assert lookup(name).rcode == NXDOMAIN
    assert lookup("dc1").rcode == NOERROR  # there are names below it
    assert lookup("x.dc1").rcode == NXDOMAIN


def test_a_service_goes_before_a_data_centre_of_its_name() -> None:
    catalog = made((*WEB, endpoint("dc1", "a", "10.0.0.9", tags=("service",))))
    assert lookup("web.service.dc1", catalog=catalog).rcode == NXDOMAIN
    assert [rr.rdata[-1] for rr in lookup("service.dc1", catalog=catalog).answer] == [9]


def test_all_types_of_the_service() -> None:
    assert len(lookup("web.service", TXT).answer) == 1
    assert lookup("v1.web.service", TXT).answer == ()


def test_targets_are_instance_names_and_the_case_does_not_matter() -> None:
    to = responder(CATALOG, DnsSettings(consul_names=True))
    name = f"_Web._V2.Service.{D}"
    response, _ = ask(to, packet(name, "SRV", size=4096))
    assert section(response.rr) == {f"{name} SRV 10 100 53 b-53.web.{D}."}
    assert section(response.ar) == {f"b-53.web.{D} A 10.0.0.2"}


def test_preference_and_limit_hold() -> None:
    near = made((*WEB, replace(WEB[0], instance="far", host="beta")))
    assert len(lookup("web.service", catalog=near, answer_limit=2).answer) == 2
    assert len(lookup("v1.web.service", SRV, catalog=near, prefer="local").answer) == 2


def test_an_alias_is_one_here_too() -> None:
    answer = lookup("db.service")
    assert [(rr.type, rr.ttl) for rr in answer.answer] == [(CNAME, 9), *[(A, 0)] * 3]
    assert lookup("v1.db.service").rcode == NXDOMAIN
    assert lookup("_db._tcp", SRV).rcode == NXDOMAIN


def test_nothing_is_kept_for_names_that_do_not_exist() -> None:
    zone = zone_with(CATALOG, DnsSettings(consul_names=True))
    for name in ("web.service", "v1.web.service", "_web._udp", "x.web.service", "_web._x"):
        zone.lookup(to_name(f"{name}.{D}"), A, random.Random(1))
    names = zone._domain._compiled["web"]
    assert len(names._nodes) == 3


def test_subtrees() -> None:
    def subtrees(zone: str, **more: Any) -> set[bytes]:
        found = zone_with(CATALOG, DnsSettings(**more), replace(OWN, zone=zone))
        for label in found.subtrees:
            answer = found.lookup((label, *found.apex), A, random.Random(1))
            assert answer is not None and answer.rcode == NOERROR
        return set(found.subtrees)

    assert subtrees("east") == {b"node"}
    assert subtrees("east", consul_names=True) == {b"node", b"service", b"dc1", b"east"}
