"""SipHash-2-4, the keyed hash of DNS Cookies (RFC 9018, section 4.4).

Rule: a function of key and message, and of nothing else. No library at hand has it (the
interpreter's own `hash` has a key of its own and fewer rounds). Pure.

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

KEY_OCTETS: Final = 16

_M: Final = 0xFFFFFFFFFFFFFFFF
_KEY = struct.Struct("<QQ")
_TWO: Sequence[int] = (0, 0)
_FOUR: Sequence[int] = (0, 0, 0, 0)


def siphash24(key: bytes, message: bytes) -> bytes:
    """The 8 octets of SipHash-2-4, in the order in which a little-endian machine stores them.

    Costs some 10 us for the 20 octets that a cookie over IPv4 takes, 14 us for the 32 of IPv6
    (CPython 3.11): who needs it often remembers what it got.

    Raises:
        struct.error: `key` has not 16 octets.
    """
    mask = _M
    k0, k1 = _KEY.unpack(key)
    size = len(message)
    whole = size >> 3
    steps: list[tuple[int, Sequence[int]]] = [
        (word, _TWO) for word in struct.unpack_from(f"<{whole}Q", message)
    ]
    last = size << 56 & _M | int.from_bytes(message[whole << 3 :], "little")
    steps += ((last, _TWO), (0, _FOUR))
    a = k0 ^ 0x736F6D6570736575
    b = k1 ^ 0x646F72616E646F6D
    c = k0 ^ 0x6C7967656E657261
    d = k1 ^ 0x7465646279746573
    for word, rounds in steps:
        d ^= word
        if rounds is _FOUR:
            c ^= 0xFF
        for _ in rounds:  # written out: a call for each would double the price
            a = a + b & mask
            b = (b << 13 & mask | b >> 51) ^ a
            a = a << 32 & mask | a >> 32
            c = c + d & mask
            d = (d << 16 & mask | d >> 48) ^ c
            a = a + d & mask
            d = (d << 21 & mask | d >> 43) ^ a
            c = c + b & mask
            b = (b << 17 & mask | b >> 47) ^ c
            c = c << 32 & mask | c >> 32
        a ^= word
    digest: int = a ^ b ^ c ^ d
    return digest.to_bytes(8, "little")
