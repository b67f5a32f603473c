"""Two hosts on a LAN: our speaker on the first, a real one on the second.

Rule: everything is built by `Pair` and taken down by it, also when a test fails; every wait has a
deadline. Processes are ended by their id.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Self

from tests.lab import netns

ROOT = Path(__file__).resolve().parents[3]
ASN, PEER_ASN = 64512, 64513
US4, PEER4, US6, PEER6 = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"
OURS = ["10.101.1.7/32", "2001:db8:1::7/128"]
THEIRS = ["10.200.0.1/32", "2001:db8:200::1/128"]
DEADLINE = 15.0
_numbers = count()


def until(condition: Callable[[], Any], what: str, most: float = DEADLINE) -> Any:
    end = time.monotonic() + most
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {most} s: {what}"
        time.sleep(0.05)
    return found


class Pair:
    def __init__(self) -> None:
        self.name = f"dbs{os.getpid()}n{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix=self.name, dir="/tmp"))
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            self.lan, (self.us, self.peer) = netns.build_lan(self.name, 2)
        except BaseException:  # cleaned up, then raised on
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:  # it was killed with something unread
                        continue
        netns.remove(netns.existing(f"{self.name}-"))
        shutil.rmtree(self.folder)

    def start(self, leg: netns.Leg, *argv: str, pipes: bool = False) -> subprocess.Popen[str]:
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                ["nsenter", f"--net={leg.space.path}", *argv],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                text=True,
                cwd=ROOT,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def native(self, *peers: dict[str, Any], want: list[str] | None = None, **more: Any) -> Native:
        raw = {"asn": ASN, "addresses": [US4, US6], "peers": list(peers), **more}
        argv = (sys.executable, "-m", "tests.lab.bgp_speaker.driver", json.dumps(raw))
        native = Native(self.start(self.us, *argv, pipes=True))
        native.do(want=OURS if want is None else want)
        native.do(sync=True)
        return native

    def bird(self, *protocols: str) -> Bird:
        return Bird(self, protocols)


class Native:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def do(self, **command: Any) -> dict[str, Any]:
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 20)
        assert ready, "no answer"
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    @property
    def status(self) -> dict[str, Any]:
        return self.do(status=True)

    def peer(self, address: str = PEER4) -> dict[str, Any]:
        found: dict[str, Any] = self.status["peers"][address]
        return found

    def up(self, address: str = PEER4) -> bool:
        return bool(self.peer(address)["state"] == "Established")

    @property
    def learned(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.status["learned"]
        return found


CHANNELS = """
    ipv4 { import all; export where source = RTS_STATIC; };
    ipv6 { import all; export where source = RTS_STATIC; };
"""


def bgp(lines: str = "", *, name: str = "discod", address: str = US4) -> str:
    return f"""
protocol bgp {name} {{
    local as {PEER_ASN};
    neighbor {address} as {ASN};
    hold time 9;
    connect delay time 1;
    connect retry time 2;
    error wait time 1, 2;
    {lines}
    {CHANNELS}
}}
"""


class Bird:
    """BIRD 2 on the second host, with the two routes `THEIRS`."""

    def __init__(self, pair: Pair, protocols: tuple[str, ...]) -> None:
        self.control = pair.folder / "bird.ctl"
        config = pair.folder / "bird.conf"
        config.write_text(
            f"router id {PEER4};\nlog stderr all;\nprotocol device {{}}\n"
            f"protocol static {{ ipv4; route {THEIRS[0]} blackhole; }}\n"
            f"protocol static {{ ipv6; route {THEIRS[1]} blackhole; }}\n" + "".join(protocols)
        )
        argv = ("bird", "-f", "-c", str(config), "-s", str(self.control))
        self.process = pair.start(pair.peer, *argv)
        until(self.control.exists, "BIRD's control socket")

    def ask(self, *words: str) -> str:
        return netns.sh("birdc", "-s", str(self.control), *words, check=False)

    def routes(self, name: str = "discod") -> set[str]:
        lines = self.ask("show", "route", "protocol", name).splitlines()
        return {line.split()[0] for line in lines if "/" in line.split(" ", 1)[0]}

    def up(self, name: str = "discod") -> bool:
        return "Established" in self.ask("show", "protocols", name)
