"""Ask several servers for one name, again and again, and keep what changed in their answers.

Rule: this is the lab's stopwatch. It sends raw queries and reads raw answers, so that what is
measured is the server and not a client library; times are `time.monotonic()`, which every process
of the machine shares. Only changes are kept, so it can run for minutes.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType

A, AAAA = 1, 28
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
MEMO_MAX = 4096
"""Distinct answers remembered as parsed; cleared when full."""


def query(name: str, qtype: int = A) -> bytes:
    """A query after its id: recursion desired, one question, no EDNS (RFC 1035, section 4.1)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.strip(".").split("."))
    return struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, qtype, 1)


def _after_name(packet: bytes, at: int) -> int:
    while packet[at]:
        if packet[at] >= 0xC0:
            return at + 2
        at += packet[at] + 1
    return at + 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, without the order of records."""

    rcode: int
    addresses: tuple[str, ...]
    """Sorted, and with duplicates if there are any."""


def parse(packet: bytes) -> Answer:
    """The answer in a response packet: its code, and its A and AAAA records.

    Raises:
        ValueError: the packet is no well-formed response.
    """
    try:
        _, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", packet)
        at = 12
        for _ in range(questions):
            at = _after_name(packet, at) + 4
        found: list[str] = []
        for _ in range(answers):
            at = _after_name(packet, at)
            rtype, _, _, length = struct.unpack_from("!HHIH", packet, at)
            data = packet[at + 10 : at + 10 + length]
            at += 10 + length
            if rtype == A:
                found.append(str(IPv4Address(data)))
            elif rtype == AAAA:
                found.append(str(IPv6Address(data)))
    except (struct.error, IndexError) as error:
        raise ValueError(f"malformed response: {packet[:64]!r}") from error
    return Answer(flags & 15, tuple(sorted(found)))


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer that differed from the one before it."""

    at: float
    answer: Answer


@dataclass(slots=True)
class Track:
    """One server's answers so far."""

    changes: list[Seen] = field(default_factory=list)
    answered: int = 0
    last_at: float = 0.0
    longest_silence: float = 0.0
    """Seconds, the longest time between two answers."""


@dataclass(slots=True)
class _Target:
    sock: socket.socket
    server: tuple[str, int]
    track: Track = field(default_factory=Track)
    raw: bytes = b""


class Poller:
    """Polls in a thread of its own from `__enter__` to `__exit__`.

    Args:
        servers: Name of each server -> (a UDP socket that can reach it, its address and port). The
            sockets are closed at the end.
        name: What to ask for.
        qtype: `A` or `AAAA`.
        interval: Seconds between two queries to one server: the resolution of every time seen.
    """

    def __init__(
        self,
        servers: Mapping[str, tuple[socket.socket, tuple[str, int]]],
        name: str,
        qtype: int = A,
        interval: float = 0.001,
    ) -> None:
        self._targets = {key: _Target(sock, server) for key, (sock, server) in servers.items()}
        self._query = query(name, qtype)
        self._interval = interval
        self._memo: dict[bytes, Answer] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"poll {name}", daemon=True)

    def __enter__(self) -> Poller:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        for target in self._targets.values():
            target.sock.close()
        if self._error is not None and error is None:
            raise self._error

    @property
    def tracks(self) -> Mapping[str, Track]:
        """Server -> what it has answered so far."""
        return {key: target.track for key, target in self._targets.items()}

    def first(
        self,
        key: str,
        fits: Callable[[Answer], bool],
        *,
        after: float = 0.0,
        deadline: float = 10.0,
    ) -> float:
        """When server `key` first gave an answer, not before `after`, that `fits`.

        Waits for it. An answer in force at `after` counts as given at `after`.

        Raises:
            TimeoutError: none within `deadline` seconds from now.
        """
        end = time.monotonic() + deadline
        track = self._targets[key].track
        with self._changed:
            while True:
                found = self._find(track, fits, after)
                if found is not None:
                    return found
                if self._error is not None:
                    raise self._error
                left = end - time.monotonic()
                if left <= 0:
                    last = track.changes[-1].answer if track.changes else None
                    raise TimeoutError(f"{key}: no such answer in {deadline} s; last: {last}")
                self._changed.wait(left)

    def wait(
        self, fits: Callable[[Answer], bool], *, after: float = 0.0, deadline: float = 10.0
    ) -> dict[str, float]:
        """`first` for every server."""
        return {k: self.first(k, fits, after=after, deadline=deadline) for k in self._targets}

    @staticmethod
    def _find(track: Track, fits: Callable[[Answer], bool], after: float) -> float | None:
        for n, seen in enumerate(track.changes):
            until = track.changes[n + 1].at if n + 1 < len(track.changes) else track.last_at
            if fits(seen.answer) and (seen.at >= after or until > after):
                return max(seen.at, after)
        return None

    def _run(self) -> None:
        try:
            self._poll()
        except BaseException as error:  # noqa: BLE001 - raised again in first() and __exit__
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _poll(self) -> None:
        with selectors.DefaultSelector() as selector:
            for target in self._targets.values():
                target.sock.setblocking(False)
                selector.register(target.sock, selectors.EVENT_READ, target)
            due = time.monotonic()
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._send(self._targets.values(), number)
                due = max(due + self._interval, time.monotonic())
                while True:
                    left = due - time.monotonic()
                    for key, _ in selector.select(max(left, 0)):
                        self._receive(key.data)
                    if left <= 0:
                        break

    def _send(self, targets: Iterable[_Target], number: int) -> None:
        packet = struct.pack("!H", number & 0xFFFF) + self._query
        for target in targets:
            try:
                target.sock.sendto(packet, target.server)
            except OSError:  # a refused or cut-off server is one that does not answer
                continue

    def _receive(self, target: _Target) -> None:
        while True:
            try:
                packet = target.sock.recv(4096)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody listens there now
                return
            now = time.monotonic()
            track = target.track
            track.answered += 1
            if track.last_at:
                track.longest_silence = max(track.longest_silence, now - track.last_at)
            body = packet[2:]
            if body != target.raw:
                target.raw = body
                answer = self._memo.get(body)
                if answer is None:
                    if len(self._memo) >= MEMO_MAX:
                        self._memo.clear()
                    answer = self._memo[body] = parse(packet)
                if not track.changes or track.changes[-1].answer != answer:
                    with self._changed:
                        track.changes.append(Seen(now, answer))
                        track.last_at = now
                        self._changed.notify_all()
            track.last_at = now


def ask(
    sock: socket.socket, server: tuple[str, int], name: str, qtype: int = A, timeout: float = 1.0
) -> Answer:
    """One query, and its answer.

    Raises:
        TimeoutError: no answer in `timeout` seconds.
        OSError: the server cannot be reached.
    """
    sock.settimeout(timeout)
    number = time.monotonic_ns() & 0xFFFF
    sock.sendto(struct.pack("!H", number) + query(name, qtype), server)
    while True:
        packet = sock.recv(4096)
        if packet[:2] == struct.pack("!H", number):
            return parse(packet)
