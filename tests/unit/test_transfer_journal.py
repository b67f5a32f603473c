"""The journal: from which serials there is a way, and that it leads to where the zone is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.transfer import journal
from resolver.transfer.journal import Difference, Journal, newer, serial_of

TOP = 2**32


@pytest.mark.parametrize(
    ("revision", "serial"), [(0, 1), (1, 1), (7, 7), (TOP - 1, TOP - 1), (TOP, 1), (TOP + 9, 9)]
)
def test_the_serial_of_a_revision(revision: int, serial: int) -> None:
    assert serial_of(revision) == serial


@pytest.mark.parametrize(
    ("serial", "than", "expected"),
    [
        (2, 1, True),
        (1, 2, False),
        (1, 1, False),
        (1, TOP - 1, True),  # over the end
        (TOP - 1, 1, False),
        (2**31, 1, True),
        (2**31 + 1, 1, False),  # undefined
        (1, 2**31 + 1, False),
        (2**31 + 2, 1, False),
    ],
)
def test_serial_arithmetic(serial: int, than: int, expected: bool) -> None:
    assert newer(serial, than) is expected


def soa(serial: int) -> bytes:
    return b"SOA%d" % serial


def apply(content: set[bytes], differences: tuple[Difference, ...], at: bytes) -> set[bytes]:
    """As a strict secondary does it."""
    content = set(content)
    for difference in differences:
        assert difference.old_soa == at
        assert set(difference.removed) <= content
        content -= set(difference.removed)
        assert not content & set(difference.added)
        content |= set(difference.added)
        at = difference.soa
    return content


def test_changes_are_condensed() -> None:
    kept = Journal(10)
    kept.reset(1, soa(1))
    kept.append(2, soa(2), [], [b"a"], 1000)
    kept.append(4, soa(4), [b"a", b"x"], [b"b"], 1000)
    kept.append(5, soa(5), [], [b"x"], 1000)
    assert kept.since(1) == (Difference(soa(1), {}.keys(), soa(5), {b"b": 0}.keys()),)
    assert kept.since(4) == (Difference(soa(4), {}.keys(), soa(5), {b"x": 0}.keys()),)
    assert kept.since(5) == ()


@pytest.mark.parametrize("serial", [0, 3, 6, TOP - 1])
def test_of_serials_that_were_not_published_nothing_is_assumed(serial: int) -> None:
    kept = Journal(10)
    kept.reset(1, soa(1))
    kept.append(2, soa(2), [], [b"a"], 1000)
    kept.append(4, soa(4), [], [b"b"], 1000)
    kept.append(5, soa(5), [], [b"c"], 1000)
    assert kept.since(serial) is None


def test_a_journal_of_nothing() -> None:
    kept = Journal(0)
    assert kept.since(1) is None
    kept.reset(1, soa(1))
    assert kept.since(1) == () and len(kept) == 0
    kept.append(2, soa(2), [], [b"a"], 1000)
    assert kept.since(1) is None and kept.since(2) == ()


def test_the_oldest_go_first_beyond_the_number() -> None:
    kept = Journal(3)
    kept.reset(1, soa(1))
    for serial in range(2, 10):
        kept.append(serial, soa(serial), [], [b"r%d" % serial], 10**6)
    assert len(kept) == 3
    assert [kept.since(s) is not None for s in range(1, 10)] == [False] * 5 + [True] * 4
    assert kept.since(6) == (
        Difference(soa(6), {}.keys(), soa(9), {b"r7": 0, b"r8": 0, b"r9": 0}.keys()),
    )


def test_the_oldest_go_first_beyond_the_octets() -> None:
    kept = Journal(1000)
    kept.reset(1, soa(1))
    for serial in range(2, 10):
        kept.append(serial, soa(serial), [b"x" * 50], [b"%050d" % serial], 250)
    assert [s for s in range(1, 10) if kept.since(s) is not None] == [7, 8, 9]
    kept.append(10, soa(10), [], [b"y" * 1000], 250)
    assert [s for s in range(1, 11) if kept.since(s) is not None] == [10]


def test_very_many_are_sent_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CONDENSE_MAX", 3)
    kept = Journal(10)
    kept.reset(1, soa(1))
    kept.append(2, soa(2), [], [b"a", b"b"], 1000)
    kept.append(3, soa(3), [b"a"], [b"c"], 1000)
    found = kept.since(1)
    assert found == (
        Difference(soa(1), (), soa(2), (b"a", b"b")),
        Difference(soa(2), (b"a",), soa(3), (b"c",)),
    )
    assert apply(set(), found, soa(1)) == {b"b", b"c"}


CONTENTS = st.lists(st.frozensets(st.sampled_from([b"a", b"b", b"c", b"d"])), min_size=1)


@settings(deadline=None)
@given(
    contents=CONTENTS, step=st.integers(1, 2**31 - 1), limit=st.integers(0, 12), few=st.booleans()
)
def test_every_way_leads_to_the_present(
    contents: list[frozenset[bytes]], step: int, limit: int, few: bool
) -> None:
    kept = Journal(limit)
    before = journal.CONDENSE_MAX
    journal.CONDENSE_MAX = 2 if few else before
    try:
        serials = [(1 + step * i) % TOP for i in range(len(contents))]
        kept.reset(serials[0], soa(serials[0]))
        for i in range(1, len(contents)):
            old, new = contents[i - 1], contents[i]
            kept.append(serials[i], soa(serials[i]), old - new, new - old, 10**6)
        ways = 0
        for serial, content in zip(serials, contents, strict=True):
            way = kept.since(serial)
            if way is not None:
                ways += 1
                assert apply(set(content), way, soa(serial)) == contents[-1]
        assert ways == min(limit + 1, len(contents))
    finally:
        journal.CONDENSE_MAX = before
