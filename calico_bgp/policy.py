"""What is told to a peer and what is believed of it.

Rule: the outcome depends on the route, the policy and who the peer is, and on nothing else. Without
a policy an external peer is told nothing and believed nothing (RFC 8212). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from calico_bgp import as_path
from calico_bgp.attributes import GRACEFUL_SHUTDOWN, Attributes
from calico_bgp.decision import LOCAL_PREF
from calico_bgp.prefix import Address, Family, Network, Prefix, of_network
from calico_bgp.rib import Import

DRAINING_PREF: Final = 0
"""RFC 8326, section 4.2: the lowest there is."""


class Rule(NamedTuple):
    """One line of a prefix list."""

    network: Network
    permit: bool = True
    ge: int | None = None
    le: int | None = None
    """Lengths it is for: none given: its own only; `ge` alone: from there to a host."""

    @property
    def lengths(self) -> tuple[int, int]:
        """The shortest and the longest it is for."""
        own = self.network.prefixlen
        low = own if self.ge is None else self.ge
        if self.le is not None:
            return low, self.le
        return low, own if self.ge is None else self.network.max_prefixlen

    @property
    def fault(self) -> str:
        """What is wrong with it; empty: nothing."""
        low, high = self.lengths
        if self.network.prefixlen <= low <= high <= self.network.max_prefixlen:
            return ""
        return f"expected {self.network.prefixlen} <= ge <= le <= {self.network.max_prefixlen}"


class PrefixList:
    """The first rule that is for a prefix decides; where none is, it is denied."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_family: dict[Family, list[tuple[int, int, int, int, bool]]] = {}
        for rule in self.rules:
            low, high = rule.lengths
            prefix = of_network(rule.network)
            row = (prefix.bits, _top(prefix, prefix.bits), low, high, rule.permit)
            self._by_family.setdefault(prefix.family, []).append(row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefixList) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def permits(self, prefix: Prefix) -> bool:
        """Whether it may pass."""
        length = prefix.bits
        for bits, top, low, high, permit in self._by_family.get(prefix.family, ()):
            if low <= length <= high and _top(prefix, bits) == top:
                return permit
        return False


def _top(prefix: Prefix, bits: int) -> int:
    """The first `bits` bits of a prefix that has at least as many."""
    octets = prefix.nlri[1:]
    return int.from_bytes(octets, "big") >> len(octets) * 8 - bits


@dataclass(frozen=True)
class Policy:
    """What the operator says of one peer."""

    imports: PrefixList | None = None
    exports: PrefixList | None = None
    """None: nothing for an external peer (RFC 8212, section 2), everything for an internal one."""
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    local_pref: int | None = None
    """Told to internal peers."""
    import_local_pref: int | None = None
    """Of what an external peer announces."""
    med: int | None = None
    prepend: int = 0
    """Our number so many times more, for an external peer."""
    next_hop_keep: bool = False
    """A route's own next hop is told where it has one; else always ours."""
    draining: bool = False
    """RFC 8326: all routes are told as going away."""
    enforce_first_as: bool = True
    """Routes of an external peer have to begin with its number (not so at a route server)."""


class Peering(NamedTuple):
    """Who the two are."""

    local_asn: int
    peer_asn: int
    router_id: IPv4Address
    next_hops: Mapping[Family, Address]
    """Our address by family, as peers are told it; a family without one is not announced."""
    own: frozenset[Address] = frozenset()
    """All addresses that are ours: a next hop that is one of them leads nowhere."""
    cluster_id: IPv4Address | None = None
    """Of this host where it reflects routes (RFC 4456)."""

    @property
    def external(self) -> bool:
        """Whether the peer is in another AS."""
        return self.local_asn != self.peer_asn


def export(
    routes: Mapping[Prefix, Attributes], policy: Policy, peering: Peering
) -> dict[Prefix, Attributes]:
    """What the peer is told of our routes.

    Routes with the very same attributes come out with the very same, so that packing them is cheap.
    """
    permitted = policy.exports
    if permitted is None and peering.external:
        return {}
    made: dict[tuple[int, Family], Attributes | None] = {}
    told = {}
    for prefix, attributes in routes.items():
        if permitted is not None and not permitted.permits(prefix):
            continue
        key = (id(attributes), prefix.family)
        if key not in made:
            made[key] = told_to(attributes, prefix.family, policy, peering)
        if (new := made[key]) is not None:
            told[prefix] = new
    return told


def told_to(a: Attributes, family: Family, policy: Policy, peering: Peering) -> Attributes | None:
    """What the peer is told of a route with these; None: nothing, for want of a next hop."""
    hop = peering.next_hops.get(family)
    if policy.next_hop_keep and a.next_hop is not None:
        hop = a.next_hop
    if hop is None:
        return None
    communities = {*a.communities, *policy.communities}
    if policy.draining:
        communities.add(GRACEFUL_SHUTDOWN)
    a = a._replace(
        next_hop=hop,
        link_local=None,
        communities=tuple(sorted(communities)),
        large_communities=tuple(sorted({*a.large_communities, *policy.large_communities})),
        med=a.med if policy.med is None else policy.med,
    )
    if peering.external:
        path = as_path.prepend(a.as_path, peering.local_asn, 1 + policy.prepend)
        return a._replace(as_path=path, local_pref=None, originator_id=None, cluster_list=())
    preference = a.local_pref if policy.local_pref is None else policy.local_pref
    if policy.draining:
        preference = DRAINING_PREF
    return a._replace(local_pref=LOCAL_PREF if preference is None else preference)


@dataclass(frozen=True)
class Importer(Import):
    """What of a peer's routes is used."""

    policy: Policy
    peering: Peering
    _denied: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        denied = self.policy.imports is None and self.peering.external
        object.__setattr__(self, "_denied", denied)

    def permits(self, prefix: Prefix) -> bool:
        """By the import list."""
        if self.policy.imports is None:
            return not self._denied
        return self.policy.imports.permits(prefix)

    def judge(self, attributes: Attributes) -> Attributes | None:
        """With the local preference that it has here; None: see `unusable`."""
        if self._denied or self.unusable(attributes):
            return None
        if GRACEFUL_SHUTDOWN in attributes.communities:  # RFC 8326, section 4.1
            return attributes._replace(local_pref=DRAINING_PREF)
        if self.peering.external and self.policy.import_local_pref is not None:
            return attributes._replace(local_pref=self.policy.import_local_pref)
        return attributes

    def unusable(self, attributes: Attributes) -> str:
        """Why no route with these can be used; empty: it can."""
        peering = self.peering
        if peering.local_asn in as_path.numbers(attributes.as_path):
            return "our AS is in its path"  # RFC 4271, section 9.1.2
        if attributes.originator_id == peering.router_id:
            return "it comes from us"  # RFC 4456, section 8
        if peering.cluster_id is not None and peering.cluster_id in attributes.cluster_list:
            return "it was reflected by our cluster"  # RFC 4456, section 8
        if attributes.next_hop in peering.own:
            return "its next hop is us"  # RFC 4271, section 5.1.3
        enforced = peering.external and self.policy.enforce_first_as
        if enforced and as_path.first(attributes.as_path) != peering.peer_asn:
            return "its path does not begin with the peer"  # RFC 4271, section 6.3
        return ""
