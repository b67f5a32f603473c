"""The tables that a person reads: one line a server, one section a load.

Rule: figures are medians; what makes one doubtful stands beside it. Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks.dns_load import Outcome
from benchmarks.results import figure

C_SERVERS = ("nsd", "knot", "bind", "gdnsd", "dnsmasq")
BUSY_MIN = 0.9
"""Share below which the server was not the bottleneck: the load was, or somebody took its core."""

Rounds = Mapping[str, Sequence[Outcome]]
"""Server -> what each round found."""


def fastest(found: Rounds) -> str:
    """The C server with the highest median; empty without any."""
    here = [name for name in C_SERVERS if found.get(name)]
    return max(here, key=lambda name: median_rate(found[name]), default="")


def median_rate(outcomes: Sequence[Outcome]) -> float:
    """Answers a second."""
    return statistics.median(outcome.rate for outcome in outcomes)


def ratio(found: Rounds, name: str, base: str) -> float | None:
    """Median over the rounds of one server's rate to another's; None without either."""
    mine, other = found.get(name), found.get(base)
    if not mine or not other:
        return None
    return statistics.median(
        m.rate / o.rate for m, o in zip(mine, other, strict=True) if o.answered
    )


def doubts(outcomes: Sequence[Outcome], loss_max: float) -> str:
    """What stands against the figures of one server."""
    said = []
    if any(o.wrong for o in outcomes):
        said.append("WRONG ANSWERS")
    if any(o.no_cookies for o in outcomes):
        said.append("makes no cookies")
    if max(o.loss for o in outcomes) > loss_max:
        said.append("LOSSES")
    if statistics.median(o.busy for o in outcomes) < BUSY_MIN:
        said.append("unsaturated")
    return ", ".join(said)


def throughput(title: str) -> Table:
    """An empty table for `add_load`."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("load")
    table.add_column("server")
    for heading in ("k q/s", "min-max", "CPU us/q", "x NSD", "x fastest C", "busy", "lost"):
        table.add_column(heading, justify="right")
    table.add_column("")
    return table


def add_load(
    table: Table, load: str, found: Rounds, titles: Mapping[str, str], loss_max: float
) -> None:
    """Add one load's servers, the fastest first."""
    best = fastest(found)
    table.add_section()
    ordered = sorted((n for n in found if found[n]), key=lambda n: -median_rate(found[n]))
    for place, name in enumerate(ordered):
        outcomes = found[name]
        rates = [o.rate / 1e3 for o in outcomes]
        table.add_row(
            load if place == 0 else "",
            f"[bold]{titles[name]}[/]" if name == "discod" else titles[name],
            figure(statistics.median(rates)),
            f"{figure(min(rates))}-{figure(max(rates))}",
            figure(statistics.median(o.cost for o in outcomes)),
            shown(ratio(found, name, "nsd")),
            shown(ratio(found, name, best)),
            f"{statistics.median(o.busy for o in outcomes):.0%}",
            str(sum(o.lost for o in outcomes)),
            doubts(outcomes, loss_max),
        )


def shown(value: float | None) -> str:
    """A ratio, or nothing."""
    return "" if value is None else f"{value:.2f}"


def plain(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """A table of ready texts; the first column is words, the others figures."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right")
    for line in lines:
        table.add_row(*line)
    return table
