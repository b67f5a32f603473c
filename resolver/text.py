"""TXT: what the producers said of their endpoints.

Rule: one record an endpoint, of ``key=value`` strings (RFC 6763, section 6), or of the free text of
a foreign record; what has no place in a string of TXT is left out, never mended. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resolver.offered import Offered
from resolver.record import txt

STRING_MAX = 255
"""Octets of one string in TXT (RFC 1035, section 3.3)."""
TXT_MAX = 8192
"""Octets of one TXT record of ours; what does not fit is left out, so that it always fits TCP."""


def texts(endpoints: Sequence[Offered]) -> Iterable[bytes]:
    """RDATA of the TXT records of `endpoints`, each once."""
    found: dict[bytes, None] = {}
    for endpoint in endpoints:
        if not endpoint.attributes and not endpoint.text:
            continue
        pairs = [
            f"{key}={value}".encode("utf-8", "replace")
            for key, value in endpoint.attributes
            # RFC 6763, section 6.4: printable ASCII without "=".
            if key and key.isascii() and key.isprintable() and "=" not in key
        ]
        text = endpoint.text.encode("utf-8", "replace")
        chunks = [text[i : i + STRING_MAX] for i in range(0, len(text), STRING_MAX)]
        for strings in (pairs, chunks):
            if rdata := txt(_bounded(strings)):
                found[rdata] = None
    return found


def _bounded(strings: Iterable[bytes]) -> Iterable[bytes]:
    room = TXT_MAX
    for string in strings:
        if len(string) <= min(STRING_MAX, room - 1):
            room -= len(string) + 1
            yield string
