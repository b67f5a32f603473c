"""DNS names: what discod accepts as a label, and how it makes one.

Rule: every name that reaches the store or the wire passed through here. Pure.
"""

from __future__ import annotations

import hashlib
import re

LABEL_MAX = 63
"""Octets in one label (RFC 1035, section 2.3.4)."""

NAME_MAX = 253
"""Characters of a whole name in text form without the final dot (255 octets on the wire)."""

RESERVED_SERVICES = frozenset({"any", "dns", "node", "service"})
"""Names a service cannot have.

``dns`` holds the name servers in the SkyDNS layout and ``any`` is its wildcard; ``node`` is the
subtree of the hosts; ``service`` is kept for Consul-style aliases.
"""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_PORT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,60}[a-z0-9])?\Z")

LABEL_RULE = "1 to 63 of a-z, 0-9 and '-', neither first nor last a '-'"
"""The rule of `is_label` in words, for messages."""


def is_label(text: str) -> bool:
    """Whether `text` is a lower-case LDH label of 1 to 63 octets (RFC 1123, section 2.1)."""
    return _LABEL.match(text) is not None


def is_port_name(text: str) -> bool:
    """Whether `text` can stand behind the underscore of an SRV owner name (RFC 2782)."""
    return _PORT_NAME.match(text) is not None


def service_fault(name: str) -> str | None:
    """What is wrong with `name` as a service name, in words; None when nothing is."""
    if name in RESERVED_SERVICES or name == "*":
        return f"{name!r} is reserved"
    if not is_label(name):
        return f"expected a DNS label: {LABEL_RULE}"
    return None


def is_domain(text: str) -> bool:
    """Whether `text` is a lower-case host-name domain without a final dot."""
    return len(text) <= NAME_MAX and all(is_label(label) for label in text.split("."))


def to_label(text: str) -> str:
    """Make the nearest LDH label of `text`: lower case, runs of other characters become ``-``.

    Used for *default* names only (image, Compose, host); a name that a user wrote is checked, not
    mended. A label stays as it is. Empty when nothing of it can be kept.
    """
    if is_label(text):
        return text
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:LABEL_MAX].strip("-")


def instance_label(host: str, unit: str, port: int, *, protocol: str, family: int) -> str:
    """The deterministic label of one endpoint: host, container (or unit), port.

    Labels of different endpoints differ: one that would be too long is cut in front, and a digest
    of all of it stands for what was cut.

    Args:
        host: The owner host's name.
        unit: The container's first 12 hexadecimal digits, or a static service's own label.
        port: The *container's* port, 0 to 65535, which stays the same when a publication moves.
        protocol: ``tcp`` or ``udp``.
        family: 4 or 6.
    """
    tail = f"{unit}-{port}"
    if protocol != "tcp":
        tail += f"-{protocol}"
    if family == 6:
        tail += "-v6"
    label = f"{to_label(host)}-{tail}".strip("-")
    if len(label) <= LABEL_MAX:
        return label
    digest = hashlib.sha256(f"{host}\n{tail}".encode()).hexdigest()[:8]
    return f"{digest}-{label[-(LABEL_MAX - len(digest) - 1) :].lstrip('-')}"


def reversed_labels(domain: str) -> str:
    """``discod.internal`` as the path ``internal/discod`` (SkyDNS layout)."""
    return "/".join(reversed(domain.split(".")))
