"""The service manager's notification protocol (sd_notify(3), sd_watchdog_enabled(3)).

Rule: one datagram a statement, never blocking, and never a failure of the daemon: a service manager
that does not listen is logged once. The environment is handed in, not read.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from discod.log import fields

log = logging.getLogger(__name__)

STATUS_MAX = 512
"""Characters of a status line; `systemctl status` shows one line."""


class Notifier:
    """Tells the service manager how the daemon stands.

    Args:
        address: Value of ``NOTIFY_SOCKET``: a path, or ``@name`` for an abstract socket; empty or
            None when no manager listens, and then every call does nothing.
    """

    def __init__(self, address: str | None) -> None:
        self._target: str | None = None
        self._failed = False
        if not address:
            return
        if address.startswith("@"):
            self._target = "\0" + address[1:]
        elif address.startswith("/"):
            self._target = address
        else:
            log.warning("notify socket of an unknown kind", extra=fields(address=address))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """The notifier that ``NOTIFY_SOCKET`` asks for."""
        return cls(environ.get("NOTIFY_SOCKET"))

    @property
    def listening(self) -> bool:
        """Whether a service manager asked to be told."""
        return self._target is not None

    def ready(self, status: str) -> bool:
        """The daemon serves. Returns whether the manager was told (as all of these do)."""
        return self._send("READY=1", _status(status))

    def status(self, status: str) -> bool:
        """One line for people, shown by ``systemctl status``."""
        return self._send(_status(status))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it. Type=notify-reload needs the time in it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "stopping") -> bool:
        """The shutdown has begun."""
        return self._send("STOPPING=1", _status(status))

    def watchdog(self) -> bool:
        """A sign of life."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if self._target is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._target)
        except OSError as error:
            if not self._failed:
                log.warning(
                    "the service manager does not take notifications",
                    extra=fields(socket=os.fsdecode(self._target), error=error),
                )
            self._failed = True
            return False
        self._failed = False
        return True


def watchdog_period(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two signs of life: half of what the manager allows; None without a watchdog.

    Args:
        environ: Where ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked up.
        pid: Of this process: a watchdog that is meant for another one is none of ours.
    """
    try:
        allowed = int(environ.get("WATCHDOG_USEC", ""))
        owner = int(environ.get("WATCHDOG_PID") or pid)
    except ValueError:
        return None
    if allowed <= 0 or owner != pid:
        return None
    return allowed / 2_000_000


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text[:STATUS_MAX].split())
