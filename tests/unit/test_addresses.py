"""The look at the host's own addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock

from discod import addresses
from discod.addresses import LOOK, AddressWatch, watch_addresses
from discod.model.endpoint import Address
from discod.model.settings import HostSettings

OLD, NEW, V6 = (ip_address(text) for text in ("192.0.2.1", "192.0.2.9", "2001:db8::1"))
NONE = ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ("OOO", ""),
        ("NN", "N"),
        ("NNNNN", "N"),
        ("N", ""),
        ("NONON", ""),  # never twice in a row
        ("NONN", "N"),
        ("NNOO", "NO"),
        ("LLLL", ""),  # no network: what was there is kept
        ("LLNN", "N"),
        ("LLOO", ""),
        ("66", "6"),  # one family gone for good
    ],
)
def test_a_change_is_told_once_it_lasts(seen: str, told: str) -> None:
    found: dict[str, tuple[Address, ...]] = {
        "O": (OLD, V6), "N": (NEW, V6), "L": (NONE,), "6": (V6,),
    }  # fmt: skip
    looks = iter(seen)
    watch = AddressWatch(found["O"], lambda: found[next(looks)])
    changes = [watch.present for _ in seen if watch.look()]
    assert changes == [found[one] for one in told]


async def test_what_is_configured_is_never_looked_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the lab's test: the address that is written down stays offered."""
    now: Iterator[Address] = iter([NEW] * 100)
    monkeypatch.setattr(addresses, "host_addresses", lambda settings: (next(now),))
    told: list[tuple[Address, ...]] = []
    with trio.move_on_after(LOOK * 10):
        await watch_addresses(HostSettings(addresses=(OLD,)), (OLD,), told.append)
    assert told == []
    with trio.move_on_after(LOOK * 2.5):
        await watch_addresses(HostSettings(), (OLD,), told.append)
    assert told == [(NEW,)]
    assert trio.current_time() == pytest.approx(LOOK * 2.5)
