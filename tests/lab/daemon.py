"""One discod process, started as an operator would start it: `discod run --config FILE`.

Rule: the lab knows the daemon by its command line, its configuration file, its signals, its HTTP
API and its DNS port only; nothing of `discod` is imported here.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")
Value = str | int | float | bool | Sequence[str]
Config = Mapping[str, Mapping[str, Value]]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "discod")
WORKER = b"resolver.hot"
"""In the command line of a worker process."""
AUTOGROUP_NICE = -10
"""What the unit's CPUWeight=1000 amounts to (ten times the usual share) where no systemd puts each
service into a control group: the kernel shares the processors out by sessions then (sched(7),
"The autogroup feature")."""


def environment() -> dict[str, str]:
    """The environment in which `COMMAND` finds this source tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def toml(config: Config, tail: str = "") -> str:
    """A configuration file; `tail` is added as it is (arrays of tables)."""
    lines: list[str] = []
    for table, keys in config.items():
        lines.append(f"[{table}]")
        # JSON's strings, numbers, booleans and flat lists are TOML's too.
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in keys.items()]
    return "\n".join([*lines, tail, ""])


def until(
    fits: Callable[[], T], *, deadline: float = 10.0, step: float = 0.02, what: str = ""
) -> T:
    """Call `fits` until it returns something true, and return that.

    Raises:
        AssertionError: it did not within `deadline` seconds; `what` or its last value is named.
    """
    end = time.monotonic() + deadline
    while True:
        value = fits()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or fits}; last: {value!r}")
        time.sleep(step)


def children(pid: int) -> list[int]:
    """The worker processes of the daemon `pid`, in the order of their ids."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == pid and state != "Z" and WORKER in command:
            found.append(int(entry.name))
    return sorted(found)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which no network namespace hides."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """A discod process with its configuration, runtime and state folders below `directory`.

    Args:
        directory: Short: Unix socket paths are at most 107 bytes.
        config: Tables of the configuration file; ``[host]`` gets its folders here.
        prefix: Command prefix that enters the host's namespace.
        tail: Added to the file as it is.
    """

    def __init__(
        self, directory: Path, config: Config, prefix: Sequence[str] = (), tail: str = ""
    ) -> None:
        self.directory = directory
        self.runtime = directory / "run"
        self.state = directory / "state"
        self.file = directory / "discod.toml"
        self.log_file = directory / "discod.log"
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.config: dict[str, Mapping[str, Value]] = {
            **config,
            "host": {
                **config.get("host", {}),
                "runtime_dir": str(self.runtime),
                "state_dir": str(self.state),
            },
        }
        self.tail = tail
        self.write()

    def write(self, text: str | None = None) -> None:
        """Write the configuration file; `text` instead of what `config` and `tail` say."""
        self.file.write_text(toml(self.config, self.tail) if text is None else text)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that the daemon has logged, over restarts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self, *, ready: bool = True, deadline: float = 20.0) -> None:
        """Start it, and wait until it is ready."""
        assert not self.running
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *COMMAND, "run", "--config", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(),
                start_new_session=True,
            )
        autogroup = Path(f"/proc/{self._process.pid}/autogroup")
        if autogroup.exists():
            autogroup.write_text(str(AUTOGROUP_NICE))
        if ready:
            self.wait_ready(deadline)

    def wait_ready(self, deadline: float = 20.0) -> None:
        """Wait until ``/readyz`` says 200.

        Raises:
            AssertionError: it did not; the text has its log.
        """
        end = time.monotonic() + deadline
        last: object = None
        while time.monotonic() < end:
            if not self.running:
                raise AssertionError(f"discod ended by itself\n{self.log[-4000:]}")
            try:
                status, last = self.request("GET", "/readyz")
                if status == 200:
                    return
            except OSError as error:
                last = error
            time.sleep(0.02)
        raise AssertionError(f"discod not ready: {last!r}\n{self.log[-4000:]}")

    def terminate(self, timeout: float = 15.0) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        return self._end(signal.SIGKILL, 5.0)

    def stop(self) -> None:
        """End it whatever it takes; no fault when it does not run."""
        if self.running:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    def _end(self, number: signal.Signals, timeout: float) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout)

    # What it says -----------------------------------------------------------------------------

    def request(self, method: str, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """One HTTP request over the control socket: status and body.

        Raises:
            OSError: nobody listens, or no answer in time.
        """
        connection = _UnixConnection(self.runtime / "api.sock", timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP: {error!r}") from error
        finally:
            connection.close()

    def api(self, path: str, method: str = "GET") -> Any:
        """The JSON behind a path of the API."""
        status, body = self.request(method, quote(path, safe="/?=&:"))
        assert status == 200, f"{method} {path}: {status} {body}"
        return json.loads(body)

    def metrics(self) -> dict[str, float]:
        """``/metrics``: ``name`` or ``name{labels}`` -> value."""
        status, body = self.request("GET", "/metrics")
        assert status == 200, body
        pairs = (line.rsplit(" ", 1) for line in body.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def cli(self, *args: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run a `discod` command on this host; commands that talk to the daemon find it."""
        return subprocess.run(
            [*self._prefix, *COMMAND, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.directory,
            env={**environment(), "COLUMNS": "200", "DISCOD_API": f"unix:{self.runtime}/api.sock"},
        )
