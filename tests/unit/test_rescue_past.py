"""Which services had a place of late."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from discod.model.rescue import Place
from discod.rescue import past as module
from discod.rescue.past import Past

A, B, C = (Place(ip_address(f"10.0.0.{n}"), 80, "tcp") for n in (1, 2, 3))


def test_another_service_within_the_time() -> None:
    past = Past()
    past.note(A, "web", 100.0)
    assert not past.shared(A, "web", 0.0), "one alone is nobody else"
    assert past.shared(A, "api", 99.0)
    assert not past.shared(A, "api", 100.0), "too long ago"
    assert not past.shared(B, "api", 0.0)
    past.note(A, "web", 50.0)
    assert past.shared(A, "api", 99.0), "what is told late does not count for less"


def test_it_forgets_by_time() -> None:
    past = Past()
    past.note(A, "web", 100.0)
    past.note(A, "api", 200.0)
    past.note(B, "web", 100.0)
    past.forget(150.0)
    assert len(past) == 1
    assert past.shared(A, "web", 0.0) and not past.shared(A, "api", 0.0)


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    past = Past()
    for place in (A, B, A, C):
        past.note(place, "web", 100.0)
    assert past.shared(A, "api", 0.0) and past.shared(C, "api", 0.0)
    assert not past.shared(B, "api", 0.0), "the one that was noted longest ago"
