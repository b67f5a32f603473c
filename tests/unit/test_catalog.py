"""discod.model.catalog: what readers see equals what the keys say, whatever the path to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model import catalog as module
from discod.model import schema
from discod.model.catalog import Catalog, CatalogState, Change, What
from discod.model.endpoint import (
    Address,
    Alias,
    Endpoint,
    EndpointId,
    Fault,
    Host,
    Producer,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.hint import Down
from discod.model.schema import Keyspace
from discod.model.vip import VipRecord
from discod.model.vip_records import encode_vip, encode_vip_owner

KEYS = Keyspace()
NOW = 1764000000.0


def endpoint(service: str = "web", instance: str = "a-1", port: int = 80) -> Endpoint:
    return Endpoint(
        service=service,
        instance=instance,
        address=ip_address("10.101.1.2"),
        port=port,
        host="alpha",
        container=instance[0] * 64,
        producer=Producer.DOCKER,
    )


def put(one: Endpoint, revision: int) -> tuple[str, bytes, int]:
    return KEYS.record(one.id), schema.encode_endpoint(one), revision


def gone(one: Endpoint, revision: int) -> tuple[str, None, int]:
    return KEYS.record(one.id), None, revision


def withdrawal(one: Endpoint, reason: Reason = Reason.CRASHED) -> Withdrawal:
    return Withdrawal(one, reason, "exit 1", NOW)


def put_withdrawal(one: Endpoint, revision: int) -> tuple[str, bytes, int]:
    value = schema.encode_withdrawal(withdrawal(one))
    return KEYS.withdrawn(one.host, one.id), value, revision


def up(catalog: Catalog) -> dict[EndpointId, Endpoint]:
    return {one.id: one for one in catalog.endpoints()}


def named(catalog: Catalog) -> dict[EndpointId, Alias]:
    return {one.id: one for ones in catalog.aliases.values() for one in ones.values()}


def whats(change: Change) -> list[What]:
    return [entry.what for entry in change.entries]


A, B = endpoint(instance="a-1"), endpoint(instance="b-1")
DB = endpoint(service="db", instance="c-1", port=5432)


@pytest.fixture
def state() -> CatalogState:
    state = CatalogState(KEYS)
    state.reset([put(A, 3), put(B, 4)], 5, NOW)
    return state


# The life of an endpoint ----------------------------------------------------------------------


def test_a_new_catalog_is_empty() -> None:
    catalog = CatalogState(KEYS).catalog
    assert catalog == Catalog("discod.internal")
    assert list(catalog.endpoints()) == []
    assert catalog.endpoint(A.id) is None


def test_a_first_snapshot_announces_all() -> None:
    state = CatalogState(KEYS)
    change = state.reset([put(A, 3), put(DB, 4)], 7, NOW)
    assert change.services == {"web", "db"}
    assert not change.hosts
    assert whats(change) == [What.ANNOUNCED, What.ANNOUNCED]
    assert state.catalog.revision == 7
    assert state.catalog.services == {"web": {"a-1": A}, "db": {"c-1": DB}}
    assert state.catalog.endpoint(A.id) == A


def test_an_altered_endpoint_is_a_change(state: CatalogState) -> None:
    change = state.apply([put(replace(A, weight=1), 6)], 6, NOW)
    assert change.services == {"web"}
    assert whats(change) == [What.CHANGED]
    assert change.entries[0].endpoint == replace(A, weight=1)


def test_the_same_endpoint_once_more_is_no_change(state: CatalogState) -> None:
    change = state.apply([put(A, 6)], 6, NOW)
    assert (change.services, change.hosts, change.entries) == (frozenset(), False, ())
    assert state.catalog.revision == 6


def test_a_deletion_with_a_statement_is_a_withdrawal(state: CatalogState) -> None:
    change = state.apply([gone(A, 6), put_withdrawal(A, 6)], 6, NOW)
    (entry,) = change.entries
    assert (entry.what, entry.endpoint, entry.reason, entry.detail, entry.revision) == (
        What.WITHDRAWN,
        A,
        Reason.CRASHED,
        "exit 1",
        6,
    )
    assert state.catalog.withdrawn == {A.id: withdrawal(A)}
    assert not state.catalog.lost
    assert up(state.catalog) == {B.id: B}


def test_a_deletion_without_a_statement_is_a_loss(state: CatalogState) -> None:
    change = state.apply([gone(A, 6)], 6, NOW + 1)
    assert whats(change) == [What.LOST]
    loss = state.catalog.lost[A.id]
    assert (loss.endpoint, loss.revision, loss.at) == (A, 6, NOW + 1)
    assert not state.catalog.withdrawn


def test_a_statement_after_the_loss_settles_it(state: CatalogState) -> None:
    state.apply([gone(A, 6)], 6, NOW)
    state.apply([put_withdrawal(A, 7)], 7, NOW)
    assert not state.catalog.lost
    assert state.catalog.withdrawn == {A.id: withdrawal(A)}


def test_what_comes_back_is_no_longer_lost(state: CatalogState) -> None:
    state.apply([gone(A, 6)], 6, NOW)
    change = state.apply([put(A, 7)], 7, NOW)
    assert whats(change) == [What.ANNOUNCED]
    assert not state.catalog.lost


def test_gone_and_back_in_one_step_is_nothing_at_all(state: CatalogState) -> None:
    change = state.apply([gone(A, 6), put(A, 7)], 7, NOW)
    assert change.entries == ()
    assert up(state.catalog) == {A.id: A, B.id: B}


def test_come_and_gone_in_one_step_is_nothing_at_all(state: CatalogState) -> None:
    change = state.apply([put(DB, 6), gone(DB, 7)], 7, NOW)
    assert change.entries == ()
    assert not state.catalog.lost


def test_the_last_endpoint_takes_its_service_with_it(state: CatalogState) -> None:
    state.apply([gone(A, 6), gone(B, 6)], 6, NOW)
    assert state.catalog.services == {}


def test_deleting_what_was_never_there_is_nothing(state: CatalogState) -> None:
    assert state.apply([gone(DB, 6)], 6, NOW).entries == ()


def test_losses_are_bounded_and_the_oldest_is_forgotten(
    state: CatalogState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOSSES_KEPT", 2)
    state.apply([put(DB, 6)], 6, NOW)
    for revision, one in enumerate((A, B, DB), 7):
        state.apply([gone(one, revision)], revision, NOW)
    assert list(state.catalog.lost) == [B.id, DB.id]


# Snapshots after the first --------------------------------------------------------------------


def test_what_a_later_snapshot_lacks_is_lost_unless_withdrawn(state: CatalogState) -> None:
    change = state.reset([put_withdrawal(A, 8), put(DB, 9)], 9, NOW)
    assert {(e.what, e.endpoint) for e in change.entries} == {
        (What.WITHDRAWN, A),
        (What.LOST, B),
        (What.ANNOUNCED, DB),
    }
    assert up(state.catalog) == {DB.id: DB}


def test_the_same_snapshot_again_changes_nothing(state: CatalogState) -> None:
    before = state.catalog
    change = state.reset([put(A, 3), put(B, 4)], 5, NOW)
    assert (change.services, change.entries) == (frozenset(), ())
    assert state.catalog == before


def test_a_snapshot_replaces_hosts_withdrawals_refusals_and_faults() -> None:
    state = CatalogState(KEYS)
    host = Host("alpha", (ip_address("192.0.2.1"),))
    refusal = Refusal("alpha", "c" * 64, "bad", (Fault("l", "v", "x"),), NOW)
    state.reset(
        [
            (KEYS.host("alpha"), schema.encode_host(host), 1),
            (KEYS.refused("alpha", "c" * 64), schema.encode_refusal(refusal), 2),
            put_withdrawal(A, 3),
            (KEYS.record(B.id), b"garbage", 4),
            (KEYS.records + "Bad Key", b"{}", 5),
        ],
        5,
        NOW,
    )
    full = state.catalog
    assert full.hosts == {"alpha": host}
    assert full.refused == {("alpha", "c" * 64): refusal}
    assert set(full.withdrawn) == {A.id}
    assert set(full.invalid) == {KEYS.record(B.id), KEYS.records + "Bad Key"}
    state.reset([], 6, NOW)
    assert state.catalog == Catalog("discod.internal", 6)


def test_the_revision_never_goes_back(state: CatalogState) -> None:
    state.apply([], 9, NOW)
    state.apply([], 8, NOW)
    assert state.catalog.revision == 9
    state.reset([], 2, NOW)
    assert state.catalog.revision == 9


# What this host knows sooner ------------------------------------------------------------------


def test_suppression_takes_out_at_once_with_its_reason(state: CatalogState) -> None:
    change = state.suppress([withdrawal(A)], NOW)
    assert [(e.what, e.reason) for e in change.entries] == [(What.WITHDRAWN, Reason.CRASHED)]
    assert up(state.catalog) == {B.id: B}
    assert state.catalog.withdrawn == {A.id: withdrawal(A)}
    assert state.catalog.revision == 5


def test_the_stores_own_withdrawal_of_a_suppressed_one_is_no_news(state: CatalogState) -> None:
    state.suppress([withdrawal(A)], NOW)
    change = state.apply([gone(A, 6), put_withdrawal(A, 6)], 6, NOW)
    assert change.entries == ()
    assert state.catalog.withdrawn == {A.id: withdrawal(A)}
    assert not state.catalog.lost


def test_a_snapshot_with_the_same_record_does_not_end_the_suppression(
    state: CatalogState,
) -> None:
    state.suppress([withdrawal(A)], NOW)
    assert state.reset([put(A, 3), put(B, 4)], 8, NOW).entries == ()
    assert up(state.catalog) == {B.id: B}


def test_a_record_still_on_its_way_does_not_end_the_suppression(state: CatalogState) -> None:
    state.suppress([withdrawal(A)], NOW)
    assert state.apply([put(A, 6)], 6, NOW).entries == ()
    assert up(state.catalog) == {B.id: B}
    state.apply([gone(A, 7), put_withdrawal(A, 7)], 7, NOW)
    state.apply([put(A, 8), (KEYS.withdrawn(A.host, A.id), None, 8)], 8, NOW)
    assert up(state.catalog) == {A.id: A, B.id: B}, "the store has said so, and then otherwise"


def test_a_suppressed_one_whose_lease_ends_is_not_lost_as_well(state: CatalogState) -> None:
    state.suppress([withdrawal(A)], NOW)
    assert state.apply([gone(A, 6)], 6, NOW).entries == ()
    assert not state.catalog.lost


def test_unsuppress_brings_back_what_the_store_still_has(state: CatalogState) -> None:
    state.suppress([withdrawal(A)], NOW)
    assert whats(state.unsuppress([A], NOW)) == [What.ANNOUNCED]
    assert up(state.catalog) == {A.id: A, B.id: B}
    assert not state.catalog.withdrawn


def test_unsuppress_of_what_is_not_suppressed_is_nothing(state: CatalogState) -> None:
    assert state.unsuppress([A, DB], NOW).entries == ()


def test_an_earlier_end_does_not_stand_for_the_last(state: CatalogState) -> None:
    """The store was frozen while a container ended, came back and ended again."""
    state.suppress([withdrawal(A)], NOW)
    state.unsuppress([A], NOW)
    last = replace(withdrawal(A), at=NOW + 1)
    state.suppress([last], NOW)
    state.apply([gone(A, 6), put_withdrawal(A, 6)], 6, NOW)
    state.apply([put(A, 7), (KEYS.withdrawn(A.host, A.id), None, 7)], 7, NOW)
    assert A.id not in up(state.catalog)
    assert [said.endpoint.id for said, _ in state.unconfirmed()] == [A.id]
    said = (KEYS.withdrawn(A.host, A.id), schema.encode_withdrawal(last), 8)
    state.apply([gone(A, 8), said], 8, NOW)
    assert not state.unconfirmed()


def test_a_state_without_the_record_ends_the_suppression(state: CatalogState) -> None:
    state.suppress([withdrawal(A)], NOW)
    state.reset([put(B, 4)], 9, NOW)
    assert not state.unconfirmed()
    assert not state.catalog.withdrawn


def test_what_is_back_elsewhere_waits_for_its_next_record(state: CatalogState) -> None:
    """The store is slow, and a restarted container has another address: the old one stays out."""
    moved = replace(A, address=ip_address("192.0.2.77"))
    state.suppress([withdrawal(A)], NOW)
    assert state.unsuppress([moved], NOW).entries == ()
    assert A.id not in up(state.catalog)
    assert [said.endpoint.id for said, _ in state.unconfirmed()] == [A.id]
    state.reset([put(A, 3), put(B, 4)], 7, NOW)  # the same record once more is no news
    assert A.id not in up(state.catalog)
    assert whats(state.apply([put(moved, 8)], 8, NOW)) == [What.ANNOUNCED]
    assert up(state.catalog)[A.id].address == moved.address
    assert not state.unconfirmed()


def test_what_is_back_elsewhere_and_ends_again_stays_out(state: CatalogState) -> None:
    moved = replace(A, address=ip_address("192.0.2.77"))
    state.suppress([withdrawal(A)], NOW)
    state.unsuppress([moved], NOW)
    state.suppress([withdrawal(moved)], NOW)
    state.apply([put(moved, 8)], 8, NOW)
    assert A.id not in up(state.catalog)
    state.unsuppress([moved], NOW)
    assert A.id in up(state.catalog)


def test_what_is_not_there_yet_can_be_suppressed(state: CatalogState) -> None:
    assert state.suppress([withdrawal(DB)], NOW).entries == ()
    assert state.apply([put(DB, 6)], 6, NOW).entries == ()
    assert DB.id not in up(state.catalog)
    assert whats(state.unsuppress([DB], NOW)) == [What.ANNOUNCED]


# Hosts and refusals ---------------------------------------------------------------------------


def test_the_life_of_a_host(state: CatalogState) -> None:
    host = Host("alpha", (ip_address("192.0.2.1"),))
    drained = replace(host, drained=NOW)
    steps = [
        (schema.encode_host(host), True, [(What.HOST_UP, 6)]),
        (schema.encode_host(host), False, []),
        (schema.encode_host(drained), True, [(What.HOST_CHANGED, 8)]),
        (None, True, [(What.HOST_GONE, 9)]),
        (None, False, []),
    ]
    for revision, (value, touched, news) in enumerate(steps, 6):
        change = state.apply([(KEYS.host("alpha"), value, revision)], revision, NOW)
        assert (change.hosts, [(e.what, e.revision) for e in change.entries]) == (touched, news)
        assert change.services == frozenset()
    assert not state.catalog.hosts


def test_the_life_of_a_refusal(state: CatalogState) -> None:
    refusal = Refusal("alpha", "c" * 64, "bad", (Fault("l", "v", "x"),), NOW)
    key, value = KEYS.refused("alpha", "c" * 64), schema.encode_refusal(refusal)
    assert whats(state.apply([(key, value, 6)], 6, NOW)) == [What.REFUSED]
    assert state.apply([(key, value, 7)], 7, NOW).entries == ()
    assert state.catalog.refused == {("alpha", "c" * 64): refusal}
    state.apply([(key, None, 8)], 8, NOW)
    assert not state.catalog.refused


# Aliases --------------------------------------------------------------------------------------

SEARCH = Alias("search", "alpha-alias-0", "www.example.com", "alpha")


def put_alias(one: Alias, revision: int) -> tuple[str, bytes, int]:
    return KEYS.record(one.id), schema.encode_alias(one), revision


def test_the_life_of_an_alias(state: CatalogState) -> None:
    key = KEYS.record(SEARCH.id)
    moved = replace(SEARCH, target="db.discod.internal")
    steps: list[tuple[bytes | None, list[What], Alias | None]] = [
        (schema.encode_alias(SEARCH), [What.ALIAS_UP], SEARCH),
        (schema.encode_alias(SEARCH), [], SEARCH),
        (schema.encode_alias(moved), [What.ALIAS_CHANGED], moved),
        (None, [What.ALIAS_GONE], None),
        (None, [], None),
    ]
    for revision, (value, news, alias) in enumerate(steps, 6):
        change = state.apply([(key, value, revision)], revision, NOW)
        assert whats(change) == news
        assert change.services == ({"search"} if news else frozenset())
        assert state.catalog.alias("search") == alias
        if alias is not None:
            assert state.catalog.aliases["search"][SEARCH.instance].revision == revision
    assert not state.catalog.aliases
    assert not state.catalog.lost
    assert up(state.catalog) == {A.id: A, B.id: B}


def test_news_of_an_alias_name_it_and_its_host(state: CatalogState) -> None:
    (entry,) = state.apply([put_alias(SEARCH, 6)], 6, NOW).entries
    assert (entry.alias, entry.host, entry.endpoint, entry.revision) == (SEARCH, "alpha", None, 6)
    (entry,) = state.apply([(KEYS.record(SEARCH.id), None, 7)], 7, NOW).entries
    assert (entry.alias, entry.host) == (SEARCH, "alpha")


def test_endpoints_hide_an_alias_and_the_first_of_several_counts(state: CatalogState) -> None:
    beta = Alias("web", "beta-alias-0", "b.example", "beta")
    alpha = Alias("web", "alpha-alias-0", "a.example", "alpha")
    state.apply([put_alias(beta, 6), put_alias(alpha, 6)], 6, NOW)
    assert state.catalog.aliases["web"] == {"beta-alias-0": beta, "alpha-alias-0": alpha}
    assert state.catalog.alias("web") is None
    state.apply([gone(A, 7), gone(B, 7)], 7, NOW)
    assert state.catalog.alias("web") == alpha


def test_an_endpoint_that_turns_into_an_alias_and_back(state: CatalogState) -> None:
    alias = Alias("web", "a-1", "www.example.com")
    change = state.apply([put_alias(alias, 6)], 6, NOW)
    assert sorted(whats(change)) == [What.ALIAS_UP, What.LOST]
    assert state.catalog.services["web"] == {"b-1": B}
    change = state.apply([put(A, 7)], 7, NOW)
    assert sorted(whats(change)) == [What.ALIAS_GONE, What.ANNOUNCED]
    assert (up(state.catalog), dict(state.catalog.aliases)) == ({A.id: A, B.id: B}, {})
    assert not state.catalog.lost


def test_hints_and_suppression_are_not_about_aliases(state: CatalogState) -> None:
    state.apply([put_alias(SEARCH, 6)], 6, NOW)
    down = Down(SEARCH.id, 6, Reason.CRASHED, "", NOW)
    assert state.hint([down], "alpha", NOW).entries == ()
    assert state.catalog.alias("search") == SEARCH


# What a step costs -----------------------------------------------------------------------------


def test_a_step_shares_what_it_did_not_change(state: CatalogState) -> None:
    host = (KEYS.host("alpha"), schema.encode_host(Host("alpha", ())), 6)
    before = state.catalog
    state.apply([host], 6, NOW)
    after = state.catalog
    for name in ("services", "aliases", "withdrawn", "lost", "refused", "invalid"):
        assert getattr(after, name) is getattr(before, name), name
    assert after.hosts != before.hosts
    state.apply([put(DB, 7)], 7, NOW)
    assert state.catalog.services["web"] is before.services["web"]
    assert state.catalog.hosts is after.hosts
    assert "db" not in before.services


# What cannot be read --------------------------------------------------------------------------

BAD_KEYS = [KEYS.records + "web/a/b", KEYS.records + "any/x", KEYS.own + "hosts/A"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_malformed_key_is_listed_until_it_is_deleted(state: CatalogState, key: str) -> None:
    assert state.apply([(key, b"{}", 6)], 6, NOW).entries == ()
    assert key in state.catalog.invalid
    assert up(state.catalog) == {A.id: A, B.id: B}
    state.apply([(key, None, 7)], 7, NOW)
    assert not state.catalog.invalid


def test_a_value_that_turns_bad_takes_its_endpoint_out_and_a_good_one_back_in(
    state: CatalogState,
) -> None:
    key, good, _ = put(A, 3)
    state.apply([(key, b'{"host":"no where"}', 6)], 6, NOW)
    assert up(state.catalog) == {B.id: B}
    assert "host = 'no where': expected" in state.catalog.invalid[key]
    state.apply([(key, good, 7)], 7, NOW)
    assert up(state.catalog) == {A.id: A, B.id: B}
    assert not state.catalog.invalid


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (KEYS.host("alpha"), schema.encode_host(Host("alpha", ()))),
        (put_withdrawal(DB, 0)[0], put_withdrawal(DB, 0)[1]),
        (
            KEYS.refused("alpha", "c"),
            schema.encode_refusal(Refusal("alpha", "c", "bad", (Fault("l", "v", "x"),), NOW)),
        ),
    ],
)
def test_a_value_that_turns_bad_counts_as_absent(
    state: CatalogState, key: str, good: bytes
) -> None:
    before = state.catalog
    state.apply([(key, good, 6)], 6, NOW)
    state.apply([(key, b"\xff", 7)], 7, NOW)
    assert set(state.catalog.invalid) == {key}
    assert replace(state.catalog, invalid=before.invalid, revision=before.revision) == before
    state.apply([(key, None, 8)], 8, NOW)
    assert not state.catalog.invalid


def test_a_withdrawal_below_another_hosts_key_is_invalid(state: CatalogState) -> None:
    key = KEYS.withdrawn("beta", A.id)
    state.apply([(key, schema.encode_withdrawal(withdrawal(A)), 6)], 6, NOW)
    assert set(state.catalog.invalid) == {key}
    assert not state.catalog.withdrawn


def test_a_foreign_record_directly_at_the_service(state: CatalogState) -> None:
    key = KEYS.records + "printer"
    state.apply([(key, b'{"host":"192.0.2.9","port":631}', 6)], 6, NOW)
    assert state.catalog.services["printer"][""].port == 631
    state.apply([(key, None, 7)], 7, NOW)
    assert "printer" not in state.catalog.services


def test_keys_that_are_not_ours_to_read_leave_no_trace(state: CatalogState) -> None:
    state.apply([(KEYS.records + "dns/ns/ns1", b'{"host":"192.0.2.1"}', 6)], 6, NOW)
    assert up(state.catalog) == {A.id: A, B.id: B}
    assert not state.catalog.invalid


# Against a naive model ------------------------------------------------------------------------

POOL = [
    endpoint(service, f"{letter}-1", port)
    for service in ("web", "db")
    for letter in "ab"
    for port in (1, 2)
]
PLACES = st.sampled_from(POOL)
GARBAGE = st.sampled_from([b"", b"{}", b'{"host":1}'])
STEP = st.one_of(
    st.tuples(st.just("put"), PLACES),
    st.tuples(st.just("delete"), PLACES),
    st.tuples(st.just("withdraw"), PLACES),
    st.tuples(st.just("say"), PLACES),
    st.tuples(st.just("unsay"), PLACES),
    st.tuples(st.just("alias"), PLACES),
    st.tuples(st.just("garbage"), PLACES),
    st.tuples(st.just("garbage-said"), PLACES),
    st.tuples(st.just("suppress"), PLACES),
    st.tuples(st.just("unsuppress"), PLACES),
    st.tuples(st.just("reset"), PLACES),
    st.tuples(st.just("absent-reset"), PLACES),
)


class Naive:
    """A store's keys, and by hand what a Catalog of them must hold."""

    def __init__(self) -> None:
        self.revision = 0
        self.stored: dict[str, tuple[bytes, int]] = {}
        self.suppressed: dict[EndpointId, Withdrawal] = {}
        self.elsewhere: set[EndpointId] = set()

    def snapshot(self) -> list[tuple[str, bytes, int]]:
        return [(key, value, revision) for key, (value, revision) in self.stored.items()]

    def set(self, key: str, value: bytes | None) -> tuple[str, bytes | None, int]:
        if value is None:
            self.stored.pop(key, None)
        else:
            self.stored[key] = (value, self.revision)
        return key, value, self.revision

    def record(self, one: Endpoint) -> Endpoint | Alias | None:
        key = KEYS.record(one.id)
        if key not in self.stored:
            return None
        value, revision = self.stored[key]
        try:
            return schema.decode_record(key, one.id, value, revision)
        except schema.RecordError:
            return None

    def up(self) -> dict[EndpointId, Endpoint]:
        found = {}
        for one in POOL:
            stored = self.record(one)
            if isinstance(stored, Endpoint) and one.id not in self.suppressed:
                found[one.id] = stored
        return found

    def aliases(self) -> dict[EndpointId, Alias]:
        return {one.id: stored for one in POOL if isinstance(stored := self.record(one), Alias)}

    def said(self, one: Endpoint) -> Withdrawal | None:
        key = KEYS.withdrawn(one.host, one.id)
        if key not in self.stored:
            return None
        try:
            return schema.decode_withdrawal(key, one.id, self.stored[key][0])
        except schema.RecordError:
            return None

    def withdrawn(self) -> dict[EndpointId, Withdrawal]:
        found = {one.id: said for one in POOL if (said := self.said(one))}
        return {**found, **self.suppressed}

    def unsuppress(self, one: Endpoint) -> None:
        self.suppressed.pop(one.id, None)
        self.elsewhere.discard(one.id)

    def do(self, what: str, one: Endpoint, state: CatalogState) -> Change:
        """One step on the model and on the real one."""
        self.revision += 1
        record, said = KEYS.record(one.id), KEYS.withdrawn(one.host, one.id)
        events: list[tuple[str, bytes | None, int]] = []
        match what:
            case "put":
                events = [self.set(record, schema.encode_endpoint(one)), self.set(said, None)]
            case "alias":
                alias = Alias(one.service, one.instance, f"{one.port}.example")
                events = [self.set(record, schema.encode_alias(alias))]
            case "delete":
                events = [self.set(record, None)]
            case "withdraw":
                value = schema.encode_withdrawal(withdrawal(one))
                events = [self.set(record, None), self.set(said, value)]
            case "say":
                events = [self.set(said, schema.encode_withdrawal(withdrawal(one)))]
            case "unsay":
                events = [self.set(said, None)]
            case "garbage":
                events = [self.set(record, b"{}")]
            case "garbage-said":
                events = [self.set(said, b'{"record":{}}')]
            case "suppress":
                self.suppressed[one.id] = withdrawal(one)
                self.elsewhere.discard(one.id)
                return state.suppress([withdrawal(one)], NOW)
            case "unsuppress":
                stored = self.record(one)
                if not isinstance(stored, Endpoint) or stored.port == one.port:
                    self.unsuppress(one)
                elif one.id in self.suppressed:
                    self.elsewhere.add(one.id)
                return state.unsuppress([one], NOW)
            case "absent-reset":  # deleted while nobody watched
                self.set(record, None)
        if what in ("put", "alias") and one.id in self.elsewhere:
            self.unsuppress(one)
        if what in ("reset", "absent-reset"):
            for each in POOL:
                if self.said(each) or KEYS.record(each.id) not in self.stored:
                    self.unsuppress(each)
            return state.reset(self.snapshot(), self.revision, NOW)
        if what in ("say", "withdraw"):
            self.unsuppress(one)
        return state.apply(events, self.revision, NOW)


