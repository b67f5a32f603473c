"""Clients that resolve once and never again: started where they are to be, and what they saw.

Rule: each is a process of its own (`client.py`) in the network namespace of a container or a host;
nothing here touches the address that it was given. Times are `time.monotonic()`.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("client.py")
RATE = float(os.environ.get("RESCUE_RATE", "100"))
"""Requests a second of each flow."""
SETTLE = 0.5
"""Seconds that clients are at work before anything happens."""
DEADLINE = 1.0
"""Seconds that a request may take."""


@dataclass(frozen=True, slots=True)
class Task:
    """One flow of requests: its kind, and the address and port that it keeps."""

    kind: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.kind} v{6 if ':' in self.address else 4}"


@dataclass(frozen=True, slots=True)
class Request:
    """What became of one request."""

    start: float
    end: float
    outcome: str
    """The name that answered, or ``!`` and why nobody did."""

    @property
    def good(self) -> bool:
        """Whether it was answered."""
        return not self.outcome.startswith("!")


@dataclass(frozen=True, slots=True)
class Track:
    """All requests of one flow, by their start."""

    client: str
    task: Task
    requests: tuple[Request, ...]
    late: float
    """Seconds that the client's own loop was late at worst: what the machine adds to a gap."""

    def failed(self, since: float) -> list[Request]:
        """Those without an answer that were under way at `since` or started later."""
        return [one for one in self.requests if not one.good and one.end >= since]

    def working(self, until: float) -> bool:
        """Whether all that was started well before `until` was answered, and there was such."""
        ends = [one for one in self.requests if one.start < until - SETTLE / 2]
        return bool(ends) and all(one.good for one in ends)

    def gap(self, since: float) -> float:
        """Seconds, the longest time without an answer that ended after `since` (or has not)."""
        ends = sorted(one.end for one in self.requests if one.good)
        last = max((one.start for one in self.requests), default=since)
        before = [end for end in ends if end < since][-1:]
        moments = [*before, *(end for end in ends if end >= since)]
        if not moments or moments[-1] < last:
            moments.append(last)
        return max((b - a for a, b in itertools.pairwise(moments)), default=0.0)

    def names(self, since: float = 0.0) -> dict[str, int]:
        """Who answered requests started after `since`, and how often."""
        found: dict[str, int] = {}
        for one in self.requests:
            if one.good and one.start >= since:
                found[one.outcome] = found.get(one.outcome, 0) + 1
        return found

    def errors(self, since: float) -> dict[str, int]:
        """Why there was no answer, and how often."""
        found: dict[str, int] = {}
        for one in self.failed(since):
            found[one.outcome] = found.get(one.outcome, 0) + 1
        return found


class Client:
    """One running client process."""

    def __init__(
        self, name: str, prefix: Sequence[str], tasks: Sequence[Task], rate: float
    ) -> None:
        self.name, self.tasks = name, tuple(tasks)
        task = {
            "rate": rate,
            "deadline": DEADLINE,
            "flows": [[one.kind, one.address, one.port] for one in tasks],
        }
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", str(PROGRAM), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_ready(self) -> None:
        """Wait until its requests are under way."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        assert select.select([fd], [], [], 10)[0], f"client {self.name} does not start"
        assert self._process.stdout.readline() == b"ready\n", f"client {self.name} has ended"

    def ask_to_end(self) -> None:
        """No more requests; those that are under way come to their end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
            self._process.stdin = None

    def end(self) -> list[Track]:
        """End it; what became of its requests, a track a task."""
        self.ask_to_end()
        out, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, f"client {self.name}: {self._process.returncode}"
        said = json.loads(out)
        return [
            Track(self.name, task, tuple(sorted((Request(*one) for one in flow), key=_start)),
                  said["late"])
            for task, flow in zip(self.tasks, said["flows"], strict=True)
        ]  # fmt: skip

    def kill(self) -> None:
        """End it whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _start(request: Request) -> float:
    return request.start


class Crowd:
    """Several clients at the same time; their tracks are there once it has ended."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self.tracks: list[Track] = []

    def end(self) -> list[Track]:
        """End all of them."""
        if not self.tracks:
            for client in self._clients:
                client.ask_to_end()
            self.tracks = [track for client in self._clients for track in client.end()]
        return self.tracks


@contextmanager
def crowd(
    places: Mapping[str, Sequence[str]],
    tasks: Mapping[str, Sequence[Task]],
    *,
    rate: float = RATE,
    settle: float = SETTLE,
) -> Iterator[Crowd]:
    """Clients by name: where each is (a command prefix), and what it does.

    Entered once all have been at work for `settle` seconds; whatever happens, none is left.
    """
    clients = [Client(name, places[name], todo, rate) for name, todo in tasks.items()]
    try:
        for client in clients:
            client.wait_ready()
        time.sleep(settle)
        yield Crowd(clients)
    finally:
        for client in clients:
            client.kill()


def inside(pid: int) -> tuple[str, ...]:
    """The command prefix that enters the network namespace of a container by its process."""
    return ("nsenter", f"--net=/proc/{pid}/ns/net")
