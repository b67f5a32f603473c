"""Answers remembered by the octets of their questions.

Rule: whatever is answered from memory is, octet for octet, something that the responder says or
could have said to the same question at that moment; a test compares the two.
What is odd in any way is not remembered, and what is not the responder's at all is handed to the
daemon.

Three tiers. The packet behind its id is the key of the first: a look-up gives the next of several
answers, drawn in different orders, so that rotation costs nothing. The second is the same map,
asked with the name in lower case and without a cookie (RFC 4343, RFC 7873): the case of the
question and the cookie are put into the answer found. The third makes an answer from the zone's
records, in the frame of one of the responder's, or has the responder answer where that cannot be
done. Names that do not exist are never remembered, since anybody can think of more of them; their
answers are put together from that of another such name. A key is forgotten when a service changes
that any label of its name could mean. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from discod.model.settings import DnsSettings
from resolver.answer import RECORD_MIN, Outcome
from resolver.cookies import Cookies, Verdict
from resolver.hot.dated import Dated
from resolver.hot.draws import Draws, Frame, frame_of
from resolver.hot.entry import (
    DRAW_OCTETS,
    ENTRY_OCTETS,
    NOTHING,
    OCTETS_MAX,
    SILENT,
    Answers,
    Entry,
    Found,
    told,
)
from resolver.hot.negative import NO_DATA, Negative, serial_at
from resolver.hot.question import HEAD, Question, depends, labels_of, read
from resolver.hot.shelf import Shelf
from resolver.hot.slots import TYPES, kind
from resolver.record import ANY, NOERROR, NXDOMAIN, SOA, Name, name_wire
from resolver.rrl import Action
from resolver.rrset import Record
from resolver.wire import TCP_MAX
from resolver.zone import Zone

T = TypeVar("T")

RENEWED_MAX: Final = 32
RENEWED_OCTETS: Final = 8192
"""Answers, at most, that are made anew with a change, and octets of one: together they take no more
than a millisecond or two."""

_NOBODY = b""
_REMEMBERED = frozenset(TYPES) - {SOA}


class Memo(Generic[T]):
    """The memory of one worker.

    Args:
        respond: The responder: packet and client's packed address to outcome.
        limited: Its word on a query above the rate limit.
        address: Where the octets of a bytes object lie.
        form: What the first tier gives for an answer.
        zone: The responder's.
        rng: For the order of answers.
        octets_max: Of memory; beyond it the oldest answers go.
    """

    def __init__(
        self,
        respond: Callable[[bytes, bytes], Outcome],
        limited: Callable[[bytes, bytes, Action], Outcome],
        address: Callable[[bytes], int],
        form: Callable[[Found], T],
        zone: Zone,
        rng: random.Random,
        *,
        octets_max: int = OCTETS_MAX,
    ) -> None:
        self._respond = respond
        self._limited = limited
        self._address = address
        self._form = form
        self._zone = zone
        self._rng = rng
        self._apex = name_wire(zone.apex)
        self.answers: Answers[T] = Answers(form(NOTHING))
        """First tier: the key of a query gives its answers one after the other; what it gives for
        `NOTHING` is to be found by `find`."""
        self._kept: Shelf[T] = Shelf(octets_max, self._gone)
        self._negative = Negative(self._ask, self._apex)
        self._frames: dict[tuple[bytes, int], Frame] = {}
        self.stream = False
        """Whether responses are as long as need be."""
        self.retired: list[object] = []
        """Answers that are no longer remembered, but may be on their way out: whoever sends clears
        this when all is sent."""
        self._dated = Dated(self.answers, form, self._found, self.retired)
        self.labels: set[bytes] = set()
        """Services and aliases: the labels below the domain under which there may be names."""
        self.aliases: set[bytes] = set()
        """Those of them that are aliases: what they answer depends on others as well."""
        self._subtrees = zone.subtrees
        self.consul_names = False
        self.udp_size = 1232
        self.varied = False
        """Whether an answer with a single record may have another one the next time."""
        self.cookies: Cookies | None = None
        self.now = 0
        """Unix seconds."""
        self.verdicts: dict[Verdict, int] = {"new": 0, "valid": 0, "bad": 0, "malformed": 0}
        self.slow = 0

    def __len__(self) -> int:
        """Number of answers remembered."""
        return len(self._kept.entries)

    # Changes ------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.answers.clear()
        self._negative.clear()
        self._frames.clear()
        self._dated.clear(self._zone.serial)
        self._negative.serial = self._zone.serial.to_bytes(4, "big")
        self._subtrees = self._zone.subtrees

    def changed(self, services: Sequence[str]) -> None:
        """Forget what depends on `services`: the zone has just taken a change of them.

        What was asked for since the last change, and is soon made, is made anew right away: several
        together take half the time that they take one by one between other queries.
        """
        serial = self._zone.serial
        if serial != self._dated.serial:
            self._negative.serial = serial.to_bytes(4, "big")
            self._dated.moved(serial)
        forgotten: list[Entry[T]] = []
        for service in services:
            forgotten += self._kept.forget(service.encode())
        if services:
            forgotten += self._kept.forget(b"")
        wanted = [e for e in forgotten if not e.asleep and e.octets <= RENEWED_OCTETS]
        for entry in wanted[:RENEWED_MAX]:
            self._renew(entry.norm)

    def _renew(self, norm: bytes) -> None:
        question = self._read(norm)
        if question is not None:
            try:
                self._new(question, _NOBODY)
            except Exception:  # noqa: BLE001 - who asks next meets the same fault, and reports it
                return

    def _gone(self, entry: Entry[T]) -> None:
        if entry.bodies:
            self.answers.pop(entry.norm, None)
            self.retired += entry.bodies
        else:
            self._dated.drop(entry.norm)

    # Look-ups -----------------------------------------------------------------------------------

    def find(self, key: bytes, client: bytes) -> Found | None:
        """The answer to a query that the first tier had none for; None: the daemon's to answer.

        Args:
            key: The packet without its id.
            client: Packed address.
        """
        # First what floods ask for: it costs all others little.
        if absent := self._negative.one_label(key, self.labels, self._subtrees):
            return absent
        entry = self._kept.entries.get(key)
        if entry is not None:  # a key in its usual form
            return self._again(entry, client, spent=True)
        if len(key) < HEAD or key[0] & 0x80:
            return SILENT
        question = self._read(key)
        if question is None:
            return None
        if question.norm != key:
            return self._of_another_form(question, client)
        return self._new(question, client)

    def _again(self, entry: Entry[T], client: bytes, *, spent: bool) -> Found | None:
        if entry.asleep:
            entry.asleep = False
            if entry.bodies:
                self.answers[entry.norm] = entry.deal(self.answers.nothing, self._rng)
                return self._found(entry.latest(self._rng), entry.kind)
        if not entry.bodies:
            return self._dated.get(entry.norm)
        body = None if spent else entry.turn(self._rng)
        if body is None:
            self._redraw(entry, client)
            body = entry.latest(self._rng) if entry.alive else None
        return self._found(body, entry.kind) if body is not None else None

    def _found(self, body: bytes, kind: int) -> Found:
        return self._address(body), len(body), kind, body

    def _of_another_form(self, question: Question, client: bytes) -> Found | None:
        """By the usual form of the question; then with its own case, and a cookie."""
        option = b""
        if question.cookie and self.cookies is not None:
            verdict, reply = self.cookies.answer(question.cookie, client, self.now)
            self.verdicts[verdict] += 1
            option = b"\0\x1c\0\x0a\0\x18" + reply
        entry = self._kept.entries.get(question.norm)
        found = self._again(entry, client, spent=False) if entry else self._new(question, client)
        if found is None:
            return None
        body = found[3]
        size = len(question.question)
        if option:
            if len(body) + len(option) > question.limit:
                return self._whole(question, client)
            tail = body[HEAD + size : -2] + option
        else:
            tail = body[HEAD + size :]
        body = body[:HEAD] + question.question + tail
        return 0, len(body), found[2], body

    def _whole(self, question: Question, client: bytes) -> Found | None:
        """Straight from the responder, for a cookie that does not fit."""
        outcome = self._ask(b"\0\0" + question.key, client)
        if outcome is None or outcome.packet is None:
            return None
        return told(outcome.packet[2:], question.type, outcome)

    def _read(self, key: bytes) -> Question | None:
        question = read(key, self._apex, self.udp_size)
        if question is not None and self.stream:
            return question._replace(limit=TCP_MAX)
        return question

    def above_rate(self, key: bytes, client: bytes, action: Action) -> Found | None:
        """What a query gets that comes above the rate limit; None: it is answered all the same."""
        question = self._read(key)
        cookie = question.cookie if question is not None else b""
        if cookie and self.cookies and self.cookies.answer(cookie, client, self.now)[0] == "valid":
            return None
        outcome = self._limited(b"\0\0" + key, client, action)
        if outcome.packet is None or outcome.query is None:
            return SILENT
        return told(outcome.packet[2:], outcome.query.type, outcome)

    # Answers ------------------------------------------------------------------------------------

    def _ask(self, packet: bytes, client: bytes) -> Outcome | None:
        """What the responder says, if it is an answer of our domain.

        It is not asked for nobody.
        """
        if client is _NOBODY:
            return None
        self.slow += 1
        outcome = self._respond(packet, client)
        if outcome.packet is None or outcome.zone != "domain" or outcome.answer is not None:
            return None
        return outcome

    def _new(self, question: Question, client: bytes) -> Found | None:
        labels = labels_of(question.name, self._apex)
        if absent := self._not_there(question, labels, client):
            return absent
        remembered = bool(labels) and question.type in _REMEMBERED
        records = None
        name = (*labels, *self._zone.apex)
        if remembered:
            records = self._zone.rrset(name, question.type)
            frame = self._frames.get(question.shape)
            if records == () and question.type != ANY:
                lower = question._replace(question=question.canonical)
                body = self._negative.body(lower, client, NOERROR)
                if body is not None:
                    slot = kind(question.type, NOERROR, False)
                    entry: Entry[T] = Entry(question.norm, depends(labels, self.aliases), slot)
                    return self._remember(entry, body, client)
            if records and len(records) * RECORD_MIN > question.limit:
                records = None  # not all of it will be in the answer
            if records and frame is not None:
                draws = self._draws(frame, question, name, records)
                if draws.least <= question.limit:
                    slot = kind(question.type, NOERROR, False)
                    entry = Entry(question.norm, depends(labels, self.aliases), slot, draws)
                    return self._remember(entry, draws.draw(self._rng), client)
        outcome = self._ask(b"\0\0" + question.norm, client)
        if outcome is None or outcome.packet is None:
            return None
        body = outcome.packet[2:]
        slot = kind(question.type, outcome.rcode, outcome.truncated)
        if outcome.rcode != NOERROR or not remembered:
            return 0, len(body), slot, body
        source = None
        if records and not outcome.truncated:
            source = self._frame(question, name, records, body)
        if source is not None:
            body = source.draw(self._rng)
        entry = Entry(question.norm, depends(labels, self.aliases), slot, source)
        return self._remember(entry, body, client)

    def _frame(
        self, question: Question, name: Name, records: Sequence[Record], body: bytes
    ) -> Draws | None:
        """Take from a response what stands around the records, if it is all of them."""
        frame = frame_of(body, HEAD + len(question.question))
        made = self._draws(frame, question, name, records)
        if not made.frames(body):
            return None
        self._frames[question.shape] = frame
        return made

    def _draws(
        self, frame: Frame, question: Question, name: Name, records: Sequence[Record]
    ) -> Draws:
        return Draws(frame, question.canonical, name, records, self._rng, question.limit)

    def _remember(self, entry: Entry[T], body: bytes, client: bytes) -> Found:
        norm = entry.norm
        entry.asleep = client is _NOBODY
        octets = ENTRY_OCTETS
        answers = int.from_bytes(body[4:6], "big")
        if answers == 0:
            found = self._dated.add(norm, body, entry.kind, serial_at(norm, body))
        else:
            entry.complete = answers == 1 and not self.varied
            bodies = [body, *entry.others(self._rng)]
            forms = [self._form(self._found(body, entry.kind)) for body in bodies]
            octets += entry.begin(bodies, forms)
            found = self._found(entry.latest(self._rng), entry.kind)
            if not entry.asleep:
                self.answers[norm] = entry.deal(self.answers.nothing, self._rng)
        self._kept.add(entry, octets)
        return found

    def _take(self, entry: Entry[T], body: bytes) -> int:
        """One draw more; what that takes of memory."""
        replaced = entry.add(body, self._form(self._found(body, entry.kind)))
        if replaced is None:
            return len(body) + DRAW_OCTETS
        self.retired.append(replaced)
        return 0

    def _redraw(self, entry: Entry[T], client: bytes) -> None:
        """Draw some more orders."""
        for _ in range(entry.wanted):
            if entry.source is not None:
                octets = self._take(entry, entry.source.draw(self._rng))
            else:
                outcome = self._ask(b"\0\0" + entry.norm, client)
                if outcome is None or outcome.packet is None:
                    # No longer an answer: the next question finds out what it is.
                    self._kept.drop(entry)
                    return
                octets = self._take(entry, outcome.packet[2:])
            self._kept.charge(entry, octets)
        self.answers[entry.norm] = entry.deal(self.answers.nothing, self._rng)

    def _not_there(
        self, question: Question, labels: Sequence[bytes], client: bytes
    ) -> Found | None:
        """NXDOMAIN for a name below no service; None: it may exist."""
        if not labels or question.type in NO_DATA:
            return None
        last = labels[-1]
        if last in self.labels or last in self._subtrees:
            return None
        if self.consul_names and last[:1] == b"_":
            return None
        body = self._negative.body(question, client, NXDOMAIN)
        return (0, len(body), kind(question.type, NXDOMAIN, False), body) if body else None


def settle(memo: Memo[T], settings: DnsSettings, secrets: Sequence[bytes]) -> None:
    """Put settings in force in a memory, which forgets everything."""
    memo.clear()
    memo.consul_names = settings.consul_names
    memo.udp_size = settings.udp_size
    memo.varied = settings.answer_limit > 0
    memo.cookies = Cookies(secrets) if settings.cookies and secrets else None
