"""Rescue joined to the daemon: off, it leaves nothing behind, and touches nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from discod import rescuing
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.endpoint import Address, Host
from discod.model.keyspace import Keyspace
from discod.model.rescue import Unit
from discod.model.rescue_settings import RescueSettings
from discod.model.settings import Settings
from discod.rescue.service import RescueService
from discod.rescuing import MARK, Rescuing


class Nobody:
    """No containers."""

    def listen(self, call: Callable[[], None]) -> None:
        del call

    def listed(self) -> bool:
        return True

    def units(self, own: Sequence[Address]) -> Mapping[str, Unit]:
        del own
        return {}


def joined(settings: Settings, state: Path) -> Rescuing:
    metrics = Metrics()
    keeper = Keeper(Keyspace(), wall=lambda: 0.0, monotonic=lambda: 0.0, metrics=metrics)
    host = Host("alpha", (ip_address("192.0.2.1"),))
    return Rescuing(
        settings, host, keeper, Nobody(), metrics, random.Random(1),
        state=state, take_over=lambda taken: None, follows=lambda follows: None,
    )  # fmt: skip


@pytest.fixture
def cleaned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each clean-up is to fail with; taken off as it is called."""
    outcomes: list[list[str]] = []

    async def cleanup() -> tuple[list[str], list[str]]:
        await trio.lowlevel.checkpoint()
        failed = outcomes.pop(0)
        return ([] if failed else ["tables removed"]), failed

    monkeypatch.setattr(rescuing, "cleanup", cleanup)
    return outcomes


async def test_never_on_nothing_is_run(tmp_path: Path, cleaned: list[list[str]]) -> None:
    off = joined(Settings(), tmp_path)
    assert off.view is None
    await off.run()  # a call of `cleanup` would raise
    assert not (tmp_path / MARK).exists()


async def test_switched_off_its_tables_go(tmp_path: Path, cleaned: list[list[str]]) -> None:
    (tmp_path / MARK).touch()
    cleaned += [["tables: nft: No such file or directory"], []]
    await joined(Settings(), tmp_path).run()
    assert (tmp_path / MARK).exists(), "and are tried again at the next start"
    await joined(Settings(), tmp_path).run()
    assert not (tmp_path / MARK).exists() and not cleaned


async def test_a_failure_of_all_of_it_is_begun_again(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []

    async def run(self: RescueService) -> None:
        times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(RescueService, "run", run)
    on = joined(replace(Settings(), rescue=RescueSettings(enabled=True)), tmp_path)
    with trio.move_on_after(300):
        await on.run()
    assert 8 < len(times) < 60, "with pauses that grow"


async def test_on_it_is_remembered(tmp_path: Path) -> None:
    on = joined(replace(Settings(), rescue=RescueSettings(enabled=True)), tmp_path)
    assert on.view is not None
    with trio.CancelScope() as scope:
        scope.cancel()
        await on.run()
    assert (tmp_path / MARK).exists()
