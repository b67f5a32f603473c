"""discod while its catalog changes, and with a large one: real etcd, real records; a worker alone.

Rule: what is compared was measured in the same run, quiet and busy rounds in turn. The load, the
writer, etcd and the daemon's other half share the core that is not the server's.
"""

from __future__ import annotations

import re
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks import dns_place, dns_table
from benchmarks.dns_catalog import service_name
from benchmarks.dns_child import Child, call
from benchmarks.dns_discod import Discod
from benchmarks.dns_etcd import LARGE, TRANSACTIONS
from benchmarks.dns_feeder import STEPS, FedWorker
from benchmarks.dns_load import Outcome
from benchmarks.dns_pace import Times
from benchmarks.dns_query import SRV, A, asked_name, query
from benchmarks.dns_rig import Rig, Server, asked, median_ratio
from benchmarks.results import figure
from tests.lab.daemon import until
from tests.lab.etcd import EtcdCluster

EACH = 3
CHURN_SERVICES = 3333
CHURN_RATE = 1000
"""Changes a second."""
TICK = 0.00025
"""Seconds that the latency load sleeps between two looks: the other half needs its core as well."""
SCALE_SERVICES = 33_000
SCALE_LARGE = 1000
"""Endpoints of one further service."""
SAMPLE = 33
"""Services that have to be answered for the first answers to count."""
CHANGES = 20


def _etcd() -> EtcdCluster:
    # It is compacted only by age, and this run is short: room for all that is written.
    return EtcdCluster(1, options=["--quota-backend-bytes=4294967296"])


def _favoured(cluster: EtcdCluster, core: int) -> None:
    for member in cluster.members:
        assert member.process is not None
        dns_place.favour(member.process.pid)
        dns_place.pin(member.process.pid, [core])


def _fill(ends: Sequence[str], services: int, large: int) -> None:
    arguments = {"endpoints": list(ends), "services": services, "each": EACH, "large": large}
    call("benchmarks.dns_etcd:fill", None, timeout=300, **arguments)


def churn(rig: Rig) -> None:
    """10,000 endpoints of which 1,000 change each second, while load runs."""
    seconds = 4.0 if rig.short else 10.0
    rounds = 2 if rig.short else 3
    quiet: list[Outcome] = []
    busy: list[Outcome] = []
    quiet_times: list[Times] = []
    busy_times: list[Times] = []
    written: list[dict[str, Any]] = []
    seen: list[float] = []
    with _etcd() as cluster:
        _favoured(cluster, rig.load_core)
        ends = list(cluster.endpoints)
        rig.say("churn: writing the catalog")
        _fill(ends, CHURN_SERVICES, 1)
        with rig.discod(endpoints=ends) as server:
            for number in range(rounds):
                rig.say(f"churn: round {number + 1} of {rounds}")
                quiet.append(_throughput(rig, server, seconds, _others(server, cluster)))
                rate = dns_table.median_rate(quiet) / 2
                quiet_times.append(_times(rig, server, seconds, rate))
                with Child(
                    "benchmarks.dns_etcd:churn",
                    rig.load_core,
                    endpoints=ends,
                    services=CHURN_SERVICES,
                    each=EACH,
                    rate=CHURN_RATE,
                    seconds=2 * seconds + 8,
                    seed=number,
                ) as writer:
                    writer.line()
                    others = {**_others(server, cluster), "writer": [writer.process.pid]}
                    busy.append(_throughput(rig, server, seconds, others))
                    busy_times.append(_times(rig, server, seconds, rate))
                    seen += _seen(rig, server, ends, CHURN_SERVICES * EACH, 5)["sent"]
                    written.append(writer.result(timeout=60))
    _report_churn(rig, quiet, busy, quiet_times, busy_times, written, seen)


def _others(server: Discod, cluster: EtcdCluster) -> dict[str, list[int]]:
    """Whose processor time is told apart; the worker is the daemon where there is none."""
    return {
        "worker": server.workers() or [server.daemon.pid],
        "daemon": [server.daemon.pid],
        "etcd": [m.process.pid for m in cluster.members if m.process],
    }


def _throughput(
    rig: Rig, server: Discod, seconds: float, others: Mapping[str, Sequence[int]]
) -> Outcome:
    return rig.closed(server, "edns", services=CHURN_SERVICES, seconds=seconds, others=others)


