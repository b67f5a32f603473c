r"""Registrator's metadata: ``SERVICE_*`` variables and labels.

Rule: what Registrator's users know keeps its meaning
(https://gliderlabs.github.io/registrator/latest/user/services/); where discod differs, the value is
a fault with the reason, never a silent other meaning. Of one key given twice, the label wins over
the variable, and ``SERVICE_<port>_KEY`` over ``SERVICE_KEY``. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from announcer import values
from announcer.metadata import CheckWord, Faults, Said, Terms

PREFIX = "SERVICE_"

_PORT = re.compile(r"[0-9]+\Z")

_KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", values.service),
    "tags": ("tags", values.tags),
    "id": ("id", values.tag),
    "ignore": ("ignore", values.true_only),
    "check_interval": ("check_interval", values.duration),
    "check_timeout": ("check_timeout", values.duration),
}
"""Key -> field of `Terms`, parser."""


def _http(text: str) -> CheckWord:
    return CheckWord("http", path=values.path(text))


def _tcp(text: str) -> CheckWord:
    values.true_only(text)
    return CheckWord("tcp")


def _cmd(text: str) -> CheckWord:
    return CheckWord("cmd", command=values.command(text))


_CHECKS: Mapping[str, Callable[[str], CheckWord]] = {
    "check_http": _http,
    "check_cmd": _cmd,
    "check_tcp": _tcp,
}

_UNSUPPORTED: Mapping[str, str] = {
    "check_https": "HTTPS checks are not supported; use SERVICE_CHECK_TCP or SERVICE_CHECK_CMD",
    "check_grpc": "gRPC checks are not supported; use SERVICE_CHECK_TCP or SERVICE_CHECK_CMD",
    "check_script": "it would run on the host; use SERVICE_CHECK_CMD, which runs in the container",
    "check_docker": "not supported; use SERVICE_CHECK_CMD, which runs in the container",
    "check_ttl": "nobody could report to it: discod checks by itself; use SERVICE_CHECK_HTTP, "
    "SERVICE_CHECK_TCP or SERVICE_CHECK_CMD",
    "check_http_method": "checks use GET; use SERVICE_CHECK_CMD for other requests",
}
"""Left out, these would put an unchecked or wrongly checked endpoint into DNS, so they refuse."""


@dataclass(frozen=True, slots=True)
class RegistratorWords:
    """What ``SERVICE_*`` says of one container."""

    general: Terms = field(default_factory=Terms)
    ports: Mapping[int, Terms] = field(default_factory=dict)
    """By the container's port, for both protocols."""
    claims: bool = False
    """Whether a service is named at all, well or badly."""

    def of(self, port: int) -> Terms:
        """What is said of one port."""
        return self.ports[port].over(self.general) if port in self.ports else self.general


def parse(env: Mapping[str, str], labels: Mapping[str, str], faults: Faults) -> RegistratorWords:
    """Read all ``SERVICE_*`` of a container; what is wrong goes to `faults`."""
    found: dict[str, tuple[str, str, bool]] = {}  # lower-case key -> as written, value, from label
    for source, is_label in ((labels, True), (env, False)):
        for written in sorted(source):
            if written.startswith(PREFIX):
                key = written.removeprefix(PREFIX).lower()
                found.setdefault(key, (written, source[written], is_label))
    scopes: dict[int, _Scope] = {}
    general, claims = _Scope(grouped=True), False
    for key, (written, raw, is_label) in sorted(found.items()):
        head, underscore, tail = key.partition("_")
        claims = claims or key == "name" or (tail == "name" and _PORT.match(head) is not None)
        if not (underscore and tail and _PORT.match(head)):
            general.add(key, written, raw, is_label, faults)
            continue
        port = faults.said(written, head, values.port_number)
        if port is not None:
            scope = scopes.setdefault(port.value, _Scope(grouped=False))
            scope.add(tail, written, raw, is_label, faults)
    return RegistratorWords(
        general.terms(), {port: s.terms() for port, s in scopes.items()}, claims=claims
    )


class _Scope:
    """Builds the terms of one port, or of all."""

    def __init__(self, *, grouped: bool) -> None:
        self._grouped = grouped
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, str] = {}

    def add(self, key: str, written: str, raw: str, is_label: bool, faults: Faults) -> None:
        if key == "check_http_method" and raw.upper() == "GET":
            return  # what our checks use anyway
        if key in _UNSUPPORTED:
            faults.add(written, raw, _UNSUPPORTED[key])
            self._fields.setdefault("check", Said(written, raw, CheckWord("none")))
        elif key in _CHECKS:
            check = faults.said(written, raw, _CHECKS[key])
            if "check" in self._fields:
                other = self._fields["check"].label
                faults.add(written, raw, f"one check is enough, and {other} is given too")
            else:  # "none" for a refused one, so that its details are not called idle as well
                self._fields["check"] = check or Said(written, raw, CheckWord("none"))
        elif key in _KEYS:
            name, parser = _KEYS[key]
            said = faults.said(written, raw, parser)
            if said is not None:
                self._fields[name] = said
        else:
            self._attribute(key, written, raw, is_label, faults)

    def _attribute(self, key: str, written: str, raw: str, is_label: bool, faults: Faults) -> None:
        # A label is written for us. A variable may be the program's own (SERVICE_ACCOUNT_JSON): one
        # that cannot be an attribute is none. A value is never shown: it may be a secret.
        try:
            name = values.attribute_key(key)
            value = values.attribute(raw)
            if len(self._attributes) >= values.ATTRIBUTES_MAX:
                raise ValueError(f"expected at most {values.ATTRIBUTES_MAX} attributes")
        except ValueError as error:
            if is_label:
                faults.add(written, f"({len(raw)} characters)", str(error))
        else:
            self._attributes[name] = value

    def terms(self) -> Terms:
        said: Said[str] | None = self._fields.get("name")
        return Terms(
            **self._fields,
            grouped=self._grouped if said is not None else None,
            attributes=self._attributes,
        )
