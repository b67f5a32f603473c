"""Own checks against real sockets on loopback, and real commands."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio

from announcer.errors import EngineRefused, EngineUnavailable
from announcer.probe import HEADERS_MAX, ProbeResult, probe, run_local
from discod.model.endpoint import Endpoint
from discod.model.settings import Check

Answer = Callable[[trio.SocketStream], Awaitable[None]]


async def no_command(argv: Sequence[str], timeout: float) -> tuple[int, str]:
    raise AssertionError("only cmd checks run commands")


def endpoint(port: int, address: str = "127.0.0.1") -> Endpoint:
    return Endpoint("web", "web-1", ip_address(address), port)


@asynccontextmanager
async def server(answer: Answer, address: str = "127.0.0.1") -> AsyncIterator[int]:
    """Answers each connection by `answer`; the port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(answer, 0, host=address, task_status=task_status)  # noqa: ASYNC105
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def saying(raw: bytes, heard: list[bytes] | None = None) -> Answer:
    """An answer that reads the request to its end and sends `raw`."""

    async def answer(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some()
            if not data:
                return
            request += data
        if heard is not None:
            heard.append(request)
        try:
            await stream.send_all(raw)
            await stream.send_eof()
            await stream.receive_some()
        except trio.BrokenResourceError:
            return  # the check had read enough

    return answer


async def run(check: Check, port: int, address: str = "127.0.0.1") -> ProbeResult:
    return await probe(check, endpoint(port, address), execute=no_command)


def unused_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


# tcp ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_tcp(address: str, shown: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with server(answer, address) as port:
        result = await run(Check("tcp"), port, address)
        assert result == ProbeResult(ok=True, detail=f"connected to {shown}:{port}")
        other = await run(Check("tcp", port=port), 1, address)
        assert other.ok, "the check's own port comes first"
    result = await run(Check("tcp"), port, address)
    assert result == ProbeResult(ok=False, detail=f"connection refused by {shown}:{port}")


async def test_tcp_full_backlog_is_no_answer() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        try:
            for connection in waiting:
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", port))
            result = await run(Check("tcp", timeout=0.2), port)
        finally:
            for connection in waiting:
                connection.close()
    assert result == ProbeResult(ok=False, detail=f"no answer from 127.0.0.1:{port} within 0.2 s")


# http ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "ok", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True, "status 200"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True, "status 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", True, "status 302"),
        (b"HTTP/1.1 399 X\r\n\r\n", True, "status 399"),
        (b"HTTP/1.1 400 X\r\n\r\n", False, "status 400, expected 200-399"),
        (b"HTTP/1.1 503 Sorry\r\n\r\n", False, "status 503, expected 200-399"),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True, "status 200"),
        (b"", False, "127.0.0.1:PORT closed without an answer"),
        (b"HTTP/1.1 2", False, "127.0.0.1:PORT closed amid its headers"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, "no HTTP from 127.0.0.1:PORT"),
        (b"\0" * 100, False, "no HTTP from 127.0.0.1:PORT"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2 * HEADERS_MAX, False, "127.0.0.1:PORT"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, False, "more than 16384 octets of headers"),
    ],
)
async def test_http(raw: bytes, ok: bool, detail: str) -> None:
    async with server(saying(raw)) as port:
        result = await run(Check("http"), port)
    assert result.ok is ok
    assert detail.replace("PORT", str(port)) in result.detail
    assert len(result.detail) <= 200


async def test_http_status_of_choice() -> None:
    async with server(saying(b"HTTP/1.1 401 No\r\n\r\n")) as port:
        assert (await run(Check("http", status=(401, 401)), port)).ok
        result = await run(Check("http", status=(200, 200)), port)
    assert result.detail == "status 401, expected 200"


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", "/"),
        ("/health?deep=1&x=%20a", "/health?deep=1&x=%20a"),
        ("/caf\u00e9 x\r\nEvil: 1", "/caf%C3%A9%20x%0D%0AEvil:%201"),
    ],
)
async def test_http_request(address: str, host: str, path: str, target: str) -> None:
    heard: list[bytes] = []
    async with server(saying(b"HTTP/1.1 200 OK\r\n\r\n", heard), address) as port:
        assert (await run(Check("http", path=path), port, address)).ok
    lines = heard[0].decode("ascii").split("\r\n")
    assert lines[0] == f"GET {target} HTTP/1.1"
    assert f"Host: {host}:{port}" in lines
    assert "Connection: close" in lines
    assert len(lines) == 7