def _times(rig: Rig, server: Server, seconds: float, rate: float) -> Times:
    return rig.paced(server, "edns", rate, services=CHURN_SERVICES, seconds=seconds, tick=TICK)


def _seen(rig: Rig, server: Discod, ends: list[str], first: int, runs: int) -> dict[str, Any]:
    found: dict[str, Any] = call(
        "benchmarks.dns_etcd:changes_seen",
        rig.load_core,
        timeout=60 + runs,
        endpoints=ends,
        server=server.address,
        first=first,
        runs=runs,
    )
    return found


def _report_churn(
    rig: Rig,
    quiet: Sequence[Outcome],
    busy: Sequence[Outcome],
    quiet_times: Sequence[Times],
    busy_times: Sequence[Times],
    written: Sequence[dict[str, Any]],
    seen: Sequence[float],
) -> None:
    _compare(rig, "churn", "all on two cores", quiet, busy, quiet_times, busy_times)
    achieved = [w["changes"] / w["seconds"] for w in written]
    rig.add("churn: writer", "changes written", "1/s", achieved)
    rig.add("churn: writer", "change seen in answers", "ms", [s * 1e3 for s in seen])
    rig.notes.append(
        f"Churn: {min(achieved):.0f} to {max(achieved):.0f} changes/s were written, in"
        f" {TRANSACTIONS} transactions/s; a change was"
        f" seen in answers after {statistics.median(seen) * 1e3:.1f} ms (worst"
        f" {max(seen) * 1e3:.1f}) while the others went on. Queries leave each {TICK * 1e3:g} ms"
        f" there. While changing, of a core each: {_shares(busy)}. Where the core that is not the"
        " server's is full, the load is what ends first, and smaller batches are dearer: see the"
        " worker alone."
    )


def fed(rig: Rig) -> None:
    """The same for a worker alone, told by a feeder that takes little of the load's core."""
    seconds = 4.0 if rig.short else 10.0
    rounds = 3 if rig.short else 5
    outcomes: dict[bool, list[Outcome]] = {False: [], True: []}
    times: dict[bool, list[Times]] = {False: [], True: []}
    rig.say("fed: starting a worker")
    server = FedWorker(
        rig.address(), rig.cores, services=CHURN_SERVICES, each=EACH, rate=CHURN_RATE
    )
    try:
        rig.answering(server)
        dns_place.widen(server.pids())
        # Each change draws a weight: nearly all services have some before the first quiet round.
        server.change(True)
        time.sleep(CHURN_SERVICES * EACH / CHURN_RATE)
        for number in range(rounds):
            rig.say(f"fed: round {number + 1} of {rounds}")
            for changing in (False, True):
                server.change(changing)
                found = rig.closed(
                    server,
                    "edns",
                    services=CHURN_SERVICES,
                    seconds=seconds,
                    others={"worker": server.pids(), "feeder": [server.feeder]},
                )
                outcomes[changing].append(found)
                rate = dns_table.median_rate(outcomes[False]) / 2
                times[changing].append(_times(rig, server, seconds, rate))
    finally:
        server.stop()
    _compare(
        rig, "fed", "a worker alone", outcomes[False], outcomes[True], times[False], times[True]
    )
    rig.notes.append(
        "A worker alone: no daemon, no etcd and no writer, but a feeder that tells it of changes as"
        f" a daemon does, in {STEPS} steps/s. While changing, of a core each:"
        f" {_shares(outcomes[True])}."
    )


def _compare(
    rig: Rig,
    prefix: str,
    title: str,
    quiet: Sequence[Outcome],
    busy: Sequence[Outcome],
    quiet_times: Sequence[Times],
    busy_times: Sequence[Times],
) -> None:
    """A table, and what became of the promises."""
    lines = [
        _line(rig, f"{prefix}: quiet", "quiet", quiet, quiet_times),
        _line(rig, f"{prefix}: changing", f"{CHURN_RATE} changes/s", busy, busy_times),
    ]
    headings = ("catalog", "k q/s", "worker us/q", "p50 ms", "p99 ms", "longest ms")
    title = f"{CHURN_SERVICES * EACH:,} endpoints, quiet and changing: {title}"
    rig.tables.append(dns_table.plain(title, (*headings, "lost", "wrong", "left out"), lines))
    ratio = median_ratio([o.rate for o in busy], [o.rate for o in quiet])
    rig.add(f"{prefix}: changing", "throughput to quiet", "ratio", [ratio])
    rig.goal(f"{prefix}: throughput at least 0.8 of quiet", f"{ratio:.2f}", ratio >= 0.8)
    worst = statistics.median(t.p99 for t in busy_times) * 1e3
    rig.goal(f"{prefix}: p99 under 3 ms", f"{worst:.2f} ms", worst < 3)
    longest = max(t.longest for t in busy_times) * 1e3
    rig.goal(f"{prefix}: no stall over 10 ms", f"{longest:.1f} ms", longest <= 10)


