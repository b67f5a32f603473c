"""The values that labels and variables may have, and the rule of each in words.

Rule: a parser takes the text as written and returns its value, or raises `ValueError` whose message
is what was expected, for people. Numbers are ASCII digits only. Pure.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import cast

from announcer.metadata import CheckWord, PortKey
from discod.model.endpoint import Address, Prefer
from discod.model.fields import ALPN_RULE, is_address, is_alpn
from discod.model.names import LABEL_RULE, is_label, is_port_name, service_fault
from discod.model.settings import AddressMode
from discod.model.vip import AUTO, VIP_RULE, VipWord, as_vip

PORTS_MAX = 64
"""Ports one container may offer: instances stay readable, and one transaction holds them."""

TAGS_MAX = 32
ALPN_MAX = 16
ANYCAST_MAX = 8
TTL_MAX = 604_800
"""Seconds, a week: as ``ttl`` of ``[[service]]``, and as RFC 8767 caps what caches keep."""
ATTRIBUTES_MAX = 32
ATTRIBUTE_MAX = 256
"""Characters of one attribute's value: with `ATTRIBUTES_MAX`, a transaction of 128 records stays
below etcd's default request limit of 1.5 MiB."""

_ATTRIBUTE_KEY = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?\Z")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+\Z")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_INTEGER = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_PATH = re.compile(r"/[\x21-\x7e]{0,1023}\Z")


def integer(text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, in decimal digits."""
    if not _INTEGER.match(text) or not low <= int(text) <= high:
        raise ValueError(f"expected a whole number from {low} to {high}")
    return int(text)


def weight(text: str) -> int:
    """0 to 65535 (RFC 2782)."""
    return integer(text, 0, 65535)


def priority(text: str) -> int:
    """1 to 65535: SkyDNS readers take 0 for "not given", which is 10."""
    return integer(text, 1, 65535)


def ttl(text: str) -> int:
    """Seconds, 0 to a week."""
    return integer(text, 0, TTL_MAX)


def alpn(text: str) -> tuple[str, ...]:
    """ALPN ids between commas, the preferred first (RFC 7301); none twice."""
    rule = f"expected {ALPN_RULE}, between commas, each once and at most {ALPN_MAX}"
    found = tuple(item.strip() for item in text.split(","))
    if not all(map(is_alpn, found)) or len(set(found)) != len(found) or len(found) > ALPN_MAX:
        raise ValueError(rule)
    return found


def prefer(text: str) -> Prefer:
    """Which endpoints answers are made of, while any of them is up."""
    if text not in ("none", "local", "zone"):
        raise ValueError("expected none, local or zone")
    return cast(Prefer, text)


def anycast(text: str) -> tuple[Address, ...]:
    """Addresses between commas, each once, sorted: fixed ones of the service, for BGP."""
    items = [item.strip() for item in text.split(",")]
    found = {ip_address(item) for item in items if is_address(item)}
    usable = not any(
        a.is_multicast or a.is_unspecified or a.is_loopback or a.is_link_local for a in found
    )
    if len(found) != len(items) or len(found) > ANYCAST_MAX or not usable:
        raise ValueError(
            "expected unicast addresses between commas, as 192.0.2.80,2001:db8::80; each once and"
            f" at most {ANYCAST_MAX}"
        )
    return tuple(sorted(found, key=lambda a: (a.version, a.packed)))


def vip(text: str) -> VipWord:
    """Whether the service has addresses of its own, and which."""
    if text in (AUTO, "none"):
        return AUTO if text == AUTO else ()
    items = [item.strip() for item in text.split(",")]
    found = as_vip([ip_address(item) for item in items if is_address(item)])
    if len(found) != len(items):
        raise ValueError(f"expected {VIP_RULE}, between commas")
    return found


def affinity(text: str) -> bool:
    """Whether all connections of one client to the service's own address stay together."""
    if text not in ("none", "client"):
        raise ValueError("expected none or client")
    return text == "client"


def port_number(text: str) -> int:
    """1 to 65535."""
    return integer(text, 1, 65535)


def count(text: str) -> int:
    """Of checks in a row: 1 to 100."""
    return integer(text, 1, 100)


def duration(text: str) -> float:
    """Seconds: a number, or Go's form such as ``500ms`` or ``1m30s``; 100 ms to an hour."""
    if _NUMBER.match(text):
        seconds = float(text)
    elif _DURATION.match(text):
        seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text))
    else:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ValueError("expected a time from 100ms to 1h, e.g. 500ms, 5s, 1m30s or 2.5 (seconds)")
    return seconds


def service(text: str) -> str:
    """A name that a service can have, as written: nothing is mended."""
    fault = service_fault(text)
    if fault is None:
        return text
    lower = text.lower()
    if lower != text and service_fault(lower) is None:
        raise ValueError(f"upper case is not allowed in a name, write {lower!r}")
    raise ValueError(fault)


def port_name(text: str) -> str:
    """What follows the underscore in ``_<port name>._tcp``."""
    if not is_port_name(text):
        raise ValueError(
            "expected a port name without underscore: 1 to 62 of a-z, 0-9 and '-', "
            "neither first nor last a '-'"
        )
    return text


