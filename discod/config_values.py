"""The kinds of value a configuration holds: each a rule in words and a parser.

Rule: a parser takes what tomllib made and returns the typed value or raises `Mismatch`; it knows
nothing of keys or other values. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from discod.config_fault import Path
from discod.model.endpoint import Address
from discod.model.names import is_label
from discod.model.settings import ListenAddress, Network

T = TypeVar("T")

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
ETCD_PORT = 2379
"""etcd's client port where a URL names none."""
DNS_PORT = 53

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)\Z", re.ASCII)
_ENDPOINT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:]*)):(?P<port>[0-9]{1,5})\Z")


class Mismatch(Exception):
    """The value breaks its rule; the hint, if any, says more than the rule does."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(hint)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Wrong:
    """One faulty value below the value that was parsed."""

    path: Path
    value: object
    expected: str


class Invalid(Exception):
    """Everything wrong with one value."""

    def __init__(self, *wrongs: Wrong) -> None:
        super().__init__(*wrongs)
        self.wrongs = wrongs


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """A kind of value."""

    text: str
    """What is expected, in words that follow the word *expected*."""
    parse: Callable[[object], T]

    def __call__(self, value: object, path: Path = ()) -> T:
        """The typed value.

        Raises:
            Invalid: with every fault, at `path` or below it.
        """
        try:
            return self.parse(value)
        except Mismatch as mismatch:
            hint = f" ({mismatch.hint})" if mismatch.hint else ""
            raise Invalid(Wrong(path, value, f"expected {self.text}{hint}")) from None
        except Invalid as invalid:
            raise Invalid(
                *(Wrong((*path, *w.path), w.value, w.expected) for w in invalid.wrongs)
            ) from None


def string(value: object) -> str:
    """A string without NUL.

    Raises:
        Mismatch.
    """
    if not isinstance(value, str):
        raise Mismatch
    if "\0" in value:
        raise Mismatch("it holds a NUL character")
    return value


def text(rule: str, valid: Callable[[str], bool]) -> Rule[str]:
    """A string that `valid` accepts."""

    def parse(value: object) -> str:
        found = string(value)
        if not valid(found):
            raise Mismatch
        return found

    return Rule(rule, parse)


def judged(rule: str, fault: Callable[[str], str | None]) -> Rule[str]:
    """A string in which `fault` finds nothing; what it says is the hint."""

    def parse(value: object) -> str:
        found = string(value)
        hint = fault(found)
        if hint is not None:
            raise Mismatch(hint)
        return found

    return Rule(rule, parse)


def optional(rule: Rule[str], meaning: str) -> Rule[str]:
    """Also the empty string, which means `meaning`."""
    return Rule(f'{rule.text}, or "" for {meaning}', lambda v: "" if v == "" else rule.parse(v))


def choice(*choices: str) -> Rule[str]:
    """One of some words."""
    return text("one of " + ", ".join(f'"{c}"' for c in choices), lambda v: v in choices)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Mismatch("without quotes" if value in ("true", "false") else "")
    return value


BOOLEAN: Rule[bool] = Rule("true or false", _boolean)


def integer(low: int, high: int) -> Rule[int]:
    """A whole number within bounds, both included."""

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            quoted = isinstance(value, str) and value.isascii() and value.isdigit()
            raise Mismatch("without quotes" if quoted else "")
        if not low <= value <= high:
            raise Mismatch
        return value

    return Rule(f"an integer from {low} to {high}", parse)


def show_duration(seconds: float) -> str:
    """``0.5`` as ``500ms``, ``3600`` as ``1h``: the largest unit that leaves a whole number."""
    for unit in ("h", "m", "s"):
        if seconds >= UNITS[unit] and (seconds / UNITS[unit]).is_integer():
            return f"{int(seconds / UNITS[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


def duration(low: float, high: float) -> Rule[float]:
    """A time span in seconds within bounds, both included."""

    def parse(value: object) -> float:
        if isinstance(value, str):
            match = _DURATION.match(value)
            if match is None:
                raise Mismatch
            seconds = float(match[1]) * UNITS[match[2]]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if not low <= value <= high:  # before float(): an integer can be too large for it
                raise Mismatch
            seconds = float(value)
        else:
            raise Mismatch
        if not low <= seconds <= high:
            raise Mismatch
        return seconds

    bounds = f"from {show_duration(low)} to {show_duration(high)}"
    return Rule(f'a duration {bounds}, as "500ms", "2s", "1m", "1h" or a number of seconds', parse)


def list_of(item: Rule[T], *, least: int = 0, single: bool = True) -> Rule[tuple[T, ...]]:
    """A list without duplicates; with `single`, one item may stand without its brackets."""

    def parse(value: object) -> tuple[T, ...]:
        if single and not isinstance(value, list):
            return (item(value),)
        if not isinstance(value, list) or len(value) < least:
            raise Mismatch(f"at least {least}" if isinstance(value, list) else "")
        found: dict[T, int] = {}
        wrongs: list[Wrong] = []
        for index, entry in enumerate(value):
            try:
                parsed = item(entry, (index,))
            except Invalid as invalid:
                wrongs += invalid.wrongs
                continue
            first = found.setdefault(parsed, index)
            if first != index:
                wrongs.append(Wrong((index,), entry, f"expected no duplicate (of [{first}])"))
        if wrongs:
            raise Invalid(*wrongs)
        return tuple(found)

    return Rule(f"a list of {item.text}", parse)


def mapping(rule: str, valid_key: Callable[[str], bool]) -> Rule[tuple[tuple[str, str], ...]]:
    """A table of strings, as pairs sorted by key."""

    def parse(value: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            raise Mismatch
        wrongs = [
            Wrong((k,), v, f"expected {rule}")
            for k, v in value.items()
            if not isinstance(v, str) or "\0" in v or not valid_key(k)
        ]
        if wrongs:
            raise Invalid(*wrongs)
        return tuple(sorted(value.items()))

    return Rule(rule, parse)


# Network -----------------------------------------------------------------------------------------


def parse_address(value: str) -> Address:
    """An address that a datagram can be sent to.

    Raises:
        Mismatch: it is none, or a wildcard, multicast, scoped or IPv4-mapped one.
    """
    try:
        address = ip_address(value)
    except ValueError:
        raise Mismatch from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise Mismatch("without a zone (%...)")
        if address.ipv4_mapped is not None:
            raise Mismatch(f"write {address.ipv4_mapped}")
    if address.is_multicast:
        raise Mismatch("not a multicast one")
    return address


def _unicast(value: object) -> Address:
    address = parse_address(string(value))
    if address.is_unspecified:
        raise Mismatch("not the wildcard")
    return address


ADDRESS: Rule[Address] = Rule('ADDRESS, as "192.0.2.1" or "2001:db8::1"', _unicast)


def _port(digits: str) -> int:
    port = int(digits)
    if not 1 <= port <= 65535:
        raise Mismatch("the port is 1 to 65535")
    return port


def _endpoint(value: str) -> ListenAddress:
    match = _ENDPOINT.match(value)
    if match is None:
        if value.count(":") > 1 and "[" not in value:
            raise Mismatch("IPv6 addresses go in brackets")
        address = parse_address(value.strip("[]"))
        raise Mismatch(f"write [{address}]:PORT" if address.version == 6 else "the port is missing")
    if match["v4"] in ("", "*") and match["v6"] is None:
        raise Mismatch(f'all addresses are "0.0.0.0:{match["port"]}" and "[::]:{match["port"]}"')
    try:
        address = parse_address(match["v6"] if match["v6"] is not None else match["v4"])
    except Mismatch as mismatch:
        raise Mismatch(mismatch.hint or "an address, not a name") from None
    if (address.version == 6) != (match["v6"] is not None):
        raise Mismatch("brackets are for IPv6")
    return ListenAddress(address, _port(match["port"]))


LISTEN: Rule[ListenAddress] = Rule(
    'ADDRESS:PORT, as "127.0.0.1:5354" or "[::1]:5354"', lambda v: _endpoint(string(v))
)


def _upstream(value: object) -> ListenAddress:
    written = string(value)
    try:
        found = ListenAddress(parse_address(written), DNS_PORT)
    except Mismatch:
        found = _endpoint(written)
    if found.address.is_unspecified:
        raise Mismatch("not the wildcard")
    return found


UPSTREAM: Rule[ListenAddress] = Rule(
    'ADDRESS or ADDRESS:PORT (default port 53), as "192.0.2.53" or "[2001:db8::53]:5353"', _upstream
)


def _network(value: object) -> Network:
    written = string(value)
    try:
        return ip_network(written)
    except ValueError:
        pass
    try:
        meant = ip_interface(written).network
    except ValueError:
        raise Mismatch from None
    raise Mismatch(f"the network of that address is {meant}")


NETWORK: Rule[Network] = Rule('CIDR, as "10.0.0.0/8" or "2001:db8::/32"', _network)


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return all(is_label(label) for label in host.removesuffix(".").split("."))
    return True


def url(schemes: Collection[str], default_port: int) -> Rule[str]:
    """``SCHEME://HOST:PORT`` and nothing behind it, in one canonical form."""

    def parse(value: object) -> str:
        written = string(value)
        try:
            parts = urlsplit(written)
            port = default_port if parts.port is None else parts.port
        except ValueError:
            raise Mismatch from None
        if parts.scheme not in schemes:
            raise Mismatch
        if "@" in parts.netloc:
            raise Mismatch("without a user: that is store.username and store.password_file")
        host = parts.hostname or ""
        if not _is_host(host) or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise Mismatch
        if not port or any(c.isspace() for c in written):
            raise Mismatch
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    return Rule(" or ".join(f"{s}://HOST:PORT" for s in schemes), parse)
