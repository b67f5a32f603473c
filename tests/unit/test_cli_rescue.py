"""``discod rescue`` and ``discod vip``, and their tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from discod import tables_rescue
from discod.cli import main
from discod.model.settings import Settings
from discod.paths import runtime_dir
from discod.place import only_one
from discod.tables import Page
from tests.unit.fake_view import NOW, FakeView
from tests.unit.rescue_rows import CLIENT, ENTRY, FORGOTTEN, STATUS, VIP, FakeRescue
from tests.unit.test_cli import daemon

PIPE = Page(NOW)


def shown(**changes: Any) -> dict[str, Any]:
    """What ``discod rescue status`` prints."""
    return {"status": STATUS, "clients": [CLIENT], "entries": [ENTRY, FORGOTTEN], **changes}


def test_status_names_the_offenders() -> None:
    head, done, clients, entries = tables_rescue.status(PIPE, shown()).split("\n\n")
    assert head == (
        "rescue is on: 2 of at most 4096 stale addresses, each held for 10m after its last use"
    )
    assert done.splitlines()[0] == "what was done:"
    assert done.splitlines()[2].split() == ["web", "41", "3", "0", "2", "1"]
    assert clients.splitlines()[0] == "clients that still use stale addresses:"
    assert clients.splitlines()[2].split() == [
        "10.101.1.7", "shop-1", "web", "10.101.1.9:80", "41", "3", "0", "5s", "ago",
    ]  # fmt: skip
    first, second = entries.splitlines()[2:]
    assert first.split()[:7] == ["10.101.1.9:80", "tcp", "web", "crashed", "20s", "9m", "1"]
    assert "10.101.1.2:80 10.101.2.2:80 " in first
    assert "[2001:db8:7::7]:80" in second
    assert "refused (open connections left alone)" in second


def test_status_of_one_that_has_nothing_to_do() -> None:
    text = tables_rescue.status(
        PIPE, {"status": {**STATUS, "services": []}, "clients": [], "entries": []}
    )
    assert text.split("\n\n")[1:] == ["no client uses a stale address"]


def test_status_of_one_in_trouble() -> None:
    trouble = {**STATUS, "fault": "nft: \x1b[31mno such file", "dropped": 7}
    lines = tables_rescue.status(PIPE, shown(status=trouble)).splitlines()
    assert lines[1] == (
        "7 stale addresses were let go early, since there were 4096 (rescue.max_entries)"
    )
    assert lines[2] == "FAULT: nft: \\x1b[31mno such file"
    off = {**STATUS, "enabled": False, "services": []}
    text = tables_rescue.status(PIPE, shown(status=off, clients=[], entries=[]))
    assert text.startswith("rescue is off: expected [rescue] enabled = true\n")
    off["fault"] = "nft is missing"
    text = tables_rescue.status(PIPE, shown(status=off, clients=[], entries=[]))
    assert text.splitlines()[1] == "FAULT: nft is missing"


def test_status_is_bounded_and_says_so() -> None:
    many = [{**CLIENT, "client": f"10.0.0.{n}"} for n in range(tables_rescue.ROWS_SHOWN + 3)]
    text = tables_rescue.status(PIPE, shown(clients=many))
    assert text.count(" shop-1 ") == tables_rescue.ROWS_SHOWN
    assert "and 3 more; --json has all" in text


def test_entries_that_are_left_to_the_network() -> None:
    open_ = {**FORGOTTEN, "refused": False, "cut": True}
    assert "nowhere: left to the network" in tables_rescue.status(PIPE, shown(entries=[open_]))


@pytest.mark.parametrize("width", [100, 200])
def test_a_terminal_of_some_width(width: int) -> None:
    text = tables_rescue.status(Page(NOW, width), shown())
    for value in ("10.101.1.7", "10.101.1.9:80", "[2001:db8:7::7]:80", "crashed"):
        assert value in text
    assert all(len(line) <= width for line in text.splitlines() if not line.startswith("rescue"))


def test_vips() -> None:
    nobody = {**VIP, "service": "db", "affinity": False, "endpoints": []}
    text = tables_rescue.vips(PIPE, {"vips": [VIP, nobody]})
    assert [line.split() for line in text.splitlines()] == [
        ["SERVICE", "ADDRESS", "PROTOCOL", "AFFINITY", "ENDPOINTS"],
        ["web", "10.96.0.10:80", "tcp", "client", "10.101.1.2:80"],
        ["db", "10.96.0.10:80", "tcp", "none:", "refused"],
    ]
    assert tables_rescue.vips(PIPE, {"vips": []}) == "no service addresses"


async def test_the_commands(tmp_path: Path) -> None:
    view = FakeView(rescue=FakeRescue())
    async with daemon(tmp_path, view) as one:
        done = await one.run("rescue", "status")
        assert (done.returncode, done.stderr) == (0, "")
        assert "shop-1" in done.stdout
        document = json.loads((await one.run("rescue", "status", "--json")).stdout)
        assert document["clients"] == [CLIENT]
        assert document["status"]["hold"] == 600
        assert len(document["entries"]) == 2
        assert "10.96.0.10:80" in (await one.run("vip", "list", over=one.tcp)).stdout
        assert json.loads((await one.run("vip", "list", "--json")).stdout)["host"] == "alpha"
        done = await one.run("vip", "release", "DB.")
        assert (done.returncode, done.stdout) == (0, "db released\n")
        done = await one.run("vip", "release", "web")
        assert done.returncode == 1
        assert done.stderr == (
            "discod: service = web: expected a service without an endpoint that is up\n"
        )
        view.rescue = None
        done = await one.run("rescue", "status")
        assert done.returncode == 1
        assert "expected [rescue] enabled = true or [vip]" in done.stderr
    assert view.calls == [("release_vip", "db")]


# Clean-up --------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    file = tmp_path / "discod.toml"
    file.write_text(f'[host]\nname = "alpha"\nruntime_dir = "{tmp_path / "run"}"\n')
    return file


def cleaner(monkeypatch: pytest.MonkeyPatch, *failed: str) -> list[str]:
    """Stand in for what touches the kernel; a word for each call."""
    calls: list[str] = []

    async def cleanup() -> tuple[list[str], list[str]]:
        await trio.lowlevel.checkpoint()
        calls.append("cleaned")
        return ["table inet discod_rescue"], list(failed)

    module = ModuleType("discod.rescuing")
    vars(module)["cleanup"] = cleanup
    monkeypatch.setitem(sys.modules, "discod.rescuing", module)
    return calls


def test_cleanup(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = cleaner(monkeypatch)
    done = CliRunner().invoke(main, ["rescue", "cleanup", "--config", str(config)])
    assert (done.exit_code, done.output) == (0, "table inet discod_rescue\n")
    assert calls == ["cleaned"]


def test_cleanup_where_no_daemon_ever_ran(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = cleaner(monkeypatch)
    (config.parent / "run").rmdir()
    done = CliRunner().invoke(main, ["rescue", "cleanup", "--config", str(config)])
    assert (done.exit_code, len(calls)) == (0, 1)


def test_cleanup_says_what_is_left(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaner(monkeypatch, "table bridge discod_rescue: busy")
    done = CliRunner().invoke(main, ["rescue", "cleanup", "--config", str(config)])
    assert done.exit_code == 1
    assert done.stderr == "discod: not taken away: table bridge discod_rescue: busy\n"


def test_cleanup_beside_a_daemon_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = cleaner(monkeypatch)
    host = replace(Settings().host, name="alpha", runtime_dir=str(config.parent / "run"))
    with only_one(runtime_dir(host, 0, {})):
        done = CliRunner().invoke(main, ["rescue", "cleanup", "--config", str(config)])
    assert done.exit_code == 1
    assert done.stderr.startswith("discod: ")
    assert calls == []
    # The control: it was the daemon that was in the way.
    assert not CliRunner().invoke(main, ["rescue", "cleanup", "--config", str(config)]).exit_code


@pytest.mark.parametrize(
    "command", [["rescue", "status"], ["vip", "list"], ["vip", "release", "x"]]
)
def test_no_daemon(tmp_path: Path, command: list[str]) -> None:
    api = f"unix:{tmp_path / 'api.sock'}"
    result = CliRunner().invoke(main, [*command, "--api", api])
    assert result.exit_code == 3
    assert "no daemon answers" in result.stderr
