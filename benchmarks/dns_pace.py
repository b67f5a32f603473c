"""The open loop: how long answers take over UDP while queries come at a fixed rate.

Rule: queries leave by the clock, whatever comes back. A query's time runs from the moment before
its system call until its answer is in our socket, by the kernel's own note (socket(7),
SO_TIMESTAMPNS): what this process does meanwhile is in no figure. Only where it was held up within
a send, its queries are left out, and counted. Runs in a process of its own, started by `dns_child`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import dns_place
from benchmarks.dns_load import ANSWER_MAX, WARM, Checker, learn
from benchmarks.dns_mmsg import TIMESTAMPNS, Arena, Runs, datagram, recvmmsg
from benchmarks.dns_query import MIXES, SLOTS, ring
from benchmarks.results import percentile

SOCKETS = 8
"""Their rings together hold what a stall of tens of milliseconds leaves under way."""
BURST = 16
"""Queries that leave with one system call at most, to catch up with the clock."""
HELD_UP = 0.0003
"""Seconds that a send may take: several times what it does take."""
LEFT_BEHIND = 0.01
"""Seconds behind the clock after which what was not sent is not made up for."""


@dataclass(slots=True)
class Times:
    """What one load found; latencies in seconds."""

    seconds: float = 0.0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    wrong: int = 0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    longest: float = 0.0
    left_out: int = 0
    """Queries of which nobody knows when they left."""
    behind: int = 0
    """Times that this process came too late to make up for."""


class _Port:
    __slots__ = ("fd", "next", "number", "open", "runs", "sock", "stamps")

    def __init__(self, sock: socket.socket, number: int, runs: Runs) -> None:
        self.sock, self.fd, self.number, self.runs = sock, sock.fileno(), number, runs
        self.next = 0
        self.open = bytearray(SLOTS)
        self.stamps = [0.0] * SLOTS


def paced(
    server: str,
    mix: str,
    services: int,
    seconds: float,
    rate: float,
    *,
    tick: float = 0.0,
    pids: Sequence[int] = (),
    seed: int = 1,
    answers: int | None = None,
) -> dict[str, Any]:
    """Ask `server` `rate` times a second for `seconds` after a warm-up; `Times` as a dictionary.

    With a `tick` this process sleeps that many seconds between two looks, which leaves most of its
    core to others; what is due meanwhile leaves together. Without, it never sleeps.
    """
    asked = MIXES[mix]
    ports = []
    for number in range(SOCKETS):
        sock = datagram(dns_place.client_address(number), server, dns_place.PORT)
        made = ring(asked, services, number, seed, run=1, cookie=learn(sock, asked, number))
        sock.setsockopt(socket.SOL_SOCKET, TIMESTAMPNS, 1)
        ports.append(_Port(sock, number, Runs(made.packets, made.runs, 1)))
    arena = Arena(64, ANSWER_MAX, stamped=True)
    checker = Checker(asked, answers)
    times = Times()
    samples: list[float] = []
    clock = time.time  # the kernel's notes are by this clock
    gap = 1 / rate
    due = clock()
    begin = due + WARM
    end = begin + seconds
    warm, cpu, turn = False, 0.0, 0

    while True:
        now = clock()
        if not warm and now >= begin:
            warm, cpu = True, dns_place.busy(pids)
            times, samples = Times(), []
        if now >= end:
            break
        if now - due > LEFT_BEHIND:
            times.behind += 1
            due = now
        while now >= due:
            port = ports[turn]
            turn = (turn + 1) % SOCKETS
            first = port.next
            count = min(int((now - due) / gap) + 1, BURST, SLOTS - first)
            left = clock()
            taken = port.runs.send(port.fd, first, count)
            left_out = clock() - left > HELD_UP
            times.left_out += taken * left_out
            port.stamps[first : first + taken] = [0.0 if left_out else left] * taken
            times.lost += port.open[first : first + taken].count(1)
            port.open[first : first + taken] = b"\1" * taken
            port.next = (first + taken) % SLOTS
            times.sent += taken
            due += taken * gap
        for port in ports:
            count = recvmmsg(port.fd, arena.headers, arena.count, socket.MSG_DONTWAIT, None)
            if count <= 0:
                continue
            times.wrong += checker.wrong(arena, count)
            slots, stamps = port.open, port.stamps
            columns = arena.column(0, count), arena.column(1, count), arena.stamps(count)
            for high, low, at in zip(*columns, strict=True):
                slot = (high & 3) << 8 | low
                if not slots[slot] or high >> 2 != port.number:
                    continue
                slots[slot] = 0
                if stamps[slot] >= begin:
                    samples.append(at - stamps[slot])
        if tick:
            time.sleep(tick)

    times.cpu = dns_place.busy(pids) - cpu
    times.seconds = clock() - begin
    # What left in the last moments may still be on its way: it is neither answered nor lost.
    times.answered = len(samples)
    if samples:
        times.p50, times.p99 = percentile(samples, 0.5), percentile(samples, 0.99)
        times.p999, times.longest = percentile(samples, 0.999), max(samples)
    return asdict(times)
