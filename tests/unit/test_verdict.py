"""`announcer.verdict`: the fixed order of reasons."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from announcer.container import Container, Healthcheck, Status
from announcer.health import CheckState
from announcer.verdict import UP, exit_words, judge
from discod.model.endpoint import Reason

RUNNING = Container("0" * 64, "web", "web", Status.RUNNING, pid=7)
DOWN = CheckState(up=False, detail="connection refused")
CALM: dict[str, Any] = {"dead": False, "stopping": False, "drained": None, "check": None}


@pytest.mark.parametrize(
    ("container", "known", "reason", "detail"),
    [
        ({}, {}, None, ""),
        ({}, {"check": CheckState(up=True)}, None, ""),
        ({"health": Healthcheck.HEALTHY}, {}, None, ""),
        ({}, {"check": CheckState()}, Reason.STARTING, "check: not checked yet"),
        ({}, {"check": DOWN}, Reason.UNHEALTHY, "check: connection refused"),
        (
            {"health": Healthcheck.STARTING},
            {"check": DOWN},
            Reason.STARTING,
            "HEALTHCHECK has not succeeded yet",
        ),
        (
            {"health": Healthcheck.UNHEALTHY, "health_output": "no\ndatabase"},
            {"check": DOWN},
            Reason.UNHEALTHY,
            "HEALTHCHECK fails: no database",
        ),
        ({}, {"drained": "by root"}, Reason.DRAINED, "by root"),
        ({}, {"drained": ""}, Reason.DRAINED, "drained"),
        ({"status": Status.PAUSED}, {"drained": "by root"}, Reason.PAUSED, "paused"),
        ({"status": Status.CREATED}, {}, Reason.STARTING, "created, not started"),
        ({}, {"dead": True}, Reason.CRASHED, "its main process ended"),
        ({"status": Status.PAUSED}, {"dead": True}, Reason.CRASHED, "its main process ended"),
        ({"status": Status.EXITED}, {"dead": True}, Reason.EXITED, "exit status 0"),
        ({"status": Status.EXITED, "exit_code": 1}, {}, Reason.CRASHED, "exit status 1"),
        (
            {"status": Status.EXITED, "exit_code": 137, "oom_killed": True},
            {},
            Reason.CRASHED,
            "exit status 137 (SIGKILL), out of memory",
        ),
        ({"status": Status.DEAD, "oom_killed": True}, {}, Reason.CRASHED, "exit status 0, out of"),
        (
            {"status": Status.RESTARTING, "exit_code": 2},
            {},
            Reason.CRASHED,
            "exit status 2, the engine will start it again",
        ),
        ({}, {"stopping": True}, Reason.STOPPING, "the engine sent its stop signal"),
        ({}, {"stopping": True, "dead": True}, Reason.STOPPING, "stopped"),
        (
            {"status": Status.EXITED, "exit_code": 143},
            {"stopping": True},
            Reason.STOPPING,
            "stopped, exit status 143 (SIGTERM)",
        ),
        ({"status": Status.REMOVING}, {"stopping": True}, Reason.REMOVED, "the engine is removing"),
    ],
)
def test_table(
    container: dict[str, Any], known: dict[str, Any], reason: Reason | None, detail: str
) -> None:
    verdict = judge(replace(RUNNING, **container), **{**CALM, **known})
    assert verdict.up == (reason is None)
    assert verdict.reason == reason
    assert verdict.detail.startswith(detail)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit status 0"),
        (127, "exit status 127 (its command was not found)"),
        (139, "exit status 139 (SIGSEGV)"),
        (128 + 41, "exit status 169 (signal 41)"),
        (255, "exit status 255"),
        (-1, "exit status -1"),
    ],
)
def test_exit_words(code: int, words: str) -> None:
    assert exit_words(replace(RUNNING, exit_code=code)) == words


def test_every_state_is_judged_and_up_means_up() -> None:
    seen = set()
    checks = (None, CheckState(), CheckState(up=True), DOWN)
    for status, health, dead, stopping, drained, check in product(
        Status, Healthcheck, (False, True), (False, True), (None, "by hand"), checks
    ):
        container = replace(RUNNING, status=status, health=health, health_output="x" * 900)
        verdict = judge(container, dead=dead, stopping=stopping, drained=drained, check=check)
        calm = not dead and not stopping and drained is None
        works = health in (Healthcheck.NONE, Healthcheck.HEALTHY) and (check is None or check.up)
        assert (verdict == UP) == (status is Status.RUNNING and calm and bool(works))
        assert verdict.up == (verdict.reason is None) == (not verdict.detail)
        assert len(verdict.detail) <= 256
        seen.add(verdict.reason)
    assert seen == {
        None,
        *(Reason.CRASHED, Reason.EXITED, Reason.STOPPING, Reason.REMOVED),
        *(Reason.PAUSED, Reason.STARTING, Reason.UNHEALTHY, Reason.DRAINED),
    }
