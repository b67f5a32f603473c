"""From one Plan to the next, as one transaction of nft.

Rule: `transaction` of nothing and a Plan replaces whatever is there; of two Plans it changes what
differs, and an entry that both want is there all the time. Pure.

Input of ``nft -f -`` is one transaction of the kernel: packets see all of it or nothing
(``nft(8)``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discod.model.endpoint import Address
from discod.model.rescue import Place, Plan, Pool, PoolId, Stale
from discod.rescue import ruleset_text as text
from discod.rescue.ruleset_layout import (
    Element,
    Family,
    Links,
    elements,
    named,
    on_bridges,
    still_ended,
)

_EMPTY = Plan()


def transaction(before: Plan | None, after: Plan, *, bridged: bool = True) -> str:
    """The input of nft; empty when nothing differs.

    Args:
        before: What the kernel has; None: unknown, all of ours is replaced.
        after: What it is to have.
        bridged: Whether this kernel has tables for bridges. Without, nothing is said of them.
    """
    if before is None:
        head = text.drop("inet") + (text.drop("bridge") if bridged else "")
        head += text.inet(bridge.name for bridge in after.bridges)
        return head + _change(_EMPTY, after, bridged)
    if before is after:
        return ""
    renamed = [bridge.name for bridge in before.bridges] != [b.name for b in after.bridges]
    head = text.translated(bridge.name for bridge in after.bridges) if renamed else ""
    return head + _change(before, after, bridged)


def _change(before: Plan, after: Plan, bridged: bool) -> str:
    old_links = Links(before.bridges)
    new_links = old_links if after.bridges == before.bridges else Links(after.bridges)
    removed: list[Element] = []
    added: list[Element] = []
    for place in _candidates(before, after):
        old = list(elements(before, place, old_links))
        new = list(elements(after, place, new_links))
        removed += [element for element in old if element not in new]
        added += [element for element in new if element not in old]
    if kept := still_ended(after, removed):
        removed = [element for element in removed if element not in kept]
    if not bridged:
        removed = [element for element in removed if element.family == "inet"]
        added = [element for element in added if element.family == "inet"]
    lines: list[str] = []
    out: list[str] = []
    if any(e.family == "bridge" for e in removed) and not on_bridges(after, new_links):
        removed = [element for element in removed if element.family == "inet"]
        out.append(f"delete table bridge {text.TABLE}\n")
    elif any(e.family == "bridge" for e in added) and not on_bridges(before, old_links):
        lines.append(text.BRIDGE)
    lines += _elements("delete", removed)
    lines += _addresses(before, after)
    for pool in after.pools:
        lines += _pool(before.pools.get(pool), after.pools[pool])
    lines += _elements("add", added)
    for pool, old_pool in before.pools.items():
        if old_pool.slots and not ((there := after.pools.get(pool)) and there.slots):
            lines += _without(old_pool)
    return "".join(lines + out)


def _candidates(before: Plan, after: Plan) -> Iterator[Place]:
    """Places of which anything in the kernel may differ."""
    life = {
        pool
        for pool in before.pools.keys() | after.pools.keys()
        if before.pools.get(pool) is not after.pools.get(pool)
        and _alive(before, pool) != _alive(after, pool)
    }
    everything = before.refuse != after.refuse or before.bridges != after.bridges
    if everything:
        yield from after.stale
    elif before.stale is not after.stale or life:
        # By identity first: to hash an address takes longer than all else here.
        same = set(map(id, before.stale.values()))
        for place, stale in after.stale.items():
            if id(stale) not in same:
                old = before.stale.get(place)
                if old is None or _differ(old, stale) or stale.pool in life:
                    yield place
            elif life and stale.pool in life:
                yield place
    if before.stale is not after.stale:
        same = set(map(id, after.stale.values()))
        for place, stale in before.stale.items():
            if id(stale) not in same and place not in after.stale:
                yield place
    if before.vips is not after.vips or life:
        for place, pool in after.vips.items():
            if before.vips.get(place) != pool or pool in life:
                yield place
        yield from (place for place in before.vips if place not in after.vips)


def _alive(plan: Plan, pool: PoolId) -> bool:
    known = plan.pools.get(pool)
    return bool(known and known.slots)


def _differ(old: Stale, new: Stale) -> bool:
    before = old.pool, old.cut, old.backend, old.shared
    return before != (new.pool, new.cut, new.backend, new.shared)


def _addresses(before: Plan, after: Plan) -> Iterator[str]:
    """Changes of the sets of service addresses."""
    if before.vips is after.vips:
        return
    old = {place.address for place in before.vips}
    new = {place.address for place in after.vips}
    for verb, some in (("delete", old - new), ("add", new - old)):
        for version in (4, 6):
            found: list[Address] = [address for address in some if address.version == version]
            if found:
                yield _verb(verb, "inet", f"vip{version}", sorted(map(str, found)))


def _pool(old: Pool | None, new: Pool) -> Iterator[str]:
    if old is new or not new.slots:
        return
    name, version, protocol = named(new.id), new.id.version, new.id.protocol
    chain, slots = f"p_{name}", f"m_{name}"
    fresh = old is None or not old.slots
    if fresh:
        yield text.slots(slots, version, protocol)
        yield f"add chain inet {text.TABLE} {chain}\n"
    there: dict[int, tuple[Address, int]] = {}
    if old is not None and not fresh:
        if (len(old.slots), old.affinity) != (len(new.slots), new.affinity):
            yield f"flush chain inet {text.TABLE} {chain}\n"
            fresh = True
        there = dict(enumerate(old.slots))
    wanted = dict(enumerate(new.slots))
    gone = sorted(slot for slot, where in there.items() if wanted.get(slot) != where)
    if gone:
        yield _verb("delete", "inet", slots, map(str, gone))
    came = {slot: where for slot, where in wanted.items() if there.get(slot) != where}
    if came:
        pairs = (f"{slot} : {address} . {port}" for slot, (address, port) in came.items())
        yield _verb("add", "inet", slots, pairs)
    if fresh:
        yield text.spread(chain, slots, version, protocol, len(new.slots), new.affinity)


def _without(pool: Pool) -> Iterator[str]:
    name = named(pool.id)
    yield f"flush chain inet {text.TABLE} p_{name}\n"
    yield f"delete chain inet {text.TABLE} p_{name}\n"
    yield f"delete map inet {text.TABLE} m_{name}\n"


def _elements(verb: str, some: Iterable[Element]) -> Iterator[str]:
    by_set: dict[tuple[Family, str], list[str]] = {}
    for family, name, (address, port, protocol), data in some:
        key = f"{address} . {protocol} . {port}"
        whole = f"{key} : {data}" if data and verb == "add" else key
        by_set.setdefault((family, name), []).append(whole)
    for (family, name), found in sorted(by_set.items()):
        yield _verb(verb, family, name, sorted(set(found)))


def _verb(verb: str, family: str, name: str, some: Iterable[str]) -> str:
    return f"{verb} element {family} {text.TABLE} {name} {{ {', '.join(some)} }}\n"
