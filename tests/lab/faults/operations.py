"""Random operations and faults on three hosts, and the book of what was true meanwhile.

Rule: the plan is a pure function of the seed: which step, on which host and slot, and when. Lanes
(one a host for its containers and its engine, one for all other faults) carry it out one step after
the other, each as soon as its time has come and the step before it is done. Every step writes down
when its effect may have begun and when it was certainly there: by the engine's events, by pidfds,
and by the clock before and after a call.
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tests.lab.daemon import until
from tests.lab.dockerd import SLEEPER, health
from tests.lab.engine import Box
from tests.lab.faults.checker import Fault, History, Note, Span
from tests.lab.faults.history import Events
from tests.lab.rig import Host, Lab, offer

SERVICES = ("s0", "s1", "s2", "s3")
SLOTS = ("w", "x", "y", "z")
"""Containers at the same time on each host, at most."""
KINDS = ("polite", "deaf", "policy", "health")
"""Ends on SIGTERM; on SIGKILL only; is started again by the engine; has a HEALTHCHECK."""
STOP_TIMEOUT = 1
"""Seconds of `docker stop` until SIGKILL."""
PAUSE_MEAN = 0.6
"""Seconds between two steps of a host's lane."""
FAULT_PAUSE = (0.8, 2.5)
"""Seconds between two faults, from least to most: shorter than it takes to get over some."""
UNCHECKED = {"health": "health, unchecked"}
DEAF = ("sleep", "86400")
HEALTHCHECK = health("test", "-e", "/ok", interval=1.0, timeout=60.0)
"""One that a busy machine does not make fail: `docker exec` itself may take seconds there."""
HEALTHY = ("sh", "-c", "touch /ok; trap 'exit 0' TERM; sleep 86400 & wait")

_NEXT = {
    "": ("start", "start", "start"),
    "up": ("crash", "crash", "stop", "stop", "remove", "pause", "disconnect", "rest", "rest"),
    "paused": ("unpause", "unpause", "remove"),
    "ended": ("again", "again", "remove"),
    "detached": ("connect", "connect", "remove"),
    "sick": ("cure", "cure", "remove", "crash"),
}
_AFTER = {
    "start": "up", "crash": "ended", "stop": "ended", "remove": "", "pause": "paused",
    "unpause": "up", "disconnect": "detached", "connect": "up", "again": "up", "sicken": "sick",
    "cure": "up",
}  # fmt: skip
FAULTS = {
    "discod killed": (0.0, 1.5),
    "discod restarted": (0.0, 0.5),
    "discod frozen": (0.2, 1.5),
    "etcd killed": (0.5, 4.0),
    "etcd frozen": (0.5, 6.0),
    "host cut off": (0.3, 4.0),
}
"""Each with how long it lasts, seconds; all far less than the lease."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the plan."""

    at: float
    """Seconds since the begin."""
    lane: str
    """A host's name, or `FAULT_LANE`."""
    what: str
    host: str
    slot: str = ""
    service: str = ""
    kind: str = ""
    seconds: float = 0.0


OVERTIME = 6.0
"""Seconds after the last step's time from which on no further step is begun: what a busy machine
could not do in time is left out."""
FAULT_LANE = "faults"
ASKED = 0.5
"""Seconds that discod has to ask the engine what an event was about that only the engine knows of,
a pause or a network, before the engine is killed; with less, such an end waits for its return."""


def plan(seed: int, seconds: float, hosts: Sequence[str] = ("a", "b", "c")) -> tuple[Step, ...]:
    """The steps of a seed, in order of time. Pure."""
    steps: list[Step] = []
    for host in hosts:
        steps += _host_lane(random.Random(f"{seed} {host}"), seconds, host)
    steps += _fault_lane(random.Random(f"{seed} {FAULT_LANE}"), seconds, hosts)
    return tuple(sorted(steps, key=lambda step: step.at))


