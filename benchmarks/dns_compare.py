"""discod beside the C servers: throughput over UDP and TCP, and latency at half load.

Rule: rounds are interleaved: each round measures every server once, in a new order, before the next
round begins.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import dns_table, results
from benchmarks.dns_load import Outcome
from benchmarks.dns_pace import Times
from benchmarks.dns_query import MIXES
from benchmarks.dns_rig import LOSS_MAX, Rig, Server

SLOW = ("dnsmasq",)
"""Only in the first load, which says it all."""
LEFT_OUT = {
    "cookie": ("dnsmasq", "knot"),  # none; and BADCOOKIE to every new client, which is no answer
    "known": ("dnsmasq", "echo"),
}
TCP_LEFT_OUT = ("dnsmasq", "echo")
"""dnsmasq has a process for each connection; the echo has no TCP."""
CONNECTIONS = (1, 16)


def takes_part(server: Server, mix: str) -> bool:
    """Whether a server is measured with a mix."""
    if server.name in LEFT_OUT.get(mix, ()):
        return False
    return mix == "mixed" or server.name not in SLOW


def throughput(rig: Rig, servers: Sequence[Server]) -> None:
    """Every mix, every server: the closed loop over UDP."""
    table = dns_table.throughput("Answered over UDP, one core a server")
    titles = {server.name: server.title for server in servers}
    for mix in MIXES:
        rig.say(f"throughput, {MIXES[mix].title}")
        chosen = [server for server in servers if takes_part(server, mix)]
        found: dict[str, list[Outcome]] = {server.name: [] for server in chosen}
        for _ in range(rig.rounds):
            for server in rig.shuffled(chosen):
                found[server.name].append(rig.closed(server, mix))
        _keep(rig, f"UDP, {MIXES[mix].title}", found, titles)
        dns_table.add_load(table, MIXES[mix].title, found, titles, LOSS_MAX)
        if mix == "mixed":
            rig.capacity.update({n: dns_table.median_rate(o) for n, o in found.items()})
        _judge(rig, mix, found, titles)
    rig.tables.append(table)


def _keep(rig: Rig, case: str, found: dict[str, list[Outcome]], titles: dict[str, str]) -> None:
    best = dns_table.fastest(found)
    for name, outcomes in found.items():
        title = f"{case}: {titles[name]}"
        rig.add(title, "answered", "k q/s", [o.rate / 1e3 for o in outcomes])
        rig.add(title, "processor time", "us/q", [o.cost for o in outcomes])
        rig.add(title, "server busy", "%", [o.busy * 100 for o in outcomes])
        rig.add(title, "load busy", "%", [o.own_cpu / o.seconds * 100 for o in outcomes])
        rig.add(title, "lost", "%", [o.loss * 100 for o in outcomes])
        rig.add(title, "wrong or stray", "answers", [float(o.wrong + o.stray) for o in outcomes])
        for base in dict.fromkeys(("nsd", best)):
            if base and base in found:
                pairs = zip(outcomes, found[base], strict=True)
                rates = [o.rate / b.rate for o, b in pairs if b.answered]
                rig.add(title, f"times {titles[base]}", "ratio", rates)
        for outcome in outcomes:
            if outcome.wrong:
                rig.notes.append(f"{title}: a wrong answer was {outcome.wrong_packet}")
                break


def _judge(rig: Rig, mix: str, found: dict[str, list[Outcome]], titles: dict[str, str]) -> None:
    if "discod" not in found:
        return
    lost = sum(o.lost for o in found["discod"])
    rig.goal(f"{MIXES[mix].title}: nothing lost", f"{lost} lost", lost == 0)
    wanted: tuple[tuple[str, float], ...] = ()
    if mix in ("mixed", "edns"):
        wanted = (("nsd", 1.1), (dns_table.fastest(found), 0.8))
    elif mix == "nxdomain":
        wanted = (("gdnsd", 0.5),)
    for base, least in wanted:
        ratio = dns_table.ratio(found, "discod", base)
        if ratio is not None:
            text = f"{MIXES[mix].title}: at least {least} of {titles[base]}"
            rig.goal(text, f"{ratio:.2f}", ratio >= least)


def tcp(rig: Rig, servers: Sequence[Server]) -> None:
    """Pipelined queries over few and over many connections."""
    table = dns_table.throughput("Answered over TCP, 32 queries under way on each connection")
    titles = {server.name: server.title for server in servers}
    chosen = [server for server in servers if server.name not in TCP_LEFT_OUT]
    for connections in CONNECTIONS:
        rig.say(f"TCP, connections: {connections}")
        found: dict[str, list[Outcome]] = {server.name: [] for server in chosen}
        for _ in range(rig.rounds):
            for server in rig.shuffled(chosen):
                found[server.name].append(rig.stream(server, "mixed", connections))
        load = f"connections: {connections}"
        _keep(rig, f"TCP, {load}", found, titles)
        dns_table.add_load(table, load, found, titles, LOSS_MAX)
        ratio = dns_table.ratio(found, "discod", "knot")
        if ratio is not None:
            rig.goal(f"TCP, {load}: at least 1.5 of Knot", f"{ratio:.2f}", ratio >= 1.5)
    rig.tables.append(table)


def latency(rig: Rig, servers: Sequence[Server]) -> None:
    """How long answers take at half of what each server can do, and all at the same rate."""
    chosen = [server for server in servers if server.name not in SLOW]
    for server in chosen:
        if server.name not in rig.capacity:
            rig.capacity[server.name] = rig.closed(server, "mixed", seconds=1.0).rate
    same = min(rig.capacity[server.name] for server in chosen) / 2
    lines = []
    for label, rates in (
        ("half of its own", {s.name: rig.capacity[s.name] / 2 for s in chosen}),
        ("all the same", {s.name: same for s in chosen}),
    ):
        rig.say(f"latency, {label}")
        found: dict[str, list[Times]] = {server.name: [] for server in chosen}
        for _ in range(rig.rounds):
            for server in rig.shuffled(chosen):
                if server.name == "echo":
                    continue
                found[server.name].append(rig.paced(server, "mixed", rates[server.name]))
        lines += [
            _latency(rig, label, server, rates[server.name], found[server.name])
            for server in chosen
            if found[server.name]
        ]
        if found.get("discod") and found.get("gdnsd") and label == "half of its own":
            pairs = zip(found["discod"], found["gdnsd"], strict=True)
            ratio = statistics.median(mine.p50 / other.p50 for mine, other in pairs if other.p50)
            rig.goal("p50 at half load: at most 1.3 of gdnsd", f"{ratio:.2f}", ratio <= 1.3)
    headings = ("rate", "server", "k q/s", "p50 us", "p99 us", "p99.9 us", "longest us")
    rig.tables.append(
        dns_table.plain("Time to answer over UDP", (*headings, "lost", "left out"), lines)
    )
    rig.notes.append(
        "Time to answer: from the query's system call until its answer is in the client's socket,"
        " by the kernel's note. Left out: queries in whose sending the load itself was held up."
    )


def _latency(
    rig: Rig, label: str, server: Server, rate: float, found: Sequence[Times]
) -> tuple[str, ...]:
    case = f"latency, {label}: {server.title}"
    rows = [
        rig.add(case, name, "us", [getattr(times, key) * 1e6 for times in found])
        for name, key in (
            ("p50", "p50"),
            ("p99", "p99"),
            ("p99.9", "p999"),
            ("longest", "longest"),
        )
    ]
    answered = sum(times.answered for times in found)
    left_out = sum(times.left_out for times in found) / max(answered, 1)
    rig.add(case, "left out", "%", [left_out * 100])
    return (
        label,
        server.title,
        results.figure(rate / 1e3),
        *(results.figure(row.median) for row in rows),
        str(sum(times.lost for times in found)),
        f"{left_out:.1%}",
    )
