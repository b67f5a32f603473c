"""The roster and its checks, on a ledger that nobody writes out."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest
import trio
import trio.testing

from announcer.checker import Checker
from announcer.health import CheckState
from announcer.ledger import Leases, Ledger
from announcer.offer import Offer
from announcer.probe import Execute
from announcer.publish import Publisher
from announcer.roster import CheckRun, Roster, Unit
from announcer.static import judge
from announcer.verdict import Verdict
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, Fault, Producer, Reason, Withdrawal
from discod.model.schema import Keyspace
from discod.model.settings import Check
from discod.store.base import Snapshot

KEYS = Keyspace()
CHECK = Check("cmd", command=("true",), interval=5.0, timeout=1.0, rise=2, fall=2)


def endpoint(n: int = 1) -> Endpoint:
    return Endpoint(
        "web", f"h1-{n}", ip_address("192.0.2.1"), 80, host="h1", producer=Producer.STATIC
    )


def unit(n: int = 1, check: Check | None = None, **more: Any) -> Unit:
    offers = (Offer(endpoint(n), check),)
    fields: dict[str, Any] = {"offers": offers, "run": "1", **more}
    return Unit(key=f"static:{n}", kind="static", id=f"id{n}", name="web", judge=judge, **fields)


@dataclass
class Local:
    out: list[Withdrawal] = field(default_factory=list)
    back: list[Endpoint] = field(default_factory=list)

    def suppress(self, withdrawals: Iterable[Withdrawal]) -> None:
        self.out += withdrawals

    def unsuppress(self, endpoints: Iterable[Endpoint]) -> None:
        self.back += endpoints


class Rig:
    def __init__(self) -> None:
        self.local = Local()
        self.metrics = Metrics()
        self.ledger = Ledger(KEYS, "h1")
        publisher = Publisher(
            None,  # type: ignore[arg-type]  # nothing is written here
            self.ledger,
            keys=KEYS,
            lease_ttl=10,
            history_ttl=10,
            lease_file=None,
            metrics=self.metrics,
            rng=random.Random(1),
            clock=trio.current_time,
        )
        self.roster = Roster(
            "h1", KEYS, publisher, self.local, self.metrics, wall=trio.current_time
        )

    def status(self, n: int = 1) -> str:
        status = self.ledger.wanted(endpoint(n).id)
        return "none" if status is None else "up" if status.up else str(status.reason)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_up_down_and_gone(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.roster.put(unit())
    assert (rig.status(), rig.local.back) == ("up", [endpoint()])
    rig.roster.set_drained("by hand", {})
    assert rig.status() == "drained"
    assert [(w.reason, w.detail) for w in rig.local.out] == [(Reason.DRAINED, "by hand")]
    rig.roster.set_drained(None, {})
    assert rig.status() == "up"
    rig.roster.remove("static:1", Reason.REMOVED)
    assert rig.status() == "removed"
    assert [w.reason for w in rig.local.out] == [Reason.DRAINED, Reason.REMOVED]
    rig.roster.remove("static:1", Reason.REMOVED)  # twice is no fault


async def test_ends_and_returns_say_at_which_revision_the_store_has_it(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    """What is written and not confirmed has none: the other hosts are told of it by its place."""
    rig.ledger.snapshot(Snapshot(1, ()))
    rig.roster.put(unit())
    rig.roster.set_drained("by hand", {})
    rig.roster.set_drained(None, {})
    for ops in rig.ledger.pending(Leases(1, 2), 0.0):
        rig.ledger.committed(ops, 7)
    rig.roster.set_drained("by hand", {})
    rig.roster.set_drained(None, {})
    assert [said.endpoint.revision for said in rig.local.out] == [0, 7]
    assert [one.revision for one in rig.local.back] == [0, 0, 7]


async def test_one_unit_can_be_drained_alone(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    rig.roster.put(unit(1))
    rig.roster.put(unit(2))
    rig.roster.set_drained(None, {"static:2": "container drained"})
    assert (rig.status(1), rig.status(2)) == ("up", "drained")


async def test_the_time_of_a_state_is_that_of_its_beginning(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(10)
    rig.roster.put(unit())
    await trio.sleep(10)
    rig.roster.put(unit(status="configured anew"))
    [report] = rig.roster.reports()
    began = report.endpoints[0].since
    await trio.sleep(5)
    rig.roster.set_drained("x", {})
    assert rig.roster.reports()[0].endpoints[0].since - began == pytest.approx(15)


async def test_refusals_are_kept_named_and_taken_back(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Fault("discod.name", "*", "expected a label")
    rig.roster.put(unit(offers=(), faults=(fault,)))
    refused = rig.metrics.registry.get_sample_value
    assert refused("discod_announcer_containers_refused") == 1
    [record] = [r for r in caplog.records if r.message == "container refused"]
    assert "discod.name = '*'" in str(record.fields["fault"])  # type: ignore[attr-defined]
    rig.roster.put(unit(offers=(), faults=(fault,), status="restarted"))
    assert len([r for r in caplog.records if r.message == "container refused"]) == 1
    rig.roster.put(unit())
    assert refused("discod_announcer_containers_refused") == 0


async def test_in_words_waits_for_changes(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.roster.put(unit())
    assert rig.roster.in_words(["static:1"]) == "up"
    with trio.move_on_after(1) as scope:
        await rig.roster.changed()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.roster.changed)
        await trio.testing.wait_all_tasks_blocked()
        rig.roster.set_drained("by hand", {})
    assert rig.roster.in_words(["static:1"]) == "down: drained, by hand"


@asynccontextmanager
async def checking(rig: Rig, results: Callable[[], int]) -> AsyncIterator[list[float]]:
    """A checker whose commands exit as `results` says; yields the times they ran at."""
    ran: list[float] = []

    def execute_for(_: CheckRun) -> Execute:
        async def execute(argv: Sequence[str], timeout: float) -> tuple[int, str]:
            ran.append(trio.current_time())
            return results(), "output"

        return execute

    checker = Checker(
        rig.roster, execute_for, rig.metrics, rng=random.Random(1), wall=trio.current_time
    )
    rig.roster.checks_changed = checker.poke
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.run)
        yield ran
        nursery.cancel_scope.cancel()


async def test_checks_rise_and_fall(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    status = 0
    async with checking(rig, lambda: status) as ran:
        rig.roster.put(unit(check=CHECK))
        assert rig.status() == "starting"
        await trio.sleep(0.1)
        assert (len(ran), rig.status()) == (1, "starting")
        await trio.sleep(0.5)  # twice as often as every second, until the first verdict
        assert (len(ran), rig.status()) == (2, "up")
        status = 1
        await trio.sleep(5.3)
        assert (len(ran), rig.status()) == (3, "up")
        await trio.sleep(5.3)
        assert rig.status() == "unhealthy"


async def test_checks_run_only_where_they_decide(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    paused = Verdict(up=False, reason=Reason.PAUSED, detail="paused")
    async with checking(rig, lambda: 0) as ran:
        rig.roster.put(replace(unit(check=CHECK), judge=lambda *_: paused))
        await trio.sleep(60)
        assert ran == []
        rig.roster.put(unit(check=CHECK))
        await trio.sleep(60)
        assert 11 <= len(ran) <= 13
        rig.roster.remove("static:1", Reason.REMOVED)
        count = len(ran)
        await trio.sleep(60)
        assert len(ran) == count


async def test_a_new_run_begins_its_checks_anew(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    async with checking(rig, lambda: 0):
        rig.roster.put(unit(check=CHECK))
        await trio.sleep(10)
        assert rig.status() == "up"
        [run] = rig.roster.check_runs()
        rig.roster.put(unit(check=CHECK, run="2"))
        assert rig.status() == "starting"
        rig.roster.check_result(run, CheckState(up=True))  # late, of the run before
        assert rig.status() == "starting"
        await trio.sleep(10)
        assert rig.status() == "up"


async def test_a_changed_check_replaces_the_running_one(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    async with checking(rig, lambda: 0) as ran:
        rig.roster.put(unit(check=CHECK))
        await trio.sleep(11)
        ran.clear()
        rig.roster.put(unit(check=replace(CHECK, interval=1.0)))
        await trio.sleep(10)
        assert 9 <= len(ran) <= 12
