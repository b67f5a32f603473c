"""On which line of a TOML text each key stands.

Rule: the text is already known to be valid TOML (https://toml.io/en/v1.0.0), so this only has to
skip values, never to judge them. Keys inside inline tables and array items have the line of the key
they belong to. Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from discod.config_fault import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_HEADER = re.compile(r"(\[\[?)((?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\"'\]])*)\]\]?")
_KEY = re.compile(r"((?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\"'=])*)=")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'", re.DOTALL
)
_PLAIN = re.compile(r"[^\"'\[\]{}#\n]+|#[^\n]*")


def find_lines(text: str) -> Mapping[Path, int]:
    """Path of every table and key -> its line, from 1."""
    found: dict[Path, int] = {}
    elements: dict[Path, int] = {}  # array of tables -> index of its last element
    table: Path = ()
    at, line, counted = 0, 1, 0
    while True:
        at = _end(_BLANK, text, at)
        line += text.count("\n", counted, at)
        counted = at
        if at >= len(text):
            return found
        header = _HEADER.match(text, at)
        if header:
            names = _names(header[2])
            table = _resolve(names[:-1], elements)
            table = (*table, names[-1])
            if header[1] == "[[":
                elements[table] = elements.get(table, -1) + 1
            table = _indexed(table, elements)
            found.setdefault(table, line)
            at = header.end()
            continue
        key = _KEY.match(text, at)
        if key is None:
            return found  # not TOML after all; the lines so far are right
        for end in range(1, len(names := _names(key[1])) + 1):
            found.setdefault((*table, *names[:end]), line)
        at = _skip_value(text, key.end())


def _names(text: str) -> tuple[str, ...]:
    """The parts of a dotted key; tomllib knows about quotes and escapes."""
    names: list[str] = []
    value: object = tomllib.loads(f"{text.strip()} = 0")
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        names.append(name)
    return tuple(names)


def _indexed(path: Path, elements: Mapping[Path, int]) -> Path:
    return (*path, elements[path]) if path in elements else path


def _resolve(names: tuple[str, ...], elements: Mapping[Path, int]) -> Path:
    path: Path = ()
    for name in names:
        path = _indexed((*path, name), elements)
    return path


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _skip_value(text: str, at: int) -> int:
    """The end of the value that starts at `at`: the newline outside all strings and brackets."""
    depth = 0
    while at < len(text):
        string = _STRING.match(text, at)
        if string:
            at = string.end()
            continue
        character = text[at]
        if character == "\n" and depth == 0:
            return at
        depth += (character in "[{") - (character in "]}")
        at = max(_end(_PLAIN, text, at), at + 1)
    return at


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of the innermost part of `path` that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None