async def test_http_reads_headers_only() -> None:
    async def endless(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send_all(b"x" * 65536)
        except trio.BrokenResourceError:
            return

    async with server(endless) as port:
        assert (await run(Check("http"), port)).ok


async def test_http_silence_ends_by_the_timeout() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        try:
            for octet in b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000:
                await stream.send_all(bytes([octet]))
                await trio.sleep(0.02)
        except trio.BrokenResourceError:
            return

    async with server(drip) as port:
        began = trio.current_time()
        result = await run(Check("http", timeout=0.3), port)
        assert trio.current_time() - began < 1
    assert result == ProbeResult(ok=False, detail=f"no answer from 127.0.0.1:{port} within 0.3 s")


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_nobody_there(kind: str) -> None:
    port = unused_port()
    result = await run(Check("http" if kind == "http" else "tcp"), port)
    assert result == ProbeResult(ok=False, detail=f"connection refused by 127.0.0.1:{port}")


async def test_connection_reset() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        linger = b"\1\0\0\0\0\0\0\0"
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with server(reset) as port:
        result = await run(Check("http"), port)
    assert result == ProbeResult(ok=False, detail=f"connection reset by 127.0.0.1:{port}")


# cmd ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ((0, ""), ProbeResult(ok=True, detail="exit status 0")),
        ((0, " fine\n now\n"), ProbeResult(ok=True, detail="exit status 0: fine now")),
        ((1, "broken"), ProbeResult(ok=False, detail="exit status 1: broken")),
        ((-9, ""), ProbeResult(ok=False, detail="killed by signal 9")),
        ((1, "x" * 4096), ProbeResult(ok=False, detail="exit status 1: " + "x" * 200)),
        (TimeoutError(), ProbeResult(ok=False, detail="command did not end within 2 s")),
        (
            EngineRefused("container is paused", 409),
            ProbeResult(ok=False, detail="command not run: container is paused"),
        ),
        (
            EngineRefused("out of sorts", 500),
            ProbeResult(ok=False, detail="command not run: out of sorts", ran=False),
        ),
        (
            EngineUnavailable("no answer"),
            ProbeResult(ok=False, detail="command not run: no answer", ran=False),
        ),
        (
            FileNotFoundError("no such file"),
            ProbeResult(ok=False, detail="command not run: no such file"),
        ),
    ],
)
async def test_command_outcomes(
    outcome: tuple[int, str] | Exception, expected: ProbeResult
) -> None:
    asked: list[tuple[Sequence[str], float]] = []

    async def execute(argv: Sequence[str], timeout: float) -> tuple[int, str]:
        asked.append((argv, timeout))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    check = Check("cmd", command=("check", "-q"))
    assert await probe(check, endpoint(80), execute=execute) == expected
    assert asked == [(("check", "-q"), 2.0)]


async def test_local_commands() -> None:
    assert await run_local(["sh", "-c", "echo out; echo err >&2; exit 4"], 5) == (4, "out\nerr\n")
    assert await run_local(["sh", "-c", "kill -9 $$"], 5) == (-9, "")
    assert await run_local(["sh", "-c", "yes | head -c 100000"], 5) == (0, "y\n" * 2048)
    assert await run_local(["cat"], 5) == (0, ""), "there is no input"
    with pytest.raises(FileNotFoundError):
        await run_local(["/no/such/program"], 5)
    result = await probe(
        Check("cmd", command=("/no/such/program",)), endpoint(80), execute=run_local
    )
    assert not result.ok
    assert "No such file" in result.detail


async def test_a_local_command_is_killed_with_what_it_started() -> None:
    code = (
        "import subprocess,sys; p = subprocess.Popen(['sleep', '60']);"
        "print(p.pid, flush=True); p.wait() if sys.argv[1] == 'wait' else None"
    )
    began = trio.current_time()
    with pytest.raises(TimeoutError):
        await run_local([sys.executable, "-c", code, "wait"], 0.5)
    assert trio.current_time() - began < 2
    status, output = await run_local([sys.executable, "-c", code, "leave"], 5)
    assert status == 0
    assert trio.current_time() - began < 4, "its child holds the pipe open"
    with trio.fail_after(5):
        while _alive(int(output)):  # noqa: ASYNC110 - the kernel is waited for
            await trio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_this_host_lacks_is_not_held_against_the_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def out_of_descriptors(argv: Sequence[str], timeout: float) -> tuple[int, str]:
        raise OSError(errno.EMFILE, "too many open files")

    check = Check("cmd", command=("true",))
    result = await probe(check, endpoint(1), execute=out_of_descriptors)
    assert (result.ok, result.ran) == (False, False)

    def no_socket(*_: object) -> object:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(trio.socket, "socket", no_socket)
    result = await probe(Check("tcp"), endpoint(1), execute=no_command)
    assert (result.ok, result.ran) == (False, False)