@given(st.lists(STEP, max_size=30))
def test_any_sequence_ends_as_the_naive_model_says(steps: list[tuple[str, Endpoint]]) -> None:
    naive, state = Naive(), CatalogState(KEYS)
    kept: list[tuple[Catalog, Mapping[EndpointId, Endpoint], Mapping[str, object]]] = []
    for what, one in steps:
        before, had = up(state.catalog), named(state.catalog)
        kept.append((state.catalog, before, _plain(state.catalog)))
        change = naive.do(what, one, state)
        now = up(state.catalog)
        has = named(state.catalog)
        assert (now, has) == (naive.up(), naive.aliases())
        assert state.catalog.withdrawn == naive.withdrawn()
        assert all(state.catalog.services.values()), "no empty service"
        assert all(state.catalog.aliases.values()), "no empty service"
        assert not now.keys() & state.catalog.lost.keys(), "what is up is not lost"
        differing = {id_ for id_ in before.keys() | now.keys() if before.get(id_) != now.get(id_)}
        moved = {id_ for id_ in had.keys() | has.keys() if had.get(id_) != has.get(id_)}
        assert change.services == {id_.service for id_ in differing | moved}
        assert len(change.entries) == len(differing) + len(moved)
        for id_ in before.keys() - now.keys():
            assert (id_ in state.catalog.withdrawn) != (id_ in state.catalog.lost)
    for catalog, endpoints, plain in kept:
        assert up(catalog) == endpoints, "an older Catalog was altered"
        assert _plain(catalog) == plain, "an older Catalog was altered"


