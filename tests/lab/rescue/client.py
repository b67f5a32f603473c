"""A program that uses addresses for ever once it has them, and notes what became of each request.

Rule: standard library alone, one thread, one event loop; a request starts on schedule whatever
became of the ones before it. Started inside a network namespace with its task as JSON:

    {"rate": 100, "deadline": 1.0, "flows": [["tcp", "10.101.1.2", 8080], ...]}

Kinds of flows: ``tcp``, a connection a request; ``udp``, a datagram a request, all from one
connected socket; ``udp-new``, from a socket of its own each; ``held``, one connection that waits
for an answer that never comes, and is opened again whenever it breaks.

It says ``ready`` when all is under way, ends its requests when its standard input ends, and writes
as JSON ``{"late": s, "flows": [[[start, end, outcome], ...], ...]}``: times of CLOCK_MONOTONIC, and
as outcome the name that answered, or ``!`` and why there was none. For ``held`` start is when the
connection was opened, end when `outcome` happened to it: the name's answer at first, then its end.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import select
import socket
import sys
import time
from typing import Protocol

STEP = 0.02
"""Seconds between two tries of a ``held`` flow."""

clock = time.monotonic


def name(code: int | None) -> str:
    """An error as an outcome."""
    return f"!{errno.errorcode.get(code or 0, code)}"


class Reader(Protocol):
    """Whoever has a socket."""

    def ready(self) -> None: ...


class Expiring(Protocol):
    """Whoever has requests under way."""

    def expire(self, number: int) -> None: ...


class Loop:
    """Sockets, what to do when they are ready, and when to give up."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.poll = select.epoll()
        self.known: dict[int, Reader] = {}
        self.open: collections.deque[tuple[float, Expiring, int]] = collections.deque()
        self.again: list[Flow] = []
        """Begin once more after this round of events."""

    def overdue(self, now: float) -> None:
        while self.open and self.open[0][0] <= now:
            _, whose, number = self.open.popleft()
            whose.expire(number)


class Request:
    """One connection (or one datagram on a socket of its own), from its start to its outcome."""

    def __init__(self, loop: Loop, flow: Flow, start: float) -> None:
        self.loop, self.flow, self.start = loop, flow, start
        self.done = False
        self.sock = socket.socket(flow.family, flow.type | socket.SOCK_NONBLOCK)
        self.fd = self.sock.fileno()
        code = self.sock.connect_ex(flow.to)
        if code not in (0, errno.EINPROGRESS):
            self.end(name(code), closing=False)
            return
        self.waits = flow.type == socket.SOCK_STREAM
        loop.known[self.fd] = self
        loop.poll.register(self.fd, select.EPOLLOUT if self.waits else select.EPOLLIN)
        loop.open.append((start + loop.deadline, self, 0))
        if not self.waits:
            self.sock.send(b"0")

    def ready(self) -> None:
        try:
            if self.waits:
                code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, "")
                self.waits = False
                self.sock.send(b"?")
                self.loop.poll.modify(self.fd, select.EPOLLIN)
                return
            said = self.sock.recv(256)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(name(error.errno))
            return
        self.end(said.decode().split()[-1] if said else "!EOF")

    def expire(self, number: int) -> None:
        if not self.done:
            self.end("!timeout")

    def end(self, outcome: str, *, closing: bool = True) -> None:
        self.done = True
        if closing:
            self.loop.poll.unregister(self.fd)
            del self.loop.known[self.fd]
        self.sock.close()
        self.flow.note(self.start, outcome)


class Flow:
    """What goes to one address and port, and what became of it."""

    def __init__(self, loop: Loop, kind: str, address: str, port: int) -> None:
        self.loop, self.kind, self.to = loop, kind, (address, port)
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.type = socket.SOCK_DGRAM if kind.startswith("udp") else socket.SOCK_STREAM
        self.records: list[tuple[float, float, str]] = []
        self.pending = 0

    def note(self, start: float, outcome: str) -> None:
        self.records.append((start, clock(), outcome))
        self.pending -= 1

    def begin(self, now: float) -> None:
        self.pending += 1
        Request(self.loop, self, now)

    def stop(self) -> None:
        pass


