"""The keeper: one writer, listeners in order, bounded subscribers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
import trio

from discod.keeper import SUBSCRIBER_QUEUE, Keeper
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change, What
from discod.model.endpoint import Endpoint, EndpointId, Producer, Reason, Withdrawal
from discod.model.schema import Keyspace, encode_endpoint
from discod.store.base import Delta, KeyValue, Removed, Snapshot, StoreUnavailable

KEYS = Keyspace()


def endpoint(n: int) -> Endpoint:
    return Endpoint(
        "web", f"h1-{n}", ip_address("10.0.0.1"), 80, host="h1", producer=Producer.DOCKER
    )


def put(n: int, revision: int) -> KeyValue:
    return KeyValue(KEYS.record(endpoint(n).id), encode_endpoint(endpoint(n)), revision)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper(KEYS, wall=lambda: 1000.0, monotonic=lambda: 5.0, metrics=Metrics())


def test_listeners_see_the_new_catalog_in_order(keeper: Keeper) -> None:
    heard: list[tuple[str, int, frozenset[str]]] = []
    keeper.listen(lambda c, ch: heard.append(("a", c.revision, ch.services)))
    keeper.listen(lambda c, ch: heard.append(("b", c.revision, ch.services)))
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    keeper.delta(Delta(9, (put(2, 9),)))
    web = frozenset({"web"})
    assert heard == [("a", 7, web), ("b", 7, web), ("a", 9, web), ("b", 9, web)]


def test_old_catalogs_stay_as_they_were(keeper: Keeper) -> None:
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    before = keeper.catalog
    keeper.delta(Delta(8, (Removed(put(1, 5).key, 8),)))
    assert list(before.services["web"]) == ["h1-1"]
    assert "web" not in keeper.catalog.services


def test_ready_with_the_first_snapshot_even_an_empty_one(keeper: Keeper) -> None:
    assert not keeper.ready.is_set()
    assert not keeper.connected
    keeper.snapshot(Snapshot(1, ()))
    assert keeper.ready.is_set()
    assert keeper.connected


def test_what_is_known_outlives_the_store(keeper: Keeper) -> None:
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    keeper.disconnected(StoreUnavailable("gone"))
    assert not keeper.connected
    assert keeper.error == "gone"
    assert keeper.catalog.endpoint(EndpointId("web", "h1-1")) is not None


def test_own_knowledge_comes_before_the_stores(keeper: Keeper) -> None:
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    said = Withdrawal(endpoint(1), Reason.CRASHED, "exit status 1", 1000.0)
    keeper.suppress([said])
    assert "web" not in keeper.catalog.services
    assert keeper.catalog.withdrawn[endpoint(1).id] == said
    keeper.snapshot(Snapshot(8, (put(1, 5),)))  # the store has not heard yet
    assert "web" not in keeper.catalog.services
    keeper.delta(Delta(9, (put(1, 9),)))  # written before the withdrawal, and still on its way
    assert "web" not in keeper.catalog.services
    keeper.unsuppress([endpoint(1)])
    assert "web" in keeper.catalog.services


def test_a_deletion_without_a_statement_is_a_loss(keeper: Keeper) -> None:
    changes: list[Change] = []
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    keeper.listen(lambda _, change: changes.append(change))
    keeper.delta(Delta(8, (Removed(put(1, 5).key, 8),)))
    assert [entry.what for entry in changes[0].entries] == [What.LOST]
    assert keeper.catalog.lost[endpoint(1).id].revision == 8


def test_a_malformed_record_is_skipped_and_named(keeper: Keeper) -> None:
    key = KEYS.record(EndpointId("db", "x"))
    keeper.snapshot(Snapshot(7, (put(1, 5), KeyValue(key, b"{", 6))))
    assert set(keeper.catalog.services) == {"web"}
    assert "expected JSON" in keeper.catalog.invalid[key]
    keeper.delta(Delta(8, (Removed(key, 8),)))
    assert not keeper.catalog.invalid


async def test_subscribers_get_changes_and_a_slow_one_is_cut_off(keeper: Keeper) -> None:
    keeper.snapshot(Snapshot(1, ()))
    async with keeper.changes() as quick, keeper.changes() as slow:
        for n in range(SUBSCRIBER_QUEUE + 1):
            keeper.delta(Delta(n + 2, (put(n, n + 2),)))
            assert (await quick.receive()).services == {"web"}
        received = 0
        with pytest.raises(trio.EndOfChannel):
            while True:
                await slow.receive()
                received += 1
        assert received == SUBSCRIBER_QUEUE


def test_a_change_without_news_tells_the_revision_alone(keeper: Keeper) -> None:
    heard: list[Catalog] = []
    keeper.snapshot(Snapshot(7, (put(1, 5),)))
    keeper.listen(lambda catalog, _: heard.append(catalog))
    keeper.delta(Delta(8, (put(1, 8),)))  # the same endpoint once more
    (told,) = heard  # the revision alone: the serial goes on with it
    assert told.revision == 8
    assert keeper.catalog.revision == 8
