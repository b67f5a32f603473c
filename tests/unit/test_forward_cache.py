"""The cache of forwarded answers: bounds, order, states."""

from __future__ import annotations

from dataclasses import replace

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.encode import Error
from resolver.forwarding.cache import OCTETS_EACH, OVERHEAD, Cache, State
from resolver.forwarding.reply import Reply, read_reply
from tests.forwarding import read, reply
from tests.resolving import packet

QUERY = packet("www.example")
REPLY = read_reply(reply(dnslib.DNSRecord.parse(QUERY), 1, ttl=30), read(QUERY).question)
WHY = Error(22, "")


def state(cache: Cache, key: bytes, now: float) -> State | None:
    found = cache.look(key, now)
    return found[0] if found else None


def test_the_ages_of_an_entry() -> None:
    cache = Cache(10, 100.0)
    cache.keep(b"a", REPLY, 0.0)
    assert [state(cache, b"a", t) for t in (0, 29.9, 30, 129.9, 130)] == [
        State.FRESH,
        State.FRESH,
        State.OLD,
        State.OLD,
        None,
    ]
    assert state(cache, b"b", 0) is None


def test_a_failed_refresh_leaves_the_old_answer_for_a_while() -> None:
    cache = Cache(10, 100.0)
    cache.keep(b"a", REPLY, 0.0)
    entry = cache.fail(b"a", WHY, 50.0)
    assert entry is not None and entry.said is REPLY
    assert [state(cache, b"a", t) for t in (50, 79, 80, 131)] == [
        State.STALE,
        State.STALE,
        State.OLD,
        None,
    ]
    cache.keep(b"a", REPLY, 90.0)
    assert state(cache, b"a", 90) is State.FRESH


def test_failures_last_longer_when_they_repeat_and_are_forgotten() -> None:
    cache = Cache(10, 100.0)
    now, lasting = 0.0, []
    for _ in range(5):
        assert cache.fail(b"a", WHY, now) is None
        end = now
        while state(cache, b"a", end) is State.FAILED:
            end += 0.5
        lasting.append(end - now)
        now = end
    assert lasting == [1, 2, 4, 5, 5]
    cache.fail(b"a", WHY, now + 100)
    assert state(cache, b"a", now + 100.9) is State.FAILED
    assert state(cache, b"a", now + 101) is None
    cache.keep(b"a", REPLY, now + 102)
    assert state(cache, b"a", now + 102) is State.FRESH


def test_what_has_no_lifetime_takes_away_what_was_kept() -> None:
    cache = Cache(10, 100.0)
    cache.keep(b"a", REPLY, 0.0)
    cache.keep(b"a", replace(REPLY, lifetime=0), 1.0)
    assert state(cache, b"a", 1.0) is None and len(cache) == 0 and cache.octets == 0


def test_outdated_entries_are_old() -> None:
    cache = Cache(10, 100.0)
    cache.keep(b"a", REPLY, 0.0)
    cache.outdate()
    assert state(cache, b"a", 1.0) is State.OLD
    cache.keep(b"a", REPLY, 1.0)
    assert state(cache, b"a", 2.0) is State.FRESH
    cache.fail(b"b", WHY, 2.0)
    cache.outdate()
    assert state(cache, b"b", 2.0) is None


def test_the_one_not_used_for_longest_goes() -> None:
    cache = Cache(3, 100.0)
    for key in (b"a", b"b", b"c"):
        cache.keep(key, REPLY, 0.0)
    cache.look(b"a", 1.0)
    cache.keep(b"d", REPLY, 2.0)
    assert [state(cache, key, 2.0) is not None for key in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
    cache.configure(1, 100.0)
    assert len(cache) == 1 and state(cache, b"d", 2.0) is State.FRESH


def test_octets_are_bounded_too() -> None:
    cache = Cache(100, 100.0)
    large: Reply = replace(REPLY, body=bytes(20_000))
    for n in range(50):
        cache.keep(b"%d" % n, large, 0.0)
        assert cache.octets <= 100 * OCTETS_EACH
    assert len(cache) == 100 * OCTETS_EACH // (20_000 + OVERHEAD + 2)


@pytest.mark.parametrize("stale", [0.0, 10.0])
def test_size_zero_keeps_nothing(stale: float) -> None:
    cache = Cache(0, stale)
    cache.keep(b"a", REPLY, 0.0)
    cache.fail(b"b", WHY, 0.0)
    assert len(cache) == 0 and cache.octets == 0


actions = st.lists(
    st.tuples(
        st.sampled_from(["keep", "fail", "look", "drop", "outdate", "size"]),
        st.integers(0, 9),
        st.floats(0, 40),
    ),
    max_size=60,
)


@given(actions)
def test_the_books_are_right_whatever_happens(steps: list[tuple[str, int, float]]) -> None:
    cache, now, size = Cache(5, 20.0), 0.0, 5
    for act, n, seconds in steps:
        key = b"%d" % n
        match act:
            case "keep":
                cache.keep(key, REPLY, now)
                assert state(cache, key, now) is (State.FRESH if size else None)
            case "fail":
                before = state(cache, key, now)
                old = cache.fail(key, WHY, now)
                assert (old is not None) == (before not in (None, State.FAILED))
            case "look":
                cache.look(key, now)
                now += seconds
            case "drop":
                cache.keep(key, replace(REPLY, lifetime=0), now)
            case "outdate":
                cache.outdate()
            case "size":
                size = n
                cache.configure(n, 20.0)
        assert len(cache) <= size
        assert cache.octets == sum(entry.octets for entry in cache._entries.values())
        assert cache.octets <= size * OCTETS_EACH
