"""Aliases: CNAME, chains, where they lead out, and flattening."""

from __future__ import annotations

import random
from typing import Any

import pytest

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias
from discod.model.settings import DnsSettings
from resolver import record
from resolver.record import AAAA, ANY, CNAME, NOERROR, NXDOMAIN, SERVFAIL, SRV, A, Answer, to_name
from tests.resolving import ask, endpoint, made, packet, responder, section, zone_with

D = "discod.internal"


def alias(service: str, target: str, ttl: int = 0, instance: str = "a") -> Alias:
    return Alias(service, instance, target, ttl=ttl)


PG = (
    endpoint("pg", "a-5432", "10.0.0.1", 5432, port_name="postgres", ttl=30),
    endpoint("pg", "b-5432", "10.0.0.2", 5432, port_name="postgres", ttl=60),
)
CHAIN = tuple(alias(f"c{i}", f"c{i + 1}.{D}") for i in range(12))
CATALOG = made(
    PG,
    (
        alias("db", f"pg.{D}", ttl=5),
        alias("db2", f"db.{D}", ttl=40),
        alias("search", "www.example.com", ttl=300),
        alias("find", f"search.{D}", ttl=7),
        alias("gone", f"nobody.{D}"),
        alias("server", f"alpha.node.{D}"),
        alias("apex", D),
        alias("me", f"me.{D}"),
        alias("ping", f"pong.{D}"),
        alias("pong", f"ping.{D}"),
        alias("pg", "elsewhere.example"),
        alias("two", "second.example", instance="b"),
        alias("two", "first.example", instance="a"),
        *CHAIN,
        alias("c12", f"pg.{D}"),
        alias("bad", "a..b"),
        alias("long", ".".join(["x" * 60] * 5)),
    ),
)


def lookup(name: str, qtype: int = A, catalog: Catalog = CATALOG, **more: Any) -> Answer:
    answer = zone_with(catalog, DnsSettings(**more)).lookup(to_name(name), qtype, random.Random(1))
    assert answer is not None
    return answer


def shown(answer: Answer) -> list[tuple[str, int, int]]:
    return [(b".".join(rr.owner).decode(), rr.type, rr.ttl) for rr in answer.answer]


def test_an_alias_is_followed_in_the_same_answer() -> None:
    answer = lookup(f"db2.{D}")
    assert answer.rcode == NOERROR and not answer.chase and not answer.authority
    assert shown(answer) == [
        (f"db2.{D}", CNAME, 40),
        (f"db.{D}", CNAME, 5),
        (f"pg.{D}", A, 30),
        (f"pg.{D}", A, 30),
    ]
    response, _ = ask(responder(CATALOG), packet(f"db.{D}", "SRV"), "tcp")
    assert section(response.rr) == {
        f"db.{D} CNAME pg.{D}.",
        f"pg.{D} SRV 10 100 5432 a-5432.pg.{D}.",
        f"pg.{D} SRV 10 100 5432 b-5432.pg.{D}.",
    }
    assert section(response.ar) == {f"a-5432.pg.{D} A 10.0.0.1", f"b-5432.pg.{D} A 10.0.0.2"}


def test_the_cname_itself_is_not_followed() -> None:
    assert shown(lookup(f"db2.{D}", CNAME)) == [(f"db2.{D}", CNAME, 40)]
    # Nothing is synthesised where there is a CNAME (RFC 8482, section 4.2).
    assert shown(lookup(f"db2.{D}", ANY)) == [(f"db2.{D}", CNAME, 40)]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "types"),
    [
        ("db", AAAA, NOERROR, [CNAME]),  # NODATA at the end
        ("gone", A, NXDOMAIN, [CNAME]),  # RFC 6604: the rcode is that of the end
        ("gone", CNAME, NOERROR, [CNAME]),
        ("server", A, NOERROR, [CNAME, A]),
        ("apex", record.SOA, NOERROR, [CNAME, record.SOA]),
        ("bad", A, NXDOMAIN, []),
        ("long", A, NXDOMAIN, []),
    ],
)
def test_ends(name: str, qtype: int, rcode: int, types: list[int]) -> None:
    answer = lookup(f"{name}.{D}", qtype)
    assert answer.rcode == rcode
    assert [rr.type for rr in answer.answer] == types
    negative = rcode == NXDOMAIN or (types == [CNAME] and qtype != CNAME)
    assert [rr.type for rr in answer.authority] == ([record.SOA] if negative else [])


def test_outside_names_are_left_to_the_forwarder() -> None:
    answer = lookup(f"search.{D}")
    assert (answer.rcode, answer.chase) == (NOERROR, to_name("www.example.com"))
    assert shown(answer) == [(f"search.{D}", CNAME, 300)]
    assert not answer.flatten and not answer.authority
    answer = lookup(f"find.{D}", SRV)
    assert answer.chase == to_name("www.example.com")
    assert shown(answer) == [(f"find.{D}", CNAME, 7), (f"search.{D}", CNAME, 300)]


@pytest.mark.parametrize(
    ("name", "length"), [("me", 8), ("ping", 8), ("c0", 8), ("c4", 8), ("c5", 0)]
)
def test_loops_and_long_chains_are_servfail(name: str, length: int) -> None:
    """From c4 it is nine aliases to the end, from c5 eight."""
    answer = lookup(f"{name}.{D}")
    if length:
        assert answer.rcode == SERVFAIL
        assert [rr.type for rr in answer.answer] == [CNAME] * length
    else:
        assert answer.rcode == NOERROR
        assert [rr.type for rr in answer.answer] == [CNAME] * 8 + [A] * 2


def test_endpoints_win_over_an_alias() -> None:
    assert {rr.type for rr in lookup(f"pg.{D}").answer} == {A}


