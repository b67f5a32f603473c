"""The ledger against a store that is a dict: it always ends where the producers say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from announcer.ledger import Leases, Ledger, Status
from discod.model.endpoint import Alias, Endpoint, EndpointId, Producer, Reason
from discod.model.schema import Keyspace, decode_withdrawal, encode_alias, encode_endpoint
from discod.store.base import MAX_OPS, Delete, KeyValue, Op, Put, Removed, Snapshot

KEYS = Keyspace()
LEASES = Leases(host=1, history=2)


def endpoint(n: int, service: str = "web", address: str = "10.0.0.1", **more: Any) -> Endpoint:
    fields: dict[str, Any] = {"producer": Producer.DOCKER, "container": "c" * 64, **more}
    return Endpoint(
        service, f"h1-{n}", ip_address(address), 80, port_name="80", host="h1", **fields
    )


def up(n: int, **more: Any) -> Status:
    return Status(endpoint(n, **more), at=1.0)


def down(n: int, reason: Reason = Reason.UNHEALTHY) -> Status:
    return Status(endpoint(n), reason, "why", 2.0)


class Store:
    """A dict with revisions; remembers its events for a late watch."""

    def __init__(self) -> None:
        self.revision = 1
        self.keys: dict[str, KeyValue] = {}
        self.events: list[KeyValue | Removed] = []

    def apply(self, ops: list[Op]) -> int:
        self.revision += 1
        for op in ops:
            if isinstance(op, Put):
                self.keys[op.key] = KeyValue(op.key, op.value, self.revision, op.lease)
                self.events.append(self.keys[op.key])
            elif self.keys.pop(op.key, None) is not None:
                self.events.append(Removed(op.key, self.revision))
        return self.revision

    def expire(self, lease: int) -> None:
        self.apply([Delete(k) for k, v in list(self.keys.items()) if v.lease == lease])

    def snapshot(self) -> Snapshot:
        return Snapshot(self.revision, tuple(self.keys.values()))

    def records(self) -> set[str]:
        return {key for key in self.keys if key.startswith("/skydns/")}


def ledger_on(store: Store, *, engine_listed: bool = True) -> Ledger:
    ledger = Ledger(KEYS, "h1")
    if engine_listed:
        ledger.engine_listed()
    ledger.snapshot(store.snapshot())
    return ledger


def settle(ledger: Ledger, store: Store, leases: Leases = LEASES) -> int:
    count = 0
    while transactions := ledger.pending(leases, 9.0):
        count += 1
        assert count < 10, transactions
        for ops in transactions:
            ledger.committed(ops, store.apply(ops))
    return count


def record(n: int) -> str:
    return KEYS.record(endpoint(n).id)


def withdrawn(n: int) -> str:
    return KEYS.withdrawn("h1", endpoint(n).id)


def test_nothing_is_written_before_the_first_snapshot() -> None:
    ledger = Ledger(KEYS, "h1")
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    assert ledger.pending(LEASES, 1.0) == []


def test_up_is_one_record_on_the_host_lease() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    assert ledger.pending(LEASES, 1.0) == [[Put(record(1), encode_endpoint(endpoint(1)), 1)]]
    settle(ledger, store)
    assert ledger.is_stored(endpoint(1).id, LEASES)
    assert ledger.pending(LEASES, 1.0) == []


def test_an_endpoint_has_a_revision_once_the_store_is_known_to_hold_just_it() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    assert ledger.as_stored(endpoint(1)).revision == 0
    [ops] = ledger.pending(LEASES, 1.0)
    ledger.committed(ops, 7)  # the watch has not said so yet
    assert ledger.as_stored(endpoint(1)).revision == 7
    assert ledger.as_stored(replace(endpoint(1), port=81)).revision == 0
    ledger.offer("u", [], gone=Reason.REMOVED, now=2.0)
    assert ledger.as_stored(endpoint(1)).revision == 7
    [ops] = ledger.pending(LEASES, 2.0)
    ledger.committed(ops, 8)
    assert ledger.as_stored(endpoint(1)).revision == 0


def test_withdrawal_is_one_transaction_with_its_reason() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    ledger.offer("u", [down(1)], gone=Reason.REMOVED, now=2.0)
    [[delete, put]] = ledger.pending(LEASES, 2.0)
    assert delete == Delete(record(1))
    assert isinstance(put, Put)
    assert (put.key, put.lease) == (withdrawn(1), 1)
    said = decode_withdrawal(put.key, endpoint(1).id, put.value)
    assert (said.reason, said.detail, said.endpoint) == (Reason.UNHEALTHY, "why", endpoint(1))


def test_what_is_gone_moves_to_the_history_lease_with_its_last_reason() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1), down(2)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    ledger.offer("u", [], gone=Reason.REMOVED, now=3.0)
    settle(ledger, store)
    assert set(store.keys) == {withdrawn(1), withdrawn(2)}
    reasons = [
        decode_withdrawal(k, EndpointId("web", "x"), store.keys[k].value).reason
        for k in (withdrawn(1), withdrawn(2))
    ]
    assert reasons == [Reason.REMOVED, Reason.UNHEALTHY]
    assert {value.lease for value in store.keys.values()} == {2}
    assert ledger.pending(LEASES, 4.0) == []


def test_up_again_deletes_the_withdrawal_in_the_same_transaction() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [down(1)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=2.0)
    [ops] = ledger.pending(LEASES, 2.0)
    assert [type(op) for op in ops] == [Put, Delete]
    settle(ledger, store)
    assert set(store.keys) == {record(1)}


def test_withdrawals_are_written_before_announcements() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    ledger.offer("v", [up(2)], gone=Reason.REMOVED, now=2.0)
    ledger.offer("u", [down(1)], gone=Reason.REMOVED, now=2.0)
    first, second = ledger.pending(LEASES, 2.0)
    assert first[0] == Delete(record(1))
    assert second[0].key == record(2)


def test_transactions_stay_within_the_stores_limit_and_keep_pairs_together() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(n) for n in range(200)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    ledger.offer("u", [down(n) for n in range(200)], gone=Reason.REMOVED, now=2.0)
    transactions = ledger.pending(LEASES, 2.0)
    assert [len(ops) for ops in transactions] == [128, 128, 128, 16]
    assert all(len(ops) <= MAX_OPS for ops in transactions)
    assert all(len(ledger.guards(ops)) <= MAX_OPS for ops in transactions)
    for ops in transactions:
        deletes = {op.key.rsplit("/", 1)[1] for op in ops if isinstance(op, Delete)}
        puts = {op.key.rsplit("/", 1)[1] for op in ops if isinstance(op, Put)}
        assert deletes == puts


def test_a_restart_adopts_what_is_right_and_removes_what_is_not() -> None:
    store = Store()
    before = ledger_on(store)
    before.offer("u", [up(1), up(2), down(3)], gone=Reason.REMOVED, now=1.0)
    settle(before, store)
    after = ledger_on(store)
    after.offer("u", [up(1)], gone=Reason.REMOVED, now=5.0)
    settle(after, store)
    assert store.records() == {record(1)}
    said = decode_withdrawal("k", endpoint(2).id, store.keys[withdrawn(2)].value)
    assert said.reason is Reason.UNOFFERED
    assert store.keys[withdrawn(3)].lease == LEASES.history


def test_records_of_containers_stay_while_the_engine_has_not_answered() -> None:
    store = Store()
    before = ledger_on(store)
    before.offer("u", [up(1), up(2, producer=Producer.STATIC)], gone=Reason.REMOVED, now=1.0)
    settle(before, store)
    after = ledger_on(store, engine_listed=False)
    settle(after, store)
    assert store.records() == {record(1)}  # the static one is known to be gone
    settle(after, store, Leases(host=7, history=8))
    after.leases_changed()
    settle(after, store, Leases(host=7, history=8))
    assert store.keys[record(1)].lease == 7
    after.engine_listed()
    settle(after, store, Leases(host=7, history=8))
    assert store.records() == set()


def test_a_lost_lease_is_written_anew() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1), down(2)], gone=Reason.REMOVED, now=1.0)
    ledger.keep(KEYS.host("h1"), b"me")
    settle(ledger, store)
    seen = len(store.events)
    store.expire(1)
    for event in store.events[seen:]:
        ledger.seen(event)
    settle(ledger, store, Leases(host=3, history=2))
    assert {k: v.lease for k, v in store.keys.items()} == {
        record(1): 3,
        withdrawn(2): 3,
        KEYS.host("h1"): 3,
    }


def test_deletion_and_overwriting_by_others_are_mended() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1), up(2)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    seen = len(store.events)
    store.apply([Delete(record(1)), Put(record(2), b'{"host":"6.6.6.6"}')])
    for event in store.events[seen:]:
        ledger.seen(event)
    settle(ledger, store)
    assert store.keys[record(1)].value == encode_endpoint(endpoint(1))
    assert store.keys[record(2)].value == encode_endpoint(endpoint(2))


def test_records_of_other_hosts_and_foreign_ones_are_left_alone() -> None:
    store = Store()
    theirs = Endpoint(
        "web", "h2-1", ip_address("10.0.0.9"), 80, host="h2", producer=Producer.DOCKER
    )
    store.apply(
        [
            Put(KEYS.record(theirs.id), encode_endpoint(theirs), 9),
            Put(KEYS.record(EndpointId("db", "x")), b'{"host":"10.0.0.3"}'),
            Put(KEYS.record(EndpointId("db", "y")), b"not json"),
            Put(KEYS.host("h2"), b"{}", 9),
        ]
    )
    ledger = ledger_on(store)
    assert ledger.pending(LEASES, 1.0) == []


def test_of_two_claims_the_older_one_that_is_up_counts() -> None:
    store = Store()
    ledger = ledger_on(store)
    old, new = up(1, since=1.0, address="10.0.0.1"), up(1, since=2.0, address="10.0.0.2")
    ledger.offer("b", [new], gone=Reason.REMOVED, now=1.0)
    ledger.offer("a", [old], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    assert store.keys[record(1)].value == encode_endpoint(old.endpoint)
    ledger.offer("a", [], gone=Reason.REMOVED, now=2.0)
    settle(ledger, store)
    assert store.keys[record(1)].value == encode_endpoint(new.endpoint)
    assert withdrawn(1) not in store.keys


# Aliases ----------------------------------------------------------------------------------------

SEARCH = Alias("search", "h1-alias-0", "www.example.com", "h1", since=1.0)
ALIAS_KEY = KEYS.record(SEARCH.id)


def test_an_alias_is_one_record_on_the_host_lease_and_leaves_nothing_behind() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.set_aliases([SEARCH])
    assert not ledger.is_stored(SEARCH.id, LEASES)
    assert ledger.pending(LEASES, 1.0) == [[Put(ALIAS_KEY, encode_alias(SEARCH), 1)]]
    settle(ledger, store)
    assert ledger.is_stored(SEARCH.id, LEASES)
    ledger.set_aliases([SEARCH])
    assert ledger.pending(LEASES, 1.0) == []
    ledger.set_aliases([])
    assert ledger.pending(LEASES, 1.0) == [[Delete(ALIAS_KEY)]]
    settle(ledger, store)
    assert store.keys == {}


def test_an_alias_that_others_delete_or_overwrite_is_written_again() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.set_aliases([SEARCH])
    settle(ledger, store)
    for ops in ([Delete(ALIAS_KEY)], [Put(ALIAS_KEY, b'{"host":"h1"}')], [Put(ALIAS_KEY, b"?")]):
        seen = len(store.events)
        store.apply(list(ops))
        for event in store.events[seen:]:
            ledger.seen(event)
        settle(ledger, store)
        assert store.keys[ALIAS_KEY].value == encode_alias(SEARCH)
        assert store.keys[ALIAS_KEY].lease == LEASES.host


def test_an_alias_moves_to_a_new_lease() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.set_aliases([SEARCH])
    settle(ledger, store)
    ledger.leases_changed()
    settle(ledger, store, Leases(host=7, history=8))
    assert store.keys[ALIAS_KEY].lease == 7


def test_a_restart_adopts_its_aliases_and_removes_those_no_longer_configured() -> None:
    store = Store()
    before = ledger_on(store)
    other = Alias("other", "h1-alias-0", "b.example", "h1")
    foreign = Alias("search", "x", "www.example.com")
    store.apply([Put(KEYS.record(foreign.id), encode_alias(foreign))])
    before.set_aliases([SEARCH, other])
    settle(before, store)
    written = len(store.events)
    after = ledger_on(store, engine_listed=False)
    after.set_aliases([SEARCH])
    settle(after, store)
    assert store.records() == {ALIAS_KEY, KEYS.record(foreign.id)}
    assert len(store.events) == written + 1, "what is right is left as it is"


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("offer"),
            st.sampled_from("abc"),
            st.dictionaries(st.integers(0, 4), st.booleans(), max_size=4),
        ),
        st.tuples(st.just("commit"), st.just(""), st.just({})),
        st.tuples(st.just("commit-unheard"), st.just(""), st.just({})),
        st.tuples(st.just("watch"), st.just(""), st.just({})),
        st.tuples(st.just("snapshot"), st.just(""), st.just({})),
        st.tuples(st.just("expire"), st.just(""), st.just({})),
    ),
    max_size=25,
)


@given(STEPS)
@settings(deadline=None, max_examples=300)
def test_every_history_ends_at_what_the_producers_say(steps: list[Any]) -> None:
    store, watched = Store(), 0
    ledger = ledger_on(store)
    offers: dict[str, dict[int, bool]] = {}
    for what, unit, given_ in steps:
        if what == "offer":
            offers[unit] = given_
            statuses = [up(n) if is_up else down(n) for n, is_up in given_.items()]
            ledger.offer(unit, statuses, gone=Reason.REMOVED, now=1.0)
        elif what.startswith("commit"):
            for ops in ledger.pending(LEASES, 1.0)[:1]:
                revision = store.apply(ops)
                if what == "commit":
                    ledger.committed(ops, revision)
        elif what == "watch":
            for event in store.events[watched:]:
                ledger.seen(event)
            watched = len(store.events)
        elif what == "snapshot":
            ledger.snapshot(store.snapshot())
            watched = len(store.events)
        else:
            store.expire(LEASES.host)
    for event in store.events[watched:]:
        ledger.seen(event)
    settle(ledger, store)
    expected = {record(n) for given_ in offers.values() for n, is_up in given_.items() if is_up}
    assert store.records() == expected
    for id_key in expected:
        assert withdrawn(int(id_key.rsplit("-", 1)[1])) not in store.keys
    downs = {n for g in offers.values() for n in g} - {int(k.rsplit("-", 1)[1]) for k in expected}
    for n in downs:
        assert store.keys[withdrawn(n)].lease == LEASES.host


def test_a_watch_event_older_than_an_own_commit_changes_nothing() -> None:
    store = Store()
    ledger = ledger_on(store)
    ledger.offer("u", [up(1)], gone=Reason.REMOVED, now=1.0)
    settle(ledger, store)
    put_event = store.events[-1]
    ledger.offer("u", [down(1)], gone=Reason.REMOVED, now=2.0)
    settle(ledger, store)
    events = store.events[store.events.index(put_event) :]
    for event in events:
        ledger.seen(event)
    assert ledger.pending(LEASES, 3.0) == []
