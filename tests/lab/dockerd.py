"""A real dockerd of the tests' own: started, hurt, and taken away with everything it made.

Rule: whatever happens in the test, `Dockerd.close` leaves no process, mount, cgroup or file of this
engine behind. Everything here is synchronous; trio tests call it through a thread where time
matters. Give each engine a network namespace (`prefix`), else it puts its bridge and its packet
filter rules into the machine's own.

    with private_namespace() as prefix, Dockerd(prefix=prefix) as engine:
        engine.import_busybox()
        web = engine.run("httpd", "-f", "-p", "80", labels={"SERVICE_NAME": "web"})
        engine.kill()       # the container lives on
        engine.start()      # and is found again
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import docker

IMAGE = "bb:1"
BUSYBOX = Path("/bin/busybox")
API_VERSION = "1.41"
"""Of Debian 12's docker.io 20.10; asked for by name, so that no call has to negotiate."""


class Dockerd:
    """One engine. `start` may be called again after `kill` or `stop`: same data, same socket."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        prefix: Sequence[str] = (),
        bip: str = "10.101.1.1/24",
        cidr6: str | None = "2001:db8:1::/64",
        live_restore: bool = True,
        extra: Sequence[str] = (),
    ) -> None:
        """`root` must not exist or be empty; it has to be short (socket paths end at 107 bytes).

        `prefix` goes before the command, and must exec it rather than run it as a child, e.g.
        ``("nsenter", "--net=/var/run/netns/a")``.
        """
        if root is None:
            root = Path(tempfile.mkdtemp(prefix="dd", dir="/tmp"))
        self.root = root
        self.socket = root / "docker.sock"
        assert len(bytes(self.socket)) <= 100, f"too long for a unix socket: {self.socket}"
        self.containerd = root / "exec/containerd/containerd.sock"
        self.log = root / "dockerd.log"
        self.prefix = tuple(prefix)
        self._command = [
            *self.prefix,
            "dockerd",
            f"--data-root={root}/data",
            f"--exec-root={root}/exec",
            f"--host=unix://{self.socket}",
            f"--pidfile={root}/pid",
            f"--bip={bip}",
            "--storage-driver=overlay2",
            *(("--ipv6", f"--fixed-cidr-v6={cidr6}") if cidr6 else ()),
            *extra,
        ]
        self.live_restore = live_restore
        """Whether containers outlive dockerd; counts from the next start on."""
        self._process: subprocess.Popen[bytes] | None = None
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []
        self._closed = False

    # The engine's process ---------------------------------------------------------------------

    @property
    def url(self) -> str:
        """For DOCKER_HOST and the SDK."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Of the running dockerd."""
        assert self._process is not None, "dockerd is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the dockerd process exists (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start dockerd without waiting, so that several can come up at the same time."""
        assert not self.running, "dockerd is running already"
        assert not self._closed
        self.root.mkdir(parents=True, exist_ok=True)
        # Of a killed predecessor. With the second one, dockerd would wait for a containerd that is
        # a zombie or still dying.
        (self.root / "pid").unlink(missing_ok=True)
        if not _answers(self.containerd):
            (self.root / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *(("--live-restore",) if self.live_restore else ())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupted test must get to clean up
            )

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until the engine answers a ping."""
        deadline = time.monotonic() + timeout
        while True:
            # Connect first: the SDK leaves the socket of a failed connection to the collector.
            with contextlib.suppress(OSError, docker.errors.DockerException):
                if _answers(self.socket) and self.client.ping():
                    return
            if not self.running:
                raise RuntimeError(f"dockerd ended at its start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"dockerd not ready in {timeout} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def start(self, timeout: float = 30.0) -> None:
        """Start dockerd and wait until it answers."""
        self.spawn()
        self.wait_ready(timeout)

    def kill(self) -> None:
        """SIGKILL dockerd: its containers and their shims live on, and perhaps containerd."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        # containerd dies with dockerd where it was started with a parent death signal.
        with contextlib.suppress(TimeoutError):
            _poll(lambda: not _answers(self.containerd), 0.3, "containerd lives on")

    def stop(self, timeout: float = 20.0) -> None:
        """SIGTERM dockerd; without live-restore its containers end first. SIGKILL at the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP dockerd: its socket still accepts, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Take `freeze` back."""
        os.kill(self.pid, signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        """The end of dockerd's own log, for messages of failed tests."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    # What tests do with it --------------------------------------------------------------------

    @property
    def client(self) -> docker.APIClient:
        """The SDK's low-level client, one for each thread."""
        if not hasattr(self._local, "client"):
            client = docker.APIClient(self.url, version=API_VERSION, timeout=60)
            client.trust_env = False
            # The SDK keeps a pool of connections for every different URL.
            client.headers["Connection"] = "close"
            self._local.client = client
            self._clients.append(client)
        return self._local.client

    def import_busybox(self) -> None:
        """Make the image bb:1: /bin/busybox with a link for each applet."""
        self.client.import_image_from_data(_busybox_tar(), repository="bb", tag="1")

    def create(
        self,
        *argv: str,
        name: str | None = None,
        image: str = IMAGE,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        network: str | None = None,
        publish: Mapping[int | str, Any] | None = None,
        expose: Sequence[int | tuple[int, str]] = (),
        healthcheck: Mapping[str, Any] | None = None,
        stop_signal: str | None = None,
        host: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a container (default: one that sleeps and ends at once on SIGTERM); its id.

        `publish` maps container ports (80 or ``"53/udp"``) to host ports or (address, port), the
        SDK's ``port_bindings``; `healthcheck` is the API's, in lower case with durations in
        nanoseconds (`health` makes one); `host` holds further ``create_host_config`` arguments.
        """
        ports: list[Any] = list(expose)
        for port in publish or ():
            number, _, protocol = str(port).partition("/")
            ports.append((int(number), protocol or "tcp"))
        made = self.client.create_container(
            image,
            list(argv) or SLEEPER,
            name=name,
            labels=dict(labels or {}),
            environment=dict(env or {}),
            ports=ports or None,
            healthcheck=dict(healthcheck) if healthcheck else None,
            stop_signal=stop_signal,
            host_config=self.client.create_host_config(
                network_mode=network, port_bindings=dict(publish or {}), **(host or {})
            ),
        )
        return str(made["Id"])

    def run(self, *argv: str, **how: Any) -> str:
        """`create` and start a container; its full id."""
        container = self.create(*argv, **how)
        self.client.start(container)
        return container

    def run_many(self, hows: Sequence[Mapping[str, Any]], workers: int = 4) -> list[str]:
        """`run` once for each mapping of keyword arguments (`argv` among them), in parallel."""
        with ThreadPoolExecutor(workers) as pool:
            return list(
                pool.map(
                    lambda how: self.run(
                        *how.get("argv", ()), **{k: v for k, v in how.items() if k != "argv"}
                    ),
                    hows,
                )
            )

    def remove(self, *containers: str) -> None:
        """``docker rm -f``; one that is gone already is no fault."""
        for container in containers:
            with contextlib.suppress(docker.errors.NotFound):
                self.client.remove_container(container, force=True, v=True)

    def remove_all(self, workers: int = 4) -> None:
        """``docker rm -f`` everything."""
        ids = [c["Id"] for c in self.client.containers(all=True, quiet=True)]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(self.remove, ids))

    def inspect(self, container: str) -> dict[str, Any]:
        """The engine's inspect document."""
        return dict(self.client.inspect_container(container))

    def main_pid(self, container: str) -> int:
        """Of the container's main process, in the machine's PID namespace; 0 when not running."""
        return int(self.inspect(container)["State"]["Pid"])

    def address(self, container: str, network: str = "bridge", *, v6: bool = False) -> str:
        """Its address in `network`, in text."""
        attachment = self.inspect(container)["NetworkSettings"]["Networks"][network]
        return str(attachment["GlobalIPv6Address" if v6 else "IPAddress"])

    # The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove the containers, end every process, unmount and delete everything. Idempotent."""
        if self._closed:
            return
        family: set[int] = set()
        try:
            if self.running:
                self.thaw()
                family = _descendants({self.pid})
                # A broken engine must not keep the rest of the clean-up from happening.
                with contextlib.suppress(OSError, docker.errors.DockerException):
                    self.remove_all()
                self.stop()
        finally:
            self._closed = True
            for client in self._clients:
                client.close()
            self._end_processes(family)
            _unmount_below(self.root)
            self._remove_traces()
            shutil.rmtree(self.root)

    def _end_processes(self, family: set[int]) -> None:
        """SIGKILL containerd, the shims, and every process below them."""
        mine = re.compile(rb"(^|[\0=:/])" + re.escape(bytes(self.root)) + rb"(/|\0|$)")

        def left() -> set[int]:
            own = {p for p in _pids() if mine.search(_read(f"/proc/{p}/cmdline"))}
            own |= {p for p in family if p in set(_pids()) and _parent(p) == 1}
            return _descendants(own - {os.getpid(), os.getppid()})

        # A shim may be starting one more process while the first round runs.
        _poll(lambda: not _signal_all(left(), signal.SIGKILL), 10, "processes did not end")

    def _remove_traces(self) -> None:
        """Killed shims leave their sockets and their containers' control groups behind."""
        folder = self.root / "data" / "containers"
        for container in folder.iterdir() if folder.is_dir() else ():
            address = f"{self.containerd}/moby/{container.name}"
            digest = hashlib.sha256(address.encode()).hexdigest()
            (Path("/run/containerd/s") / digest).unlink(missing_ok=True)
            for group in Path("/sys/fs/cgroup").glob(f"**/docker/{container.name}"):
                with contextlib.suppress(OSError):  # still emptying, or a parent's own business
                    group.rmdir()

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:  # cleaned up, then raised on
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self.close()


SLEEPER = ["sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"]
"""Ends with status 0 on SIGTERM: the first process of a PID namespace ignores it by default."""


def health(
    *argv: str, interval: float = 0.3, timeout: float = 1, retries: int = 1, start: float = 0
) -> dict[str, Any]:
    """A HEALTHCHECK for `Dockerd.run`; times in seconds."""
    ns = 1_000_000_000
    return {
        "test": ["CMD", *argv],
        "interval": int(interval * ns),
        "timeout": int(timeout * ns),
        "retries": retries,
        "start_period": int(start * ns),
    }


@contextlib.contextmanager
def private_namespace() -> Iterator[tuple[str, ...]]:
    """A network namespace with only loopback; gives the command prefix that enters it."""
    name = f"dd-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        prefix = ("nsenter", f"--net=/var/run/netns/{name}")
        subprocess.run([*prefix, "ip", "link", "set", "lo", "up"], check=True)
        yield prefix
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@functools.cache
def _busybox_tar() -> bytes:
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "tmp", "etc", "www"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in applets.stdout.split():
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
    return buffer.getvalue()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _poll(done: Callable[[], bool], timeout: float, message: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(message)
        time.sleep(0.02)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process ended
        return b""


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the state on; the name before may hold anything (proc(5))."""
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()


def _parent(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[1]) if len(stat) > 1 else 0


def _descendants(roots: set[int]) -> set[int]:
    """`roots` and everything below them."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _signal_all(pids: set[int], number: int) -> set[int]:
    """Signal each; those that were there and no zombies."""
    alive = set()
    for pid in pids:
        if _stat(pid)[:1] in ([], [b"Z"]):
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            alive.add(pid)
    return alive


def _unmount_below(root: Path) -> None:
    """Unmount everything below `root`, the deepest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(root):
            points.append(point)
    for point in sorted(points, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False)
