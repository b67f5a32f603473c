"""Places whose last answers may still be on their way."""

from __future__ import annotations

import math
from ipaddress import ip_address

from discod.model.rescue import Place
from discod.rescue.late import LATE, Late

UDP = Place(ip_address("10.0.0.1"), 53, "udp")
OTHER = Place(ip_address("10.0.0.2"), 53, "udp")
TCP = Place(ip_address("10.0.0.1"), 53, "tcp")


def test_none_before_they_are_due_and_all_of_them_once() -> None:
    late = Late()
    assert late.due == math.inf
    late.add([UDP, TCP], 10.0)
    late.add([OTHER], 10.0 + LATE / 2)  # the first waits no longer for it
    assert late.due == 10.0 + LATE
    assert not late.take(10.0 + LATE / 2)
    assert late.take(10.0 + LATE) == {UDP, OTHER}
    assert late.due == math.inf
    assert not late.take(20.0)


def test_who_is_in_use_again_is_left_alone() -> None:
    late = Late()
    late.add([UDP, OTHER], 10.0)
    late.leave([UDP, TCP])
    assert late.take(11.0) == {OTHER}


def test_tcp_alone_is_nothing_to_wait_for() -> None:
    late = Late()
    late.add([TCP], 10.0)
    assert late.due == math.inf