def test_the_first_instance_wins() -> None:
    assert lookup(f"two.{D}").chase == to_name("first.example")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"_postgres._tcp.db2.{D}", NOERROR),
        (f"_tcp.db2.{D}", NOERROR),
        (f"_postgres._udp.db2.{D}", NXDOMAIN),
        (f"_udp.db2.{D}", NXDOMAIN),
        (f"a-5432.db.{D}", NXDOMAIN),
        (f"_headless.db.{D}", NXDOMAIN),
        (f"_http._tcp.search.{D}", NXDOMAIN),
        (f"_http._tcp.me.{D}", NXDOMAIN),
        (f"_http._tcp.gone.{D}", NXDOMAIN),
        (f"_http._tcp.server.{D}", NXDOMAIN),
    ],
)
def test_below_an_alias_there_are_the_ports_of_its_service(name: str, expected: int) -> None:
    answer = lookup(name, SRV)
    assert answer.rcode == expected
    assert {a.rcode for a in (lookup(name, t) for t in (A, record.TXT))} == {expected}
    if name.startswith("_postgres") and expected == NOERROR:
        assert shown(answer)[0] == (name, CNAME, 40)
        assert [(o, t) for o, t, _ in shown(answer)[1:]] == [(f"_postgres._tcp.pg.{D}", SRV)] * 2
        assert len(answer.additional) == 2
    else:
        assert not answer.answer


# Flattening -----------------------------------------------------------------------------------


def test_flattened_answers_have_the_addresses_under_the_own_name() -> None:
    answer = lookup(f"db2.{D}", flatten=True)
    assert shown(answer) == [(f"db2.{D}", A, 5)] * 2  # the smallest TTL of the chain
    assert {rr.rdata for rr in answer.answer} == {bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))}
    assert not answer.authority


@pytest.mark.parametrize("name", ["db", "gone"])
def test_flattened_and_nothing_there_is_nodata(name: str) -> None:
    """The name exists; without its CNAME in the answer NXDOMAIN would deny it."""
    answer = lookup(f"{name}.{D}", AAAA, flatten=True)
    assert (answer.rcode, answer.answer) == (NOERROR, ())
    assert [rr.type for rr in answer.authority] == [record.SOA]


def test_only_addresses_are_flattened() -> None:
    assert shown(lookup(f"db.{D}", SRV, flatten=True))[0] == (f"db.{D}", CNAME, 5)
    assert shown(lookup(f"db.{D}", CNAME, flatten=True)) == [(f"db.{D}", CNAME, 5)]


def test_flattening_of_an_outside_name_is_left_to_the_forwarder() -> None:
    answer = lookup(f"find.{D}", flatten=True)
    assert (answer.chase, answer.flatten, answer.ttl) == (to_name("www.example.com"), True, 7)
    assert [rr.type for rr in answer.answer] == [CNAME, CNAME]  # for who cannot chase
    assert ([rr.type for rr in answer.negative], answer.authority) == ([record.SOA], ())
    assert not lookup(f"find.{D}", SRV, flatten=True).flatten
    assert not lookup(f"find.{D}").flatten


def test_a_loop_is_no_less_one_when_flattened() -> None:
    assert lookup(f"me.{D}", flatten=True).rcode == SERVFAIL


def test_the_limit_holds_for_what_an_alias_leads_to() -> None:
    assert len(lookup(f"db.{D}", answer_limit=1).answer) == 2
    assert len(lookup(f"db.{D}", answer_limit=1, flatten=True).answer) == 1


# Changes and transfers ------------------------------------------------------------------------


def test_who_is_affected_by_a_change() -> None:
    zone = zone_with(CATALOG, DnsSettings())
    assert zone.affected({"pg"}) == {"pg", "db", "db2", *(f"c{i}" for i in range(13))}
    assert zone.affected({"nobody", "www"}) == {"nobody", "gone", "www"}
    assert zone.affected({"ping"}) == {"ping", "pong"}
    moved = made(PG, (alias("db", f"other.{D}"), alias("db2", f"db.{D}")))
    zone.update(moved, Change(frozenset({"db", *(f"c{i}" for i in range(13))}), False, ()))
    assert zone.affected({"pg"}) == {"pg"}
    assert zone.affected({"other"}) == {"other", "db", "db2"}


def test_a_change_of_an_alias_is_seen() -> None:
    zone = zone_with(made(PG, (alias("db", f"pg.{D}"),)), DnsSettings())
    rng = random.Random(1)

    def types(name: str) -> list[int]:
        answer = zone.lookup(to_name(name), A, rng)
        assert answer is not None
        return [rr.type for rr in answer.answer]

    assert types(f"db.{D}") == [CNAME, A, A]
    zone.update(made(PG[:1], (alias("db", f"pg.{D}"),)), Change(frozenset({"pg"}), False, ()))
    assert types(f"db.{D}") == [CNAME, A]
    zone.update(made(PG[:1]), Change(frozenset({"db"}), False, ()))
    assert types(f"db.{D}") == []


def test_what_a_transfer_says_of_an_alias() -> None:
    zone = zone_with(CATALOG, DnsSettings(flatten=True))
    assert [(b".".join(rr.owner).decode(), rr.type, rr.ttl) for rr in zone.service_rrs("db2")] == [
        (f"db2.{D}", CNAME, 40),
        (f"_postgres._tcp.db2.{D}", CNAME, 40),
    ]
    assert zone.service_rrs("search") == (
        record.cname(to_name(f"search.{D}"), to_name("www.example.com"), 300),
    )
    assert zone.service_rrs("bad") == ()
    assert {rr.type for rr in zone.service_rrs("pg")} == {A, SRV, record.SVCB}
