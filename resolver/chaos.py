"""Class CHAOS: which server this is, and what it runs (RFC 4892).

Rule: it tells what the operator configured and nothing else; what is not configured is refused.
Pure.
"""

from __future__ import annotations

from typing import Final

from resolver.record import ANY, RR, TXT, Name, txt

CH: Final = 3
"""Class CHAOS."""

_VERSION = frozenset({(b"version", b"bind"), (b"version", b"server")})
_IDENTITY = frozenset({(b"id", b"server"), (b"hostname", b"bind")})


def answer(name: Name, qtype: int, identity: str, version: str) -> RR | None:
    """The TXT record of class CH at `name`; None: to be refused.

    Args:
        name: What was asked.
        qtype: Of which type.
        identity: ``dns.server_id``.
        version: ``dns.server_version``.
    """
    if qtype not in (TXT, ANY):
        return None
    text = version if name in _VERSION else identity if name in _IDENTITY else ""
    return RR(name, TXT, txt([text.encode()])) if text else None
