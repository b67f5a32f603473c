"""The closed loop: how many queries a second a server answers over UDP, and at what cost.

Rule: each socket keeps a window of queries under way and sends a new run when a run's worth of
answers is in. Every answer is checked (id, QR, TC, rcode, ANCOUNT); a query that stays without one
is counted as lost. Runs in a process of its own, started by `dns_child`.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import dns_place
from benchmarks.dns_catalog import service_name
from benchmarks.dns_mmsg import (
    BUFFER,
    RCVBUFFORCE,
    WAITFORONE,
    Arena,
    Runs,
    datagram,
    recvmmsg,
    sendmmsg,
)
from benchmarks.dns_query import (
    COOKIE_SIZE,
    MIXES,
    SLOTS,
    Mix,
    asked_name,
    query,
    ring,
    server_cookie,
)

RUN = 8
"""Queries that leave together."""
WINDOW = 64
"""Queries under way on a socket; on 8 of them together milliseconds of work for any server."""
WARM = 0.5
"""Seconds of load before anything counts."""
SILENT = 1.0
"""Seconds without an answer after which what is under way on a socket is lost."""
NAP = 0.00003
"""Seconds of rest after a look at all sockets that brought little: fewer, larger batches cost the
measuring side less, and what is under way is worth many times as long."""
DRAIN = 0.5
"""Seconds for the last answers."""
ANSWER_MAX = 1280

_NIBBLE = bytes(n & 15 for n in range(256))
_FLAGS = bytes((n & 0x82) == 0x80 for n in range(256))
"""1 for a response (QR) that is whole (no TC)."""


@dataclass(slots=True)
class Outcome:
    """What one load found; times in seconds."""

    seconds: float = 0.0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    stray: int = 0
    """Answers to nothing that is under way: doubled, or after they were given up."""
    wrong: int = 0
    """Answers that say something else than the catalog does."""
    wrong_packet: str = ""
    """One of them, in hexadecimal."""
    no_cookies: bool = False
    """Cookies were wanted, and the server makes none."""
    cpu: float = 0.0
    """Of the server's processes."""
    own_cpu: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    """Of one core, that others used meanwhile."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of processor time for one answer."""
        return self.cpu / max(self.answered, 1) * 1e6

    @property
    def busy(self) -> float:
        """Share of the time in which the server ran; below 1 it waited for load, or for a core."""
        return self.cpu / self.seconds

    @property
    def loss(self) -> float:
        """Share of the queries that were never answered."""
        return self.lost / max(self.sent, 1)


class Checker:
    """Compares answers in an arena with what a mix expects, a column at a time."""

    def __init__(self, mix: Mix, answers: int | None = None) -> None:
        self._rcode = mix.rcode
        self._answers = mix.answers if answers is None else answers

    def wrong(self, arena: Arena, count: int) -> int:
        """How many of the first `count` packets are wrong, at least."""
        right = min(
            sum(arena.column(2, count).translate(_FLAGS)),
            arena.column(3, count).translate(_NIBBLE).count(self._rcode),
            arena.column(6, count).count(0),
            arena.column(7, count).count(self._answers),
        )
        return count - right


