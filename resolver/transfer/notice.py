"""What one secondary is to be told, and when (RFC 1996).

Rule: it is told of the newest serial only, at once after a quiet time and else at most every `GAP`
seconds, again and again with growing pauses until it answers. Section 3.6 begins with a minute;
that is for zones that change by hand. Pure: it is handed the time, an rng and the message's id.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from discod.backoff import Backoff
from resolver.record import IN, NOERROR, SOA, Name, name_wire
from resolver.transfer.content import APEX
from resolver.wire import AA, HEADER, QR

GAP: Final = 0.1
"""Seconds between two messages to one secondary."""
FIRST: Final = 1.0
"""Seconds until a message without an answer is sent again, at first: a LAN answers in a
thousandth of it."""
MOST: Final = 60.0
"""Seconds, at last: what section 3.6 waits at first."""

_NOTIFY: Final = 4 << 11
_OPCODE: Final = 15 << 11
_TYPE_CLASS = struct.Struct(">HH")
NEVER: Final = float("inf")


def notify(id_: int, apex: Name, soa: bytes) -> bytes:
    """A NOTIFY message with the new SOA as its answer (RFC 1996, section 3.7).

    `soa` is the record as transfers have it, its owner a pointer to the question.
    """
    assert soa.startswith(APEX)
    question = name_wire(apex) + _TYPE_CLASS.pack(SOA, IN)
    return HEADER.pack(id_, _NOTIFY | AA, 1, 1, 0, 0) + question + soa


def answered(packet: bytes, sent: bytes) -> int | None:
    """The rcode of the response to the message `sent`; None: it is no such response.

    The question is compared where there is one (RFC 1996, section 4.7, wants one, but older
    secondaries leave it out of errors).
    """
    if len(packet) < HEADER.size or packet[:2] != sent[:2]:
        return None
    _, flags, questions, *_ = HEADER.unpack_from(packet)
    if not flags & QR or flags & _OPCODE != _NOTIFY:
        return None
    if questions:
        end = sent.index(b"\0", HEADER.size) + 5
        if packet[HEADER.size : end].lower() != sent[HEADER.size : end].lower():
            return None
    return int(flags & 15)


class Notice:
    """The state of one secondary; times are seconds of any one clock."""

    def __init__(self, rng: random.Random) -> None:
        self._backoff = Backoff(rng, FIRST, MOST)
        self._sent = -NEVER
        self._due = NEVER
        self.tries = 0
        """Messages sent of the present serial."""

    @property
    def due(self) -> float:
        """When the next message is to be sent; `NEVER`: the secondary knows all."""
        return self._due

    def changed(self, now: float) -> None:
        """There is a newer serial."""
        self._backoff.reset()
        self.tries = 0
        self._due = max(now, self._sent + GAP)

    def sent(self, now: float) -> None:
        """A message with the newest serial left."""
        self._sent = now
        self.tries += 1
        self._due = now + self._backoff.pause()

    def done(self, rcode: int) -> str:
        """The secondary answered the last message; the answer ends it, whatever it says.

        Unless there is a newer serial by now: then the answer is about an older one.

        Returns: ``ok`` or ``refused``.
        """
        if self.tries:
            self._due = NEVER
        return "ok" if rcode == NOERROR else "refused"
