"""Recording of a history: what the resolvers answer and what the engines say, on one clock.

Rule: only takes down; what it means is the checker's. One thread asks all resolvers for all
services and for the zone's serial; one thread for each engine reads its events, whose times (the
engine's own, in nanoseconds of the wall clock) are put on the monotonic clock here.
"""

from __future__ import annotations

import json
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from tests.lab.dnspoll import MEMO_MAX, NOERROR, NXDOMAIN, Answer, parse, query
from tests.lab.faults.checker import Fault, History, Note, Run, Serial
from tests.lab.rig import DOMAIN, Host, full

SOA = 6
INTERVAL = 0.01
"""Seconds between two rounds of queries."""
BUSY = 0.15
"""Seconds between two rounds from which on the machine itself is at fault: whoever asks waits for a
processor, as those who answer do."""


def soa_serial(packet: bytes) -> int | None:
    """The serial in an answer to a question for SOA; None when it has none (RFC 1035, 3.3.13)."""

    def after_name(at: int) -> int:
        while packet[at]:
            if packet[at] >= 0xC0:
                return at + 2
            at += packet[at] + 1
        return at + 1

    answers = struct.unpack_from("!H", packet, 6)[0]
    if packet[3] & 15 != NOERROR or not answers:
        return None
    at = after_name(after_name(12) + 4)
    if struct.unpack_from("!H", packet, at)[0] != SOA:
        return None
    return int(struct.unpack_from("!I", packet, after_name(after_name(at + 10)))[0])


@dataclass(slots=True)
class _Open:
    """A run that still goes on."""

    answer: Answer
    first_sent: float
    first_got: float
    last_sent: float
    last_got: float


class Answers:
    """Asks every host for every service until its end, and keeps runs of equal answers.

    What is neither NOERROR nor NXDOMAIN is no answer.

    Args:
        hosts: Whose resolvers.
        services: What for.
        gap: Seconds between two queries, or from query to answer, that end a run.
    """

    def __init__(self, hosts: Sequence[Host], services: Sequence[str], gap: float) -> None:
        self._socks = {host.name: host.udp() for host in hosts}
        self._servers = {host.name: host.server for host in hosts}
        self._services = tuple(services)
        self._queries = [query(full(name)) for name in services]
        self._queries.append(query(f"{DOMAIN}.", SOA))
        self._gap = gap
        self._sent: dict[tuple[str, int], tuple[float, int]] = {}  # 65,536 a host at most
        self._open: dict[tuple[str, int], _Open] = {}
        self._serials: dict[str, int] = {}
        self._memo: dict[bytes, Answer] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self.runs: list[Run] = []
        self.serials: list[Serial] = []
        self.busy: list[Fault] = []
        self.notes: list[Note] = []

    def __enter__(self) -> Answers:
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
        for sock in self._socks.values():
            sock.close()
        for key in list(self._open):
            self._close(key)
        self.runs.sort(key=lambda run: run.first_got)
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._poll()
        except BaseException as error:  # noqa: BLE001 - raised again in __exit__
            self._error = error

    def _poll(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name, sock in self._socks.items():
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ, name)
            number, due = 0, time.monotonic()
            round_at = due
            while not self._stop.is_set():
                now = time.monotonic()
                if now - round_at > BUSY:
                    self.busy.append(Fault("machine busy", "", round_at, now))
                round_at = now
                for index, packet in enumerate(self._queries):
                    number = (number + 1) & 0xFFFF
                    for name, sock in self._socks.items():
                        now = time.monotonic()
                        self._sent[name, number] = (now, index)
                        try:
                            sock.sendto(struct.pack("!H", number) + packet, self._servers[name])
                        except OSError:  # refused: it does not answer
                            continue
                due = max(due + INTERVAL, time.monotonic())
                while True:
                    left = due - time.monotonic()
                    for key, _ in selector.select(max(left, 0)):
                        self._receive(key.data)
                    if left <= 0:
                        break

    def _receive(self, name: str) -> None:
        sock = self._socks[name]
        while True:
            try:
                packet = sock.recv(4096)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody listens there now
                return
            got = time.monotonic()
            number = int.from_bytes(packet[:2], "big")
            sent, index = self._sent.pop((name, number), (0.0, -1))
            if index == len(self._services):
                self._serial(name, packet, sent, got)
            elif index >= 0:
                self._answer((name, index), packet, sent, got)

    def _answer(self, key: tuple[str, int], packet: bytes, sent: float, got: float) -> None:
        answer = self._memo.get(packet[2:])
        if answer is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            answer = self._memo[packet[2:]] = parse(packet)
        if answer.rcode not in (NOERROR, NXDOMAIN):
            if key in self._open:
                text = f"ANSWER of {key[0]}: code {answer.rcode} for {self._services[key[1]]}"
                self.notes.append(Note(got, text))
                self._close(key)
            return
        now = self._open.get(key)
        if (
            now is None
            or now.answer.addresses != answer.addresses
            or got - now.last_got > self._gap
            or got - sent > self._gap
        ):
            self._close(key)
            self._open[key] = _Open(answer, sent, got, sent, got)
        else:
            now.last_sent, now.last_got = max(sent, now.last_sent), got

    def _close(self, key: tuple[str, int]) -> None:
        run = self._open.pop(key, None)
        if run is not None:
            host, service = key[0], self._services[key[1]]
            times = (run.first_sent, run.first_got, run.last_sent, run.last_got)
            self.runs.append(Run(host, service, run.answer.addresses, *times))

    def _serial(self, name: str, packet: bytes, sent: float, got: float) -> None:
        serial = soa_serial(packet)
        if serial is not None and self._serials.get(name) != serial:
            self._serials[name] = serial
            self.serials.append(Serial(name, sent, got, serial))

    def give(self, history: History) -> None:
        """Add what was recorded since the history's begin; after the end."""
        for run in self.runs:
            if run.last_sent >= history.begin:
                sent, got = max(run.first_sent, history.begin), max(run.first_got, history.begin)
                history.runs.append(replace(run, first_sent=sent, first_got=got))
        history.notes += self.notes
        history.serials += self.serials
        history.faults += self.busy


