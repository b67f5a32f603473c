"""What is answered from memory is what the slow path answers: for every question, at every time."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dnslib
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from discod.model.catalog import Catalog
from discod.model.endpoint import Alias, Endpoint, Host
from discod.model.settings import DnsSettings
from resolver.hot.entry import DRAWS_MAX, SILENT
from resolver.hot.memo import RENEWED_MAX
from resolver.hot.slots import kind
from tests.hot import CLIENT, Hot
from tests.resolving import HOSTS, NAMED, WEB, endpoint, errors, made, packet

SETTINGS = (
    DnsSettings(),
    DnsSettings(consul_names=True, answer_limit=2),
    DnsSettings(prefer="local", flatten=True, server_id="alpha"),
    DnsSettings(prefer="zone", udp_size=512),
)
LEADS = (
    Alias("db", "a", "web.discod.internal"),
    Alias("far", "a", "www.example.com"),
    Alias("round", "a", "about.discod.internal"),
    Alias("about", "a", "round.discod.internal"),
)
LABELS = (
    "web", "api", "big", "db", "far", "round", "nothing", "v1", "blue", "prod", "env", "_http",
    "_tcp", "_udp", "_dns", "_headless", "node", "service", "alpha", "beta", "dc1", "alpha-c1-80",
    "_web", "_v1", "x",
)  # fmt: skip
VIP = ip_address("10.96.0.7"), ip_address("2001:db8:96::7")
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
TYPES = ("A", "AAAA", "SRV", "TXT", "SOA", "NS", "ANY", "CNAME", "HTTPS", 64, "MX", 65280)


def read(response: bytes) -> Any:
    return dnslib.DNSRecord.parse(response)


def meaning(response: bytes) -> tuple[Any, ...]:
    """A response without its order: header, question, sections, options."""
    head = struct.unpack_from(">6H", response)
    parsed = read(response)
    question = response[12 : response.index(b"\0", 12) + 5]
    options = [
        (rr.rclass, rr.ttl, sorted((o.code, bytes(o.data)) for o in rr.rdata))
        for rr in parsed.ar
        if rr.rtype == 41
    ]

    def told(rrs: Iterable[Any]) -> Counter[str]:
        return Counter(
            f"{str(rr.rname).lower()} {rr.rtype} {rr.ttl} {rr.rdata}"
            for rr in rrs
            if rr.rtype != 41
        )

    return head, question, told(parsed.rr), told(parsed.auth), told(parsed.ar), options


def same(hot: Hot, query: bytes) -> None:
    """Memory says what the slow path says; where that chooses, as much of it."""
    got = hot.ask(query)
    outcome = hot.fresh().respond(query, "127.0.0.1", "udp", hot.memo.now)
    if got is None:
        assert outcome.zone != "domain" or outcome.answer is not None
        return
    assert outcome.packet is not None
    assert outcome.zone == "domain"
    mine, theirs = meaning(got), meaning(outcome.packet)
    if (outcome.truncated or hot.settings.answer_limit) and mine != theirs:
        # Which records are chosen is chance, and so is how many fit; the rest is not.
        assert mine[0][:3] == theirs[0][:3]
        assert mine[0][3] > 0 or theirs[0][3] == 0
        assert outcome.truncated or mine[0][3] == theirs[0][3]
        assert mine[1] == theirs[1]
        assert mine[5] == theirs[5]
        full = hot.fresh().respond(query, "127.0.0.1", "tcp", hot.memo.now)
        if not hot.settings.answer_limit:
            assert full.packet is not None
            assert mine[2] <= meaning(full.packet)[2]
        return
    assert mine == theirs


def query_of(name: str, qtype: Any, size: int | None, flags: int, cookie: bytes = b"") -> bytes:
    made = bytearray(packet(name, qtype, size=size))
    made[2:4] = (int.from_bytes(made[2:4], "big") | flags).to_bytes(2, "big")
    if cookie:
        assert size is not None
        option = b"\0\x0a" + len(cookie).to_bytes(2, "big") + cookie
        made[-2:] = len(option).to_bytes(2, "big") + option
    return bytes(made)


names = st.lists(st.sampled_from(LABELS), max_size=4).map(
    lambda labels: ".".join([*labels, "discod.internal"])
)
queries = st.builds(
    query_of,
    names,
    st.sampled_from(TYPES),
    st.sampled_from((None, 512, 1232, 4096)),
    st.sampled_from((0, 0x20, 0x10, 0x0100)),
)


@st.composite
def endpoints(draw: st.DrawFn, service: str) -> list[Endpoint]:
    size = draw(st.integers(0, 5))
    return [
        endpoint(
            service,
            f"{draw(st.sampled_from(('alpha', 'beta')))}-{i}-80",
            draw(st.sampled_from(("10.101.1.2", "10.101.2.3", "2001:db8:1::2", "10.101.9.9"))),
            draw(st.sampled_from((80, 8080))),
            weight=draw(st.sampled_from((0, 1, 100))),
            priority=draw(st.sampled_from((10, 10, 20))),
            tags=tuple(draw(st.sets(st.sampled_from(("v1", "blue"))))),
            attributes=draw(st.sampled_from(((), (("env", "prod"),)))),
            host=draw(st.sampled_from(("alpha", "beta"))),
            ttl=draw(st.sampled_from((0, 0, 5))),
            alpn=draw(st.sampled_from(((), ("h2",)))),
            vip=draw(st.sampled_from(((), (), VIP, VIP[:1], VIP[1:]))),
        )
        for i in range(size)
    ]


@st.composite
def catalogs(draw: st.DrawFn, revision: int) -> Catalog:
    offered = [e for service in ("web", "api", "node1") for e in draw(endpoints(service))]
    leads = draw(st.lists(st.sampled_from(LEADS), unique=True))
    zoned = (replace(HOSTS[0], zone="a"), replace(HOSTS[1], zone=draw(st.sampled_from("ab"))))
    return made(offered, leads, draw(st.sampled_from((HOSTS, zoned))), revision)


def difference(old: Catalog, new: Catalog) -> set[str]:
    changed: set[str] = set()
    for before, after in ((old.services, new.services), (old.aliases, new.aliases)):
        for service in {*before, *after}:
            if before.get(service) != after.get(service):
                changed.add(service)
    return changed


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(st.data())
def test_memory_says_what_the_slow_path_says_through_all_changes(data: st.DataObject) -> None:
    catalog = data.draw(catalogs(7))
    hot = Hot(catalog, data.draw(st.sampled_from(SETTINGS)))
    asked: list[bytes] = []
    for step in range(data.draw(st.integers(1, 4))):
        asked += data.draw(st.lists(queries, min_size=1, max_size=6))
        for query in asked * 2:
            same(hot, query)
        stale = data.draw(st.booleans())
        new = data.draw(catalogs(8 + step))
        hosts = new.hosts != catalog.hosts
        fronted = data.draw(st.booleans())
        hot.tell(new, difference(catalog, new), hosts=hosts, stale=stale, fronted=fronted)
        catalog = new
    for query in asked * 3:
        same(hot, query)


@pytest.mark.parametrize("which", ["web", "published", "foreign", "all", "big"])
@pytest.mark.parametrize("size", [None, 1232])
def test_every_name_of_the_named_catalogs(which: str, size: int | None) -> None:
    hot = Hot(NAMED[which])
    labels = [*sorted(NAMED[which].services), "nothing"]
    names = [f"{label}.discod.internal" for label in labels]
    names += [f"{below}.{name}" for name in names for below in ("_http._tcp", "v1", "x", "_tcp")]
    for name in [*names, "discod.internal", "alpha.node.discod.internal"]:
        for qtype in TYPES:
            for _ in range(3):
                same(hot, packet(name, qtype, size=size))


def test_the_first_tier_is_used_and_counts_by_kind() -> None:
    hot = Hot(NAMED["web"])
    query = packet("web.discod.internal", "A")
    assert hot.memo.answers.get(query[2:]) is None
    for _ in range(100):
        found = hot.find(query)
        assert found is not None
        assert found[0]
        assert found[2] == kind(1, 0, False)
    assert query[2:] in hot.memo.answers
    assert hot.memo.slow == 1


def test_all_orders_come_up_and_as_often_as_their_weights_say() -> None:
    catalog = made(
        [
            endpoint("w", "a-1-80", "10.0.0.1", weight=300),
            endpoint("w", "a-2-80", "10.0.0.2", weight=100),
        ]
    )
    hot = Hot(catalog)
    query = packet("w.discod.internal", "A")
    first: Counter[str] = Counter()
    rounds = 60_000
    for _ in range(rounds):
        found = hot.find(query)
        assert found is not None
        first[found[3][-20:-16].hex()] += 1
        # Two A records of 16 octets: this is the address of the first.
    share = first[ip_address("10.0.0.1").packed.hex()] / rounds
    assert 0.74 < share < 0.76  # spread evenly: but for the last few, exactly
    assert len(first) == 2
    (entry,) = hot.memo._kept.entries.values()
    assert entry.source is None  # there are no more


def test_three_of_different_weights_come_in_all_orders() -> None:
    weights = {"10.0.0.1": 300, "10.0.0.2": 100, "10.0.0.3": 100}
    hot = Hot(made(endpoint("w", f"a-{at}", at, weight=w) for at, w in weights.items()))
    query = packet("w.discod.internal", "A")
    rounds = 32_000
    found = Counter(
        tuple(str(rr.rdata) for rr in read(b"\0\0" + body).rr)
        for body, times in Counter(bodies(hot, query, rounds)).items()
        for _ in range(times)
    )
    assert len(found) == 6
    for order, times in found.items():
        a, b, _ = (weights[at] for at in order)
        assert abs(times / rounds - a / 500 * b / (500 - a)) < 0.01
    mixed = packet("W.discod.internal", "A")  # in another case: by the second tier
    firsts = Counter(bodies(hot, mixed, 3200))
    assert len(firsts) == 6


def test_what_is_remembered_takes_as_much_as_is_counted() -> None:
    services = [f"s{i:03d}" for i in range(400)]
    hot = Hot(
        made(
            endpoint(service, f"c-{i}", f"10.{n // 250}.{n % 250}.{i}", weight=weight)
            for n, service in enumerate(services)
            for i, weight in enumerate((100, 100 + n % 2, 100))
        )
    )
    queries = [
        packet(f"{below}{service}.discod.internal", qtype)
        for service in services
        for below, qtype in (("", "A"), ("_http._tcp.", "SRV"))
    ]

    def ask() -> None:
        for query in queries:
            for _ in range(20):
                hot.ask(query)
        hot.zone._domain._forget()  # what was compiled for it is not part of it
        hot.memo.retired.clear()
        gc.collect()

    ask()  # whatever is made once
    hot.memo.clear()
    gc.collect()
    tracemalloc.start()
    try:
        ask()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(hot.memo) == len(queries)
    assert 0.75 < hot.memo._kept.octets / taken < 1.3


MANY = made(endpoint("many", f"a-{i}-80", f"10.0.0.{i}") for i in range(5))


def bodies(hot: Hot, query: bytes, count: int) -> list[bytes]:
    found = [hot.find(query) for _ in range(count)]
    assert None not in found
    return [one[3] for one in found if one is not None]


@pytest.mark.parametrize(("name", "qtype"), [("few", "A"), ("_http._tcp.few", "SRV")])
def test_a_few_take_turns_exactly_from_the_first_question_on(name: str, qtype: str) -> None:
    hot = Hot(made(endpoint("few", f"a-{i}-80", f"10.0.0.{i}") for i in range(3)))
    query = packet(f"{name}.discod.internal", qtype)
    given = bodies(hot, query, 300)
    assert len(set(given)) == 3
    for at in range(0, 300, 3):
        assert given[at : at + 3] == given[:3]
    firsts = {str(read(b"\0\0" + body).rr[0].rdata) for body in given}
    assert len(firsts) == 3
    for body in given[:3]:
        assert len(read(b"\0\0" + body).rr) == 3


@pytest.mark.parametrize(
    ("count", "size"), [(5, None), (7, None), (7, 600), (16, 1232), (40, 1232)]
)
def test_what_is_additional_is_cut_as_the_responder_cuts_it(count: int, size: int | None) -> None:
    catalog = made(
        endpoint("wide", f"c-{port}{tail}", f"{net}{port}", port=port, target=f"c-{port}")
        for port in range(80, 80 + count)
        for tail, net in (("", "10.0.0."), ("-v6", "fd00::"))
    )
    hot = Hot(catalog)
    hot.ask(packet("wide.discod.internal", "A", size=4096 if size else None))
    query = packet("_http._tcp.wide.discod.internal", "SRV", size=size)
    hot.ask(query)
    slow = hot.memo.slow
    limit = size or 512
    targets: dict[str, list[tuple[str, int]]] = {}
    full = hot.fresh().respond(query, "127.0.0.1", "tcp", 0).packet
    assert full is not None
    for rr in read(full).ar:
        if rr.rtype != 41:
            targets.setdefault(str(rr.rname), []).append((str(rr.rdata), rr.rtype))
    sizes = set()
    for body in bodies(hot, query, 40):
        parsed = read(b"\0\0" + body)
        assert len(parsed.rr) == count or parsed.header.tc
        if parsed.header.tc:
            continue
        assert len(body) + 2 <= limit
        sizes.add(len(body))
        order = [str(rr.rdata.target) for rr in parsed.rr]
        wanted = [(name, *rdata) for name in order for rdata in targets[name]]
        told = [(str(rr.rname), str(rr.rdata), rr.rtype) for rr in parsed.ar if rr.rtype != 41]
        assert told == wanted[: len(told)]  # the first of them, in the order of their targets
        assert len(told) < len(wanted)
        # The next one would not have fitted: a label and a pointer, 10 octets, an address.
        owner, _, type_ = wanted[len(told)]
        label = len(owner.split(".")[0]) + 1
        assert len(body) + 2 + label + 2 + 10 + (4 if type_ == 1 else 16) > limit
    if sizes:
        assert hot.memo.slow == slow  # drawn here, not by the responder


def test_what_was_asked_for_is_made_anew_with_a_change() -> None:
    def catalog(last: int, revision: int) -> Catalog:
        return replace(
            made([endpoint("s", f"a-{i}-80", f"10.0.0.{last + i}") for i in range(2)]),
            revision=revision,
        )

    hot = Hot(catalog(1, 5))
    asked = [packet("s.discod.internal", "A"), packet("s.discod.internal", "AAAA")]
    other = packet("_http._tcp.s.discod.internal", "SRV")
    for query in (*asked, other):
        hot.ask(query)
    hot.memo.stream = False
    for revision in (6, 7):
        hot.tell(catalog(revision, revision), ("s",), hosts=False)
        entries = hot.memo._kept.entries
        assert {query[2:] for query in asked} <= set(entries)
        assert (other[2:] in entries) == (revision == 6)  # nobody asked for it any more
        slow = hot.memo.slow
        for query in asked:
            assert entries[query[2:]].asleep
            assert query[2:] not in hot.memo.answers
            same(hot, query)
            assert not entries[query[2:]].asleep
        assert hot.memo.slow == slow
        given = bodies(hot, asked[0], 6)
        assert len(set(given)) == 2 and given[0] != given[1]


def test_little_is_made_anew_at_a_time() -> None:
    catalog = made(endpoint(f"s{i}", "a-1-80", "10.1.0.1") for i in range(2 * RENEWED_MAX))
    hot = Hot(catalog)
    for i in range(2 * RENEWED_MAX):
        hot.ask(packet(f"s{i}.discod.internal", "A"))
    large = made(endpoint("large", f"a-{i}-80", f"10.2.{i // 250}.{i % 250}") for i in range(600))
    hot.tell(replace(catalog, revision=9), catalog.services, hosts=False)
    assert len(hot.memo) == RENEWED_MAX
    hot = Hot(large)
    hot.memo.stream = True
    hot.ask(packet("large.discod.internal", "A"))
    assert len(hot.memo) == 1
    hot.tell(replace(large, revision=9), ("large",), hosts=False)
    assert len(hot.memo) == 0


def test_draws_are_bounded() -> None:
    hot = Hot(MANY)
    query = packet("many.discod.internal", "A")
    bodies = set()
    for _ in range(5000):
        found = hot.find(query)
        assert found is not None
        bodies.add(found[0])
    entry = hot.memo._kept.entries[query[2:]]
    assert len(entry.bodies) == DRAWS_MAX


def test_case_and_cookies_go_the_second_way_and_cost_no_question_to_the_responder() -> None:
    hot = Hot(NAMED["web"])
    hot.ask(packet("web.discod.internal", "A", size=1232))
    slow = hot.memo.slow
    mixed = packet("wEb.DiscoD.inteRNAL", "A", size=1232)
    got = hot.ask(mixed)
    assert got is not None
    assert got[12 : 12 + 21] == mixed[12 : 12 + 21]
    for cookie in (b"12345678", b"12345678" + bytes(16)):
        query = query_of("web.discod.internal", "A", 1232, 0, cookie)
        got = hot.ask(query)
        assert got is not None
        (options,) = (rr.rdata for rr in read(got).ar if rr.rtype == 41)
        (option,) = options
        assert option.code == 10
        assert bytes(option.data)[:8] == b"12345678"
        assert len(option.data) == 24
        same(hot, query)
    assert hot.memo.slow == slow
    # The right one comes back as it is, and counts as such.
    (option,) = next(rr.rdata for rr in read(got).ar if rr.rtype == 41)
    again = hot.ask(query_of("web.discod.internal", "A", 1232, 0, bytes(option.data)))
    assert again is not None
    assert hot.memo.verdicts["valid"] >= 1


def test_a_cookie_that_does_not_fit_is_the_responders_to_place() -> None:
    hot = Hot(NAMED["big"])
    for size in (512, 1232):
        for cookie in (b"", b"12345678"):
            query = query_of("big.discod.internal", "A", size, 0, cookie)
            got = hot.ask(query)
            assert got is not None
            assert len(got) <= size
            assert read(got).header.tc


def test_nodata_has_the_present_serial() -> None:
    catalog = NAMED["web"]
    hot = Hot(catalog)
    query = packet("web.discod.internal", "MX")
    plain = packet("web.discod.internal", "AAAA")
    for revision in (8, 9, 2**32 + 9):
        hot.ask(query)
        hot.ask(plain)
        hot.tell(replace(catalog, revision=revision), ("other",), hosts=False)
        for asked in (query, packet("no.discod.internal", "A"), plain):
            same(hot, asked)


def test_nodata_is_in_the_first_tier_for_as_long_as_its_serial_holds() -> None:
    catalog = NAMED["web"]
    hot = Hot(catalog)
    query = packet("web.discod.internal", "MX")
    answers = hot.memo.answers
    assert query[2:] not in answers
    for revision in (8, 9):
        hot.ask(query)
        hot.ask(query)
        assert query[2:] in answers
        (body,) = set(bodies(hot, query, 5))
        soa = read(b"\0\0" + body).auth[0].rdata
        assert soa.times[0] == hot.zone.serial
        hot.tell(replace(catalog, revision=revision), ("other",), hosts=False)
        assert query[2:] not in answers  # it is not asked for yet with this one
    hot.ask(query)
    hot.tell(replace(catalog, revision=10), ("web",), hosts=False)
    hot.tell(replace(catalog, revision=11), ("web",), hosts=False)
    assert not answers
    same(hot, query)
    hot.memo.clear()
    assert not answers and hot.memo._dated.get(query[2:]) is None


def test_a_question_for_the_root_with_a_name_behind_it_is_none_for_the_domain() -> None:
    hot = Hot(NAMED["web"])
    absent = packet("nothing.discod.internal", "A")
    assert read(hot.ask(absent) or b"").header.rcode == 3
    label = 1 + len("nothing")
    assert hot.ask(absent[:12] + b"\0" + absent[12 + label :]) is None


def test_names_that_do_not_exist_are_not_remembered() -> None:
    hot = Hot(NAMED["web"])
    slow = hot.memo.slow
    for i in range(50):
        for size in (None, 1232):
            query = packet(f"n{i}.discod.internal", "A", size=size)
            same(hot, query)
        same(hot, packet(f"a{i}.b.discod.internal", "A"))
    assert len(hot.memo) == 0
    assert hot.memo.slow <= slow + 2  # one for each shape


def test_a_name_comes_up_at_once() -> None:
    hot = Hot(made())
    query = packet("web.discod.internal", "A")
    assert read(hot.ask(query) or b"").header.rcode == 3
    hot.tell(made(WEB, revision=8), ("web",), hosts=False)
    assert read(hot.ask(query) or b"").header.rcode == 0
    hot.tell(made(revision=9), ("web",), hosts=False)
    assert read(hot.ask(query) or b"").header.rcode == 3


def test_an_alias_follows_its_target() -> None:
    leads = (Alias("db", "a", "web.discod.internal"),)
    hot = Hot(made(WEB, leads))
    query = packet("db.discod.internal", "A")
    for _ in range(3):
        same(hot, query)
    hot.tell(made(WEB[:1], leads, revision=8), ("web",), hosts=False)
    same(hot, query)
    assert len(read(hot.ask(query) or b"").rr) == 2


def test_what_leads_out_is_the_daemons() -> None:
    hot = Hot(made(WEB, LEADS))
    assert hot.ask(packet("far.discod.internal", "A")) is None
    assert hot.ask(packet("www.example.com", "A")) is None
    assert hot.ask(packet("1.1.101.10.in-addr.arpa", "PTR")) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\0\1",
        packet("web.discod.internal")[:11],
        b"\0\1\x81\0" + packet("web.discod.internal")[4:],
    ],
)
def test_silence(broken: bytes) -> None:
    assert Hot(NAMED["web"]).find(broken) == SILENT


@pytest.mark.parametrize(
    "name",
    [
        b"\x40" + b"a" * 64,
        b"\xc0\x0c",
        b"\x80" + b"a" * 128,
        b"\3abc" * 58 + b"\2ab",
        b"\4web",
        b"\1" * 3,
    ],
)
def test_unsound_names_get_no_answer_of_ours(name: bytes) -> None:
    hot = Hot(NAMED["web"])
    rest = packet("discod.internal")
    query = rest[:12] + name + rest[12:]
    got = hot.ask(query)
    if got is not None:
        same(hot, query)
    else:
        assert hot.fresh().respond(query, "127.0.0.1", "udp", 0).zone == "."


@pytest.mark.parametrize(
    "odd",
    [
        b"\0\1\x28\0" + packet("web.discod.internal")[4:],  # UPDATE
        packet("web.discod.internal", cls=3),
        packet("web.discod.internal") + b"\0",
        packet("web.discod.internal", size=1232, version=1),
        packet("web.discod.internal")[:-1],
        packet("web.discod.internal")[:4] + b"\0\2" + packet("web.discod.internal")[6:],
    ],
)
def test_what_is_odd_is_the_daemons(odd: bytes) -> None:
    assert Hot(NAMED["web"]).ask(odd) is None


@settings(max_examples=150, deadline=None, phases=PHASES)
@given(st.data())
def test_no_mutation_gets_another_answer_than_from_the_slow_path(data: st.DataObject) -> None:
    hot = Hot(made(WEB))
    good = data.draw(queries)
    hot.ask(good)
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(2, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(2, len(broken)))])
    got = hot.ask(cut)
    outcome = hot.fresh().respond(cut, "127.0.0.1", "udp", 0)
    if got is None:
        return
    if not got:
        assert outcome.packet is None
        assert outcome.query is None
        return
    same(hot, cut)


def test_memory_is_bounded() -> None:
    catalog = made(endpoint(f"s{i}", f"a-{i}-80", f"10.1.0.{i}") for i in range(200))
    hot = Hot(catalog)
    hot.memo._kept.octets_max = 20_000
    for turn in range(3):
        for i in range(200):
            same(hot, packet(f"s{i}.discod.internal", "A", size=1232 + turn))
            assert hot.memo._kept.octets <= 20_000 + 1000
    assert 0 < len(hot.memo) < 60
    alive = {norm for keys in hot.memo._kept.by_label.values() for norm in keys}
    assert alive == set(hot.memo._kept.entries)
    hot.memo.clear()
    assert hot.memo._kept.octets == 0
    assert not hot.memo._kept.by_label


def test_what_is_replaced_stays_until_it_is_sent() -> None:
    hot = Hot(MANY)
    query = packet("many.discod.internal", "A")
    held = {}
    for _ in range(3000):
        found = hot.find(query)
        assert found is not None
        held[found[0]] = found[3]
    kept = set(map(id, hot.memo._kept.entries[query[2:]].bodies))
    kept |= set(map(id, hot.memo.retired))
    assert {id(body) for body in held.values()} <= kept


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    hot = Hot(NAMED["all"])
    for name in ("web", "api", "v1.web", "_http._tcp.web", "alpha.node"):
        for qtype in TYPES:
            hot.ask(packet(f"{name}.discod.internal", qtype))
    hot.tell(replace(NAMED["all"], services={}, revision=9), ("web", "api"), hosts=False)
    left = set(hot.memo._kept.entries)
    assert all(b"\3web" not in norm and b"\3api" not in norm for norm in left)
    assert set(hot.memo.answers) | set(hot.memo._dated._known) <= left


def test_stale_is_told() -> None:
    hot = Hot(NAMED["web"])
    query = packet("web.discod.internal", "A", size=1232)
    hot.ask(query)
    hot.tell(NAMED["web"], (), hosts=False, stale=True)
    for name, code in (("web", 3), ("no", 19)):
        got = hot.ask(packet(f"{name}.discod.internal", "A", size=1232))
        assert got is not None
        assert errors(read(got)) == [code]
    hot.tell(NAMED["web"], (), hosts=False, stale=False)
    got = hot.ask(query)
    assert got is not None
    assert errors(read(got)) == []


def test_above_the_rate() -> None:
    hot = Hot(NAMED["web"])
    key = packet("web.discod.internal", "A")[2:]
    assert hot.memo.above_rate(key, CLIENT, "drop") == SILENT
    slipped = hot.memo.above_rate(key, CLIENT, "slip")
    assert slipped is not None
    parsed = read(b"\0\0" + slipped[3])
    assert parsed.header.tc
    assert not parsed.rr
    first = hot.ask(query_of("web.discod.internal", "A", 1232, 0, b"12345678"))
    assert first is not None
    (option,) = next(rr.rdata for rr in read(first).ar if rr.rtype == 41)
    trusted = query_of("web.discod.internal", "A", 1232, 0, bytes(option.data))
    assert hot.memo.above_rate(trusted[2:], CLIENT, "drop") is None


def test_hosts_change_what_they_name() -> None:
    hot = Hot(NAMED["web"])
    query = packet("alpha.node.discod.internal", "A")
    same(hot, query)
    moved = (Host("alpha", (ip_address("192.0.2.77"),)), HOSTS[1])
    hot.tell(made(WEB, hosts=moved, revision=8), ())
    same(hot, query)
