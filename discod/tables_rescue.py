"""``discod rescue`` and ``discod vip``: their documents for people.

Rule: as in `discod.tables`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from discod.tables import Page, age, render, socket_address, table, tame, without_empty

ROWS_SHOWN = 50
"""Of each table of ``discod rescue status``; ``--json`` has all."""


def status(page: Page, document: Any) -> str:
    """``discod rescue status``: how it stands, what it did, who made it necessary, and for what."""
    one = document["status"]
    parts = [
        "\n".join(map(tame, _head(one))),
        _services(page, one["services"]),
        _clients(page, document["clients"]),
        _entries(page, document["entries"]),
    ]
    return "\n\n".join(filter(None, parts))


def vips(page: Page, document: Any) -> str:
    """``/v1/rescue/vips``."""
    rows = [
        [
            one["service"],
            socket_address(one),
            one["protocol"],
            _affinity(one["affinity"]),
            " ".join(one["endpoints"]) or "none: refused",
        ]
        for one in document["vips"]
    ]
    if not rows:
        return "no service addresses"
    head = ("SERVICE", "ADDRESS", "PROTOCOL", "AFFINITY", "ENDPOINTS")
    loose = frozenset({"ENDPOINTS"})
    return render(page, table(page, *without_empty(head, rows, {"AFFINITY"}), loose=loose))


def _head(one: Any) -> list[str]:
    if not one["enabled"]:
        return ["rescue is off: expected [rescue] enabled = true"] + (
            [f"FAULT: {one['fault']}"] if one["fault"] else []
        )
    lines = [
        f"rescue is on: {one['entries']} of at most {one['max_entries']} stale addresses, each held"
        f" for {_seconds(one['hold'])} after its last use"
    ]
    if one["dropped"]:
        lines.append(
            f"{one['dropped']} stale addresses were let go early, since there were"
            f" {one['max_entries']} (rescue.max_entries)"
        )
    if one["fault"]:
        lines.append(f"FAULT: {one['fault']}")
    return lines


def _services(page: Page, services: Sequence[Any]) -> str:
    rows = [
        [
            one["service"],
            str(one["rescued"]),
            str(one["reset"]),
            str(one["refused"]),
            str(one["cut"]),
            str(one["clients"]),
        ]
        for one in services
    ]
    head = ("SERVICE", "RESCUED", "RESET", "REFUSED", "SOCKETS CUT", "CLIENTS")
    return _titled(page, "what was done", head, rows, frozenset())


def _clients(page: Page, clients: Sequence[Any]) -> str:
    rows = [
        [
            one["client"],
            one["name"],
            one["service"],
            socket_address(one),
            str(one["rescued"]),
            str(one["reset"]),
            str(one["refused"]),
            f"{age(page.now, one['last'])} ago" if one["last"] else "",
        ]
        for one in clients
    ]
    head = ("CLIENT", "NAME", "SERVICE", "STILL USES", "RESCUED", "RESET", "REFUSED", "LAST")
    if not rows:
        return "no client uses a stale address"
    return _titled(
        page, "clients that still use stale addresses", head, rows, frozenset({"NAME"}), {"NAME"}
    )


def _entries(page: Page, entries: Sequence[Any]) -> str:
    rows = [
        [
            socket_address(one),
            one["protocol"],
            one["service"],
            one["reason"],
            age(page.now, one["since"]),
            _seconds(max(0.0, one["until"] - page.now)),
            str(one["clients"]),
            _goes_to(one),
            one["instance"],
        ]
        for one in entries
    ]
    head = (
        "STALE ADDRESS", "PROTOCOL", "SERVICE", "REASON", "FOR", "LEFT", "CLIENTS", "GOES TO",
        "INSTANCE",
    )  # fmt: skip
    loose = frozenset({"GOES TO", "INSTANCE"})
    return _titled(page, "stale addresses", head, rows, loose)


def _titled(
    page: Page,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    loose: frozenset[str],
    optional: set[str] | frozenset[str] = frozenset(),
) -> str:
    """A table below its title, and how much of it was left out; nothing when there is no row."""
    if not rows:
        return ""
    shown = rows[:ROWS_SHOWN]
    text = render(page, table(page, *without_empty(head, shown, optional), loose=loose))
    if len(shown) < len(rows):
        text += f"\nand {len(rows) - len(shown)} more; --json has all"
    return f"{title}:\n{text}"


def _goes_to(one: Mapping[str, Any]) -> str:
    """Where packets to a stale address go, in words."""
    words = " ".join(one["goes_to"])
    if not words:
        words = "refused" if one["refused"] else "nowhere: left to the network"
    return words if one["cut"] else f"{words} (open connections left alone)"


def _affinity(value: object) -> str:
    if isinstance(value, str):
        return "" if value == "none" else value
    return "client" if value else ""


def _seconds(seconds: float) -> str:
    """``45s``, ``10m``, ``1h05m``."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    return f"{whole // 60}m" if whole < 7200 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
