"""What hosts say to each other about who is alive, and the datagrams that carry it.

Rule: the codec, and nothing of what a message means for anybody. A datagram is
`discod.model.seal`'s frame, ``dsl1``, around a JSON list: a number that only grows in one run of
the sender's daemon, the message's name, its fields. No message is answered by a longer one than
`LONGER` octets more, so nobody can use a host to amplify. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from discod.model.names import is_label
from discod.model.seal import Kind, Sealed

KIND = Kind(b"dsl1", "discod liveness 1")
NAMES_MAX = 12
"""Hosts in one `Word`: with the longest names it still fits a datagram."""
NONCE_MAX = 2**63


class MessageError(ValueError):
    """A body that is no message; says why."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A question whether the receiver is there."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Its answer. Whoever knows the nonce has had the ping: so it counts even unsigned."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Is `host` there, as far as you can see? I do not see it."""

    nonce: int
    host: str


@dataclass(frozen=True, slots=True)
class Seen:
    """It is: the answer to an `Ask`."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Word:
    """What the sender has seen with its own eyes, for everybody."""

    silent: tuple[tuple[str, int], ...] = ()
    """Hosts from which nothing at all comes, and milliseconds since when."""
    alive: tuple[str, ...] = ()
    """Hosts that have answered it just now; its own name refutes what others say of it."""


Message = Ping | Ack | Ask | Seen | Word


def encode(message: Message, number: int, host: str, domain: str, key: bytes) -> bytes:
    """The datagram of a message.

    Args:
        message: What to say; of a `Word` at most `NAMES_MAX` names.
        number: Larger than any that this run of the daemon has used.
        host: The sender.
        domain: Of the cluster.
        key: The sender's.
    """
    match message:
        case Ping(nonce):
            fields: list[object] = ["ping", nonce]
        case Ack(nonce):
            fields = ["ack", nonce]
        case Ask(nonce, whom):
            fields = ["ask", nonce, whom]
        case Seen(nonce):
            fields = ["seen", nonce]
        case Word(silent, alive):
            fields = ["word", [list(one) for one in silent], list(alive)]
    body = json.dumps([number, *fields], separators=(",", ":")).encode()
    return KIND.seal(host, body, domain, key)


def decode(sealed: Sealed) -> tuple[int, Message]:
    """Number and message of an opened datagram, whoever made it.

    Raises:
        MessageError: it is malformed.
    """
    try:
        number, name, *fields = json.loads(sealed.body)
        return _integer(number), _message(name, fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"malformed: {error!r}") from None


def _message(name: object, fields: list[Any]) -> Message:
    match name, fields:
        case "ping", [nonce]:
            return Ping(_integer(nonce))
        case "ack", [nonce]:
            return Ack(_integer(nonce))
        case "ask", [nonce, host]:
            return Ask(_integer(nonce), _host(host))
        case "seen", [nonce]:
            return Seen(_integer(nonce))
        case "word", [list(silent), list(alive)] if len(silent) + len(alive) <= NAMES_MAX:
            return Word(
                tuple((_host(host), _integer(since)) for host, since in silent),
                tuple(_host(host) for host in alive),
            )
    raise ValueError(f"unknown message {str(name)[:20]!r}")


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < NONCE_MAX:
        raise ValueError("expected an integer from 0 on")
    return value


def _host(value: object) -> str:
    if not isinstance(value, str) or not is_label(value):
        raise ValueError("expected the name of a host")
    return value
