"""discod as the primary of a zone: real daemons on one etcd, and what the store is told.

Rule: the daemons are known by what they serve only. The store is written through etcd's own JSON
gateway, as a producer that is none of the daemons would; a serial is the revision it answers with.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.daemon import Config, Daemon, Value, until
from tests.lab.etcd import EtcdCluster
from tests.lab.secondaries import Server

Events = list[tuple[str, bytes | None]]
"""Keys and their new values; None: deleted."""

DOMAIN = "discod.internal"
TXN_MAX = 128
"""Operations in one transaction, etcd's own limit."""
LEASE_TTL = "60s"
"""So long that a daemon which is ended in a test is not missed: that would be another change."""


def free_port() -> int:
    """A port of loopback that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
            ):
                datagram.bind(("127.0.0.1", port))
                return port


class Primary:
    """One host's daemon.

    Args:
        n: Its number, from 1.
        folder: Its own.
        etcd: Where the records are.
        transfer: ``[transfer]``.
    """

    def __init__(
        self, n: int, folder: Path, etcd: EtcdCluster, transfer: dict[str, Value], dns: Config
    ) -> None:
        self.port = free_port()
        self._counted: dict[str, float] = {}  # by the processes that have ended
        self.discod = Daemon(
            folder,
            {
                "host": {"name": f"ns{n}", "addresses": [f"192.0.2.{200 + n}"]},
                "store": {"endpoints": list(etcd.endpoints), "lease_ttl": LEASE_TTL},
                "announce": {"docker": "", "hint_port": 0},
                "dns": {
                    "listen": [f"127.0.0.1:{self.port}"],
                    "forward": False,
                    "workers": 1,
                    **dns.get("dns", {}),
                },
                "transfer": transfer,
                "http": {"listen": []},
                "log": {"level": "debug"},
            },
        )

    def restart(self) -> None:
        """End it and start it again; what it has counted so far is kept."""
        self.end()
        self.discod.start()

    def end(self) -> None:
        """End it."""
        for name, value in self.discod.metrics().items():
            self._counted[name] = self._counted.get(name, 0) + value
        assert self.discod.terminate() == 0

    def transfers(self, kind: str, result: str) -> int:
        """Transfers given."""
        name = f'discod_dns_transfers_total{{kind="{kind}",result="{result}"}}'
        now = self.discod.metrics() if self.discod.running else {}
        return int(now.get(name, 0) + self._counted.get(name, 0))


class Cluster:
    """The store's word, the hosts that follow it, and the secondaries that follow them."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self._etcd = etcd
        self.primaries: list[Primary] = []
        self.secondaries: dict[str, Server] = {}
        self.revision = 0
        """The store's, after the last change through `apply`."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Where the primaries answer."""
        return tuple(primary.port for primary in self.primaries)

    def apply(self, events: Sequence[tuple[str, bytes | None]]) -> int:
        """Change the store, in one transaction where it fits; the new serial."""
        for start in range(0, len(events), TXN_MAX):
            self.revision = self._txn(events[start : start + TXN_MAX])
        return self.revision

    def settle(self) -> None:
        """Wait until every host has written itself, and all hold what the store has."""
        hosts = [f"/discod/v1/{DOMAIN}/hosts/ns{n}" for n, _ in enumerate(self.primaries, 1)]
        until(
            lambda: all(self._range(key).get("count") for key in hosts), what="the hosts' records"
        )
        self.revision = int(self._range(hosts[0])["header"]["revision"])
        until(
            lambda: (
                {p.discod.metrics()["discod_dns_serial"] for p in self.primaries} == {self.revision}
            ),
            what="the same serial at every host",
        )

    def count(self, kind: str, result: str) -> int:
        """Transfers given by all primaries."""
        return sum(primary.transfers(kind, result) for primary in self.primaries)

    def tell(self) -> str:
        """The logs of all, for a failed test."""
        ours = [f"--- discod {n}\n{p.discod.log[-4000:]}" for n, p in enumerate(self.primaries, 1)]
        return "\n".join(
            [*ours, *(f"--- {s.name}\n{s.log[-4000:]}" for s in self.secondaries.values())]
        )

    def _range(self, key: str) -> dict[str, dict[str, str]]:
        return self._post("range", {"key": _b64(key.encode())})

    def _txn(self, events: Sequence[tuple[str, bytes | None]]) -> int:
        done = self._post("txn", {"success": [_operation(key, value) for key, value in events]})
        assert done["succeeded"]
        return int(done["header"]["revision"])

    def _post(self, what: str, body: object) -> dict[str, dict[str, str]]:
        url = f"{self._etcd.endpoints[0]}/v3/kv/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=10) as answer:
            found = json.load(answer)
        assert isinstance(found, dict)
        return found


def _b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _operation(key: str, value: bytes | None) -> dict[str, dict[str, str]]:
    if value is None:
        return {"requestDeleteRange": {"key": _b64(key.encode())}}
    return {"requestPut": {"key": _b64(key.encode()), "value": _b64(value)}}


@contextlib.contextmanager
def cluster(
    events: Events, transfer: dict[str, Value], *, primaries: int = 2, config: Config | None = None
) -> Iterator[Cluster]:
    """An etcd with these records in it, and daemons that serve them; nothing is left afterwards.

    Args:
        events: The records.
        transfer: ``[transfer]`` of every host.
        primaries: How many hosts.
        config: ``[dns]``, added to that of every host.
    """
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(EtcdCluster())
        made = Cluster(etcd)
        made.apply(events)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="discod-primary-")))
        for n in range(1, primaries + 1):
            primary = Primary(n, folder / f"{n}", etcd, transfer, config or {})
            made.primaries.append(primary)
            stack.callback(primary.discod.stop)
        with ThreadPoolExecutor(primaries) as pool:
            list(pool.map(lambda one: one.discod.start(), made.primaries))
        made.settle()
        yield made
