"""What labels and variables say of a port, whoever's words they are.

Rule: both dialects (`announcer.registrator`, `announcer.discod_labels`) come down to `Terms`, so
that precedence is one merge: port before container, and discod's before Registrator's. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from discod.model.endpoint import Address, Fault, Prefer, Protocol
from discod.model.settings import AddressMode, CheckKind
from discod.model.vip import VipWord

T = TypeVar("T")

FAULTS_MAX = 100
"""Faults reported of one container; a last one counts the rest."""

VALUE_MAX = 256
"""Characters of a value kept in a fault: as many as a stored refusal has."""

SUBJECT_MAX = 128


class PortKey(NamedTuple):
    """One port of a container."""

    port: int
    protocol: Protocol

    def __str__(self) -> str:
        """``80/tcp``."""
        return f"{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class CheckWord:
    """A check as named by its label, without details."""

    kind: CheckKind | Literal["none"]
    path: str = ""
    """http only; empty: not given here."""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """A value, and the label or variable that says it."""

    label: str
    raw: str
    value: T


@dataclass(frozen=True, slots=True)
class Terms:
    """What was said of one port, or of all; None where nothing was."""

    name: Said[str] | None = None
    grouped: bool | None = None
    """Whether `name` gets the port behind it when there are several (Registrator's way)."""
    port_name: Said[str] | None = None
    tags: Said[tuple[str, ...]] | None = None
    id: Said[str] | None = None
    weight: Said[int] | None = None
    priority: Said[int] | None = None
    ttl: Said[int] | None = None
    alpn: Said[tuple[str, ...]] | None = None
    prefer: Said[Prefer] | None = None
    anycast: Said[tuple[Address, ...]] | None = None
    rescue: Said[bool] | None = None
    vip: Said[VipWord] | None = None
    affinity: Said[bool] | None = None
    address: Said[AddressMode] | None = None
    ignore: Said[bool] | None = None
    check: Said[CheckWord] | None = None
    check_interval: Said[float] | None = None
    check_timeout: Said[float] | None = None
    check_rise: Said[int] | None = None
    check_fall: Said[int] | None = None
    check_status: Said[tuple[int, int]] | None = None
    check_path: Said[str] | None = None
    check_port: Said[int] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def over(self, lower: Terms) -> Terms:
        """These terms, and `lower`'s where these say nothing."""
        merged: dict[str, Any] = {
            f.name: mine if (mine := getattr(self, f.name)) is not None else getattr(lower, f.name)
            for f in fields(self)
        }
        if self.name is not None:
            merged["grouped"] = self.grouped
        merged["attributes"] = {**lower.attributes, **self.attributes}
        return Terms(**merged)


class Faults:
    """Collects everything wrong with one container."""

    def __init__(self) -> None:
        self._found: dict[Fault, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def many(self) -> bool:
        """Whether more are found than anybody is told: advice on further ones is for nobody."""
        return len(self._found) > FAULTS_MAX

    def add(self, subject: str, value: str, expected: str) -> None:
        """Note one fault; what a user wrote is cut to a bounded length, a label made printable."""
        label = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in subject[:SUBJECT_MAX])
        self._found[Fault(label, value[:VALUE_MAX], expected)] = None

    def take(self, other: Faults) -> None:
        """Add all of another's."""
        self._found.update(other._found)

    def said(self, label: str, raw: str, parser: Callable[[str], T]) -> Said[T] | None:
        """What `parser` makes of `raw`; None, and a fault noted, where it refuses."""
        try:
            return Said(label, raw, parser(raw))
        except ValueError as error:
            self.add(label, raw, str(error))
            return None

    def sorted(self) -> tuple[Fault, ...]:
        """All of them by subject, each once; at most `FAULTS_MAX` and one that counts the rest."""
        found = sorted(self._found, key=lambda f: (f.subject, f.value, f.expected))
        rest = len(found) - FAULTS_MAX
        if rest > 0:
            found[FAULTS_MAX:] = [Fault("labels", str(len(found)), f"{rest} more faults not shown")]
        return tuple(found)
