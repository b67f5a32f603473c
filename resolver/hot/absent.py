"""Answers to names that do not exist, put together without asking the responder.

Rule: the answer to a name below no service is that to any other such name, but for the name itself
and for the pointer from the SOA's owner to where the domain begins in it. So one answer of the
responder's for each kind of query serves them all, until the zone changes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from resolver.answer import Outcome
from resolver.hot.question import HEAD, OPT_SIZE, Question
from resolver.record import NXDOMAIN

_NOBODY: Final = b"\1-"
"""A label that no service can have (its name is letters, digits and inner hyphens)."""
_SAMPLE_END: Final = 12
"""Where our domain begins behind a header."""
_QUESTION_TAIL = b"\0\1\0\1"
_DO = 0x80


class Absent:
    """The parts of such answers, by kind of query (flags; EDNS or not; DO).

    Args:
        ask: The responder: packet to outcome; None when it has no answer of our domain.
        apex: The domain in wire form.
    """

    def __init__(self, ask: Callable[[bytes], Outcome | None], apex: bytes) -> None:
        self._ask = ask
        self._apex = apex
        self._parts: dict[tuple[bytes, int], tuple[bytes, bytes] | None] = {}

    def clear(self) -> None:
        """Forget: the zone's SOA, or the settings, are others."""
        self._parts.clear()

    def body(self, question: Question, below: int) -> bytes | None:
        """The response without its id; None when it has to be made in another way.

        Args:
            question: A name that does not exist.
            below: Octets of the labels below the domain.
        """
        norm = question.norm
        tail = norm[HEAD + len(question.question) :]
        kind = norm[:HEAD], (tail[7] & _DO) if tail else -1
        if kind in self._parts:
            parts = self._parts[kind]
        else:
            parts = self._parts[kind] = self._sample(norm[:HEAD], tail)
        if parts is None:
            return None
        pointer = (0xC000 | _SAMPLE_END + below).to_bytes(2, "big")
        body = b"".join((parts[0], question.question, pointer, parts[1]))
        return body if len(body) + 2 <= question.limit else None

    def _sample(self, head: bytes, tail: bytes) -> tuple[bytes, bytes] | None:
        """Flags and counts, and what follows the SOA's owner."""
        question = _NOBODY + self._apex + _QUESTION_TAIL
        if tail:
            tail = tail[:3] + b"\xff\xff" + tail[5:]
            assert len(tail) == OPT_SIZE
        outcome = self._ask(b"\0\0" + head + question + tail)
        if outcome is None or outcome.packet is None or outcome.rcode != NXDOMAIN:
            return None
        packet = outcome.packet
        after = _SAMPLE_END + len(question)
        pointer = (0xC000 | _SAMPLE_END + len(_NOBODY)).to_bytes(2, "big")
        if outcome.truncated or packet[after : after + 2] != pointer:
            return None
        return packet[2:_SAMPLE_END], packet[after + 2 :]
