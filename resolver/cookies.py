"""DNS Cookies, the server's side (RFC 7873, with the layout of RFC 9018).

Rule: a cookie proves that whoever sends it receives at its address; nothing else is concluded from
it. It says so by itself, so that no client costs memory: what is remembered only saves the hash.
Pure: time is the caller's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final, Literal

from resolver.siphash import KEY_OCTETS, siphash24

COOKIE: Final = 10
"""Code of the EDNS option."""
BADCOOKIE: Final = 23
"""Extended rcode: come back with the cookie that is in this response."""
LIFETIME: Final = 3600
RENEW: Final = 1800
FUTURE: Final = 300
"""Seconds: valid for so long, replaced from that age on, and this much ahead of our clock (RFC
9018, section 4.3)."""
REMEMBERED: Final = 4096
"""Options whose verdict is kept; the one kept for longest goes first."""
REMEMBER_FOR: Final = 60
"""Seconds: also how far the time stamp in a new cookie may lag behind."""

_CLIENT = 8
_SERVER_MIN, _SERVER_MAX = 8, 32
_OURS = _CLIENT + 16
_VERSION = 1
_STAMP = struct.Struct(">I")

Verdict = Literal["new", "valid", "bad", "malformed"]
"""A client cookie alone; with a server cookie of ours; with another or an old one; no cookie."""


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets in a file's text: lines of 32 hexadecimal digits; empty ones and ``#`` are none.

    Raises:
        ValueError: a line is something else; the message has its number, never its content.
    """
    secrets = []
    for number, line in enumerate(text.split("\n"), 1):
        digits = line.partition("#")[0].strip()
        if not digits:
            continue
        try:
            secret = bytes.fromhex(digits)
        except ValueError:
            secret = b""
        if len(secret) != KEY_OCTETS or len(digits) != 2 * KEY_OCTETS:
            raise ValueError(f"line {number}: expected 32 hexadecimal digits")
        secrets.append(secret)
    return tuple(secrets)


def is_cookie(option: bytes) -> bool:
    """Whether an option's data has a length that a cookie can have (RFC 7873, section 4)."""
    size = len(option) - _CLIENT
    return size == 0 or _SERVER_MIN <= size <= _SERVER_MAX


class Cookies:
    """Checks cookies and makes them.

    Args:
        secrets: 16 octets each. The first makes cookies, all are accepted (RFC 9018, section 5: add
            the next one last everywhere, then make it the first, then take the old one away).

    Raises:
        ValueError: there is none, or one has another length.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) != KEY_OCTETS for secret in secrets):
            raise ValueError(f"secrets of {KEY_OCTETS} octets are needed")
        self._secrets = tuple(secrets)
        self._known: dict[tuple[bytes, bytes], tuple[int, int, Verdict, bytes]] = {}

    def answer(self, option: bytes, client: bytes, now: int) -> tuple[Verdict, bytes]:
        """What a COOKIE option is worth, and the one to answer with (empty when malformed).

        Args:
            option: Its data.
            client: Address, 4 or 16 octets.
            now: Unix seconds.
        """
        key = option, client
        known = self._known.get(key)
        if known is not None and known[0] <= now < known[1]:
            return known[2], known[3]
        if not is_cookie(option):
            return "malformed", b""
        verdict: Verdict = "new" if len(option) == _CLIENT else "bad"
        reply = b""
        until = now + REMEMBER_FOR
        if len(option) == _OURS and option[_CLIENT] == _VERSION:
            age = _age(option, now)
            made_with = self._made_with(option, client) if -FUTURE <= age <= LIFETIME else None
            if made_with is not None:
                verdict = "valid"
                until = min(until, now + LIFETIME - age + 1)
                if made_with is self._secrets[0] and age <= RENEW and not any(option[9:12]):
                    reply = option
        reply = reply or self._make(option[:_CLIENT], client, now)
        self._known.pop(key, None)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = now, until, verdict, reply
        return verdict, reply

    def _made_with(self, option: bytes, client: bytes) -> bytes | None:
        # The reserved octets count in the hash, whatever they are (RFC 9018, section 4.2).
        signed = option[:16] + client
        for secret in self._secrets:
            if compare_digest(siphash24(secret, signed), option[16:]):
                return secret
        return None

    def _make(self, client_cookie: bytes, client: bytes, now: int) -> bytes:
        head = client_cookie + b"\1\0\0\0" + _STAMP.pack(now & 0xFFFFFFFF)
        return head + siphash24(self._secrets[0], head + client)


def _age(option: bytes, now: int) -> int:
    """Seconds since a cookie was made, in serial number arithmetic (RFC 9018, section 4.3)."""
    age: int = now - _STAMP.unpack_from(option, 12)[0] & 0xFFFFFFFF
    return age - (1 << 32) if age >> 31 else age
