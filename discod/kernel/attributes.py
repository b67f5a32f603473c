"""Netlink attributes: type, length, value, padded to 4 octets. Pure.

`netlink(7)`, RFC 3549; `linux/netlink.h`. Lengths and types are in the host's byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

NESTED: Final = 0x8000
"""NLA_F_NESTED."""
_TYPE: Final = 0x3FFF
_HEAD: Final = struct.Struct("=HH")


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute."""
    return _HEAD.pack(len(data) + 4, kind) + data + b"\0" * (-len(data) & 3)


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type (without its flags) and payload of each attribute of `data` from `start` on.

    What is no whole attribute ends it.
    """
    size = len(data)
    while start + 4 <= size:
        length, kind = _HEAD.unpack_from(data, start)
        if length < 4 or start + length > size:
            return
        yield kind & _TYPE, data[start + 4 : start + length]
        start += (length + 3) & ~3
