"""TCP and TLS connections: places, transfers in many messages, handshakes, certificates."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from resolver.answer import Transport
from resolver.tcp import TcpServer
from resolver.tls import tls_context

Stream = trio.abc.Stream


class Answers:
    """What the server under test is told: the packet says what it wants."""

    def __init__(self) -> None:
        self.transports: list[Transport] = []
        self.sent = 0
        self.closed = 0
        self.release = trio.Event()

    def handle(
        self, packet: bytes, client: str, transport: Transport
    ) -> bytes | Iterator[bytes] | str | None:
        self.transports.append(transport)
        if packet.startswith(b"many "):
            return self.many(int(packet.split()[1]))
        if packet == b"faulty":
            return self.faulty()
        if packet == b"later":
            return "later"
        return packet.upper() if packet else None

    def many(self, count: int) -> Iterator[bytes]:
        try:
            for i in range(count):
                self.sent += 1
                yield b"part %d" % i + bytes(10_000)
        finally:
            self.closed += 1

    def faulty(self) -> Iterator[bytes]:
        yield b"first"
        raise KeyError("boom")

    async def relay(self, what: str, transport: Transport) -> bytes:
        await self.release.wait()
        return what.encode()


class Table:
    """A server, and connections to it that need no network."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.answers = Answers()
        self.open: list[int] = []
        self.server: TcpServer[str] = TcpServer(
            self.answers.handle, self.answers.relay, self.open.append
        )
        self._nursery = nursery

    def connect(self, client: str = "192.0.2.1", transport: Transport = "tcp") -> Stream:
        ours, theirs = trio.testing.lockstep_stream_pair()
        self._nursery.start_soon(self.server.serve_stream, theirs, client, transport)
        return ours


@contextlib.asynccontextmanager
async def table() -> AsyncIterator[Table]:
    async with trio.open_nursery() as nursery:
        yield Table(nursery)
        nursery.cancel_scope.cancel()


def framed(*packets: bytes) -> bytes:
    return b"".join(len(p).to_bytes(2, "big") + p for p in packets)


