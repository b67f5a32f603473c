"""Fuzz targets: octets on a connection, DNS over TCP and HTTP, in pieces of any size.

Rule: a run is a whole life of a connection, on a clock of its own, so that whatever waits for ever
shows at once. Others' work is looked at afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import trio
import trio.testing

from discod.http import build_app
from discod.http_server import _Connections
from discod.metrics import Metrics
from resolver.answer import Transport
from resolver.tcp import TcpServer
from tests.unit.fake_view import FakeView

PATIENCE = 120.0
"""Seconds of the run's own clock until a connection that goes on counts as stuck."""


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


# DNS over TCP ---------------------------------------------------------------------------------


def _reference(data: bytes) -> list[bytes]:
    """The messages that RFC 1035, section 4.2.2 sees; an empty one ends the conversation."""
    found = []
    while len(data) >= 2 and len(data) >= 2 + (length := int.from_bytes(data[:2], "big")):
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
        if not found[-1]:
            break
    return found


async def _framed(data: bytes, size: int) -> tuple[list[bytes], bytes]:
    """What was handed on and what came back."""
    taken: list[bytes] = []

    def handle(packet: bytes, client: str, transport: Transport) -> Any:
        taken.append(packet)
        if packet[:1] == b"l":
            return packet.decode("latin-1")  # takes time
        if packet[:1] == b"m":
            return iter([packet, packet])
        return packet[::-1] if packet else None

    async def relay(what: str, transport: Transport) -> bytes:
        await trio.sleep(1)
        return what.encode("latin-1")

    server: TcpServer[str] = TcpServer(handle, relay, lambda count: None)
    ours, theirs = trio.testing.memory_stream_pair()
    back = bytearray()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs, "192.0.2.1", "tcp")
            for piece in _pieces(data, size):
                try:
                    await ours.send_all(piece)
                except trio.BrokenResourceError:
                    break  # it has had enough of us
            await ours.send_eof()
            while chunk := await ours.receive_some():
                back += chunk
    return taken, bytes(back)


def framing(data: bytes) -> None:
    """Target: the first octet is the size of pieces; the rest comes over TCP."""
    size = (data[0] if data else 0) % 64 + 1
    said = data[1:]
    taken, back = trio.run(_framed, said, size, clock=trio.testing.MockClock(autojump_threshold=0))
    wanted = _reference(said)
    assert taken == wanted, "messages were lost, doubled or cut"
    answers = []
    for packet in wanted:
        if packet[:1] == b"m":
            answers += [packet, packet]
        elif packet:
            answers.append(packet if packet[:1] == b"l" else packet[::-1])
    got = []
    while back:
        end = 2 + int.from_bytes(back[:2], "big")
        assert len(back) >= end, "half a response"
        got.append(back[2:end])
        back = back[end:]
    assert sorted(got) == sorted(answers)
    now = [a for a, p in zip(answers, wanted, strict=False) if p[:1] not in b"lm"]
    if len(now) == len(answers) == len(wanted):
        assert got == answers, "answers from memory change places"


def framing_seeds() -> list[bytes]:
    """Conversations."""

    def framed(*packets: bytes) -> bytes:
        return b"".join(len(p).to_bytes(2, "big") + p for p in packets)

    return [
        b"\x3f" + framed(b"abc", b"def"),
        b"\0" + framed(b"abc", b"x" * 40),
        b"\1" + framed(b"later", b"now", b"many", b"last"),
        b"\x10" + framed(*(b"%d" % i for i in range(60))),
        b"\x10" + framed(*(b"l%d" % i for i in range(40))),
        b"\2" + framed(b"abc", b"", b"def"),
        b"\2" + framed(b"abc") + b"\xff\xffrest",
        b"\2\0",
    ]


# HTTP -----------------------------------------------------------------------------------------


class _Socket:
    """What hypercorn and we ask of a socket."""

    family = 2

    def __init__(self) -> None:
        self.closed = False

    def getpeername(self) -> tuple[str, int]:
        return ("192.0.2.1", 4711)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.2", 9353)

    def fileno(self) -> int:
        return -1 if self.closed else 3

    def close(self) -> None:
        self.closed = True


class _Stream:
    """A stream in memory with such a socket."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.socket = _Socket()

    async def send_all(self, data: bytes) -> None:
        await self.inner.send_all(data)

    async def receive_some(self, most: int | None = None) -> bytes:
        return bytes(await self.inner.receive_some(most))

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        self.socket.close()
        await self.inner.aclose()


class _Faults(logging.Handler):
    """Keeps warnings and what is worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"{record.getMessage()} {record.__dict__}")


