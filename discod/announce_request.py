"""What ``discod announce`` asks for: services in the form of the configuration's ``[[service]]``.

Rule: the same keys, rules and messages as in the configuration file, all faults at once; but no
``cmd`` check, since a program named in a request would run as the daemon. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from discod.config_cross import service_contradictions
from discod.config_fault import Path, show_key, show_value
from discod.config_fields import SERVICE_FIELDS
from discod.config_service import PartialCheck
from discod.config_values import Invalid
from discod.model.endpoint import Fault
from discod.model.settings import CheckSettings, ServiceSettings

SERVICES_MAX = 64
"""Services in one request."""

_CHECK = re.compile(r"(?:tcp(?::(?P<tcp>\d{1,5}))?|http:(?P<http>\d{1,5})?(?P<path>/.*))\Z")
_FIELDS = {field.key: field for field in SERVICE_FIELDS}


class AnnounceError(Exception):
    """A request with faults: all of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def parse_announce(
    document: object, checks: CheckSettings | None = None
) -> tuple[ServiceSettings, ...]:
    """Read ``{"services": [{"name": ..., "port": ...}, ...]}``.

    Args:
        document: What the JSON of the request held.
        checks: Defaults for what a check does not name.

    Raises:
        AnnounceError: with every fault.
    """
    faults: list[Fault] = []

    def fault(path: Path, value: object, expected: str) -> None:
        shown = value[:80] if isinstance(value, str) else show_value(value, path)
        faults.append(Fault(show_key(path), shown, expected))

    tables = document.get("services") if isinstance(document, dict) else None
    if not isinstance(tables, list) or not 0 < len(tables) <= SERVICES_MAX:
        fault(("services",), tables, f"expected a list of 1 to {SERVICES_MAX} objects")
        raise AnnounceError(faults)
    services: dict[int, ServiceSettings] = {}
    for index, table in enumerate(tables):
        before = len(faults)
        found: dict[str, Any] = {}
        if not isinstance(table, dict):
            fault(("services", index), table, "expected an object")
            continue
        for key, value in table.items():
            if key not in _FIELDS:
                fault(("services", index, key), value, f"expected one of {', '.join(_FIELDS)}")
                continue
            try:
                found[_FIELDS[key].target] = _FIELDS[key].rule(value, ("services", index, key))
            except Invalid as invalid:
                for wrong in invalid.wrongs:
                    fault(wrong.path, wrong.value, wrong.expected)
        for field in SERVICE_FIELDS:
            if field.required and field.key not in table:
                fault(("services", index, field.key), "", f"expected {field.rule.text}")
        check = found.get("check")
        if isinstance(check, PartialCheck):
            if check.values.get("kind") == "cmd":
                fault(("services", index, "check"), "cmd", "expected a tcp or http check")
            found["check"] = check.complete(checks or CheckSettings())
        if len(faults) == before:
            services[index] = ServiceSettings(**found)
    for finding in service_contradictions(services):
        fault(("services", *finding.path[1:]), finding.value, finding.expected)
    if faults:
        raise AnnounceError(faults)
    return tuple(services.values())


def check_from_text(text: str) -> object:
    """The ``check`` of a request from its short form on the command line.

    ``tcp``, ``tcp:PORT``, ``http:/PATH`` and ``http:PORT/PATH``; anything else is handed on as it
    is, so that `parse_announce` says what is wrong with it.
    """
    found = _CHECK.match(text)
    if found is None:
        return text
    if found["path"] is not None:
        check: dict[str, object] = {"kind": "http", "path": found["path"]}
        port = found["http"]
    else:
        check = {"kind": "tcp"}
        port = found["tcp"]
    if port is not None:
        check["port"] = int(port)
    return check
