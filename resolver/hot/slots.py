"""What a worker tells of itself: a row of counters, and what each slot of it means.

Rule: only the worker writes; the daemon reads whenever it likes. Each slot is one aligned 64-bit
word, so no read sees half a value. Counters are never reset: the daemon adds up differences. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from discod.metrics_buckets import FAST
from resolver.record import (
    AAAA,
    ANY,
    CNAME,
    HINFO,
    HTTPS,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    SOA,
    SRV,
    SVCB,
    TXT,
    A,
)

TYPES: Final = (A, AAAA, SRV, TXT, PTR, SOA, NS, CNAME, HINFO, SVCB, HTTPS, ANY, 15, 43, 48, 257)
"""Types counted by themselves; the slot after them is for all others."""
RCODES: Final = (NOERROR, NXDOMAIN, SERVFAIL)
"""Counted by themselves; the column after them is for all others."""

HEARTBEAT: Final = 0
"""Monotonic clock in nanoseconds, written at each turn of the loop, at least every `IDLE`."""
STATE: Final = 1
LOADING, SERVING = 0, 1
APPLIED: Final = 2
"""Number of the last frame of changes that answers take into account."""
QUERIES: Final = 3
"""Datagrams received."""
DELEGATED: Final = 4
"""Handed to the daemon."""
OVERFLOW: Final = 5
"""Not handed over, as the daemon does not keep up: dropped."""
SILENT_PACKETS: Final = 6
"""Not to be answered: responses, and what is shorter than a header."""
RATE_DROPPED: Final = 7
RATE_SLIPPED: Final = 8
COOKIES_VALID: Final = 9
COOKIES_NEW: Final = 10
COOKIES_BAD: Final = 11
SEND_FAILED: Final = 12
"""Responses that the kernel did not take."""
MEMO: Final = 13
"""Answers remembered at the moment."""
SLOW: Final = 14
"""Queries that took the long way through the strict parser."""
SECONDS: Final = 15
"""Sum of the time between a batch's arrival and its answers, nanoseconds times queries."""
BUCKETS: Final = 16
"""Queries by that time: one slot for each bound of `FAST`, and one for longer."""
KINDS: Final = BUCKETS + len(FAST) + 1
"""From here on answered queries by `kind`."""

_TYPE_INDEX = {type_: i for i, type_ in enumerate(TYPES)}
_OTHER_TYPE = len(TYPES)
_OTHER_RCODE = len(RCODES)
_PER_TYPE = (len(RCODES) + 1) * 2
KIND_COUNT: Final = (len(TYPES) + 1) * _PER_TYPE
SLOTS: Final = KINDS + KIND_COUNT
"""At most 256: a worker keeps kinds as octets."""
IDLE: Final = 0.25
"""Seconds between two signs of life of a worker that has nothing to do."""

_BOUNDS = tuple(int(bound * 1e9) for bound in FAST)


def kind(type_: int, rcode: int, truncated: bool) -> int:
    """The slot, from `KINDS` on, of an answer."""
    row = _TYPE_INDEX.get(type_, _OTHER_TYPE) * _PER_TYPE
    column = RCODES.index(rcode) if rcode in RCODES else _OTHER_RCODE
    return KINDS + row + 2 * column + (1 if truncated else 0)


def kind_meaning(slot: int) -> tuple[int, int, bool]:
    """(type, rcode, truncated) of a slot; -1 stands for *other*."""
    row, rest = divmod(slot - KINDS, _PER_TYPE)
    column, truncated = divmod(rest, 2)
    type_ = TYPES[row] if row < _OTHER_TYPE else -1
    rcode = RCODES[column] if column < _OTHER_RCODE else -1
    return type_, rcode, bool(truncated)


def bucket(nanoseconds: int) -> int:
    """The slot of a duration."""
    return BUCKETS + bisect_left(_BOUNDS, nanoseconds)
