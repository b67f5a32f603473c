"""Routes of kernels of the lab: what they are, and when they changed.

Rule: a kernel is asked by `ip`, and its own word of a change is what counts as the moment of it.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

from tests.lab.daemon import until
from tests.lab.netns import Namespace


def routes(space: Namespace, address: str) -> list[str]:
    """The gateways of a namespace's route to exactly this address; none: there is no such route."""
    family = "-6" if ":" in address else "-4"
    out = space.sh("ip", family, "route", "show", "exact", address)
    return sorted(re.findall(r"via (\S+)", out))


class Watch:
    """What kernels say of their IPv4 routes, and when; a context manager.

    Args:
        spaces: Whom to listen to, by name.
    """

    def __init__(self, spaces: Mapping[str, Namespace]) -> None:
        self._spaces = spaces
        self._said: dict[str, list[tuple[float, str]]] = {name: [] for name in spaces}
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for name, space in self._spaces.items():
            process = subprocess.Popen(
                [*space.prefix, "ip", "-o", "-4", "monitor", "route"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            thread = threading.Thread(target=self._read, args=(name, process), daemon=True)
            thread.start()
            self._processes.append(process)
            self._threads.append(thread)
        for name, space in self._spaces.items():
            self._hears(name, space)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(5)
        for thread in self._threads:
            thread.join(5)
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()

    def first(
        self, name: str, fits: Callable[[str], bool], since: float, deadline: float = 10.0
    ) -> float:
        """Seconds from `since` (`time.monotonic()`) to the first word after it that `fits`."""

        def found() -> float:
            return next((t for t, line in self._said[name] if t >= since and fits(line)), 0.0)

        at = until(found, deadline=deadline, step=0.01, what=f"what is waited for on {name}")
        return at - since

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._said[name].append((time.monotonic(), line))

    def _hears(self, name: str, space: Namespace) -> None:
        """Wait until it listens, by a route of our own."""
        probe = "198.51.100.1"

        def heard() -> bool:
            space.ip(f"route add blackhole {probe}", f"route del blackhole {probe}")
            time.sleep(0.02)
            return any(probe in line for _, line in self._said[name])

        until(heard, deadline=5.0, what=f"ip monitor on {name}")


def gone(address: str) -> Callable[[str], bool]:
    """The route to exactly this address was deleted."""
    return lambda line: line.startswith(f"Deleted {address} ")


def there(address: str, without: str = "-") -> Callable[[str], bool]:
    """A route to exactly this address was added or changed; it does not lead to `without`."""
    return lambda line: line.startswith(f"{address} ") and f"via {without} " not in line
