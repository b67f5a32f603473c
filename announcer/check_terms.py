"""From the labels of a check to a `Check` with every default filled in.

Rule: a detail that no check uses is a fault, not a label without effect. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from announcer.discod_labels import PREFIX, DiscodWords
from announcer.metadata import Faults, PortKey, Said, Terms
from announcer.registrator import RegistratorWords
from discod.model.settings import Check, CheckSettings

_DETAILS = {
    "check_interval": ("tcp", "http", "cmd"),
    "check_timeout": ("tcp", "http", "cmd"),
    "check_rise": ("tcp", "http", "cmd"),
    "check_fall": ("tcp", "http", "cmd"),
    "check_port": ("tcp", "http"),
    "check_path": ("http",),
    "check_status": ("http",),
}
"""Field of `Terms` -> kinds of check that use it."""


def check_of(terms: Terms, defaults: CheckSettings) -> Check | None:
    """The check of one port; None where none is wanted."""
    if terms.check is None:
        return None
    word = terms.check.value
    kind = word.kind
    if kind == "none":
        return None
    path = _value(terms.check_path, word.path or "/")
    return Check(
        kind=kind,
        port=_value(terms.check_port, 0) if kind != "cmd" else 0,
        path=path if kind == "http" else "/",
        status=_value(terms.check_status, (200, 399)) if kind == "http" else (200, 399),
        command=word.command,
        interval=_value(terms.check_interval, defaults.interval),
        timeout=_value(terms.check_timeout, defaults.timeout),
        rise=_value(terms.check_rise, defaults.rise),
        fall=_value(terms.check_fall, defaults.fall),
    )


def find_idle_details(registrator: RegistratorWords, discod: DiscodWords, faults: Faults) -> None:
    """Note details that apply to no check, and paths that are given twice."""
    named: set[PortKey] = set(discod.ports)
    for number in registrator.ports:
        named |= {PortKey(number, "tcp"), PortKey(number, "udp")}
    merged = [discod.general.over(registrator.general)]
    merged += [discod.of(port).over(registrator.of(port.port)) for port in named]
    layers: Iterable[Terms] = (
        registrator.general,
        discod.general,
        *registrator.ports.values(),
        *discod.ports.values(),
    )
    used: set[str] = set()
    for terms in merged:
        for name, kinds in _DETAILS.items():
            said: Said[Any] | None = getattr(terms, name)
            kind = terms.check.value.kind if terms.check else None
            if said is not None and (kind in kinds or kind == "none"):
                used.add(said.label)
        check, path = terms.check, terms.check_path
        if check and path and check.value.path and check.label.startswith(PREFIX):
            faults.add(path.label, path.raw, f"{check.label} already has a path")
    for terms in layers:
        for name, kinds in _DETAILS.items():
            said = getattr(terms, name)
            if said is not None and said.label not in used:
                expected = f"there is no {' or '.join(kinds)} check that this could be for"
                faults.add(said.label, said.raw, expected)


def _value(said: Said[Any] | None, default: Any) -> Any:
    return default if said is None else said.value
