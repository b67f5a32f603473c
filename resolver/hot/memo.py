"""Answers remembered by the octets of their questions.

Rule: whatever is answered from memory is, octet for octet, something that the responder said to
the same question, as long as none of what it was made from has changed; a test compares the two.
What is odd in any way is not remembered, and what is not the responder's at all is handed to the
daemon.

Three tiers. The packet behind its id is the key of the first: a look-up gives the next of several
answers, drawn in different orders, so that rotation costs nothing. The second is the same map,
asked with the name in lower case and without a cookie (RFC 4343, RFC 7873): the case of the
question and the cookie are put into the answer found. The third is the responder itself. Names that
do not exist are never remembered, since anybody can think of more of them; their answers are put
together from that of another such name.

A key is forgotten when a service changes that any label of its name could mean. Pure.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from resolver.answer import Outcome
from resolver.cookies import Cookies, Verdict
from resolver.hot.absent import Absent
from resolver.hot.draws import Draws
from resolver.hot.entry import SILENT, Entry, Found
from resolver.hot.question import HEAD, Question, labels_of, read
from resolver.hot.slots import TYPES, kind
from resolver.record import NOERROR, NXDOMAIN, SOA, name_wire
from resolver.rrl import Action
from resolver.wire import read_query
from resolver.zone import Zone

OCTETS_MAX: Final = 32 * 1024 * 1024
"""Octets of all answers remembered, with `OVERHEAD` for each; beyond it the oldest go."""
OVERHEAD: Final = 250
"""Octets of memory that an answer takes beside its own (measured with tracemalloc)."""
_REMEMBERED = frozenset(TYPES) - {SOA}


class Memo:
    """The memory of one worker.

    Args:
        respond: The responder: packet and client's packed address to outcome.
        limited: Its word on a query above the rate limit.
        address: Where the octets of a bytes object lie.
        zone: The responder's.
        rng: For the order of answers.
    """

    def __init__(
        self,
        respond: Callable[[bytes, bytes], Outcome],
        limited: Callable[[bytes, bytes, Action], Outcome],
        address: Callable[[bytes], int],
        zone: Zone,
        rng: random.Random,
    ) -> None:
        self._respond = respond
        self._limited = limited
        self._address = address
        self._zone = zone
        self._rng = rng
        self._apex = name_wire(zone.apex)
        self.answers: dict[bytes, Iterator[Found]] = {}
        """First tier: the key of a query gives its answers one after the other; exhausted or not
        there: `find` it."""
        self._entries: dict[bytes, Entry] = {}
        self._negatives: dict[bytes, tuple[Found, int, int]] = {}  # answer, serial, and where
        self._by_label: dict[bytes, set[bytes]] = {}
        self._order: deque[Entry] = deque()
        self._absent = Absent(lambda packet: self._ask(packet, self._client), self._apex)
        self._client = b""  # who asks at the moment
        self._octets = 0
        self.retired: list[object] = []
        """Answers that are no longer remembered, but may be on their way out: whoever sends clears
        this when all is sent."""
        self.labels: set[bytes] = set()
        """Services and aliases: the labels below the domain under which there may be names."""
        self.aliases: set[bytes] = set()
        """Those of them that are aliases: what they answer depends on others as well."""
        self._serial = zone.serial
        self._subtrees = zone.subtrees
        self.consul_names = False
        self.udp_size = 1232
        self.varied = False
        """Whether an answer with a single record may have another one the next time."""
        self.cookies: Cookies | None = None
        self.now = 0
        """Unix seconds."""
        self.verdicts: dict[Verdict, int] = {"new": 0, "valid": 0, "bad": 0, "malformed": 0}
        """Cookies seen."""
        self.slow = 0
        """Questions to the responder."""

    def __len__(self) -> int:
        """Number of answers remembered."""
        return len(self._entries)

    # Changes ------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._order:
            entry.alive = False
        self._order.clear()
        self.answers.clear()
        self._entries.clear()
        self._negatives.clear()
        self._by_label.clear()
        self._absent.clear()
        self._octets = 0
        self._serial = self._zone.serial
        self._subtrees = self._zone.subtrees

    def changed(self, services: Sequence[str]) -> None:
        """Forget what depends on `services`: the zone has just taken a change of them."""
        serial = self._zone.serial
        if serial != self._serial:
            self._serial = serial
            self._absent.clear()
        for service in services:
            self._forget(service.encode())
        if services:
            self._forget(b"")

    def _forget(self, label: bytes) -> None:
        for norm in self._by_label.pop(label, ()):
            entry = self._entries.get(norm)
            if entry is not None:
                self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        entry.alive = False
        norm = entry.norm
        del self._entries[norm]
        self.answers.pop(norm, None)
        self.retired += (*entry.draws, self._negatives.pop(norm, None))
        self._octets -= entry.octets
        for label in entry.labels:
            keys = self._by_label.get(label)
            if keys is not None:
                keys.discard(norm)
                if not keys:
                    del self._by_label[label]

    # Look-ups -----------------------------------------------------------------------------------

    def find(self, key: bytes, client: bytes) -> Found | None:
        """The answer to a query that the first tier had none for; None: the daemon's to answer.

        Args:
            key: The packet without its id.
            client: Packed address.
        """
        entry = self._entries.get(key)
        if entry is not None:  # a key in its usual form
            return self._again(entry, client)
        if len(key) < HEAD or key[0] & 0x80:
            return SILENT
        question = read(key, self._apex, self.udp_size)
        if question is None:
            return None
        if question.norm != key:
            return self._of_another_form(question, client)
        return self._new(question, client)

    def _again(self, entry: Entry, client: bytes) -> Found | None:
        negative = self._negatives.get(entry.norm)
        if negative is None:
            self._redraw(entry, client)
            return next(self.answers[entry.norm]) if entry.alive else None
        found, serial, at = negative
        if serial != self._serial:
            self.retired.append(found)
            body = found[3][:at] + self._serial.to_bytes(4, "big") + found[3][at + 4 :]
            found = self._address(body), len(body), found[2], body
            self._negatives[entry.norm] = found, self._serial, at
        return found

    def _of_another_form(self, question: Question, client: bytes) -> Found | None:
        """By the usual form of the question; then with its own case, and a cookie."""
        option = b""
        if question.cookie:
            if self.cookies is None:
                return self._whole(question, client)
            verdict, reply = self.cookies.answer(question.cookie, client, self.now)
            self.verdicts[verdict] += 1
            option = b"\0\x1c\0\x0a\0\x18" + reply
        answers = self.answers.get(question.norm)
        found = next(answers, None) if answers is not None else None
        if found is None:
            entry = self._entries.get(question.norm)
            found = self._again(entry, client) if entry else self._new(question, client)
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
        """Straight from the responder, for a cookie that does not fit or is not spoken."""
        outcome = self._ask(b"\0\0" + question.key, client)
        if outcome is None or outcome.packet is None:
            return None
        body = outcome.packet[2:]
        return 0, len(body), kind(question.type, outcome.rcode, outcome.truncated), body

    def above_rate(self, key: bytes, client: bytes, action: Action) -> Found | None:
        """What a query gets that comes above the rate limit; None: it is answered all the same."""
        question = read(key, self._apex, self.udp_size)
        if question is not None and question.cookie and self.cookies is not None:
            verdict, _ = self.cookies.answer(question.cookie, client, self.now)
            if verdict == "valid":
                return None
        outcome = self._limited(b"\0\0" + key, client, action)
        if outcome.packet is None:
            return SILENT
        body = outcome.packet[2:]
        type_ = outcome.query.type if outcome.query else 0
        return 0, len(body), kind(type_, outcome.rcode, outcome.truncated), body

    # Answers ------------------------------------------------------------------------------------

    def _ask(self, packet: bytes, client: bytes) -> Outcome | None:
        """What the responder says, if it is an answer of our domain."""
        self.slow += 1
        outcome = self._respond(packet, client)
        if outcome.packet is None or outcome.zone != "domain" or outcome.answer is not None:
            return None
        return outcome

    def _new(self, question: Question, client: bytes) -> Found | None:
        labels = labels_of(question.name, self._apex)
        absent = self._not_there(question, labels, client)
        if absent is not None:
            return absent
        norm = question.norm
        outcome = self._ask(b"\0\0" + norm, client)
        if outcome is None or outcome.packet is None:
            return None
        body = outcome.packet[2:]
        slot = kind(question.type, outcome.rcode, outcome.truncated)
        if outcome.rcode != NOERROR or not labels or question.type not in _REMEMBERED:
            return 0, len(body), slot, body
        return self._remember(norm, self._depends(labels), body, slot)

    def _remember(self, norm: bytes, labels: tuple[bytes, ...], body: bytes, slot: int) -> Found:
        entry = Entry(norm, labels, slot)
        found = self._address(body), len(body), slot, body
        self._entries[norm] = entry
        for label in labels:
            self._by_label.setdefault(label, set()).add(norm)
        self._charge(entry, len(body) + 2 * OVERHEAD)
        answers = int.from_bytes(body[4:6], "big")
        if answers == 0:
            self._negatives[norm] = found, self._serial, _serial_at(norm, body)
        else:
            entry.fixed = answers == 1 and not self.varied
            entry.source = None if entry.fixed else self._source(norm, body)
            entry.add(found)
            self.answers[norm] = entry.deal()
        self._order.append(entry)
        self._make_room()
        return found

    def _redraw(self, entry: Entry, client: bytes) -> None:
        """Draw some more orders."""
        for _ in range(entry.wanted):
            if entry.source is not None:
                body = entry.source.draw(self._rng)
            else:
                outcome = self._ask(b"\0\0" + entry.norm, client)
                if outcome is None or outcome.packet is None:
                    self._drop(entry)  # no longer an answer: the next question finds out what it is
                    return
                body = outcome.packet[2:]
            replaced = entry.add((self._address(body), len(body), entry.kind, body))
            if replaced is None:
                self._charge(entry, len(body) + OVERHEAD)
            else:
                self.retired.append(replaced)
        self.answers[entry.norm] = entry.deal()

    def _source(self, norm: bytes, body: bytes) -> Draws | None:
        query = read_query(b"\0\0" + norm)
        assert query is not None
        records = self._zone.rrset(query.name, query.type)
        if records is None:
            return None
        return Draws.of(query.name, records, body, HEAD + len(query.question))

    def _charge(self, entry: Entry, octets: int) -> None:
        entry.octets += octets
        self._octets += octets

    def _make_room(self) -> None:
        order = self._order
        while self._octets > OCTETS_MAX and order:
            entry = order.popleft()
            if entry.alive:
                self._drop(entry)
        if len(order) > 2 * len(self._entries) + 64:
            self._order = deque(entry for entry in order if entry.alive)

    def _labels(self, name: bytes) -> tuple[bytes, ...]:
        """The labels below the domain, without underscores, each a service it may depend on.

        The empty label stands for all services. No label: nothing to remember.
        """
        labels: list[bytes] = []
        end = len(name) - len(self._apex)
        at = 0
        while at < end:
            length = name[at]
            labels.append(name[at + 1 : at + 1 + length].removeprefix(b"_"))
            at += 1 + length
        if at != end:
            return ()
        if any(label in self.aliases for label in labels):
            labels.append(b"")
        return tuple(dict.fromkeys(labels))

    def _depends(self, labels: Sequence[bytes]) -> tuple[bytes, ...]:
        """The services that a name may depend on: all its labels, without underscores.

        The empty label stands for all services.
        """
        found = [label.removeprefix(b"_") for label in labels]
        if not self.aliases.isdisjoint(found):
            found.append(b"")
        return tuple(dict.fromkeys(found))

    def _not_there(
        self, question: Question, labels: Sequence[bytes], client: bytes
    ) -> Found | None:
        """NXDOMAIN for a name below no service; None: it may exist."""
        if not labels:
            return None
        last = labels[-1]
        if last in self.labels or last in self._subtrees:
            return None
        if self.consul_names and last[:1] == b"_":
            return None
        self._client = client
        body = self._absent.body(question, len(question.name) - len(self._apex))
        if body is None:
            return None
        return 0, len(body), kind(question.type, NXDOMAIN, False), body


def _serial_at(norm: bytes, body: bytes) -> int:
    """Where the serial stands in NODATA: its SOA comes right behind the question.

    The owner is a pointer into the question (2 octets); type, class, TTL and length take 10 more.
    """
    end = norm.index(b"\0", HEAD) + 5 + 12
    length = int.from_bytes(body[end - 2 : end], "big")
    return end + length - 20