@dataclass(frozen=True, slots=True)
class Event:
    """What an engine said of a container."""

    at: float
    action: str
    container: str
    """Whole id."""
    attributes: Mapping[str, str]


class Events:
    """One engine's events, over its restarts, by `docker events` in a process of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[tuple[int, str, str]] = set()
        self._since = time.time()
        self._thread = threading.Thread(target=self._run, name=f"events {host.name}", daemon=True)
        self.events: list[Event] = []

    def __enter__(self) -> Events:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            if self._process is not None:
                self._process.kill()
            self._thread.join(0.05)

    def find(
        self, container: str, *actions: str, after: float, within: float = 1.0
    ) -> Event | None:
        """The first of these events of a container since `after`; waits `within` seconds for it."""
        end = time.monotonic() + within
        with self._changed:
            while True:
                for event in self.events:
                    mine = event.container == container and event.at >= after
                    if mine and event.action in actions:
                        return event
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def _run(self) -> None:
        while not self._stop.is_set():
            # What the engine still remembers is told again after a loss of the stream.
            command = ["docker", "-H", self._host.engine.url, "events", "--format={{json .}}"]
            with subprocess.Popen(
                [*command, f"--since={self._since:.9f}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as self._process:
                assert self._process.stdout is not None
                for line in self._process.stdout:
                    self._take(json.loads(line))
                self._process.kill()
            self._stop.wait(0.05)  # the engine is away, or comes back

    def _take(self, said: dict[str, Any]) -> None:
        offset = time.time() - time.monotonic()
        actor = said.get("Actor", {})
        attributes = actor.get("Attributes", {})
        name = attributes.get("container") if said["Type"] == "network" else actor.get("ID")
        key = (said["timeNano"], said["Action"], name or "")
        if key in self._seen or said["Type"] not in ("container", "network"):
            return
        self._seen.add(key)
        self._since = max(self._since, said["timeNano"] / 1e9)
        at = said["timeNano"] / 1e9 - offset
        with self._changed:
            self.events.append(Event(at, said["Action"], name or "", attributes))
            self._changed.notify_all()
