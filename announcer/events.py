"""One event of the engine, from its JSON.

Rule: an event only says where to look, so whatever cannot be read is a `ValueError` that the caller
answers with a full comparison. Format and actions: https://docs.docker.com/engine/api/v1.41/
(``/events``); the actions with a colon carry a detail (``health_status: healthy``). Pure.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CONTAINER_ACTIONS = frozenset(
    {
        "create",
        "start",
        "restart",
        "kill",
        "die",
        "oom",
        "stop",
        "destroy",
        "pause",
        "unpause",
        "health_status",
        "rename",
        "update",
    }
)
NETWORK_ACTIONS = frozenset({"connect", "disconnect"})

FILTERS: Mapping[str, list[str]] = {
    "type": ["container", "network"],
    "event": sorted(CONTAINER_ACTIONS | NETWORK_ACTIONS),
}
"""For the engine, which then keeps the rest to itself: every HEALTHCHECK run makes three ``exec_``
events. With ``health_status`` in the list it compares prefixes (moby#25798)."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container."""

    kind: Literal["container", "network"]
    action: str
    """As the engine says it, e.g. ``kill`` or ``health_status: unhealthy``."""
    container: str
    """Full id."""
    signal: int | None = None
    """Of ``kill``."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The container's labels, image and name, or the network's; ``exitCode`` of ``die``."""
    time: float = 0.0
    """By the engine's clock, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Resync:
    """Stands in the stream where events are missing: compare with the engine's whole list."""

    reason: str


def parse_event(line: bytes) -> EngineEvent | None:
    """One line of the engine's stream; None where it is about something else.

    Raises:
        ValueError: the line is no event; the message names what is wrong.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected an object, found {type(document).__name__}")
    kind, action = _text(document, "Type"), _text(document, "Action")
    name = action.partition(":")[0]
    if kind == "container" and name in CONTAINER_ACTIONS:
        attributes = _attributes(document)
        return EngineEvent(
            kind="container",
            action=action,
            container=_text(_object(document, "Actor"), "ID"),
            signal=signal_number(_text(attributes, "signal")) if name == "kill" else None,
            attributes=attributes,
            time=_time(document),
        )
    if kind == "network" and name in NETWORK_ACTIONS:
        attributes = _attributes(document)
        return EngineEvent(
            kind="network",
            action=action,
            container=_text(attributes, "container"),
            attributes=attributes,
            time=_time(document),
        )
    return None


def signal_number(text: str) -> int:
    """``15``, ``TERM``, ``SIGTERM`` or ``SIGRTMIN+3`` as a number.

    Raises:
        ValueError: no such signal.
    """
    if text.isascii() and text.isdigit() and 0 < int(text[:4]) < signal.NSIG:
        return int(text)
    name, plus, offset = text.upper().removeprefix("SIG").partition("+")
    try:
        number = int(signal.Signals[f"SIG{name}"]) + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        number = 0
    if not 0 < number < signal.NSIG:
        raise ValueError(f"no such signal: {text!r:.40}")
    return number


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, found {value!r:.40}")
    return value


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: expected a string, found {value!r:.40}")
    return value


def _attributes(document: Mapping[str, Any]) -> Mapping[str, str]:
    found = _object(document, "Actor").get("Attributes") or {}
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError("Attributes: expected an object of strings")
    return found


def _time(document: Mapping[str, Any]) -> float:
    for name, unit in (("timeNano", 1e9), ("time", 1.0)):
        value = document.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
            return value / unit
    raise ValueError("timeNano: expected Unix nanoseconds")
