"""Directories, the lock, and what survives a restart."""

from __future__ import annotations

import errno
import os
import socket
import stat
import uuid
from pathlib import Path

import pytest

from discod.place import (
    Memory,
    PlaceError,
    make_directory,
    only_host,
    only_one,
    remember,
    save,
)


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


def test_a_full_disk_keeps_nothing_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "fsync", full)
    with only_one(tmp_path):
        assert "lock file without our pid" in caplog.text
        with pytest.raises(PlaceError, match=r"another discod \(pid unknown\)"), only_one(tmp_path):
            raise AssertionError("two at once")
    assert remember(tmp_path).machine
    assert "identity not saved" in caplog.text


def test_one_name_in_one_domain_is_one_daemon_s() -> None:
    name = f"h-{uuid.uuid4().hex[:8]}"
    with (
        only_host(name, "one.test"),
        only_host(name, "two.test"),
        only_host("x" + name, "one.test"),
    ):
        said = rf"another discod \(pid {os.getpid()}\) announces as host {name} in one.test"
        for _ in range(3):
            with pytest.raises(PlaceError, match=said), only_host(name, "one.test"):
                raise AssertionError("two at once")
    with only_host(name, "one.test"):
        pass  # the first is gone


def test_a_claim_of_another_user_is_named_and_not_heeded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"h-{uuid.uuid4().hex[:8]}"
    raw = socket.socket.getsockopt

    def stranger(sock: socket.socket, *how: int) -> int | bytes:
        found = raw(sock, *how)
        return found[:4] + b"\x39\x30\0\0" + found[8:] if isinstance(found, bytes) else found

    monkeypatch.setattr(socket.socket, "getsockopt", stranger)
    with only_host(name, "one.test"), only_host(name, "one.test"):
        assert "another user holds this host's name" in caplog.text
