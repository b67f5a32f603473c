"""The lab's own instruments: what they say must be so before anything is measured with them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from benchmarks import results
from tests.lab import dnspoll
from tests.lab.daemon import toml
from tests.lab.dnspoll import A, Answer, Poller, parse, query


def response(addresses: list[str], rcode: int = 0, number: int = 7) -> bytes:
    """A response to `query("web")` with compressed names."""
    asked = query("web")
    packet = struct.pack("!HHHHHH", number, 0x8180 | rcode, 1, len(addresses), 0, 0) + asked[10:]
    for address in addresses:
        packet += struct.pack("!HHHIH", 0xC00C, A, 1, 0, 4) + socket.inet_aton(address)
    return packet


def test_parse_sorts_and_keeps_duplicates() -> None:
    packet = response(["192.0.2.9", "192.0.2.1", "192.0.2.9"])
    assert parse(packet) == Answer(0, ("192.0.2.1", "192.0.2.9", "192.0.2.9"))
    assert parse(response([], rcode=3)) == Answer(dnspoll.NXDOMAIN, ())


@pytest.mark.parametrize("cut", [0, 5, 11, 14, 20, 30])
def test_parse_refuses_what_is_cut_off(cut: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse(response(["192.0.2.1"])[:cut])


class Server:
    """Answers every query with what `addresses` is at that moment; silent when it is None."""

    def __init__(self) -> None:
        self.addresses: list[str] | None = ["192.0.2.1"]
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while True:
            packet, client = self.sock.recvfrom(512)
            if packet == b"end":
                return
            if self.addresses is not None:
                number = struct.unpack("!H", packet[:2])[0]
                self.sock.sendto(response(self.addresses, number=number), client)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    found.thread.start()
    yield found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"end", found.sock.getsockname())
    found.thread.join()
    found.sock.close()


def test_poller_sees_every_change_and_every_silence(server: Server) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with Poller({"s": (sock, server.sock.getsockname())}, "web") as poller:
        first = poller.first("s", lambda answer: answer.addresses == ("192.0.2.1",))
        server.addresses = []
        gone = poller.first("s", lambda answer: not answer.addresses, after=first)
        server.addresses = None
        with pytest.raises(TimeoutError):
            poller.first("s", lambda answer: bool(answer.addresses), after=gone, deadline=0.1)
        server.addresses = ["192.0.2.1"]
        back = poller.first("s", lambda answer: bool(answer.addresses), after=gone)
        track = poller.tracks["s"]
        assert first < gone < back
        assert len(track.changes) == 3
        assert track.longest_silence > 0.09
        assert poller.first("s", lambda answer: bool(answer.addresses), after=back) == back


def test_percentile_is_a_sample() -> None:
    assert results.percentile([5.0], 0.99) == 5
    assert results.percentile([float(n) for n in range(1, 101)], 0.99) == 99
    assert results.percentile([float(n) for n in range(1, 31)], 0.99) == 30
    found = results.row("c", "m", "ms", [3.0, 1.0, 2.0])
    assert (found.n, found.min, found.median, found.p99, found.max) == (3, 1, 2, 3, 3)
    with pytest.raises(ValueError, match="no samples"):
        results.row("c", "m", "ms", [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1,234")],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert results.figure(value) == shown


def test_toml_is_read_back() -> None:
    import tomllib

    config = {"a": {"x": 'quo"te', "n": 3, "f": 1.5, "b": False, "l": ["1", "2"]}}
    assert tomllib.loads(toml(config)) == config  # type: ignore[arg-type]
