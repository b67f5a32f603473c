"""The closed loop over TCP: connections that always have so many queries under way.

Rule: as `dns_load`, on streams: each answer is taken out of its frame (RFC 1035, section 4.2.2),
checked, and replaced by the next query. Runs in a process of its own, started by `dns_child`.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from benchmarks import dns_place
from benchmarks.dns_load import DRAIN, WARM, Outcome
from benchmarks.dns_query import MIXES, SLOTS, Mix, Ring, ring

TIMEOUT = 2.0
"""Seconds for a connection to be made, and for the first answer."""
RECEIVE = 65536


def framed(made: Ring) -> tuple[bytes, list[int]]:
    """A ring's queries, each behind its length, and where each begins (and the last one ends)."""
    frames, starts = bytearray(), [0]
    for run in made.runs:
        for start in range(run.start, run.start + made.length * run.size, run.size):
            frames += run.size.to_bytes(2, "big") + made.packets[start : start + run.size]
            starts.append(len(frames))
    return bytes(frames), starts


class Connection:
    """One connection and what is under way on it."""

    def __init__(self, sock: socket.socket, number: int, made: Ring) -> None:
        self.sock = sock
        self.under_way = 0
        self._number = number
        self._frames, self._starts = framed(made)
        self._open = bytearray(SLOTS)
        self._next = 0
        self._unsent = b""
        self._rest = b""

    def send(self, count: int, outcome: Outcome) -> None:
        """Send `count` more queries, as far as the kernel takes them now."""
        while count:
            some = min(count, SLOTS - self._next)
            first, self._next = self._next, (self._next + some) % SLOTS
            outcome.lost += self._open[first : first + some].count(1)
            self._open[first : first + some] = b"\1" * some
            self._unsent += self._frames[self._starts[first] : self._starts[first + some]]
            outcome.sent += some
            self.under_way += some
            count -= some
        self.flush()

    def flush(self) -> None:
        """Send what the kernel did not take before."""
        if self._unsent:
            with suppress(BlockingIOError):  # the next look at this connection tries again
                self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def take(self, mix: Mix, outcome: Outcome) -> int:
        """Take what has come; how many answers it was.

        Raises:
            ConnectionError: the server closed it.
        """
        try:
            chunk = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return 0
        if not chunk:
            raise ConnectionError("the server closed a connection")
        data = self._rest + chunk if self._rest else chunk
        at, end, known, opened = 0, len(data), 0, self._open
        while end - at >= 2:
            size = data[at] << 8 | data[at + 1]
            if end - at - 2 < size:
                break
            high, low, flags, rcode = data[at + 2 : at + 6]
            slot = (high & 3) << 8 | low
            if opened[slot] and high >> 2 == self._number:
                opened[slot] = 0
                known += 1
            else:
                outcome.stray += 1
            if flags & 0x82 != 0x80 or rcode & 15 != mix.rcode or data[at + 9] != mix.answers:
                outcome.wrong += 1
                outcome.wrong_packet = data[at + 2 : at + 162].hex()
            at += 2 + size
        self._rest = data[at:]
        self.under_way -= known
        outcome.answered += known
        return known


def connect(server: str, number: int) -> socket.socket:
    """A connection from the client with this number.

    Raises:
        OSError: it was not made in time.
    """
    source = (dns_place.client_address(number), 0)
    sock = socket.create_connection((server, dns_place.PORT), TIMEOUT, source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def stream(
    server: str,
    mix: str,
    services: int,
    seconds: float,
    *,
    connections: int,
    window: int = 32,
    pids: Sequence[int] = (),
    seed: int = 1,
) -> dict[str, Any]:
    """Load `server` over TCP for `seconds` after a warm-up; an `Outcome` as a dictionary."""
    asked = MIXES[mix]
    outcome = Outcome()
    poll = select.epoll()
    found: dict[int, Connection] = {}
    for number in range(connections):
        made = ring(asked, services, number, seed, run=1)
        one = Connection(connect(server, number), number, made)
        found[one.sock.fileno()] = one
        poll.register(one.sock.fileno(), select.EPOLLIN)
        one.send(window, outcome)
    clock = time.perf_counter
    start = clock()
    begin = start + WARM
    end = begin + seconds
    warm, cpu, own = False, 0.0, 0.0
    while True:
        for fd, _ in poll.poll(0.01):
            one = found[fd]
            if known := one.take(asked, outcome):
                one.send(known, outcome)
            else:
                one.flush()
        now = clock()
        if not warm and now >= begin:
            warm = True
            outcome.sent = sum(one.under_way for one in found.values())
            outcome.answered = outcome.lost = outcome.stray = 0
            start, cpu, own = clock(), dns_place.busy(pids), time.process_time()
        elif now >= end:
            break
    outcome.cpu = dns_place.busy(pids) - cpu
    outcome.own_cpu = time.process_time() - own
    outcome.seconds = clock() - start
    counted = outcome.answered
    deadline = clock() + DRAIN
    while any(one.under_way for one in found.values()) and clock() < deadline:
        for fd, _ in poll.poll(0.01):
            found[fd].take(asked, outcome)
    outcome.lost += sum(one.under_way for one in found.values())
    outcome.answered = counted
    for one in found.values():
        one.sock.close()
    poll.close()
    return asdict(outcome)
