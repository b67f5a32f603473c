from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod import api, tables
from discod.announce_request import AnnounceError, check_from_text, parse_announce
from discod.explain import explain
from discod.model.catalog import Catalog, Entry, What
from discod.model.endpoint import Alias, Fault
from discod.model.settings import Check
from discod.tables import Page
from discod.view import StoreReport
from tests.unit.fake_view import FOREIGN, NOW, WEB1, reports, sample

CATALOG = sample().catalog
STORE = StoreReport("etcd", True, 0.25, "")
PIPE = Page(NOW)
TERMINAL = Page(NOW, 80, True)


def test_every_document_is_json() -> None:
    answer = explain(
        "web", catalog=CATALOG, producers=reports(), store=STORE, parts=(), host="alpha"
    )
    documents = [
        api.services(CATALOG),
        api.service(CATALOG, "web"),
        api.hosts(CATALOG, "alpha"),
        api.producers(reports(), "alpha", CATALOG.domain),
        api.catalog_document(CATALOG, STORE),
        api.explanation(answer, CATALOG.domain),
        api.prometheus(CATALOG),
        api.entry(Entry(What.HOST_UP, 3, host="alpha"), CATALOG.domain),
    ]
    for document in documents:
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_services_keep_what_is_down_visible() -> None:
    rows = {one["name"]: one for one in api.services(CATALOG)["services"]}
    assert (rows["web"]["up"], rows["web"]["down"]) == (2, 1)
    assert (rows["db"]["up"], rows["db"]["down"]) == (0, 1)
    assert (rows["cache"]["up"], rows["cache"]["down"]) == (0, 1)
    assert rows["web"]["ports"] == ["http:80/tcp"]


def test_an_endpoint_that_is_up_again_is_not_down() -> None:
    withdrawn = {WEB1.id: next(iter(CATALOG.withdrawn.values()))}
    catalog = replace(CATALOG, withdrawn=withdrawn)
    document = api.service(catalog, "web")
    assert document is not None
    assert document["withdrawn"] == []
    assert api.service(CATALOG, "nothing") is None


def test_names_of_endpoints() -> None:
    assert api.endpoint_document(WEB1, "x.y")["name"] == f"{WEB1.instance}.web.x.y"
    bare = replace(FOREIGN, instance="")
    assert api.endpoint_document(bare, "x.y")["name"] == "legacy.x.y"
    assert api.socket_address(ip_address("2001:db8::1"), 80) == "[2001:db8::1]:80"


SEARCH = Alias("search", "alpha-alias-0", "www.example.com", "alpha", since=NOW - 60)
HIDDEN = Alias("web", "beta-alias-0", "www.example.org", "beta", ttl=5)
NAMED = replace(
    CATALOG,
    aliases={"search": {SEARCH.instance: SEARCH}, "web": {HIDDEN.instance: HIDDEN}},
)


def test_aliases_are_services_too() -> None:
    rows = {one["name"]: one for one in api.services(NAMED)["services"]}
    assert (rows["search"]["alias"], rows["search"]["up"]) == ("www.example.com", 0)
    assert rows["web"]["alias"] is None
    assert api.catalog_document(NAMED, STORE)["counts"]["aliases"] == 2
    document = api.service(NAMED, "search")
    assert document is not None
    assert document["aliases"] == [
        {
            "service": "search",
            "instance": "alpha-alias-0",
            "name": "search.discod.internal",
            "target": "www.example.com",
            "ttl": 0,
            "host": "alpha",
            "since": NOW - 60,
            "in_dns": True,
        }
    ]
    hidden = api.service(NAMED, "web")
    assert hidden is not None
    assert [one["in_dns"] for one in hidden["aliases"]] == [False]


