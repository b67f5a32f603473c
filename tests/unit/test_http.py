from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import termios
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.routing import Route

from discod.client import ApiError, Client, Unreachable
from discod.http import BODY_MAX, build_app, serve_http
from discod.http_server import CONNECTIONS_MAX, bind_unix
from discod.metrics import Metrics
from discod.model.report import PartReport
from discod.model.schema import encode_endpoint
from discod.model.settings import ListenAddress
from tests.unit.fake_view import KEYS, NOW, WEB1, WEB3, FakeView

LOOPBACK = ListenAddress(ip_address("127.0.0.1"), 0)


@dataclass
class Server:
    view: FakeView
    tcp: str
    unix: str

    @property
    def port(self) -> int:
        return int(self.tcp.rsplit(":", 1)[1])

    async def ask(self, method: str, path: str, *args: Any, over: str = "") -> Any:
        client = Client([over or self.tcp], timeout=5)
        return await trio.to_thread.run_sync(partial(getattr(client, method), path, *args))

    async def raw(self, request: bytes, *, unix: bool = False) -> bytes:
        """Everything that comes back for these octets, up to the end of the connection."""
        stream = await self.connect(unix=unix)
        async with stream:
            await stream.send_all(request)
            received = b""
            with trio.fail_after(5):
                while data := await stream.receive_some():
                    received += data
        return received

    async def connect(self, *, unix: bool = False) -> trio.SocketStream:
        if unix:
            return await trio.open_unix_socket(self.unix.removeprefix("unix:"))
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def serving(directory: Path, view: FakeView | None = None) -> AsyncIterator[Server]:
    view = view or FakeView()
    async with trio.open_nursery() as nursery:
        app = build_app(view, Metrics())
        bound = await nursery.start(serve_http, app, (LOOPBACK,), directory / "api.sock")
        yield Server(view, *bound)
        nursery.cancel_scope.cancel()


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(path: str, document: object, *headers: str) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    return "\r\n".join([head, *headers, "", ""]).encode() + body


def unread(stream: trio.SocketStream) -> int:
    """Octets that the kernel holds for the reader."""
    count = array("i", [0])
    fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, count)
    return count[0]


