"""Directories, the lock, and what survives a restart."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from discod.place import Memory, PlaceError, make_directory, only_one, remember, save


def test_the_second_daemon_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(PlaceError, match=rf"another discod \(pid {os.getpid()}\)"),
        only_one(tmp_path),
    ):
        raise AssertionError("two at once")
    with only_one(tmp_path):
        pass  # the first is gone


def test_what_is_remembered_survives(tmp_path: Path) -> None:
    memory = remember(tmp_path)
    assert len(memory.machine) == 32
    memory.drained = 5.5
    memory.containers["c" * 64] = 6.5
    save(tmp_path, memory)
    assert remember(tmp_path) == memory
    assert remember(tmp_path).machine == memory.machine


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"machine": "x"}',
        '{"machine":"x","drained":"y","containers":{}}',
        '{"machine":"x","drained":null,"containers":[]}',
        "\x00\xff",
    ],
)
def test_a_damaged_file_is_named_and_begun_anew(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.json").write_text(text, "latin-1")
    memory = remember(tmp_path)
    assert memory.drained is None
    assert memory.containers == {}
    assert memory.machine
    assert "state file unreadable" in caplog.text


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="cannot write"):
        save(tmp_path / "missing", Memory(machine="x"))
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="cannot make the directory"):
        make_directory(tmp_path / "file" / "below", 0o755)
    with pytest.raises(PlaceError, match="cannot open"), only_one(tmp_path / "missing"):
        raise AssertionError("no lock without its directory")


def test_directories_have_the_mode_asked_for(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    make_directory(made, 0o700)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    make_directory(made, 0o755)  # there already: left as it is


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    with pytest.raises(PlaceError, match="belongs to user 12345"):
        make_directory(theirs, 0o755)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(PlaceError, match="belongs to user 12345"):
        make_directory(link, 0o755)
