"""Runs the checks that the roster wants, one task each.

Rule: decides nothing; starts and cancels tasks so that those run which `Roster.check_runs` names,
and hands every result to the pure `announcer.health.advance`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from announcer.health import advance
from announcer.probe import Execute, probe
from announcer.roster import CheckRun, Roster
from discod.metrics import Metrics
from discod.model.settings import Check

FIRST_INTERVAL = 0.5
"""Seconds at most between checks until the first verdict: what has just started is soon in use."""


class Checker:
    """The running checks."""

    def __init__(
        self,
        roster: Roster,
        execute_for: Callable[[CheckRun], Execute],
        metrics: Metrics,
        *,
        rng: random.Random,
        wall: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._execute_for = execute_for
        self._metrics = metrics
        self._rng = rng
        self._wall = wall
        self._running: dict[CheckRun, tuple[Check, trio.CancelScope]] = {}
        self._changed = trio.Event()

    def poke(self) -> None:
        """The roster changed."""
        self._changed.set()

    async def run(self) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                wanted = {run: run for run in self._roster.check_runs()}
                for run, (check, scope) in list(self._running.items()):
                    if run not in wanted or wanted[run].check != check:
                        scope.cancel()
                        del self._running[run]
                for run in wanted:
                    if run not in self._running:
                        scope = trio.CancelScope()
                        self._running[run] = (run.check, scope)
                        nursery.start_soon(self._one, run, scope)
                await self._changed.wait()
                self._changed = trio.Event()

    async def _one(self, run: CheckRun, scope: trio.CancelScope) -> None:
        check = run.check
        execute = self._execute_for(run)
        with scope:
            while True:
                result = await probe(check, run.endpoint, execute=execute)
                outcome = "ok" if result.ok else "failed" if result.ran else "not run"
                self._metrics.checks.labels(check.kind, outcome).inc()
                if result.ran:
                    state = self._roster.check_state(run)
                    after = advance(state, check, result.ok, result.detail, self._wall())
                    self._roster.check_result(run, after)
                starting = self._roster.check_state(run).up is None
                pause = min(check.interval, FIRST_INTERVAL) if starting else check.interval
                # Spread by a tenth, so that the checks of many containers do not fall together.
                await trio.sleep(pause * self._rng.uniform(0.95, 1.05))
