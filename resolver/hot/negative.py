"""Answers to what does not exist, put together without asking the responder.

Rule: the answer to a name that does not exist, or has not the type, is that to any other such
question, but for the question itself, for the pointer from the SOA's owner to where the domain
begins in it, and for the serial. So one answer of the responder's for each kind of query serves
them all, until the settings or the name servers change. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from resolver.answer import Outcome
from resolver.hot.entry import Found
from resolver.hot.question import HEAD, LABEL_MAX, Question
from resolver.hot.slots import TYPES, kind
from resolver.record import AXFR, IXFR, NXDOMAIN, OPT, TKEY, TSIG

_HEADER: Final = 12
_ANYBODY: Final = b"\xff\xff"
"""Size that a client offers, in the question that is learned from: the largest."""

ONE_LABEL_KINDS: Final = 64
"""Kinds of query (flags, size offered) for which there is the short way; there are about six."""

NO_DATA: Final = frozenset({OPT, TKEY, TSIG, IXFR, AXFR})
"""Types that are no question for data: what they get does not depend on the name."""

_NO_DATA = frozenset(type_.to_bytes(2, "big") for type_ in NO_DATA)
_KINDS = {type_.to_bytes(2, "big"): kind(type_, NXDOMAIN, False) for type_ in TYPES}
_OTHER = kind(-1, NXDOMAIN, False)
_Parts = tuple[bytes, bytes, bytes]
"""Flags and counts; what follows the SOA's owner, up to the serial; the rest."""


class Negative:
    """The parts of such answers, by kind of query and rcode.

    Args:
        ask: The responder: packet to outcome; None when it has no answer of our domain.
        apex: The domain in wire form.
    """

    def __init__(self, ask: Callable[[bytes], Outcome | None], apex: bytes) -> None:
        self._ask = ask
        self._apex = apex
        self._one_label: dict[bytes, tuple[_Parts, int]] = {}
        self._parts: dict[tuple[tuple[bytes, int], int], _Parts] = {}
        self.serial = b"\0\0\0\0"
        """Of the SOA."""

    def clear(self) -> None:
        """Forget: what the SOA says beside its serial, or the settings, are others."""
        self._parts.clear()
        self._one_label.clear()

    def body(self, question: Question, below: int, rcode: int) -> bytes | None:
        """The response without its id; None when it has to be made in another way.

        Args:
            question: What is known not to exist.
            below: Octets of the labels below the domain.
            rcode: NXDOMAIN, or NOERROR when it is the type alone.
        """
        key = question.shape, rcode
        pointer = (0xC000 | _HEADER + below).to_bytes(2, "big")
        parts = self._parts.get(key)
        if parts is None:
            # What cannot be learnt from (a name too long for the answer) is not remembered: the
            # next question of its kind may do.
            parts = self._learn(question, pointer, rcode)
            if parts is None:
                return None
            self._parts[key] = parts
        head, before, after = parts
        body = b"".join((head, question.question, pointer, before, self.serial, after))
        if len(body) + 2 > question.limit:
            return None
        if rcode == NXDOMAIN and not question.cookie and len(self._one_label) < ONE_LABEL_KINDS:
            end = HEAD + len(question.question)
            self._one_label[question.norm[:HEAD] + question.norm[end:]] = parts, question.limit
        return body

    def one_label(self, key: bytes, *taken: Container[bytes]) -> Found | None:
        """NXDOMAIN for ``<label>.<domain>`` by a few steps: floods of random names do come.

        None when it has to be found out in the usual way.

        Args:
            key: The packet without its id.
            taken: Labels that exist, or may.
        """
        if len(key) == HEAD:
            return None
        at = HEAD + 1 + key[HEAD]
        end = at + len(self._apex) + 4
        if key[at : end - 4] != self._apex or key[end - 2 : end] != b"\0\1":
            return None
        known = self._one_label.get(key[:HEAD] + key[end:])
        label = key[HEAD + 1 : at].lower()
        type_ = key[end - 4 : end - 2]
        if known is None or label[:1] == b"_" or len(label) > LABEL_MAX or type_ in _NO_DATA:
            return None
        for labels in taken:
            if label in labels:
                return None
        (head, before, after), limit = known
        pointer = (0xC000 | _HEADER + at - HEAD).to_bytes(2, "big")
        body = b"".join((head, key[HEAD:end], pointer, before, self.serial, after))
        if len(body) + 2 > limit:
            return None
        return 0, len(body), _KINDS.get(type_, _OTHER), body

    def _learn(self, question: Question, pointer: bytes, rcode: int) -> _Parts | None:
        norm = question.norm
        end = HEAD + len(question.question)
        tail = norm[end:]
        if tail:
            tail = tail[:3] + _ANYBODY + tail[5:]
        outcome = self._ask(b"\0\0" + norm[:end] + tail)
        if outcome is None or outcome.packet is None or outcome.rcode != rcode:
            return None
        body = outcome.packet[2:]
        if outcome.truncated or body[4:6] != b"\0\0" or body[end : end + 2] != pointer:
            return None
        # Behind the owner: type, class and TTL (8), length (2), then what ends with the serial and
        # four numbers more.
        data = end + 2 + 10
        serial = data + int.from_bytes(body[data - 2 : data], "big") - 20
        return body[:HEAD], body[end + 2 : serial], body[serial + 4 :]


def serial_at(norm: bytes, body: bytes) -> int:
    """Where the serial stands in NODATA: its SOA comes right behind the question.

    The owner is a pointer into the question (2 octets); type, class, TTL and length take 10 more.
    """
    end = norm.index(b"\0", HEAD) + 5 + 12
    length = int.from_bytes(body[end - 2 : end], "big")
    return end + length - 20
