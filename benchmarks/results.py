"""What a benchmark found: rows, the table a person reads, the JSON a program reads.

Rule: every benchmark ends in `report`; nobody else prints a table or writes below `build/bench`.
The format is {"machine": {...}, "rows": [{"case", "metric", "unit", "n", "min", "median", "p99",
"max"}]}, with "notes" beside them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.lab.needs import missing

OUTPUT = Path("build/bench")

PACKAGES = ("trio", "grpcio", "etcd3", "dnslib", "docker", "hypercorn", "starlette")
PROGRAMS = {
    "dockerd": ("dockerd", "--version"),
    "etcd": ("etcd", "--version"),
    "dig": ("dig", "-v"),
    "nsd": ("nsd", "-v"),
    "knot": ("knotd", "-V"),
    "bind": ("named", "-v"),
    "gdnsd": ("dpkg-query", "-W", "-f", "${Version}", "gdnsd"),  # it does not say itself
    "dnsmasq": ("dnsmasq", "-v"),
    "bird": ("bird", "--version"),
    "frr": ("/usr/lib/frr/bgpd", "--version"),
    "gobgp": ("gobgpd", "--version"),
    "exabgp": ("exabgp", "--version"),
    "nft": ("nft", "--version"),
    "nginx": ("nginx", "-v"),
    "haproxy": ("haproxy", "-v"),
    "wrk": ("wrk", "-v"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity of one case."""

    case: str
    metric: str
    unit: str
    n: int
    min: float
    median: float
    p99: float
    max: float


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `share` of all do not exceed.

    With fewer than 100 samples the 99th is the largest.
    """
    ordered = sorted(samples)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def row(case: str, metric: str, unit: str, samples: Sequence[float]) -> Row:
    """Summarise samples.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError(f"{case}, {metric}: no samples")
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        n=len(samples),
        min=min(samples),
        median=statistics.median(samples),
        p99=percentile(samples, 0.99),
        max=max(samples),
    )


def machine() -> dict[str, str | int]:
    """The machine and the versions of everything that was in play."""
    facts: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for name, argv in PROGRAMS.items():
        facts[name] = _version(argv)
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def report(
    name: str,
    title: str,
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    *,
    tables: Sequence[Table] = (),
) -> Path:
    """Print the table and write ``build/bench/<name>.json``; returns that path.

    Where there are more rows than a person reads, `tables` are printed in their stead.
    """
    facts = machine()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 110
    for shown in tables or (table(title, rows),):
        console.print(shown)
    for note in notes:
        console.print(f"[dim]{note}[/]")
    console.print(
        f"[dim]{facts['cpu']}, {facts['cores']} cores; Linux {facts['kernel']}; {facts['python']};"
        f" dockerd {facts['dockerd']}, etcd {facts['etcd']}[/]"
    )
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"{name}.json"
    document = {"machine": facts, "rows": [asdict(r) for r in rows], "notes": list(notes)}
    path.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"[dim]written to {path}[/]")
    return path


def need_lab() -> None:
    """End the program with one sentence where the lab cannot be built."""
    if lack := missing():
        sys.exit(f"this benchmark cannot run: {lack}")


def table(title: str, rows: Sequence[Row]) -> Table:
    """The rows as a table; a case is named once."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("case", "metric"):
        shown.add_column(heading)
    for heading in ("n", "min", "median", "p99", "max", "unit"):
        shown.add_column(heading, justify="left" if heading == "unit" else "right")
    last = ""
    for r in rows:
        if last and r.case != last:
            shown.add_section()
        shown.add_row(
            r.case if r.case != last else "",
            r.metric,
            str(r.n),
            *(figure(value) for value in (r.min, r.median, r.p99, r.max)),
            r.unit,
        )
        last = r.case
    return shown


def figure(value: float) -> str:
    """A number with three digits that mean something."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(digits, 0), 4)}f}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(argv: Sequence[str]) -> str:
    if shutil.which(argv[0]) is None:
        return "not installed"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+\.\d+(?:\.\d+)?(?:[+~-][\w.]+)?", done.stdout + done.stderr)
    return found.group() if found else "unknown"
