"""What the demo shows, in order.

Rule: every line that looks like output is output: real dockerds, etcds, digs and discods, and times
measured by asking each resolver every millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmarks.failover import Act, crash, pause, sicken, stop
from tests.lab import sweep
from tests.lab.daemon import until
from tests.lab.dnspoll import Answer
from tests.lab.dockerd import IMAGE, health
from tests.lab.engine import Box
from tests.lab.rig import DOMAIN, Host, Lab, offer

LOOK = 1.2
"""Seconds to let a person read."""
FAST, SLOW = 25.0, 250.0
"""Milliseconds up to which a time is shown in green, and in yellow."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One container that is going to leave."""

    title: str
    command: str
    """What is done, with ``{pid}`` for its main process."""
    act: Act
    host: str
    note: str
    healthcheck: bool = False


SCENES = (
    Scene("crash", "kill -9 {pid}", crash, "a", "its main process; seen through a pidfd"),
    Scene("stop", "docker stop -t 1 web-stop", stop, "b", "withdrawn before the process ends"),
    Scene("pause", "docker pause web-pause", pause, "c", "frozen is not serving"),
    Scene(
        "unhealthy",
        "docker exec web-unhealthy touch /sick",
        sicken,
        "a",
        "from its HEALTHCHECK's verdict",
        healthcheck=True,
    ),
)


def tell(console: Console) -> None:
    """Show everything; leaves nothing behind."""
    console.print()
    console.rule("[bold]discod[/]: what runs is in DNS, what ended is not")
    began = time.monotonic()
    lab = Lab(3, lease_ttl=10)
    with _step(console, "three hosts in network namespaces, each with dockerd, etcd and discod"):
        lab.__enter__()
    try:
        _hosts(console, lab)
        stays = _services(console, lab)
        _answers(console, lab)
        times = _leaving(console, lab, stays)
        _why(console, lab)
        _results(console, lab, times)
    finally:
        lab.__exit__(None, None, None)
    left = sweep.leftovers(lab.name)
    said = f"[red]left behind: {left}[/]" if left else "nothing is left on this machine"
    took = time.monotonic() - began
    console.print(f"\n[dim]Everything is taken down; {said}. {took:.0f} s.[/]", highlight=False)


def _chapter(console: Console, title: str) -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left")


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    took = f"[dim]({time.monotonic() - start:.1f} s)[/]"
    console.print(f"[green]✓[/] {what} {took}", highlight=False)


def _prompt(console: Console, host: str, command: str) -> None:
    line = f"[bold cyan]{host}[/] [dim]#[/] [bold]{escape(command)}[/]"
    console.print(line, soft_wrap=True, highlight=False)


def _hosts(console: Console, lab: Lab) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("host", "on the LAN", "its containers"):
        table.add_column(heading)
    for host in lab.hosts:
        table.add_row(f"[bold cyan]{host.name}[/]", host.leg.ipv4, host.leg.pods4)
    console.print(table)
    time.sleep(LOOK)


def _services(console: Console, lab: Lab) -> list[tuple[Host, Box]]:
    _chapter(console, "1. Containers say what they are")
    boxes = []
    for host in lab.hosts:
        host.engine.client.tag(IMAGE, "web", "latest")
        labels = offer("web", port_name="http")
        words = "".join(f" -l {key}={value}" for key, value in labels.items())
        _prompt(console, host.name, f"docker run -d{words} web")
        boxes.append((host, host.engine.box(f"web-{host.name}", labels, image="web")))
    wanted = [address for _, box in boxes for address in (box.ipv4, box.ipv6)]
    with _step(console, "on each host, web has all three"):
        lab.everywhere("web", wanted)
    time.sleep(LOOK)
    return boxes


def _answers(console: Console, lab: Lab) -> None:
    _chapter(console, "2. Every host answers from its own memory, TTL 0")
    for host in lab.hosts:
        _prompt(console, host.name, f"dig +short web.{DOMAIN}")
        console.print("  ".join(host.dig("web")), highlight=False)
    last = lab.hosts[-1]
    _prompt(console, last.name, f"dig +short SRV _http._tcp.web.{DOMAIN}")
    for line in last.dig("_http._tcp.web", "SRV"):
        console.print(line, highlight=False)
    address = lab.hosts[0].dig("web")[0]
    _prompt(console, last.name, f"dig +short -x {address}")
    console.print("\n".join(last.dig_ptr(address)), highlight=False)
    command = ("busybox", "wget", "-qO-", f"http://{address}:8080/")
    _prompt(console, last.name, " ".join(command))
    console.print(last.space.sh(*command).strip(), highlight=False)
    time.sleep(LOOK)


def _leaving(
    console: Console, lab: Lab, stays: list[tuple[Host, Box]]
) -> list[tuple[Scene, dict[str, float]]]:
    _chapter(console, "3. Four ways to go, asked of every resolver each millisecond")
    found = []
    for scene in SCENES:
        host = lab[scene.host]
        how: dict[str, Any] = (
            {"healthcheck": health("test", "!", "-e", "/sick")} if scene.healthcheck else {}
        )
        name = f"web-{scene.title}"
        box = host.engine.box(name, offer("web", port_name="http"), **how)
        _prompt(console, host.name, scene.command.format(pid=box.pid))
        times = _measure(lab, host, box, scene.act)
        shown = "   ".join(f"{key} {_ms(value)}" for key, value in times.items())
        console.print(f"  out of DNS on  {shown}   [dim]{scene.note}[/]", highlight=False)
        found.append((scene, times))
        # The others were never touched: the service as such went on answering.
        until(lambda: len(lab.hosts[0].dig("web")) == len(stays))
        time.sleep(LOOK / 2)
    return found


def _measure(lab: Lab, host: Host, box: Box, act: Act) -> dict[str, float]:
    def gone(answer: Answer) -> bool:
        return box.ipv4 not in answer.addresses

    with lab.poller("web") as poller:
        poller.wait(lambda answer: not gone(answer), deadline=20)
        time.sleep(0.3)
        at = act(lab, host, box)
        times = poller.wait(gone, after=at, deadline=20)
    return {name: (when - at) * 1e3 for name, when in times.items()}


def _why(console: Console, lab: Lab) -> None:
    _chapter(console, "4. Why is it not in DNS?")
    other = lab.hosts[-1]
    _prompt(console, other.name, "discod explain web-crash")
    console.print(other.discod.cli("explain", "web-crash").stdout.rstrip(), highlight=False)
    time.sleep(LOOK)


def _results(console: Console, lab: Lab, times: list[tuple[Scene, dict[str, float]]]) -> None:
    _chapter(console, "5. Time out of DNS, milliseconds")
    table = Table(header_style="bold")
    table.add_column("what happened")
    table.add_column("where")
    for host in lab.hosts:
        table.add_column(f"gone on {host.name}", justify="right")
    for scene, found in times:
        cells = [_ms(found[host.name]) for host in lab.hosts]
        table.add_row(scene.title, scene.host, *cells)
    console.print(table)
    console.print(
        "[dim]All three hosts share this machine's cores. `make bench-failover` has the medians and"
        " the tails, and Docker's embedded DNS beside them.[/]"
    )


def _ms(value: float) -> str:
    color = "green" if value <= FAST else "yellow" if value <= SLOW else "red"
    return f"[{color}]{value:.1f} ms[/]"
