"""What the engine's list says of one container, boiled down to "has it changed since?".

Rule: two lists give equal summaries exactly when nothing that matters to discod differs in them.
The list of 100 containers is one request, where looking at each would be 100. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

_HEALTH = re.compile(r"\((healthy|unhealthy|health: starting)\)")


@dataclass(frozen=True, slots=True)
class Summary:
    """One container of the engine's list."""

    id: str
    fingerprint: str
    """Over state, health, names, labels, image, ports and networks, with their addresses and
    endpoint ids: those are new at every start, so that a restart between two lists shows. It does
    not with host networking or none, where only its pidfd or its events tell."""


def summarise(item: Mapping[str, Any]) -> Summary:
    """The summary of one element of ``GET /containers/json``.

    Raises:
        ValueError: it has no ``Id``.
    """
    id_ = item.get("Id")
    if not isinstance(id_, str) or not id_:
        raise ValueError(f"Id: expected a string, found {id_!r:.80}")
    # `Status` is "Up 3 minutes (healthy)": its time goes on by itself, only the health counts.
    health = _HEALTH.search(str(item.get("Status")))
    said = {
        "state": item.get("State"),
        "health": health[1] if health else "",
        "image": item.get("Image"),
        "labels": item.get("Labels"),
        "mode": item.get("HostConfig"),
        "networks": item.get("NetworkSettings"),
        # The engine keeps these two in maps: their order says nothing.
        "names": sorted(map(_canonical, _list(item, "Names"))),
        "ports": sorted(map(_canonical, _list(item, "Ports"))),
    }
    return Summary(id_, blake2b(_canonical(said).encode(), digest_size=16).hexdigest())


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _list(item: Mapping[str, Any], name: str) -> list[Any]:
    value = item.get(name)
    return value if isinstance(value, list) else []
