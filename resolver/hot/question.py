"""Queries of the usual shape, taken apart by a few slices.

Rule: a query is either exactly what nearly all queries are (one question of class IN in our domain,
perhaps an OPT record with nothing or a cookie in it), or it is not read here at all. Whoever gets a
`Question` may still not believe in its name: only `labels_of` looks at each label. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from resolver.cookies import COOKIE
from resolver.encode import UDP_PLAIN
from resolver.record import NAME_OCTETS

HEAD: Final = 10
"""Octets of a packet without its id before the question: flags and counts."""
OPT_SIZE: Final = 11
"""Octets of an OPT record without options."""

_PLAIN_COUNTS = b"\0\1\0\0\0\0\0\0"
_EDNS_COUNTS = b"\0\1\0\0\0\0\0\1"
_FLAGS_KNOWN = 0x0130
"""RD, AD and CD: all that a usual query may have set."""
_COOKIE_SIZES = (OPT_SIZE + 12, OPT_SIZE + 28)
"""Of an OPT record that holds nothing but a cookie: the client's, or both halves of ours."""
LABEL_MAX: Final = 63
"""Octets (RFC 1035, section 2.3.4)."""
_DO = 0x80


class Question(NamedTuple):
    """A query of the usual shape."""

    norm: bytes
    """The packet without its id, with the name in lower case and without the cookie."""
    question: bytes
    """The question as it came."""
    name: bytes
    """In lower case, wire form."""
    type: int
    cookie: bytes
    """Data of the option; empty: there is none."""
    limit: int
    """Octets that the response may have."""

    @property
    def canonical(self) -> bytes:
        """The question as it is in `norm`."""
        return self.norm[HEAD : HEAD + len(self.question)]

    @property
    def shape(self) -> tuple[bytes, int]:
        """What a response depends on beside the question: flags and counts; DO, -1 without EDNS."""
        tail = self.norm[HEAD + len(self.question) :]
        return self.norm[:HEAD], (tail[7] & _DO) if tail else -1

    @property
    def key(self) -> bytes:
        """The packet without its id, as it came."""
        tail = self.norm[HEAD + len(self.question) :]
        if self.cookie:
            option = COOKIE.to_bytes(2, "big") + len(self.cookie).to_bytes(2, "big") + self.cookie
            tail = tail[:-2] + len(option).to_bytes(2, "big") + option
        return self.norm[:HEAD] + self.question + tail


def read(key: bytes, apex: bytes, udp_size: int) -> Question | None:
    """Take a query apart; None when it is not of the usual shape, or not of our domain.

    Args:
        key: The packet without its id.
        apex: The domain in wire form.
        udp_size: Octets of our largest UDP response.
    """
    if int.from_bytes(key[:2], "big") & ~_FLAGS_KNOWN:
        return None
    end = key.find(b"\0", HEAD) + 5  # of the question; no usual name has a zero inside
    # The length of a label is 63 at most, so lower() changes none; of the type it would.
    name = key[HEAD : end - 4].lower()
    if end < HEAD + 5 or end > len(key) or not name.endswith(apex):
        return None
    if len(name) > NAME_OCTETS or key[end - 2 : end] != b"\0\1":
        return None
    question = key[HEAD:end]
    tail = key[end:]
    cookie = b""
    limit = UDP_PLAIN
    if not tail:
        if key[2:HEAD] != _PLAIN_COUNTS:
            return None
    else:
        # Root, OPT, size; extended rcode and version 0; flags; length of the options.
        if key[2:HEAD] != _EDNS_COUNTS or tail[:3] != b"\0\0\x29" or tail[5:7] != b"\0\0":
            return None
        size = len(tail) - OPT_SIZE
        if size:
            if len(tail) not in _COOKIE_SIZES:
                return None
            if tail[9:15] != bytes((0, size, 0, COOKIE, 0, size - 4)):
                return None
            cookie = tail[15:]
            tail = tail[:9] + b"\0\0"
        elif tail[9:] != b"\0\0":
            return None
        limit = max(UDP_PLAIN, min(int.from_bytes(tail[3:5], "big"), udp_size))
    norm = key[:HEAD] + name + question[-4:] + tail
    type_ = int.from_bytes(question[-4:-2], "big")
    return Question(norm, question, name, type_, cookie, limit)


def labels_of(name: bytes, apex: bytes) -> list[bytes]:
    """The labels of a name of the domain that are below it; none when the name is not sound."""
    labels: list[bytes] = []
    end = len(name) - len(apex)
    at = 0
    while at < end:
        length = name[at]
        if length > LABEL_MAX:
            return []
        at += 1
        labels.append(name[at : at + length])
        at += length
    return labels if at == end else []


def depends(labels: Iterable[bytes], aliases: AbstractSet[bytes]) -> tuple[bytes, ...]:
    """The services that a name may depend on: all its labels, without underscores.

    The empty label stands for all services: an alias may lead to any.
    """
    found = [label.removeprefix(b"_") for label in labels]
    if not aliases.isdisjoint(found):
        found.append(b"")
    return tuple(dict.fromkeys(found))