class Port:
    """One socket, its queries, and which of them are under way."""

    def __init__(self, sock: socket.socket, number: int, runs: Runs, window: int) -> None:
        self.fd = sock.fileno()
        self.number = number
        self.open = bytearray(SLOTS)
        self.next = 0
        self.under_way = 0
        self.heard = 0.0
        self._sock = sock
        self._runs = runs
        self._window = window
        self._ones = b"\1" * SLOTS
        self._zeros = bytes(SLOTS)

    def room(self) -> tuple[int, int]:
        """The runs that may be sent now: first, and how many up to the ring's end."""
        free = (self._window - self.under_way) // RUN
        return self.next, min(free, SLOTS // RUN - self.next)

    def send(self, count: int, outcome: Outcome) -> None:
        """Send `count` runs; what is still under way from the last time round is lost."""
        taken = self._runs.send(self.fd, self.next, count)
        if not taken:
            return
        first, last = self.next * RUN, (self.next + taken) * RUN
        given_up = self.open[first:last].count(1)
        self.open[first:last] = self._ones[: last - first]
        outcome.lost += given_up
        outcome.sent += last - first
        self.under_way += last - first - given_up
        self.next = (self.next + taken) % (SLOTS // RUN)

    def take(self, arena: Arena, count: int, outcome: Outcome) -> None:
        """Note the answers in `arena`."""
        slots, number = self.open, self.number
        known = 0
        pairs = zip(arena.column(0, count), arena.column(1, count), strict=True)
        for high, low in pairs:
            slot = (high & 3) << 8 | low
            if slots[slot] and high >> 2 == number:
                slots[slot] = 0
                known += 1
        self.under_way -= known
        outcome.answered += known
        outcome.stray += count - known

    def give_up(self, outcome: Outcome) -> None:
        """Count all that is under way as lost."""
        outcome.lost += self.open.count(1)
        self.open[:] = self._zeros
        self.under_way = 0


def learn(sock: socket.socket, mix: Mix, number: int) -> bytes:
    """The cookie of a known client; empty where the mix has none.

    Raises:
        TimeoutError: no answer.
    """
    if mix.cookie != "known":
        return b""
    client = number.to_bytes(COOKIE_SIZE, "big").replace(b"\0", b"\xc0")
    asked = query(number, asked_name(1, service_name(0)), 1, edns=True, cookie=client)
    sock.settimeout(2.0)
    sock.send(asked)
    answer = sock.recv(ANSWER_MAX)
    sock.setblocking(False)
    return server_cookie(answer, client)


def closed(
    server: str,
    mix: str,
    services: int,
    seconds: float,
    *,
    pids: Sequence[int] = (),
    others: Mapping[str, Sequence[int]] | None = None,
    sockets: int = 8,
    window: int = WINDOW,
    seed: int = 1,
    answers: int | None = None,
    check: bool = True,
) -> dict[str, Any]:
    """Load `server` for `seconds` after a warm-up; an `Outcome` as a dictionary."""
    rng = random.Random(seed)
    asked = MIXES[mix]
    rings, ports, outcome = [], [], Outcome()
    for number in range(sockets):
        sock = datagram(dns_place.client_address(number), server, dns_place.PORT)
        cookie = learn(sock, asked, number)
        outcome.no_cookies = 0 < len(cookie) <= COOKIE_SIZE
        made = ring(asked, services, number, seed, run=RUN, cookie=cookie)
        rings.append(made)
        ports.append(Port(sock, number, Runs(made.packets, made.runs, RUN), window))
    fresh = any(run.fresh for run in rings[0].runs)
    arena = Arena(window, ANSWER_MAX)
    checker = Checker(asked, answers) if check else None
    clock = time.perf_counter
    begin = clock() + WARM
    end = begin + seconds
    warm = False
    start, cpu, own = begin, 0.0, 0.0
    groups = others or {}
    used: dict[str, float] = {}
    for port in ports:
        port.heard = clock()

    while True:
        heard = 0
        for port, made in zip(ports, rings, strict=True):
            count = recvmmsg(port.fd, arena.headers, arena.count, socket.MSG_DONTWAIT, None)
            if count > 0:
                heard += count
                port.heard = clock()
                port.take(arena, count, outcome)
                if checker and (wrong := checker.wrong(arena, count)):
                    outcome.wrong += wrong
                    outcome.wrong_packet = bytes(arena.packets[:160]).hex()
            first, runs = port.room()
            if runs > 0:
                if fresh:
                    made.refresh(first, first + runs, rng)
                port.send(runs, outcome)
        now = clock()
        if heard < window * sockets // 4:
            for port in ports:
                if port.under_way and now - port.heard > SILENT:
                    port.give_up(outcome)
                    port.heard = now
            time.sleep(NAP)
        if not warm and now >= begin:
            warm = True
            outcome.sent = sum(port.under_way for port in ports)
            outcome.answered = outcome.lost = outcome.stray = 0
            used = {name: dns_place.busy(group) for name, group in groups.items()}
            start, cpu, own = clock(), dns_place.busy(pids), time.process_time()
        elif now >= end:
            break
    outcome.cpu = dns_place.busy(pids) - cpu
    outcome.own_cpu = time.process_time() - own
    outcome.seconds = clock() - start
    outcome.shares = {
        name: (dns_place.busy(group) - used[name]) / outcome.seconds
        for name, group in groups.items()
    }
    counted = outcome.answered
    _drain(ports, arena, outcome)
    outcome.answered = counted
    return asdict(outcome)


def _drain(ports: Sequence[Port], arena: Arena, outcome: Outcome) -> None:
    """Wait for what is still under way; what does not come is lost."""
    end = time.perf_counter() + DRAIN
    while any(port.under_way for port in ports) and time.perf_counter() < end:
        for port in ports:
            count = recvmmsg(port.fd, arena.headers, arena.count, socket.MSG_DONTWAIT, None)
            if count > 0:
                port.take(arena, count, outcome)
        time.sleep(0.001)
    for port in ports:
        port.give_up(outcome)


def echo(server: str) -> None:
    """Send every packet back as it came, for ever: what the machine lets through at most."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, BUFFER)
    sock.bind((server, dns_place.PORT))
    # One size for all, that of a usual answer, so that no length has to be copied.
    arena = Arena(256, 96)
    while True:
        count = recvmmsg(sock.fileno(), arena.headers, arena.count, WAITFORONE, None)
        if count > 0:
            sendmmsg(sock.fileno(), arena.headers, count, 0)
