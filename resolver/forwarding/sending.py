"""The query that goes to an upstream, and what is taken for its reply.

Rule: of the client only the question and its DO, CD go on. What comes back must have the id, the
question in its very case, and our cookie where there is one; all else is passed over as if it had
not come (RFC 5452, section 9; RFC 7873, section 5.3). Pure: chance is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from resolver.encode import opt
from resolver.forwarding.case import flipped, lowered
from resolver.forwarding.health import Upstream
from resolver.forwarding.loops import OPTION
from resolver.forwarding.reply import COOKIE, Reply, read_reply
from resolver.record import FORMERR, NOTIMP
from resolver.wire import HEADER, QR, RD, TC, Query

BADVERS, BADCOOKIE = 16, 23
COOKIE_OCTETS: Final = 8
"""Of the client's part; the server's has 8 to 32."""

_AD, _CD = 0x0020, 0x0010


class Asked(NamedTuple):
    """A question, whoever asks it."""

    question: bytes
    """In lower case."""
    do: bool
    cd: bool
    trail: bytes = b""
    """The discods that it came through; see `loops`."""

    @property
    def key(self) -> bytes:
        """What answers are kept under."""
        return self.question + bytes((self.do | self.cd << 1,))


def asked(query: Query, trail: bytes = b"") -> Asked:
    """What a client's query asks."""
    edns = query.edns
    do = edns is not None and edns.do
    return Asked(lowered(query.question), do, bool(query.flags & _CD), trail)


class Other(Enum):
    """What a packet is when it is not the reply."""

    CASE = "the question in another case"
    NONE = "no reply to this query"


class Sent(NamedTuple):
    """One query on its way."""

    packet: bytes
    id: int
    question: bytes
    exact: bool
    """Whether the case counts."""
    edns: bool
    cookie: bytes
    """Our part; empty where none was sent."""

    def judge(self, packet: bytes) -> Reply | Other:
        """What a packet from the upstream is.

        Raises:
            Malformed: the reply, but it cannot be read.
        """
        if len(packet) < HEADER.size:
            return Other.NONE
        id_, flags, questions, *_ = HEADER.unpack_from(packet)
        if id_ != self.id or not flags & QR or flags & 0x7800 or questions != 1:
            return Other.NONE
        question = self.question
        if not packet.startswith(question, HEADER.size):
            if lowered(packet[HEADER.size : HEADER.size + len(question)]) != lowered(question):
                return Other.NONE
            if self.exact:
                return Other.CASE
        reply = read_reply(packet, question)
        if reply.cookie and reply.cookie[:COOKIE_OCTETS] != self.cookie:
            return Other.NONE
        return reply


def make(
    to: Upstream,
    what: Asked,
    now: float,
    bits: Callable[[int], int],
    *,
    udp_size: int,
    random_case: bool,
    own_id: bytes,
) -> Sent:
    """The query for an upstream.

    `bits` gives so many random bits that nobody can guess; `udp_size` is how many octets we take;
    `random_case` whether to ask in random case where the upstream keeps it; `own_id` this discod's
    mark, see `loops`.
    """
    exact = random_case and to.keeps_case(now)
    question = what.question
    if exact:
        question = flipped(question, bits(8 * (len(question) - 4)))
    edns = to.takes_edns(now)
    tail = b""
    if edns:
        options = [(COOKIE, to.cookie + to.server_cookie)]
        if to.private:
            options.append((OPTION, what.trail + own_id))
        tail = opt(udp_size, 0x8000 if what.do else 0, options)
    id_ = bits(16)
    flags = RD | _AD | (_CD if what.cd else 0)  # AD: RFC 6840, section 5.7
    header = HEADER.pack(id_, flags, 1, 0, 0, 1 if edns else 0)
    cookie = to.cookie if edns else b""
    return Sent(header + question + tail, id_, question, exact, edns, cookie)


class Next(Enum):
    """What to do about a reply."""

    DONE = "take it"
    AGAIN = "ask again, as has been learned"
    TCP = "ask over TCP; the reply tells nothing"
    MORE = "ask over TCP; this reply will do if that fails"


def learn(to: Upstream, sent: Sent, reply: Reply, now: float, asked_before: bool) -> Next:
    """Take from a reply over UDP what it says about the upstream."""
    expected = bool(sent.cookie and to.server_cookie)
    if 16 <= len(reply.cookie) <= 40:
        to.server_cookie = reply.cookie[COOKIE_OCTETS:]
    if reply.rcode == BADCOOKIE:
        return Next.TCP if asked_before else Next.AGAIN  # RFC 7873, section 5.3
    if sent.edns and (
        reply.rcode == BADVERS or (not reply.edns and reply.rcode in (FORMERR, NOTIMP))
    ):
        to.refused_edns(now)
        return Next.AGAIN
    if expected and not reply.cookie:
        # It has cookies, so this is forged, or it is another machine at the same address; only one
        # that lies on the path could forge over TCP (RFC 7873, section 6).
        return Next.TCP
    return Next.MORE if reply.flags & TC else Next.DONE
