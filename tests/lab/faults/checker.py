"""Whether what the resolvers answered fits what was true: the history checker.

Rule: knows recorded times only, all of one monotonic clock, in seconds. A query's answer was made
at some moment between its sending and its receiving, and a container came or went at some moment
between two times; what can be explained by *some* such moments is no violation. A fault excuses
what `excuses` says it may hide, and nothing else. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

INF = math.inf
STORE_BACK = 5.0
"""Seconds after a fault of the store or the network until news flow again: an election takes 1 to
3, a broken watch is noticed after 5 at most, most of which pass during the fault."""
ENGINE_BACK = 1.0
"""Seconds from the engine's return until discod follows its events again; with the bound of an end
it is what is promised, 2 s."""
CATCH_UP = 0.25
"""Seconds that something may show up for that came and went while the store told no news: it tells
both then, one after the other."""
HOST_BACK = 1.0
"""Seconds from a host's daemon going on until the others trust the host again."""


@dataclass(frozen=True, slots=True)
class Run:
    """Equal answers of one resolver about one service, none more than `Bounds.gap` after another.

    Of its first and its last query: when it was sent, when its answer came.
    """

    host: str
    service: str
    addresses: tuple[str, ...]
    first_sent: float
    first_got: float
    last_sent: float
    last_got: float


@dataclass(frozen=True, slots=True)
class Span:
    """One time during which a container belonged into DNS."""

    host: str
    service: str
    container: str
    address: str
    may_from: float
    """Not before this."""
    since: float
    """Certainly from then on."""
    until: float = INF
    """Certainly until then."""
    may_until: float = INF
    """Not after this."""
    end: str = ""
    """What ended it."""


@dataclass(frozen=True, slots=True)
class Serial:
    """The first answer with this serial after one with another."""

    host: str
    sent: float
    got: float
    serial: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to a host other than to its containers; `end`: taken back, and working."""

    kind: str
    host: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Note:
    """A line for people."""

    at: float
    text: str


class Excuse(Enum):
    """What may happen during a fault."""

    LATE = "what came then is not yet in"
    STALE = "what went then is still in"
    DROP = "what is there may be out"
    SILENT = "no answers"


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which some resolvers are excused for the endpoints of some hosts."""

    start: float
    end: float
    resolvers: frozenset[str]
    owners: frozenset[str]
    what: frozenset[Excuse]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds.

    Attributes:
        wrong: How long after its end an endpoint may be named.
        missing: How long after its start one may be omitted.
        silent: How long a resolver may give no answer.
        gap: Longest time between two queries of one `Run`.
    """

    wrong: float
    missing: float
    silent: float
    gap: float = 0.15


@dataclass(slots=True)
class History:
    """All that was recorded."""

    hosts: tuple[str, ...]
    services: tuple[str, ...]
    begin: float
    end: float
    runs: list[Run] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    serials: list[Serial] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Violation:
    """An answer, or the lack of one, that nothing explains."""

    kind: str
    """``wrong``, ``missing``, ``silent``, ``twice`` or ``back``."""
    host: str
    service: str
    at: float
    seconds: float
    """Beyond the bound."""
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the checker found. `wrong`, `missing`, `silent`: the worst, in seconds, excuses aside
    and within the bounds as well."""

    violations: tuple[Violation, ...]
    wrong: float
    missing: float
    silent: float


def excuses(fault: Fault, hosts: Iterable[str]) -> list[Window]:
    """What a fault may hide.

    Raises:
        ValueError: no such kind of fault.
    """
    everyone = frozenset(hosts)
    own = frozenset({fault.host})
    others = everyone - own
    late, stale = frozenset({Excuse.LATE}), frozenset({Excuse.LATE, Excuse.STALE})
    start, end = fault.start, fault.end
    match fault.kind:
        case "discod killed" | "discod restarted":
            # Its resolver is silent, and nobody tells the others of its containers; but those that
            # they know stay in.
            return [
                Window(start, end, own, everyone, stale | {Excuse.SILENT}),
                Window(start, end, everyone, own, stale),
            ]
        case "discod frozen":
            # It does not answer those who look after it either: they may leave its containers out.
            return [
                Window(start, end, own, everyone, stale | {Excuse.SILENT}),
                Window(start, end, everyone, own, stale),
                Window(start, end + HOST_BACK, others, own, frozenset({Excuse.DROP})),
            ]
        case "etcd killed" | "etcd frozen":
            # Ends are told by hints, starts by the store alone.
            return [Window(start, end + STORE_BACK, everyone, everyone, late)]
        case "host cut off":
            end += STORE_BACK
            drop = stale | {Excuse.DROP}
            return [
                Window(start, end, own, others, drop),
                Window(start, end, others, own, drop),
                # It took a member of etcd with it. Of its own containers it may lack the new ones.
                Window(start, end, everyone, everyone, late),
            ]
        case "machine busy":  # who asks had to wait for a processor, as those who answer do
            return [Window(start, end, everyone, everyone, stale | {Excuse.SILENT})]
        case "engine killed":
            # What only the engine knows (a pause, a network) waits until it is asked again.
            back = end + ENGINE_BACK
            return [
                Window(start, back, everyone, own, late),
                Window(end, back, everyone, own, stale),
            ]
    raise ValueError(fault.kind)