def test_aliases_in_tables() -> None:
    lines = [line.split() for line in tables.services(PIPE, api.services(NAMED)).split("\n")]
    assert lines[0][-2:] == ["ALIAS", "OF"]
    assert ["search", "0", "0", "www.example.com"] in lines
    assert "ALIAS" not in tables.services(PIPE, api.services(CATALOG))
    text = tables.service(PIPE, api.service(NAMED, "search"))
    assert "up     alias of www.example.com" in text
    assert "alpha-alias-0" in text
    hidden = tables.service(PIPE, api.service(NAMED, "web"))
    assert "shadowed  alias of www.example.org" in hidden
    assert "endpoints or another alias come first  ttl 5" in hidden


def test_news_of_an_alias() -> None:
    news = Entry(What.ALIAS_UP, 3, alias=SEARCH, host="alpha")
    document = api.entry(news, CATALOG.domain)
    assert (document["what"], document["endpoint"], document["host"]) == ("alias-up", None, "alpha")
    assert document["alias"]["target"] == "www.example.com"
    assert tables.event(PIPE, document).endswith("alias-up     search is www.example.com  on alpha")


def test_what_answers_shall_be_like_is_shown_where_it_is_said() -> None:
    said = replace(WEB1, ttl=30, alpn=("h2", "http/1.1"), prefer="local")
    document = api.endpoint_document(said, "x.y")
    assert (document["ttl"], document["alpn"], document["prefer"]) == (
        30,
        ["h2", "http/1.1"],
        "local",
    )
    catalog = replace(CATALOG, services={"web": {said.instance: said}})
    text = tables.service(PIPE, api.service(catalog, "web"))
    assert "ttl 30, alpn h2,http/1.1, prefer local" in text
    assert "SETTINGS" not in tables.service(PIPE, api.service(CATALOG, "web"))
    answer = explain(
        said.instance, catalog=catalog, producers=(), store=STORE, parts=(), host="alpha"
    )
    shown = tables.explanation(PIPE, api.explanation(answer, catalog.domain))
    assert "10.101.1.2:80 http/tcp, ttl 30, alpn h2,http/1.1, prefer local, container" in shown


def test_a_hosts_zone_is_shown() -> None:
    zoned = {name: replace(host, zone="rack-1") for name, host in CATALOG.hosts.items()}
    document = api.hosts(replace(CATALOG, hosts=zoned), "alpha")
    assert [one["zone"] for one in document["hosts"]] == ["rack-1", "rack-1"]
    assert "rack-1" in tables.hosts(PIPE, document)
    assert "ZONE" not in tables.hosts(PIPE, api.hosts(CATALOG, "alpha"))


def test_error_documents() -> None:
    one, other = Fault("a", "b", "c"), Fault("d", "e", "f")
    assert api.error(one) == {"error": {"subject": "a", "value": "b", "expected": "c"}}
    assert [e["subject"] for e in api.error(one, [other])["errors"]] == ["a", "d"]


# Announcements ---------------------------------------------------------------------------------


def test_announce_takes_what_the_configuration_takes() -> None:
    (service,) = parse_announce(
        {
            "services": [
                {
                    "name": "api",
                    "port": 8080,
                    "address": ["192.0.2.5"],
                    "tags": ["a"],
                    "attributes": {"path": "/m"},
                    "ttl": 5,
                    "alpn": ["h2"],
                    "prefer": "zone",
                    "check": {"kind": "http", "path": "/h", "interval": "1s"},
                }
            ]
        }
    )
    assert (service.name, service.port, service.tags) == ("api", 8080, ("a",))
    assert service.addresses == (ip_address("192.0.2.5"),)
    assert (service.ttl, service.alpn, service.prefer) == (5, ("h2",), "zone")
    assert service.check == Check("http", path="/h", interval=1.0, timeout=1.0)


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        (None, ["services"]),
        ([], ["services"]),
        ({"services": []}, ["services"]),
        ({"services": [{}] * 65}, ["services"]),
        ({"services": ["x"]}, ["services[0]"]),
        ({"services": [{}]}, ["services[0].name", "services[0].port"]),
        (
            {"services": [{"name": "Any", "port": 0, "tags": ["-"], "colour": 1}]},
            ["services[0].name", "services[0].port", "services[0].tags[0]", "services[0].colour"],
        ),
        (
            {"services": [{"name": "a", "port": 1, "ttl": -1, "alpn": ["h 2"], "prefer": "x"}]},
            ["services[0].ttl", "services[0].alpn[0]", "services[0].prefer"],
        ),
        (
            {"services": [{"name": "a", "port": 1, "check": {"kind": "cmd", "command": ["x"]}}]},
            ["services[0].check"],
        ),
        ({"services": [{"name": "a", "port": 1}, {"name": "a", "port": 1}]}, ["services[1]"]),
    ],
)
def test_announce_faults(document: object, faults: list[str]) -> None:
    with pytest.raises(AnnounceError) as caught:
        parse_announce(document)
    assert [fault.subject for fault in caught.value.faults] == faults


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("tcp", {"kind": "tcp"}),
        ("tcp:81", {"kind": "tcp", "port": 81}),
        ("http:/x", {"kind": "http", "path": "/x"}),
        ("http:81/x/y", {"kind": "http", "path": "/x/y", "port": 81}),
        ("http", "http"),
        ("smtp", "smtp"),
    ],
)
def test_checks_of_the_command_line(text: str, check: object) -> None:
    assert check_from_text(text) == check


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "port", "tags", "check", "weight", "?"]), _JSON))
def test_announce_reads_or_says_why_not(table: object) -> None:
    try:
        assert parse_announce({"services": [table]})
    except AnnounceError as error:
        assert error.faults


# Tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [PIPE, TERMINAL, Page(NOW, 40, False)])
def test_nothing_is_cut_off(page: Page) -> None:
    text = tables.service(page, api.service(CATALOG, "web"))
    assert "…" not in text
    # Folded, a column reads from top to bottom: no character may be missing.
    letters = Counter("".join(text.split()))
    for word in (WEB1.instance, "10.101.1.2:80", "[2001:db8:2::2]:80", "crashed (exit status 137)"):
        assert not Counter("".join(word.split())) - letters
        if page.width != 40 and not word.startswith(("alpha", "crashed")):
            assert word in text
        if page.width is None:
            assert word in text


def test_a_pipe_gets_one_plain_line_a_row() -> None:
    text = tables.service(PIPE, api.service(CATALOG, "web"))
    lines = text.split("\n")
    assert len(lines) == 4
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in text
    assert lines[0].split() == [
        "STATE", "ADDRESS", "PORT", "HOST", "CONTAINER", "FOR", "WHY", "INSTANCE",
    ]  # fmt: skip


def test_a_terminal_gets_lines_that_fit() -> None:
    plain = Page(NOW, 80, False)
    for text in (
        tables.services(plain, api.services(CATALOG)),
        tables.service(plain, api.service(CATALOG, "web")),
        tables.hosts(plain, api.hosts(CATALOG, "alpha")),
    ):
        assert max(map(len, text.split("\n"))) <= 80


def test_foreign_text_cannot_steer_the_terminal() -> None:
    evil = replace(WEB1, container_name="\x1b[2Jx\r\n[bold]y")
    catalog = Catalog("x.y", services={"web": {evil.instance: evil}})
    text = tables.service(TERMINAL, api.service(catalog, "web"))
    assert "\x1b[2J" not in text
    assert "[bold]" in tables.service(PIPE, api.service(catalog, "web"))
    news = api.entry(Entry(What.ANNOUNCED, 3, endpoint=evil), "x.y")
    assert "\x1b" not in tables.event(PIPE, news)
    assert "\n" not in tables.event(PIPE, news)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h00m"), (200_000, "2d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert tables.age(NOW, NOW - seconds) == text
    assert tables.age(NOW, None) == ""


def test_the_verdict_comes_first() -> None:
    for query in ("web", "cache", "nothing", "shop-1"):
        answer = explain(
            query, catalog=CATALOG, producers=reports(), store=STORE, parts=(), host="alpha"
        )
        text = tables.explanation(PIPE, api.explanation(answer, CATALOG.domain))
        assert text.split("\n")[0] == answer.verdict
        if not answer.findings:
            assert "looked at: 2 services of discod.internal at revision 11" in text
