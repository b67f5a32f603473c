"""The documents of ``/v1/rescue`` made from values.

Rule: as in `discod.api`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def status(host: str, found: Mapping[str, Any]) -> Document:
    """``/v1/rescue/status``."""
    services = [_plain(row) for row in found.get("services", ())]
    return {"host": host, **_plain(found), "services": services}


def entries(host: str, rows: Rows) -> Document:
    """``/v1/rescue/entries``."""
    return {"host": host, "entries": [_plain(row) for row in rows]}


def clients(host: str, rows: Rows) -> Document:
    """``/v1/rescue/clients``."""
    return {"host": host, "clients": [_plain(row) for row in rows]}


def vips(host: str, rows: Rows) -> Document:
    """``/v1/rescue/vips``."""
    return {"host": host, "vips": [_plain(row) for row in rows]}


def _plain(row: Mapping[str, Any]) -> Document:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
