"""Who uses stale places, from what nft says of the counting sets.

Rule: what is no count of ours is skipped, never an error: the kernel's counts are for people. Pure.

The output of ``nft -j list set`` (``libnftables-json(5)``); elements are
``{"elem": {"val": {"concat": [client, address, protocol, port]}, "counter": {"packets": n}}}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from discod.model.endpoint import Protocol
from discod.model.rescue import Place, Result, Usage

SETS: Final = {"rescued": Result.RESCUED, "reset": Result.RESET, "refused": Result.REFUSED}
"""Sets that count clients, without their family."""
_PROTOCOLS: Final[dict[Any, Protocol]] = {"tcp": "tcp", "udp": "udp", 6: "tcp", 17: "udp"}


def counts(output: str) -> Iterator[Usage]:
    """Of one set's listing.

    Raises:
        ValueError: it is no JSON.
    """
    for one in _list(_dict(json.loads(output)).get("nftables")):
        listed = _dict(_dict(one).get("set"))
        result = SETS.get(str(listed.get("name", ""))[:-1])
        if result is None:
            continue
        for element in _list(listed.get("elem")):
            if (usage := _usage(_dict(_dict(element).get("elem")), result)) is not None:
                yield usage


def places(output: str) -> Iterator[Place]:
    """The places of one listing of a set of places that has no counts.

    Raises:
        ValueError: it is no JSON.
    """
    for one in _list(_dict(json.loads(output)).get("nftables")):
        for element in _list(_dict(_dict(one).get("set")).get("elem")):
            inner = _dict(element)
            whole = _dict(inner.get("elem")).get("val", inner)
            if (place := _place(_list(_dict(whole).get("concat")))) is not None:
                yield place


def _usage(element: dict[str, Any], result: Result) -> Usage | None:
    fields = _list(_dict(element.get("val")).get("concat"))
    times = _dict(element.get("counter")).get("packets")
    place = _place(fields[1:])
    if place is None or not isinstance(times, int) or times <= 0:
        return None
    try:
        client = ip_address(str(fields[0]))
    except ValueError:
        return None
    return Usage(client, place, result, times)


def _place(fields: list[Any]) -> Place | None:
    match fields:
        case [str(address), (str() | int()) as protocol, int(port)] if protocol in _PROTOCOLS:
            try:
                return Place(ip_address(address), port, _PROTOCOLS[protocol])
            except ValueError:
                return None
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
