from __future__ import annotations

from pathlib import Path

import pytest

from discod.model.settings import HostSettings
from discod.paths import api_sockets, runtime_dir, state_dir

XDG = {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/h/st", "HOME": "/h"}
UNIT = {"RUNTIME_DIRECTORY": "/run/unit:/run/other", "STATE_DIRECTORY": "/var/lib/unit"}


@pytest.mark.parametrize(
    ("given", "uid", "environ", "runtime", "state"),
    [
        ("", 0, {}, "/run/discod", "/var/lib/discod"),
        ("", 0, XDG, "/run/discod", "/var/lib/discod"),
        ("", 7, XDG, "/run/user/7/discod", "/h/st/discod"),
        ("", 7, {"HOME": "/h"}, "/tmp/discod-7", "/h/.local/state/discod"),
        ("", 7, {}, "/tmp/discod-7", "/tmp/discod-7"),
        ("", 7, XDG | UNIT, "/run/unit", "/var/lib/unit"),
        ("/mine", 0, XDG | UNIT, "/mine", "/mine"),
    ],
)
def test_directories(
    given: str, uid: int, environ: dict[str, str], runtime: str, state: str
) -> None:
    host = HostSettings(runtime_dir=given, state_dir=given)
    assert runtime_dir(host, uid, environ) == Path(runtime)
    assert state_dir(host, uid, environ) == Path(state)


def test_where_the_command_line_looks() -> None:
    system = Path("/run/discod/api.sock")
    assert api_sockets(0, {}) == (system, Path("/tmp/discod-0/api.sock"))
    assert api_sockets(7, XDG) == (
        system,
        Path("/run/user/7/discod/api.sock"),
        Path("/tmp/discod-7/api.sock"),
    )
