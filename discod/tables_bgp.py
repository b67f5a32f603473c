"""``discod bgp``: its documents for people.

Rule: as in `discod.tables`. Pure.
"""

from __future__ import annotations

from typing import Any

from discod.tables import Page, age, render, table, tame, without_empty


def status(page: Page, document: Any) -> str:
    """``/v1/bgp/status``."""
    one = document
    lines = [
        f"AS {one['asn']}, router id {one['router_id'] or 'none'}, backend {one['backend']},"
        f" {one['phase']}" + ("" if one["synced"] else ", not synchronised yet"),
        f"peers: {one['established']} of {one['peers']} established",
        f"a stop of discod {one['stop']}",
        f"announced: {len(one['announced'])} prefixes",
        *(f"  {prefix}" for prefix in one["announced"]),
    ]
    lines += [
        f"anycast: {address} to {' '.join(targets)}" for address, targets in one["anycast"].items()
    ]
    lines.append(f"routed: {' '.join(one['routed']) or 'nothing'}")
    lines.append(f"kernel: {one['kernel_routes']} routes of ours")
    lines += [f"  not installed: {p}: {why}" for p, why in one["kernel_faults"].items()]
    lines += [
        f"{'ok     ' if row['good'] else 'MISSING'} {row['what']}: {row['wanted']}"
        + ("" if row["good"] else f"; {row['present']}")
        for row in one["host_side"]
    ]
    lines += [f"CLASH: {clash} has containers in our prefix" for clash in one["clashes"]]
    if one["error"]:
        lines.append(f"error: {one['error']}")
    return "\n".join(map(tame, lines))


def peers(page: Page, document: Any) -> str:
    """``/v1/bgp/peers``."""
    rows = [
        [
            one["name"],
            one["address"],
            str(one["asn"]),
            one["state"] + (" (routes kept)" if one["retained"] else ""),
            age(page.now, one["since"]),
            " ".join(one["families"]),
            str(one["received"]),
            str(one["advertised"]),
            str(one["established"]),
            _last(page, one),
        ]
        for one in document["peers"]
    ]
    if not rows:
        return "no peers"
    head = ("PEER", "ADDRESS", "AS", "STATE", "FOR", "FAMILIES", "IN", "OUT", "UPS", "LAST ERROR")
    loose = frozenset({"LAST ERROR", "FAMILIES"})
    return render(page, table(page, *without_empty(head, rows, {"LAST ERROR"}), loose=loose))


def _last(page: Page, one: Any) -> str:
    if not one["last_error"]:
        return ""
    return f"{one['last_error']} ({age(page.now, one['last_error_at'])} ago)"


def routes(page: Page, document: Any) -> str:
    """``/v1/bgp/routes``."""
    rows = [
        [
            one["prefix"],
            " ".join(one["next_hops"]),
            "yes" if one["installed"] else "no",
            one["as_path"],
            " ".join(one["peers"]),
        ]
        for one in document["routes"]
    ]
    if not rows:
        return "no routes learned"
    head = ("PREFIX", "NEXT HOPS", "IN KERNEL", "AS PATH", "FROM")
    loose = frozenset({"NEXT HOPS", "AS PATH", "FROM"})
    return render(page, table(page, *without_empty(head, rows, {"AS PATH"}), loose=loose))
