"""An end travels without the store, and only because of the hints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.daemon import until
from tests.lab.rig import Lab, offer

pytestmark = pytest.mark.lab

WITHOUT_STORE = 2.5
"""Seconds that etcd stands still: less than the lease (3 s) and than a call's deadline."""


@contextmanager
def frozen(lab: Lab) -> Iterator[None]:
    """All members of etcd stand still: nothing can be agreed on."""
    assert lab.etcd is not None
    for member in lab.etcd.members:
        member.freeze()
    try:
        yield
    finally:
        for member in lab.etcd.members:
            member.thaw()


def test_an_end_reaches_every_host_while_etcd_stands_still(three: Lab) -> None:
    a, b, c = three.hosts
    stays = b.engine.box("stays", offer("web"))
    dies = a.engine.box("dies", offer("web"))
    three.everywhere("web", [stays.ipv4, stays.ipv6, dies.ipv4, dies.ipv6])
    with frozen(three):
        a.engine.crash(dies)
        three.everywhere("web", [stays.ipv4, stays.ipv6], deadline=WITHOUT_STORE)
        answer = c.discod.api("/v1/explain?q=dies")
        assert not answer["in_dns"]
        assert answer["findings"][0]["reason"] == "crashed"
    three.everywhere("web", [stays.ipv4, stays.ipv6])
    until(lambda: "/withdrawn/a/web/" in three.etcdctl("get", "--prefix", "--keys-only", "/discod"))
    three.everywhere("web", [stays.ipv4, stays.ipv6])
    again = a.engine.again(dies)
    three.everywhere("web", [stays.ipv4, stays.ipv6, again.ipv4, again.ipv6])


def test_without_hints_the_others_wait_for_etcd() -> None:
    """The negative control: the same with hints off has to show the dead address."""
    with Lab(2, config={"announce": {"hint_port": 0}}) as lab:
        a, b = lab.hosts
        dies = a.engine.box("dies", offer("web"))
        lab.everywhere("web", [dies.ipv4, dies.ipv6])
        with frozen(lab):
            a.engine.crash(dies)
            lab.everywhere("web", [], hosts=[a])
            end = time.monotonic() + WITHOUT_STORE / 2
            until(lambda: time.monotonic() > end, step=0.2)
            assert b.addresses("web") == sorted([dies.ipv4, dies.ipv6])
        lab.everywhere("web", [])
