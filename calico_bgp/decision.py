"""Which of several routes to a prefix is used (RFC 4271, section 9.1).

Rule: the choice depends on the paths alone, not on the order in which they came. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from calico_bgp import as_path
from calico_bgp.attributes import Attributes
from calico_bgp.prefix import Address, Prefix
from calico_bgp.rib import Change

LOCAL_PREF: Final = 100
"""Of routes that say nothing of it: what all peers assume."""

Changed = dict[Prefix, tuple["Path", ...]]
"""Prefixes whose paths are others now, best first; empty: there is none any more."""


class Path(NamedTuple):
    """One peer's route to a prefix."""

    attributes: Attributes
    peer: Address
    router_id: IPv4Address
    external: bool


def best(paths: Iterable[Path], multipath: int = 1) -> tuple[Path, ...]:
    """The best path, and behind it those that are as good, at most `multipath` in all.

    As good: equal up to section 9.1.2.2 d. Neither the length of the way inside the AS nor equal
    AS numbers are asked for, as is usual in a data centre.
    """
    left = list(paths)
    if len(left) == 1:
        return (left[0],)
    left = _least(left, _preference)
    left = _lowest_med(left)
    left = _least(left, lambda path: not path.external)
    return tuple(sorted(left, key=_last)[:multipath])


def _preference(path: Path) -> tuple[int, int, int]:
    """Section 9.1.1, and 9.1.2.2 a and b; less is better."""
    a = path.attributes
    preference = LOCAL_PREF if a.local_pref is None else a.local_pref
    return -preference, as_path.length(a.as_path), a.origin


def _lowest_med(paths: list[Path]) -> list[Path]:
    """Section 9.1.2.2 c: compared between routes of one neighbouring AS; none counts as 0."""
    if len(paths) < 2:
        return paths
    lowest: dict[int | None, int] = {}
    for path in paths:
        asn, med = as_path.first(path.attributes.as_path), path.attributes.med or 0
        lowest[asn] = min(med, lowest.get(asn, med))
    return [
        path
        for path in paths
        if (path.attributes.med or 0) == lowest[as_path.first(path.attributes.as_path)]
    ]


def _last(path: Path) -> tuple[int, int, int, int]:
    """Section 9.1.2.2 f and g, with RFC 4456, section 9, between them."""
    a = path.attributes
    identifier = a.originator_id or path.router_id
    return int(identifier), len(a.cluster_list), path.peer.version, int(path.peer)


def _least(paths: list[Path], key: Callable[[Path], object]) -> list[Path]:
    if len(paths) < 2:
        return paths
    keys: list[object] = [key(path) for path in paths]
    least = min(keys)  # type: ignore[type-var]
    return [path for path, its in zip(paths, keys, strict=True) if its == least]


class LocRib:
    """All peers' accepted routes, and the paths chosen of them."""

    def __init__(self, multipath: int = 1) -> None:
        self._multipath = multipath
        self._paths: dict[Prefix, dict[Address, Path]] = {}
        self.chosen: dict[Prefix, tuple[Path, ...]] = {}

    def apply(
        self, change: Change, peer: Address, router_id: IPv4Address, *, external: bool
    ) -> Changed:
        """Take a change of one peer's routes."""
        for prefix in change.withdrawn:
            if (paths := self._paths.get(prefix)) is not None:
                paths.pop(peer, None)
                if not paths:
                    del self._paths[prefix]
        # Routes that came together share one: less to make, and for the collector to look through.
        made: dict[int, Path] = {}
        for prefix, attributes in change.announced.items():
            if (path := made.get(id(attributes))) is None:
                path = made[id(attributes)] = Path(attributes, peer, router_id, external)
            if (paths := self._paths.get(prefix)) is None:
                self._paths[prefix] = {peer: path}
            else:
                paths[peer] = path
        return self._choose((*change.withdrawn, *change.announced))

    def remove(self, peer: Address) -> Changed:
        """The peer is no longer configured."""
        its = [prefix for prefix, paths in self._paths.items() if peer in paths]
        for prefix in its:
            del self._paths[prefix][peer]
            if not self._paths[prefix]:
                del self._paths[prefix]
        return self._choose(its)

    def allow(self, multipath: int) -> Changed:
        """Another number of paths at most."""
        if multipath == self._multipath:
            return {}
        self._multipath = multipath
        return self._choose(list(self._paths))

    def _choose(self, prefixes: Iterable[Prefix]) -> Changed:
        changed: Changed = {}
        alone: dict[int, tuple[Path, ...]] = {}
        for prefix in prefixes:
            now: tuple[Path, ...] = ()
            if paths := self._paths.get(prefix):
                if len(paths) == 1:
                    [path] = paths.values()
                    if (now := alone.get(id(path), ())) == ():
                        now = alone[id(path)] = (path,)
                else:
                    now = best(paths.values(), self._multipath)
            if now == self.chosen.get(prefix, ()):
                continue
            changed[prefix] = now
            if now:
                self.chosen[prefix] = now
            else:
                del self.chosen[prefix]
        return changed
