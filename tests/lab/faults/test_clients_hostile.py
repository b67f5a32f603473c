"""Hostile clients on TCP: what others notice of them, and what the daemon has to bear.

Each attack goes on while three well-behaved clients ask again and again, from another address: DNS
over UDP, DNS over TCP with a new connection for each question, and HTTP's ``/metrics``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.daemon import Config, until
from tests.lab.dnspoll import parse, query
from tests.lab.faults.table import Table
from tests.lab.netns import Leg, inside
from tests.lab.place import DOMAIN, Place

pytestmark = pytest.mark.lab

SERVER = "192.0.2.1"
NAME = f"web.{DOMAIN}"
LIMIT = 64
"""``tcp_connections``: small, so that it is reached at once; the default is 256."""
IDLE = 3.0
"""``tcp_idle``, seconds."""
ATTACK = 3.0
"""Seconds of each attack."""
UDP_P99_MAX = 0.25
TCP_MAX = 2.0
HTTP_MAX = 3.0
"""Seconds to an answer, the slowest of TCP and HTTP: of a client that is on one of two cores with
the attacker and the daemon, and whose SYN may be the one that is sent again after a second."""
FAILED_MAX = 0.02
"""Share of TCP and HTTP exchanges that may fail: one whose turn to be dropped for a newcomer comes
between its accept and its question."""
GROWTH_MAX = 48 << 20
"""Octets that the daemon's resident memory may grow by: 320 connections with 64 KiB each, and what
the allocator keeps."""
FILES_MAX = LIMIT + 256 + 256 + 64
"""Descriptors beyond those at rest: all places of DNS, of HTTP on TCP and on the control socket,
and those just accepted."""


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=alpha", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The daemon at 192.0.2.1, the attacker at 192.0.2.2, the good clients at 192.0.2.3."""
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    config: Config = {
        "dns": {
            "tcp_connections": LIMIT,
            "tcp_idle": f"{IDLE:g}s",
            "tls_listen": [f"{SERVER}:853"],
            "tls_cert": str(cert),
            "tls_key": str(key),
        },
        "http": {"listen": [f"{SERVER}:9353"]},
    }
    service = '[[service]]\nname = "web"\nport = 80\naddress = "192.0.2.80"\n'
    try:
        with Place("h", config, service, hosts=3) as made:
            yield made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Good clients ---------------------------------------------------------------------------------


@dataclass
class Seen:
    """Of one kind of client."""

    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    last_good: float = 0.0
    longest_gap: float = 0.0

    def note(self, act: Callable[[], None]) -> None:
        start = time.monotonic()
        try:
            act()
        except (OSError, AssertionError, http.client.HTTPException) as error:
            self.failed.append(repr(error))
            return
        now = time.monotonic()
        self.took.append(now - start)
        self.longest_gap = max(self.longest_gap, now - (self.last_good or start))
        self.last_good = now

    def percentile(self, share: float) -> float:
        return sorted(self.took)[min(len(self.took) - 1, int(len(self.took) * share))]

    @property
    def failing(self) -> float:
        return len(self.failed) / max(1, len(self.failed) + len(self.took))


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionResetError("closed")
        data += chunk
    return data