def _plain(catalog: Catalog) -> dict[str, object]:
    return {
        "services": {service: dict(ones) for service, ones in catalog.services.items()},
        "aliases": {service: dict(ones) for service, ones in catalog.aliases.items()},
        "withdrawn": dict(catalog.withdrawn),
        "lost": dict(catalog.lost),
        "invalid": dict(catalog.invalid),
    }


@given(st.lists(STEP, max_size=30))
def test_the_path_does_not_matter(steps: list[tuple[str, Endpoint]]) -> None:
    """A daemon that watched all along and one that starts now see the same, losses apart."""
    naive, state = Naive(), CatalogState(KEYS)
    for what, one in steps:
        if what not in ("suppress", "unsuppress"):
            naive.do(what, one, state)
    fresh = CatalogState(KEYS)
    fresh.reset(naive.snapshot(), naive.revision, NOW)
    seen = replace(state.catalog, lost={}, revision=naive.revision)
    assert seen == replace(fresh.catalog, lost={})


def test_readers_cannot_alter_a_catalog(state: CatalogState) -> None:
    for mapping in (
        state.catalog.services,
        state.catalog.services["web"],
        state.catalog.aliases,
        state.catalog.withdrawn,
        state.catalog.lost,
        state.catalog.hosts,
        state.catalog.refused,
        state.catalog.invalid,
    ):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]