def postponed(
    at: float, bound: float, windows: Iterable[Window], what: Excuse, resolver: str, owner: str
) -> float:
    """From when `bound` counts for what happened at `at`: the end of the excuses that it met.

    One that begins while the bound still runs counts as well.
    """
    for window in windows:  # by their starts
        if (
            what in window.what
            and resolver in window.resolvers
            and owner in window.owners
            and window.start - bound <= at < window.end
        ):
            at = window.end
    return at


Interval = tuple[float, float]


def without(pieces: list[Interval], cut: Interval) -> list[Interval]:
    """Intervals less one interval."""
    left: list[Interval] = []
    for start, end in pieces:
        if cut[1] <= start or cut[0] >= end:
            left.append((start, end))
            continue
        if start < cut[0]:
            left.append((start, cut[0]))
        if cut[1] < end:
            left.append((cut[1], end))
    return left


class Checker:
    """Checks one history.

    Args:
        history: What was recorded.
        bounds: What is promised.
    """

    def __init__(self, history: History, bounds: Bounds) -> None:
        self._history = history
        self._bounds = bounds
        self._windows = sorted(
            (w for fault in history.faults for w in excuses(fault, history.hosts)),
            key=lambda window: window.start,
        )
        self._runs: dict[tuple[str, str], list[Run]] = {
            (host, service): [] for host in history.hosts for service in history.services
        }
        for run in history.runs:
            self._runs[run.host, run.service].append(run)
        self._spans: dict[tuple[str, str], list[Span]] = {}
        for span in history.spans:
            self._spans.setdefault((span.service, span.address), []).append(span)
        self._found: list[Violation] = []
        self._worst = {"wrong": 0.0, "missing": 0.0, "silent": 0.0}

    def check(self) -> Report:
        """Everything."""
        for (host, service), runs in self._runs.items():
            for run in runs:
                self._named(run)
            self._silence(host, service, runs)
        for span in self._history.spans:
            for host in self._history.hosts:
                self._omitted(span, host)
        self._revisions()
        self._found.sort(key=lambda violation: violation.at)
        return Report(tuple(self._found), **self._worst)

    def _report(
        self, kind: str, host: str, service: str, at: float, seconds: float, text: str
    ) -> None:
        self._found.append(Violation(kind, host, service, at, seconds, text))

    # What an answer names ---------------------------------------------------------------------

    def _named(self, run: Run) -> None:
        if len(set(run.addresses)) != len(run.addresses):
            text = f"names an address twice: {run.addresses}"
            self._report("twice", run.host, run.service, run.first_sent, 0.0, text)
        for address in set(run.addresses):
            pieces: list[Interval] = [(run.first_sent, run.last_sent + 1e-9)]
            excess = pieces
            for span in self._spans.get((run.service, address), ()):
                over = postponed(
                    span.may_until, self._bounds.wrong, self._windows, Excuse.STALE, run.host,
                    span.host,
                )  # fmt: skip
                # An answer may have been made any time until it came.
                begin = span.may_from - (run.first_got - run.first_sent)
                caught_up = self._caught_up(span, run)
                pieces = without(pieces, (begin, max(over + self._bounds.wrong, caught_up)))
                excess = without(excess, (begin, max(over, caught_up)))
            bad = self._certain(pieces, run)
            late = self._certain(excess, run)
            if late:
                self._note("wrong", max(end for _, end in late) - min(at for at, _ in late))
            if bad:
                at, end = bad[0][0], bad[-1][1]
                text = f"names {address}: {self._story(run.service, address, at)}"
                self._report("wrong", run.host, run.service, at, end - at, text)

    def _caught_up(self, span: Span, run: Run) -> float:
        """Until when a run may name what began *and* ended without news; see `CATCH_UP`."""
        news = postponed(span.since, 0.0, self._windows, Excuse.LATE, run.host, span.host)
        if news == span.since or span.may_until > news:
            return -INF
        return min(news, run.first_sent + CATCH_UP)

    def _certain(self, pieces: list[Interval], run: Run) -> list[Interval]:
        """Pieces of a run in which a query was certainly sent."""
        return [
            (start, end)
            for start, end in pieces
            if end - start >= self._bounds.gap or start == run.first_sent or end > run.last_sent
        ]

    def _story(self, service: str, address: str, at: float) -> str:
        begun = [s for s in self._spans.get((service, address), ()) if s.may_from <= at]
        if begun:
            last = max(begun, key=lambda span: span.may_from)
            told = f"{last.container} on {last.host} {last.end} {at - last.may_until:.3f} s before"
        else:
            told = "it was nobody's of this service"
        now = [
            span.service
            for span in self._history.spans
            if span.address == address and span.since <= at < span.until
        ]
        return told + (f"; it is {now[0]}'s now" if now else "")

    # What an answer lacks ---------------------------------------------------------------------

    def _omitted(self, span: Span, host: str) -> None:
        bound = self._bounds.missing
        due = postponed(span.since, bound, self._windows, Excuse.LATE, host, span.host)
        runs = self._runs[host, span.service]
        at = max(0, bisect_left(runs, due, key=lambda run: run.last_sent))
        for run in runs[at:]:
            if run.first_sent >= span.until:
                break
            if span.address in run.addresses:
                continue
            # What was asked before its end may have been answered after it.
            end = min(run.last_sent, span.until - (run.last_got - run.last_sent)) + 1e-9
            late = self._undropped((max(run.first_sent, due), end), host, span)
            if late := self._certain(late, run):
                self._note("missing", late[-1][1] - due if late[0][0] - due < bound else 0.0)
            bad = self._undropped((max(run.first_sent, due + bound), end), host, span)
            if bad := self._certain(bad, run):
                seconds = bad[-1][1] - bad[0][0]
                self._note("missing", seconds)
                text = (
                    f"lacks {span.address} of {span.container} on {span.host}, "
                    f"up for {bad[0][0] - span.since:.3f} s; has {run.addresses}"
                )
                self._report("missing", host, span.service, bad[0][0], seconds, text)

    def _undropped(self, piece: Interval, host: str, span: Span) -> list[Interval]:
        pieces = [piece] if piece[0] < piece[1] else []
        for window in self._windows:
            if (
                Excuse.DROP in window.what
                and host in window.resolvers
                and span.host in window.owners
            ):
                pieces = without(pieces, (window.start, window.end))
        return pieces

    # Whether it answers -----------------------------------------------------------------------

    def _silence(self, host: str, service: str, runs: Sequence[Run]) -> None:
        heard = self._history.begin
        gaps = []
        for run in runs:
            gaps.append((heard, run.first_got))
            heard = run.last_got
        gaps.append((heard, self._history.end))
        for start, end in gaps:
            if end - start <= self._bounds.gap:
                continue
            pieces = [(start, end)]
            for window in self._windows:
                if Excuse.SILENT in window.what and host in window.resolvers:
                    pieces = without(pieces, (window.start, window.end))
            for at, to in pieces:
                self._note("silent", to - at)
                if to - at > self._bounds.silent:
                    over = to - at - self._bounds.silent
                    text = f"no answer for {to - at:.3f} s"
                    self._report("silent", host, service, at, over, text)

    def _revisions(self) -> None:
        for host in self._history.hosts:
            highest, known = 0, 0
            serials = [one for one in self._history.serials if one.host == host]
            for one in serials:
                # Only what was received before this was asked is certainly older.
                while serials[known].got <= one.sent:
                    highest = max(highest, serials[known].serial)
                    known += 1
                if one.serial < highest:
                    text = f"revision {one.serial} after {highest}"
                    self._report("back", host, "", one.got, 0.0, text)

    def _note(self, what: str, seconds: float) -> None:
        self._worst[what] = max(self._worst[what], seconds)


