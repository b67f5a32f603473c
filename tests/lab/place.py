"""One host with discod and nothing else: no Docker, no etcd; for tests of who asks it, and how.

Rule: a context manager that leaves nothing behind, as `tests.lab.rig.Lab` is, and found by the same
sweep. What has to see other files in /etc runs in a mount namespace of its own, which ends with it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

from tests.lab import netns, sweep
from tests.lab.daemon import Config, Daemon, Value
from tests.lab.rig import Lab

DOMAIN = "discod.internal"
TIMEOUT = 30.0
"""Seconds for one client; what takes that long hangs."""


class Place:
    """A namespace with loopback and 192.0.2.1, 2001:db8::1, and discod in it.

    Args:
        letter: Tells several of one test run apart.
        config: Tables of discod's configuration, on top of the default here.
        tail: Added to it as it is.
        hosts: Further hosts on the same LAN, 192.0.2.2 and so on, bare.
        start: Start discod.
        under: Command prefix under which it runs.
    """

    def __init__(
        self,
        letter: str,
        config: Config | None = None,
        tail: str = "",
        *,
        hosts: int = 1,
        start: bool = True,
        under: Sequence[str] = (),
    ) -> None:
        self.name = f"{sweep.PREFIX}{os.getpid()}{letter}"
        self.root = sweep.root(self.name)
        self.legs: list[netns.Leg] = []
        self._config = config or {}
        self._tail = tail
        self._hosts = hosts
        self._start = start
        self._under = tuple(under)
        self._stack = ExitStack()
        Lab.built.append(self.name)

    def __enter__(self) -> Place:
        sweep.remove(self.name)
        self._stack.callback(sweep.remove, self.name)
        try:
            self.root.mkdir(mode=0o755)
            lan, self.legs = netns.build_lan(self.name, self._hosts)
            self._stack.callback(netns.remove, [lan, *(leg.space for leg in self.legs)])
            self.discod = Daemon(
                self.root / "s",
                self._settings(),
                prefix=(*self.space.prefix, *self._under),
                tail=self._tail,
            )
            self._stack.callback(self.discod.stop)
            if self._start:
                self.discod.start()
        except BaseException:  # cleaned up, then raised on
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"--- discod\n{self.discod.log[-6000:]}")
        self._stack.close()

    @property
    def space(self) -> netns.Namespace:
        """discod's namespace."""
        return self.legs[0].space

    def _settings(self) -> Config:
        base: dict[str, dict[str, Value]] = {
            "host": {"name": "alpha", "addresses": ["192.0.2.1", "2001:db8::1"]},
            "announce": {"docker": "", "hint_port": 0},
            "dns": {
                "listen": ["127.0.0.1:53", "[::1]:53", "192.0.2.1:53"],
                "allow": ["127.0.0.0/8", "::1/128", "192.0.2.0/24"],
                "forward": False,
            },
            "http": {"listen": []},
        }
        for table, keys in self._config.items():
            base[table] = {**base.get(table, {}), **keys}
        return base

    # Running things inside --------------------------------------------------------------------

    def run(
        self,
        *argv: str,
        files: Mapping[str, str] | None = None,
        leg: int = 0,
        check: bool = True,
        timeout: float = TIMEOUT,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.

        Args:
            argv: The program.
            files: Path -> text that it sees there instead; the path has to exist.
            leg: On which host.
            check: A status other than 0 is a failure, told with all that it wrote.
            timeout: Seconds.
            env: Added to the environment.
        """
        done = subprocess.run(
            [*self.legs[leg].space.prefix, *self.seeing(files or {}, argv)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def seeing(self, files: Mapping[str, str], argv: Sequence[str]) -> list[str]:
        """`argv` as a command that sees other texts in place of some files."""
        if not files:
            return list(argv)
        mounts = []
        for i, (path, text) in enumerate(sorted(files.items())):
            copy = self.root / f"file-{i}-{abs(hash((path, text))):x}"
            copy.write_text(text)
            copy.chmod(0o644)
            mounts.append(f"mount --bind {copy} $(readlink -f {path})")
        script = "; ".join([*mounts, 'exec "$@"'])
        unshare = ["unshare", "--mount", "--propagation", "private"]
        return [*unshare, "sh", "-euc", script, "sh", *argv]