def _host_lane(rng: random.Random, seconds: float, host: str) -> list[Step]:
    state = dict.fromkeys(SLOTS, ("", ""))  # state, kind
    steps: list[Step] = []
    at = 0.0
    while (at := at + min(rng.expovariate(1 / PAUSE_MEAN), 2.0)) < seconds:
        if rng.random() < 0.05:
            if any(now == "sick" for now, _ in state.values()):
                continue
            # A restarted engine does not go on with the HEALTHCHECKs of what runs.
            state = {
                s: (now, kind and UNCHECKED.get(kind, kind)) for s, (now, kind) in state.items()
            }
            steps.append(Step(at, host, "engine killed", host, seconds=rng.uniform(0.0, 1.0)))
            continue
        slot = rng.choice(SLOTS)
        now, kind = state[slot]
        what = rng.choice(_NEXT[now])
        if what == "rest":
            if kind != "health":
                continue
            what = "sicken"
        if what == "start":
            kind = rng.choice(KINDS)
        elif what == "again" and kind == UNCHECKED["health"]:
            kind = "health"
        steps.append(Step(at, host, what, host, slot, rng.choice(SERVICES), kind))
        back = what == "crash" and kind == "policy"
        state[slot] = ("up" if back else _AFTER[what], kind)
        if now == "sick" and what == "crash":
            state[slot] = ("ended", kind)
    return steps


def _fault_lane(rng: random.Random, seconds: float, hosts: Sequence[str]) -> list[Step]:
    steps: list[Step] = []
    at = 1.0
    while (at := at + rng.uniform(*FAULT_PAUSE)) < seconds:
        what = rng.choice(list(FAULTS))
        lasts = rng.uniform(*FAULTS[what])
        steps.append(Step(at, FAULT_LANE, what, rng.choice(list(hosts)), seconds=lasts))
        at += lasts
    return steps


@dataclass(slots=True)
class _Slot:
    """What stands in a slot."""

    box: Box
    service: str
    kind: str
    pidfd: int
    span: Span | None
    """The open one."""


class Book:
    """The truth, as far as the lanes know it."""

    def __init__(self, begin: float) -> None:
        self._lock = threading.Lock()
        self._open: set[Span] = set()
        self.begin = begin
        self.spans: list[Span] = []
        self.faults: list[Fault] = []
        self.notes: list[Note] = []

    def note(self, text: str, at: float | None = None) -> None:
        """A line for people."""
        with self._lock:
            self.notes.append(Note(time.monotonic() if at is None else at, text))

    def begun(self, span: Span) -> Span:
        """A container belongs into DNS."""
        with self._lock:
            self._open.add(span)
        return span

    def ended(self, span: Span, until: float, may_until: float, end: str) -> None:
        """It belongs there no more."""
        with self._lock:
            self._open.remove(span)
            self.spans.append(replace(span, until=until, may_until=max(until, may_until), end=end))

    def fault(self, fault: Fault) -> None:
        """One is over."""
        with self._lock:
            self.faults.append(fault)

    @property
    def present(self) -> list[Span]:
        """All that belongs into DNS now."""
        with self._lock:
            return sorted(self._open, key=lambda span: span.since)

    def give(self, history: History) -> None:
        """Add all that is known."""
        history.spans += [*self.spans, *self.present]
        history.faults += self.faults
        history.notes += self.notes


