"""How a question that comes back to its sender is noticed.

Rule: a question that discod sends to an upstream in private address space carries the ids of the
discods that it came through; whoever finds its own id there, or too many, refuses. What strips
the mark is noticed otherwise: by the random case of the very question that was sent, or since the
upstream that is being asked asks the same. What escapes even that waits for itself, once, until the
time limit: one and the same question is never asked twice at a time. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from resolver.forwarding.case import letters, lowered

OPTION: Final = 65313
"""EDNS option code, of those for local use (RFC 6891, section 9): 65001 to 65534."""
ID_OCTETS: Final = 8
HOPS_MAX: Final = 8
"""Discods that a question may come through; a sensible set-up has two."""
LETTERS_MIN: Final = 12
"""Random letters from which on a question in the same case is no accident (1 in 4,096)."""


def trail(options: Iterable[tuple[int, bytes]]) -> bytes:
    """The ids of the discods that a query came through, one after another; mostly empty."""
    for code, data in options:
        if code == OPTION and len(data) % ID_OCTETS == 0:
            return data
    return b""


def closes(passed: bytes, own: bytes) -> bool:
    """Whether a query with this trail has been here before, or has come too far."""
    if not passed:
        return False
    ids = [passed[at : at + ID_OCTETS] for at in range(0, len(passed), ID_OCTETS)]
    return own in ids or len(ids) >= HOPS_MAX


def is_echo(question: bytes, sent: Collection[bytes]) -> bool:
    """Whether a question is, letter by letter, one that was sent in random case."""
    return question in sent and letters(question) >= LETTERS_MIN and question != lowered(question)
