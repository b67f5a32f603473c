"""The command line as a person runs it: real processes against a real server with a fake daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from discod import __version__, cli
from discod.client import ApiError, Client, Unreachable, default_targets
from discod.http import build_app, serve_http
from discod.metrics import Metrics
from discod.model.report import PartReport
from discod.model.schema import encode_endpoint
from discod.model.settings import ListenAddress
from tests.unit.fake_view import KEYS, NOW, WEB1, FakeView

ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith(("DISCOD_", "XDG_"))}
DEADLINE = 20.0
"""Seconds for whatever a child process has to do; a Python start takes 0.3 to 3 of them."""


@dataclass
class Daemon:
    """A fake daemon that can be stopped and started again on the same socket."""

    directory: Path
    view: FakeView
    nursery: trio.Nursery
    scope: trio.CancelScope
    tcp: str = ""

    @property
    def api(self) -> str:
        return f"unix:{self.directory / 'api.sock'}"

    async def start(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

        async def serve(task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
            with self.scope:
                app = build_app(self.view, Metrics())
                listen = ListenAddress(ip_address("127.0.0.1"), 0)
                path = self.directory / "api.sock"
                await serve_http(app, (listen,), path, task_status=task_status)
            self.ended.set()

        self.tcp = (await self.nursery.start(serve))[0]

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    async def run(self, *args: str, over: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "discod", *args]
        environ = {**ENVIRON, "DISCOD_API": over or self.api}
        with trio.fail_after(DEADLINE):
            done = await trio.run_process(
                argv, env=environ, capture_stdout=True, capture_stderr=True, check=False
            )
        return subprocess.CompletedProcess(
            argv, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


@asynccontextmanager
async def daemon(directory: Path, view: FakeView | None = None) -> AsyncIterator[Daemon]:
    async with trio.open_nursery() as nursery:
        one = Daemon(directory, view or FakeView(), nursery, trio.CancelScope())
        await one.start()
        yield one
        nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], object]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - of another process, no event tells
            await trio.sleep(0.01)


# Readers ---------------------------------------------------------------------------------------


async def test_readers(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        for over in (one.api, one.tcp):
            done = await one.run("services", over=over)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.split("\n")[0].split()[:3] == ["SERVICE", "UP", "DOWN"]
        done = await one.run("services", "Web", "--json")
        assert len(json.loads(done.stdout)["up"]) == 2
        done = await one.run("hosts")
        assert "alpha (this)" in done.stdout
        done = await one.run("services", "none")
        assert done.returncode == 1
        assert done.stderr == "discod: service = none: expected a service that is known\n"


async def test_explain_says_it_with_its_exit_status(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        done = await one.run("explain", "web")
        assert done.returncode == 0
        assert done.stdout.startswith("web is in DNS: 2 endpoints on alpha, beta;")
        done = await one.run("explain", "cache", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["findings"][0]["state"] == "lost"


async def test_ready(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        done = await one.run("ready")
        assert (done.returncode, done.stdout) == (0, "ready\n")
        one.view.part_reports += (PartReport("docker", False, "no socket", NOW),)
        done = await one.run("ready")
        assert (done.returncode, done.stdout) == (1, "not ready\ndocker: no socket\n")
        done = await one.run("ready", "--json")
        assert json.loads(done.stdout)["ready"] is False


async def test_drain(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        assert (await one.run("drain")).stdout == "drain done\n"
        assert (await one.run("undrain", "web-1")).stdout == "undrain done\n"
        assert one.view.calls == [("drain", None), ("undrain", "web-1")]
        done = await one.run("drain", "nobody")
        assert done.returncode == 1
        assert done.stderr == "discod: container = nobody: no such container here\n"
        done = await one.run("drain", over=one.tcp)
        assert done.returncode == 1
        assert "accepted on the control socket only" in done.stderr


async def test_watch_survives_a_restart_of_the_daemon(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "discod", "watch"],
            env={**ENVIRON, "DISCOD_API": one.api},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout
        assert process.stderr
        async with process.stdout, process.stderr:
            lines = _Lines(process.stdout)
            await eventually(lambda: one.view.watchers)
            gone = one.view.state.apply([(KEYS.record(WEB1.id), None, 12)], 12, NOW)
            await one.view.watchers[0].send(gone)
            line = await lines.next()
            assert line.split()[1:4] == ["lost", "web", "10.101.1.2:80"]
            await one.stop()
            await one.start()
            await eventually(lambda: one.view.watchers)
            back = one.view.state.apply([(KEYS.record(WEB1.id), encode_endpoint(WEB1), 13)], 13, 0)
            await one.view.watchers[0].send(back)
            assert "announced" in await lines.next()
            process.send_signal(signal.SIGINT)
            try:
                with trio.fail_after(DEADLINE):
                    await process.wait()
            finally:
                process.kill()


class _Lines:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def next(self) -> str:
        with trio.fail_after(DEADLINE):
            while b"\n" not in self._buffer:
                data = await self._stream.receive_some()
                assert data, self._buffer
                self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()


# No daemon -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["services"], ["watch"], ["drain"], ["explain", "x"]])
def test_no_daemon(tmp_path: Path, command: list[str]) -> None:
    api = f"unix:{tmp_path / 'api.sock'}"
    result = CliRunner().invoke(cli.main, [*command, "--api", api])
    assert result.exit_code == 3
    assert result.stderr == (
        f"discod: no daemon answers at {api} (no such file or directory); "
        "is it running? systemctl status discod\n"
    )


def test_the_first_that_answers_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(
            [f"unix:{tmp_path}/no.sock", f"http://127.0.0.1:{server.getsockname()[1]}"], timeout=0.1
        )
        with pytest.raises(Unreachable, match="does not answer within"):
            client.get("/v1/hosts")


@pytest.mark.parametrize("answer", [b"", b"\x00\xff\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>"])
def test_something_else_answers(answer: bytes) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unreachable, match=r"broke off|not discod"):
            Client([f"http://127.0.0.1:{server.getsockname()[1]}"]).get("/v1/hosts")
        thread.join()


@pytest.mark.parametrize(
    "api", ["localhost", "https://x", "unix:relative", "http://h:x", "http://"]
)
def test_wrong_targets_are_wrong_usage(api: str) -> None:
    result = CliRunner().invoke(cli.main, ["hosts", "--api", api])
    assert result.exit_code == 2
    assert "expected http://HOST:PORT or unix:/PATH" in result.stderr


def test_errors_in_words() -> None:
    several = {"error": {}, "errors": [{"subject": "a", "value": "", "expected": "b"}] * 2}
    assert str(ApiError(400, several)) == "a: b\na: b"
    assert str(ApiError(502, "bad gateway")) == "the daemon answered with status 502"


def test_default_targets() -> None:
    targets = default_targets(4_000_000_000, {"XDG_RUNTIME_DIR": "/run/user/9"})
    assert targets == (
        "unix:/run/discod/api.sock",
        "unix:/run/user/9/discod/api.sock",
        "http://127.0.0.1:9353",
    )


# Configuration ---------------------------------------------------------------------------------


def test_check_config(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[host]\nname = "a"\n')
    bad.write_text('[host]\nname = "A!"\n[dns]\nlisten = ["nowhere"]\n[log]\nlevel = 3\n')
    result = CliRunner().invoke(cli.main, ["check-config", str(good)])
    assert (result.exit_code, result.output) == (0, f"{good}: ok\n")
    result = CliRunner().invoke(cli.main, ["check-config", str(bad)])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        f"{bad}:2: host.name",
        f"{bad}:4: dns.listen[0]",
        f"{bad}:6: log.level",
    ]
    result = CliRunner().invoke(cli.main, ["check-config", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert "expected a readable file" in result.stderr


def test_run_does_not_start_with_a_bad_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("x = 1\n")
    result = CliRunner().invoke(cli.main, ["run", "--config", str(bad)])
    assert result.exit_code == 1
    assert "x" in result.stderr


def test_version_and_help() -> None:
    assert CliRunner().invoke(cli.main, ["version"]).output == f"discod {__version__}\n"
    result = CliRunner().invoke(cli.main, ["--help"])
    commands = "run check-config services hosts watch explain ready drain undrain announce"
    for command in commands.split(" "):
        assert command in result.output


# Announce --------------------------------------------------------------------------------------

ANNOUNCE = ("announce", "--name", "job", "--port", "8080", "--check", "http:/health", "--tag", "x")
SLEEP = ("sh", "-c", "trap 'echo caught; exit 7' TERM; echo started; while :; do sleep 0.05; done")


@dataclass
class Announced:
    process: trio.Process
    out: _Lines
    err: _Lines

    async def ends(self) -> int:
        with trio.fail_after(DEADLINE):
            return await self.process.wait()


@asynccontextmanager
async def announcing(api: str, *options: str, command: tuple[str, ...]) -> AsyncIterator[Announced]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "discod", *ANNOUNCE, *options, "--", *command],
        env={**ENVIRON, "DISCOD_API": api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    try:
        async with process.stdout, process.stderr:
            yield Announced(process, _Lines(process.stdout), _Lines(process.stderr))
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()  # which ends its command; SIGKILL would leave that alone
                with trio.move_on_after(DEADLINE):
                    await process.wait()
            if process.returncode is None:
                process.kill()
            await process.wait()


async def test_a_stop_withdraws_first_then_signals(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        async with announcing(one.api, "--drain", "0.2", command=SLEEP) as job:
            assert await job.out.next() == "started"
            assert await job.err.next() == "discod: job: announced"
            assert await job.err.next() == "discod: job: up"
            (announcement,) = one.view.announcements
            (service,) = announcement.services
            assert (service.name, service.port, service.tags) == ("job", 8080, ("x",))
            assert service.check is not None
            assert service.check.path == "/health"
            await announcement.statuses_out.send("down: status 503")
            assert await job.err.next() == "discod: job: down: status 503"
            job.process.send_signal(signal.SIGTERM)
            assert await job.err.next() == "discod: job: withdrawn"
            withdrawn_at = trio.current_time()
            assert announcement.withdrawn == 1
            assert await job.out.next() == "caught"
            assert trio.current_time() - withdrawn_at >= 0.1
            assert await job.ends() == 7
        with trio.fail_after(DEADLINE):
            await announcement.ended.wait()
        assert len(one.view.announcements) == 1


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
async def test_its_end_is_ours(tmp_path: Path, script: str, status: int) -> None:
    async with daemon(tmp_path) as one:
        command = ("sh", "-c", f"read line; {script}")
        async with announcing(one.api, command=command) as job:
            # The test's standard input is empty, so that `read` returns at once.
            assert await job.ends() == status
        for announcement in one.view.announcements:
            with trio.fail_after(DEADLINE):
                await announcement.ended.wait()


async def test_the_command_ends_while_announced(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    async with daemon(tmp_path) as one:
        command = ("sh", "-c", f"while [ ! -e {stop} ]; do sleep 0.02; done; exit 3")
        async with announcing(one.api, command=command) as job:
            await eventually(lambda: one.view.announcements)
            stop.touch()
            assert await job.ends() == 3
        with trio.fail_after(DEADLINE):
            await one.view.announcements[0].ended.wait()


async def test_the_command_outlives_the_daemon_and_is_announced_again(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        await one.stop()
        async with announcing(one.api, command=SLEEP) as job:
            assert await job.out.next() == "started"
            assert "not announced:" in await job.err.next()
            await one.start()
            assert await job.err.next() == "discod: job: announced"
            assert await job.err.next() == "discod: job: up"
            await one.stop()
            assert "not announced:" in await job.err.next()
            await one.start()
            assert await job.err.next() == "discod: job: announced"
            assert len(one.view.announcements) == 2
            await one.stop()  # a stop without a daemon still ends the command
            job.process.send_signal(signal.SIGTERM)
            assert await job.out.next() == "caught"
            assert await job.ends() == 7


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with (
        daemon(tmp_path) as one,
        announcing(one.api, "--drain", "600", command=SLEEP) as job,
    ):
        await eventually(lambda: one.view.announcements)
        assert await job.out.next() == "started"
        job.process.send_signal(signal.SIGINT)
        await eventually(lambda: one.view.announcements[0].withdrawn)
        job.process.send_signal(signal.SIGTERM)
        assert await job.out.next() == "caught"
        assert await job.ends() == 7


async def test_killed_it_leaves_the_command_alone_and_withdraws(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        command = ("sh", "-c", "echo $$; exec sleep 60")
        async with announcing(one.api, command=command) as job:
            pid = int(await job.out.next())
            try:
                await eventually(lambda: one.view.announcements)
                job.process.kill()
                with trio.fail_after(DEADLINE):
                    await one.view.announcements[0].ended.wait()
                os.kill(pid, 0)  # it lives
            finally:
                os.kill(pid, signal.SIGKILL)


async def test_a_refusal_leaves_the_command_alone(tmp_path: Path) -> None:
    async with (
        daemon(tmp_path, FakeView(refuse="job is not for this host")) as one,
        announcing(one.api, command=SLEEP) as job,
    ):
        assert await job.out.next() == "started"
        line = await job.err.next()
        assert "job is not for this host" in line
        assert "the command goes on" in line
        one.view.refuse = ""
        assert await job.err.next() == "discod: job: announced"


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (("/no/such/program",), 127, "not found"),
        (("/etc/passwd",), 126, "Permission denied"),
    ],
)
async def test_a_command_that_does_not_start(
    tmp_path: Path, command: tuple[str, ...], status: int, text: str
) -> None:
    async with daemon(tmp_path) as one:
        async with announcing(one.api, command=command) as job:
            assert text in await job.err.next()
            assert await job.ends() == status
        assert one.view.announcements == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--name", "Any!", "--port", "80"], "name = 'Any!'"),
        (["--name", "a", "--port", "0"], "port"),
        (["--name", "a", "--port", "1", "--check", "ping"], "check"),
        (["--name", "a", "--port", "1", "--api", "http://127.0.0.1:1"], "expected unix:/PATH"),
        (["--port", "1"], "--name"),
    ],
)
def test_wrong_announcements_start_nothing(args: list[str], text: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    result = CliRunner().invoke(cli.main, ["announce", *args, "--", "touch", str(made)])
    assert result.exit_code == 2
    assert text in result.stderr
    assert not made.exists()
