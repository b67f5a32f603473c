from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.explain import Explanation, State, explain
from discod.model.catalog import Catalog
from discod.model.endpoint import Alias, Fault, Reason
from discod.model.report import EndpointReport, PartReport, ProducerReport
from discod.query import parse
from discod.view import StoreReport
from tests.unit.fake_view import CACHE, DB1, ID, NOW, WEB1, WEB2, WEB3, reports, sample

CATALOG = sample().catalog
STORE = StoreReport("etcd", True, 0.3, "")


def ask(
    text: str,
    *,
    catalog: Catalog = CATALOG,
    producers: tuple[ProducerReport, ...] | None = None,
    store: StoreReport = STORE,
    parts: tuple[PartReport, ...] = (),
) -> Explanation:
    return explain(
        text,
        catalog=catalog,
        producers=reports() if producers is None else producers,
        store=store,
        parts=parts,
        host="alpha",
    )


@pytest.mark.parametrize(
    ("query", "subjects"),
    [
        ("web", {WEB1, WEB2, WEB3}),
        ("WEB.", None),
        ("web.discod.internal", {WEB1, WEB2, WEB3}),
        ("Web.Discod.Internal.", {WEB1, WEB2, WEB3}),
        ("_http._tcp.web", {WEB1, WEB2, WEB3}),
        ("_http._tcp.web.discod.internal.", {WEB1, WEB2, WEB3}),
        ("_http._udp.web", set()),
        ("blue.web", {WEB1, WEB3}),
        ("red.web", set()),
        (f"{WEB1.instance}.web", {WEB1}),
        (WEB1.instance, {WEB1}),
        ("web-1", {WEB1}),
        ("/web-1", {WEB1}),
        (ID["web-1"], {WEB1}),
        ("aaaa", {WEB1}),
        ("aaa", set()),
        ("10.101.1.2", {WEB1}),
        ("10.101.1.2:80", {WEB1}),
        ("10.101.1.2:81", set()),
        ("2001:db8:2::2", {WEB2}),
        ("2001:DB8:2:0::2", {WEB2}),
        ("[2001:db8:2::2]", {WEB2}),
        ("[2001:db8:2::2]:80", {WEB2}),
        ("10.101.2.7", {DB1}),
        ("10.101.3.3:6379", {CACHE}),
    ],
)
def test_what_a_query_finds(query: str, subjects: set[object] | None) -> None:
    answer = ask(query)
    found = {f.endpoint.id for f in answer.findings if f.endpoint}
    expected = {e.id for e in subjects or ()}  # type: ignore[attr-defined]
    if subjects is not None:
        assert found == expected
    assert answer.in_dns == any(f.state is State.UP for f in answer.findings)


def test_a_service_that_is_up() -> None:
    answer = ask("web")
    assert answer.in_dns
    assert answer.verdict == ("web is in DNS: 2 endpoints on alpha, beta; 1 more not (1 crashed).")
    first = next(f for f in answer.findings if f.endpoint and f.endpoint.id == WEB1.id)
    assert (first.host, first.container, first.stored) == ("alpha", "web-1", True)
    assert first.check == "http :80/health every 5s"
    down = answer.findings[-1]
    assert (down.state, down.reason, down.since) == (State.DOWN, Reason.CRASHED, NOW - 20)
    assert down.why == "crashed (exit status 137)"
    assert answer.notes == ("host beta is drained since 2026-11-18 11:05:40Z",)


def test_drained() -> None:
    answer = ask("db")
    assert not answer.in_dns
    assert answer.verdict.startswith("db is not in DNS: db/beta-cccccccccccc-5432 on beta since")
    assert answer.verdict.endswith("drained (host beta is drained).")
    assert any("host beta is drained" in note for note in answer.notes)


def test_lost() -> None:
    answer = ask("cache")
    assert "vanished at revision 11 without a withdrawal: the lease of host gamma expired" in (
        answer.verdict
    )
    assert answer.findings[0].revision == 11
    assert answer.notes == ("host gamma has no live lease: its daemon is away",)


def test_a_later_withdrawal_outweighs_a_loss() -> None:
    state = sample()
    loss = next(iter(state.catalog.lost.values()))
    later = replace(state.catalog.withdrawn[DB1.id], endpoint=CACHE, at=loss.at + 1)
    catalog = replace(state.catalog, withdrawn={CACHE.id: later})
    assert ask("cache", catalog=catalog).findings[0].state is State.DOWN
    earlier = replace(later, at=loss.at - 1)
    catalog = replace(state.catalog, withdrawn={CACHE.id: earlier})
    assert ask("cache", catalog=catalog).findings[0].state is State.LOST


@pytest.mark.parametrize("query", ["shop-1", "2222", "shop", "2" * 64])
def test_refused_here(query: str) -> None:
    answer = ask(query)
    assert not answer.in_dns
    assert answer.findings[0].state is State.REFUSED
    assert "SERVICE_NAME = 'Shop!': expected a DNS label" in answer.verdict


