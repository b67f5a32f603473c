"""A mutator for text with parts: labels, JSON, TOML, HTTP.

Rule: libFuzzer's own mutator breaks the grammar at once; here most changes put words where others
stood, so that what lies behind the parser is reached. All is decided by the seed. Pure.
"""

from __future__ import annotations

import random
import re

from tests.fuzz.mutate import Fallback

_PART = re.compile(rb"[A-Za-z0-9_-]+|[^A-Za-z0-9_-]")
_ODD = (
    b"", b"0", b"-1", b"1", b"65535", b"65536", b"99999999999999999999", b"1e400", b"-0.0", b"NaN",
    b"Infinity", b"1" * 400, b"null", b"true", b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"[",
    b"{",
    b"[" * 200, b"]", b"}", b",", b":", b".", b"..", b"/", b"-", b"_", b"*", b"=", b"#", b"%",
    b"%00",
    b"\n", b"\r\n", b"\0", b"\x1b[31m", b"\x7f", b"\xff", b"\xc3\xbc", b"\xf0\x9f\x92\xa9",
    b"\xe2\x80\xae", b"\xd9\xa1", b"a" * 63, b"a" * 64, b"a" * 300, b"any", b"node", b"dns",
    b"_tcp",
)  # fmt: skip
"""What parsers trip over."""


def mutate_words(
    data: bytes,
    max_size: int,
    seed: int,
    fallback: Fallback,
    words: tuple[bytes, ...] = (),
) -> bytes:
    """`data` changed in one way or a few; at most `max_size` octets.

    Args:
        data: A text, good or bad.
        max_size: Octets.
        seed: Decides everything.
        fallback: Another mutator, asked for a part of the cases.
        words: Of the grammar.
    """
    rng = random.Random(seed)
    if not data or rng.random() < 0.15:
        return bytes(fallback(data, max_size))[:max_size]
    parts = _PART.findall(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        word = rng.choice(words if words and rng.random() < 0.6 else _ODD)
        match rng.randrange(7):
            case 0 | 1:
                parts[at] = word
            case 2:
                parts.insert(at, word)
            case 3:
                del parts[at : at + rng.choice((1, 1, 2, 8))]
            case 4:  # the same again: a key twice, a longer list
                parts[at:at] = parts[at : at + rng.randrange(1, 32)]
            case 5:
                other = rng.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case 6:
                part = bytearray(parts[at])
                if part:
                    part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
                parts[at] = bytes(part)
        if not parts:
            return b""
    return b"".join(parts)[:max_size]
