"""RDATA of SVCB and HTTPS (RFC 9460).

Rule: only ServiceMode is made (a SvcPriority of 0 would be AliasMode, for which we have CNAME);
SvcParams stand in ascending order of their keys (section 2.2). Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

ALPN: Final = 1
PORT: Final = 3
IPV4HINT: Final = 4
IPV6HINT: Final = 6
"""SvcParamKeys (section 14.3.2)."""

HINTS_MAX: Final = 8
"""Addresses of one family in one record. They are hints: the additional section and the target's
own name have them all."""

_PARAM = struct.Struct(">HH")
_PORT_PARAM = struct.Struct(">HHH")
_PRIORITY = struct.Struct(">H")


def service_mode(
    priority: int,
    target: bytes,
    port: int,
    alpn: bytes,
    ipv4: Sequence[bytes],
    ipv6: Sequence[bytes],
) -> bytes:
    """RDATA of one record.

    Args:
        priority: Small comes first; 0 is sent as 1.
        target: TargetName in wire form, which is never compressed (section 2.2).
        port: 1 to 65535.
        alpn: What `alpn_value` made; empty: not said.
        ipv4: Addresses of the target, 4 octets each.
        ipv6: Addresses of the target, 16 octets each.
    """
    parts = [_PRIORITY.pack(priority or 1), target]
    if alpn:
        parts += (_PARAM.pack(ALPN, len(alpn)), alpn)
    parts.append(_PORT_PARAM.pack(PORT, 2, port))
    for key, addresses in ((IPV4HINT, ipv4), (IPV6HINT, ipv6)):
        if addresses:
            hints = b"".join(addresses[:HINTS_MAX])
            parts += (_PARAM.pack(key, len(hints)), hints)
    return b"".join(parts)


def alpn_value(ids: Iterable[str]) -> bytes:
    """The value of ``alpn``: ids of 1 to 255 octets, each with its length (section 7.1.1).

    What is no such id is left out. ``no-default-alpn`` is never sent: whoever speaks h2 for HTTPS
    is taken to speak http/1.1 too, as section 7.1.2 asks of at least one record.
    """
    encoded = (id_.encode("utf-8", "replace") for id_ in ids)
    return b"".join([bytes((len(id_),)) + id_ for id_ in encoded if 0 < len(id_) <= 255])
