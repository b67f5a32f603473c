"""BIND, NSD and Knot as secondaries, run with the configurations of `deploy/`.

Rule: what an operator would write beside those files (addresses, ports, folders) is added here;
inside them only the placeholders are replaced, and each of them has to be there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import trio

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KEY_NAME = "discod-transfer"
PLACEHOLDER = "cmVwbGFjZSB0aGlzIGJ5IGEgc2VjcmV0IG9mIHlvdXI="
PROGRAMS = {"bind": "named", "nsd": "nsd", "knot": "knotd"}


WITHOUT_KEY = {
    "bind": (
        (r'key "discod-transfer" \{[^}]*\};', ""),
        (r'( port \d+) key "discod-transfer";', r"\1;"),
        (r'key "discod-transfer";', "any;"),
    ),
    "nsd": ((r"\nkey:\n(    .*\n)+", "\n"), (r" discod-transfer\n", " NOKEY\n")),
    "knot": (
        (r"\nkey:\n(  .*\n)+", "\n"),
        (r"    key: discod-transfer\n    action", "    address: 127.0.0.0/8\n    action"),
        (r"    key: discod-transfer\n", ""),
    ),
}
"""What an operator who wants no TSIG would change."""


def snippet(name: str, primaries: Sequence[int], secret: str) -> str:
    """A file of `deploy/` for primaries on these two ports of loopback; no `secret`: no TSIG."""
    text = (DEPLOY / f"{name}-secondary.conf").read_text()
    assert text.count(PLACEHOLDER) == 1
    text = text.replace(PLACEHOLDER, secret)
    for number, port in enumerate(primaries, 11):
        if name == "bind":
            text, count = re.subn(rf"10\.0\.0\.{number} port 53 ", f"127.0.0.1 port {port} ", text)
        else:
            text, count = re.subn(rf"10\.0\.0\.{number}@53\b", f"127.0.0.1@{port}", text)
        assert count == 1, (name, number)
    for pattern, instead in WITHOUT_KEY[name] if not secret else ():
        text, count = re.subn(pattern, instead, text)
        assert count, (name, pattern)
    return text


class Server:
    """One secondary: its folder, its process, and where it listens."""

    def __init__(
        self, name: str, folder: Path, port: int, primaries: Sequence[int], secret: str
    ) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self.log_file = folder / "log"
        self._process: trio.Process | None = None
        (folder / "db").mkdir(parents=True)
        included = folder / "zone.conf"
        included.write_text(snippet(name, primaries, secret))
        main = folder / "main.conf"
        main.write_text(self._main(included))
        self._argv = {
            "bind": ["named", "-g", "-n", "1", "-c", str(main)],
            "nsd": ["nsd", "-d", "-c", str(main)],
            "knot": ["knotd", "-c", str(main)],
        }[name]

    def _main(self, included: Path) -> str:
        if self.name == "bind":
            return f"""
                options {{
                    directory "{self.folder}"; pid-file none; session-keyfile none;
                    listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                    recursion no; dnssec-validation no; serial-query-rate 1000;
                    allow-query {{ 127.0.0.0/8; }};
                }};
                controls {{ }};
                include "{included}";
            """
        if self.name == "nsd":
            return f"""
server:
    ip-address: 127.0.0.1@{self.port}
    username: ""
    chroot: ""
    zonesdir: "{self.folder}"
    database: ""
    pidfile: "{self.folder}/pid"
    xfrdfile: "{self.folder}/xfrd.state"
    zonelistfile: "{self.folder}/zone.list"
    xfrdir: "{self.folder}"
    cookie-secret-file: ""
    server-count: 1
    verbosity: 2
remote-control:
    control-enable: no
include: "{included}"
"""
        return f"""
server:
    listen: 127.0.0.1@{self.port}
    rundir: {self.folder}
    user: root
    udp-workers: 1
    tcp-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {self.folder}/db
    journal-db-max-size: 50M
    kasp-db-max-size: 5M
    timer-db-max-size: 5M
include: {included}
"""

    @property
    def log(self) -> str:
        """All that it has written."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    async def start(self) -> None:
        """Start it; it asks the primaries for the zone by itself."""
        with self.log_file.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # NSD is several processes
            )

    async def stop(self) -> None:
        """End it, by force if it does not by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(10) as patience:
                await process.wait()
            if patience.cancelled_caught:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