def check(history: History, bounds: Bounds) -> Report:
    """Check a history."""
    return Checker(history, bounds).check()


def around(history: History, violation: Violation, before: float = 4.0, after: float = 2.0) -> str:
    """What happened around a violation: operations, engines' events, faults, and what this host
    answered about this service; times are seconds since the history's begin."""
    start, end = violation.at - before, violation.at + min(violation.seconds, 2.0) + after
    lines = [note for note in history.notes if start <= note.at <= end]
    for fault in history.faults:
        if fault.start <= end and fault.end >= start:
            words = f"FAULT {fault.kind} {fault.host}"
            lines.append(Note(fault.start, f"{words} begins"))
            lines.append(Note(fault.end, f"{words} ends"))
    for span in history.spans:
        if span.service == violation.service and span.may_from <= end and span.may_until >= start:
            words = f"TRUTH {span.container} {span.address} on {span.host}"
            lines.append(Note(span.since, f"{words} is up"))
            if span.may_until < INF:
                lines.append(Note(span.may_until, f"{words} {span.end}"))
    for run in history.runs:
        mine = run.host == violation.host and run.service == violation.service
        if mine and run.first_got <= end and run.last_got >= start:
            words = f"ANSWER of {run.host}: {', '.join(run.addresses) or 'nothing'}"
            lines.append(Note(run.first_got, f"{words} (until {run.last_got - history.begin:.3f})"))
    told = f"{violation.kind} on {violation.host}, {violation.service}: {violation.text}"
    lines.append(Note(violation.at, f"VIOLATION {told}"))
    lines.sort(key=lambda note: note.at)
    return "\n".join(f"{note.at - history.begin:9.3f}  {note.text}" for note in lines)
