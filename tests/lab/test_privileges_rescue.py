"""What the drop-in for rescue gives is enough, and each capability in it is needed.

As `tests.lab.test_privileges`: the unit's own filters and capabilities with those of the drop-in,
without systemd. /proc is as ``ProtectProc=noaccess`` has it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import sandbox
from tests.lab.daemon import environment, until
from tests.lab.netns import Namespace, ip, sh

pytestmark = pytest.mark.lab

DROP_IN = sandbox.UNIT.parent / "systemd/discod-rescue.conf"
PROC = ("unshare", "--mount", "sh", "-ec", 'mount -t proc -o hidepid=noaccess x /proc; exec "$@"')
# fmt: off
DOCKER = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap",
)
# fmt: on
"""Capabilities that dockerd gives a container."""

PROBE = """
import ctypes, os, socket, subprocess, sys
pid, port = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
RULES = '''
table inet probe_rescue {
  map m { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain p { dnat ip to numgen random mod 2 map { 0 : 192.0.2.1, 1 : 192.0.2.2 }; }
  chain n { type nat hook prerouting priority -110; ip daddr . meta l4proto . th dport vmap @m; }
  chain f {
    type filter hook output priority -150; ip daddr 192.0.2.9 tcp dport 9 reject with tcp reset;
  }
}
table bridge probe_rescue {
  chain l { type filter hook prerouting priority -300; meta pkttype set host; }
}
delete table inet probe_rescue
delete table bridge probe_rescue
'''

def run(*argv, stdin=""):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr

def packet():
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0806)) as one:
        one.bind(("lo", 0x0806))

def attempt(act):
    try:
        act()
    except OSError:
        return False
    return True

def cut():
    # A filter that no socket passes is no failure; the test looks whether the socket has gone.
    return run("ss", "-K", "dst", "127.0.0.1", "dport", "=", port)[0]

found = {"nft": run("nft", "-f", "-", stdin=RULES)[0]}
found["conntrack"] = run("conntrack", "-L")[0]
found["packet"] = attempt(packet)
opened = []
found["open"] = attempt(lambda: opened.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)))
found["enter"] = bool(opened) and libc.setns(opened[0], 0x40000000) == 0
if found["enter"]:
    cut()
# The control: any namespace, or another kind, is not to be entered or made.
assert not opened or libc.setns(opened[0], 0) == -1
assert libc.unshare(0x10000000) == -1 and libc.unshare(0x00020000) == -1
print(" ".join(name for name, good in found.items() if good))
"""


@dataclass
class Container:
    """A process of root in a network namespace of its own, with a connection that only waits."""

    pid: int
    client: socket.socket
    port: int

    def connected(self) -> bool:
        """Whether the connection lives."""
        self.client.setblocking(False)
        try:
            return self.client.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


@pytest.fixture
def container() -> Iterator[Container]:
    """A fresh one each time."""
    space = Namespace(f"rp{os.getpid()}")
    ip(f"netns add {space.name}")
    try:
        space.ip("link set lo up")
        caps = "-all" + "".join(f",+{name}" for name in DOCKER)
        with (
            space.socket(socket.AF_INET, socket.SOCK_STREAM) as server,
            space.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
            subprocess.Popen(
                [*space.prefix, "setpriv", f"--bounding-set={caps}", "--inh-caps=-all",
                 "sleep", "60"]
            ) as process,
        ):  # fmt: skip
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
            until(lambda: b"sleep" in _command(process.pid), what="the container")
            try:
                yield Container(process.pid, client, server.getsockname()[1])
            finally:
                process.kill()
    finally:
        sh("ip", "netns", "del", space.name)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]


def probe(container: Container, without: str = "") -> set[str]:
    """What succeeds in a namespace that stands for the host, with what the drop-in gives."""
    space = Namespace(f"rh{os.getpid()}")
    ip(f"netns add {space.name}")
    try:
        done = subprocess.run(
            [*space.prefix, *PROC, "sh", *sandbox.command(DROP_IN, without=without), sys.executable,
             "-c", PROBE, str(container.pid), str(container.port)],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
    finally:
        sh("ip", "netns", "del", space.name)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


ALL = {"nft", "conntrack", "packet", "open", "enter"}


def test_it_is_enough(container: Container) -> None:
    assert container.connected()
    assert probe(container) == ALL
    until(lambda: not container.connected(), what="the end of the connection")


@pytest.mark.parametrize(
    ("capability", "lost", "connected"),
    [
        ("CAP_NET_ADMIN", {"nft", "conntrack"}, True),
        ("CAP_NET_RAW", {"packet"}, False),
        ("CAP_SYS_PTRACE", {"open", "enter"}, True),
        ("CAP_SYS_ADMIN", {"enter"}, True),
    ],
)
def test_each_is_needed(
    container: Container, capability: str, lost: set[str], connected: bool
) -> None:
    assert probe(container, without=capability) == ALL - lost
    assert container.connected() is connected
