"""discod's own labels: ``discod.<key>`` and ``discod.<port>[-tcp|-udp].<key>``.

Rule: every label below ``discod.`` is known and valid, or it is a fault; nothing is ignored.
`docs/labels.md` describes each. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from announcer import values
from announcer.metadata import CheckWord, Faults, PortKey, Said, Terms

PREFIX = "discod."

_PORT_KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", values.service),
    "port-name": ("port_name", values.port_name),
    "tags": ("tags", values.tags),
    "weight": ("weight", values.weight),
    "priority": ("priority", values.priority),
    "ttl": ("ttl", values.ttl),
    "alpn": ("alpn", values.alpn),
    "prefer": ("prefer", values.prefer),
    "anycast": ("anycast", values.anycast),
    "rescue": ("rescue", values.boolean),
    "vip": ("vip", values.vip),
    "affinity": ("affinity", values.affinity),
    "address": ("address", values.address_mode),
    "ignore": ("ignore", values.boolean),
    "check": ("check", values.check),
    "check.interval": ("check_interval", values.duration),
    "check.timeout": ("check_timeout", values.duration),
    "check.rise": ("check_rise", values.count),
    "check.fall": ("check_fall", values.count),
    "check.status": ("check_status", values.status_range),
    "check.path": ("check_path", values.path),
    "check.port": ("check_port", values.port_number),
}
"""Keys that one port can have, and all ports together: field of `Terms`, parser."""

_CONTAINER_KEYS: Mapping[str, Callable[[str], Any]] = {
    "port": values.ports,
    "network": values.text_line,
}
_PORT = re.compile(r"[0-9][^.]*\Z")
_ATTRIBUTE = "attr."


@dataclass(frozen=True, slots=True)
class DiscodWords:
    """What ``discod.*`` says of one container."""

    general: Terms = field(default_factory=Terms)
    ports: Mapping[PortKey, Terms] = field(default_factory=dict)
    selected: Said[tuple[PortKey, ...]] | None = None
    """``discod.port``."""
    network: Said[str] | None = None

    def of(self, port: PortKey) -> Terms:
        """What is said of one port."""
        return self.ports[port].over(self.general) if port in self.ports else self.general

    @property
    def named_ports(self) -> frozenset[PortKey]:
        """Ports that ``discod.port`` or a label of their own asks for.

        A port of which nothing but ``ignore`` is said is not asked for.
        """
        own = {port for port, terms in self.ports.items() if terms != Terms(ignore=terms.ignore)}
        return frozenset(own | set(self.selected.value if self.selected else ()))


def parse(labels: Mapping[str, str], faults: Faults) -> DiscodWords:
    """Read all ``discod.*`` labels of a container; what is wrong goes to `faults`."""
    general: dict[str, Any] = {}
    ports: dict[PortKey, dict[str, Any]] = {}
    for label, raw in sorted(labels.items()):
        if not label.startswith(PREFIX):
            lower = label.lower()
            if lower == PREFIX.removesuffix(".") or lower.startswith(PREFIX):
                faults.add(label, raw, "expected discod.<key>, in lower case")
            continue
        key = label.removeprefix(PREFIX)
        head, dot, tail = key.partition(".")
        if not _PORT.match(head):
            _add(general, label, key, raw, faults, scoped=False)
            continue
        port = _port(label, raw, head, faults)
        if port is not None and not dot:
            faults.add(label, raw, f"expected {PREFIX}{head}.<key>")
        elif port is not None:
            _add(ports.setdefault(port, {}), label, tail, raw, faults, scoped=True)
    selected, network = general.pop("port", None), general.pop("network", None)
    return DiscodWords(
        general=Terms(**general),
        ports={port: Terms(**own) for port, own in sorted(ports.items()) if own},
        selected=selected,
        network=network,
    )


def _port(label: str, raw: str, head: str, faults: Faults) -> PortKey | None:
    try:
        return values.port_key(head, separator="-")
    except ValueError:
        faults.add(label, raw, "expected discod.<port>.<key>, <port> as 80, 80-tcp or 53-udp")
        return None


def _add(
    into: dict[str, Any], label: str, key: str, raw: str, faults: Faults, *, scoped: bool
) -> None:
    if key.startswith(_ATTRIBUTE):
        attributes = into.setdefault("attributes", {})
        name = faults.said(label, key.removeprefix(_ATTRIBUTE), values.attribute_key)
        value = faults.said(label, raw, values.attribute)
        if len(attributes) >= values.ATTRIBUTES_MAX:
            faults.add(label, raw, f"expected at most {values.ATTRIBUTES_MAX} attributes")
        elif name is not None and value is not None:
            attributes[name.value] = value.value
        return
    if not scoped and key in _CONTAINER_KEYS:
        into[key] = faults.said(label, raw, _CONTAINER_KEYS[key])
        return
    if key not in _PORT_KEYS:
        faults.add(label, raw, _unknown(key, scoped=scoped, advise=not faults.many))
        return
    field_, parser = _PORT_KEYS[key]
    said = faults.said(label, raw, parser)
    if said is not None and field_ in into:
        faults.add(label, raw, f"{into[field_].label} says it too, of the same port")
    elif said is not None:
        into[field_] = said
    elif field_ == "check":  # a refused one, so that its details are not called idle as well
        into.setdefault(field_, Said(label, raw, CheckWord("none")))


def _unknown(key: str, *, scoped: bool, advise: bool) -> str:
    if scoped and key in _CONTAINER_KEYS:
        return f"this key is of the whole container: {PREFIX}{key}"
    known = [*_PORT_KEYS, "attr.<key>", *(() if scoped else _CONTAINER_KEYS)]
    # Half a millisecond each: thousands of wrong labels would hold up everybody else.
    near = difflib.get_close_matches(key[:40], known, n=1, cutoff=0.5) if advise else []
    if near:
        return f"unknown key, did you mean {near[0]!r}?"
    return f"unknown key, expected one of {', '.join(sorted(known))}"