class Good:
    """Three clients at one address, each in a thread of its own."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._stop = threading.Event()
        self.udp, self.tcp, self.http = Seen(), Seen(), Seen()
        pairs = ((self.udp, self._ask_udp, 0.005), (self.tcp, self._ask_tcp, 0.05),
                 (self.http, self._ask_http, 0.2))  # fmt: skip
        self._threads = [threading.Thread(target=self._run, args=pair) for pair in pairs]
        self._datagrams = leg.space.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.settimeout(2.0)

    def __enter__(self) -> Good:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._datagrams.close()

    def _run(self, seen: Seen, act: Callable[[], None], pause: float) -> None:
        while not self._stop.is_set():
            seen.note(act)
            self._stop.wait(pause)

    def _ask_udp(self) -> None:
        id_ = os.urandom(2)
        self._datagrams.sendto(id_ + query(NAME), (SERVER, 53))
        while (packet := self._datagrams.recv(4096))[:2] != id_:
            pass
        assert parse(packet).addresses == ("192.0.2.80",)

    def _connected(self, port: int, timeout: float) -> socket.socket:
        sock = self._leg.space.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect((SERVER, port))
        except OSError:
            sock.close()
            raise
        return sock

    def _ask_tcp(self) -> None:
        with self._connected(53, 2 * TCP_MAX) as sock:
            packet = b"\x12\x34" + query(NAME)
            sock.sendall(len(packet).to_bytes(2, "big") + packet)
            length = int.from_bytes(exactly(sock, 2), "big")
            assert parse(exactly(sock, length)).addresses == ("192.0.2.80",)

    def _ask_http(self) -> None:
        connection = http.client.HTTPConnection(SERVER, 9353)
        connection.sock = self._connected(9353, 2 * HTTP_MAX)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            assert response.status == 200 and b"discod_" in response.read()
        finally:
            connection.close()


# Attacks --------------------------------------------------------------------------------------


class Attacker:
    """Holds sockets of the attacker's host, as many as it takes."""

    def __init__(self, leg: Leg, server: Leg, daemon_socket: Path) -> None:
        self.leg = leg
        self.server = server
        self._path = str(daemon_socket)
        self.socks: list[socket.socket] = []

    def close(self) -> None:
        for sock in self.socks:
            # Reset, so that no port stays in TIME_WAIT.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.socks.clear()

    def connect(self, count: int, port: int, say: bytes = b"") -> None:
        """Open `count` connections and say the same on each."""

        def act() -> None:
            for _ in range(count):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((SERVER, port))
                self.socks.append(sock)

        inside(self.leg.space.path, act)
        if say:
            self.say(say)

    def connect_local(self, count: int, say: bytes) -> None:
        """The same on the control socket."""
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.connect(self._path)
                sock.sendall(say)
            sock.setblocking(False)
            self.socks.append(sock)

    def say(self, data: bytes, within: float = 1.0) -> None:
        end = time.monotonic() + within
        waiting = list(self.socks)
        while waiting and time.monotonic() < end:
            waiting = [sock for sock in waiting if not self._said(sock, data)]
            time.sleep(0.005)

    @staticmethod
    def _said(sock: socket.socket, data: bytes) -> bool:
        try:
            sock.send(data)
        except BlockingIOError:
            return False  # not connected yet, or the other side takes nothing
        except OSError:
            return True  # it was let go
        return True


MESSAGE = (len(query(NAME)) + 2).to_bytes(2, "big") + b"\x11\x22" + query(NAME)


def stalled(attacker: Attacker) -> None:
    attacker.connect(1000, 53)
    time.sleep(ATTACK)


def half_a_length(attacker: Attacker) -> None:
    attacker.connect(500, 53, b"\0")
    attacker.connect(500, 53, b"\xff\xff" + bytes(20_000))
    time.sleep(ATTACK)


def trickling(attacker: Attacker) -> None:
    attacker.connect(300, 53)
    for octet in MESSAGE[: int(ATTACK) + 2]:
        attacker.say(bytes((octet,)), 0.2)
        time.sleep(0.8)


def ten_thousand(attacker: Attacker) -> None:
    for _ in range(10):
        attacker.connect(1000, 53, MESSAGE[:5])
    time.sleep(1)


def unread_floods(attacker: Attacker) -> None:
    attacker.connect(LIMIT, 53)
    end = time.monotonic() + ATTACK
    flood = MESSAGE * 500
    while time.monotonic() < end:
        attacker.say(flood, 0.05)


def stalled_handshakes(attacker: Attacker) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(40)
    attacker.connect(300, 853)
    attacker.connect(300, 853, hello)
    time.sleep(ATTACK)


def slow_http(attacker: Attacker) -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "
    attacker.connect(600, 9353, head)
    attacker.connect_local(400, head)
    for _ in range(int(ATTACK)):
        attacker.say(b"b", 0.2)
        time.sleep(0.8)


def lasting_http(attacker: Attacker) -> None:
    """Requests that are under way for ever."""
    attacker.connect(400, 9353, b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(ATTACK)


def syn_flood(attacker: Attacker) -> None:
    """Connections asked for in the name of addresses where nobody answers."""
    rng = random.Random(5)

    def act() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            end = time.monotonic() + ATTACK
            target = socket.inet_aton(SERVER)
            for number in range(20_000):
                source = socket.inet_aton(f"192.0.2.{rng.randrange(100, 250)}")
                port = 53 if number % 2 else 9353
                tcp = struct.pack(">HHIIBBHHH", rng.randrange(1024, 65535), port,
                                  rng.getrandbits(32), 0, 5 << 4, 2, 64240, 0, 0)  # fmt: skip
                pseudo = source + target + struct.pack(">BBH", 0, 6, len(tcp)) + tcp
                tcp = tcp[:16] + struct.pack(">H", checksum(pseudo)) + tcp[18:]
                ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, source, target)
                sock.sendto(ip + tcp, (SERVER, 0))
                if time.monotonic() > end:
                    break
                if number % 50 == 0:
                    time.sleep(0.005)

    inside(attacker.leg.space.path, act)
    # They have come: the kernel holds them half open.
    assert attacker.server.space.sh("ss", "-Htn", "state", "syn-recv").count("\n") > 10


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def vanished(attacker: Attacker) -> None:
    """The peers of all places are gone, and no packet says so."""
    attacker.connect(LIMIT * 2, 53, MESSAGE)
    time.sleep(0.3)
    attacker.leg.cut()
    time.sleep(ATTACK)


