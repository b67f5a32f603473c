"""What a peer told, what is chosen of it, and what filters leave of it."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_bgp.actions import Routes
from calico_bgp.as_path import AS_SET, Segment
from calico_bgp.attributes import GRACEFUL_SHUTDOWN, Attributes
from calico_bgp.connection import NEVER
from calico_bgp.decision import LocRib, Path, best
from calico_bgp.outbox import Outbox
from calico_bgp.policy import Importer, Peering, Policy, PrefixList, Rule, export
from calico_bgp.prefix import IPV4, IPV6, Prefix, of_network
from calico_bgp.rib import AdjRibIn, AdjRibOut, Change, Import, difference
from calico_bgp.update import Announced, Update
from tests.bgp import FAMILIES_BOTH, prefix, route, routes

ONE, TWO, THREE = (prefix(f"10.0.0.{n}/32") for n in (1, 2, 3))
SIX = prefix("2001:db8::1/128")
RED, BLUE = route("192.0.2.1", 64513), route("192.0.2.2", 64513)
KNOWN = st.dictionaries(st.sampled_from((ONE, TWO, THREE, SIX)), st.sampled_from((RED, BLUE)))


def told(attributes: Attributes, *prefixes: Prefix) -> Update:
    return Update((Announced(attributes, prefixes),))


def gone(*prefixes: Prefix) -> Update:
    return Update(withdrawn=prefixes)


def after(known: dict[Prefix, Attributes], change: Change) -> dict[Prefix, Attributes]:
    """The set with the change made; every part of the change has to change something."""
    assert change.withdrawn <= known.keys()
    assert not change.withdrawn & change.announced.keys()
    left = {one: a for one, a in known.items() if one not in change.withdrawn}
    return {**left, **change.announced}


# Changes ----------------------------------------------------------------------------------------


@given(KNOWN, KNOWN)
def test_a_difference_leads_from_one_to_the_other(
    old: dict[Prefix, Attributes], new: dict[Prefix, Attributes]
) -> None:
    change = difference(old, new)
    assert after(old, change) == new
    assert not difference(new, dict(new))
    assert all(old.get(one) != a for one, a in change.announced.items())


@given(KNOWN, KNOWN, KNOWN)
def test_two_changes_are_one(
    old: dict[Prefix, Attributes], middle: dict[Prefix, Attributes], new: dict[Prefix, Attributes]
) -> None:
    box = Outbox()
    box.change(difference({}, old))
    known: dict[Prefix, Attributes] = {}
    for one in box.take(NEVER):
        assert isinstance(one, Routes)
        known = after(known, one.change)
    box.change(difference(old, middle))
    box.change(difference(middle, new))
    for one in box.take(NEVER):
        assert isinstance(one, Routes)
        known = after(known, one.change)
    assert known == new


STEP = st.tuples(st.booleans(), st.sampled_from((RED, BLUE)), st.sampled_from((ONE, TWO, SIX)))


@given(st.lists(st.lists(STEP, max_size=3), max_size=8))
def test_any_history_of_updates(history: list[list[tuple[bool, Attributes, Prefix]]]) -> None:
    rib = AdjRibIn(Import())
    known: dict[Prefix, Attributes] = {}
    want: dict[Prefix, Attributes] = {}
    for steps in history:
        announced = {one: a for is_new, a, one in steps if is_new}
        withdrawn = {one for is_new, _, one in steps if not is_new} - announced.keys()
        groups = tuple(Announced(a, (one,)) for one, a in announced.items())
        change = rib.apply(Update(groups, tuple(withdrawn)))
        known = after(known, change)
        want = {one: a for one, a in want.items() if one not in withdrawn} | announced
        assert known == want == rib.accepted
        for family in FAMILIES_BOTH:
            assert rib.received[family] == sum(one.family == family for one in want)


# One peer ---------------------------------------------------------------------------------------


def test_the_same_again_is_no_change() -> None:
    rib = AdjRibIn(Import())
    assert rib.apply(told(RED, ONE)).announced == {ONE: RED}
    assert not rib.apply(told(RED, ONE))
    assert rib.apply(told(BLUE, ONE)).announced == {ONE: BLUE}
    assert rib.apply(gone(ONE)).withdrawn == {ONE}
    assert not rib.apply(gone(ONE))


def test_stale_routes_live_until_they_are_swept() -> None:
    """RFC 4724, section 4.2."""
    rib = AdjRibIn(Import())
    rib.apply(told(RED, ONE, TWO, SIX))
    assert rib.mark_stale([IPV4]).withdrawn == {SIX}
    assert rib.stale == 2
    assert not rib.apply(told(RED, ONE))
    assert rib.stale == 1
    assert not rib.sweep([IPV6])
    assert rib.sweep([IPV4]).withdrawn == {TWO}
    assert not rib.sweep()
    assert rib.accepted == {ONE: RED}


def test_a_restart_in_a_restart_ends_what_was_stale() -> None:
    rib = AdjRibIn(Import())
    rib.apply(told(RED, ONE, TWO))
    rib.mark_stale([IPV4])
    rib.apply(told(RED, ONE))
    assert rib.mark_stale([IPV4]).withdrawn == {TWO}
    assert rib.clear().withdrawn == {ONE}
    assert rib.received[IPV4] == 0


def test_another_policy_needs_no_refresh() -> None:
    rib = AdjRibIn(importer(Rule(ip_network("10.0.0.1/32"))))
    assert rib.apply(told(RED, ONE, TWO)).announced == {ONE: RED}
    assert rib.received[IPV4] == 2
    change = rib.judge_again(importer(Rule(ip_network("10.0.0.2/32"))))
    assert change == Change({TWO: RED}, frozenset({ONE}))
    assert not rib.judge_again(importer(Rule(ip_network("10.0.0.2/32"))))


def test_a_route_that_is_no_longer_permitted_goes() -> None:
    rib = AdjRibIn(importer(Rule(ip_network("10.0.0.0/8"), le=32)))
    rib.apply(told(RED, ONE))
    assert rib.apply(told(route("192.0.2.1", 64513, 64512), ONE)).withdrawn == {ONE}


def test_what_is_advertised() -> None:
    out = AdjRibOut()
    assert out.set({ONE: RED, TWO: RED}).announced == {ONE: RED, TWO: RED}
    assert out.set({ONE: RED, SIX: BLUE}) == Change({SIX: BLUE}, frozenset({TWO}))
    assert not out.set({ONE: RED, SIX: BLUE})
    assert out.of(IPV6) == {SIX: BLUE}


# The choice -------------------------------------------------------------------------------------


def path(peer: int = 1, asn: int = 65001, external: bool = True, **more: Any) -> Path:
    attributes = route("192.0.2.1", asn, **more)
    address = ip_address(f"10.0.0.{peer}")
    return Path(attributes, address, IPv4Address(f"10.0.0.{peer}"), external)


BETTER = [
    # Section of RFC 4271, the better one, the worse one
    ("9.1.1", path(2, local_pref=200), path(1)),
    ("9.1.1: 100 where it is not said", path(1), path(1, local_pref=99)),
    ("9.1.2.2 a", path(2), path(1)._replace(attributes=route("192.0.2.1", 65001, 65002))),
    (
        "9.1.2.2 a: a set is one",
        path(2)._replace(attributes=Attributes(as_path=(Segment(AS_SET, (1, 2, 3)),))),
        path(1)._replace(attributes=route("192.0.2.1", 65001, 65002)),
    ),
    ("9.1.2.2 b", path(2, origin=0), path(1, origin=2)),
    ("9.1.2.2 c", path(2, med=5), path(1, med=6)),
    ("9.1.2.2 c: none is 0", path(2), path(1, med=1)),
    ("9.1.2.2 c: not of another AS", path(1, asn=65002, med=9), path(2, med=1)),
    ("9.1.2.2 d", path(2), path(1, external=False)),
    ("9.1.2.2 f", path(1), path(2)),
    (
        "4456, 9: ORIGINATOR_ID",
        path(2, originator_id=IPv4Address("9.0.0.1")),
        path(1),
    ),
    (
        "4456, 9: CLUSTER_LIST",
        path(1)._replace(peer=ip_address("10.0.0.9")),
        path(1, cluster_list=(IPv4Address("9.9.9.9"),)),
    ),
    (
        "9.1.2.2 g",
        path(1),
        path(1)._replace(peer=ip_address("10.0.0.9")),
    ),
]


@pytest.mark.parametrize(
    ("better", "worse"), [row[1:] for row in BETTER], ids=[row[0] for row in BETTER]
)
def test_which_path_is_better(better: Path, worse: Path) -> None:
    assert best([better, worse]) == best([worse, better]) == (better,)


def test_the_order_in_which_paths_came_does_not_count() -> None:
    """With MED between three it does in many speakers (RFC 3345)."""
    paths = [path(1, 65001, med=10), path(2, 65002, med=1), path(3, 65001, med=0)]
    assert {best(order) for order in permutations(paths)} == {(paths[1],)}


def test_equal_paths() -> None:
    paths = [path(3), path(1, asn=65002), path(2), path(4, external=False), path(5, med=1)]
    assert [int(one.peer) & 255 for one in best(paths, 8)] == [1, 2, 3]
    assert [int(one.peer) & 255 for one in best(paths, 2)] == [1, 2]


def test_all_peers_together() -> None:
    rib = LocRib(multipath=2)
    first, second = ip_address("10.0.0.1"), ip_address("10.0.0.2")

    def take(change: Change, peer: Any) -> dict[Prefix, list[Any]]:
        changed = rib.apply(change, peer, peer, external=True)
        return {one: [path.peer for path in paths] for one, paths in changed.items()}

    assert take(Change({ONE: RED, TWO: RED}), first) == {ONE: [first], TWO: [first]}
    assert take(Change({ONE: BLUE}), second) == {ONE: [first, second]}
    assert take(Change({ONE: BLUE}), second) == {}
    assert take(Change({}, frozenset({ONE, TWO})), first) == {ONE: [second], TWO: []}
    assert rib.chosen.keys() == {ONE}
    assert rib.remove(first) == {}
    assert rib.remove(second) == {ONE: ()}
    assert rib.chosen == {}


# Filters ----------------------------------------------------------------------------------------

OWN = ip_address("10.0.0.1")
EBGP = Peering(
    64512,
    64513,
    IPv4Address("10.0.0.1"),
    {IPV4: OWN, IPV6: ip_address("2001:db8::a")},
    frozenset({OWN}),
)
IBGP = EBGP._replace(peer_asn=64512)


def importer(*rules: Rule, peering: Peering = EBGP, **more: Any) -> Importer:
    return Importer(Policy(imports=PrefixList(rules), **more), peering)


def rule(text: str, permit: bool = True, ge: int | None = None, le: int | None = None) -> Rule:
    return Rule(ip_network(text), permit, ge, le)


LISTS = [
    ("exact", [rule("10.0.0.0/8")], ["10.0.0.0/8"], ["10.0.0.0/9", "10.0.0.0/7", "11.0.0.0/8"]),
    ("le", [rule("10.0.0.0/8", le=24)], ["10.0.0.0/8", "10.9.8.0/24"], ["10.9.8.0/25"]),
    ("ge", [rule("10.0.0.0/8", ge=32)], ["10.9.8.7/32"], ["10.0.0.0/8", "10.9.8.0/24"]),
    ("ge le", [rule("10.0.0.0/8", ge=9, le=9)], ["10.128.0.0/9"], ["10.0.0.0/8", "10.0.0.0/10"]),
    (
        "the first decides",
        [rule("10.1.0.0/16", False, le=32), rule("10.0.0.0/8", le=32)],
        ["10.2.0.1/32"],
        ["10.1.0.1/32", "192.0.2.1/32"],
    ),
    ("any", [rule("0.0.0.0/0", le=32)], ["0.0.0.0/0", "1.2.3.4/32"], ["2001:db8::/32"]),
    ("IPv6", [rule("2001:db8::/33", ge=128)], ["2001:db8::1/128"], ["2001:db8:8000::1/128"]),
    ("none", [], [], ["0.0.0.0/0"]),
]


@pytest.mark.parametrize(
    ("rules", "good", "bad"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS]
)
def test_prefix_lists(rules: list[Rule], good: list[str], bad: list[str]) -> None:
    one = PrefixList(rules)
    assert all(one.permits(prefix(text)) for text in good)
    assert not any(one.permits(prefix(text)) for text in bad)
    assert one == PrefixList(rules)
    assert not any(rule.fault for rule in rules)


NETWORK = st.builds(
    lambda n, bits: ip_network((n << 28, bits), strict=False), st.integers(0, 15), st.integers(0, 5)
)


@given(NETWORK, st.integers(0, 8), st.integers(0, 8), NETWORK)
def test_prefix_lists_agree_with_the_standard_library(
    network: Any, ge: int, le: int, asked: Any
) -> None:
    one = Rule(network, True, ge, le)
    if one.fault:
        return
    want = asked.subnet_of(network) and ge <= asked.prefixlen <= le
    assert PrefixList([one]).permits(of_network(asked)) == want


@pytest.mark.parametrize(
    "bad", [rule("10.0.0.0/8", ge=7), rule("10.0.0.0/8", ge=9, le=8), rule("10.0.0.0/8", le=33)]
)
def test_rules_that_make_no_sense(bad: Rule) -> None:
    assert bad.fault == "expected 8 <= ge <= le <= 32"


OURS = routes("10.0.0.9/32", "2001:db8::9/128", told=Attributes())


def test_without_a_policy_an_external_peer_hears_and_says_nothing() -> None:
    """RFC 8212."""
    assert export(OURS, Policy(), EBGP) == {}
    rib = AdjRibIn(Importer(Policy(), EBGP))
    assert not rib.apply(told(RED, ONE))
    assert rib.received[IPV4] == 1
    assert export(OURS, Policy(), IBGP).keys() == OURS.keys()
    assert AdjRibIn(Importer(Policy(), IBGP)).apply(told(RED, ONE)).announced


ALL = PrefixList([rule("0.0.0.0/0", le=32), rule("::/0", le=128)])


def test_what_an_external_peer_is_told() -> None:
    policy = Policy(exports=ALL, communities=(7, 5), med=9, local_pref=50, prepend=1)
    found = export(OURS, policy, EBGP)
    want = route("10.0.0.1", 64512, 64512, med=9, communities=(5, 7))
    assert found[prefix("10.0.0.9/32")] == want
    assert found[prefix("2001:db8::9/128")] == want._replace(next_hop=ip_address("2001:db8::a"))


def test_what_an_internal_peer_is_told() -> None:
    [(_, a)] = export(routes("10.0.0.9/32", told=Attributes()), Policy(), IBGP).items()
    assert a == Attributes(next_hop=OWN, local_pref=100)
    large = ((1, 2, 3),)
    policy = Policy(local_pref=50, large_communities=large)
    [(_, a)] = export(routes("10.0.0.9/32", told=Attributes()), policy, IBGP).items()
    assert a == Attributes(next_hop=OWN, local_pref=50, large_communities=large)


def test_draining() -> None:
    """RFC 8326."""
    drained = Policy(exports=ALL, draining=True)
    for peering, pref in ((EBGP, None), (IBGP, 0)):
        for a in export(OURS, drained, peering).values():
            assert a.communities == (GRACEFUL_SHUTDOWN,)
            assert a.local_pref == pref
    assert export(OURS, Policy(exports=ALL), EBGP) != export(OURS, drained, EBGP)


def test_next_hops() -> None:
    own = routes("10.0.0.9/32", told=route("192.0.2.9"))
    [kept] = export(own, Policy(exports=ALL, next_hop_keep=True), EBGP).values()
    [ours] = export(own, Policy(exports=ALL), EBGP).values()
    assert (str(kept.next_hop), ours.next_hop) == ("192.0.2.9", OWN)
    nowhere = EBGP._replace(next_hops={IPV4: OWN})
    assert export(OURS, Policy(exports=ALL), nowhere).keys() == {prefix("10.0.0.9/32")}


def test_export_keeps_what_is_the_same_the_same() -> None:
    one = Attributes()
    own = routes("10.0.0.9/32", "10.0.0.8/32", told=one)
    assert len({id(a) for a in export(own, Policy(exports=ALL), EBGP).values()}) == 1


UNUSABLE = [
    (route("192.0.2.1", 64513, 64512), EBGP, "our AS"),
    (route("192.0.2.1", 64999), EBGP, "does not begin"),
    (Attributes(next_hop=ip_address("192.0.2.1")), EBGP, "does not begin"),
    (route("10.0.0.1", 64513), EBGP, "next hop is us"),
    (route("192.0.2.1", originator_id=IPv4Address("10.0.0.1")), IBGP, "comes from us"),
    (route("192.0.2.1", 64513), EBGP, ""),
    (route("192.0.2.1"), IBGP, ""),
]


@pytest.mark.parametrize(("attributes", "peering", "why"), UNUSABLE)
def test_what_cannot_be_used(attributes: Attributes, peering: Peering, why: str) -> None:
    policy = Importer(Policy(imports=ALL), peering)
    found = policy.unusable(attributes)
    assert bool(found) == bool(why)
    assert why in found
    assert (policy.judge(attributes) is None) == bool(why)


def test_a_route_server_does_not_put_itself_first() -> None:
    lax = importer(peering=EBGP, enforce_first_as=False)
    assert lax.judge(route("192.0.2.1", 64999)) is not None


def test_local_preference_here() -> None:
    assert importer(import_local_pref=70).judge(RED) == RED._replace(local_pref=70)
    leaving = RED._replace(communities=(GRACEFUL_SHUTDOWN,))
    found = importer(import_local_pref=70).judge(leaving)
    assert found is not None
    assert found.local_pref == 0
