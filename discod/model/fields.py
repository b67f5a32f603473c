"""Typed look-ups in one JSON object of the store, which anyone may have written.

Rule: whatever the bytes are, the outcome is a value of the type asked for or a `RecordError`. Pure.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from discod.model.endpoint import Address, Fault
from discod.model.names import is_domain, is_label
from discod.model.vip import as_vip

ALPN_RULE = 'ALPN ids of 1 to 32 letters, digits, "-", "/" and ".", as h2'
"""The rule of `is_alpn` in words, for messages."""

_ALPN = re.compile(r"[A-Za-z0-9./-]{1,32}\Z")

T = TypeVar("T", bound=str)


class RecordError(ValueError):
    """A key or a value that is not what the schema says; names the key and what was expected."""

    def __init__(self, key: str, fault: Fault) -> None:
        super().__init__(f"{key}: {fault}")
        self.key = key
        self.fault = fault


def shown(value: object) -> str:
    """`value` for a message; foreign JSON may be huge, or nested deeper than `repr` can go."""
    if isinstance(value, str):
        return value[:256]
    try:
        return repr(value)[:256]
    except RecursionError:
        return type(value).__name__


def is_text(value: object) -> bool:
    """Whether `value` is text that UTF-8 can carry: half a surrogate pair is none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address without a zone."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_network(text: str) -> bool:
    """Whether `text` is a prefix without bits behind its length, and without a zone."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return "%" not in text


def is_alpn(text: str) -> bool:
    """Whether `text` is an ALPN id that needs no escapes in a zone file (RFC 9460, section 7.1)."""
    return _ALPN.match(text) is not None


def is_target(text: str) -> bool:
    """Whether `text` is a domain name that an alias can stand for: lower case, no final dot.

    Names of others may have underscores (RFC 2181, section 11). A last label of digits alone is no
    top-level domain but part of a mistyped address (RFC 3696, section 2).
    """
    return is_domain(text.replace("_", "a")) and not text.rpartition(".")[2].isdigit()


class Fields:
    """The fields of one object; each look-up raises `RecordError` naming key and field."""

    def __init__(self, key: str, values: Mapping[str, Any]) -> None:
        self._key = key
        self.values = values

    @classmethod
    def load(cls, key: str, value: bytes) -> Fields:
        """The object that `value` holds as JSON."""
        try:
            loaded = json.loads(value)
        except (ValueError, RecursionError) as error:
            text = value[:80].decode("utf-8", "backslashreplace")
            raise RecordError(key, Fault("value", text, f"expected JSON ({error})")) from None
        if not isinstance(loaded, dict):
            raise RecordError(key, Fault("value", shown(loaded), "expected a JSON object"))
        return cls(key, loaded)

    def _fault(self, name: str, expected: str) -> RecordError:
        return RecordError(self._key, Fault(name, shown(self.values.get(name)), expected))

    def place(self, name: str) -> Address | str:
        """An IP address, or a domain name in lower case without its final dot; required."""
        value = self.values.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                address = ip_address(value)
                if "%" not in value:
                    return address
            target = value.removesuffix(".").lower()
            if is_target(target):
                return target
        raise self._fault(name, "expected an IPv4 or IPv6 address, or a domain name")

    def ip(self, name: str, version: int = 0) -> Address:
        """An IP address, of that version where one is asked for; required."""
        value = self.values.get(name)
        if isinstance(value, str) and is_address(value):
            address = ip_address(value)
            if version in (0, address.version):
                return address
        raise self._fault(name, f"expected an {'IPv4' if version == 4 else 'IPv4 or IPv6'} address")

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """An integer from `low` to `high`."""
        value = self.values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._fault(name, f"expected an integer from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        """A time in Unix seconds; 0 when absent."""
        value = self.values.get(name, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
            raise self._fault(name, "expected Unix seconds")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self._fault(name, "expected true or false")
        return value

    def vip(self, name: str) -> tuple[Address, ...]:
        """A list of unicast addresses, at most one of a family, IPv4 first; empty when absent."""
        listed = [ip_address(text) for text in self.texts(name, is_address)]
        found = as_vip(listed)
        if len(found) != len(listed):
            raise self._fault(name, "expected unicast addresses, at most one IPv4 and one IPv6")
        return found

    def text(self, name: str, default: str) -> str:
        """A string."""
        value: str = self.values.get(name, default)
        if not is_text(value):
            raise self._fault(name, "expected a string")
        return value

    def texts(self, name: str, valid: Callable[[str], bool]) -> tuple[str, ...]:
        """A list of strings that are all `valid`; empty when absent."""
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(is_text(v) and valid(v) for v in value):
            raise self._fault(name, "expected a list of valid strings")
        return tuple(value)

    def label(self, name: str, valid: Callable[[str], bool]) -> str:
        """A string that is empty, absent or `valid`."""
        value = self.text(name, "")
        if value and not valid(value):
            raise self._fault(name, "expected a DNS label")
        return value

    def labels(self, name: str) -> tuple[str, ...]:
        """A list of DNS labels; empty when absent."""
        return self.texts(name, is_label)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """An object of strings, sorted by key; empty when absent."""
        value = self.values.get(name, {})
        if not isinstance(value, dict) or not all(map(is_text, [*value, *value.values()])):
            raise self._fault(name, "expected an object of strings")
        return tuple(sorted(value.items()))

    def choice(self, name: str, choices: tuple[T, ...]) -> T:
        """One of `choices`; required."""
        value = self.values.get(name)
        if value not in choices:
            raise self._fault(name, f"expected one of {', '.join(choices)}")
        return choices[choices.index(value)]

    def sub(self, name: str) -> Fields | None:
        """The object inside; None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fault(name, "expected an object")
        return Fields(self._key, value)