def tag(text: str) -> str:
    """One tag: it becomes the name ``<tag>.<service>.<domain>``."""
    if text == "any":
        raise ValueError("'any' is a wildcard and cannot be a tag")
    if not is_label(text):
        raise ValueError(f"every tag must be a DNS label: {LABEL_RULE}; found {text[:80]!r}")
    return text


def tags(text: str) -> tuple[str, ...]:
    r"""Tags between commas, ``\,`` for a comma inside one; each once, in the order written.

    Empty items are skipped, as Registrator does; an empty text is no tags.
    """
    items = [item.replace("\\,", ",").strip() for item in re.split(r"(?<!\\),", text)]
    found = tuple(dict.fromkeys(tag(item) for item in items if item))
    if len(found) > TAGS_MAX:
        raise ValueError(f"expected at most {TAGS_MAX} tags, found {len(found)}")
    return found


def port_key(text: str, separator: str = "/") -> PortKey:
    """``80``, ``80/tcp`` or ``53/udp``."""
    number, found, protocol = text.partition(separator)
    if found and protocol not in ("tcp", "udp"):
        raise ValueError(f"expected PORT, PORT{separator}tcp or PORT{separator}udp")
    return PortKey(port_number(number), "udp" if protocol == "udp" else "tcp")


def ports(text: str) -> tuple[PortKey, ...]:
    """Ports between commas, e.g. ``80,443`` or ``53/udp, 53/tcp``; none twice."""
    rule = "expected container ports between commas, each once, e.g. 80 or 53/udp,53/tcp"
    try:
        found = [port_key(item.strip()) for item in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{rule} ({error})") from None
    if len(set(found)) != len(found):
        raise ValueError(rule)
    if len(found) > PORTS_MAX:
        raise ValueError(f"expected at most {PORTS_MAX} ports, found {len(found)}")
    return tuple(found)


def address_mode(text: str) -> AddressMode:
    """How to find the address."""
    if text not in ("auto", "published", "container"):
        raise ValueError("expected auto, published or container")
    return cast(AddressMode, text)


def true_only(text: str) -> bool:
    """True-ish, and nothing else."""
    if text.lower() not in ("true", "1", "yes", "on"):
        raise ValueError("expected true, 1, yes or on; remove it where it is not meant")
    return True


def boolean(text: str) -> bool:
    """True-ish or false-ish."""
    if text.lower() in ("false", "0", "no", "off"):
        return False
    if text.lower() not in ("true", "1", "yes", "on"):
        raise ValueError("expected true or false")
    return True


def text_line(text: str) -> str:
    """Any one line, not empty; for names of networks."""
    if not text or not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text


def path(text: str) -> str:
    """The path of an HTTP request, with query where wanted."""
    if not _PATH.match(text):
        raise ValueError("expected a path: '/' and then visible ASCII characters, at most 1024")
    return text


def status_range(text: str) -> tuple[int, int]:
    """``200`` or ``200-399``."""
    match = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", text)
    if match is None or (match[2] and match[2] < match[1]):
        raise ValueError("expected an HTTP status or a range of them, e.g. 200 or 200-399")
    return int(match[1]), int(match[2] or match[1])


def command(text: str) -> tuple[str, ...]:
    """A command as a Dockerfile writes it: a JSON list is argv, other text goes to ``/bin/sh -c``.

    https://docs.docker.com/reference/dockerfile/#shell-and-exec-form
    """
    if "\0" in text or not text.strip() or len(text) > 4096:
        raise ValueError("expected a command of 1 to 4096 characters")
    if not text.lstrip().startswith("["):
        return ("/bin/sh", "-c", text)
    try:
        argv = json.loads(text)
    except (ValueError, RecursionError):
        argv = None
    if (
        not isinstance(argv, list)
        or not argv
        or not all(isinstance(arg, str) and "\0" not in arg for arg in argv)
        or not argv[0]
    ):
        raise ValueError('expected a command, or a JSON list of strings such as ["check", "-q"]')
    return tuple(argv)


def check(text: str) -> CheckWord:
    """``tcp``, ``http``, ``http:/path``, ``cmd:<command>`` or ``none``."""
    kind, colon, rest = text.partition(":")
    if kind in ("tcp", "none") and not colon:
        return CheckWord("tcp" if kind == "tcp" else "none")
    if kind == "http":
        return CheckWord("http", path=path(rest) if colon else "")
    if kind == "cmd" and colon:
        return CheckWord("cmd", command=command(rest))
    raise ValueError("expected tcp, http, http:/path, cmd:COMMAND or none")


def attribute_key(text: str) -> str:
    """The name of an attribute."""
    if not _ATTRIBUTE_KEY.match(text):
        raise ValueError(
            "expected an attribute's name: 1 to 63 of a-z, 0-9, '_', '.' and '-', "
            "first and last a letter or digit"
        )
    return text


def attribute(text: str) -> str:
    """The value of an attribute; it may be empty."""
    if len(text) > ATTRIBUTE_MAX or not text.isprintable():
        raise ValueError(f"expected one printable line of at most {ATTRIBUTE_MAX} characters")
    return text
