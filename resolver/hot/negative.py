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
from resolver.hot.slots import kind
from resolver.record import AXFR, IXFR, NXDOMAIN, OPT, TKEY, TSIG

_HEADER: Final = 12
_ANYBODY: Final = b"\xff\xff"
"""Size that a client offers, in the question that is learned from: the largest."""

ONE_LABEL_KINDS: Final = 256
"""Kinds of query (flags, type, size offered) for which there is the short way; about twenty are
usual."""

NO_DATA: Final = frozenset({OPT, TKEY, TSIG, IXFR, AXFR})
"""Types that are no question for data: what they get does not depend on the name."""

_POINTERS = [(0xC000 | _HEADER + at).to_bytes(2, "big") for at in range(LABEL_MAX + 2)]
"""To where the domain begins behind one label, by the octets that this takes."""
_UNDERSCORE = ord("_")
_Parts = tuple[bytes, bytes, bytes]
"""Flags and counts; what follows the SOA's owner, up to the serial; the rest."""


class Negative:
    """The parts of such answers, by kind of query and rcode.

    Args:
        ask: The responder: packet and client's packed address to outcome; None when it has no
            answer of our domain.
        apex: The domain in wire form.
    """

    def __init__(self, ask: Callable[[bytes, bytes], Outcome | None], apex: bytes) -> None:
        self._ask = ask
        self._apex_octets = len(apex)
        self._one_label: dict[bytes, tuple[bytes, bytes, bytes, int, int]] = {}
        self._parts: dict[tuple[tuple[bytes, int], int], _Parts] = {}
        self.serial = b"\0\0\0\0"
        """Of the SOA."""

    def clear(self) -> None:
        """Forget: what the SOA says beside its serial, or the settings, are others."""
        self._parts.clear()
        self._one_label.clear()

    def body(self, question: Question, client: bytes, rcode: int) -> bytes | None:
        """The response without its id; None when it has to be made in another way.

        Args:
            question: What is known not to exist.
            client: Who asks, packed address.
            rcode: NXDOMAIN, or NOERROR when it is the type alone.
        """
        key = question.shape, rcode
        below = len(question.name) - self._apex_octets
        pointer = (0xC000 | _HEADER + below).to_bytes(2, "big")
        parts = self._parts.get(key)
        if parts is None:
            # What cannot be learnt from (a name too long for the answer) is not remembered: the
            # next question of its kind may do.
            parts = self._learn(question, client, pointer, rcode)
            if parts is None:
                return None
            self._parts[key] = parts
        head, before, after = parts
        body = b"".join((head, question.question, pointer, before, self.serial, after))
        if len(body) + 2 > question.limit:
            return None
        if (
            rcode == NXDOMAIN
            and not question.cookie
            and question.type not in NO_DATA
            and len(self._one_label) < ONE_LABEL_KINDS
        ):
            norm = question.norm
            # Octets that one label may take.
            room = min(question.limit - len(body) - 2 + below, LABEL_MAX + 1)
            slot = kind(question.type, NXDOMAIN, False)
            self._one_label[norm[:HEAD] + norm[HEAD + below :]] = *parts, room, slot
        return body

    def one_label(
        self, key: bytes, labels: Container[bytes], subtrees: Container[bytes]
    ) -> Found | None:
        """NXDOMAIN for ``<label>.<domain>`` by a few steps: floods of random names do come.

        None when it has to be found out in the usual way.

        Args:
            key: The packet without its id.
            labels: Those that exist.
            subtrees: Others that may.
        """
        if len(key) <= HEAD + 1:
            return None
        length = key[HEAD] + 1
        at = HEAD + length
        # Flags, counts, and all that follows the label: the domain, type, class and an OPT record.
        known = self._one_label.get(key[:HEAD] + key[at:])
        if known is None:
            return None
        head, before, after, room, slot = known
        if not 1 < length <= room or key[HEAD + 1] == _UNDERSCORE:
            return None
        label = key[HEAD + 1 : at].lower()
        if label in labels or label in subtrees:
            return None
        question = key[HEAD : at + self._apex_octets + 4]
        body = b"".join((head, question, _POINTERS[length], before, self.serial, after))
        return 0, len(body), slot, body

    def _learn(
        self, question: Question, client: bytes, pointer: bytes, rcode: int
    ) -> _Parts | None:
        norm = question.norm
        end = HEAD + len(question.question)
        tail = norm[end:]
        if tail:
            tail = tail[:3] + _ANYBODY + tail[5:]
        outcome = self._ask(b"\0\0" + norm[:end] + tail, client)
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