ATTACKS: dict[str, Callable[[Attacker], None]] = {
    "1,000 connect and stall": stalled,
    "1,000 send half a length or message": half_a_length,
    "300 trickle an octet a second": trickling,
    "10,000 connections": ten_thousand,
    "pipelined floods, nothing read": unread_floods,
    "600 TLS handshakes that stall": stalled_handshakes,
    "slow HTTP, TCP and control socket": slow_http,
    "400 HTTP streams of one client": lasting_http,
    "20,000 SYN without ACK": syn_flood,
    "all peers vanish": vanished,
}


# The test -------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    pages: int = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Watch:
    """The most that the daemon held at any time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.files = self.memory = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.files = max(self.files, files(self._pid))
            self.memory = max(self.memory, resident(self._pid))


@contextlib.contextmanager
def attacker_at(place: Place) -> Iterator[Attacker]:
    attacker = Attacker(place.legs[1], place.legs[0], place.discod.runtime / "api.sock")
    try:
        yield attacker
    finally:
        attacker.close()
        place.legs[1].mend()


def settled(place: Place, base: int) -> float:
    """Wait until nothing of an attack is held; the seconds it took."""
    start = time.monotonic()
    pid = place.discod.pid
    until(lambda: files(pid) <= base + 8, deadline=IDLE + 35, what="descriptors are given back")
    return time.monotonic() - start


@pytest.mark.parametrize("name", list(ATTACKS))
def test_others_are_served(place: Place, faults: Table, name: str) -> None:
    pid = place.discod.pid
    time.sleep(0.2)
    base, before = files(pid), resident(pid)
    with attacker_at(place) as attacker:
        with Watch(pid) as watch, Good(place.legs[2]) as good:
            time.sleep(0.3)
            ATTACKS[name](attacker)
            held = place.discod.metrics()["discod_dns_tcp_connections"]  # by the control socket
        shown = (
            f"udp p99 {good.udp.percentile(0.99) * 1e3:.0f} ms, tcp {len(good.tcp.took)} asked, "
            f"slowest {max(good.tcp.took, default=0):.2f} s, failed {len(good.tcp.failed)}, http "
            f"{len(good.http.took)}, slowest {max(good.http.took, default=0):.2f} s, failed "
            f"{len(good.http.failed)}; {held:.0f} connections, {watch.files - base:+} files, "
            f"{(watch.memory - before) / 2**20:+.1f} MiB"
        )
        print(f"{name}: {shown}")
        assert held <= LIMIT, shown
        assert watch.files - base <= FILES_MAX, shown
        assert watch.memory - before <= GROWTH_MAX, shown
        assert not good.udp.failed, (good.udp.failed[:3], shown)
        assert good.udp.percentile(0.99) <= UDP_P99_MAX, shown
        for seen, most in ((good.tcp, TCP_MAX), (good.http, HTTP_MAX)):
            assert len(seen.took) >= 4, (seen.failed[:3], shown)
            assert max(seen.took) <= most, shown
            assert len(seen.failed) <= max(1, FAILED_MAX * len(seen.took)), (seen.failed, shown)
    converged = settled(place, base)
    gap = max(good.udp.longest_gap, good.tcp.longest_gap)
    faults.add(f"clients: {name}", missing=gap, converged=converged, control=CONTROLS.get(name, ""))


CONTROLS = {
    "10,000 connections": "limit of 60,000: a descriptor each",
    "1,000 connect and stall": "first come, first served: nobody else is",
}
"""By `test_without_the_limit` below and, over TcpServer alone, tests/unit/test_tcp.py."""


def test_without_the_limit(place: Place) -> None:
    """The control: the same connections, where the limit lies beyond what there are."""
    pid = place.discod.pid
    base = files(pid)
    dns = place.discod.config["dns"]
    try:
        place.discod.config["dns"] = {**dns, "tcp_connections": 60_000}
        place.discod.write()
        place.discod.reload()
        time.sleep(0.5)
        with attacker_at(place) as attacker:
            attacker.connect(3000, 53, MESSAGE[:5])
            until(lambda: files(pid) - base > FILES_MAX, what="more than any bound above")
    finally:
        place.discod.config["dns"] = dns
        place.discod.write()
        place.discod.reload()
    settled(place, base)
