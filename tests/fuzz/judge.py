"""What a query deserves, by the RFCs: the rcodes that are right, silence, or being handed on.

Rule: decided from the octets alone and by `tests.fuzz.reader`, with nothing of the resolver. Where
the RFCs leave a choice, every choice is in the verdict; where they do not, there is exactly one.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final, Literal

from tests.fuzz.reader import OPT, Bad, Message, name_at, read
from tests.fuzz.seeds import EXISTING, OPTIONAL, D

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 0, 1, 2, 3, 4, 5, 9
BADVERS, BADCOOKIE = 16, 23
Fate = int | Literal["silence", "handed on"]
SILENCE: Final = "silence"
HANDED_ON: Final = "handed on"
"""To the forwarder or to the zone transfer: others decide."""
Verdict = Set[Fate]

TSIG: Final = 250
MANY: Final = 16
"""EDNS options that a server has to read; nobody sends as many."""
APEX = tuple(D.encode().split(b"."))
_ARPA_AND_LOCAL = {b"arpa", b"localhost", b"invalid", b"onion", b"test", b"local"}


def judge(packet: bytes) -> Verdict:
    """The fates of `packet` that are right."""
    if len(packet) < 12 or packet[2] & 0x80:
        return {SILENCE}  # no header to answer; a response is never answered (RFC 8906, 3.1)
    opcode = packet[2] >> 3 & 15
    count = int.from_bytes(packet[4:6], "big")
    if opcode == 0 and count > 1:
        return {FORMERR}  # RFC 9619
    try:
        message = read(packet)
    except Bad:
        return {FORMERR} if opcode == 0 else _other_opcode(opcode)
    if opcode != 0:
        return _other_opcode(opcode) | ({BADVERS} if _versions(message) - {0} else set())
    loose: set[Fate] = set()  # what the RFCs are silent about
    every = [record for section in message.sections for record in section]
    # Octets behind the message; records that no query has a use for; names that lead nowhere.
    if message.trailing or any(record.type not in (OPT, TSIG) for record in every):
        loose.add(FORMERR)
    if any(record.unfollowable for record in every):
        loose.add(FORMERR)
    if any(record.type == TSIG for record in every):
        loose |= {FORMERR, NOTAUTH}  # signed by a key that is not known
    if len(every) > len(message.sections[2]):
        loose.add(FORMERR)
    return loose | _judge_edns(message)


def _versions(message: Message) -> set[int]:
    return {opt.ttl >> 16 & 255 for opt in message.opts}


def _other_opcode(opcode: int) -> Verdict:
    """RFC 1035, section 4.1.1, and RFC 8906, section 3.1.3."""
    if opcode in (4, 5):  # NOTIFY and UPDATE are known, and refused to strangers
        return {NOTIMP, REFUSED, NOTAUTH, FORMERR}
    return {NOTIMP}


def _judge_edns(message: Message) -> Verdict:
    opts = message.opts
    if len(opts) > 1 or any(opt.owner or opt.unfollowable for opt in opts):
        return {FORMERR}  # RFC 6891, sections 6.1.1 and 6.1.2
    cookie = None
    loose: set[Fate] = set()
    if opts:
        if opts[0].ttl >> 16 & 255:
            # RFC 6891, section 6.1.3. Without a question there are two things to say.
            return {BADVERS} if message.questions else {BADVERS, FORMERR}
        options, whole = opts[0].options
        cookies = [data for code, data in options if code == 10]
        cookie = cookies[0] if cookies else None
        if not whole or any(not _is_cookie(data) for data in cookies):
            if len(options) <= MANY and (not cookies or not _is_cookie(cookies[0])):
                return {FORMERR}  # RFC 7873, section 5.2.2, for the first of them
            loose.add(FORMERR)  # a server need not read on for ever
    if not message.questions:
        # RFC 7873, section 5.4: nothing is asked but for a cookie.
        return loose | ({NOERROR, BADCOOKIE} if cookie is not None else {FORMERR})
    return loose | _judge_question(message)


def _is_cookie(data: bytes) -> bool:
    return len(data) == 8 or 16 <= len(data) <= 40


def _judge_question(message: Message) -> Verdict:
    ((labels, type_, cls),) = message.questions
    if type_ == OPT and cls == 1:
        return {FORMERR}  # RFC 6891, section 6.1: never asked for
    # RFC 6895, section 3.1: no data, and what to answer where they are unknown is said nowhere.
    meta = type_ in (0, OPT) or 128 <= type_ < 255
    loose: set[Fate] = {FORMERR, NOTIMP, REFUSED} if meta else set()
    if cls != 1:
        # RFC 4892 for CHAOS; others are not served. ANY may be taken for IN.
        served: set[Fate] = {NOERROR, NXDOMAIN} if cls in (3, 255) else {FORMERR}
        return loose | served | {REFUSED}
    if type_ in (251, 252):
        return {HANDED_ON, REFUSED, NOTAUTH, FORMERR, NOTIMP}
    return loose | _judge_name(labels, bool(message.flags & 0x0100))


def _judge_name(labels: tuple[bytes, ...], recursion: bool) -> Verdict:
    name = tuple(label.lower() for label in labels)
    if name[-len(APEX) :] == APEX:
        if name in EXISTING:
            return {NOERROR}
        if len(name) > len(APEX) + 1 and name[-len(APEX) - 2] in OPTIONAL:
            return {NOERROR, NXDOMAIN}
        return {NXDOMAIN}  # RFC 2308; there are no wildcards
    if name and name[-1] in _ARPA_AND_LOCAL:
        return {NOERROR, NXDOMAIN, REFUSED, HANDED_ON}  # known, private, or another's
    return {HANDED_ON} if recursion else {REFUSED}


def limit_of(packet: bytes, most: int = 1232) -> int:
    """Octets that a UDP response may have (RFC 6891, section 6.2.5)."""
    try:
        opts = read(packet).opts
    except Bad:
        return 512
    return max(512, min(opts[0].cls, most)) if opts else 512


def question_of(packet: bytes) -> bytes | None:
    """The question's octets, when there is exactly one that can be read."""
    try:
        _, end = name_at(packet, 12)
    except Bad:
        return None
    one = int.from_bytes(packet[4:6], "big") == 1
    return packet[12 : end + 4] if one and end + 4 <= len(packet) else None