# Services' own addresses -------------------------------------------------------------------------


V4, V6 = ip_address("10.96.0.5"), ip_address("fd00:96::5")


def put_vip(service: str, *addresses: Address, revision: int = 5) -> list[tuple[str, bytes, int]]:
    record = VipRecord(service, addresses)
    owners = [(KEYS.vip_owner(a), encode_vip_owner(service), revision) for a in addresses]
    return [(KEYS.vip(service), encode_vip(record), revision), *owners]


def test_own_addresses_of_a_service(state: CatalogState) -> None:
    change = state.reset(put_vip("web", V4, V6), 5, NOW)
    assert change.services == {"web"}
    assert state.catalog.vips == {"web": (V4, V6)}
    first = state.catalog.vips
    assert not state.apply([put(A, 6)], 6, NOW).services - {"web"}
    assert state.catalog.vips is first, "the same while none of them changes"
    change = state.apply([(KEYS.vip_owner(V6), None, 7)], 7, NOW)
    assert change.services == {"web"}
    assert state.catalog.vips == {"web": (V4,)}
    assert first == {"web": (V4, V6)}, "what readers hold stays"
    change = state.apply([(KEYS.vip("web"), None, 8)], 8, NOW)
    assert change.services == {"web"}
    assert not state.catalog.vips
    assert not state.apply([], 9, NOW).services


