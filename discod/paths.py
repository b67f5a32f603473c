"""Where the daemon keeps its files, and where its control socket is found.

Rule: the daemon and the command line agree on these paths because both ask here. Pure: what the
environment, the user id and the configuration are is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from discod.model.settings import HostSettings

SOCKET_NAME = "api.sock"
FALLBACK_URL = "http://127.0.0.1:9353"
"""The default of ``http.listen``, for readers without access to the socket."""


def runtime_dir(host: HostSettings, uid: int, environ: Mapping[str, str]) -> Path:
    """Directory of the lock, the lease id and the control socket; gone after a boot.

    In this order: ``host.runtime_dir``, systemd's ``RUNTIME_DIRECTORY``, ``/run/discod`` as root,
    ``$XDG_RUNTIME_DIR/discod``, ``/tmp/discod-<uid>`` (whoever creates that one must own it alone).
    """
    if host.runtime_dir:
        return Path(host.runtime_dir)
    if given := _systemd(environ, "RUNTIME_DIRECTORY"):
        return given
    if uid == 0:
        return Path("/run/discod")
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "discod"
    return private_tmp(uid)


def state_dir(host: HostSettings, uid: int, environ: Mapping[str, str]) -> Path:
    """Directory of what outlives a boot: the drain mark and the machine's identity.

    In this order: ``host.state_dir``, systemd's ``STATE_DIRECTORY``, ``/var/lib/discod`` as root,
    ``$XDG_STATE_HOME/discod``, ``~/.local/state/discod``.
    """
    if host.state_dir:
        return Path(host.state_dir)
    if given := _systemd(environ, "STATE_DIRECTORY"):
        return given
    if uid == 0:
        return Path("/var/lib/discod")
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "discod"
    if environ.get("HOME"):
        return Path(environ["HOME"]) / ".local" / "state" / "discod"
    return private_tmp(uid)


def private_tmp(uid: int) -> Path:
    """Last resort of a user without a home or a runtime directory."""
    return Path(f"/tmp/discod-{uid}")  # noqa: S108 - discod.place checks its owner


def api_sockets(uid: int, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a control socket may be, the likeliest first; the command line tries them in turn."""
    own = runtime_dir(HostSettings(), uid, environ) / SOCKET_NAME
    system = Path("/run/discod") / SOCKET_NAME
    return tuple(dict.fromkeys((system, own, private_tmp(uid) / SOCKET_NAME)))


def _systemd(environ: Mapping[str, str], name: str) -> Path | None:
    """The first of the colon-separated directories (systemd.exec(5))."""
    first = environ.get(name, "").split(":")[0]
    return Path(first) if first else None
