"""``discod explain``, where rescue or a service address has a say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from discod.explain import Explanation, State, explain
from discod.model.catalog import Catalog
from discod.view import StoreReport
from tests.unit.fake_view import WEB1, WEB2, WEB3, reports, sample
from tests.unit.rescue_rows import ENTRY, FakeRescue

ADDRESS = ip_address("10.96.0.10")
CATALOG = sample().catalog
OWN = replace(
    CATALOG,
    services={
        "web": {e.instance: replace(e, vip=(ADDRESS,)) for e in (WEB1, WEB2)},
    },
    vips={"web": (ADDRESS,), "idle": (ip_address("10.96.0.99"),)},
)


def ask(text: str, rescue: FakeRescue | None, catalog: Catalog = CATALOG) -> Explanation:
    return explain(
        text,
        catalog=catalog,
        producers=reports(),
        store=StoreReport("etcd", True, 0.3, ""),
        parts=(),
        host="alpha",
        rescue=rescue,
    )


def notes(answer: Explanation, word: str) -> list[str]:
    return [note for note in answer.notes if word in note]


def test_an_endpoint_that_is_gone() -> None:
    note = f"web/{WEB3.instance}: new connections to 10.101.1.9:80 go to 10.101.1.2:80"
    assert notes(ask("web", FakeRescue()), "new connections") == [note]
    assert notes(ask("web-3", FakeRescue()), "new connections") == [note]
    # Not of those that are up, nor where nothing becomes of them.
    assert not notes(ask("web-1", FakeRescue()), "new connections")
    assert not notes(ask("db", FakeRescue()), "new connections")
    assert not notes(ask("web", None), "new connections")


@pytest.mark.parametrize("query", ["10.101.1.9", "10.101.1.9:80"])
def test_a_stale_address(query: str) -> None:
    answer = ask(query, FakeRescue())
    assert notes(answer, "is stale") == [
        f"10.101.1.9:80/tcp (web/{WEB3.instance}) is stale: new connections to it go to"
        " 10.101.1.2:80, 10.101.2.2:80; 1 client still uses it; until 2026-11-18 11:16:30Z unless"
        " a client uses it"
    ]
    # What the Catalog knows of it is told once.
    assert [f.subject for f in answer.findings] == [f"web/{WEB3.instance}"]
    assert not answer.in_dns


def test_another_port_of_a_stale_address() -> None:
    assert not notes(ask("10.101.1.9:81", FakeRescue()), "is stale")


def test_a_stale_address_that_the_catalog_has_forgotten() -> None:
    answer = ask("2001:db8:7::7", FakeRescue())
    (finding,) = answer.findings
    assert (finding.state, finding.subject) == (State.LOST, "old/beta-ffffffffffff-80")
    assert answer.verdict.startswith("2001:db8:7::7 is not in DNS: old/beta-ffffffffffff-80 since")
    (note,) = notes(answer, "is stale")
    assert note.startswith("[2001:db8:7::7]:80/tcp")
    assert "connections to it are refused, since no sibling is up; until" in note
    # The control: without rescue nothing is known of it.
    assert ask("2001:db8:7::7", None).findings == ()


def test_a_stale_address_that_is_left_alone() -> None:
    row = {**ENTRY, "goes_to": (), "refused": False, "clients": 2}
    (note,) = notes(ask("10.101.1.9", FakeRescue(stale=[row])), "is stale")
    assert "no sibling is up, and connections to it are left to the network" in note
    assert "2 clients still use it" in note


@pytest.mark.parametrize("query", ["10.96.0.10", "10.96.0.10:80"])
def test_a_service_address(query: str) -> None:
    answer = ask(query, FakeRescue(), OWN)
    assert answer.in_dns
    assert answer.verdict == (
        f"{query} is in DNS: it is the service address of web.discod.internal."
    )
    assert [f.subject for f in answer.findings] == ["service web"]
    assert notes(answer, "service address") == [
        "10.96.0.10 is the service address of web, and never changes; here tcp port 80 to"
        " 10.101.1.2:80"
    ]


def test_another_port_of_a_service_address() -> None:
    answer = ask("10.96.0.10:81", FakeRescue(), OWN)
    assert not answer.in_dns
    assert answer.verdict == (
        "10.96.0.10:81 is not in DNS: it is the service address of web.discod.internal, and"
        " nothing of it is at port 81."
    )


def test_a_service_address_that_is_only_kept() -> None:
    answer = ask("10.96.0.99", FakeRescue(), OWN)
    assert not answer.in_dns
    assert answer.verdict == (
        "10.96.0.99 is not in DNS: it is the service address of idle.discod.internal, and no"
        " endpoint is up."
    )
    assert [f.state for f in answer.findings] == [State.DOWN]


def test_a_service_with_an_address() -> None:
    assert notes(ask("web", FakeRescue(), OWN), "service address") == [
        "10.96.0.10 is the service address of web, and never changes; here tcp port 80 to"
        " 10.101.1.2:80"
    ]
    assert notes(ask("web", None, OWN), "service address") == [
        "10.96.0.10 is the service address of web, and never changes; this host leads nobody"
        " there: expected [vip] as on the others"
    ]
    (note,) = notes(ask("web", FakeRescue(addresses=[]), OWN), "service address")
    assert note.endswith("no port of it is served here")
    assert not notes(ask("db", FakeRescue(), OWN), "service address")


def test_headless_names_are_understood() -> None:
    for query in ("_headless.web", "_headless.web.discod.internal"):
        for catalog in (OWN, CATALOG):
            assert ask(query, None, catalog).in_dns, query
    assert ask("_http._tcp._headless.web", None, OWN).in_dns
    assert not ask("_nosuch._tcp._headless.web", None, OWN).in_dns
    # There is such a name beside a service address only.
    assert not ask("_http._tcp._headless.web", None, CATALOG).in_dns