async def exactly(stream: Stream, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        if not chunk:
            return None
        data += chunk
    return data


async def receive(stream: Stream) -> bytes | None:
    """The next message; None when the server closed."""
    with trio.fail_after(60):
        head = await exactly(stream, 2)
        return None if head is None else await exactly(stream, int.from_bytes(head, "big"))


async def asked(stream: Stream, packet: bytes) -> bytes | None:
    await stream.send_all(framed(packet))
    return await receive(stream)


# Places ---------------------------------------------------------------------------------------


async def test_one_client_keeps_nobody_out(autojump_clock: Any) -> None:
    async with table() as t:
        t.server.connections_max = 4
        hog = [t.connect("192.0.2.9") for _ in range(4)]
        for stream in hog:
            assert await asked(stream, b"a") == b"A"
        others = [t.connect(f"192.0.2.{i}") for i in (1, 2)]
        for stream in others:
            assert await asked(stream, b"b") == b"B"
        assert await receive(hog[0]) is None and await receive(hog[1]) is None
        more = [t.connect("192.0.2.9") for _ in range(2)]  # takes from itself only
        for stream in more:
            assert await asked(stream, b"c") == b"C"
        assert await receive(hog[2]) is None and await receive(hog[3]) is None
        for stream in (*others, *more):
            assert await asked(stream, b"d") == b"D"
        assert max(t.open) == t.open[-1] == 4


async def test_no_room_while_all_are_at_work(autojump_clock: Any) -> None:
    async with table() as t:
        t.server.connections_max = 2
        busy = [t.connect(f"192.0.2.{i}") for i in (1, 2)]
        for stream in busy:
            await stream.send_all(framed(b"later"))
            await trio.testing.wait_all_tasks_blocked()
        assert await receive(t.connect("192.0.2.3")) is None
        t.answers.release.set()
        for stream in busy:
            assert await receive(stream) == b"later"
        assert await asked(t.connect("192.0.2.3"), b"x") == b"X"
        assert await receive(busy[0]) is None


async def test_work_that_never_ends_keeps_nobody_out(autojump_clock: Any) -> None:
    async with table() as t:
        t.server.connections_max = 4
        hog = [t.connect(f"2001:db8::{i}") for i in range(4)]  # one machine
        for stream in hog:
            await stream.send_all(framed(b"later"))
            await trio.testing.wait_all_tasks_blocked()
        good = [t.connect(f"192.0.2.{i}") for i in (1, 2)]
        for stream in good:
            assert await asked(stream, b"x") == b"X"
        assert await receive(hog[0]) is None and await receive(hog[1]) is None
        assert await receive(t.connect("2001:db8::9")) is None  # not at its own cost
        t.answers.release.set()
        assert await receive(hog[2]) == b"later"
        assert t.open[-1] == 4


async def test_first_come_first_served_would_starve_others(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of those above: where nobody gives up a place, idle clients keep all out."""
    async with table() as t:
        t.server.connections_max = 4
        hog = [t.connect("192.0.2.9") for _ in range(4)]
        for stream in hog:
            assert await asked(stream, b"a") == b"A"
        with monkeypatch.context() as patch:
            patch.setattr("discod.model.places.Places.victim", lambda *_: None)
            assert await receive(t.connect("192.0.2.1")) is None
        assert await asked(t.connect("192.0.2.1"), b"b") == b"B"


async def test_idle_connections_are_closed(autojump_clock: Any) -> None:
    async with table() as t:
        t.server.idle = 7.0
        stream = t.connect()
        start = trio.current_time()
        assert await asked(stream, b"a") == b"A"
        assert await receive(stream) is None
        assert trio.current_time() - start == pytest.approx(7.0)
        assert t.open == [1, 0]


async def test_a_peer_that_has_gone_is_not_served(autojump_clock: Any) -> None:
    async with table() as t:
        assert await receive(t.connect("")) is None
        assert t.open == []


# Transfers ------------------------------------------------------------------------------------


async def test_many_messages_and_other_answers_between(autojump_clock: Any) -> None:
    async with table() as t:
        stream = t.connect()
        await stream.send_all(framed(b"many 50", b"a", b"many 3", b"b"))
        got = [await receive(stream) for _ in range(55)]
        assert [g for g in got if g and not g.startswith(b"part")] == [b"A", b"B"]
        parts = [g[:7].rstrip(b"\0") for g in got if g and g.startswith(b"part")]
        assert sorted(parts) == sorted(b"part %d" % i for n in (50, 3) for i in range(n))
        assert [p for p in parts if len(p) == 7] == [b"part %d" % i for i in range(10, 50)]
        await trio.testing.wait_all_tasks_blocked()
        assert t.answers.closed == 2


async def test_messages_are_made_as_they_are_taken(autojump_clock: Any) -> None:
    async with table() as t:
        stream = t.connect()
        await stream.send_all(framed(b"many 1000"))
        for _ in range(5):
            assert await receive(stream)
        await trio.testing.wait_all_tasks_blocked()
        assert t.answers.sent <= 7
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert t.answers.closed == 1 and t.open[-1] == 0


async def test_a_client_that_takes_nothing_is_let_go(autojump_clock: Any) -> None:
    async with table() as t:
        stream = t.connect()
        await stream.send_all(framed(b"many 1000"))
        start = trio.current_time()
        while t.open[-1]:  # noqa: ASYNC110 - it is a list
            await trio.sleep(1)
        assert trio.current_time() - start == pytest.approx(t.server.idle, abs=1.1)
        assert t.answers.closed == 1


async def test_a_fault_in_a_transfer_ends_its_connection_only(autojump_clock: Any) -> None:
    async with table() as t:
        other = t.connect("192.0.2.2")
        stream = t.connect()
        await stream.send_all(framed(b"faulty"))
        assert await receive(stream) == b"first"
        assert await receive(stream) is None
        assert await asked(other, b"x") == b"X"


async def test_a_transfer_is_work(autojump_clock: Any) -> None:
    """A connection whose client takes its time over a transfer is not idle."""
    async with table() as t:
        stream = t.connect()
        await stream.send_all(framed(b"many 5"))
        for _ in range(5):
            await trio.sleep(t.server.idle * 0.9)
            assert await receive(stream)
        assert await receive(stream) is None


# TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    made = {}
    for name in ("one", "two"):
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}.example"]
        files = ["-keyout", str(key), "-out", str(cert)]
        subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
        made[name] = cert, key
    return made


class Dialer:
    """Connects to a server over TLS, and closes what it opened."""

    def __init__(self, port: int, certificates: dict[str, tuple[Path, Path]]) -> None:
        self.port = port
        self.certificates = certificates
        self.opened: list[trio.SocketStream] = []

    async def plain(self) -> trio.SocketStream:
        self.opened.append(await trio.open_tcp_stream("127.0.0.1", self.port))
        return self.opened[-1]

    async def tls(
        self, name: str = "one", alpn: tuple[str, ...] = ("dot",), **limits: Any
    ) -> trio.SSLStream[trio.SocketStream]:
        context = ssl.create_default_context(cafile=str(self.certificates[name][0]))
        context.set_alpn_protocols(list(alpn))
        for key, value in limits.items():
            setattr(context, key, value)
        return trio.SSLStream(
            await self.plain(), context, server_hostname=f"{name}.example", https_compatible=True
        )


@contextlib.asynccontextmanager
async def secure(certificates: dict[str, tuple[Path, Path]]) -> AsyncIterator[tuple[Table, Dialer]]:
    async with table() as t:
        t.server.tls = tls_context(*certificates["one"])
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        t._nursery.start_soon(t.server.serve_tls, listener)
        dialer = Dialer(listener.socket.getsockname()[1], certificates)
        try:
            yield t, dialer
        finally:
            for stream in dialer.opened:
                stream.socket.close()


async def test_dns_over_tls(certificates: dict[str, tuple[Path, Path]]) -> None:
    async with secure(certificates) as (t, dialer):
        stream = await dialer.tls()
        await stream.send_all(framed(b"a", b"later", b"b", b"many 40"))
        got = [await receive(stream) for _ in range(42)]
        assert got[:2] == [b"A", b"B"]
        t.answers.release.set()
        assert b"later" in [*got, await receive(stream)]
        assert stream.selected_alpn_protocol() == "dot"
        assert set(t.answers.transports) == {"tls"}
        assert t.open == [1]
        await stream.aclose()


@pytest.mark.parametrize(
    "limits",
    [
        {"maximum_version": ssl.TLSVersion.TLSv1_2},
        {"minimum_version": ssl.TLSVersion.TLSv1_3},
        {"alpn": ("h2",)},
        {"alpn": ()},
    ],
    ids=str,
)
async def test_who_is_served(
    certificates: dict[str, tuple[Path, Path]], limits: dict[str, Any]
) -> None:
    async with secure(certificates) as (_, dialer):
        stream = await dialer.tls("one", **limits)
        assert await asked(stream, b"a") == b"A"
        assert stream.selected_alpn_protocol() is None or "alpn" not in limits


def test_old_versions_are_not_spoken(certificates: dict[str, tuple[Path, Path]]) -> None:
    context = tls_context(*certificates["one"])
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


async def test_a_renewed_certificate_counts_for_new_connections(
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    async with secure(certificates) as (t, dialer):
        first = await dialer.tls()
        assert await asked(first, b"a") == b"A"
        t.server.tls = tls_context(*certificates["two"])
        second = await dialer.tls("two")
        assert await asked(second, b"b") == b"B"
        assert await asked(first, b"c") == b"C"
        stale = await dialer.tls()
        with pytest.raises(trio.BrokenResourceError):
            await stale.do_handshake()


async def test_a_handshake_has_a_deadline(certificates: dict[str, tuple[Path, Path]]) -> None:
    async with secure(certificates) as (t, dialer):
        t.server.idle = 0.2
        plain = await dialer.plain()
        assert await receive(plain) is None
        assert t.open == [1, 0]


@pytest.mark.parametrize(
    "garbage", [b"\0\x0chello, world", b"\x15\x03\x01\0\2\2\x28", b"GET /\r\n\r\n"]
)
async def test_who_speaks_no_tls_is_sent_away(
    certificates: dict[str, tuple[Path, Path]], garbage: bytes
) -> None:
    async with secure(certificates) as (t, dialer):
        plain = await dialer.plain()
        await plain.send_all(garbage)
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            while await plain.receive_some(1000):
                pass
        stream = await dialer.tls()
        assert await asked(stream, b"a") == b"A"
        assert t.answers.transports == ["tls"]


async def test_a_client_that_goes_without_a_word(
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    async with secure(certificates) as (t, dialer):
        stream = await dialer.tls()
        assert await asked(stream, b"a") == b"A"
        await trio.aclose_forcefully(stream.transport_stream)
        with trio.fail_after(5):
            while t.open[-1]:  # noqa: ASYNC110 - it is a list
                await trio.sleep(0.01)


async def test_without_a_certificate_nobody_is_served(
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    async with secure(certificates) as (t, dialer):
        t.server.tls = None
        assert await receive(await dialer.plain()) is None


def test_what_is_no_certificate(certificates: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    one, two = certificates["one"], certificates["two"]
    (tmp_path / "x.pem").write_text("nothing")
    for cert, key in ((one[0], two[1]), (tmp_path / "x.pem", one[1]), (one[0], tmp_path / "x.pem")):
        with pytest.raises(ssl.SSLError):
            tls_context(cert, key)
    with pytest.raises(FileNotFoundError):
        tls_context(tmp_path / "none", one[1])


def test_an_encrypted_key_is_refused_without_asking(
    certificates: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    cert, key = certificates["one"]
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(key)]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    with pytest.raises(ssl.SSLError):
        tls_context(cert, locked)
