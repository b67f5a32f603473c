"""What is wrong with a configuration, and how its keys and values are shown.

Rule: whatever a fault shows is one bounded line of printable text, and no secret is in it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a value stands: table and key names, and indices from 0, e.g. ``("dns", "listen", 1)``."""

VALUE_MAX = 80
"""Characters of a value, or of one part of a key, that a message shows."""

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_USER_INFO = re.compile(r"//\S*@")
_SECRET = re.compile(r"(?i)(password|passwd|secret|token)(?!_file)")


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing wrong with a configuration."""

    key: str
    """Dotted, e.g. ``dns.listen[1]``; indices from 0. Empty: the file as a whole."""
    value: str
    """As TOML would have it, cut to a readable length; empty where there is none."""
    expected: str
    """What is expected instead, in words."""
    line: int | None
    """From 1; None when unknown."""

    def __str__(self) -> str:
        """``dns.listen[1] = "x": expected ADDRESS:PORT``."""
        if not self.key:
            return f"{self.value}: {self.expected}" if self.value else self.expected
        return f"{self.key} = {self.value}: {self.expected}" if self.value else self._bare()

    def _bare(self) -> str:
        return f"{self.key}: {self.expected}"


class ConfigError(Exception):
    """A configuration with faults: all of them, in the order of the file."""

    def __init__(self, origin: str, faults: Sequence[ConfigFault]) -> None:
        self.origin = origin
        """Name of the file, for messages."""
        self.faults = tuple(faults)
        super().__init__(origin, self.faults)

    def __str__(self) -> str:
        """One line a fault: ``FILE:LINE: KEY = VALUE: expected ...``."""
        return "\n".join(
            f"{self.origin}:{fault.line}: {fault}" if fault.line else f"{self.origin}: {fault}"
            for fault in self.faults
        )


def show_key(path: Path) -> str:
    """A path as a person writes it: ``service[0].check.port``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.match(part) and len(part) <= VALUE_MAX else _quote(part)
            text += f".{name}" if text else name
    return text


def show_value(value: object, path: Path = ()) -> str:
    """A value as TOML would have it; inner tables and lists are only hinted at.

    A value whose key speaks of a secret is masked, and so is the user part of a URL.
    """
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    if _SECRET.search(last):
        return '"***"'
    if isinstance(value, list | tuple):
        return _cut("[" + ", ".join(_scalar(item) for item in value[:16]) + "]")
    if isinstance(value, dict):
        pairs = (f"{show_key((str(k),))} = {_masked(k, v)}" for k, v in list(value.items())[:16])
        return _cut("{" + ", ".join(pairs) + "}")
    return _scalar(value)


def _masked(key: object, value: object) -> str:
    return '"***"' if _SECRET.search(str(key)) else _scalar(value)


def _scalar(value: object) -> str:
    match value:
        case str():
            return _quote(_USER_INFO.sub("//***@", value))
        case bool():
            return "true" if value else "false"
        case int():
            # Beyond 64 bits a decimal form can be refused by the interpreter.
            return str(value) if value.bit_length() <= 64 else "(an integer of over 64 bits)"
        case list() | tuple():
            return "[...]"
        case dict():
            return "{...}"
        case _:
            return _cut(str(value))


def _quote(text: str) -> str:
    if len(text) > VALUE_MAX:
        text = text[: VALUE_MAX - 3] + "..."
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def _cut(text: str) -> str:
    return text if len(text) <= 2 * VALUE_MAX else text[: 2 * VALUE_MAX - 3] + "..."
