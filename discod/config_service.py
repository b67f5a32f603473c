"""The check of a static service: its two short forms and its table.

Rule: a check leaves here with every value filled in, from its own table or from ``[checks]``. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from discod.config_values import (
    Invalid,
    Mismatch,
    Rule,
    Wrong,
    choice,
    duration,
    integer,
    mapping,
    text,
)
from discod.model.settings import Check, CheckSettings

INTERVAL = duration(0.1, 3600)
TIMEOUT = duration(0.05, 600)
RISE = integer(1, 100)
FALL = integer(1, 100)

ATTRIBUTES = mapping(
    "a table of strings, with keys of letters, digits, '_', '-' and '.'",
    lambda key: re.match(r"[\w.-]{1,63}\Z", key, re.ASCII) is not None,
)

HTTP_PATH = text(
    'a path of printable ASCII without spaces, as "/health"',
    lambda v: v.startswith("/") and v.isascii() and v.isprintable() and " " not in v,
)

_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?\Z")


def _status(value: object) -> tuple[int, int]:
    shown = str(value) if isinstance(value, int) and 0 <= value < 1000 else value
    match = _STATUS.match(shown) if isinstance(shown, str) else None
    if match is None:
        raise Mismatch
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise Mismatch(f"write {high}-{low}")
    return low, high


STATUS: Rule[tuple[int, int]] = Rule('an HTTP status or a range, as 200 or "200-399"', _status)


def _argv(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or value[0] == "":
        raise Mismatch
    for index, part in enumerate(value):
        if not isinstance(part, str) or "\0" in part:
            raise Invalid(Wrong((index,), part, "expected a string"))
    return tuple(value)


COMMAND: Rule[tuple[str, ...]] = Rule("a list of strings: a program and its arguments", _argv)

CHECK_RULES: dict[str, Rule[Any]] = {
    "kind": choice("tcp", "http", "cmd"),
    "port": integer(1, 65535),
    "path": HTTP_PATH,
    "status": STATUS,
    "command": COMMAND,
    "interval": INTERVAL,
    "timeout": TIMEOUT,
    "rise": RISE,
    "fall": FALL,
}
"""Keys of the table form."""

_KINDS = {"port": ("tcp", "http"), "path": ("http",), "status": ("http",), "command": ("cmd",)}
"""Keys that only some kinds have."""


@dataclass(frozen=True, slots=True)
class PartialCheck:
    """A check as written: only the values that were named."""

    values: dict[str, Any] = field(default_factory=dict)

    def complete(self, defaults: CheckSettings) -> Check:
        """Fill in what was not named; a default timeout is never longer than the interval."""
        interval = self.values.get("interval", defaults.interval)
        whole = {
            "timeout": min(defaults.timeout, interval),
            "rise": defaults.rise,
            "fall": defaults.fall,
            **self.values,
            "interval": interval,
        }
        return Check(**whole)


def _check(value: object) -> PartialCheck:
    if value == "tcp":
        return PartialCheck({"kind": "tcp"})
    if isinstance(value, str) and value.startswith("http:"):
        return PartialCheck({"kind": "http", "path": HTTP_PATH(value.removeprefix("http:"))})
    if not isinstance(value, dict):
        raise Mismatch
    wrongs: list[Wrong] = []
    found: dict[str, Any] = {}
    for key, entry in value.items():
        rule = CHECK_RULES.get(key)
        if rule is None:
            known = ", ".join(CHECK_RULES)
            wrongs.append(Wrong((key,), entry, f"unknown key; expected one of {known}"))
            continue
        try:
            found[key] = rule(entry, (key,))
        except Invalid as invalid:
            wrongs += invalid.wrongs
    wrongs += _misfits(value, found)
    if wrongs:
        raise Invalid(*wrongs)
    return PartialCheck(found)


def _misfits(written: dict[str, Any], found: dict[str, Any]) -> list[Wrong]:
    """What does not go together inside one check's table."""
    if "kind" not in written:
        return [Wrong((), written, f"expected also kind, {CHECK_RULES['kind'].text}")]
    kind = found.get("kind")
    if kind is None:
        return []
    wrongs = [
        Wrong((key,), written[key], f"expected no {key} in a check of kind {kind}")
        for key, kinds in _KINDS.items()
        if key in found and kind not in kinds
    ]
    if kind == "cmd" and "command" not in written:
        wrongs.append(Wrong((), written, f"expected also command, {COMMAND.text}"))
    if found.get("timeout", 0) > found.get("interval", float("inf")):
        wrongs.append(Wrong(("timeout",), written["timeout"], "expected at most the interval"))
    return wrongs


CHECK: Rule[PartialCheck] = Rule(
    '"tcp", "http:/PATH", or a table with kind and any of port, path, status, command, interval,'
    " timeout, rise, fall",
    _check,
)
