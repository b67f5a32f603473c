"""What each feature of discod costs, and what a second worker brings.

Rule: a daemon for each variant, all running at once, measured in interleaved rounds: what differs
is one setting. Rotation and the counting of metrics have no switch; they are in every figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks import dns_table
from benchmarks.dns_catalog import catalog
from benchmarks.dns_discod import FEATURES, Discod
from benchmarks.dns_load import Outcome
from benchmarks.dns_query import MIXES
from benchmarks.dns_rig import SERVICES, Rig, median_ratio
from benchmarks.results import figure
from tests.lab.daemon import Value

_OFF: Mapping[str, Value] = {
    "rate_limit": 0,
    "cookies": False,
    "allow": ["0.0.0.0/0", "::/0"],
}
BASE = "ACL open, no limit, no cookies"
VARIANTS: Mapping[str, Mapping[str, Value]] = {
    BASE: _OFF,
    "and an ACL": {"rate_limit": 0, "cookies": False},
    "and a rate limit": {**_OFF, "rate_limit": FEATURES["rate_limit"]},
    "and cookies": {**_OFF, "cookies": True},
    "and answer_limit = 1": {**_OFF, "answer_limit": 1},
    "all but answer_limit": FEATURES,
}
LOADS = ("mixed", "edns", "nxdomain", "known")
WORKERS = (1, 2)
SOCKETS = 32
"""Enough for the kernel to share them out evenly among workers."""


def features(rig: Rig) -> None:
    """Each feature alone against none of them."""
    services = catalog(SERVICES)
    lines = []
    with ExitStack() as stack:
        servers: dict[str, Discod] = {}
        for title, dns in VARIANTS.items():
            rig.say(f"starting discod, {title}")
            servers[title] = stack.enter_context(
                rig.discod(services=services, dns=dns, title=title)
            )
        for load in LOADS:
            rig.say(f"features, {MIXES[load].title}")
            found: dict[str, list[Outcome]] = {title: [] for title in servers}
            for _ in range(rig.rounds):
                for title in rig.rng.sample(list(servers), len(servers)):
                    limit = VARIANTS[title].get("answer_limit")
                    limited = limit is not None and MIXES[load].answers > 0
                    answers = limit if limited else None
                    found[title].append(rig.closed(servers[title], load, answers=answers))
            lines += [
                _feature(rig, load, title, outcomes, found[BASE])
                for title, outcomes in found.items()
            ]
    headings = ("load", "discod with", "k q/s", "CPU us/q", "CPU ratio", "wrong")
    rig.tables.append(dns_table.plain("What features cost", headings, lines))
    rig.notes.append(
        f"CPU ratio: to {BASE!r}, round by round; rotation and metrics are in every figure, as"
        " neither has a switch."
    )


def _feature(
    rig: Rig, load: str, title: str, outcomes: list[Outcome], base: list[Outcome]
) -> tuple[str, ...]:
    case = f"features, {MIXES[load].title}: {title}"
    rate = rig.add(case, "answered", "k q/s", [o.rate / 1e3 for o in outcomes])
    cost = rig.add(case, "processor time", "us/q", [o.cost for o in outcomes])
    ratio = median_ratio([o.cost for o in outcomes], [o.cost for o in base])
    rig.add(case, "times none of them", "ratio", [ratio])
    wrong = sum(o.wrong for o in outcomes)
    return (
        MIXES[load].title,
        title,
        figure(rate.median),
        figure(cost.median),
        f"{ratio:.2f}",
        str(wrong),
    )


def workers(rig: Rig) -> None:
    """One worker against two, with everything left to the kernel's scheduler."""
    services = catalog(SERVICES)
    found: dict[int, list[Outcome]] = {number: [] for number in WORKERS}
    with ExitStack() as stack:
        servers = {
            number: stack.enter_context(rig.discod(services=services, workers=number, pinned=False))
            for number in WORKERS
        }
        there = {number: len(server.workers()) for number, server in servers.items()}
        rig.say(f"workers {there}")
        for _ in range(rig.rounds):
            for number in rig.rng.sample(WORKERS, len(WORKERS)):
                outcome = rig.closed(servers[number], "edns", core=None, sockets=SOCKETS, window=16)
                found[number].append(outcome)
    lines = []
    for number, outcomes in found.items():
        case = f"workers: {number}"
        rate = rig.add(case, "answered", "k q/s", [o.rate / 1e3 for o in outcomes])
        cost = rig.add(case, "processor time", "us/q", [o.cost for o in outcomes])
        ratio = median_ratio([o.rate for o in outcomes], [o.rate for o in found[1]])
        rig.add(case, "times one worker", "ratio", [ratio])
        possible = 1e3 / statistics.median(o.cost for o in outcomes) * number
        lines.append(
            (
                f"{number} ({there[number]} seen)",
                figure(rate.median),
                figure(cost.median),
                f"{ratio:.2f}",
                figure(possible),
            )
        )
    headings = ("dns.workers", "k q/s", "CPU us/q", "ratio", "k q/s if each had a core")
    rig.tables.append(dns_table.plain("Workers, no process pinned", headings, lines))
    rig.notes.append(
        "Workers: the load shares the same cores, so two workers on two cores cannot double it;"
        " the last column is what their processor time would allow."
    )
