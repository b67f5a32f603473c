"""Kinds of value that are names: ALPN ids, aliases, routes.

Rule: as in `discod.config_values`. Pure.
"""

from __future__ import annotations

from discod.config_values import UPSTREAM, Invalid, Mismatch, Rule, Wrong, list_of, string, text
from discod.model.fields import is_alpn, is_target
from discod.model.names import is_domain, service_fault
from discod.model.settings import Route

ALPN: Rule[str] = text('ALPN ids of letters, digits, "-", "/" and ".", as "h2"', is_alpn)


def _domain(value: object) -> str:
    written = string(value).removesuffix(".").lower()
    # Not is_domain alone: outside names may have underscores (RFC 2181, section 11).
    if not is_domain(written.replace("_", "a")):
        raise Mismatch
    return written


def _aliases(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Mismatch
    wrongs: list[Wrong] = []
    found: dict[str, str] = {}
    for key, target in value.items():
        fault = service_fault(key)
        if fault is not None:
            wrongs.append(Wrong((key,), target, f"expected a service name as the key ({fault})"))
            continue
        try:
            found[key] = _domain(target)
            if not is_target(found[key]):
                raise Mismatch
        except Mismatch:
            wrongs.append(Wrong((key,), target, "expected a service or a domain name"))
            continue
        if found[key] == key:
            wrongs.append(Wrong((key,), target, "expected another name than its own"))
    if wrongs:
        raise Invalid(*wrongs)
    return tuple(sorted(found.items()))


ALIASES: Rule[tuple[tuple[str, str], ...]] = Rule(
    'a table of names, as { db = "postgres", search = "www.example.com" }', _aliases
)


def _routes(value: object) -> tuple[Route, ...]:
    if not isinstance(value, dict):
        raise Mismatch
    servers = list_of(UPSTREAM, least=1)
    wrongs: list[Wrong] = []
    found: dict[str, Route] = {}
    for key, listed in value.items():
        try:
            domain = _domain(key)
            if domain in found:
                wrongs.append(Wrong((key,), listed, "expected each domain once"))
            found[domain] = Route(domain, servers(listed, (key,)))
        except Mismatch:
            wrongs.append(Wrong((key,), listed, "expected a domain as the key"))
        except Invalid as invalid:
            wrongs += invalid.wrongs
    if wrongs:
        raise Invalid(*wrongs)
    return tuple(route for _, route in sorted(found.items()))


ROUTES: Rule[tuple[Route, ...]] = Rule(
    'a table of domains and their name servers, as { "corp.example" = ["192.0.2.53"] }', _routes
)
