"""An end travels without the store, and only because of the hints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.daemon import until
from tests.lab.rig import ETCD_PORT, Lab, offer

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


CALL = 6.0
"""Seconds after which a call of the store is given up."""


@contextmanager
def unheard(hints: bool) -> Iterator[tuple[Lab, list[str]]]:
    """Two hosts, and a container of `b` that has just crashed, with its addresses. `b` writes to
    etcd and hears nothing from it: its record is there, and nobody has told `b`."""
    store = {"endpoints": [f"http://192.0.2.1:{ETCD_PORT}"], "timeout": f"{CALL:g}s"}
    announce = {} if hints else {"hint_port": 0}
    with Lab(2, lease_ttl=20, config={"store": store, "announce": announce}) as lab:
        a, b = lab.hosts
        for host in lab.hosts:  # each has read the other's record: whom to tell, whom to believe
            until(lambda h=host: h.discod.api("/v1/catalog")["counts"]["hosts"] == 2)  # type: ignore[misc]
        settled = b.engine.box("settled", offer("other"))  # no write of b's is under way any more
        lab.everywhere("other", [settled.ipv4, settled.ipv6])
        b.leg.drop(peer=a.leg, sent=False, ports=(ETCD_PORT,))
        box = b.engine.box("unheard", offer("web"))
        lab.everywhere("web", [box.ipv4, box.ipv6], hosts=[a])
        b.engine.crash(box)
        yield lab, sorted([box.ipv4, box.ipv6])
        b.heal()
        until(lambda: "/web/" not in lab.etcdctl("get", "--prefix", "--keys-only", "/skydns"))
        lab.everywhere("web", [])


def test_an_end_is_told_of_what_its_host_does_not_know_to_be_stored() -> None:
    """Who is cut off while it writes cannot tell what became of it; the others may have it."""
    with unheard(hints=True) as (lab, _):
        lab.everywhere("web", [], deadline=CALL / 2)
        assert "/web/" in lab.etcdctl("get", "--prefix", "--keys-only", "/skydns")


def test_without_hints_nobody_learns_of_it() -> None:
    """The negative control of the test before."""
    with unheard(hints=False) as (lab, addresses):
        lab.everywhere("web", [], hosts=[lab["b"]])
        end = time.monotonic() + CALL / 3
        until(lambda: time.monotonic() > end, step=0.2)
        assert lab["a"].addresses("web") == addresses


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
