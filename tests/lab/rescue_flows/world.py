"""A host with a bridge, containers on it, and clients that it routes for; all torn down by itself.

Rule: `host` has br0 (10.9.0.1/24, 2001:db8:9::1/64); a container is a namespace on it; a client is
a namespace behind a cable of its own.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.netns import Namespace, inside, ip

NET4, NET6 = "10.9.0", "2001:db8:9:"
DEADLINE = 10.0
"""Seconds, for what takes milliseconds on an idle machine."""


def until(what: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """The first true result."""
    end = time.monotonic() + deadline
    while not (result := what()):
        assert time.monotonic() < end, f"not so within {deadline} s: {what}"
        time.sleep(0.01)
    return result


def mac_of(n: int) -> str:
    return f"02:42:0a:09:00:{n:02x}"


class World:
    def __init__(self, name: str) -> None:
        self.name = f"{name}{os.getpid()}"
        self.host = Namespace(f"{self.name}h")
        self._spaces: list[Namespace] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._sockets: list[socket.socket] = []
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.claimed: list[str] = []
        self.errors = ""

    def __enter__(self) -> Self:
        try:
            self._make(self.host)
            self.host.ip(
                "link add br0 type bridge",
                f"addr add {NET4}.1/24 dev br0",
                f"addr add {NET6}:1/64 dev br0 nodad",
                "link set br0 up",
            )
        except BaseException:  # cleaned up, then raised on
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self._sockets:
            one.close()
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        for space in self._spaces:
            if space.path.exists():
                ip(f"netns del {space.name}")

    def _make(self, space: Namespace) -> None:
        ip(f"netns add {space.name}")
        self._spaces.append(space)
        space.sysctl(
            net__ipv6__conf__all__disable_ipv6=0,
            net__ipv6__conf__default__disable_ipv6=0,
            net__ipv6__conf__default__accept_dad=0,
            net__ipv6__conf__all__forwarding=1,
            net__ipv4__ip_forward=1,
        )
        space.ip("link set lo up")

    def container(self, n: int, *, bridge: str = "br0", addresses: bool = True) -> Namespace:
        """A namespace on the bridge, with address .n and the link-layer address `mac_of(n)`."""
        space = Namespace(f"{self.name}c{n}")
        self._make(space)
        self.host.ip(
            f"link add v{n} type veth peer name eth0 address {mac_of(n)} netns {space.name}",
            f"link set v{n} master {bridge} up",
        )
        if addresses:
            space.ip(f"addr add {NET4}.{n}/24 dev eth0", f"addr add {NET6}:{n}/64 dev eth0 nodad")
        space.ip("link set eth0 up")
        if addresses:
            space.ip(f"route add default via {NET4}.1", f"route add default via {NET6}:1")
        return space

    def client(self, n: int) -> Namespace:
        """A namespace that the host routes for: 10.10.n.2 and 2001:db8:10:n::2."""
        space = Namespace(f"{self.name}r{n}")
        self._make(space)
        self.host.ip(
            f"link add r{n} type veth peer name eth0 netns {space.name}",
            f"addr add 10.10.{n}.1/24 dev r{n}",
            f"addr add 2001:db8:10:{n}::1/64 dev r{n} nodad",
            f"link set r{n} up",
        )
        space.ip(
            f"addr add 10.10.{n}.2/24 dev eth0",
            f"addr add 2001:db8:10:{n}::2/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via 10.10.{n}.1",
            f"route add default via 2001:db8:10:{n}::1",
        )
        return space

    def die(self, n: int) -> None:
        """Container .n's cable is gone; it can say nothing more."""
        self.host.ip(f"link del v{n}")

    def resident(self, space: Namespace) -> int:
        """Process id of something that runs inside."""
        process = subprocess.Popen([*space.prefix, "sleep", "300"], text=True)
        self._processes.append(process)
        # Before nsenter has entered, it is still outside.
        inode = space.path.stat().st_ino
        until(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino == inode)
        return process.pid

    def keep(self, one: socket.socket) -> socket.socket:
        self._sockets.append(one)
        return one

    def listen(self, space: Namespace, port: int, family: int = socket.AF_INET6) -> socket.socket:
        """For IPv4 and IPv6."""

        def make() -> socket.socket:
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("::", port))
            server.listen(128)
            server.settimeout(DEADLINE)
            return server

        return self.keep(inside(space.path, make))

    def connect(self, space: Namespace, address: str, port: int) -> socket.socket:
        """A connected client; an address with ``::ffff:`` gives an IPv6 socket."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = self.keep(space.socket(family, socket.SOCK_STREAM))
        one.settimeout(DEADLINE)
        one.connect((address, port))
        return one

    def datagrams(self, space: Namespace, family: int = socket.AF_INET) -> socket.socket:
        one = self.keep(space.socket(socket.AddressFamily(family), socket.SOCK_DGRAM))
        one.settimeout(DEADLINE)
        return one

    # The daemon's side ----------------------------------------------------------------------

    def start(self) -> None:
        """`act` in the host's namespace."""
        process = subprocess.Popen(
            [*self.host.prefix, sys.executable, "-m", "tests.lab.rescue_flows.act"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        self._act = process

        def listen() -> None:
            assert process.stdout
            for line in process.stdout:
                what = json.loads(line)
                if "claimed" in what:
                    self.claimed.append(what["claimed"])
                else:
                    self._said.put(what)

        threading.Thread(target=listen, daemon=True).start()

    def do(self, do: str, **what: Any) -> tuple[Any, float]:
        """Its answer, and the milliseconds that it took."""
        assert self._act.stdin
        self._act.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self._act.stdin.flush()
        said = self._said.get(timeout=30)
        return said["result"], said["ms"]


def waits(one: socket.socket) -> bool:
    """Whether there is nothing to read, and no error either."""
    one.setblocking(False)
    try:
        one.recv(100)
    except BlockingIOError:
        return True
    finally:
        one.settimeout(DEADLINE)
    return False


def aborted(one: socket.socket) -> bool:
    """Whether the kernel has destroyed it."""
    one.setblocking(False)
    try:
        one.recv(100)
    except ConnectionAbortedError:
        return True
    except BlockingIOError:
        return False
    return False
