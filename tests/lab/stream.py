"""A steady stream of DNS queries over UDP, and what became of each of them.

Rule: like `tests.lab.dnspoll`, raw packets and `time.monotonic()`; but here every single query is
remembered, so that "none was lost" can be said. Nothing is sent twice. Bounded by its ids: 65,536
queries a socket.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.lab.dnspoll import AAAA, NOERROR, A, query

SRV, TXT = 33, 16
_EDNS = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
"""OPT of version 0, 1232 octets, no options."""


@dataclass(slots=True)
class Sent:
    """One query."""

    at: float
    name: str
    type: int
    took: float | None = None
    """Seconds until its answer; None: there was none."""
    rcode: int = -1
    count: int = 0
    """Records in the answer section."""


class Stream:
    """Asks from `__enter__` to `__exit__`, in a thread of its own.

    Args:
        server: Address and port.
        questions: Names and types, asked in turn, in random case, each with and without EDNS.
        rate: Queries a second.
        sockets: As many sockets ask in turn: with several workers the kernel picks one by the
            client's port.
        linger: Seconds that the end waits for what is not answered yet.
        make: Makes one client socket.
    """

    def __init__(
        self,
        server: tuple[str, int],
        questions: Sequence[tuple[str, int]],
        *,
        rate: float = 200.0,
        sockets: int = 1,
        linger: float = 1.0,
        make: Callable[[], socket.socket] = lambda: socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM
        ),
    ) -> None:
        self.sent: list[Sent] = []
        self._server = server
        self._questions = questions
        self._interval = 1 / rate
        self._linger = linger
        self._rng = random.Random(len(questions))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._waiting: dict[tuple[int, int], Sent] = {}
        self._sockets = [make() for _ in range(sockets)]
        for sock in self._sockets:
            sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._error is not None and error is None:
            raise self._error

    def stop(self) -> None:
        """End it, after the last answers."""
        self._stop.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    # What became of them ------------------------------------------------------------------------

    @property
    def answered(self) -> list[Sent]:
        """With an answer, whatever it says."""
        return [one for one in self.sent if one.took is not None]

    @property
    def lost(self) -> list[Sent]:
        """Without one; only the end tells."""
        return [one for one in self.sent if one.took is None]

    @property
    def wrong(self) -> list[Sent]:
        """Answered, but not with NOERROR and records."""
        return [one for one in self.answered if one.rcode != NOERROR or not one.count]

    def slowest(self, since: float = 0.0) -> float:
        """Seconds of the slowest answer to what was sent after `since`."""
        return max(one.took or 0.0 for one in self.sent if one.at >= since)

    def within(self, start: float, end: float) -> list[Sent]:
        """Those sent from `start` to `end`."""
        return [one for one in self.sent if start <= one.at <= end]

    # The thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException as error:  # noqa: BLE001 - raised again by __exit__
            self._error = error

    def _ask(self) -> None:
        poll = select.epoll()
        by_fd = {sock.fileno(): (n, sock) for n, sock in enumerate(self._sockets)}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        due = time.monotonic()
        end = 0.0
        while True:
            now = time.monotonic()
            if self._stop.is_set():
                end = end or now + self._linger
                if now >= end or not self._waiting:
                    break
                due = end
            elif now >= due:
                self._send(now)
                due = max(due + self._interval, now)
            for fd, _ in poll.poll(max(0.0, due - time.monotonic())):
                self._receive(*by_fd[fd])
        poll.close()

    def _send(self, now: float) -> None:
        number = len(self.sent)
        name, type_ = self._questions[number % len(self._questions)]
        cased = "".join(self._rng.choice((c.lower(), c.upper())) for c in name)
        packet = query(cased, type_)
        if number // len(self._questions) % 2:
            packet = packet[:8] + b"\0\1" + packet[10:] + _EDNS
        which = number % len(self._sockets)
        id_ = number // len(self._sockets)
        assert id_ < 65536
        one = Sent(now, name, type_)
        self.sent.append(one)
        self._waiting[which, id_] = one
        self._sockets[which].sendto(struct.pack("!H", id_) + packet, self._server)

    def _receive(self, which: int, sock: socket.socket) -> None:
        while True:
            try:
                packet = sock.recv(4096)
            except BlockingIOError:
                return
            now = time.monotonic()
            id_, flags, _, count = struct.unpack_from("!HHHH", packet)
            one = self._waiting.pop((which, id_))  # KeyError: answered twice, or never asked
            one.took = now - one.at
            one.rcode = flags & 15
            one.count = count


__all__ = ["AAAA", "SRV", "TXT", "A", "Sent", "Stream"]
