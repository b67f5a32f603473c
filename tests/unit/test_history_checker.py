"""The history checker, on histories made by hand: what fits passes, what does not is named."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.lab.faults.checker import (
    HOST_BACK,
    STORE_BACK,
    Bounds,
    Fault,
    History,
    Report,
    Run,
    Serial,
    Span,
    around,
    check,
    excuses,
    without,
)
from tests.lab.faults.history import SOA, soa_serial
from tests.lab.faults.operations import FAULTS, SLOTS, plan

X, Y = "10.101.1.2", "10.101.2.2"
BOUNDS = Bounds(wrong=1.0, missing=2.0, silent=1.0, gap=0.1)
END = 40.0


def run(
    host: str, first: float, last: float, *addresses: str, service: str = "web", took: float = 0.001
) -> Run:
    return Run(host, service, addresses, first, first + took, last, last + took)


def history(
    *runs: Run,
    spans: tuple[Span, ...] = (),
    faults: tuple[Fault, ...] = (),
    serials: tuple[Serial, ...] = (),
    end: float = END,
) -> History:
    """Hosts without a run of their own get none: their silence is of no interest here."""
    hosts = tuple(sorted({one.host for one in runs})) or ("a",)
    services = tuple(sorted({one.service for one in runs}))
    return History(
        hosts, services, 0.0, end, list(runs), list(spans), list(serials), list(faults), []
    )


def kinds(report: Report) -> list[tuple[str, str]]:
    return [(one.kind, one.host) for one in report.violations]


def life(since: float, until: float = float("inf"), address: str = X, host: str = "a") -> Span:
    """A container that needs 0.2 s to start and to end."""
    return Span(host, "web", "c", address, since - 0.2, since, until, until + 0.2, "was killed")


@pytest.mark.parametrize(
    ("gone", "found"),
    [(20.0, []), (20.2, []), (21.15, []), (21.3, [("wrong", "a")]), (30.0, [("wrong", "a")])],
)
def test_the_dead_may_be_named_for_the_bound_only(gone: float, found: list[object]) -> None:
    told = history(run("a", 0, gone, X), run("a", gone + 0.01, END), spans=(life(0.1, 20.0),))
    report = check(told, BOUNDS)
    assert kinds(report) == found
    assert report.wrong == pytest.approx(max(gone - 20.2, 0), abs=0.01)


@pytest.mark.parametrize(
    ("fault", "shown", "found"),
    [
        ("etcd frozen", 0.2, []),
        ("etcd frozen", 0.5, [("wrong", "a")]),
        ("", 0.2, [("wrong", "a")]),
    ],
)
def test_what_came_and_went_without_news_may_show_up_for_a_moment(
    fault: str, shown: float, found: list[object]
) -> None:
    """A store that was away tells the start and the end together, one after the other."""
    faults = (Fault(fault, "a", 10.0, 14.0),) if fault else ()
    seen = run("a", 15.0, 15.0 + shown, X)
    runs = run("a", 0, 14.99), seen, run("a", 15.01 + shown, END)
    assert kinds(check(history(*runs, spans=(life(10.5, 11.0),), faults=faults), BOUNDS)) == found


def test_one_that_comes_back_to_dns_after_its_end_is_wrong() -> None:
    told = history(
        run("a", 0, 20.1, X), run("a", 20.11, 23), run("a", 23.01, 23.2, X), run("a", 23.21, END),
        spans=(life(0.1, 20.0),),
    )  # fmt: skip
    report = check(told, BOUNDS)
    assert kinds(report) == [("wrong", "a")]
    assert report.violations[0].at == pytest.approx(23.01)
    assert "c on a was killed 2.810 s before" in report.violations[0].text


def test_a_single_answer_is_enough() -> None:
    told = history(
        run("a", 0, 20.1, X), run("a", 20.11, 23), run("a", 23.01, 23.01, X), run("a", 23.02, END),
        spans=(life(0.1, 20.0),),
    )  # fmt: skip
    assert kinds(check(told, BOUNDS)) == [("wrong", "a")]


def test_an_address_of_nobody_and_one_that_is_another_service_s_now() -> None:
    other = Span("a", "db", "d", X, 21.0, 21.2)
    told = history(
        run("a", 0, 25, X), run("a", 25.01, END),
        run("a", 0, 22, service="db"), run("a", 22.01, END, X, service="db"),
        spans=(life(0.1, 20.0), other),
    )  # fmt: skip
    report = check(told, BOUNDS)
    assert kinds(report) == [("wrong", "a")]
    told.spans = [other]
    report = check(told, BOUNDS)
    assert kinds(report) == [("wrong", "a")]
    assert "nobody's" in report.violations[0].text
    told.spans = [life(0.1, 20.0), other]
    told.runs[0] = replace(told.runs[0], last_sent=24.0)
    assert "it is db's now" in check(told, BOUNDS).violations[0].text


def test_before_it_was_started_nothing_may_be_named() -> None:
    told = history(run("a", 0, END, X), spans=(life(5.0),))
    assert kinds(check(told, BOUNDS)) == [("wrong", "a")]
    late = replace(told.runs[0], first_sent=4.75, first_got=4.85)  # made before its coming
    assert not check(history(late, spans=(life(5.0),), end=END), BOUNDS).wrong


@pytest.mark.parametrize(
    ("seen", "found"),
    [(10.5, []), (11.9, []), (12.2, [("missing", "a")]), (39.0, [("missing", "a")])],
)
def test_what_is_up_is_in_within_the_bound(seen: float, found: list[object]) -> None:
    told = history(run("a", 0, seen), run("a", seen + 0.01, END, X), spans=(life(10.0),))
    report = check(told, BOUNDS)
    assert kinds(report) == found
    assert report.missing > 0


def test_one_answer_without_what_is_up_is_missing() -> None:
    told = history(
        run("a", 0, 20, X), run("a", 20.01, 20.01), run("a", 20.02, END, X), spans=(life(0.1),)
    )
    assert kinds(check(told, BOUNDS)) == [("missing", "a")]


def test_it_may_be_out_before_its_end_is_certain() -> None:
    told = history(run("a", 0, 20.0005, X), run("a", 20.001, END), spans=(life(0.1, 20.0),))
    assert not check(told, BOUNDS).violations
    # Asked before, answered after: nobody can tell.
    told = history(
        run("a", 0, 19.9, X), run("a", 19.95, 19.95, took=0.08), run("a", 20.04, END),
        spans=(life(0.1, 20.0),),
    )  # fmt: skip
    assert not check(told, BOUNDS).violations
    told = history(run("a", 0, 19.9, X), run("a", 19.91, END), spans=(life(0.1, 20.0),))
    assert kinds(check(told, BOUNDS)) == [("missing", "a")]


def test_twice_in_one_answer() -> None:
    told = history(run("a", 0, END, X, X), spans=(life(0.0),))
    assert kinds(check(told, BOUNDS)) == [("twice", "a")]


@pytest.mark.parametrize(("gap", "found"), [(0.9, []), (1.1, [("silent", "a")])])
def test_silence(gap: float, found: list[object]) -> None:
    told = history(run("a", 0, 10), run("a", 10 + gap, END))
    assert kinds(check(told, BOUNDS)) == found
    assert kinds(check(history(run("a", 0, 10), end=10 + gap), BOUNDS)) == found
    assert kinds(check(history(run("a", gap, END)), BOUNDS)) == found


def test_a_resolver_that_never_answers_is_silent() -> None:
    told = replace(history(run("a", 0, END)), hosts=("a", "b"))
    assert kinds(check(told, BOUNDS)) == [("silent", "b")]


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([(1.0, 5), (2.0, 6), (3.0, 9)], []),
        ([(1.0, 5), (2.0, 4)], [("back", "a")]),
        # Sent before the answer with the higher one came: they may have crossed.
        ([(1.0, 5), (1.0005, 4)], []),
        ([(1.0, 5), (1.0005, 9), (2.0, 7)], [("back", "a")]),
    ],
)
def test_revisions_do_not_go_back(times: list[tuple[float, int]], found: list[object]) -> None:
    serials = tuple(Serial("a", at, at + 0.001, n) for at, n in times)
    told = history(run("a", 0, END), serials=serials)
    assert kinds(check(told, BOUNDS)) == found


# Faults ---------------------------------------------------------------------------------------


def three(*odd: Run, dead: float = END) -> list[Run]:
    """Runs of a, b and c that answer X until `dead`, but for the hosts of `odd`."""
    runs = list(odd)
    for host in {"a", "b", "c"} - {one.host for one in odd}:
        runs.append(run(host, 0, min(dead + 0.1, END), X))
        if dead < END:
            runs.append(run(host, dead + 0.11, END))
    return runs


def test_a_killed_daemon_may_be_silent_but_the_others_keep_its_containers() -> None:
    fault = (Fault("discod killed", "a", 10, 15),)
    silent = (run("a", 0, 10, X), run("a", 15.2, END, X))
    told = history(*three(*silent), spans=(life(0.1),), faults=fault)
    assert not check(told, BOUNDS).violations
    assert kinds(check(replace(told, faults=[]), BOUNDS)) == [("silent", "a")]
    dropped = (run("b", 0, 11, X), run("b", 11.01, 14), run("b", 14.01, END, X))
    told = history(*three(*silent, *dropped), spans=(life(0.1),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("missing", "b")]


def test_what_dies_unseen_is_out_soon_after_the_daemon_is_back() -> None:
    fault = (Fault("discod killed", "a", 10, 15),)
    for gone, found in ((15.9, []), (16.5, [("wrong", "b")])):
        runs = three(run("b", 0, gone, X), run("b", gone + 0.01, END), dead=12.0)
        told = history(*runs, spans=(life(0.1, 12.0),), faults=fault)
        assert kinds(check(told, BOUNDS)) == found
    # What was dead for long before the fault is not excused.
    runs = three(run("b", 0, 12, X), run("b", 12.01, END), dead=8.0)
    told = history(*runs, spans=(life(0.1, 8.0),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("wrong", "b")]


def test_a_frozen_daemon_may_be_taken_for_a_dead_one() -> None:
    fault = (Fault("discod frozen", "a", 10, 11),)
    for back, found in ((11 + HOST_BACK - 0.1, []), (11 + HOST_BACK + 0.1, [("missing", "b")])):
        runs = three(run("b", 0, 10.5, X), run("b", 10.51, back), run("b", back + 0.01, END, X))
        told = history(*runs, spans=(life(0.1),), faults=fault)
        assert kinds(check(told, BOUNDS)) == found


@pytest.mark.parametrize("kind", ["etcd killed", "etcd frozen"])
def test_a_member_of_etcd_delays_starts_and_nothing_else(kind: str) -> None:
    fault = (Fault(kind, "b", 10, 14),)
    late = 14 + STORE_BACK + 2.0
    for seen, found in ((late - 0.1, []), (late + 0.2, [("missing", "a")])):
        runs = [run("a", 0, seen), run("a", seen + 0.01, END, X)]
        assert kinds(check(history(*runs, spans=(life(12.0),), faults=fault), BOUNDS)) == found
    runs = three(run("c", 0, 14, X), run("c", 14.01, END), dead=12.0)
    told = history(*runs, spans=(life(0.1, 12.0),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("wrong", "c")]
    runs = three(run("c", 0, 12, X), run("c", 12.01, 12.5), run("c", 12.51, END, X))
    told = history(*runs, spans=(life(0.1),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("missing", "c")]


def test_a_host_that_is_cut_off_still_has_its_own_right() -> None:
    fault = (Fault("host cut off", "a", 10, 14),)
    mine, theirs = life(0.1, 12.0), life(0.1, 12.0, Y, "b")
    gone = 14 + STORE_BACK

    def told(a: float, b: float) -> History:
        """X of a leaves a's answers at `a`, and b's at `b`; Y of b the other way round."""
        return history(
            run("a", 0, a, X, Y), run("a", a + 0.01, b, Y), run("a", b + 0.01, END),
            run("b", 0, a, X, Y), run("b", a + 0.01, b, X), run("b", b + 0.01, END),
            spans=(mine, theirs), faults=fault,
        )  # fmt: skip

    assert not check(told(12.1, gone), BOUNDS).violations
    assert kinds(check(told(13.5, gone), BOUNDS)) == [("wrong", "a"), ("wrong", "b")]
    assert kinds(check(told(12.1, gone + 1.5), BOUNDS)) == [("wrong", "a"), ("wrong", "b")]
    # Either may leave the other's out, but not its own.
    lost = history(
        run("a", 0, 10.1, X, Y), run("a", 10.11, 11), run("a", 11.01, END, X, Y),
        run("b", 0, 10.1, X, Y), run("b", 10.11, 11, Y), run("b", 11.01, END, X, Y),
        spans=(life(0.1), life(0.1, address=Y, host="b")), faults=fault,
    )  # fmt: skip
    assert [(v.kind, v.host, X in v.text) for v in check(lost, BOUNDS).violations] == [
        ("missing", "a", True)
    ]


def test_an_engine_that_is_down_excuses_its_own_starts() -> None:
    fault = (Fault("engine killed", "a", 10, 14),)
    runs = [run("a", 0, 16.5), run("a", 16.51, END, X)]
    assert not check(history(*runs, spans=(life(12.0),), faults=fault), BOUNDS).violations
    runs = [run("a", 0, 17.5), run("a", 17.51, END, X)]
    told = history(*runs, spans=(life(12.0),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("missing", "a")]


def test_what_only_the_engine_knows_may_wait_for_its_return() -> None:
    fault = (Fault("engine killed", "a", 10, 14),)
    for gone, found in ((15.9, []), (16.1, [("wrong", "a")])):
        runs = [run("a", 0, gone, X), run("a", gone + 0.01, END)]
        told = history(*runs, spans=(life(0.1, 14.0),), faults=fault)
        assert kinds(check(told, BOUNDS)) == found
    runs = [run("a", 0, 14, X), run("a", 14.01, END)]  # one that died while it was down: at once
    told = history(*runs, spans=(life(0.1, 12.0),), faults=fault)
    assert kinds(check(told, BOUNDS)) == [("wrong", "a")]


def test_every_fault_of_the_plan_has_its_excuses() -> None:
    for kind in (*FAULTS, "engine killed"):
        assert excuses(Fault(kind, "a", 0, 1), "abc")
    with pytest.raises(ValueError, match="meteor"):
        excuses(Fault("meteor", "a", 0, 1), "abc")


# The parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        ((2, 3), [(0, 2), (3, 4), (6, 9)]),
        ((3, 7), [(0, 3), (7, 9)]),
        ((-1, 20), []),
        ((4, 6), [(0, 4), (6, 9)]),
        ((-1, 1), [(1, 4), (6, 9)]),
    ],
)
def test_intervals(cut: tuple[float, float], left: list[tuple[float, float]]) -> None:
    assert without([(0, 4), (6, 9)], cut) == left


def test_the_slice_tells_what_happened_around_and_no_more() -> None:
    told = history(
        run("a", 0, 20.1, X), run("a", 20.11, 23), run("a", 23.01, 23.2, X), run("a", 23.21, END),
        run("a", 22, END, service="db"),
        spans=(life(0.1, 20.0),), faults=(Fault("etcd killed", "b", 19, 24),),
    )  # fmt: skip
    violation = next(v for v in check(told, BOUNDS).violations if v.kind == "wrong")
    text = around(told, violation)
    for words in ("FAULT etcd killed b begins", "was killed", f"ANSWER of a: {X}", "VIOLATION"):
        assert words in text
    assert "db" not in text
    assert len(text.splitlines()) < 12


def test_a_plan_is_a_function_of_its_seed() -> None:
    first = plan(7, 60)
    assert first == plan(7, 60)
    assert first != plan(8, 60)
    assert [step.at for step in first] == sorted(step.at for step in first)


def test_plans_hold_only_what_can_be_done() -> None:
    """Each slot goes from one state to a next that exists; and every step occurs."""
    seen = set()
    for seed in range(40):
        full: dict[tuple[str, str], bool] = {}
        for step in plan(seed, 60):
            seen.add(step.what)
            assert 0 < step.at < 60
            if step.slot:
                assert step.slot in SLOTS
                assert full.get((step.host, step.slot), False) == (step.what != "start")
                full[step.host, step.slot] = step.what != "remove"
    assert seen >= {
        *FAULTS, "start", "crash", "stop", "remove", "pause", "unpause", "disconnect", "connect",
        "again", "sicken", "cure", "engine killed",
    }  # fmt: skip


def test_the_serial_is_read_out_of_an_answer() -> None:
    head = struct.pack("!HHHHHH", 1, 0x8400, 1, 1, 0, 0)
    question = b"\x06discod\x08internal\x00" + struct.pack("!HH", SOA, 1)
    data = b"\x02ns\xc0\x0c" + b"\x0ahostmaster\xc0\x0c" + struct.pack("!IIIII", 77, 1, 2, 3, 0)
    answer = b"\xc0\x0c" + struct.pack("!HHIH", SOA, 1, 0, len(data)) + data
    assert soa_serial(head + question + answer) == 77
    assert soa_serial(struct.pack("!HHHHHH", 1, 0x8402, 1, 0, 0, 0) + question) is None
