"""The documents of ``/v1/bgp``, made from values.

Rule: as in `discod.api`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def status(host: str, found: Mapping[str, Any]) -> Document:
    """``/v1/bgp/status``."""
    return {"host": host, **found}


def peers(host: str, rows: Rows) -> Document:
    """``/v1/bgp/peers``."""
    return {"host": host, "peers": [_plain(row) for row in rows]}


def routes(host: str, rows: Rows) -> Document:
    """``/v1/bgp/routes``."""
    return {"host": host, "routes": [_plain(row) for row in rows]}


def _plain(row: Mapping[str, Any]) -> Document:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
