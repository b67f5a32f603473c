"""discod.suspects and the keeper: probes at a bounded rate, and what is said of the brake."""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, Producer
from discod.model.schema import Keyspace, encode_endpoint
from discod.model.settings import BrakeSettings
from discod.store.base import Delta, KeyValue, Removed, Snapshot
from discod.suspects import AGAIN, PROBES_MAX, TIMEOUT, Suspects, open_and_close

KEYS = Keyspace()
Answer = Callable[[Endpoint], Awaitable[None]]


def endpoint(n: int) -> Endpoint:
    host = "ab"[n % 2]
    address = ip_address(f"10.0.{n // 250}.{n % 250 + 1}")
    return Endpoint("web", f"{host}-{n}", address, 80, host=host, producer=Producer.DOCKER)


class Rig:
    """A keeper whose store loses everything, and a network that the test plays."""

    def __init__(self, count: int, settings: BrakeSettings | None = None) -> None:
        self.metrics = Metrics()
        self.keeper = Keeper(
            KEYS,
            wall=lambda: 1000.0,
            monotonic=trio.current_time,
            metrics=self.metrics,
            host="here",
            brake=settings or BrakeSettings(),
        )
        self.probes: list[tuple[float, str]] = []
        self.under_way = self.most = 0
        self.answer: Answer = self.well
        self.suspects = Suspects(self.keeper, rng=random.Random(1), connect=self._connect)
        self.ones = [endpoint(n) for n in range(count)]
        self.keeper.snapshot(Snapshot(5, tuple(self.put(one, 5) for one in self.ones)))

    def put(self, one: Endpoint, revision: int) -> KeyValue:
        return KeyValue(KEYS.record(one.id), encode_endpoint(one), revision)

    def lose(self) -> None:
        events = tuple(Removed(KEYS.record(one.id), 6) for one in self.ones)
        self.keeper.delta(Delta(6, events))

    async def _connect(self, one: Endpoint) -> None:
        self.probes.append((trio.current_time(), one.instance))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.answer(one)
        finally:
            self.under_way -= 1

    async def well(self, one: Endpoint) -> None:
        await trio.sleep(0.001)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def up(self) -> set[str]:
        return {one.instance for one in self.keeper.catalog.endpoints()}


async def run(rig: Rig, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.suspects.run)
        await trio.testing.wait_all_tasks_blocked()
        rig.lose()
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()


async def test_who_answers_stays_and_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(10)
    await run(rig, 4 * AGAIN)
    assert len(rig.up) == 10
    asked = {name: sum(one == name for _, one in rig.probes) for name in rig.up}
    assert set(asked.values()) <= {4, 5}
    assert rig.value("discod_suspects") == 10


async def test_who_is_silent_is_dropped_after_two_probes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig(10)

    async def one_is_gone(one: Endpoint) -> None:
        if one.instance == "a-4":
            await trio.sleep_forever()

    rig.answer = one_is_gone
    await run(rig, 2 * TIMEOUT + 1)
    assert rig.up == {one.instance for one in rig.ones} - {"a-4"}
    assert sum(one == "a-4" for _, one in rig.probes) == 2
    assert rig.value("discod_suspects_dropped_total", why="failed") == 1
    loss = rig.keeper.catalog.lost[endpoint(4).id]
    assert loss.detail.endswith("probe failed: no answer within 1 s")


@pytest.mark.parametrize(
    ("number", "dropped"),
    [(errno.ECONNREFUSED, True), (errno.EHOSTUNREACH, True), (errno.ENETUNREACH, False)],
)
async def test_what_is_wrong_here_says_nothing_of_them(
    autojump_clock: trio.testing.MockClock, number: int, dropped: bool
) -> None:
    rig = Rig(6)

    async def fails(one: Endpoint) -> None:
        raise OSError(number, "no")

    rig.answer = fails
    await run(rig, 30)
    assert len(rig.up) == (0 if dropped else 6)


async def test_rate_and_concurrency_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(2000, BrakeSettings(rate=200))

    async def slow(one: Endpoint) -> None:
        await trio.sleep(0.9)

    rig.answer = slow
    await run(rig, 4)
    assert rig.most <= PROBES_MAX
    start = rig.probes[0][0]
    for second in range(4):
        inside = [at for at, _ in rig.probes if second <= at - start < second + 1]
        assert len(inside) <= 200 + 10
    assert len(rig.probes) > 400


async def test_a_low_rate_is_kept_as_well(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(50, BrakeSettings(rate=2))
    await run(rig, 10)
    assert 18 <= len(rig.probes) <= 22


async def test_it_lets_go_after_hold_and_says_so_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(10, BrakeSettings(hold=20))
    with caplog.at_level(logging.INFO):
        await run(rig, 25)
    assert not rig.up
    said = [r.message for r in caplog.records if "brake" in r.message]
    assert len(said) == 2
    assert said[0].startswith("brake engaged")
    assert said[1].startswith("brake let go")
    fields = [getattr(r, "fields", {}) for r in caplog.records if "brake" in r.message]
    assert (fields[0]["suspects"], fields[0]["known"], fields[0]["hosts"]) == (10, 10, 2)
    assert fields[1] == {"returned": 0, "withdrawn": 0, "failed": 0, "expired": 10}
    assert rig.value("discod_brake_engaged_total") == 1
    assert rig.value("discod_suspects_dropped_total", why="expired") == 10
    assert rig.value("discod_suspects") == 0


async def test_the_store_has_them_again_and_a_second_time_counts_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.suspects.run)
        for revision in (6, 8):
            events = tuple(Removed(KEYS.record(one.id), revision) for one in rig.ones)
            rig.keeper.delta(Delta(revision, events))
            await trio.sleep(1)
            back = tuple(rig.put(one, revision + 1) for one in rig.ones)
            rig.keeper.delta(Delta(revision + 1, back))
            asked = len(rig.probes)
            await trio.sleep(10)
            assert len(rig.probes) == asked, "nobody is probed any more"
        nursery.cancel_scope.cancel()
    assert len(rig.up) == 10
    assert rig.value("discod_brake_engaged_total") == 2


async def test_switched_off_by_a_reload_it_lets_go(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(10)
    rig.lose()
    assert len(rig.up) == 10
    rig.keeper.configure(replace(BrakeSettings(), enabled=False))
    assert not rig.up


async def test_own_endpoints_that_are_held_count() -> None:
    rig = Rig(0)
    theirs = [replace(endpoint(n), host="b", instance=f"b-{n}") for n in range(4)]
    rig.keeper.delta(Delta(6, tuple(rig.put(one, 6) for one in theirs)))
    rig.keeper.held = lambda: [endpoint(n).id for n in range(3)]
    events = tuple(Removed(KEYS.record(one.id), 7) for one in theirs)
    rig.keeper.delta(Delta(7, events))
    assert len(rig.keeper.catalog.suspects) == 4


async def test_a_real_connection() -> None:
    with trio.socket.socket() as server:
        await server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        there = replace(endpoint(1), address=ip_address("127.0.0.1"), port=port)
        with trio.fail_after(5):
            await open_and_close(there)
            taken, _ = await server.accept()
            with taken:
                assert await taken.recv(1) == b""
    with trio.fail_after(5), pytest.raises(OSError, match="refused"):
        await open_and_close(there)
