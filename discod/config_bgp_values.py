"""The kinds of value that only BGP has: AS numbers, lines of prefix lists, communities, hold times.

Rule: as in `discod.config_values`. Pure.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from discod.config_values import (
    ADDRESS,
    NETWORK,
    UNITS,
    Invalid,
    Mismatch,
    Rule,
    Wrong,
    choice,
    integer,
    list_of,
    string,
)
from discod.model.bgp_settings import PrefixRule
from discod.model.endpoint import Address
from discod.model.names import service_fault

RESERVED_ASNS = {
    0: "RFC 7607",
    23456: "AS_TRANS, RFC 6793",
    65535: "RFC 7300",
    4294967295: "RFC 7300",
}
"""Numbers that no AS has, and who says so."""

NOT_OURS = frozenset({*range(5), *range(8, 19), 42, 99, *range(186, 199)})
"""Route protocol numbers of the kernel, its tools and of other routing daemons
(``/etc/iproute2/rt_protos``): discod deletes whatever has its own number."""

WELL_KNOWN = (
    "no-export",
    "no-advertise",
    "no-export-subconfed",
    "no-peer",
    "blackhole",
    "graceful-shutdown",
)
"""Communities with a name (RFC 1997, 3765, 7999, 8326)."""

_RULE = re.compile(r"(?:(permit|deny) +)?(\S+)(?: +ge +(\d{1,3}))?(?: +le +(\d{1,3}))?\Z", re.ASCII)
_COMMUNITY = re.compile(r"(\d{1,10}):(\d{1,10})(?::(\d{1,10}))?\Z", re.ASCII)
_SECONDS = re.compile(r"(\d{1,5})(s|m|h)\Z", re.ASCII)


def _asn(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        quoted = isinstance(value, str) and value.isascii() and value.isdigit()
        raise Mismatch("without quotes" if quoted else "")
    if value in RESERVED_ASNS:
        raise Mismatch(f"{value} is reserved, {RESERVED_ASNS[value]}")
    if not 0 < value < 1 << 32:
        raise Mismatch
    return value


ASN: Rule[int] = Rule("an AS number from 1 to 4294967294, neither 23456 nor 65535, as 64512", _asn)


def _ipv4_id(value: object) -> Address | None:
    written = string(value)
    if not written:
        return None
    try:
        found = IPv4Address(written)
    except AddressValueError:
        raise Mismatch from None
    if found.is_unspecified:
        raise Mismatch("not 0.0.0.0: RFC 6286, section 2.1")
    return found


IPV4_ID: Rule[Address | None] = Rule(
    'an IPv4 address other than 0.0.0.0, or "" for one of this host', _ipv4_id
)

SOURCE: Rule[Address | None] = Rule(
    f'{ADDRESS.text}, or "" for that of [bgp]', lambda v: None if v == "" else ADDRESS.parse(v)
)

U32 = integer(0, 4294967295)
TABLE: Rule[int] = Rule(
    "a routing table from 1 to 4294967295, but 255 (the kernel's own)",
    lambda v: _other_than(integer(1, 4294967295).parse(v), {255}),
)
PROTOCOL: Rule[int] = Rule(
    "a route protocol from 5 to 255 that no other program has (not 8 to 18, 42, 99, 186 to 198)",
    lambda v: _other_than(integer(5, 255).parse(v), NOT_OURS),
)
FAMILY = choice("ipv4", "ipv6")


def _other_than(value: int, taken: frozenset[int] | set[int]) -> int:
    if value in taken:
        raise Mismatch
    return value


def _hold_time(value: object) -> int:
    match = _SECONDS.match(value) if isinstance(value, str) else None
    if match is not None:
        value = int(match[1]) * int(UNITS[match[2]])
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch
    if value in (1, 2):
        raise Mismatch("RFC 4271, section 4.2")
    if not 0 <= value <= 65535:
        raise Mismatch
    return value


HOLD_TIME: Rule[int] = Rule('whole seconds, 0 (for ever) or 3 to 65535, as 9 or "90s"', _hold_time)


def _community(value: object) -> str:
    written = string(value)
    if written in WELL_KNOWN:
        return written
    match = _COMMUNITY.match(written)
    if match is None:
        raise Mismatch
    numbers = [int(part) for part in match.groups() if part is not None]
    most = 0xFFFF if len(numbers) == 2 else 0xFFFFFFFF
    if max(numbers) > most:
        raise Mismatch(f"each number is at most {most}")
    return ":".join(map(str, numbers))


COMMUNITY: Rule[str] = Rule(
    'communities, as "65000:1", "65000:1:2" (large, RFC 8092), ' + ", ".join(WELL_KNOWN),
    _community,
)


def lengths(rule: PrefixRule) -> tuple[int, int]:
    """The shortest and the longest prefix that a rule is for."""
    own = rule.network.prefixlen
    low = own if rule.ge is None else rule.ge
    if rule.le is not None:
        return low, rule.le
    return low, own if rule.ge is None else rule.network.max_prefixlen


def show_rule(rule: PrefixRule) -> str:
    """A rule as it is written."""
    parts = [] if rule.permit else ["deny"]
    parts.append(str(rule.network))
    parts += [f"{word} {n}" for word, n in (("ge", rule.ge), ("le", rule.le)) if n is not None]
    return " ".join(parts)


def _prefix_rule(value: object) -> PrefixRule:
    match = _RULE.match(string(value).strip())
    if match is None:
        raise Mismatch
    network = NETWORK.parse(match[2])
    ge, le = (None if part is None else int(part) for part in match.groups()[2:])
    rule = PrefixRule(network, match[1] != "deny", ge, le)
    low, high = lengths(rule)
    if not network.prefixlen <= low <= high <= network.max_prefixlen:
        raise Mismatch(f"{network.prefixlen} <= ge <= le <= {network.max_prefixlen}")
    return rule


PREFIX_RULE: Rule[PrefixRule] = Rule(
    'lines of a prefix list, as "10.0.0.0/8", "10.0.0.0/8 ge 24 le 32" or "deny 10.9.0.0/16 le 32"',
    _prefix_rule,
)
PREFIX_RULES: Rule[tuple[PrefixRule, ...]] = list_of(PREFIX_RULE)


def _anycast(value: object) -> tuple[tuple[str, tuple[Address, ...]], ...]:
    if not isinstance(value, dict):
        raise Mismatch
    addresses = list_of(ADDRESS, least=1)
    wrongs: list[Wrong] = []
    found: dict[str, tuple[Address, ...]] = {}
    for key, listed in value.items():
        fault = service_fault(key)
        if fault is not None:
            wrongs.append(Wrong((key,), listed, f"expected a service name as the key ({fault})"))
            continue
        try:
            found[key] = addresses(listed, (key,))
        except Invalid as invalid:
            wrongs += invalid.wrongs
    if wrongs:
        raise Invalid(*wrongs)
    return tuple(sorted(found.items()))


ANYCAST: Rule[Any] = Rule(
    'a table of services and their fixed addresses, as { web = ["192.0.2.80", "2001:db8::80"] }',
    _anycast,
)
