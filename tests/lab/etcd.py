"""Real etcd members for tests: start, kill, freeze, restart, and leave nothing behind.

    with EtcdCluster(size=3) as cluster:
        cluster.endpoints                   # ("http://127.0.0.1:40213", ...)
        cluster.members[0].kill()           # SIGKILL; .restart() brings it back on its data
        cluster.members[1].freeze()         # SIGSTOP; .thaw()

In network namespaces, give each member its addresses and the command that enters its namespace:

    EtcdCluster(places=[Place("192.0.2.1", ("nsenter", "--net=/var/run/netns/a")), ...])

Everything here is synchronous; from trio, call what waits (`start`, `restart`, `wait_healthy`,
`stop`) in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

HEALTHY_WITHIN = 20.0
"""Seconds: three members elect a leader in 1 to 3 on an idle machine."""


@dataclass(frozen=True)
class Place:
    """Where a member runs."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    """Command prefix that enters the network namespace."""
    client_port: int = 0
    """0: a free one."""
    peer_port: int = 0


@dataclass(frozen=True)
class Tls:
    """Files for clients' connections."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path
    require_client_cert: bool = True


@dataclass
class EtcdMember:
    """One etcd process and its data."""

    name: str
    place: Place
    folder: Path
    client_url: str
    peer_url: str
    tls: Tls | None = None
    options: tuple[str, ...] = ()
    initial_cluster: str = ""
    token: str = "discod-test"
    process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """What it has written, for failure messages."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the process; does not wait."""
        assert self.process is None or self.process.poll() is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *self.place.enter,
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.initial_cluster or f'{self.name}={self.peer_url}'}",
            f"--initial-cluster-token={self.token}",
            "--initial-cluster-state=new",
            "--logger=zap",
            "--log-level=warn",
            *self.options,
        ]
        if self.tls:
            command += [f"--cert-file={self.tls.cert}", f"--key-file={self.tls.key}"]
            if self.tls.require_client_cert:
                command += ["--client-cert-auth", f"--trusted-ca-file={self.tls.ca}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        self._log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def wait_healthy(self, within: float = HEALTHY_WITHIN) -> None:
        """Wait until it answers a linearizable read, or (with authentication on) refuses one."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"etcd {self.name} ended:\n{self.log}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = self.etcdctl("get", "health-probe", check=False, timeout=3)
                refused = b"user name is empty" in done.stderr + done.stdout
                if done.returncode == 0 or refused:
                    return
            time.sleep(0.05)
        raise AssertionError(f"etcd {self.name} not healthy in {within} s:\n{self.log}")

    def etcdctl(
        self, *arguments: str, check: bool = True, timeout: float = 10, user: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run etcdctl against this member."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        environment["ETCDCTL_API"] = "3"
        command = [
            *self.place.enter,
            "etcdctl",
            f"--endpoints={self.client_url}",
            f"--command-timeout={max(1, int(timeout))}s",
        ]
        if user:
            command.append(f"--user={user}")
        if self.tls:
            command += [f"--cacert={self.tls.ca}"]
            if self.tls.require_client_cert:
                command += [f"--cert={self.tls.client_cert}", f"--key={self.tls.client_key}"]
        return subprocess.run(
            [*command, *arguments],
            check=check,
            capture_output=True,
            env=environment,
            timeout=timeout + 2,
        )

    def is_leader(self) -> bool:
        """Whether it leads the cluster, by its own word."""
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            done = self.etcdctl("endpoint", "status", "--write-out=json", check=False, timeout=2)
            status = json.loads(done.stdout)[0]["Status"]
            return bool(status["leader"] == status["header"]["member_id"])
        return False

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections, nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same data, and wait until healthy."""
        self.start()
        self.wait_healthy()

    def wipe(self) -> None:
        """Forget the data of a stopped member."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        if self._log is not None:
            self._log.close()


class EtcdCluster:
    """One or more members that form a cluster; a context that starts and removes them."""

    def __init__(
        self,
        size: int = 1,
        *,
        places: Sequence[Place] = (),
        tls: Tls | None = None,
        options: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """With `folder`, data is kept there (for example on a real disk) and below it only."""
        base = folder or (Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
        self.folder = Path(tempfile.mkdtemp(prefix="discod-etcd-", dir=base))
        scheme = "https" if tls else "http"
        self.members: list[EtcdMember] = []
        for number, place in enumerate(places or [Place()] * size, start=1):
            host = f"[{place.address}]" if ":" in place.address else place.address
            client = place.client_port or free_port()
            peer = place.peer_port or free_port()
            self.members.append(
                EtcdMember(
                    f"m{number}",
                    place,
                    self.folder / f"m{number}",
                    f"{scheme}://{host}:{client}",
                    f"http://{host}:{peer}",
                    tls,
                    tuple(options),
                )
            )
        initial = ",".join(f"{m.name}={m.peer_url}" for m in self.members)
        for member in self.members:
            member.initial_cluster = initial

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Client URLs."""
        return tuple(member.client_url for member in self.members)

    @property
    def leader(self) -> EtcdMember:
        """The member that leads now; waits for one."""
        deadline = time.monotonic() + HEALTHY_WITHIN
        while time.monotonic() < deadline:
            for member in self.members:
                if member.is_leader():
                    return member
            time.sleep(0.05)
        raise AssertionError("no leader")

    def start(self) -> None:
        """Start all members and wait until all are healthy."""
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait_healthy()

    def close(self) -> None:
        """Kill what runs and remove the data."""
        for member in self.members:
            member.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> EtcdCluster:
        try:
            self.start()
        except BaseException:  # cleaned up, then raised on
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_given: set[int] = set()


def free_port() -> int:
    """A TCP port of loopback that is free now, and was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def make_tls(folder: Path, addresses: Sequence[str] = ("127.0.0.1",), user: str = "discod") -> Tls:
    """A CA, a server certificate for `addresses` and a client certificate for `user`."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *new_key, "-subj", "/CN=test CA", "-days", "2", "-keyout", "ca.key",
        "-out", "ca.pem",
    )  # fmt: skip
    names = ",".join(f"IP:{address}" for address in addresses)
    server = f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth"
    make_certificate(folder, "server", "/CN=etcd", server)
    make_certificate(folder, "client", f"/CN={user}", "extendedKeyUsage=clientAuth")
    return Tls(
        folder / "ca.pem",
        folder / "server.pem",
        folder / "server.key",
        folder / "client.pem",
        folder / "client.key",
    )


def make_certificate(
    folder: Path, name: str, subject: str, extensions: str, seconds: int = 2 * 86400
) -> None:
    """A key and a certificate that is valid for so long, of the CA in `folder`; replaces both."""
    (folder / f"{name}.ext").write_text(extensions)
    index = folder / "index.txt"
    index.write_text("")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\nnew_certs_dir=.\ndefault_md=sha256\n"
        "rand_serial=yes\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    now = time.time()
    begins, ends = (
        time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at)) for at in (now - 3600, now + seconds)
    )
    openssl(
        "ca", "-batch", "-notext", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key",
        "-in", f"{name}.csr", "-startdate", begins, "-enddate", ends,
        "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip
