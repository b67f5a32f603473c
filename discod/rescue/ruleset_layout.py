"""Where a Plan's places are in the sets of the tables.

Rule: what is in the kernel for one place depends on the Plan alone, so that two Plans can be
compared place by place. Pure.

    inet    dead   new connections to it go to the chain of its pool, or are refused
            ours   what `dead` translates; says in postrouting that a translation is ours
            gone   established connections to it, or answered from it, end
    bridge  link   frames to it get the link-layer address of its bridge
            soft   of those, the ones whose established connections are left alone
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from discod.model.endpoint import Address
from discod.model.rescue import Bridge, Place, Plan, PoolId
from discod.rescue.ruleset_text import REFUSE

Family = Literal["inet", "bridge"]
_ODD: Final = re.compile(r"[^a-z0-9]+")
_READABLE: Final = 32


class Element(NamedTuple):
    """One place in one set."""

    family: Family
    set: str
    place: Place
    data: str = ""
    """What a map has for it, as nft writes it."""


SETS: Final[tuple[tuple[Family, str], ...]] = (
    ("inet", "dead"), ("inet", "ours"), ("inet", "gone"), ("bridge", "link"), ("bridge", "soft"),
)  # fmt: skip


GONE: Final = ("gone4", "gone6")


class Links:
    """Which link-layer address frames to an address on a bridge of this host are given."""

    def __init__(self, bridges: Iterable[Bridge]) -> None:
        self._networks: dict[tuple[int, int], dict[int, str]] = {}
        for bridge in bridges:
            mac = ":".join(f"{octet:02x}" for octet in bridge.mac)
            for address, length in bridge.networks:
                shift = address.max_prefixlen - length
                of_length = self._networks.setdefault((address.version, shift), {})
                of_length.setdefault(int(address) >> shift, mac)
        # The longest prefix first.
        self._networks = dict(sorted(self._networks.items(), key=lambda item: item[0][1]))

    def of(self, address: Address) -> str:
        """Empty: on none of them."""
        for (version, shift), of_length in self._networks.items():
            if version == address.version and (mac := of_length.get(int(address) >> shift)):
                return mac
        return ""


def named(pool: PoolId) -> str:
    """What a pool's chain (``p_``) and map (``m_``) are called behind that: at most 49 octets."""
    digest = blake2b(repr(tuple(pool)).encode(), digest_size=8).hexdigest()
    word = _ODD.sub("_", f"{pool.service}_{pool.port}".lower())[:_READABLE]
    return f"{word}_{digest}"


def _chain(plan: Plan, pool: PoolId) -> str:
    known = plan.pools.get(pool)
    return f"p_{named(pool)}" if known and known.slots else ""


def elements(plan: Plan, place: Place, links: Links) -> Iterator[Element]:
    """All that is in the sets for one place."""
    version = place.address.version
    if (pool := plan.vips.get(place)) is not None:
        yield Element("inet", f"dead{version}", place, f"goto {_chain(plan, pool) or REFUSE}")
        yield Element("inet", f"ours{version}", place)
        return
    if (stale := plan.stale.get(place)) is None:
        return
    chain = "" if stale.shared else _chain(plan, stale.pool)
    if chain:
        yield Element("inet", f"ours{version}", place)
    elif plan.refuse:
        chain = REFUSE
    if chain:
        yield Element("inet", f"dead{version}", place, f"goto {chain}")
    yield from ended(plan, place)
    cuts = stale.cut and place.protocol == "tcp"
    if (chain or cuts) and (mac := links.of(place.address)):
        yield Element("bridge", f"link{version}", place, mac)
        if place.protocol == "tcp" and not cuts:
            yield Element("bridge", f"soft{version}", place)


def ended(plan: Plan, place: Place) -> Iterator[Element]:
    """Where established connections to a place end: there, and in the container behind it."""
    stale = plan.stale.get(place)
    if stale is None or not stale.cut:
        return
    for where in (place, stale.backend):
        if where is not None and where.protocol == "tcp":
            yield Element("inet", f"gone{where.address.version}", where)


def still_ended(plan: Plan, some: Iterable[Element], but: Set[Place] = frozenset()) -> set[Element]:
    """Of `some`, what the plan has in ``gone`` anyhow: two may have one container behind them.

    Args:
        plan: A plan.
        some: Elements.
        but: Places of the plan that do not count, neither as places nor behind one.
    """
    asked = {
        element.place: element
        for element in some
        if element.set in GONE and element.place not in but
    }
    if not asked:
        return set()
    kept = {e for place, e in asked.items() if (own := plan.stale.get(place)) and own.cut}
    for place, stale in plan.stale.items():
        if stale.backend is not None and stale.cut and stale.backend in asked and place not in but:
            kept.add(asked[stale.backend])
    return kept


def without(plan: Plan, gone: Set[Place]) -> Plan:
    """The plan with these places in use: neither stale nor behind one that is."""
    stale = dict(plan.stale)
    for place in gone:
        stale.pop(place, None)
    behind = [place for place, one in stale.items() if one.backend in gone]
    for place in behind:
        stale[place] = replace(stale[place], backend=None)
    return replace(plan, stale=MappingProxyType(stale))


def on_bridges(plan: Plan, links: Links) -> bool:
    """Whether there is anything for the table for bridges."""
    return any(
        element.family == "bridge"
        for place in plan.stale
        if links.of(place.address)
        for element in elements(plan, place, links)
    )


def everywhere(some: Iterable[Place]) -> Iterator[Element]:
    """Where places could be at all."""
    for place in some:
        for family, name in SETS:
            yield Element(family, f"{name}{place.address.version}", place)
