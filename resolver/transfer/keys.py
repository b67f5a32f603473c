"""TSIG keys and the file that holds them.

Rule: a line is ``NAME ALGORITHM BASE64``; what follows ``#`` is a comment. HMAC-MD5 is not taken
(RFC 8945, section 6). A fault names its line and never the secret. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from resolver.record import Name, fits, to_name

ALGORITHMS: Final[dict[Name, Callable[..., Any]]] = {
    (b"hmac-sha256",): hashlib.sha256,
    (b"hmac-sha512",): hashlib.sha512,
    (b"hmac-sha384",): hashlib.sha384,
    (b"hmac-sha224",): hashlib.sha224,
    (b"hmac-sha1",): hashlib.sha1,
}
"""Name on the wire -> hash (https://www.iana.org/assignments/tsig-algorithm-names)."""
SECRET_MIN: Final = 8
"""Octets of a secret; less is a typing error."""


class KeyFault(ValueError):
    """A line of a key file that is none; the text has its number and what was expected."""


@dataclass(frozen=True, slots=True)
class Key:
    """One shared secret."""

    name: Name
    algorithm: Name
    secret: bytes = field(repr=False)


def parse_keys(text: str) -> tuple[Key, ...]:
    """The keys of a file, in its order.

    Raises:
        KeyFault.
    """
    found: dict[Name, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key = _key(words)
        except ValueError as error:
            raise KeyFault(f"line {number}: {error}") from None
        if key.name in found:
            raise KeyFault(f"line {number}: a second key of the name {words[0]}")
        found[key.name] = key
    return tuple(found.values())


def _key(words: list[str]) -> Key:
    if len(words) != 3:
        raise ValueError("expected NAME ALGORITHM BASE64")
    name, algorithm = to_name(words[0]), to_name(words[1])
    if not name or not fits(name) or any(not 0 < len(label) < 64 for label in name):
        raise ValueError("the name is no domain name")
    if algorithm not in ALGORITHMS:
        known = ", ".join(known[0].decode() for known in ALGORITHMS)
        raise ValueError(f"unknown algorithm {words[1]}, expected one of {known}")
    try:
        secret = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the secret is not base64") from None
    if len(secret) < SECRET_MIN:
        raise ValueError(f"the secret has fewer than {SECRET_MIN} octets")
    return Key(name, algorithm, secret)
