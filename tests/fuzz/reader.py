"""A DNS message reader of its own, written from RFC 1035 and RFC 6891: the tests' second opinion.

Rule: nothing of discod is imported, and nothing is forgiven: whatever the RFCs do not allow raises
`Bad`. It is neither fast nor clever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NS, CNAME, SOA, PTR, SRV, OPT, SVCB, HTTPS = 2, 5, 6, 12, 33, 41, 64, 65
Labels = tuple[bytes, ...]

_NAME_FIRST = {NS: 0, CNAME: 0, PTR: 0, SRV: 6, SVCB: 2, HTTPS: 2}
"""Type -> offset of the one name in its RDATA."""
_WHOLE = {NS, CNAME, PTR, SRV}
"""Types whose RDATA ends with that name."""
_COMPRESSIBLE = {NS, CNAME, PTR, SOA}
"""RFC 3597, section 4: only the well-known types of RFC 1035 may have compressed names."""


class Bad(ValueError):
    """The message is not one."""


class Unfollowable(Bad):
    """A name whose own octets are sound, with a pointer that leads nowhere sensible."""

    def __init__(self, text: str, end: int) -> None:
        super().__init__(text)
        self.end = end


@dataclass(frozen=True)
class Record:
    """One record; `unfollowable`: its owner's pointer is no good."""

    owner: Labels
    type: int
    cls: int
    ttl: int
    rdata: bytes
    unfollowable: bool = False

    @property
    def options(self) -> tuple[list[tuple[int, bytes]], bool]:
        """Of an OPT record: those that can be read, and whether that is all."""
        found: list[tuple[int, bytes]] = []
        at = 0
        while at < len(self.rdata):
            length = _u16(self.rdata, at + 2)
            end = at + 4 + length
            if at + 4 > len(self.rdata) or end > len(self.rdata):
                return found, False
            found.append((_u16(self.rdata, at), self.rdata[at + 4 : end]))
            at = end
        return found, True


@dataclass(frozen=True)
class Message:
    """A message, taken apart."""

    id: int
    flags: int
    counts: tuple[int, int, int, int]
    questions: list[tuple[Labels, int, int]] = field(default_factory=list)
    sections: tuple[list[Record], list[Record], list[Record]] = field(
        default_factory=lambda: ([], [], [])
    )
    question_end: int = 12
    trailing: int = 0

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 15

    @property
    def opts(self) -> list[Record]:
        return [record for record in self.sections[2] if record.type == OPT]

    @property
    def rcode(self) -> int:
        """Extended (RFC 6891, section 6.1.3)."""
        high = self.opts[0].ttl >> 24 if self.opts else 0
        return high << 4 | self.flags & 15


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def name_at(data: bytes, at: int) -> tuple[Labels, int]:
    """A name that may be compressed, and the offset behind it.

    Raises:
        Unfollowable: only where a pointer leads is at fault.
        Bad: all else.
    """
    labels: list[bytes] = []
    octets, end, lowest = 1, -1, at
    while True:
        try:
            if at >= len(data):
                raise Bad("name beyond the message")
            length = data[at]
            if length >= 0xC0:
                if at + 2 > len(data):
                    raise Bad("half a pointer")
                if end < 0:
                    end = at + 2
                at = _u16(data, at) & 0x3FFF
                if not 12 <= at < lowest:
                    raise Bad("pointer into the header, forward, or in a circle")
                lowest = at
                continue
            if length > 63:
                raise Bad("label type")
            if length == 0:
                return tuple(labels), at + 1 if end < 0 else end
            label = data[at + 1 : at + 1 + length]
            octets += 1 + length
            if len(label) != length:
                raise Bad("label beyond the message")
            if octets > 255:
                raise Bad("name of more than 255 octets")
            labels.append(label)
            at += 1 + length
        except Bad as error:
            if end < 0:
                raise
            raise Unfollowable(str(error), end) from None


def _record(data: bytes, at: int) -> tuple[Record, int]:
    lost = False
    try:
        owner, at = name_at(data, at)
    except Unfollowable as error:
        owner, at, lost = (), error.end, True
    if at + 10 > len(data):
        raise Bad("half a record")
    length = _u16(data, at + 8)
    end = at + 10 + length
    if end > len(data):
        raise Bad("RDATA beyond the message")
    ttl = int.from_bytes(data[at + 4 : at + 8], "big")
    rdata = data[at + 10 : end]
    return Record(owner, _u16(data, at), _u16(data, at + 2), ttl, rdata, lost), end


def read(data: bytes) -> Message:
    """Take a message apart; RDATA is not looked into (`read_answer` does).

    Raises:
        Bad: it ends too early. What comes behind its end is in `trailing`.
    """
    if len(data) < 12:
        raise Bad("half a header")
    counts = (_u16(data, 4), _u16(data, 6), _u16(data, 8), _u16(data, 10))
    at = 12
    questions: list[tuple[Labels, int, int]] = []
    for _ in range(counts[0]):
        labels, at = name_at(data, at)
        if at + 4 > len(data):
            raise Bad("half a question")
        questions.append((labels, _u16(data, at), _u16(data, at + 2)))
        at += 4
    question_end = at
    sections: tuple[list[Record], list[Record], list[Record]] = ([], [], [])
    for section, count in zip(sections, counts[1:], strict=True):
        for _ in range(count):
            record, at = _record(data, at)
            section.append(record)
    return Message(
        _u16(data, 0), _u16(data, 2), counts, questions, sections, question_end, len(data) - at
    )


def read_answer(data: bytes) -> Message:
    """A message that has to be perfect: what a server sends.

    Raises:
        Bad.
    """
    message = read(data)
    if message.trailing:
        raise Bad("octets behind the message")
    at = message.question_end
    for section in message.sections:
        for record in section:
            if record.unfollowable:
                raise Bad("owner name")
            _, end = _record(data, at)
            _rdata(data, record, end)
            at = end
    if len(message.opts) > 1 or any(opt.owner for opt in message.opts):
        raise Bad("OPT")
    if not all(opt.options[1] for opt in message.opts):
        raise Bad("options")
    return message


def _rdata(data: bytes, record: Record, end: int) -> None:
    start = end - len(record.rdata)
    at = start
    if record.type == SOA:
        for _ in range(2):
            _, at = name_at(data, at)
        if end - at != 20:
            raise Bad("SOA")
    elif record.type in _NAME_FIRST:
        name, at = name_at(data, start + _NAME_FIRST[record.type])
        if record.type in _WHOLE and at != end:
            raise Bad("RDATA longer than its name")
        octets = sum(map(len, name)) + len(name) + 1
        spelt = at - start - _NAME_FIRST[record.type]
        if record.type not in _COMPRESSIBLE and spelt != octets:
            raise Bad("compressed name in RDATA")
    elif record.type in (1, 28) and len(record.rdata) != (4 if record.type == 1 else 16):
        raise Bad("address")
    elif record.type == 16 and _strings(record.rdata) != len(record.rdata):
        raise Bad("TXT")
    if at > end:
        raise Bad("name beyond its RDATA")


def _strings(rdata: bytes) -> int:
    at = 0
    while at < len(rdata):
        at += 1 + rdata[at]
    return at if rdata else -1
