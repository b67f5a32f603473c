"""Random operations and faults on three real hosts; what was answered fits what was true.

A failing seed replays with ``HISTORY_SEED=123 pytest tests/lab/faults/test_history.py``;
``HISTORY_SECONDS=3600`` makes each history as long.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.lab.daemon import until
from tests.lab.faults.checker import INF, Bounds, Fault, History, Note, Report, Span, around, check
from tests.lab.faults.history import Answers, Events
from tests.lab.faults.operations import SERVICES, Book, carry_out, expected, plan
from tests.lab.faults.promises import BACK
from tests.lab.faults.table import Table
from tests.lab.rig import Lab, offer

pytestmark = pytest.mark.lab

LEASE = 10
"""Seconds, as shipped."""
SEEDS = [int(text) for text in os.environ.get("HISTORY_SEED", "1 2").split()]
SECONDS = float(os.environ.get("HISTORY_SECONDS", "20"))
"""Of each history's plan."""
WRONG = 1.0
"""Seconds: an end is out of DNS in milliseconds; the rest is for four engines' worth of starts and
ends on two processors, where the engines' events themselves come hundreds of milliseconds late."""
MISSING = 2.0
"""Seconds: a start is not urgent, and has to go through etcd, whose disk all of this shares."""
SILENT = 1.0
"""Seconds without an answer: none are wanted, but a busy machine may hold a process back."""
BOUNDS = Bounds(WRONG, MISSING, SILENT)


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    """Three hosts with the lease that users have."""
    with Lab(3, lease_ttl=LEASE) as lab:
        yield lab


def everything(lab: Lab, book: Book) -> bool:
    """Whether every host holds and answers exactly what belongs into DNS."""
    wanted = expected(book)
    try:
        for host in lab.hosts:
            held = {(service, target) for service, target, _ in host.catalog() if "[" not in target}
            if held != {(service, f"{address}:8080") for service, address in wanted}:
                return False
            for service in SERVICES:
                own = tuple(sorted(address for name, address in wanted if name == service))
                if host.ask(service).addresses != own:
                    return False
    except OSError:
        return False
    return True


def record(lab: Lab, seed: int, seconds: float) -> tuple[History, float]:
    """Carry out a seed's plan; the history, and how long it took to converge after the end."""
    steps = plan(seed, seconds)
    with ExitStack() as stack:
        events = {host.name: stack.enter_context(Events(host)) for host in lab.hosts}
        answers = Answers(lab.hosts, SERVICES, BOUNDS.gap)
        with answers:
            book = Book(time.monotonic())
            carry_out(lab, steps, events, book)
            ended = time.monotonic()
            until(lambda: everything(lab, book), deadline=30.0, what=f"converged, seed {seed}")
            converged = time.monotonic() - ended
            time.sleep(0.5)  # answers after it count as well
            end = time.monotonic()
        history = History(tuple(h.name for h in lab.hosts), SERVICES, book.begin, end)
        book.give(history)
        answers.give(history)
        for name, one in events.items():
            for event in one.events:
                what = f"EVENT on {name}: {event.action} {event.attributes.get('name', '')}"
                history.notes.append(Note(event.at, what))
    # The book is right: the engines run what it says, and nothing else.
    running = {host.name: set(host.engine.alive()) for host in lab.hosts}
    for host in lab.hosts:
        named = {host.engine.look(id_).name for id_ in running[host.name]}
        booked = {span.container for span in book.present if span.host == host.name}
        assert booked <= named, (booked, named)
    return history, converged


def tell(seed: int, history: History, report: Report) -> str:
    """The first violations of each kind, with what happened around them."""
    told, kinds = [f"seed {seed}: {len(report.violations)} violations"], set()
    for violation in report.violations:
        what = f"{violation.kind} on {violation.host} {violation.service}"
        at = violation.at - history.begin
        told.append(f"{at:9.3f} {what}, {violation.seconds:.3f} s beyond: {violation.text}")
    for violation in report.violations:
        if violation.kind not in kinds:
            kinds.add(violation.kind)
            told.append(f"--- around it\n{around(history, violation)}")
    return "\n".join(told)


def lied_to(history: History) -> set[str]:
    """The negative control: hosts that the checker accuses when the truth is that the container
    that lived longest, of those that ended, ended right after its start.

    No other container of the service may have had its address: that would explain the answers.
    """
    had = Counter((span.service, span.address) for span in history.spans)
    ended = [s for s in history.spans if s.until < INF and had[s.service, s.address] == 1]
    longest = max(ended, key=lambda span: span.until - span.since)
    short = replace(longest, until=longest.since, may_until=longest.since)
    spans = [span for span in history.spans if span is not longest]
    found = check(replace(history, faults=[], spans=[*spans, short]), BOUNDS).violations
    fooled = {v.host for v in found if v.kind == "wrong" and short.address in v.text}
    assert longest.host in fooled, (longest, found)
    return fooled


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_answered_fits_what_is_true(three: Lab, faults: Table, seed: int) -> None:
    history, converged = record(three, seed, SECONDS)
    report = check(history, BOUNDS)
    busy = sum(one.end - one.start for one in history.faults if one.kind == "machine busy")
    print(
        f"seed {seed}: {len(history.spans)} spans, {len(history.runs)} runs, "
        f"{len(history.faults)} faults, converged after {converged:.2f} s; worst: wrong "
        f"{report.wrong:.3f}, missing {report.missing:.3f}, silent {report.silent:.3f} s; "
        f"machine busy {busy:.1f} of {history.end - history.begin:.1f} s"
    )
    if report.violations:
        pytest.fail(tell(seed, history, report), pytrace=False)
    assert converged < BACK
    assert len(history.spans) > SECONDS / 4, "enough happened"
    assert {run.host for run in history.runs} == {"a", "b", "c"}
    fooled = lied_to(history)
    faults.add(
        f"history of random faults, seed {seed}",
        wrong=report.wrong,
        missing=report.missing,
        converged=converged,
        control=f"one end dated back: found on {len(fooled)} hosts",
    )


def test_a_fault_that_nobody_told_the_checker_of_is_found(three: Lab, faults: Table) -> None:
    """The negative control: a daemon that stands still lets the dead stay in DNS."""
    a = three["a"]
    box = a.engine.box("ghost", offer("s0"))
    three.everywhere("s0", [box.ipv4, box.ipv6])
    answers = Answers(three.hosts, SERVICES, BOUNDS.gap)
    with answers:
        begin = time.monotonic()
        until(lambda: time.monotonic() > begin + 0.3)
        frozen = time.monotonic()
        os.kill(a.discod.pid, signal.SIGSTOP)
        try:
            asked = a.engine.crash(box)
            until(lambda: time.monotonic() > asked + WRONG + 0.8)
        finally:
            os.kill(a.discod.pid, signal.SIGCONT)
        thawed = time.monotonic()
        three.everywhere("s0", [])
        end = time.monotonic()
    history = History(("a", "b", "c"), SERVICES, begin, end)
    answers.give(history)
    history.spans = [
        Span("a", "s0", "ghost", box.ipv4, 0.0, begin, asked, asked + 0.05, "was killed")
    ]
    found = check(history, BOUNDS).violations
    assert {"b", "c"} <= {one.host for one in found if one.kind == "wrong"}, found
    history.faults = [Fault("discod frozen", "a", frozen, thawed)]
    report = check(history, BOUNDS)
    assert not report.violations, tell(0, history, report)
    faults.add(
        "history: a daemon frozen",
        wrong=report.wrong,
        control=f"not told of it, the checker finds {len(found)}",
    )
