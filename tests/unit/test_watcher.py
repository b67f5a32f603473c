"""The watcher against a scripted engine: orders of events that a real one shows only by chance.

That the scripted engine is like a real one is tested in `tests/conformance/test_engine.py`; here
each test puts two things in an order that would need luck with a real one.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
import trio
import trio.testing

from announcer.container import Attachment, Container, Status
from announcer.events import EngineEvent, Resync
from announcer.ledger import Ledger
from announcer.offer import Scope
from announcer.publish import Publisher
from announcer.roster import Roster
from announcer.watcher import Watcher
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, Reason, Withdrawal
from discod.model.schema import Keyspace
from discod.model.settings import AnnounceSettings, CheckSettings
from tests.fake_engine import FakeEngine

KEYS = Keyspace()
STARTED = 1000.0


def box(n: int = 1, **changes: Any) -> Container:
    made = Container(
        id=f"{n:064x}",
        name=f"web-{n}",
        image="bb:1",
        status=Status.RUNNING,
        pid=100 + n,
        started=STARTED,
        labels=(("discod.name", "web"), ("discod.port", "80")),
        network_mode="bridge",
        attachments=(Attachment("bridge", "net", IPv4Address(f"10.0.0.{n}")),),
    )
    return replace(made, **changes)


def event(action: str, n: int = 1, *, kind: Any = "container", **more: Any) -> EngineEvent:
    return EngineEvent(kind, action, f"{n:064x}", **{"time": STARTED + 5, **more})


class Pids:
    """Processes that die when the test says so."""

    available = True

    def __init__(self) -> None:
        self.watched: dict[str, tuple[int, Callable[[], None]]] = {}
        self.gone: set[int] = set()

    def watches(self, key: str, pid: int | None = None) -> bool:
        return key in self.watched and (pid is None or self.watched[key][0] == pid)

    def watch(self, key: str, pid: int, on_death: Callable[[], None]) -> None:
        if pid in self.gone:
            raise ProcessLookupError(pid)
        self.watched[key] = (pid, on_death)

    def unwatch(self, key: str) -> None:
        self.watched.pop(key, None)

    def die(self, n: int = 1) -> None:
        pid, on_death = self.watched.pop(f"{n:064x}")
        self.gone.add(pid)
        on_death()


@dataclass
class Local:
    out: list[Withdrawal] = field(default_factory=list)
    back: list[Endpoint] = field(default_factory=list)

    def suppress(self, withdrawals: Any) -> None:
        self.out += withdrawals

    def unsuppress(self, endpoints: Any) -> None:
        self.back += endpoints


class Rig:
    """A watcher on a scripted engine."""

    def __init__(self, **announce: Any) -> None:
        self.engine = FakeEngine()
        self.pids = Pids()
        self.local = Local()
        self.listed = 0
        metrics, rng = Metrics(), random.Random(1)
        ledger = Ledger(KEYS, "h1")
        publisher = Publisher(
            None,  # type: ignore[arg-type]  # nothing is written here
            ledger,
            keys=KEYS,
            lease_ttl=10,
            history_ttl=10,
            lease_file=None,
            metrics=metrics,
            rng=rng,
            clock=trio.current_time,
        )
        self.roster = Roster(
            "h1", KEYS, publisher, self.local, metrics, wall=lambda: STARTED + trio.current_time()
        )
        scope = Scope(
            "h1", (ip_address("192.0.2.1"),), AnnounceSettings(**announce), CheckSettings()
        )
        self.watcher = Watcher(
            self.engine,  # type: ignore[arg-type]
            self.pids,  # type: ignore[arg-type]
            self.roster,
            scope,
            metrics,
            rng=rng,
            wall=lambda: STARTED,
            on_listed=self._on_listed,
        )

    def _on_listed(self) -> None:
        self.listed += 1

    def status(self, n: int = 1) -> str:
        for report in self.roster.reports():
            if report.id == f"{n:064x}":
                return ",".join("up" if e.up else str(e.reason) for e in report.endpoints) or "none"
        return "unknown"

    async def tell(self, *events: EngineEvent | Resync) -> None:
        for one in events:
            await self.engine.send.send(one)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def rig(*containers: Container, **announce: Any) -> AsyncIterator[Rig]:
    one = Rig(**announce)
    for container in containers:
        one.engine.put(container)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.watcher.run)
        await trio.testing.wait_all_tasks_blocked()
        yield one
        nursery.cancel_scope.cancel()


async def test_what_runs_at_the_start_is_offered() -> None:
    async with rig(box(1), box(2, status=Status.EXITED, pid=0, attachments=())) as r:
        assert r.listed == 1
        assert r.status(1) == "up"
        assert r.status(2) == "none"


async def test_death_is_told_by_the_pidfd_before_the_engine_knows() -> None:
    async with rig(box()) as r:
        r.pids.die()
        assert r.status() == "crashed"
        assert [w.reason for w in r.local.out] == [Reason.CRASHED]
        await trio.testing.wait_all_tasks_blocked()
        assert r.status() == "crashed"  # the look that followed still saw it running
        r.engine.put(box(status=Status.EXITED, pid=0, exit_code=0, attachments=()))
        await r.tell(event("die"))
        assert r.status() == "exited"


async def test_a_process_that_ended_before_it_could_be_watched_is_not_offered() -> None:
    async with rig() as r:
        r.pids.gone.add(101)
        r.engine.put(box())
        await r.tell(event("start"))
        assert r.status() == "crashed"


async def test_a_new_process_is_inspected_once_more() -> None:
    async with rig() as r:
        r.engine.put(box())
        await r.tell(event("start"))
        assert r.engine.inspected == [box().id] * 2
        await r.tell(event("update"))
        assert r.engine.inspected == [box().id] * 3


async def test_stop_signal_withdraws_at_once_and_other_signals_do_not() -> None:
    async with rig(box()) as r:
        await r.tell(event("kill", signal=1))
        assert r.status() == "up"
        await r.tell(event("kill", signal=15))
        assert r.status() == "stopping"


async def test_the_images_own_stop_signal_counts() -> None:
    async with rig(box(stop_signal="SIGQUIT")) as r:
        await r.tell(event("kill", signal=15))
        assert r.status() == "up"
        await r.tell(event("kill", signal=3))
        assert r.status() == "stopping"


async def test_drain_delays_the_withdrawal(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(box(), drain=2.0) as r:
        await r.engine.send.send(event("kill", signal=15))
        await trio.sleep(1.9)
        assert r.status() == "up"
        await trio.sleep(0.2)
        assert r.status() == "stopping"


async def test_death_ends_the_drain(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(box(), drain=5.0) as r:
        await r.engine.send.send(event("kill", signal=15))
        await trio.sleep(1)
        r.pids.die()
        assert r.status() != "up"


async def test_a_container_that_survives_its_stop_signal_comes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(box(), stop_grace=60.0) as r:
        await r.engine.send.send(event("kill", signal=15))
        await trio.sleep(59)
        assert r.status() == "stopping"
        await trio.sleep(2)
        assert r.status() == "up"


async def test_events_of_an_earlier_run_say_nothing_of_this_one() -> None:
    async with rig(box()) as r:
        r.pids.unwatch(box().id)  # so that `die` would count
        late = STARTED - 1
        await r.tell(event("kill", signal=15, time=late), event("die", time=late))
        assert r.status() == "up"


async def test_a_restart_clears_death_and_stop() -> None:
    async with rig(box()) as r:
        await r.tell(event("kill", signal=15))
        r.pids.die()
        again = box(pid=777, started=STARTED + 10)
        r.engine.put(again)
        await r.tell(event("start", time=STARTED + 10))
        assert r.status() == "up"
        assert r.pids.watches(again.id, 777)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.CREATED])
async def test_a_container_removed_during_a_look_does_not_come_back(status: Status) -> None:
    async with rig() as r:
        r.engine.put(box(status=status, pid=101 if status is Status.RUNNING else 0))
        opened = trio.Event()
        r.engine.gate = opened.wait
        await r.tell(event("create"))  # its inspection is under way
        del r.engine.containers[box().id]
        await r.tell(event("destroy"))
        r.engine.gate = None
        opened.set()
        await trio.testing.wait_all_tasks_blocked()
        assert r.status() == "unknown"


async def test_an_event_during_a_look_causes_another_one() -> None:
    async with rig() as r:
        r.engine.put(box())
        opened = trio.Event()
        r.engine.gate = opened.wait
        await r.tell(event("start"))
        r.engine.put(box(status=Status.PAUSED))
        await r.tell(event("pause"))
        r.engine.gate = None
        opened.set()
        await trio.testing.wait_all_tasks_blocked()
        assert r.status() == "paused"


async def test_a_pid_that_is_used_again_is_not_taken_for_the_dead_one() -> None:
    async with rig(box()) as r:
        r.pids.die()
        assert r.status() == "crashed"
        r.pids.gone.clear()  # the kernel gives the number to the next run
        r.engine.put(box(started=STARTED + 10))
        await r.tell(event("start", time=STARTED + 10))
        assert r.status() == "up"
        assert r.pids.watches(box().id, box().pid)


async def test_a_look_that_is_due_while_the_connection_closes_waits_for_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(box()) as r:
        r.engine.letting_go = 0.5
        r.pids.die()  # its look is due in 1 s
        await trio.sleep(0.8)
        r.engine.away = True
        await r.tell(Resync("x"))
        await trio.sleep(0.4)  # the look is due now
        r.engine.away = False
        r.engine.put(box(status=Status.EXITED, pid=0, exit_code=3, attachments=()))
        await trio.sleep(10)
        assert r.watcher.connected
        assert r.status() == "crashed"


async def test_what_could_not_be_watched_is_watched_at_the_next_comparison() -> None:
    async with rig(box()) as r:
        r.pids.unwatch(box().id)  # as if descriptors had run out
        await r.tell(Resync("x"))
        assert r.pids.watches(box().id, box().pid)
        assert r.status() == "up"
        before = len(r.engine.inspected)
        await r.tell(Resync("x"))
        assert len(r.engine.inspected) == before, "nothing differs, nothing is asked"


@pytest.mark.parametrize("compares", [True, False], ids=["compares", "control"])
async def test_what_the_engine_dropped_of_a_burst_is_found(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, compares: bool
) -> None:
    if not compares:
        monkeypatch.setattr("announcer.watcher.MANY", -1)
    async with rig(box(1), box(2), resync=60.0) as r:
        for n in range(300):
            await r.engine.send.send(event("rename"))
            if n == 100:  # neither's event ever comes
                r.engine.put(box(2, status=Status.PAUSED))
                r.engine.put(box(3))
        await trio.sleep(2)
        assert (r.status(1), r.status(2), r.status(3)) == (
            ("up", "paused", "up") if compares else ("up", "up", "unknown")
        )
        await trio.sleep(70)
        assert (r.status(2), r.status(3)) == ("paused", "up")


async def test_an_engine_that_is_away_withdraws_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(box(1), box(2)) as r:
        r.engine.away = True
        await r.engine.send.send(Resync("x"))
        await trio.sleep(60)
        assert not r.watcher.connected
        assert (r.status(1), r.status(2)) == ("up", "up")
        r.pids.die(2)  # which needs no engine
        assert (r.status(1), r.status(2)) == ("up", "crashed")
        r.engine.away = False
        del r.engine.containers[box(1).id]
        await trio.sleep(10)
        assert r.watcher.connected
        assert r.status(1) == "unknown"
        assert r.listed == 1


async def test_missing_events_are_made_up_for_by_a_comparison() -> None:
    async with rig(box(1), box(2)) as r:
        del r.engine.containers[box(1).id]
        r.engine.put(box(3))
        await r.tell(Resync("more events than could be handled"))
        assert [r.status(n) for n in (1, 2, 3)] == ["unknown", "up", "up"]


async def test_the_periodic_comparison_inspects_only_what_differs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(box(1), box(2), resync=30.0) as r:
        r.engine.inspected.clear()
        r.engine.put(box(2, status=Status.PAUSED))
        await trio.sleep(100)
        assert r.engine.inspected == [box(2).id]
        assert (r.status(1), r.status(2)) == ("up", "paused")


async def test_leaving_a_network_is_a_disconnection() -> None:
    async with rig(box()) as r:
        r.engine.put(box(attachments=()))
        await r.tell(event("disconnect", kind="network"))
        assert [w.reason for w in r.local.out] == [Reason.DISCONNECTED]


async def test_a_borrowed_network_follows_its_lender() -> None:
    guest = box(2, network_mode=f"container:{box(1).id}", attachments=())
    async with rig(guest) as r:
        assert r.status(2) == "none"
        r.engine.put(box(1))
        await r.tell(event("start", 1))
        assert r.status(2) == "up"


async def test_names_and_id_prefixes_find_one_container() -> None:
    async with rig(box(1), box(2)) as r:
        assert r.watcher.find("web-2") == box(2).id
        assert r.watcher.find(box(1).id) == box(1).id
        for text in ("web-3", "0000", "000"):
            with pytest.raises(LookupError, match=text):
                r.watcher.find(text)


async def test_new_settings_are_applied_to_every_container() -> None:
    async with rig(box()) as r:
        scope = Scope(
            "h1", (ip_address("192.0.2.1"),), AnnounceSettings(deny=("web",)), CheckSettings()
        )
        r.watcher.rescope(scope)
        [report] = r.roster.reports()
        assert report.faults
        assert [w.reason for w in r.local.out] == [Reason.UNOFFERED]
