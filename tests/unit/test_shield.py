"""What the store loses of a host's own endpoints stays in that host's Catalog."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from announcer.ledger import Ledger, Status
from announcer.shield import Shield
from discod.model.catalog import Catalog
from discod.model.endpoint import Endpoint, Producer, Reason
from discod.model.schema import Keyspace, encode_endpoint
from discod.store.base import Delta, KeyValue, Removed, Snapshot
from resolver.transfer.publisher import _stored

KEYS = Keyspace()
OURS = Endpoint("web", "h1-1", ip_address("10.0.0.1"), 80, host="h1", producer=Producer.DOCKER)
THEIRS = replace(OURS, instance="h2-1", host="h2")
RECORD, OTHER = KEYS.record(OURS.id), KEYS.record(THEIRS.id)
HAD = KeyValue(RECORD, encode_endpoint(OURS), 5, 7)


def both(shield: Shield, ledger: Ledger, *events: KeyValue | Removed, at: int) -> Delta:
    """As the daemon does it: first the shield, then the ledger."""
    seen = shield.delta(Delta(at, tuple(events)))
    for event in events:
        ledger.seen(event)
    return seen


def offer(ledger: Ledger, *statuses: Status) -> None:
    ledger.offer("u", statuses, gone=Reason.REMOVED, now=1.0)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(KEYS, "h1")
    ledger.engine_listed()
    offer(ledger, Status(OURS))
    other = KeyValue(OTHER, encode_endpoint(THEIRS), 4, 8)
    ledger.snapshot(Snapshot(5, (HAD, other)))
    return ledger


def test_a_loss_of_ours_is_held_and_another_hosts_is_not(ledger: Ledger) -> None:
    shield = Shield(ledger)
    lost = (Removed(RECORD, 6), Removed(OTHER, 6))
    assert both(shield, ledger, *lost, at=6) == Delta(6, (Removed(OTHER, 6),))
    assert shield.held() == {OURS.id: None}
    again = replace(HAD, revision=9)
    assert both(shield, ledger, again, at=9) == Delta(9, (again,))
    assert shield.held() == {}


@pytest.mark.parametrize(
    "now",
    [
        (),
        (Status(OURS, Reason.CRASHED, "", 2.0),),
        (Status(replace(OURS, address=ip_address("10.0.0.9"))),),
    ],
    ids=["gone", "down", "another address"],
)
def test_what_is_no_longer_offered_so_is_let_go(ledger: Ledger, now: tuple[Status, ...]) -> None:
    shield = Shield(ledger)
    both(shield, ledger, Removed(RECORD, 6), at=6)
    offer(ledger, *now)
    assert both(shield, ledger, at=7) == Delta(7, (Removed(RECORD, 7),))
    assert both(shield, ledger, at=8) == Delta(8)


def test_our_own_deletion_is_none_of_a_loss(ledger: Ledger) -> None:
    shield = Shield(ledger)
    offer(ledger, Status(OURS, Reason.CRASHED, "", 2.0))
    removed = Removed(RECORD, 6)
    assert both(shield, ledger, removed, at=6) == Delta(6, (removed,))


def test_an_emptied_store_keeps_ours(ledger: Ledger) -> None:
    shield = Shield(ledger)
    empty = Snapshot(2, ())
    assert shield.snapshot(empty) == Snapshot(2, (KeyValue(RECORD, HAD.value, 2),))
    ledger.snapshot(empty)
    assert shield.snapshot(empty).items, "once more, while it is still empty"
    offer(ledger)
    assert shield.snapshot(empty) == empty
    assert shield.held() == {}


def test_nothing_is_invented_that_the_store_never_had(ledger: Ledger) -> None:
    shield = Shield(ledger)
    offer(ledger, Status(OURS), Status(replace(OURS, instance="h1-2")))
    assert [item.key for item in shield.snapshot(Snapshot(2, ())).items] == [RECORD]


def test_secondaries_are_told_what_the_store_says(ledger: Ledger) -> None:
    """What is held is this host's own word: a serial means the same on every host."""
    shield = Shield(ledger)
    both(shield, ledger, Removed(RECORD, 6), at=6)
    alone = Catalog("discod.internal", services={"web": {"h1-1": OURS}})
    assert dict(_stored(alone, shield.held()).services) == {}
    two = Catalog("discod.internal", services={"web": {"h1-1": OURS, "h2-1": THEIRS}})
    stored = _stored(two, shield.held()).services
    assert stored["web"] == {"h2-1": THEIRS}
    assert len(stored) == 1
