"""What rescue tells: counts that only go up, and who still uses stale addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from discod.model.endpoint import Endpoint, EndpointId, Host
from discod.model.rescue import Place, Plan, Pool, PoolId, Result, Stale, Unit, Usage
from discod.model.rescue_settings import RescueSettings
from discod.rescue import report as module
from discod.rescue.report import Report

NOW = 1_000.0
DEAD = Place(ip_address("10.1.0.2"), 80, "tcp")
DEAD6 = Place(ip_address("2001:db8::2"), 80, "tcp")
POOL = PoolId("web", "http", "tcp", 4)
POOL6 = PoolId("web", "http", "tcp", 6)
SLOTS = tuple((ip_address(f"10.1.0.{n % 3 + 3}"), 80) for n in range(16))
STALE = Stale(DEAD, EndpointId("web", "a-1-80"), POOL, True, "crashed", NOW, NOW + 600)
STALE6 = replace(STALE, place=DEAD6, endpoint=EndpointId("web", "a-1-80-v6"), pool=POOL6)
PLAN = Plan(
    stale={DEAD: STALE, DEAD6: STALE6},
    vips={Place(ip_address("198.51.100.7"), 80, "tcp"): POOL},
    pools={POOL: Pool(POOL, SLOTS), POOL6: Pool(POOL6, ())},
)
CLIENT, OTHER, HERE = map(ip_address, ("10.1.0.9", "10.1.0.10", "192.0.2.1"))
UNITS = {"c1": Unit("c1", "shop", 7, {CLIENT: b""})}


@pytest.fixture
def report() -> Report:
    return Report(Host("alpha", (HERE,)), wall=lambda: NOW)


def used(client: Any, times: int, result: Result = Result.RESCUED, place: Place = DEAD) -> Usage:
    return Usage(client, place, result, times)


def test_only_what_is_more_counts(report: Report) -> None:
    first = report.count([used(CLIENT, 3)], PLAN, UNITS)
    assert first.flows == {("web", Result.RESCUED): 3} and first.used == {DEAD}
    again = report.count([used(CLIENT, 3)], PLAN, UNITS)
    assert not again.flows and not again.used
    assert report.count([used(CLIENT, 5)], PLAN, UNITS).flows == {("web", Result.RESCUED): 2}
    # The kernel's element ended, and began anew.
    assert report.count([used(CLIENT, 1)], PLAN, UNITS).flows == {("web", Result.RESCUED): 1}
    (row,) = report.status(PLAN, RescueSettings())["services"]
    assert row == {
        "service": "web", "rescued": 6, "reset": 0, "refused": 0, "cut": 0, "clients": 1,
    }  # fmt: skip


def test_a_place_that_is_used_again_is_nobodys_fault(report: Report) -> None:
    news = report.count([used(CLIENT, 3)], replace(PLAN, stale={}), UNITS)
    assert not news.flows and not report.clients()


def test_offenders_have_names(report: Report) -> None:
    report.count([used(CLIENT, 1)], PLAN, UNITS)
    report.count([used(CLIENT, 1), used(HERE, 2, Result.RESET)], PLAN, UNITS)
    report.count([used(CLIENT, 1), used(HERE, 2), used(OTHER, 4)], PLAN, UNITS)
    told = [(row["client"], row["name"], row["rescued"], row["reset"]) for row in report.clients()]
    # Who was seen last comes first.
    assert told == [
        ("10.1.0.10", "", 4, 0),
        ("192.0.2.1", "alpha", 2, 2),
        ("10.1.0.9", "shop", 1, 0),
    ]
    assert report.offenders() == {"web": 3}
    report.expire(NOW + 1)
    assert report.offenders() == {"web": 0}, "and the gauge goes back"
    assert report.offenders() == {}
    assert report.status(PLAN, RescueSettings())["services"][0]["rescued"] == 7


def test_clients_are_bounded(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_KEPT", 2)
    report.count([used(c, 1) for c in (CLIENT, OTHER, HERE)], PLAN, UNITS)
    assert [row["client"] for row in report.clients()] == [str(HERE), str(OTHER)]


def test_rows(report: Report) -> None:
    report.cut("web", 2)
    report.count([used(CLIENT, 1)], PLAN, UNITS)
    rows = {row["address"]: row for row in report.entries(PLAN)}
    assert rows["10.1.0.2"]["goes_to"] == ["10.1.0.3:80", "10.1.0.4:80", "10.1.0.5:80"]
    assert rows["10.1.0.2"]["clients"] == 1 and not rows["10.1.0.2"]["refused"]
    assert rows["2001:db8::2"]["goes_to"] == [] and rows["2001:db8::2"]["refused"]
    (vip,) = report.vips(PLAN)
    assert vip["address"] == "198.51.100.7" and len(vip["endpoints"]) == 3
    assert report.status(PLAN, RescueSettings())["services"][0]["cut"] == 2


def test_many_targets_are_not_all_shown(report: Report) -> None:
    slots = tuple((ip_address(f"10.2.0.{n}"), 80) for n in range(64))
    plan = replace(PLAN, pools={POOL: Pool(POOL, slots), POOL6: Pool(POOL6, ())})
    row = next(row for row in report.entries(plan) if row["address"] == "10.1.0.2")
    assert len(row["goes_to"]) == 9 and row["goes_to"][-1] == "..."


def test_words(report: Report) -> None:
    dead = Endpoint("web", "a-1-80", DEAD.address, 80)
    assert report.word(PLAN, dead) == (
        "new connections to 10.1.0.2:80/tcp go to 10.1.0.3:80, 10.1.0.4:80, 10.1.0.5:80"
    )
    dead6 = Endpoint("web", "a-1-80-v6", DEAD6.address, 80)
    refused = "new connections to [2001:db8::2]:80/tcp are refused: no sibling is up"
    assert report.word(PLAN, dead6) == refused
    assert report.word(replace(PLAN, refuse=False), dead6) == ""
    shared = replace(PLAN, stale={DEAD: replace(STALE, shared=True)})
    assert report.word(shared, dead).endswith("refused: another service had it of late")
    (row,) = report.entries(shared)
    assert row["refused"] and row["goes_to"] == []
    assert report.word(PLAN, replace(dead, instance="b-2-80")) == "", "it was another one's"
    assert report.word(Plan(), dead) == ""