METRICS = Metrics()


async def _spoken(connections: _Connections, data: bytes, size: int, stay: bool) -> bytes:
    ours, theirs = trio.testing.memory_stream_pair()
    back = bytearray()

    async def serve() -> None:
        stream = _Stream(theirs)
        await connections.serve(stream)  # type: ignore[arg-type]
        await stream.aclose()

    with trio.move_on_after(PATIENCE) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                for piece in _pieces(data, size):
                    await ours.send_all(piece)
                if not stay:
                    await ours.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has had enough of us
            while chunk := await ours.receive_some():
                back += chunk
    # A stream of news lasts as long as its client.
    lasting = b"event-stream" in back or b"ndjson" in back
    assert lasting or not patience.cancelled_caught, "the connection is still open"
    return bytes(back)


async def _http(data: bytes, size: int, local: bool, stay: bool) -> None:
    view = FakeView()
    connections = _Connections(build_app(view, METRICS), local=local)
    before = view.catalog
    back = await _spoken(connections, data, size, stay)
    for line in back.split(b"\r\n"):
        assert not line.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")), back
    assert local or not (view.calls or view.announcements), "changed over TCP"
    assert view.catalog is before
    assert not view.watchers, "a watcher is left"
    assert all(one.ended.is_set() for one in view.announcements), "an announcement is left"
    again = await _spoken(connections, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 99, False)
    assert again.startswith(b"HTTP/1.1 200") and again.endswith(b"ok\n"), again


def http(data: bytes) -> None:
    """Target: the first octet chooses socket, size of pieces and whether the client stays."""
    first = data[0] if data else 0
    size = (7, 64, 1000, 4096)[first >> 2 & 3]
    faults = _Faults()
    ours = logging.getLogger("discod")
    ours.addHandler(faults)
    try:
        trio.run(
            _http, data[1:], size, bool(first & 1), bool(first & 2),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )  # fmt: skip
    finally:
        ours.removeHandler(faults)
    assert not faults.found, faults.found


def http_seeds() -> list[bytes]:
    """Requests of every kind."""

    def get(path: bytes, *headers: bytes) -> bytes:
        return b"\r\n".join((b"GET " + path + b" HTTP/1.1", b"Host: x", *headers, b"", b""))

    def post(path: bytes, body: bytes) -> bytes:
        head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body

    chunked = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'{"services": [{"name": "job", "port": 80}]}'
    return [
        *(
            bytes((mode,)) + get(path)
            for mode in (0, 9)
            for path in (
                b"/metrics", b"/livez", b"/v1/services", b"/v1/services/web", b"/v1/hosts",
                b"/v1/producers", b"/v1/explain?q=web", b"/v1/explain?q=%ff%00&q=",
                b"/v1/sd/prometheus?service=web&tag=blue", b"/nowhere", b"/v1/watch",
            )
        ),
        b"\0" + get(b"/readyz", b"Accept: application/json") + get(b"/livez", b"Connection: close"),
        b"\4" + b"HEAD /v1/catalog HTTP/1.0\r\n\r\n",
        b"\1" + post(b"/v1/announce", body),
        b"\1" + post(b"/v1/announce", b'{"services": [{"name": "\\ud800", "port": 80}]}'),
        b"\1" + post(b"/v1/drain", b'{"container": "web-1"}') + post(b"/v1/undrain", b"{}"),
        b"\0" + post(b"/v1/drain", b"{}"),
        b"\1" + post(b"/v1/announce/abc/withdraw", b""),
        b"\1" + chunked + b'2\r\n{}\r\n0\r\n\r\n',
        b"\2" + b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ",
        b"\3" + b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"\0" + get(b"/livez", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                    b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        b"\0" + get(b"/v1/watch", b"Connection: Upgrade", b"Upgrade: websocket",
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"),
    ]  # fmt: skip


HTTP_WORDS = (
    *b"GET POST HEAD OPTIONS CONNECT PUT HTTP/1.1 HTTP/1.0 HTTP/2.0 Host: Content-Length: chunked "
    b"Transfer-Encoding: Connection: Upgrade: h2c websocket keep-alive close Expect: 100-continue "
    b"Accept: application/json /v1/explain?q= /v1/services/ /v1/announce /v1/drain /v1/watch "
    b"%00 %ff %2f %ud800 ?q=&q= \\ud800 {} [] null container services".split(),
    b"\r\n", b"\r\n\r\n", b"\n",
)  # fmt: skip
