"""Routing information bases of one peer: what it told us, and what we told it (RFC 4271, 3.2).

Rule: each change is returned as one `Change`; the same call twice returns nothing the second time.
Nothing learnt is told to another peer unless this host reflects (`reflection`). Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from calico_bgp.attributes import Attributes
from calico_bgp.prefix import Family, Prefix
from calico_bgp.update import Announced, Update


class Change(NamedTuple):
    """A difference between two sets of routes."""

    announced: dict[Prefix, Attributes]
    withdrawn: frozenset[Prefix] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.announced or self.withdrawn)


class Import:
    """What of a peer's routes is used; this one takes all (`policy.Importer` chooses)."""

    def judge(self, attributes: Attributes) -> Attributes | None:
        """The attributes that count from here on; None: routes with these are not used."""
        return attributes

    def permits(self, prefix: Prefix) -> bool:
        """Whether routes to this prefix are used."""
        return True


class AdjRibIn:
    """What one peer announced; `accepted` is what of it is used."""

    def __init__(self, policy: Import) -> None:
        self._policy = policy
        self._received: dict[Prefix, Attributes] = {}
        self._stale: set[Prefix] = set()
        self.accepted: dict[Prefix, Attributes] = {}
        self.received: Counter[Family] = Counter()
        """Prefixes before any filter: what a maximum is about (RFC 4486, section 4)."""

    @property
    def stale(self) -> int:
        """Prefixes kept from an earlier session (RFC 4724, section 4.2)."""
        return len(self._stale)

    def apply(self, update: Update) -> Change:
        """Take an UPDATE."""
        gone = self._forget(update.withdrawn)
        announced: dict[Prefix, Attributes] = {}
        for group in update.announced:
            self._take(group, announced, gone)
        return Change(announced, frozenset(gone))

    def _take(
        self, group: Announced, announced: dict[Prefix, Attributes], gone: set[Prefix]
    ) -> None:
        used = self._policy.judge(group.attributes)
        permits, received, accepted = self._policy.permits, self._received, self.accepted
        before = len(received)
        for prefix in group.prefixes:
            received[prefix] = group.attributes
            if used is not None and permits(prefix):
                gone.discard(prefix)
                if accepted.get(prefix) != used:
                    announced[prefix] = accepted[prefix] = used
            elif accepted.pop(prefix, None) is not None:
                gone.add(prefix)
        self.received[group.prefixes[0].family] += len(received) - before
        if self._stale:
            self._stale.difference_update(group.prefixes)

    def _forget(self, prefixes: Iterable[Prefix]) -> set[Prefix]:
        gone = set()
        for prefix in prefixes:
            if self._received.pop(prefix, None) is not None:
                self.received[prefix.family] -= 1
                self._stale.discard(prefix)
            if self.accepted.pop(prefix, None) is not None:
                gone.add(prefix)
        return gone

    def judge_again(self, policy: Import) -> Change:
        """Another policy: what was received is kept, so the peer need not send it again."""
        self._policy = policy
        before, self.accepted = self.accepted, {}
        judged: dict[int, Attributes | None] = {}
        for prefix, attributes in self._received.items():
            if id(attributes) not in judged:
                judged[id(attributes)] = policy.judge(attributes)
            used = judged[id(attributes)]
            if used is not None and policy.permits(prefix):
                self.accepted[prefix] = used
        return difference(before, self.accepted)

    def mark_stale(self, families: Iterable[Family]) -> Change:
        """The session is lost: keep these families, forget the rest.

        What was stale already is forgotten too (RFC 4724, section 4.2: a restart in a restart).
        """
        kept = frozenset(families)
        gone = self._forget([p for p in self._received if p.family not in kept or p in self._stale])
        self._stale = set(self._received)
        return Change({}, frozenset(gone))

    def sweep(self, families: Iterable[Family] | None = None) -> Change:
        """Forget what is stale, of some families or of all."""
        some = None if families is None else frozenset(families)
        gone = self._forget([p for p in self._stale if some is None or p.family in some])
        return Change({}, frozenset(gone))

    def clear(self) -> Change:
        """Forget everything."""
        gone = frozenset(self.accepted)
        self._received, self._stale, self.accepted = {}, set(), {}
        self.received.clear()
        return Change({}, gone)


class AdjRibOut:
    """What one peer was told."""

    def __init__(self) -> None:
        self.advertised: dict[Prefix, Attributes] = {}

    def set(self, desired: dict[Prefix, Attributes]) -> Change:
        """What remains to be told so that the peer knows `desired`; it counts as told.

        `desired` itself is kept, and `change` changes it.
        """
        change = difference(self.advertised, desired)
        self.advertised = desired
        return change

    def change(self, announced: Mapping[Prefix, Attributes], withdrawn: Iterable[Prefix]) -> Change:
        """The same for a difference: costs what changes, however much was told before."""
        return amend(self.advertised, announced, withdrawn)

    def of(self, family: Family) -> dict[Prefix, Attributes]:
        """What was told of a family, for a ROUTE-REFRESH."""
        return {p: told for p, told in self.advertised.items() if p.family == family}


def amend(
    routes: dict[Prefix, Attributes],
    announced: Mapping[Prefix, Attributes],
    withdrawn: Iterable[Prefix],
) -> Change:
    """Change `routes` in place; returns what of it was a change."""
    gone = frozenset([one for one in withdrawn if routes.pop(one, None) is not None])
    new = {}
    for prefix, attributes in announced.items():
        if routes.get(prefix) != attributes:
            new[prefix] = routes[prefix] = attributes
    return Change(new, gone - new.keys())


def difference(
    old: Mapping[Prefix, Attributes],
    new: Mapping[Prefix, Attributes],
) -> Change:
    """From `old` to `new`."""
    announced = {}
    for prefix, attributes in new.items():
        there = old.get(prefix)
        # Most are the very same object, and comparing takes longer than all else.
        if there is not attributes and (there is None or there != attributes):
            announced[prefix] = attributes
    return Change(announced, frozenset(old.keys() - new.keys()))