class Datagrams(Flow):
    """All from one socket; an answer is told by its number."""

    def __init__(self, loop: Loop, kind: str, address: str, port: int) -> None:
        super().__init__(loop, kind, address, port)
        self.sock = socket.socket(self.family, self.type | socket.SOCK_NONBLOCK)
        self.sock.connect(self.to)
        self.fd = self.sock.fileno()
        self.started: dict[int, float] = {}
        self.count = 0
        loop.known[self.fd] = self
        loop.poll.register(self.fd, select.EPOLLIN)

    def begin(self, now: float) -> None:
        self.pending += 1
        self.count += 1
        self.started[self.count] = now
        self.loop.open.append((now + self.loop.deadline, self, self.count))
        try:
            self.sock.send(b"%d" % self.count)
        except OSError as error:
            if error.errno == errno.EAGAIN:  # the neighbour is being looked for
                return
            self.refused(error)
            try:  # the error was of an earlier datagram
                self.sock.send(b"%d" % self.count)
            except OSError as again:
                self.refused(again)

    def refused(self, error: OSError) -> None:
        # The newest before this one that is still open: the ICMP message came at once.
        if self.started:
            older = [number for number in self.started if number < self.count]
            self.note(self.started.pop((older or [self.count])[-1]), name(error.errno))

    def ready(self) -> None:
        while True:
            try:
                number, who = self.sock.recv(256).decode().split()
            except BlockingIOError:
                return
            except OSError as error:
                if self.started:
                    self.note(self.started.pop(max(self.started)), name(error.errno))
                continue
            start = self.started.pop(int(number), None)
            if start is not None:
                self.note(start, who)

    def expire(self, number: int) -> None:
        start = self.started.pop(number, None)
        if start is not None:
            self.note(start, "!timeout")


class Held(Flow):
    """One connection, idle in the middle of a request."""

    def __init__(self, loop: Loop, kind: str, address: str, port: int) -> None:
        super().__init__(loop, kind, address, port)
        self.sock: socket.socket | None = None
        self.phase = ""
        self.since = 0.0
        self.retry = 0.0

    def begin(self, now: float) -> None:
        """Called at the rate of requests: opens the connection where there is none."""
        if self.sock is not None:
            if self.phase != "idle" and now - self.since > self.loop.deadline:
                self.broken("!timeout")
            return
        if now < self.retry:
            return
        self.since, self.phase = now, "connect"
        self.sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = self.sock.connect_ex(self.to)
        self.loop.known[self.sock.fileno()] = self
        self.loop.poll.register(self.sock.fileno(), select.EPOLLOUT)
        if code not in (0, errno.EINPROGRESS):
            self.broken(name(code))

    def ready(self) -> None:
        assert self.sock is not None
        try:
            if self.phase == "connect":
                code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, "")
                self.sock.send(b"?")
                self.phase = "ask"
                self.loop.poll.modify(self.sock.fileno(), select.EPOLLIN)
                return
            said = self.sock.recv(256)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken(name(error.errno))
            return
        if not said:
            self.broken("!EOF")
            return
        self.records.append((self.since, clock(), said.decode().strip()))
        self.phase = "idle"
        try:
            self.sock.send(b"w")
        except OSError as error:  # its server died since it answered
            self.broken(name(error.errno))

    def broken(self, why: str) -> None:
        assert self.sock is not None
        self.records.append((self.since, clock(), why))
        self.loop.poll.unregister(self.sock.fileno())
        del self.loop.known[self.sock.fileno()]
        self.sock.close()
        self.sock = None
        # Its own retry: at once after a connection that worked.
        self.retry = clock() + (0.0 if self.phase == "idle" else STEP)
        if self.phase == "idle":
            self.loop.again.append(self)

    def stop(self) -> None:
        if self.phase == "idle":
            self.records.append((self.since, clock(), "!end"))


KINDS: dict[str, type[Flow]] = {"tcp": Flow, "udp-new": Flow, "udp": Datagrams, "held": Held}


def main() -> None:
    task = json.loads(sys.argv[1])
    loop = Loop(task["deadline"])
    flows = [KINDS[kind](loop, kind, address, port) for kind, address, port in task["flows"]]
    every = 1.0 / task["rate"]
    begin = clock() + 0.01
    due = [begin + every * n / max(1, len(flows)) for n in range(len(flows))]
    loop.poll.register(sys.stdin.fileno(), select.EPOLLIN)
    asked_to_end, late = False, 0.0
    print("ready", flush=True)
    while not asked_to_end or any(flow.pending for flow in flows):
        wait = min(due) - clock() if not asked_to_end else 0.05
        if loop.open:
            wait = min(wait, loop.open[0][0] - clock())
        for fd, _ in loop.poll.poll(max(0.0, wait)):
            if fd == sys.stdin.fileno():
                if not os.read(fd, 64):
                    asked_to_end = True
                    loop.poll.unregister(fd)
            elif fd in loop.known:
                loop.known[fd].ready()
        now = clock()
        while loop.again:
            loop.again.pop().begin(now)
        loop.overdue(now)
        for n, flow in enumerate(flows):
            while not asked_to_end and due[n] <= now:
                late = max(late, now - due[n])
                flow.begin(now)
                due[n] += every
    for flow in flows:
        flow.stop()
    json.dump({"late": late, "flows": [flow.records for flow in flows]}, sys.stdout)


if __name__ == "__main__":
    main()
