"""Places whose last answers may still be on their way."""

from __future__ import annotations

import math
from ipaddress import ip_address

import pytest

from discod.model.rescue import Place
from discod.rescue.late import LATE, Late

UDP = Place(ip_address("10.0.0.1"), 53, "udp")
OTHER = Place(ip_address("10.0.0.2"), 53, "udp")
TCP = Place(ip_address("10.0.0.1"), 53, "tcp")


def test_none_before_it_is_due_and_each_as_often_as_it_may_still_answer() -> None:
    late = Late()
    assert late.due == math.inf
    late.add([UDP, TCP], 10.0)
    for after in LATE:
        assert late.due == 10.0 + after
        assert not late.take(10.0 + after - 0.01)
        assert late.take(10.0 + after) == {UDP}
    assert late.due == math.inf
    assert not late.take(100.0)


def test_each_has_its_own_time() -> None:
    late = Late()
    late.add([UDP], 10.0)
    late.add([OTHER], 10.0 + LATE[0] / 2)  # the first waits no longer for it
    assert late.take(10.0 + LATE[0]) == {UDP}
    assert late.due == pytest.approx(10.0 + LATE[0] * 1.5)
    assert late.take(late.due) == {OTHER}


def test_who_looks_late_looks_once() -> None:
    late = Late()
    late.add([UDP], 10.0)
    assert late.take(10.0 + LATE[3]) == {UDP}
    assert late.due == 10.0 + LATE[4]
    assert late.take(1000.0) == {UDP}
    assert late.due == math.inf


def test_who_ends_once_more_begins_anew() -> None:
    late = Late()
    late.add([UDP], 10.0)
    late.take(10.0 + LATE[5])
    late.add([UDP], 20.0)
    assert late.due == 20.0 + LATE[0]


def test_who_is_in_use_again_is_left_alone() -> None:
    late = Late()
    late.add([UDP, OTHER], 10.0)
    late.leave([UDP, TCP])
    assert late.take(11.0) == {OTHER}
    late.leave([OTHER])
    assert late.due == math.inf


def test_tcp_alone_is_nothing_to_wait_for() -> None:
    late = Late()
    late.add([TCP], 10.0)
    assert late.due == math.inf
