"""How good messages become bad ones: a mutator that knows that DNS is made of fixed places.

Rule: libFuzzer's own mutator inserts and deletes, which mostly breaks lengths and counts; here most
changes keep the length, so that what lies behind the first check is reached. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable

NUMBERS = (0, 1, 2, 11, 12, 28, 33, 41, 63, 64, 127, 128, 192, 250, 255, 256, 512, 1232, 65535)
"""Octets and 16-bit numbers at which DNS changes its mind."""

Fallback = Callable[[bytes, int], bytes]


def mutate(data: bytes, max_size: int, seed: int, fallback: Fallback) -> bytes:
    """`data` changed in one way or a few; at most `max_size` octets.

    Args:
        data: A message, good or bad.
        max_size: Octets.
        seed: Decides everything.
        fallback: Another mutator, asked for a part of the cases.
    """
    rng = random.Random(seed)
    if not data or rng.random() < 0.2:
        return bytes(fallback(data, max_size))[:max_size]
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(made))
        match rng.randrange(6):
            case 0 | 1:
                made[at] = rng.randrange(256)
            case 2:
                made[at] ^= 1 << rng.randrange(8)
            case 3:
                made[at : at + 2] = rng.choice(NUMBERS).to_bytes(2, "big")
            case 4:  # one more or less: counts, lengths, types
                made[at] = (made[at] + rng.choice((-1, 1))) % 256
            case 5:  # the same again: a second OPT, a second question, a longer name
                part = made[at : at + rng.randrange(1, 32)]
                if len(made) + len(part) <= max_size:
                    made[at:at] = part
    return bytes(made[:max_size])