@pytest.mark.parametrize("query", ["api-1", "eeee", "api"])
def test_refused_elsewhere(query: str) -> None:
    answer = ask(query)
    assert "api-1 (eeeeeeeeeeee) on beta" in answer.verdict
    assert "discod.port = 'http': expected 1 to 65535" in answer.verdict


def test_silent() -> None:
    answer = ask("batch_1")
    assert (
        answer.verdict == "batch_1 is not in DNS: batch_1 (111111111111) on alpha: it has no port."
    )


def test_invalid_record() -> None:
    answer = ask("queue")
    assert answer.findings[0].state is State.INVALID
    assert "/skydns/internal/discod/queue/one" in answer.verdict
    assert "expected JSON" in answer.verdict


@pytest.mark.parametrize(
    "query", ["alpha.node", "alpha.node.discod.internal", "alpha", "192.0.2.1"]
)
def test_hosts(query: str) -> None:
    answer = ask(query)
    assert answer.in_dns
    assert answer.findings[0].subject == "host alpha"


def test_not_yet_confirmed() -> None:
    fresh = replace(WEB1, instance="alpha-ffffffffffff-81", port=81)
    report = EndpointReport(fresh, True, None, "", NOW, False)
    producer = ProducerReport("docker", "f" * 64, "web-9", "web:1", "running", (report,))
    away = StoreReport("etcd", False, 42.0, "connection refused")
    answer = ask("web-9", producers=(producer,), store=away)
    assert not answer.in_dns
    assert answer.findings[0].state is State.PENDING
    assert "no connection to the store: connection refused" in answer.verdict
    assert "the Catalog is stale: no sign of the store for 42 s" in answer.notes[0]


def test_out_of_dns_before_the_store_heard_of_it() -> None:
    report = EndpointReport(DB1, False, Reason.STOPPING, "signal 15", NOW, False)
    producer = ProducerReport("docker", DB1.container, "db-1", "db", "running", (report,))
    answer = ask("db-1", producers=(producer,))
    assert answer.findings[0].why == (
        "stopping (signal 15); out of DNS here, not yet confirmed by the store"
    )
    assert answer.findings[0].stored is False


def test_parts_that_are_not_ready_are_noted() -> None:
    answer = ask("web", parts=(PartReport("docker", False, "no socket", NOW),))
    assert answer.notes[-1].startswith("part docker of this daemon is not ready since 2026-11-18")


@pytest.mark.parametrize(
    ("query", "verdict"),
    [
        ("wev", "wev is not in DNS: nothing of that name or container is known; did you mean web?"),
        ("alpah.node", "nothing of that name is known; did you mean alpha?"),
        ("192.0.2.77", "192.0.2.77 is not in DNS: nothing of that address is known."),
        ("www.example.com", "www.example.com is not in discod.internal, and no container has"),
        ("_x._tcp.web", "service web exists, and has ports _http._tcp."),
        ("green.web", "service web exists, and has 2 instances and tags blue, v2."),
        ("discod.internal", "discod.internal is the domain itself"),
    ],
)
def test_nothing_found(query: str, verdict: str) -> None:
    answer = ask(query)
    assert verdict in answer.verdict
    assert answer.findings == ()
    assert answer.looked_at[0] == "2 services of discod.internal at revision 11" or answer.in_dns


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=300))
def test_any_text_gets_an_answer(text: str) -> None:
    answer = ask(text)
    assert answer.verdict
    assert answer.looked_at


@settings(deadline=None)
@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_is_understood(address: object, port: int) -> None:
    shown = f"[{address}]" if ":" in str(address) else str(address)
    assert parse(str(address), "x.y").address == ip_address(str(address))
    query = parse(f"{shown}:{port}", "x.y")
    assert (query.address, query.port) == (ip_address(str(address)), port)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("web", "web.discod.internal"),
        ("_http._tcp.web", "_http._tcp.web.discod.internal"),
        ("web.discod.internal.", "web.discod.internal"),
        ("discod.internal", "discod.internal"),
        ("10.101.1.2:80", "10.101.1.2"),
        ("www.example.com", None),
    ],
)
def test_the_resolvers_own_answer_is_shown(text: str, asked: str | None) -> None:
    heard: list[str] = []

    def resolve(name: str) -> tuple[str, ...]:
        heard.append(name)
        return ("the answer",)

    answer = explain(
        text,
        catalog=CATALOG,
        producers=reports(),
        store=STORE,
        parts=(),
        host="alpha",
        resolve=resolve,
    )
    assert heard == ([asked] if asked else [])
    assert answer.answers == (("the answer",) if asked else ())


