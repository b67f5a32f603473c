"""Where the kernel does not spread services' own addresses, names lead to the endpoints."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
import trio
import trio.testing

from discod.metrics import Metrics
from discod.model.catalog import Change
from discod.model.endpoint import Alias, Endpoint
from discod.model.settings import DnsSettings, TransferSettings
from resolver.record import AAAA, ANY, HTTPS, NOERROR, NXDOMAIN, PTR, SRV, SVCB, TXT, A, to_name
from resolver.server import Resolver
from resolver.transfer.service import TransferService
from resolver.zone import Zone
from tests.hot import Hot
from tests.resolving import OWN, PUBLISHED, WEB, ask, made, packet, responder, section, zone_with
from tests.transferring import Secondary, request

D = "discod.internal"
VIP = ip_address("10.96.0.7"), ip_address("2001:db8:96::7")
OWNING = tuple(replace(e, vip=VIP) for e in WEB)
LEAD = Alias("db", "a", f"web.{D}")
DNS = DnsSettings(consul_names=True)
NAMES = [
    f"{below}{D}"
    for below in (
        "web.",
        "_http._tcp.web.",
        "_tcp.web.",
        "_headless.web.",
        "_tcp._headless.web.",
        "_http._tcp._headless.web.",
        "alpha-c1-80.web.",
        "blue.web.",
        "prod.env.web.",
        "db.",
        "_http._tcp.db.",
        "web.service.",
        "v1.web.service.dc1.",
        "_web._tcp.",
        "_web._v1.service.",
        "api.",
        "_http._tcp.api.",
        "nothing.",
    )
]
TYPES = (A, AAAA, SRV, SVCB, HTTPS, TXT, ANY)


def catalog(web: tuple[Endpoint, ...], revision: int = 7) -> Any:
    return made([*web, *PUBLISHED], [LEAD], revision=revision)


def said(zone: Zone) -> dict[tuple[str, int], Any]:
    """What it answers to everything, in one order of chance."""
    return {
        (name, qtype): zone.lookup(to_name(name), qtype, random.Random(1))
        for name in NAMES
        for qtype in TYPES
    }


def fronted_and_not() -> tuple[Zone, Zone]:
    """A zone that has the addresses in its answers, and one of a Catalog that has none."""
    return zone_with(catalog(OWNING), DNS), zone_with(catalog(WEB), DNS)


def test_without_it_every_name_is_as_if_there_were_no_such_address() -> None:
    fronted, plain = fronted_and_not()
    assert said(fronted) != said(plain)
    zone = Zone(DNS, OWN, fronted=False)
    zone.update(catalog(OWNING), None)
    for now in (False, True, True, False):
        zone.set_fronted(now)
        assert zone.fronted == now
        right = fronted if now else plain
        assert said(zone) == said(right)
        for service in ("web", "api", "db"):
            assert zone.service_rrs(service) == right.service_rrs(service)


def test_the_catalog_may_change_meanwhile() -> None:
    zone = Zone(DNS, OWN, fronted=False)
    change = Change(frozenset({"web"}), False, ())
    zone.update(catalog(WEB), None)
    for revision, (web, now) in enumerate(
        [(OWNING, False), (OWNING, True), (WEB, True), (WEB, False), (OWNING[:1], True)], 8
    ):
        zone.update(catalog(web, revision), change)
        zone.set_fronted(now)
        right = zone_with(catalog(web if now else tuple(replace(e, vip=()) for e in web)), DNS)
        for name in (f"web.{D}", f"_headless.web.{D}", f"_http._tcp._headless.web.{D}"):
            for qtype in (A, AAAA, SRV):
                mine = zone.lookup(to_name(name), qtype, random.Random(1))
                theirs = right.lookup(to_name(name), qtype, random.Random(1))
                assert mine is not None and theirs is not None
                assert (mine.rcode, mine.answer) == (theirs.rcode, theirs.answer)


def test_whose_an_address_is_stays_said() -> None:
    zone, _ = fronted_and_not()
    pointer = to_name(VIP[0].reverse_pointer)
    before = zone.lookup(pointer, PTR, random.Random(1))
    assert before is not None and before.rcode == NOERROR and before.answer
    zone.set_fronted(False)
    assert zone.lookup(pointer, PTR, random.Random(1)) == before


def test_services_without_one_are_not_compiled_again() -> None:
    zone = zone_with(catalog(OWNING), DNS)
    said(zone)
    domain = zone._domain
    before = dict(domain._compiled)
    assert set(before) == {"web", "api"}
    zone.set_fronted(True)
    assert domain._compiled == before
    zone.set_fronted(False)
    assert domain._compiled == {"api": before["api"]}
    assert domain._compiled_size == len(PUBLISHED)
    said(zone)
    assert domain._compiled["web"] is not before["web"]
    assert domain._compiled_size == len(PUBLISHED) + len(WEB)


# Workers --------------------------------------------------------------------------------------


def test_workers_say_the_same_as_the_daemon_through_flips() -> None:
    hot = Hot(catalog(OWNING), DNS)
    right = {now: responder(catalog(OWNING if now else WEB), DNS) for now in (True, False)}
    seen = set()
    for now in (True, False, True, False, False):
        change = hot.tell(catalog(OWNING), (), hosts=False, fronted=now)
        assert change == Change(frozenset(), False, ())
        for name in NAMES:
            for qtype in ("A", "AAAA", "SRV", "HTTPS", "ANY"):
                query = packet(name, qtype, size=4096)
                theirs, _ = ask(right[now], query)
                for _ in range(3):
                    got = hot.ask(query)
                    assert got is not None
                    mine = dnslib.DNSRecord.parse(got)
                    assert mine.header.rcode == theirs.header.rcode, (name, qtype, now)
                    assert section(mine.rr) == section(theirs.rr), (name, qtype, now)
                    assert section(mine.ar) == section(theirs.ar), (name, qtype, now)
                seen.add((name, qtype, frozenset(section(theirs.rr))))
    differing = {name for name in NAMES if sum((name, "A") == s[:2] for s in seen) == 2}
    assert differing == {f"{n}.{D}" for n in ("web", "db", "web.service")}


def test_a_worker_remembers_what_does_not_depend_on_it() -> None:
    hot = Hot(made([*OWNING, *PUBLISHED]))
    queries = [packet(f"{name}.{D}") for name in ("api", "web")]
    for query in queries:
        hot.ask(query)
    kept = dict(hot.memo.answers)
    assert {query[2:] for query in queries} == set(kept)
    hot.tell(made([*OWNING, *PUBLISHED]), (), hosts=False, fronted=False)
    assert hot.memo.answers == {queries[0][2:]: kept[queries[0][2:]]}


def test_a_catalog_without_any_costs_a_worker_nothing() -> None:
    leads = made([*WEB, *PUBLISHED], [LEAD])
    hot = Hot(leads)
    for name in ("api", "web", "db"):
        hot.ask(packet(f"{name}.{D}"))
    kept, compiled = dict(hot.memo.answers), dict(hot.zone._domain._compiled)
    assert len(kept) == 3
    hot.tell(leads, (), hosts=False, fronted=False)
    assert hot.memo.answers == kept
    assert hot.zone._domain._compiled == compiled


# The daemon -----------------------------------------------------------------------------------


@pytest.fixture
def transfers() -> TransferService:
    allow = DnsSettings().allow
    return TransferService(
        TransferSettings(allow=allow), Zone(DNS, OWN), OWN.name, Metrics(), rng=random.Random(1)
    )


@pytest.fixture
def resolver(transfers: TransferService) -> Resolver:
    settings = replace(DNS, listen=(), workers=0, forward=False)
    made_ = Resolver(settings, OWN, Metrics(), rng=random.Random(1), transfers=transfers)
    made_.update(catalog(OWNING), None)
    made_.set_stale(stale=False, ready=True)
    return made_


def addresses(resolver: Resolver, name: str) -> set[str]:
    """A, over UDP and from the memory for TCP, which agree."""
    query = packet(f"{name}.{D}")
    answer = resolver._handle(query, "127.0.0.1", "udp")
    assert isinstance(answer, bytes)
    assert resolver._recall.usable("127.0.0.1", 1)
    found = resolver._recall.find(query[2:], "127.0.0.1")
    assert found is not None
    told = [
        {str(rr.rdata) for rr in dnslib.DNSRecord.parse(one).rr if rr.rtype == A}
        for one in (answer, query[:2] + found[1])
    ]
    assert told[0] == told[1]
    return told[0]


def test_the_daemon_begins_without_and_turns_at_run_time(resolver: Resolver) -> None:
    endpoints = {"10.101.1.2", "10.101.2.2"}
    for now in (None, True, False, False, True):
        if now is not None:
            resolver.set_fronted(now)
        for name in ("web", "db", "web.service"):
            assert addresses(resolver, name) == ({str(VIP[0])} if now else endpoints)
        assert any(str(VIP[0]) in line for line in resolver.explain(f"web.{D}")) == bool(now)
        assert addresses(resolver, "_headless.web") == endpoints
        below = resolver._zone.lookup(to_name(f"_tcp._headless.web.{D}"), SRV, random.Random(1))
        assert below is not None
        assert below.rcode == (NOERROR if now else NXDOMAIN)


def test_what_the_daemon_remembers_of_others_stays(resolver: Resolver) -> None:
    query = packet(f"api.{D}")
    addresses(resolver, "api")
    kept = resolver._recall.memo.answers[query[2:]]
    resolver.set_fronted(True)
    assert resolver._recall.memo.answers[query[2:]] is kept


async def test_transfers_have_them_whatever_this_host_can_do(
    autojump_clock: trio.testing.MockClock, resolver: Resolver, transfers: TransferService
) -> None:
    pointed = f"web.{D}", str(VIP[0])

    def taken() -> set[Any]:
        query = request()
        answers = resolver._handle(query, "127.0.0.1", "tcp")
        assert isinstance(answers, Iterator)
        secondary = Secondary()
        assert secondary.take(list(answers)) == "whole"
        return set(secondary.records)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfers.run)
        transfers.update(catalog(OWNING), None)
        await trio.sleep(1)
        first = taken()
        assert any(all(part in str(record) for part in pointed) for record in first)
        for now in (True, False):
            resolver.set_fronted(now)
            revision = 8 + now
            resolver.update(catalog(OWNING, revision), Change(frozenset({"web"}), False, ()))
            transfers.update(catalog(OWNING, revision), Change(frozenset({"web"}), False, ()))
            await trio.sleep(1)
            assert taken() == first
        nursery.cancel_scope.cancel()