def _line(
    rig: Rig, case: str, title: str, outcomes: Sequence[Outcome], times: Sequence[Times]
) -> tuple[str, ...]:
    rate = rig.add(case, "answered", "k q/s", [o.rate / 1e3 for o in outcomes])
    rig.add(case, "processor time, all processes", "us/q", [o.cost for o in outcomes])
    cost = rig.add(case, "processor time, worker", "us/q", [_cost(o) for o in outcomes])
    for who in outcomes[0].shares:
        rig.add(case, f"{who} busy", "%", [o.shares[who] * 100 for o in outcomes])
    rig.add(case, "load busy", "%", [o.own_cpu / o.seconds * 100 for o in outcomes])
    rig.add(case, "lost", "%", [o.loss * 100 for o in outcomes])
    p50 = rig.add(case, "p50 at half load", "ms", [t.p50 * 1e3 for t in times])
    p99 = rig.add(case, "p99 at half load", "ms", [t.p99 * 1e3 for t in times])
    longest = rig.add(case, "longest at half load", "ms", [t.longest * 1e3 for t in times])
    left_out = sum(t.left_out for t in times) / max(sum(t.answered for t in times), 1)
    rig.add(case, "left out of the times", "%", [left_out * 100])
    return (
        title,
        figure(rate.median),
        figure(cost.median),
        figure(p50.median),
        figure(p99.median),
        figure(longest.max),
        f"{sum(o.lost for o in outcomes) + sum(t.lost for t in times)}",
        f"{sum(o.wrong for o in outcomes) + sum(t.wrong for t in times)}",
        f"{left_out:.1%}",
    )


def _cost(outcome: Outcome) -> float:
    """Microseconds of the worker's time for one answer, applying changes included."""
    return outcome.shares["worker"] * outcome.seconds / max(outcome.answered, 1) * 1e6


def _shares(outcomes: Sequence[Outcome]) -> str:
    told = {who: statistics.median(o.shares[who] for o in outcomes) for who in outcomes[0].shares}
    told["load"] = statistics.median(o.own_cpu / o.seconds for o in outcomes)
    return ", ".join(f"{who} {share:.0%}" for who, share in told.items())


def scale(rig: Rig) -> None:
    """100,000 endpoints: the start, one change, and memory."""
    endpoints = SCALE_SERVICES * EACH + SCALE_LARGE
    with _etcd() as cluster:
        _favoured(cluster, rig.load_core)
        ends = list(cluster.endpoints)
        rig.say("scale: an empty daemon")
        _fill(ends, 1, 0)
        with rig.discod(endpoints=ends) as server:
            time.sleep(2)
            empty = _memory(server)
        rig.say("scale: writing the catalog")
        _fill(ends, SCALE_SERVICES, SCALE_LARGE)
        first: list[float] = []
        whole: list[float] = []
        for number in range(1 if rig.short else 3):
            rig.say(f"scale: start {number + 1}")
            with rig.discod(endpoints=ends, ready=False, pinned=False) as server:
                began = time.time()
                answered = _first_answers(server)
                first.append(answered - _catalog_made(server))
                whole.append(answered - began)
                if number:
                    continue
                server.daemon.wait_ready(60)
                server.cores = rig.cores
                server.settle()
                dns_place.widen(server.pids())
                time.sleep(2)
                full = _memory(server)
                rig.say("scale: changes")
                seen = _seen(rig, server, ends, SCALE_SERVICES * EACH, CHANGES)
                rig.say("scale: every service asked")
                _sweep(server)
                swept = _memory(server)
                load = rig.closed(server, "edns", services=SCALE_SERVICES)
    lines = _report_scale(rig, first, whole, seen, load)
    for place, key in (("worker", 0), ("daemon", 1)):
        for state, found in (("loaded", full), ("every service asked", swept)):
            each = (found[key] - empty[key]) / endpoints
            rig.add(f"scale: {place}, {state}", "memory an endpoint", "octets", [each])
            lines.append((f"{place}: memory an endpoint, {state}", f"{each:,.0f} octets"))
    each = (swept[0] - empty[0]) / endpoints
    text = "scale: worker under 700 octets an endpoint, all asked"
    rig.goal(text, f"{each:,.0f}", 0 < each < 700)
    title = f"{endpoints:,} endpoints in {SCALE_SERVICES:,} services and one of {SCALE_LARGE:,}"
    rig.tables.append(dns_table.plain(title, ("what", "found"), lines))
    rig.notes.append(
        "Scale: first answers are counted from the daemon's log line that its Catalog is made"
        f" ('store connected') until {SAMPLE} services from end to end are all answered; a change"
        " from before its write to etcd until the service's answer over UDP has it. Memory: what"
        " is the process's own, less that of a daemon with one service."
    )


