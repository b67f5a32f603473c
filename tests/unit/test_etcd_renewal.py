"""Which members are asked to renew a lease, and when: on members that are no etcd."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from discod.store import etcd_proto
from discod.store.base import LeaseNotFound, StoreError, StoreUnavailable
from discod.store.etcd import HEAD_START, EtcdStore
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_member import Member

TIMEOUT = 3.0
PATIENCE = HEAD_START * TIMEOUT


@dataclass
class Fake:
    """A member that answers after `wait` seconds, if the deadline is not before that."""

    url: str
    wait: float = 0.0
    failure: RpcFailure | None = None
    ttl: int = 10
    calls: list[float] = field(default_factory=list)
    """When it was asked."""

    async def call(self, name: str, request: Any, timeout: float) -> Any:
        assert name == "Lease/LeaseKeepAlive" and request.ID == 7
        self.calls.append(trio.current_time())
        await trio.sleep(min(self.wait, timeout))
        if self.wait > timeout:
            raise RpcFailure("DEADLINE_EXCEEDED", "Deadline Exceeded")
        if self.failure:
            raise self.failure
        return SimpleNamespace(TTL=self.ttl)


def store_of(*members: Fake) -> EtcdStore:
    return EtcdStore(cast("list[Member]", members), etcd_proto.load(), TIMEOUT)


async def took(store: EtcdStore) -> float:
    begun = trio.current_time()
    assert await store.renew(7) == 10
    return trio.current_time() - begun


async def test_a_member_that_answers_is_the_only_one_asked(autojump_clock: object) -> None:
    a, b = Fake("a", wait=PATIENCE * 0.9), Fake("b")
    assert await took(store_of(a, b)) == pytest.approx(PATIENCE * 0.9)
    assert not b.calls


async def test_one_that_is_silent_is_not_waited_for(autojump_clock: object) -> None:
    a, b, c = Fake("a", wait=60), Fake("b", wait=60), Fake("c")
    store = store_of(a, b, c)
    assert await took(store) == pytest.approx(2 * PATIENCE)
    assert await took(store) == 0, "and the next goes to who has answered"
    assert [len(m.calls) for m in (a, b, c)] == [1, 1, 2]


async def test_one_that_fails_is_not_waited_for_at_all(autojump_clock: object) -> None:
    a, b = Fake("a", failure=RpcFailure("UNAVAILABLE", "no leader")), Fake("b")
    assert await took(store_of(a, b)) == 0


async def test_the_slow_may_still_win(autojump_clock: object) -> None:
    a, b = Fake("a", wait=TIMEOUT * 0.9), Fake("b", wait=60)
    assert await took(store_of(a, b)) == pytest.approx(TIMEOUT * 0.9)


@pytest.mark.parametrize(
    ("one", "raised", "after"),
    [
        (Fake("a", ttl=0), LeaseNotFound, 0.0),
        (Fake("a", failure=RpcFailure("NOT_FOUND", "lease not found")), LeaseNotFound, 0.0),
        (Fake("a", wait=60), StoreUnavailable, TIMEOUT),
    ],
)
async def test_no_answer_within_the_deadline(
    autojump_clock: object, one: Fake, raised: type[StoreError], after: float
) -> None:
    begun = trio.current_time()
    with pytest.raises(raised, match="a: "):
        await store_of(one, Fake("b", wait=60)).renew(7)
    assert trio.current_time() - begun == pytest.approx(after)
