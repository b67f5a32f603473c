"""What a lab leaves on the machine, found and removed by its folder and its name alone.

Rule: nothing here needs the object that built the lab, so that a run which was killed can still be
cleaned up by the next one. A process belongs to a lab when its command line names the lab's folder,
when it descends from one that does (containers below their shims), or when it is in one of the
lab's namespaces; it is ended by its id.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from pathlib import Path

from tests.lab import netns

PREFIX = "dl"
BASE = Path("/tmp")
_NAME = re.compile(rf"{PREFIX}(\d+)[a-z]\Z")


def root(name: str) -> Path:
    """The folder of the lab `name`."""
    return BASE / name


def processes(name: str) -> list[int]:
    """Everything that the lab `name` runs, parents before children."""
    mark = f"{root(name)}/".encode()
    children: dict[int, list[int]] = {}
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            status = (entry / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        state, parent = status.rsplit(")", 1)[1].split()[:2]
        if state == "Z":
            continue
        pid = int(entry.name)
        children.setdefault(int(parent), []).append(pid)
        if mark in command:
            found.append(pid)
    for space in netns.existing(f"{name}-"):
        found += space.pids()
    every: dict[int, None] = {}
    while found:
        pid = found.pop(0)
        if pid not in every and pid != os.getpid():
            every[pid] = None
            found += children.get(pid, [])
    return list(every)


def mounts(name: str) -> list[str]:
    """Mount points below the lab's folder, innermost first."""
    below = f"{root(name)}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [point for point in reversed(points) if point.startswith(below)]


def leftovers(name: str) -> list[str]:
    """Everything that is left of the lab `name`, in words; empty when it is gone."""
    left = []
    for pid in processes(name):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            left.append(f"process {pid}: {command[:200].decode(errors='replace')}")
    left += [f"mount {point}" for point in mounts(name)]
    left += [f"namespace {space.name}" for space in netns.existing(f"{name}-")]
    left += [f"folder {folder}" for folder in (root(name), shm(name)) if folder.exists()]
    return left


def shm(name: str) -> Path:
    """The lab's folder in memory, for what should not wait for a disk."""
    return Path("/dev/shm") / name


def remove(name: str, grace: float = 3.0) -> None:
    """End and remove all that is left of the lab `name`, whatever state it is in."""
    end = time.monotonic() + grace
    number = signal.SIGTERM
    while pids := processes(name):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.05)
        if time.monotonic() > end:
            number = signal.SIGKILL
        if time.monotonic() > end + 10:
            break
    for point in mounts(name):
        netns.sh("umount", "-l", point, check=False)
    netns.remove(netns.existing(f"{name}-"))
    for container in root(name).glob("*/d/data/containers/*"):
        for group in Path("/sys/fs/cgroup").glob(f"**/docker/{container.name}"):
            with contextlib.suppress(OSError):  # still emptying; an empty group costs nothing
                group.rmdir()
    for folder in (root(name), shm(name)):
        shutil.rmtree(folder, ignore_errors=True)


def abandoned() -> list[str]:
    """Labs whose process is gone without having removed them."""
    names = {entry.name for entry in BASE.glob(f"{PREFIX}*")}
    names |= {space.name.rsplit("-", 1)[0] for space in netns.existing(PREFIX)}
    found = []
    for name in sorted(names):
        match = _NAME.match(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            found.append(name)
    return found
