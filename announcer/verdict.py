"""Whether a container's endpoint belongs into DNS, and if not, why.

Rule: a fixed order, the most final reason first; the first line that applies decides:

    removed    the engine is removing it
    stopping   the engine sent the stop signal (also after the end that this led to)
    ended      exited, dead, restarting, or its main process is known to be gone
    created    it was never started
    paused
    drained    by hand
    health     the image's HEALTHCHECK: starting, then unhealthy
    check      our own: starting, then down
    up

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from signal import Signals

from announcer.container import Container, Healthcheck, Status
from announcer.health import CheckState
from announcer.inspect import tame
from discod.model.endpoint import Reason

DETAIL_MAX = 256

_EXIT_WORDS = {
    125: "the engine could not run it",
    126: "its command cannot be executed",
    127: "its command was not found",
}
"""Statuses that the engine gives a meaning (docker-run(1), "Exit status")."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Up, or down for a reason."""

    up: bool
    reason: Reason | None
    """None when up."""
    detail: str
    """For people, one line; empty when up."""


UP = Verdict(up=True, reason=None, detail="")


def judge(
    container: Container,
    *,
    dead: bool,
    stopping: bool,
    drained: str | None,
    check: CheckState | None,
) -> Verdict:
    """Judge one endpoint of a container.

    Args:
        container: As the engine last described it.
        dead: Its main process is known to have ended, whatever the engine says still.
        stopping: The engine sent its stop signal, and it has not started since.
        drained: Who drained it, in words; None when it is not drained.
        check: Of the endpoint; None when it has none.
    """
    return _ended(container, dead, stopping) or _held(container, drained) or _checked(check) or UP


def exit_words(container: Container) -> str:
    """How the main process ended: ``exit status 137 (SIGKILL), out of memory``."""
    code = container.exit_code
    words = f"exit status {code}"
    if code in _EXIT_WORDS:
        words += f" ({_EXIT_WORDS[code]})"
    elif 128 < code < 128 + 65:
        try:
            words += f" ({Signals(code - 128).name})"
        except ValueError:  # a real-time signal has no name
            words += f" (signal {code - 128})"
    return f"{words}, out of memory" if container.oom_killed else words


def _ended(container: Container, dead: bool, stopping: bool) -> Verdict | None:
    gone = container.status in (Status.EXITED, Status.DEAD, Status.RESTARTING)
    if container.status == Status.REMOVING:
        return _down(Reason.REMOVED, "the engine is removing it")
    if stopping:
        ended = "the engine sent its stop signal"
        if gone:
            ended = f"stopped, {exit_words(container)}"
        elif dead:
            ended = "stopped"
        return _down(Reason.STOPPING, ended)
    if gone:
        clean = container.exit_code == 0 and not container.oom_killed
        words = exit_words(container)
        if container.status == Status.RESTARTING:
            words += ", the engine will start it again"
        return _down(Reason.EXITED if clean else Reason.CRASHED, words)
    if dead:
        return _down(Reason.CRASHED, "its main process ended")
    if container.status == Status.CREATED:
        return _down(Reason.STARTING, "created, not started")
    return None


def _held(container: Container, drained: str | None) -> Verdict | None:
    if container.status == Status.PAUSED:
        return _down(Reason.PAUSED, "paused")
    if drained is not None:
        return _down(Reason.DRAINED, drained or "drained")
    output = f": {container.health_output}" if container.health_output else ""
    if container.health == Healthcheck.STARTING:
        return _down(Reason.STARTING, f"HEALTHCHECK has not succeeded yet{output}")
    if container.health == Healthcheck.UNHEALTHY:
        return _down(Reason.UNHEALTHY, f"HEALTHCHECK fails{output}")
    return None


def _checked(check: CheckState | None) -> Verdict | None:
    if check is None or check.up:
        return None
    reason = Reason.STARTING if check.up is None else Reason.UNHEALTHY
    return _down(reason, f"check: {check.detail}")


def _down(reason: Reason, detail: str) -> Verdict:
    return Verdict(up=False, reason=reason, detail=tame(detail, DETAIL_MAX))