def _report_scale(
    rig: Rig,
    first: Sequence[float],
    whole: Sequence[float],
    seen: dict[str, list[float]],
    load: Outcome,
) -> list[tuple[str, str]]:
    start = rig.add("scale: start", "Catalog to first answers", "s", first)
    cold = rig.add("scale: start", "process to first answers", "s", whole)
    sent = rig.add("scale: change", "written to seen", "ms", [s * 1e3 for s in seen["sent"]])
    stored = rig.add("scale: change", "stored to seen", "ms", [s * 1e3 for s in seen["stored"]])
    rate = rig.add("scale: load", "answered", "k q/s", [load.rate / 1e3])
    rig.goal("scale: first answers within 1 s", f"{start.median:.2f} s", start.median < 1)
    rig.goal(
        f"scale: change of {SCALE_LARGE:,} endpoints seen within 5 ms",
        f"{sent.median:.1f} ms",
        sent.median < 5,
    )
    return [
        ("Catalog to first answers", f"{start.median:.2f} s"),
        ("process to first answers", f"{cold.median:.1f} s"),
        (f"one of {SCALE_LARGE:,} endpoints changed, written to seen", f"{sent.median:.2f} ms"),
        ("the same, from etcd's acknowledgement", f"{stored.median:.2f} ms"),
        ("the worst of those, written to seen", f"{sent.max:.2f} ms"),
        ("answered, as in the first table", f"{figure(rate.median)} k q/s"),
    ]


def _first_answers(server: Discod) -> float:
    """Unix time when a sample of services, from end to end, is answered."""
    step = max(SCALE_SERVICES // (SAMPLE - 1), 1)
    sample = [service_name(min(n * step, SCALE_SERVICES - 1)) for n in range(SAMPLE)]

    def answered() -> bool:
        server.check()
        return all(asked(server.address, name) == EACH for name in sample)

    until(answered, deadline=120, step=0.001, what="first answers")
    return time.time()


def _catalog_made(server: Discod) -> float:
    """Unix time at which the daemon's log says that its Catalog is made."""
    found = re.search(r"^(\S+)Z info discod\.keeper \"store connected\"", server.daemon.log, re.M)
    assert found is not None, server.daemon.log
    return datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC).timestamp()


def _memory(server: Discod) -> tuple[int, int]:
    """Octets of the workers together, and of the daemon."""
    return sum(map(dns_place.resident, server.workers())), dns_place.resident(server.daemon.pid)


def _sweep(server: Discod) -> None:
    """Ask for every service once, A and SRV, so that all is compiled that ever will be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((dns_place.client_address(0), 0))
        sock.connect((server.address, dns_place.PORT))
        sock.settimeout(5.0)
        names = [service_name(n) for n in range(SCALE_SERVICES)] + [LARGE]
        for place in range(0, len(names), 32):
            batch = names[place : place + 32]
            for name in batch:
                for type_ in (A, SRV):
                    sock.send(query(1, asked_name(type_, name), type_, edns=True))
            for _ in range(2 * len(batch)):
                sock.recv(4096)
