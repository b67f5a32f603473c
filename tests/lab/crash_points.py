"""Relays that a test puts between the daemon and what it talks to, to hurt it at a chosen moment.

Rule: the daemon itself has no hooks. `Relay` passes octets on, and can cut every connection;
`CrashPoints` reads the frames of HTTP/2 (RFC 9113, section 4.1) as they pass, counts the calls of
gRPC (each is a stream of its own), and acts when the chosen one is answered. Threads end with the
connections they serve, these with the relay.

    with CrashPoints(listener, dial) as points:
        points.arm(3, before=True, act=daemon.kill)     # the answer to the third call is lost
        ...
        assert points.fired.wait(10)
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

PREFACE: Final = 24
"""Octets that a client of HTTP/2 sends before its first frame."""
HEAD: Final = 9
DATA, HEADERS = 0, 1
END_STREAM: Final = 1
CHUNK: Final = 65536
CLOSE_WAIT: Final = 5.0
"""Seconds for the threads to end once their sockets are closed."""


Listen = Callable[[bytes], None]
Answer = Callable[[bytes, Callable[[bytes], None]], None]


class Relay:
    """Accepts on one socket and passes everything on to connections of its own.

    Args:
        listener: Bound and listening; closed at the end.
        dial: Makes a connection to the real server.
    """

    def __init__(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._dial = dial
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.cut()
        for thread in self._threads:
            thread.join(CLOSE_WAIT)
        self._listener.close()

    def cut(self) -> int:
        """Break every connection; how many there were."""
        with self._lock:
            found = list(self._open)
        for sock in found:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        return len(found) // 2

    def hooks(self) -> tuple[Listen, Answer]:
        """For a new connection: who is told what the client sends before it is passed on, and who
        is given what the server sends and passes it on."""
        return (lambda _: None), (lambda data, forward: forward(data))

    def _start(self, act: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=act, args=args, name="relay", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far = self._dial()
            except OSError:  # the server is away: so are we
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            self._start(self._pump, near, far)

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        """One connection, to its end."""
        listen, answer = self.hooks()

        def up() -> None:
            def take(data: bytes) -> None:
                listen(data)
                far.sendall(data)

            self._copy(near, far, take)

        upward = threading.Thread(target=up, name="relay up", daemon=True)
        upward.start()
        self._copy(far, near, lambda data: answer(data, near.sendall))
        upward.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    @staticmethod
    def _copy(
        source: socket.socket, target: socket.socket, take: Callable[[bytes], object]
    ) -> None:
        with contextlib.suppress(OSError):  # either end has gone
            while data := source.recv(CHUNK):
                take(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Frames:
    """Cuts a stream of octets into the frames of HTTP/2."""

    def __init__(self, skip: int = 0) -> None:
        self._rest = b""
        self._skip = skip

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """The frames that are whole now: type, flags, stream, and all their octets."""
        self._rest += data
        if self._skip:
            if len(self._rest) < self._skip:
                return []
            self._rest, self._skip = self._rest[self._skip :], 0
        found = []
        while len(self._rest) >= HEAD:
            end = HEAD + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < end:
                break
            raw, self._rest = self._rest[:end], self._rest[end:]
            found.append((raw[3], raw[4], int.from_bytes(raw[5:9], "big") & 0x7FFFFFFF, raw))
        return found


class CrashPoints(Relay):
    """Counts calls, and acts at the answer to one of them."""

    def __init__(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        super().__init__(listener, dial)
        self._count = threading.Lock()
        self._at = 0
        self._before = False
        self._act: Callable[[], object] = lambda: None
        self.calls = 0
        """Since `arm`."""
        self.fired = threading.Event()

    def arm(self, call: int, *, before: bool, act: Callable[[], object]) -> None:
        """Run `act` once, at the answer to the `call`-th call from now on, counted from 1.

        Args:
            call: 0: at none.
            before: The answer never reaches the client; else it is passed on first.
            act: In a thread of the relay.
        """
        with self._count:
            self.calls, self._at, self._before, self._act = 0, call, before, act
            self.fired.clear()

    def hooks(self) -> tuple[Listen, Answer]:
        """Count the calls of a connection, and look for the answer to the chosen one."""
        asked, answered = _Frames(PREFACE), _Frames()
        chosen: set[int] = set()

        def listen(data: bytes) -> None:
            for type_, _, stream, _ in asked.feed(data):
                if type_ == HEADERS:
                    with self._count:
                        self.calls += 1
                        if self.calls == self._at:
                            chosen.add(stream)

        def answer(data: bytes, forward: Callable[[bytes], None]) -> None:
            for type_, flags, stream, raw in answered.feed(data):
                ends = type_ == DATA or (type_ == HEADERS and flags & END_STREAM)
                if stream not in chosen or not ends:
                    forward(raw)
                    continue
                chosen.discard(stream)
                if not self._before:
                    forward(raw)
                self._act()
                self.fired.set()
                if self._before:
                    return

        return listen, answer
