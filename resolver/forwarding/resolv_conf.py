"""Follows a resolv.conf on disk.

Rule: looked at when somebody needs it, at most once in `EVERY` seconds, and read again only when
the file is another one or was changed. A file that cannot be read names no server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import trio

from discod.log import fields
from discod.model.settings import ListenAddress
from resolver.forwarding import upstreams
from resolver.forwarding.upstreams import Upstreams

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds."""
SIZE_MAX = 65536
"""Octets that are read; a resolv.conf has a few hundred."""


class ResolvConf:
    """The upstreams that a resolv.conf names at the moment."""

    def __init__(self, path: str, is_own: Callable[[ListenAddress], bool]) -> None:
        self._path = Path(path)
        self._is_own = is_own
        self._looked = float("-inf")
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)
        self._upstreams = Upstreams()

    def current(self) -> Upstreams:
        """The present upstreams; a look at the disk now and then, of some microseconds."""
        now = trio.current_time()
        if now - self._looked >= EVERY:
            self._looked = now
            self._look()
        return self._upstreams

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            seen = stat.st_mtime_ns, stat.st_ino, stat.st_size
            if seen == self._seen:
                return
            with self._path.open("rb") as file:
                text = file.read(SIZE_MAX).decode("utf-8", "replace")
        except OSError as error:
            if self._seen is not None:
                log.warning(
                    "resolv.conf cannot be read", extra=fields(path=self._path, error=error)
                )
            self._seen = None
            self._upstreams = Upstreams()
            return
        self._seen = seen
        self._upstreams = upstreams.parse(text, self._is_own)
        servers = ",".join(str(server.address) for server in self._upstreams.servers)
        log.info("upstream name servers", extra=fields(path=self._path, servers=servers))
        if self._upstreams.own:
            own = ",".join(str(server.address) for server in self._upstreams.own)
            log.warning(
                "resolv.conf names discod itself, which is left out",
                extra=fields(path=self._path, servers=own),
            )