def test_no_two_services_have_one_address_whatever_the_store_says(state: CatalogState) -> None:
    web, api = put_vip("web", V4), put_vip("api", V4)
    state.reset([web[0], *api], 5, NOW)
    assert state.catalog.vips == {"api": (V4,)}
    change = state.apply([(*web[1][:2], 6)], 6, NOW)
    assert change.services == {"web", "api"}
    assert state.catalog.vips == {"web": (V4,)}


def test_a_new_snapshot_without_own_addresses_takes_them_away(state: CatalogState) -> None:
    state.reset([*put_vip("web", V4), *put_vip("api", V6)], 5, NOW)
    change = state.reset(put_vip("api", V6), 6, NOW)
    assert change.services == {"web"}
    assert state.catalog.vips == {"api": (V6,)}


def test_own_addresses_that_cannot_be_read_count_as_absent(state: CatalogState) -> None:
    state.reset(put_vip("web", V4), 5, NOW)
    state.apply([(KEYS.vip("web"), b"junk", 6)], 6, NOW)
    assert not state.catalog.vips
    assert set(state.catalog.invalid) == {KEYS.vip("web")}
    state.apply([(*put_vip("web", V4)[0][:2], 7)], 7, NOW)
    assert state.catalog.vips == {"web": (V4,)}
    assert not state.catalog.invalid
