"""What is published at which serial, and that no way through serials and hosts leads astray."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.endpoint import Alias, Endpoint, EndpointId, Host, Reason, Withdrawal
from discod.model.hint import Down
from discod.model.schema import encode_alias, encode_endpoint, encode_host, encode_withdrawal
from discod.model.settings import DnsSettings
from tests.resolving import BETA, HOSTS, KEYS, OWN, PUBLISHED, WEB, endpoint
from tests.transferring import Primary, Secondary, wanted

Events = list[tuple[str, bytes | None]]


def put(*endpoints: Endpoint) -> Events:
    return [(KEYS.record(e.id), encode_endpoint(e)) for e in endpoints]


def drop(*endpoints: Endpoint) -> Events:
    return [(KEYS.record(e.id), None) for e in endpoints]


def hosts(*of: Host) -> Events:
    return [(KEYS.host(h.name), encode_host(h)) for h in of]


def primary(limit: int = 100) -> Primary:
    made = Primary(limit)
    made.apply(hosts(*HOSTS) + put(*WEB), 7)
    made.publish()
    return made


def withdrawal(of: Endpoint) -> Withdrawal:
    return Withdrawal(of, Reason.CRASHED, "", 1.0)


def test_the_whole_zone() -> None:
    one = primary()
    secondary = Secondary()
    assert secondary.refresh(one.transfers) == "whole"
    assert secondary.records == wanted(one.catalog)
    assert secondary.serial == 7
    names = {owner for owner, *_ in secondary.records}
    assert {"discod.internal.", "web.discod.internal.", "alpha.node.discod.internal."} <= names
    assert ("web.discod.internal.", 1, 0, "10.101.2.2") in secondary.records


def test_nothing_is_published_before_the_first_catalog() -> None:
    one = Primary()
    assert not one.publisher.behind and not one.publisher.step()
    assert one.publisher.serial is None and one.publisher.work() == 0


def test_a_change_is_a_difference() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    one.apply(put(*PUBLISHED), 8)
    one.apply(drop(WEB[2]), 11)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog) and secondary.serial == 11
    assert secondary.refresh(one.transfers) == "current"


def test_only_what_changed_is_looked_at() -> None:
    one = primary()
    one.apply(put(*PUBLISHED), 8)
    assert one.publisher.work() == 1 + len(PUBLISHED)
    steps = 0
    while one.publisher.step():
        steps += 1
    assert steps <= 3


def test_the_serial_moves_alone() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    one.apply([], 9)
    one.publish()
    assert (one.publisher.serial, one.publisher.changed) == (9, 7)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.serial == 9 and secondary.records == wanted(one.catalog)


def test_without_a_new_serial_nothing_moves() -> None:
    """This host knows of an end, the store does not yet."""
    one, late = primary(), Secondary()
    one.note(one.state.suppress([withdrawal(WEB[2])], 0.0))
    one.publish()
    assert WEB[2].instance not in one.catalog.services["web"]
    assert late.refresh(one.transfers) == "whole" and late.serial == 7
    assert ("web.discod.internal.", 1, 0, "10.101.2.2") in late.records
    # Another change of the store in between: the end is still not told.
    one.apply(put(*PUBLISHED), 8)
    assert late.refresh(one.transfers) == "incremental"
    assert f"{WEB[2].instance}.web.discod.internal." in {owner for owner, *_ in late.records}
    # The store says so.
    w = withdrawal(WEB[2])
    key = KEYS.withdrawn(WEB[2].host, WEB[2].id)
    one.apply([*drop(WEB[2]), (key, encode_withdrawal(w))], 9)
    assert late.refresh(one.transfers) == "incremental"
    assert late.records == wanted(one.catalog)
    assert f"{WEB[2].instance}.web.discod.internal." not in {owner for owner, *_ in late.records}


def test_a_hint_that_was_wrong_leaves_no_trace() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    stored = one.catalog.services["web"][WEB[2].instance]
    down = Down(stored.id, stored.revision, Reason.CRASHED, "", 1.0)
    one.note(one.state.hint([down], "beta", 0.0))
    assert WEB[2].instance not in one.catalog.services["web"]
    one.apply(put(*PUBLISHED), 8)
    one.publish()
    one.note(one.state.unhint([stored.id], 0.0))
    one.apply([], 9)
    one.publish()
    secondary.refresh(one.transfers)
    assert secondary.records == wanted(one.catalog)
    assert secondary.kinds == ["whole", "incremental"]


def test_the_own_host_counts_when_the_store_has_it() -> None:
    one = Primary()
    one.apply(hosts(BETA), 7)
    one.publish()
    secondary = Secondary()
    secondary.refresh(one.transfers)
    owners = {owner for owner, *_ in secondary.records}
    assert "beta.node.discod.internal." in owners
    assert "alpha.node.discod.internal." not in owners
    one.apply(hosts(OWN), 8)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog)


def test_a_host_alone_names_itself() -> None:
    one = Primary()
    one.apply(put(*WEB), 7)
    secondary = Secondary()
    secondary.refresh(one.transfers)
    assert ("discod.internal.", 2, 0, "alpha.node.discod.internal.") in secondary.records
    assert ("alpha.node.discod.internal.", 1, 0, "192.0.2.1") in secondary.records


def test_hosts_come_and_go() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    one.apply([(KEYS.host("alpha"), None)], 8)
    secondary.refresh(one.transfers)
    soa = secondary.soa
    assert soa is not None and soa[3].startswith("beta.node")  # the SOA itself changed
    one.apply(hosts(OWN), 9)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog)


def test_an_alias_follows_its_target() -> None:
    one, secondary = primary(), Secondary()
    one.apply(put(*PUBLISHED), 8)
    alias = Alias("front", "alpha", "api.discod.internal", "alpha")
    one.apply([(KEYS.record(EndpointId("front", "alpha")), encode_alias(alias))], 9)
    secondary.refresh(one.transfers)
    one.apply(drop(*PUBLISHED), 10)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog)
    one.apply(put(*PUBLISHED), 11)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog)


def test_other_settings_show_at_the_next_serial() -> None:
    one, secondary = primary(), Secondary()
    secondary.refresh(one.transfers)
    other = DnsSettings(consul_names=True)
    one.zone.configure(other)
    one.publisher.note(one.catalog, None, {})
    assert secondary.refresh(one.transfers) == "current"
    one.apply([], 8)
    assert secondary.refresh(one.transfers) == "incremental"
    assert secondary.records == wanted(one.catalog, other)
    assert wanted(one.catalog, other) > wanted(one.catalog)


def test_while_it_is_made_the_last_one_is_given_out() -> None:
    one, secondary = primary(), Secondary()
    before = wanted(one.catalog)
    one.apply(put(*(endpoint("big", f"i{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(300))), 8)
    assert one.publisher.work() > 300 and one.publisher.step()
    one.apply(put(*PUBLISHED), 9)  # comes in the middle
    assert secondary.refresh(one.transfers) == "whole"
    assert (secondary.serial, secondary.records) == (7, before)
    while one.publisher.serial == 7:
        assert one.publisher.step()
    secondary.refresh(one.transfers)
    assert secondary.serial == 9  # 8 stood for a moment; what was little to do was done at once
    assert secondary.records == wanted(one.catalog)


def test_a_serial_that_goes_back_begins_anew() -> None:
    one = primary()
    other = Secondary()
    other.refresh(one.transfers)
    one.publisher.note(replace(one.catalog, revision=3), None, {})
    one.publish()
    assert one.publisher.serial == 3 and one.publisher.since(7) is None


# Any way through serials and hosts ----------------------------------------------------------------

POOL = [
    *WEB,
    *PUBLISHED,
    replace(WEB[2], weight=1),
    replace(PUBLISHED[0], address=ip_address("192.0.2.77"), tags=("v9",)),
    endpoint("solo", "alpha-x-1", "10.9.9.9", ttl=30),
]
THIRD = Host("gamma", (ip_address("192.0.2.3"),))
"""Stays; without any host in the store each would name itself."""
ALIASES = [Alias("front", "beta", "web.discod.internal", "beta"), Alias("solo", "z", "w.example")]

STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("drop"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("alias"), st.integers(0, 1)),
    st.tuples(st.just("unalias"), st.integers(0, 1)),
    st.tuples(st.just("host"), st.integers(0, 1)),
    st.tuples(st.just("unhost"), st.integers(0, 1)),
    st.tuples(st.just("suppress"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("unsuppress"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("hint"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("unhint"), st.integers(0, len(POOL) - 1)),
    st.tuples(st.just("idle"), st.just(0)),
    st.tuples(st.just("publish"), st.integers(0, 1)),
    st.tuples(st.just("step"), st.integers(0, 1)),
    st.tuples(st.just("refresh"), st.integers(0, 1)),
)


def events_of(what: str, n: int) -> Events | None:
    match what:
        case "put":
            return put(POOL[n])
        case "drop":
            return drop(POOL[n])
        case "alias":
            return [(KEYS.record(ALIASES[n].id), encode_alias(ALIASES[n]))]
        case "unalias":
            return [(KEYS.record(ALIASES[n].id), None)]
        case "host":
            return hosts(HOSTS[n])
        case "unhost":
            return [(KEYS.host(HOSTS[n].name), None)]
        case "idle":
            return []
    return None


def local(one: Primary, what: str, n: int) -> None:
    """What the first host knows by itself."""
    endpoint_ = POOL[n]
    if what == "suppress":
        one.note(one.state.suppress([withdrawal(endpoint_)], 0.0))
    elif what == "unsuppress":
        one.note(one.state.unsuppress([endpoint_], 0.0))
    elif what == "hint":
        down = Down(endpoint_.id, 10**9, Reason.CRASHED, "", 1.0)
        one.note(one.state.hint([down], endpoint_.host, 0.0))
    elif what == "unhint":
        one.note(one.state.unhint([endpoint_.id], 0.0))


@settings(deadline=None, max_examples=150)
@given(steps=st.lists(STEP, max_size=40), limit=st.sampled_from([0, 2, 100]))
def test_secondaries_of_several_hosts_hold_what_the_store_holds(
    steps: list[tuple[str, int]], limit: int
) -> None:
    """Two hosts, one of which knows of ends sooner; a secondary asks now one, now the other."""
    pair = Primary(limit), Primary(limit, own=BETA)
    secondary = Secondary()
    revision = 1
    for one in pair:
        one.apply(hosts(*HOSTS, THIRD), revision)
    for what, n in steps:
        events = events_of(what, n)
        if events is not None:
            revision += 1
            for one in pair:
                one.apply(events, revision)
        elif what == "publish":
            pair[n].publish()
        elif what == "step":
            pair[n].publisher.step()
        elif what == "refresh":
            secondary.refresh(pair[n].transfers)
        else:
            local(pair[0], what, n)
    one, other = pair
    one.publish()
    secondary.refresh(one.transfers)
    assert secondary.records == wanted(other.catalog)
    assert secondary.serial == revision
    other.publish()
    assert secondary.refresh(other.transfers) == "current"


def test_a_store_that_merges_changes_leads_to_the_whole_zone() -> None:
    """One host saw 8 and 9, the other both at once: it does not know what stood at 8."""
    one, other = primary(), primary()
    one.apply(put(*PUBLISHED), 8)
    secondary = Secondary()
    secondary.refresh(one.transfers)
    other.apply(put(*PUBLISHED) + drop(*PUBLISHED), 9)
    assert secondary.refresh(other.transfers) == "whole"
    assert secondary.records == wanted(other.catalog)


@pytest.mark.parametrize("limit", [1, 5])
def test_further_back_than_the_journal(limit: int) -> None:
    one, late = primary(limit), Secondary()
    late.refresh(one.transfers)
    for revision in range(8, 8 + limit + 1):
        one.apply(put(replace(WEB[0], weight=revision)), revision)
        one.publish()
    assert late.refresh(one.transfers) == "whole"
    one.apply(put(replace(WEB[0], weight=1)), 100)
    assert late.refresh(one.transfers) == "incremental"
    assert late.records == wanted(one.catalog)