async def eventually(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - of the fake and the kernel, no event tells
            await trio.sleep(0.005)


def test_the_documentation_names_every_endpoint() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    routes = build_app(FakeView(), Metrics()).routes
    assert len(routes) > 10
    for route in routes:
        assert isinstance(route, Route)
        method = "POST" if "POST" in (route.methods or ()) else "GET"
        assert f"`{method} {route.path}`" in text


async def test_binds_any_port_and_a_private_socket_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    before = os.umask(0o077)
    try:
        async with serving(tmp_path) as server:
            assert server.port > 0
            assert server.unix == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert os.umask(0o077) == 0o077  # left as it was
    finally:
        os.umask(before)
    assert not path.exists()


async def test_replaces_a_stale_socket_but_not_a_live_one(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    bind_unix(path).close()
    assert path.exists()
    async with serving(tmp_path):
        with pytest.raises(OSError, match=r"api\.sock: another process serves it"):
            bind_unix(path)
    path.write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


async def test_leaves_the_socket_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with serving(tmp_path):
        path.unlink()
        successor = bind_unix(path)
    assert path.exists()
    successor.close()


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ListenAddress(ip_address("127.0.0.1"), taken.getsockname()[1])
        app = build_app(FakeView(), Metrics())
        with pytest.raises(OSError, match=rf"http\.listen 127\.0\.0\.1:{listen.port}: Address"):
            await serve_http(app, (listen,), None)


@pytest.mark.parametrize("unix", [False, True])
async def test_reads_work_over_both(tmp_path: Path, unix: bool) -> None:
    async with serving(tmp_path) as server:
        over = server.unix if unix else server.tcp
        services = await server.ask("get", "/v1/services", over=over)
        assert [one["name"] for one in services["services"]] == ["cache", "db", "legacy", "web"]
        web = await server.ask("get", "/v1/services/web", over=over)
        assert len(web["up"]) == 2
        assert [one["reason"] for one in web["withdrawn"]] == ["crashed"]
        cache = await server.ask("get", "/v1/services/cache", over=over)
        assert cache["lost"][0]["lost_revision"] == 11
        hosts = await server.ask("get", "/v1/hosts", over=over)
        assert [(one["name"], one["this"]) for one in hosts["hosts"]] == [
            ("alpha", True),
            ("beta", False),
        ]
        catalog = await server.ask("get", "/v1/catalog", over=over)
        assert catalog["revision"] == 11
        assert list(catalog["invalid"]) == [KEYS.records + "queue/one"]
        producers = await server.ask("get", "/v1/producers", over=over)
        assert [one["name"] for one in producers["producers"]][:2] == ["web-1", "web-3"]
        answer = await server.ask("get", "/v1/explain", {"q": "web"}, over=over)
        assert answer["in_dns"] is True


async def test_metrics_and_probes(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await server.raw(get("/metrics"))
        assert b"content-type: text/plain; version=0.0.4" in answer
        assert b"\ndiscod_catalog_revision " in answer
        assert (await server.raw(get("/livez"))).endswith(b"ok\n")
        assert (await server.raw(get("/readyz"))).endswith(b"ok\n")


async def test_readyz_names_what_is_missing(tmp_path: Path) -> None:
    view = FakeView(
        part_reports=(
            PartReport("store", True, "", NOW),
            PartReport("docker", False, "no socket at /var/run/docker.sock", NOW),
        )
    )
    async with serving(tmp_path, view) as server:
        answer = await server.raw(get("/readyz"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert answer.endswith(b"\r\n\r\ndocker: no socket at /var/run/docker.sock\n")
        as_json = await server.raw(get("/readyz", "Accept: application/json"))
        assert json.loads(as_json.split(b"\r\n\r\n")[1])["blocking"][0]["name"] == "docker"
        view.part_reports = (PartReport("docker", True, "", NOW),)
        assert (await server.raw(get("/readyz"))).startswith(b"HTTP/1.1 200")
        view.part_reports = (PartReport("docker", False, "gone", NOW),)
        assert (await server.raw(get("/readyz"))).startswith(b"HTTP/1.1 200")


async def test_prometheus_service_discovery(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        groups = await server.ask("get", "/v1/sd/prometheus")
        assert {group["targets"][0] for group in groups} == {
            "10.101.1.2:80",
            "[2001:db8:2::2]:80",
        }
        (blue,) = await server.ask("get", "/v1/sd/prometheus", {"service": "web", "tag": "blue"})
        labels = blue["labels"]
        assert labels["__meta_discod_tags"] == ",blue,v2,"
        assert labels["__meta_discod_attr_team_name"] == "core"
        assert labels["__meta_discod_container"] == "web-1"
        assert await server.ask("get", "/v1/sd/prometheus", {"service": "nothing"}) == []


@pytest.mark.parametrize(
    ("request_", "status", "subject"),
    [
        (get("/nowhere"), 404, "path"),
        (get("/v1/services/"), 404, "path"),
        (get("/v1/services/unknown"), 404, "service"),
        (get("/v1/services/%00%0a"), 404, "service"),
        (get("/v1/explain"), 400, "q"),
        (get("/v1/explain?q=" + "x" * 400), 400, "q"),
        (get("/v1/drain"), 405, "method"),
        (post("/v1/services", {}), 405, "method"),
        (post("/v1/drain", {}), 403, "connection"),
        (post("/v1/undrain", {}), 403, "connection"),
        (post("/v1/announce", {}), 403, "connection"),
        (post("/v1/announce/abc/withdraw", {}), 403, "connection"),
    ],
)
async def test_refusals(tmp_path: Path, request_: bytes, status: int, subject: str) -> None:
    async with serving(tmp_path) as server:
        head, body = (await server.raw(request_)).split(b"\r\n\r\n", 1)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(body)["error"]["subject"] == subject
        if status == 405:
            assert b"\r\nallow: " in head.lower()
        assert server.view.calls == []


@pytest.mark.parametrize(
    ("request_", "status", "subject"),
    [
        (post("/v1/drain", b"{"), 400, "body"),
        (post("/v1/drain", b"[" * 20_000), 400, "body"),
        (post("/v1/drain", {"container": 5}), 400, "container"),
        (post("/v1/drain", ["web"]), 400, "container"),
        (post("/v1/drain", {"container": "nobody"}), 404, "container"),
        (post("/v1/drain", b"x" * (BODY_MAX + 1)), 413, "body"),
        (post("/v1/announce", {}), 400, "services"),
        (post("/v1/announce", {"services": [{"name": "x"}]}), 400, "services[0].port"),
        (post("/v1/announce/abc/withdraw", {}), 404, "announcement"),
    ],
)
async def test_refusals_on_the_socket(
    tmp_path: Path, request_: bytes, status: int, subject: str
) -> None:
    async with serving(tmp_path) as server:
        head, body = (await server.raw(request_, unix=True)).split(b"\r\n\r\n", 1)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(body)["error"]["subject"] == subject


async def test_a_chunked_body_is_bounded_as_well(tmp_path: Path) -> None:
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    head = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(tmp_path) as server:
        answer = await server.raw(head + chunk * 17, unix=True)
        assert answer.startswith(b"HTTP/1.1 413")


async def test_drain_and_undrain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert await server.ask("post", "/v1/drain", {"container": None}, over=server.unix) == {
            "done": "drain done"
        }
        await server.ask("post", "/v1/undrain", {"container": "web-1"}, over=server.unix)
        await server.raw(post("/v1/drain", b""), unix=True)
        assert server.view.calls == [("drain", None), ("undrain", "web-1"), ("drain", None)]


async def test_a_drain_that_the_store_does_not_confirm_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discod.http.CHANGE_TIMEOUT", 0.02)
    async with serving(tmp_path, FakeView(change_delay=60)) as server:
        answer = await server.raw(post("/v1/drain", {}), unix=True)
        assert answer.startswith(b"HTTP/1.1 504")


async def test_head_has_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/metrics", "/v1/services", "/v1/watch"):
            answer = await server.raw(get(path).replace(b"GET", b"HEAD", 1))
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\n")


async def test_a_fault_of_ours_is_a_500_and_the_server_lives_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view = FakeView()
    async with serving(tmp_path, view) as server:
        view.store = None  # type: ignore[assignment]
        answer = await server.raw(get("/v1/catalog"))
        assert answer.startswith(b"HTTP/1.1 500")
        assert b'"subject":"path"' in answer
        assert (await server.raw(get("/livez"))).endswith(b"ok\n")
    assert "Error in ASGI Framework" in caplog.text


# Streams ---------------------------------------------------------------------------------------


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    received = b""
    with trio.fail_after(5):
        while end not in received:
            data = await stream.receive_some()
            assert data, received
            received += data
    return received


async def test_watch(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with await server.connect() as stream:
            await stream.send_all(get("/v1/watch"))
            received = await read_until(stream, b"from revision 11\n\n")
            assert b"text/event-stream" in received
            view = server.view
            gone = view.state.apply([(KEYS.record(WEB1.id), None, 12)], 12, NOW)
            back = view.state.apply([(KEYS.record(WEB1.id), encode_endpoint(WEB1), 13)], 13, NOW)
            for change in (gone, back):
                await view.watchers[0].send(change)
            received = await read_until(stream, b"event: announced")
            assert b"id: 12\nevent: lost\ndata: {" in received
            assert b'"address": "10.101.1.2"' in received
        await eventually(lambda: not view.watchers)


async def test_a_watcher_that_falls_behind_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, await server.connect() as stream:
        await stream.send_all(get("/v1/watch"))
        await read_until(stream, b"from revision")
        server.view.watchers[0].close()
        received = await read_until(stream, b"0\r\n\r\n")
        assert b"event: behind" in received


async def test_streams_show_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discod.http_stream.WATCH_HEARTBEAT", 0.01)
    monkeypatch.setattr("discod.http_stream.ANNOUNCE_HEARTBEAT", 0.01)
    async with serving(tmp_path) as server:
        async with await server.connect() as stream:
            await stream.send_all(get("/v1/watch"))
            await read_until(stream, b":\n\n\r\n3\r\n:\n\n")
        async with await server.connect(unix=True) as stream:
            await stream.send_all(post("/v1/announce", SERVICE))
            await read_until(stream, b"1\r\n\n\r\n1\r\n\n")


SERVICE = {"services": [{"name": "api", "port": 8080, "check": "tcp", "tags": ["x"]}]}


async def test_announce_lasts_as_long_as_its_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with await server.connect(unix=True) as stream:
            await stream.send_all(post("/v1/announce", SERVICE))
            received = await read_until(stream, b'"up"}')
            (one,) = server.view.announcements
            assert one.services[0].name == "api"
            assert one.services[0].check is not None
            await one.statuses_out.send("down: connection refused")
            received += await read_until(stream, b"connection refused")
            id_ = json.loads(received[received.index(b"{") : received.index(b"}") + 1])["id"]
            path = f"/v1/announce/{id_}/withdraw"
            assert await server.ask("post", path, {}, over=server.unix) == {"withdrawn": True}
            assert one.withdrawn == 1
            assert not one.ended.is_set()
        with trio.fail_after(5):
            await one.ended.wait()
        answer = await server.raw(post(path, {}), unix=True)
        assert answer.startswith(b"HTTP/1.1 404")


async def test_announce_refused_by_policy(tmp_path: Path) -> None:
    view = FakeView(refuse="this host may not claim 'api'")
    async with serving(tmp_path, view) as server:
        with pytest.raises(ApiError, match="may not claim") as caught:
            await server.ask("post", "/v1/announce", SERVICE, over=server.unix)
        assert caught.value.status == 409


async def test_announcements_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discod.http_stream.ANNOUNCEMENTS_MAX", 1)
    async with serving(tmp_path) as server, await server.connect(unix=True) as stream:
        await stream.send_all(post("/v1/announce", SERVICE))
        await read_until(stream, b"accepted")
        answer = await server.raw(post("/v1/announce", SERVICE), unix=True)
        assert answer.startswith(b"HTTP/1.1 503")


# Robustness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unix", [False, True])
async def test_shutdown_is_prompt_whatever_clients_do(tmp_path: Path, unix: bool) -> None:
    view = FakeView()
    with trio.CancelScope() as whole:
        async with serving(tmp_path, view) as server:
            idle = await server.connect(unix=unix)
            half = await server.connect(unix=unix)
            await half.send_all(b"GET /v1/serv")
            watching = await server.connect(unix=unix)
            await watching.send_all(get("/v1/watch"))
            await read_until(watching, b"from revision")
            stuck = await server.connect(unix=unix)
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await stuck.send_all(get("/v1/watch"))  # and never reads again
            await eventually(lambda: len(view.watchers) == 2)
            big = view.state.apply([(KEYS.record(WEB1.id), None, 12)], 12, NOW)
            big = type(big)(big.services, big.hosts, big.entries * 30_000)  # about 15 MB
            await view.watchers[1].send(big)
            await eventually(lambda: unread(stuck) > 1000)
            started = trio.current_time()
            whole.deadline = started + 10
        assert 0.4 < trio.current_time() - started < 5  # the grace for the stuck one
        for stream in (idle, half, watching, stuck):
            await stream.aclose()
    assert not whole.cancelled_caught
    assert view.watchers == []


async def test_shutdown_waits_for_stuck_clients_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discod.http_server.GRACE", 30.0)
    async with serving(tmp_path) as server:
        streams = [await server.connect() for _ in range(20)]
        for stream in streams:
            await stream.send_all(get("/v1/watch"))
            await read_until(stream, b"from revision")
        started = trio.current_time()
    assert trio.current_time() - started < 5
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"X" * 40_000,
        b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n",
        b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
        b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 60,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: !!\r\n\r\n",
        b"GET /v1/watch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        get("/v1/watch") + b"garbage behind it",
    ],
)
async def test_garbage_harms_nobody_else(tmp_path: Path, garbage: bytes) -> None:
    async with serving(tmp_path) as server:
        for unix in (False, True):
            stream = await server.connect(unix=unix)
            await stream.send_all(garbage)
            with trio.move_on_after(0.1):
                while await stream.receive_some():
                    pass
            await stream.aclose()
        assert (await server.raw(get("/livez"))).endswith(b"ok\n")
        await eventually(lambda: not server.view.watchers)


async def test_a_reset_in_the_midst_of_an_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(get("/metrics") * 3)
            sock.close()
        assert (await server.raw(get("/livez"))).endswith(b"ok\n")


async def test_idle_connections_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CONNECTIONS_MAX >= 64
    monkeypatch.setattr("discod.http_server.CONNECTIONS_MAX", 3)
    async with serving(tmp_path) as server:
        for unix in (False, True):
            streams = [await server.connect(unix=unix) for _ in range(4)]
            with trio.fail_after(5):
                assert await streams[0].receive_some() == b""  # the one idle for longest
            await streams[1].send_all(b"GET /livez HTTP/1.1\r\nHost:")  # no request yet
            assert await server.ask("get", "/v1/hosts", over=server.unix if unix else "")
            with trio.fail_after(5):
                assert await streams[1].receive_some() == b""
            await streams[3].send_all(get("/livez"))
            assert (await read_until(streams[3], b"ok\n")).startswith(b"HTTP/1.1 200")
            for stream in streams:
                await stream.aclose()


async def test_requests_under_way_keep_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discod.http_server.CONNECTIONS_MAX", 3)
    async with serving(tmp_path) as server:
        streams = [await server.connect() for _ in range(3)]
        for stream in streams:
            await stream.send_all(get("/v1/watch"))
            await read_until(stream, b"from revision")
        with pytest.raises(Unreachable):  # of the same client, which gives up nothing of its own
            await server.ask("get", "/v1/hosts")
        assert await server.ask("get", "/v1/hosts", over=server.unix)  # another table
        # Another client than the one that holds all gets a place of those, at work or not.
        monkeypatch.setattr("discod.http_server._holder", lambda _: "another")
        assert await server.ask("get", "/v1/hosts")
        await eventually(lambda: len(server.view.watchers) == 2)
        for stream in streams:
            await stream.aclose()
        await eventually(lambda: not server.view.watchers)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_stream_ends_with_its_client(tmp_path: Path) -> None:
    """A client that resets in the midst of it leaves nothing behind, for no time."""
    async with serving(tmp_path) as server:
        at_rest = descriptors()
        streams = [await server.connect() for _ in range(5)]
        for stream in streams:
            await stream.send_all(get("/v1/watch"))
            await read_until(stream, b"from revision")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()
        await eventually(lambda: descriptors() <= at_rest)


async def test_http2_is_not_spoken(tmp_path: Path) -> None:
    """A connection that was upgraded to it was once kept for ever."""
    async with serving(tmp_path) as server:
        upgrade = (
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk",
        )
        stream = await server.connect()
        await stream.send_all(get("/livez", *upgrade))
        assert (await read_until(stream, b"ok\n")).startswith(b"HTTP/1.1 200")
        await stream.aclose()
        answer = await server.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))


async def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for text in (b'{"services": [{"name": "\\ud800", "port": 80}]}', b'"\\udfff"'):
            head = b"POST /v1/announce HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            request = head + b"Content-Length: %d\r\n\r\n" % len(text) + text
            answer = await server.raw(request, unix=True)
            assert answer.startswith(b"HTTP/1.1 400"), answer


async def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discod.http.BODY_TIMEOUT", 0.02)
    async with serving(tmp_path) as server:
        head = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        answer = await server.raw(head, unix=True)
        assert answer.startswith(b"HTTP/1.1 408")


async def test_explain_and_watch_agree_on_a_withdrawn_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await server.ask("get", "/v1/explain", {"q": f"{WEB3.instance}.web"})
        assert answer["in_dns"] is False
        (finding,) = answer["findings"]
        assert finding["reason"] == "crashed"
        assert finding["stored"] is True
