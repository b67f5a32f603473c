"""Kernel settings of a router, and what they were before.

Rule: a setting is changed only after its old value is in the state file, and `restore` gives it
back only if it still is what we made it. Interfaces that take their default route from router
advertisements (accept_ra 1) get accept_ra 2 before IPv6 forwarding is switched on, since forwarding
else ends that and the host loses its default route (Documentation/networking/ip-sysctl).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path("/proc/sys/net")
FORWARD4: Final = "ipv4/ip_forward"
FORWARD6: Final = "ipv6/conf/all/forwarding"
FILE: Final = "bgp-sysctls.json"


class Sysctls:
    """Settings below /proc/sys/net of this network namespace.

    Args:
        state_dir: Where old values are remembered.
        root: For tests.
    """

    def __init__(self, state_dir: Path, root: Path = ROOT) -> None:
        self._file = state_dir / FILE
        self._root = root

    def read(self, name: str) -> str | None:
        """The value of ``ipv4/ip_forward`` or the like; None: this kernel has no such setting."""
        try:
            return (self._root / name).read_text().strip()
        except OSError:
            return None

    def wanted(self, uplinks: Iterable[str], bridges: Iterable[str], proxy: bool) -> dict[str, str]:
        """Setting -> value, in the order in which they are to be made."""
        found: dict[str, str] = {}
        if self.read(FORWARD6) is not None:
            found |= dict.fromkeys(self._advertised(), "2")
            found[FORWARD6] = "1"
        found[FORWARD4] = "1"
        if proxy:
            for name in uplinks:
                found[f"ipv4/neigh/{name}/proxy_delay"] = "0"
                if self.read(f"ipv6/conf/{name}/proxy_ndp") is not None:
                    found[f"ipv6/neigh/{name}/proxy_delay"] = "0"
                    found[f"ipv6/conf/{name}/proxy_ndp"] = "1"
            for name in bridges:
                found[f"ipv4/neigh/{name}/proxy_delay"] = "0"
                found[f"ipv4/conf/{name}/proxy_arp"] = "1"
        return found

    def _advertised(self) -> list[str]:
        folder = self._root / "ipv6/conf"
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        remembered = self.remembered()
        found = []
        for name in names:
            setting = f"ipv6/conf/{name}/accept_ra"
            before = remembered.get(setting, (self.read(setting), ""))[0]
            forwards = self.read(f"ipv6/conf/{name}/forwarding")
            # One that forwards already has decided without us.
            ours = forwards == "0" or setting in remembered
            if name not in ("all", "lo") and before == "1" and ours:
                found.append(setting)
        return found

    def remembered(self) -> dict[str, tuple[str, str]]:
        """Setting -> (what it was, what we made it), in the order of making.

        Raises:
            ValueError: the state file is not one of ours.
        """
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return {}
        try:
            return {name: (str(old), str(new)) for name, (old, new) in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._file}: not a list of settings: {error}") from error

    def apply(self, wanted: Mapping[str, str]) -> list[str]:
        """Make settings; the names of those that were others.

        Raises:
            OSError: the state file or a setting cannot be written.
            ValueError: the state file is not one of ours.
        """
        others = [n for n, value in wanted.items() if self.read(n) not in (value, None)]
        if not others:
            return []
        remembered = self.remembered()
        for name in others:
            old = remembered[name][0] if name in remembered else self.read(name) or ""
            remembered[name] = (old, wanted[name])
        self._remember(remembered)
        for name in others:
            (self._root / name).write_text(wanted[name])
        return others

    def _remember(self, values: Mapping[str, tuple[str, str]]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with fresh.open("w") as out:
            json.dump(values, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)

    def restore(self) -> list[str]:
        """Give every setting back that we changed, the last first; the names of those.

        Raises:
            OSError: a setting cannot be written; it and those before it stay remembered.
            ValueError: the state file is not one of ours.
        """
        remembered = self.remembered()
        done = []
        for name, (old, new) in reversed(list(remembered.items())):
            if self.read(name) == new and old != new:
                (self._root / name).write_text(old)
                done.append(name)
        self._file.unlink(missing_ok=True)
        return done