def test_what_cannot_be_asked_has_no_answer() -> None:
    def resolve(name: str) -> tuple[str, ...]:
        raise ValueError(name)

    answer = explain(
        "web",
        catalog=CATALOG,
        producers=(),
        store=STORE,
        parts=(),
        host="alpha",
        resolve=resolve,
    )
    assert answer.answers == ()


def test_the_revision_is_the_one_of_the_record() -> None:
    one = replace(WEB1, revision=77)
    services = {"web": {WEB1.instance: one}}
    [finding] = ask(WEB1.instance, catalog=replace(CATALOG, services=services)).findings
    assert finding.revision == 77


def test_a_containers_name_is_not_asked_of_the_resolver() -> None:
    answer = explain(
        "web-1",
        catalog=CATALOG,
        producers=reports(),
        store=STORE,
        parts=(),
        host="alpha",
        resolve=lambda _: ("NXDOMAIN",),
    )
    assert answer.in_dns
    assert answer.answers == ()


# Aliases ---------------------------------------------------------------------------------------

SEARCH = Alias("search", "alpha-alias-0", "www.example.com", "alpha", since=NOW - 60, revision=9)


def with_aliases(*aliases: Alias) -> Catalog:
    grouped: dict[str, dict[str, Alias]] = {}
    for one in aliases:
        grouped.setdefault(one.service, {})[one.instance] = one
    return replace(CATALOG, aliases=grouped)


@pytest.mark.parametrize(
    "query", ["search", "search.discod.internal", "alpha-alias-0.search", "_http._tcp.search"]
)
def test_an_alias_in_dns(query: str) -> None:
    answer = ask(query, catalog=with_aliases(SEARCH))
    assert answer.in_dns
    assert answer.verdict == (
        f"{query} is in DNS: search/alpha-alias-0, alias of www.example.com, on alpha"
        " since 2026-11-18 11:05:40Z."
    )
    (finding,) = answer.findings
    assert (finding.state, finding.alias, finding.revision) == (State.UP, SEARCH, 9)
    assert answer.notes == ()


def test_an_alias_of_another_name_is_not_meant() -> None:
    catalog = with_aliases(SEARCH)
    for query in ("web", "x.search", "alpha-alias-0", "search.example.com", "192.0.2.1", "alpha"):
        assert not any(f.alias for f in ask(query, catalog=catalog).findings)


def test_an_alias_that_endpoints_hide() -> None:
    answer = ask("web", catalog=with_aliases(replace(SEARCH, service="web")))
    assert answer.verdict == (
        "web is in DNS: 2 endpoints on alpha, beta; 2 more not (1 crashed, 1 shadowed)."
    )
    (finding,) = [f for f in answer.findings if f.alias]
    assert finding.state is State.SHADOWED
    assert finding.why == "alias of www.example.com; not used while web has endpoints"


def test_of_two_aliases_the_first_counts() -> None:
    second = replace(SEARCH, instance="beta-alias-0", target="b.example", host="beta")
    answer = ask("search", catalog=with_aliases(second, SEARCH))
    assert [(f.alias and f.alias.host, f.state) for f in answer.findings] == [
        ("alpha", State.UP),
        ("beta", State.SHADOWED),
    ]
    assert answer.findings[1].why == "alias of b.example; not used, alpha-alias-0 comes first"
    assert "1 more not (1 shadowed)" in answer.verdict


@pytest.mark.parametrize(
    ("target", "nowhere"),
    [
        ("web.discod.internal", False),
        ("db.discod.internal", True),
        ("search2.discod.internal", False),
        ("blue.db.discod.internal", False),
        ("discod.internal", False),
    ],
)
def test_an_alias_that_leads_nowhere_is_noted(target: str, nowhere: bool) -> None:
    other = replace(SEARCH, service="search2")
    answer = ask("search", catalog=with_aliases(replace(SEARCH, target=target), other))
    noted = [note for note in answer.notes if "leads nowhere" in note]
    assert noted == (
        [f"{target} has no endpoint that is up, so the alias leads nowhere"] if nowhere else []
    )


def test_a_foreign_alias_and_a_near_miss() -> None:
    catalog = with_aliases(Alias("search", "x", "www.example.com"))
    assert ask("search", catalog=catalog).verdict == (
        "search is in DNS: search/x, alias of www.example.com, on foreign producers."
    )
    assert "did you mean search?" in ask("serch", catalog=catalog).verdict


def test_what_was_asked_for_and_not_given() -> None:
    fault = Fault("discod.vip", "10.96.0.5", "expected another address: service api has 10.96.0.5")
    warned = tuple(replace(one, warnings=(fault,)) for one in reports())
    answer = ask("web", producers=warned)
    assert answer.in_dns, "it takes nothing out of DNS"
    assert f"web-1: {fault}" in answer.notes
    assert not any("discod.vip" in note for note in ask("cache", producers=warned).notes)
