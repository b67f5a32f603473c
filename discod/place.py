"""The daemon's place on its host: directories, the lock against a second one, what it remembers.

Rule: the only files that discod writes are here and in `announcer.publish` (the lease id). What is
remembered survives restarts and boots: the installation's identity and who is drained.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from discod.log import fields

log = logging.getLogger(__name__)


class PlaceError(Exception):
    """A directory cannot be used, or another daemon has it; says which and why."""


@dataclass(slots=True)
class Memory:
    """What survives restarts."""

    machine: str = ""
    """Random, made once."""
    drained: float | None = None
    """Since when this host is drained, Unix seconds."""
    containers: dict[str, float] = field(default_factory=dict)
    """Drained containers: full id -> since when."""


def make_directory(path: Path, mode: int) -> None:
    """Make a directory and its parents.

    One that is there already has to belong to this user or to root: whoever else made it (below
    /tmp anybody can) could take the control socket and the state away.

    Raises:
        PlaceError: it cannot be made or written, or is somebody else's.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise PlaceError(f"cannot make the directory {path}: {error.strerror}") from error
    owner = path.stat(follow_symlinks=False).st_uid
    if owner not in (0, os.geteuid()):
        raise PlaceError(f"the directory {path} belongs to user {owner}, not to this one")
    if not os.access(path, os.W_OK | os.X_OK):
        raise PlaceError(f"the directory {path} is not writable for this user")


@contextmanager
def only_one(runtime_dir: Path) -> Iterator[None]:
    """Hold the lock of a runtime directory.

    Raises:
        PlaceError: another daemon holds it.
    """
    path = runtime_dir / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PlaceError(f"cannot open {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise PlaceError(
                f"another discod (pid {pid}) runs with the runtime directory {runtime_dir}; "
                "one host has one daemon (or give this one a host.runtime_dir of its own)"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def remember(state_dir: Path) -> Memory:
    """Read what survived; a damaged file is named in the log and begun anew."""
    path = state_dir / "state.json"
    memory = Memory()
    try:
        saved = json.loads(path.read_text())
        memory.machine = str(saved["machine"])
        memory.drained = None if saved["drained"] is None else float(saved["drained"])
        memory.containers = {str(k): float(v) for k, v in saved["containers"].items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("state file unreadable, begun anew", extra=fields(file=path, error=repr(error)))
    if not memory.machine:
        memory.machine = uuid.uuid4().hex
        save(state_dir, memory)
    return memory


def save(state_dir: Path, memory: Memory) -> None:
    """Write what is to survive, whole or not at all.

    Raises:
        PlaceError: it cannot be written.
    """
    path = state_dir / "state.json"
    new = path.with_suffix(".new")
    try:
        with new.open("w") as file:
            json.dump(
                {
                    "machine": memory.machine,
                    "drained": memory.drained,
                    "containers": memory.containers,
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise PlaceError(f"cannot write {path}: {error.strerror}") from error
