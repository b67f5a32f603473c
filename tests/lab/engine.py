"""Containers of one lab host: what a user or a mishap does to them.

Rule: nothing of what discod makes of it. Everything that happens at a moment returns that moment
(`time.monotonic()`), taken before it was asked for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.lab.daemon import until
from tests.lab.dockerd import Dockerd

T = TypeVar("T")
U = TypeVar("U")

_WWW = "mkdir -p /www && echo {name} > /www/index.html"
HTTPD = f"{_WWW}; exec httpd -f -p {{port}} -h /www"
"""As process 1 without a handler it ignores SIGTERM, so `docker stop` ends in SIGKILL."""
POLITE = (
    f"{_WWW}; httpd -f -p {{port}} -h /www & p=$!; "
    "trap 'sleep {linger}; kill $p; exit 0' TERM; while :; do wait $p; done"
)
"""Goes on serving for a while after SIGTERM, then closes its listener and ends."""


@dataclass(frozen=True, slots=True)
class Box:
    """A container as it was right after its start."""

    id: str
    name: str
    pid: int
    """Of its main process, in the machine's own PID namespace."""
    ipv4: str
    ipv6: str

    @property
    def short(self) -> str:
        """The first 12 digits of the id."""
        return self.id[:12]


class Engine(Dockerd):
    """A dockerd, and containers that serve their own name over HTTP."""

    def box(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *argv: str,
        port: int = 8080,
        **how: Any,
    ) -> Box:
        """Create and start a container; without `argv`, a web server on `port`.

        Args:
            name: Of the container; also the text that its web server answers.
            labels: Container labels.
            argv: Instead of the web server.
            port: Of the web server.
            how: Of `Dockerd.create`.
        """
        argv = argv or ("sh", "-c", HTTPD.format(name=name, port=port))
        return self.look(self.run(*argv, name=name, labels=labels, **how))

    def look(self, id_: str) -> Box:
        """A container as it is now; addresses are those of its first network."""
        facts = self.inspect(id_)
        network: dict[str, str] = next(iter(facts["NetworkSettings"]["Networks"].values()), {})
        return Box(
            id=facts["Id"],
            name=facts["Name"].lstrip("/"),
            pid=facts["State"]["Pid"],
            ipv4=network.get("IPAddress", ""),
            ipv6=network.get("GlobalIPv6Address", ""),
        )

    def alive(self) -> list[str]:
        """Ids of all containers that run, by the engine's own list."""
        return sorted(row["Id"] for row in self.client.containers(quiet=True))

    def crash(self, box: Box) -> float:
        """SIGKILL the main process from outside, without a word to the engine."""
        at = time.monotonic()
        os.kill(box.pid, signal.SIGKILL)
        return at

    def halt(self, box: Box, timeout: int = 2) -> float:
        """`docker stop`, to its end."""
        at = time.monotonic()
        self.client.stop(box.id, timeout=timeout)
        return at

    def pause(self, box: Box) -> float:
        """`docker pause`."""
        at = time.monotonic()
        self.client.pause(box.id)
        return at

    def unpause(self, box: Box) -> None:
        """`docker unpause`."""
        self.client.unpause(box.id)

    def again(self, box: Box) -> Box:
        """`docker start` of a container that ended.

        The engine learns of an end later than the resolvers do, and takes a start before that for
        done already.
        """
        until(lambda: not self.inspect(box.id)["State"]["Running"], what="the engine knows the end")
        self.client.start(box.id)
        return self.look(box.id)

    def exec(self, box: Box, *argv: str) -> tuple[int, str]:
        """`docker exec`: exit status and output."""
        made = self.client.exec_create(box.id, list(argv))["Id"]
        output = self.client.exec_start(made)
        return int(self.client.exec_inspect(made)["ExitCode"]), output.decode(errors="replace")

    def drop(self, *boxes: Box) -> None:
        """`docker rm -f`, several at a time."""
        each(lambda box: self.remove(box.id), boxes)


def each(act: Callable[[T], U], items: Sequence[T], width: int = 8) -> list[U]:
    """`act` on every item, `width` at a time; the results in order, or the first error."""
    if not items:
        return []
    with ThreadPoolExecutor(min(width, len(items))) as pool:
        return list(pool.map(act, items))
