"""The files that ``[bgp]`` names: passwords of sessions (TCP MD5, RFC 2385).

Rule: says what is wrong with a file, and never what a secret is; what passes here can be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from discod.config_files import Fault, mode_fault, unreadable
from discod.model.bgp_settings import BgpSettings

PASSWORD_MAX = 80
"""Octets: TCP_MD5SIG_MAXKEYLEN of Linux."""
_SIZE_MAX = 4096


def bgp_file_faults(bgp: BgpSettings) -> Iterator[Fault]:
    """Everything wrong with the files of ``[bgp]`` and its peers."""
    named = [("bgp.mesh_password_file", bgp.mesh_password_file)]
    named += [
        (f"bgp.peer[{index}].password_file", peer.password_file)
        for index, peer in enumerate(bgp.peers)
    ]
    for key, path in named:
        if path:
            for fault in _password_faults(path):
                yield key, path, fault


def _password_faults(path: str) -> Iterator[str]:
    if fault := unreadable(path):
        yield fault
        return
    try:
        with Path(path).open("rb") as file:
            data = file.read(_SIZE_MAX + 1)
        open_to = mode_fault(path)
    except OSError as error:
        yield f"expected a readable file: {error.strerror}"
        return
    if open_to:
        yield open_to
    lines = data.splitlines()
    password = lines[0].strip() if lines else b""
    if not password:
        yield "expected the password on its first line"
    elif len(password) > PASSWORD_MAX:
        yield f"expected a password of at most {PASSWORD_MAX} octets, found {len(password)}"
