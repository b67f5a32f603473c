"""When a worker is taken for frozen, on a clock of our own."""

from __future__ import annotations

import pytest

from resolver.hot.pulse import ASLEEP, LOOK, PATIENCE, SILENT, STARTING, STOPPED, Pulse


def judged(
    state: str, *, serving: bool = True, look: float = LOOK, until: float = 30.0
) -> dict[str, float]:
    """Verdict -> seconds of silence at which it first came, looking every `look` seconds."""
    pulse = Pulse(0.0)
    assert pulse.look(0.0, lambda: 1, serving, lambda: state) == "well"
    first: dict[str, float] = {}
    now = 0.0
    while now < until:
        now += look
        first.setdefault(pulse.look(now, lambda: 1, serving, lambda: state), now)
    return first


@pytest.mark.parametrize(
    ("state", "serving", "starved", "frozen"),
    [
        ("T", True, None, STOPPED),
        ("t", True, None, STOPPED),
        ("D", True, SILENT, STOPPED + LOOK + ASLEEP),
        ("S", True, SILENT, STOPPED + LOOK + ASLEEP),
        ("Z", True, SILENT, STOPPED + LOOK + ASLEEP),
        ("R", True, SILENT, PATIENCE),
        ("T", False, None, STOPPED),
        ("S", False, None, STARTING),
        ("R", False, None, STARTING),
    ],
)
def test_silence(state: str, serving: bool, starved: float | None, frozen: float) -> None:
    first = judged(state, serving=serving)
    assert first["frozen"] == pytest.approx(frozen, abs=LOOK)
    if starved is None:
        assert "starved" not in first
    else:
        assert first["starved"] == pytest.approx(starved, abs=LOOK)


def test_a_stopped_worker_is_seen_within_half_a_second() -> None:
    """Its last beat may be a quarter of a second old when it stops."""
    assert judged("T")["frozen"] < 0.5


@pytest.mark.parametrize("state", ["S", "D"])
def test_a_stuck_worker_is_seen_within_a_second(state: str) -> None:
    assert judged(state)["frozen"] < 0.9


def test_a_worker_that_sleeps_after_a_long_turn_is_not_frozen() -> None:
    """Its heart beats when it wakes up, a quarter of a second later."""
    for look in (LOOK, LOOK / 10):
        pulse = Pulse(0.0)
        turn, now = 4.0, 0.0
        while now < turn + 0.25:
            now += look
            how = "R" if now < turn else "S"
            verdict = pulse.look(now, lambda: 1, True, lambda how=how: how)  # type: ignore[misc]
            assert verdict != "frozen"
        assert pulse.look(now + look, lambda: 2, True, lambda: "S") == "well"


def test_a_beat_ends_the_silence() -> None:
    pulse = Pulse(0.0)
    now, beats = 0.0, 0
    for i in range(1000):
        now += LOOK
        beats += i % 3 == 0
        assert pulse.look(now, lambda n=beats: n, True, lambda: "S") == "well"  # type: ignore[misc]


def test_a_beat_while_the_state_is_asked_for_acquits() -> None:
    pulse = Pulse(0.0)
    beats = [1]

    def state() -> str:
        beats.append(beats[-1] + 1)
        return "S"

    for i in range(1, 100):
        assert pulse.look(i * LOOK, lambda: beats[-1], True, state) == "well"
    assert len(beats) > 10


def test_the_time_in_which_we_did_not_look_accuses_nobody() -> None:
    pulse = Pulse(0.0)
    pulse.look(0.0, lambda: 1, True, lambda: "S")
    assert pulse.look(3600.0, lambda: 1, True, lambda: "S") == "well"
    assert pulse.silence == 2 * LOOK


def test_the_state_is_asked_for_in_silence_only() -> None:
    def state() -> str:
        raise AssertionError("it is well")

    pulse = Pulse(0.0)
    for i in range(1, 100):
        assert pulse.look(i * LOOK, lambda i=i: i, True, state) == "well"  # type: ignore[misc]
