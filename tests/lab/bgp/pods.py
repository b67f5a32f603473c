"""Containers of the lab as ends of traffic: what they reach, as whom they are seen, what is lost.

Rule: traffic leaves from the container's own network namespace, so nothing of its host's addresses
or rules is skipped.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from tests.lab import netns
from tests.lab.engine import Box
from tests.lab.netns import Namespace
from tests.lab.rig import Host


def ping(space: Namespace, address: str, wait: float = 1.0) -> bool:
    """Whether one ping from a host is answered within so many seconds."""
    return _ping(str(space.path), address, wait)


def _ping(inside: str, address: str, wait: float) -> bool:
    family = "-6" if ":" in address else "-4"
    done = subprocess.run(
        ["nsenter", f"--net={inside}", "ping", family, "-n", "-q", "-c", "1", "-W", str(wait),
         address],
        capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    return done.returncode == 0


@dataclass(frozen=True)
class Pod:
    """A container and its host."""

    host: Host
    box: Box

    @property
    def inside(self) -> str:
        """Its network namespace."""
        return f"/proc/{self.box.pid}/ns/net"

    def ping(self, address: str, wait: float = 1.0) -> bool:
        """Whether one ping out of it is answered."""
        return _ping(self.inside, address, wait)

    def get(self, address: str, path: str = "/", timeout: float = 2.0) -> str:
        """The answer of port 8080 to an HTTP request out of it; empty: there was none."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = netns.inside(self.inside, lambda: socket.socket(family, socket.SOCK_STREAM))
        with sock, contextlib.suppress(OSError):
            sock.settimeout(timeout)
            sock.connect((address, 8080))
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while chunk := sock.recv(4096):
                answer += chunk
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0], answer[:200]
            return body.decode().strip()
        return ""

    def seen_as(self, address: str, timeout: float = 2.0) -> str:
        """The address under which a web server sees this container; empty: it cannot be reached."""
        said = self.get(address, "/cgi-bin/who", timeout).strip("[]")
        if not said:
            return ""
        found = ip_address(said)
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return str(mapped or found)


class Probe:
    """A ping each 10 ms out of a container; a context manager that runs until `end`."""

    def __init__(self, pod: Pod, address: str) -> None:
        family = "-6" if ":" in address else "-4"
        self.name = f"{pod.box.name} -> {address}"
        self._process = subprocess.Popen(
            ["nsenter", f"--net={pod.inside}", "ping", family, "-n", "-i", "0.01", "-W", "1",
             address],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> tuple[int, int]:
        """Stop it: packets sent, and those of them that nobody answered."""
        time.sleep(0.1)  # the last answers may be under way
        self._process.send_signal(signal.SIGINT)
        self._process.wait(5)
        self._thread.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        text = "".join(self._lines)
        found = re.search(r"(\d+) packets transmitted", text)
        assert found, text[-500:]
        sent = int(found[1])
        answered = {int(one) for one in re.findall(r"icmp_seq=(\d+) ttl=", text)}
        # The last two may have been sent as it was ended.
        return sent, len(set(range(1, sent - 1)) - answered)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(self._process.stdout)


@contextlib.contextmanager
def probing(paths: Sequence[tuple[Pod, str]]) -> Iterator[Callable[[], dict[str, tuple[int, int]]]]:
    """Probe several paths at once; what is given ends it: path -> packets sent, packets lost."""
    probes = [Probe(pod, address) for pod, address in paths]
    ended: dict[str, tuple[int, int]] = {}

    def end() -> dict[str, tuple[int, int]]:
        if not ended:
            ended.update((probe.name, probe.end()) for probe in probes)
        return ended

    try:
        yield end
    finally:
        end()


def crash(box: Box) -> float:
    """SIGKILL a container's main process; when."""
    at = time.monotonic()
    os.kill(box.pid, signal.SIGKILL)
    return at
