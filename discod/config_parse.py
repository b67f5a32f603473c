"""From the text of a configuration file to Settings, or to all of its faults.

Rule: nothing but `ConfigError` is raised, whatever the text; a faulty key takes its default while
the rest is looked at, and no fault is reported that only follows from another one. Pure.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from discod.config_bgp import BGP, PEER, PEERS, PEERS_RULE
from discod.config_cross import SHORTER, contradictions
from discod.config_cross_bgp import bgp_contradictions
from discod.config_cross_rescue import rescue_contradictions
from discod.config_fault import ConfigError, ConfigFault, Path, show_key, show_value
from discod.config_fields import SECTIONS, SERVICE_FIELDS, Field
from discod.config_finding import Finding
from discod.config_lines import find_lines, line_of
from discod.config_service import PartialCheck
from discod.config_values import Invalid
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings
from discod.model.settings import CheckSettings, ServiceSettings, Settings

ADVISED_MAX = 200
"""Faults of one file up to which unknown keys are compared with known ones."""

_POSITION = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)\Z", re.DOTALL)


def parse_config(text: str, *, origin: str) -> Settings:
    """Read a configuration.

    Args:
        text: TOML v1.0.0.
        origin: Name of the file, for messages.

    Raises:
        ConfigError: with all faults at once; for a TOML syntax error that one alone.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Plain ValueError: an integer or a date beyond what Python holds.
        raise ConfigError(origin, [_syntax_fault(text, error)]) from None
    reader = _Reader(find_lines(text))
    settings = reader.settings(document)
    if reader.faults:
        raise ConfigError(origin, sorted(reader.faults, key=lambda fault: fault.line or 0))
    return settings


def _syntax_fault(text: str, error: Exception) -> ConfigFault:
    if isinstance(error, RecursionError):
        return ConfigFault("", "", "expected TOML: lists or tables are nested too deeply", None)
    match = _POSITION.match(str(error))
    if match is None:
        return ConfigFault("", "", f"expected TOML: {error}", None)
    rows = text.replace("\r\n", "\n").split("\n")
    line = int(match[2]) if match[2] else len(rows)
    value = show_value(rows[line - 1].strip()) if 0 < line <= len(rows) else ""
    # The line can hold a secret that the mask by key would have hidden.
    value = "" if re.search(r"(?i)pass|secret|token", value) else value
    column = f", column {match[3]}" if match[3] else ""
    return ConfigFault("", value, f"expected TOML: {match[1]} (line {line}{column})", line)


