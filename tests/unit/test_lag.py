"""The loop's lag, with a clock of the test's own and with a loop that is really blocked."""

from __future__ import annotations

import time

import pytest
import trio

from discod.lag import BLOCKED, SHOWN, LoopLag
from discod.metrics import Metrics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def turn(lag: LoopLag, clock: Clock, *, busy: float, timeout: float, waited: float) -> None:
    clock.now += busy
    lag.before_io_wait(timeout)
    clock.now += waited
    lag.after_io_wait(timeout)


def test_waiting_is_no_lag_and_being_late_is() -> None:
    clock, metrics = Clock(), Metrics()
    lag = LoopLag(metrics, clock)
    turn(lag, clock, busy=0.25, timeout=30.0, waited=30.0)
    assert lag.peak == pytest.approx(0.25)
    turn(lag, clock, busy=0.0, timeout=1.0, waited=1.5)  # the process stood still
    assert lag.peak == pytest.approx(0.5)


def test_a_peak_is_shown_for_a_while_and_then_forgotten() -> None:
    clock = Clock()
    lag = LoopLag(Metrics(), clock)
    turn(lag, clock, busy=0.5, timeout=1.0, waited=0.0)
    clock.now += SHOWN
    assert lag.peak == pytest.approx(0.5)
    clock.now += SHOWN
    assert lag.peak == 0.0


def test_a_long_one_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = Clock(), Metrics()
    lag = LoopLag(metrics, clock)
    turn(lag, clock, busy=BLOCKED - 0.1, timeout=1.0, waited=0.0)
    assert not caplog.records
    turn(lag, clock, busy=BLOCKED + 0.1, timeout=1.0, waited=0.0)
    assert len(caplog.records) == 1
    assert b"discod_loop_blocked_total 1.0" in metrics.exposition()


async def test_a_loop_that_is_really_blocked() -> None:
    metrics = Metrics()
    lag = LoopLag(metrics)
    trio.lowlevel.add_instrument(lag)
    try:
        await trio.sleep(0.01)
        time.sleep(0.2)  # noqa: ASYNC251 - this is what is measured
        await trio.lowlevel.checkpoint()
    finally:
        trio.lowlevel.remove_instrument(lag)
    assert 0.2 <= lag.peak < 10