class HostLane:
    """Carries out what happens to one host's containers and engine."""

    def __init__(self, host: Host, events: Events, book: Book) -> None:
        self._host = host
        self._engine = host.engine
        self._events = events
        self._book = book
        self._slots: dict[str, _Slot] = {}
        self._number = 0
        self._asked_until = 0.0

    def close(self) -> None:
        """Give the descriptors back."""
        for slot in self._slots.values():
            os.close(slot.pidfd)
        self._slots.clear()

    def do(self, step: Step) -> None:
        """One step."""
        if step.what == "engine killed":
            self._engine_killed(step)
        elif step.what == "start":
            self._start(step)
        else:
            act: Callable[[_Slot], None] = getattr(self, f"_{step.what}")
            act(self._slots[step.slot])
            if step.what == "remove":
                os.close(self._slots.pop(step.slot).pidfd)

    def _engine_killed(self, step: Step) -> None:
        time.sleep(max(0.0, self._asked_until - time.monotonic()))
        start = time.monotonic()
        self._engine.kill()
        time.sleep(step.seconds)
        self._engine.start()
        self._book.fault(Fault("engine killed", self._host.name, start, time.monotonic()))

    def _start(self, step: Step) -> None:
        asked = time.monotonic()
        self._number += 1
        argv = {"deaf": DEAF, "health": HEALTHY}.get(step.kind, tuple(SLEEPER))
        box = self._engine.box(
            f"{self._host.name}-{step.slot}{self._number}",
            offer(step.service),
            *argv,
            healthcheck=HEALTHCHECK if step.kind == "health" else None,
            # Not "always": an engine that starts anew would start what was stopped by hand.
            host={"restart_policy": {"Name": "unless-stopped"}} if step.kind == "policy" else None,
        )
        slot = _Slot(box, step.service, step.kind, os.pidfd_open(box.pid), None)
        self._slots[step.slot] = slot
        self._rise(slot, asked, fresh=True)

    def _rise(self, slot: _Slot, asked: float, *, fresh: bool = False) -> None:
        """It belongs into DNS, when it is healthy; `fresh`: its health has to be seen anew."""
        if fresh and slot.kind == "health":
            self._health(slot, "healthy")
        host, box = self._host.name, slot.box
        since = time.monotonic()
        slot.span = self._book.begun(Span(host, slot.service, box.name, box.ipv4, asked, since))

    def _health(self, slot: _Slot, wanted: str) -> float:
        """Wait until the engine says so of its HEALTHCHECK; when."""

        def said() -> bool:
            return bool(self._engine.inspect(slot.box.id)["State"]["Health"]["Status"] == wanted)

        until(said, deadline=20.0, what=f"{slot.box.name} {wanted}")
        return time.monotonic()

    def _fall(self, slot: _Slot, asked: float, known: float, end: str) -> None:
        if slot.span is not None:  # else it was out of DNS before
            self._book.ended(slot.span, asked, known, end)
            slot.span = None

    def _dead(self, slot: _Slot) -> float:
        """When the kernel says that the main process has ended."""
        waiter = select.poll()
        waiter.register(slot.pidfd, select.POLLIN)
        assert waiter.poll(10_000), f"{slot.box.name} lives on"
        return time.monotonic()

    def _renew(self, slot: _Slot, asked: float) -> None:
        """It runs anew: another process, perhaps another address."""
        slot.box = self._engine.look(slot.box.id)
        os.close(slot.pidfd)
        slot.pidfd = os.pidfd_open(slot.box.pid)
        self._rise(slot, asked, fresh=True)

    def _crash(self, slot: _Slot) -> None:
        asked = self._engine.crash(slot.box)
        self._fall(slot, asked, self._dead(slot), "was killed")
        before = slot.box.pid
        if slot.kind != "policy":
            # The engine may be slow to learn it, and one that is killed before does not always.
            until(
                lambda: not self._engine.inspect(slot.box.id)["State"]["Running"],
                deadline=20.0,
                what=f"the engine knows the end of {slot.box.name}",
            )
        else:

            def back() -> bool:
                state = self._engine.inspect(slot.box.id)["State"]
                return bool(state["Running"]) and state["Pid"] not in (0, before)

            until(back, deadline=20.0, what="the engine starts it again")
            self._renew(slot, asked)

    def _stop(self, slot: _Slot) -> None:
        asked = self._engine.halt(slot.box, STOP_TIMEOUT)
        dead = self._dead(slot)
        told = self._events.find(slot.box.id, "kill", after=asked - 0.01)
        self._fall(slot, asked, min(told.at, dead) if told else dead, "was stopped")

    def _remove(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.drop(slot.box)
        self._fall(slot, asked, self._dead(slot), "was removed")

    def _again(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.again(slot.box)
        self._renew(slot, asked)

    def _pause(self, slot: _Slot) -> None:
        asked = self._engine.pause(slot.box)
        self._fall(slot, asked, time.monotonic(), "was paused")
        self._asked_until = time.monotonic() + ASKED

    def _unpause(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.unpause(slot.box)
        self._rise(slot, asked)

    def _disconnect(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.client.disconnect_container_from_network(slot.box.id, "bridge")
        self._fall(slot, asked, time.monotonic(), "left its network")
        self._asked_until = time.monotonic() + ASKED

    def _connect(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.client.connect_container_to_network(slot.box.id, "bridge")
        slot.box = self._engine.look(slot.box.id)
        self._rise(slot, asked)

    def _sicken(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.exec(slot.box, "rm", "/ok")
        self._fall(slot, asked, self._health(slot, "unhealthy"), "got unhealthy")

    def _cure(self, slot: _Slot) -> None:
        asked = time.monotonic()
        self._engine.exec(slot.box, "touch", "/ok")
        self._rise(slot, asked, fresh=True)


class FaultLane:
    """Carries out what happens to daemons, members of etcd and cables."""

    def __init__(self, lab: Lab, book: Book) -> None:
        self._lab = lab
        self._book = book

    def do(self, step: Step) -> None:
        """One step; returns when it is taken back and what was hurt works again."""
        host = self._lab[step.host]
        start = time.monotonic()
        match step.what:
            case "discod killed":
                os.killpg(host.discod.pid, signal.SIGKILL)
                host.discod.kill()
                time.sleep(step.seconds)
                host.discod.start()
            case "discod restarted":
                host.discod.terminate()
                time.sleep(step.seconds)
                host.discod.start()
            case "discod frozen":
                os.kill(host.discod.pid, signal.SIGSTOP)
                try:
                    time.sleep(step.seconds)
                finally:
                    os.kill(host.discod.pid, signal.SIGCONT)
            case "etcd killed" | "etcd frozen":
                self._etcd(step)
            case "host cut off":
                host.partition()
                try:
                    time.sleep(step.seconds)
                finally:
                    host.heal()
            case _:
                raise ValueError(step.what)
        self._book.fault(Fault(step.what, step.host, start, time.monotonic()))

    def _etcd(self, step: Step) -> None:
        assert self._lab.etcd is not None
        member = self._lab.etcd.members["abc".index(step.host)]
        if step.what == "etcd killed":
            member.kill()
            time.sleep(step.seconds)
            member.restart()
            return
        member.freeze()
        try:
            time.sleep(step.seconds)
        finally:
            member.thaw()


def carry_out(lab: Lab, steps: Sequence[Step], events: dict[str, Events], book: Book) -> None:
    """Carry out a plan, to its end.

    Raises:
        Exception: what a step raised; the other lanes end after the step that they are in.
    """
    hosts = {host.name: HostLane(host, events[host.name], book) for host in lab.hosts}
    lanes: dict[str, Callable[[Step], None]] = {name: lane.do for name, lane in hosts.items()}
    lanes[FAULT_LANE] = FaultLane(lab, book).do
    broken = threading.Event()

    def run(lane: str) -> None:
        try:
            for step in steps:
                if step.lane != lane:
                    continue
                if broken.wait(max(book.begin + step.at - time.monotonic(), 0)):
                    return
                if time.monotonic() > book.begin + steps[-1].at + OVERTIME:
                    book.note(f"LATE lane {lane} ends here")
                    return
                words = " ".join(
                    (step.what, step.host, step.slot, step.service, step.kind)
                ).rstrip()
                book.note(f"DO {words}" + (f" for {step.seconds:.2f} s" if step.seconds else ""))
                lanes[lane](step)
        except BaseException:  # whatever it is, the other lanes stop as well; raised again
            broken.set()
            raise

    try:
        with ThreadPoolExecutor(len(lanes)) as pool:
            for task in [pool.submit(run, lane) for lane in lanes]:
                task.result()
    finally:
        for host in hosts.values():
            host.close()


def expected(book: Book) -> list[tuple[str, str]]:
    """(service, IPv4 address) of all that belongs into DNS, sorted."""
    return sorted((span.service, span.address) for span in book.present)
