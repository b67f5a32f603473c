"""The daemon's place on its host: directories, the lock against a second one, what it remembers.

Rule: the only files that discod writes are here and in `announcer.publish` (the lease id). What is
remembered survives restarts and boots: the installation's identity and who is drained.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from discod.log import fields

log = logging.getLogger(__name__)


CLAIM_BACKLOG = 128
"""So many refused daemons are told the pid; nobody accepts their connections."""


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
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # the disk is full; the lock holds all the same
            log.error("lock file without our pid", extra=fields(file=path, error=error))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def only_host(host: str, domain: str) -> Iterator[None]:
    """Be the one daemon of this network namespace that announces as `host` in `domain`.

    Whatever their directories are: two that write the same keys, each on a lease of its own, take
    them away from each other. The claim is a name among the kernel's abstract sockets (unix(7)), so
    it ends with the process, however that ends, and needs no file.

    Raises:
        PlaceError: another daemon of this user, or of root, is that already.
    """
    digest = hashlib.sha256(f"{domain}/{host}".encode()).hexdigest()
    name = f"\0discod/{digest[:32]}"
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(name)
            claim.listen(CLAIM_BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PlaceError(f"cannot claim the host name {host}: {error.strerror}") from error
            pid, owner = _holder(name)
            if owner not in (None, 0, os.geteuid()):
                # Anybody may bind such a name; that must not keep the host's daemon from running.
                log.warning("another user holds this host's name", extra=fields(host=host, pid=pid))
                yield
                return
            raise PlaceError(
                f"another discod (pid {pid or 'unknown'}) announces as host {host} in {domain}; "
                "one host has one daemon (or give this one a host.name of its own)"
            ) from None
        yield


def _holder(name: str) -> tuple[int, int | None]:
    """Pid and user of who listens at an abstract name; (0, None): nobody knows."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(name) != 0:
            return 0, None
        pid, owner, _ = struct.unpack(
            "=iII", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
    return pid, owner


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
        try:
            save(state_dir, memory)
        except PlaceError as error:  # a full disk must not keep names from being answered
            log.error("identity not saved, the next start makes another", extra=fields(error=error))
    return memory


def keep(state_dir: Path, memory: Memory) -> str:
    """`save`; where it fails, what to add to the answer: the mark takes effect all the same."""
    try:
        save(state_dir, memory)
    except PlaceError as error:
        log.error("maintenance mark not saved", extra=fields(error=error))
        return f", but a restart will not know it: {error}"
    return ""


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