def nearest(key: str, known: Iterable[str]) -> str:
    """``; did you mean KEY?``, or nothing when no key is near."""
    close = difflib.get_close_matches(key[:64].lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class _Reader:
    """Collects faults while it turns one document into Settings."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self._lines = lines
        self._faulty: set[Path] = set()
        self.faults: list[ConfigFault] = []

    def settings(self, document: dict[str, Any]) -> Settings:
        sections: dict[str, Any] = {}
        for name, section in SECTIONS.items():
            sections[name] = section.settings(**self._section(name, document))
        for name, short, long, _ in SHORTER:
            sections[name] = _bounded(sections[name], short, long, document.get(name))
        services = self._services(document.get("service", []), sections["checks"])
        bgp, peers = self._bgp(document["bgp"]) if "bgp" in document else (None, {})
        for name in document.keys() - SECTIONS.keys() - {"service", "bgp"}:
            self._unknown_top(name, document[name])
        settings = Settings(**sections, services=tuple(services.values()))
        self._cross(contradictions(settings, services))
        self._cross(rescue_contradictions(settings, services, bgp))
        if bgp is not None:
            self._cross(bgp_contradictions(settings, bgp, peers))
            settings = replace(settings, bgp=replace(bgp, peers=tuple(peers.values())))
        return settings

    def _fault(self, path: Path, value: object, expected: str, *, missing: bool = False) -> None:
        self._faulty.add(path)
        shown = "" if missing else show_value(value, path)
        self.faults.append(ConfigFault(show_key(path), shown, expected, line_of(self._lines, path)))

    def _section(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        value = document.get(name, {})
        fields = SECTIONS[name].by_key
        if name == "store" and isinstance(value, str | list):
            # The short form: store = "memory", store = ["http://..."].
            found: dict[str, Any] = {}
            self._value(fields["endpoints"], value, (name,), found)
            return found
        if not isinstance(value, dict):
            self._fault((name,), value, f"expected a table, [{name}]")
            return {}
        return self._table(fields, value, (name,))

    def _table(
        self, fields: Mapping[str, Field], table: dict[str, Any], path: Path
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            if key in fields:
                self._value(fields[key], value, (*path, key), found)
            else:
                self._unknown(key, value, path, fields)
        for field in fields.values():
            if field.required and field.key not in table:
                expected = f"missing; expected {field.rule.text}"
                self._fault((*path, field.key), None, expected, missing=True)
        return found

    def _value(self, field: Field, value: object, path: Path, found: dict[str, Any]) -> None:
        try:
            found[field.target] = field.rule(value, path)
        except Invalid as invalid:
            for wrong in invalid.wrongs:
                self._fault(wrong.path, wrong.value, wrong.expected)

    def _unknown(self, key: str, value: object, path: Path, known: Iterable[str]) -> None:
        # A reload happens in a daemon that has other things to do: advice is not for thousands.
        hint = nearest(key, known) if len(self.faults) < ADVISED_MAX else ""
        if not hint:
            homes = [name for name, section in SECTIONS.items() if key in section.by_key]
            homes += ["bgp"] if key in BGP.by_key and path[:1] != ("bgp",) else []
            hint = f"; it belongs to [{'] or ['.join(homes)}]" if homes else ""
        self._fault((*path, key), value, f"unknown key{hint}")

    def _unknown_top(self, name: str, value: object) -> None:
        if isinstance(value, dict | list):
            hint = nearest(name, [*SECTIONS, "service", "bgp"])
            self._fault((name,), value, f"unknown table{hint}")
        else:
            self._unknown(name, value, (), ["store"])

    def _bgp(self, value: object) -> tuple[BgpSettings | None, dict[int, BgpPeerSettings]]:
        """``[bgp]`` without its peers, and those without fault by their index in the file."""
        if not isinstance(value, dict):
            self._fault(("bgp",), value, "expected a table, [bgp]")
            return None, {}
        plain = {key: one for key, one in value.items() if key != PEERS}
        found = self._table(BGP.by_key, plain, ("bgp",))
        tables = value.get(PEERS, [])
        peers: dict[int, BgpPeerSettings] = {}
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._fault(("bgp", PEERS), tables, f"expected {PEERS_RULE.text}")
            tables = []
        for index, table in enumerate(tables):
            at: Path = ("bgp", PEERS, index)
            one = self._table(PEER.by_key, table, at)
            if one.keys() >= {"address", "asn"}:
                peers[index] = BgpPeerSettings(**one)
        # Without its number the rest can be looked at all the same.
        return BgpSettings(**{"asn": 0, **found}), peers

    def _services(self, value: object, checks: CheckSettings) -> dict[int, ServiceSettings]:
        """Index -> service, for those without fault."""
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._fault(("service",), value, "expected tables, each headed [[service]]")
            return {}
        fields = {field.key: field for field in SERVICE_FIELDS}
        services: dict[int, ServiceSettings] = {}
        for index, table in enumerate(value):
            before = len(self.faults)
            found = self._table(fields, table, ("service", index))
            check = found.get("check")
            if isinstance(check, PartialCheck):
                found["check"] = check.complete(checks)
            if len(self.faults) == before:
                services[index] = ServiceSettings(**found)
        return services

    def _cross(self, findings: Iterable[Finding]) -> None:
        known = list(self._faulty)
        for finding in findings:
            rests_on = (finding.path, *finding.rests_on)
            if not any(_related(path, faulty) for path in rests_on for faulty in known):
                self._fault(finding.path, finding.value, finding.expected)


def _bounded(section: Any, short: str, long: str, written: object) -> Any:
    """`section` with the default of `short` brought down to `long`, if it was not written."""
    if isinstance(written, dict) and short in written:
        return section
    return replace(section, **{short: min(getattr(section, short), getattr(section, long))})


def _related(one: Path, other: Path) -> bool:
    """Whether one path is the other or lies below it."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]
