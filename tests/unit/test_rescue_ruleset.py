"""From Plans to nftables, to messages, and from counts to usage; all without a kernel."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.endpoint import Address, EndpointId, Protocol
from discod.model.rescue import Bridge, Place, Plan, Pool, PoolId, Result, Stale, Usage
from discod.rescue import ruleset_text as text
from discod.rescue.elements import Answer, answers, deletion, key, question, stamp
from discod.rescue.ruleset import transaction
from discod.rescue.ruleset_layout import Element, Links, elements, named, without
from discod.rescue.usage import counts, places

BRIDGE = Bridge("br0", b"\2\0\0\0\0\1", ((ip_network("10.1.0.0/16").network_address, 16),))
A, B = (ip_address("10.1.0.3"), 8080), (ip_address("10.2.0.4"), 8080)


def where(address: str, port: int = 80, protocol: Protocol = "tcp") -> Place:
    return Place(ip_address(address), port, protocol)


def pool(*slots: tuple[Address, int], service: str = "web", affinity: bool = False) -> Pool:
    return Pool(PoolId(service, "http", "tcp", 4), slots, affinity)


def gone(place: Place, of: Pool, *, cut: bool = True, backend: Place | None = None) -> Stale:
    return Stale(place, EndpointId("web", "x"), of.id, cut, "crashed", 1.0, 2.0, backend)


def plan(
    *some: Stale | Pool, bridges: tuple[Bridge, ...] = (), refuse: bool = True, **vips: Pool
) -> Plan:
    return Plan(
        MappingProxyType({one.place: one for one in some if isinstance(one, Stale)}),
        MappingProxyType({where(a.replace("_", ".")[1:]): one.id for a, one in vips.items()}),
        MappingProxyType({one.id: one for one in some if isinstance(one, Pool)}),
        bridges,
        refuse,
    )


def lines(before: Plan | None, after: Plan) -> list[str]:
    """Without the name of the table, and with pools called by their service."""
    words = transaction(before, after).replace(" discod_rescue", "")
    return re.sub(r"\b([pm])_([a-z_]+)_http_[0-9a-f]{16}", r"\1_\2", words).splitlines()


DEAD = where("10.1.0.77")


def test_one_more_place_is_one_element_of_each_set() -> None:
    web = pool(A, B)
    before = plan(web, gone(where("10.9.0.1"), web), bridges=(BRIDGE,))
    after = plan(web, gone(where("10.9.0.1"), web), gone(where("10.9.0.2"), web), bridges=(BRIDGE,))
    assert lines(before, after) == [
        "add element inet dead4 { 10.9.0.2 . tcp . 80 : goto p_web }",
        "add element inet gone4 { 10.9.0.2 . tcp . 80 }",
        "add element inet ours4 { 10.9.0.2 . tcp . 80 }",
    ]
    assert lines(after, before) == [
        "delete element inet dead4 { 10.9.0.2 . tcp . 80 }",
        "delete element inet gone4 { 10.9.0.2 . tcp . 80 }",
        "delete element inet ours4 { 10.9.0.2 . tcp . 80 }",
    ]
    assert transaction(after, after) == ""
    assert transaction(after, replace(after)) == ""


def test_a_changed_slot_is_changed_alone() -> None:
    before, after = (plan(gone(DEAD, web), web) for web in (pool(A, A, B, B), pool(A, B, B, B)))
    assert lines(before, after) == [
        "delete element inet m_web { 1 }",
        "add element inet m_web { 1 : 10.2.0.4 . 8080 }",
    ]


def test_another_number_of_slots_changes_the_rule() -> None:
    before, after = (
        plan(gone(DEAD, web), web) for web in (pool(A, B), pool(A, B, A, B, affinity=True))
    )
    assert lines(before, after) == [
        "flush chain inet p_web",
        "add element inet m_web { 2 : 10.1.0.3 . 8080, 3 : 10.2.0.4 . 8080 }",
        "add rule inet p_web ip daddr != @vip4 update @rescued4"
        " { ip saddr . ip daddr . meta l4proto . th dport }",
        "add rule inet p_web meta l4proto tcp dnat ip to jhash ip saddr mod 4 seed 0xd15c0d"
        " map @m_web",
    ]


def test_the_last_sibling_goes_and_one_comes_back() -> None:
    alive, nobody = (plan(gone(DEAD, web), web) for web in (pool(A, B), pool()))
    assert lines(alive, nobody) == [
        "delete element inet dead4 { 10.1.0.77 . tcp . 80 }",
        "delete element inet ours4 { 10.1.0.77 . tcp . 80 }",
        "add element inet dead4 { 10.1.0.77 . tcp . 80 : goto refuse }",
        "flush chain inet p_web",
        "delete chain inet p_web",
        "delete map inet m_web",
    ]
    back = lines(nobody, alive)
    assert back[:4] == [
        "delete element inet dead4 { 10.1.0.77 . tcp . 80 }",
        "add map inet m_web { typeof numgen random mod 2 : ip daddr . tcp dport; }",
        "add chain inet p_web",
        "add element inet m_web { 0 : 10.1.0.3 . 8080, 1 : 10.2.0.4 . 8080 }",
    ]
    assert "goto p_web" in back[-2]
    left = plan(gone(DEAD, pool()), pool(), refuse=False)
    assert lines(nobody, left) == ["delete element inet dead4 { 10.1.0.77 . tcp . 80 }"]


def test_who_may_mean_either_of_two_services_is_refused() -> None:
    web = pool(A, B)
    one = gone(DEAD, web)
    assert lines(plan(web, one), plan(web, replace(one, shared=True))) == [
        "delete element inet dead4 { 10.1.0.77 . tcp . 80 }",
        "delete element inet ours4 { 10.1.0.77 . tcp . 80 }",
        "add element inet dead4 { 10.1.0.77 . tcp . 80 : goto refuse }",
    ]


def test_bridges_have_a_table_only_while_it_has_something() -> None:
    web = pool(B)
    none = plan(web, bridges=(BRIDGE,))
    one = plan(web, gone(DEAD, web), bridges=(BRIDGE,))
    two = plan(web, gone(DEAD, web), gone(where("10.1.0.78"), web, cut=False), bridges=(BRIDGE,))
    assert "table bridge" in transaction(none, one)
    assert "table bridge" not in transaction(none, one, bridged=False)
    assert lines(one, two)[:2] == [
        "add element bridge link4 { 10.1.0.78 . tcp . 80 : 02:00:00:00:00:01 }",
        "add element bridge soft4 { 10.1.0.78 . tcp . 80 }",
    ]
    assert lines(one, none)[-1] == "delete table bridge"
    assert not [line for line in lines(one, none) if "element bridge" in line]
    assert "bridge" not in transaction(one, none, bridged=False)


def test_two_ports_of_one_container_end_with_the_last() -> None:
    web, behind = pool(B), where("10.1.0.77", 8080)
    some = [gone(where("192.0.2.1", port), web, backend=behind) for port in (80, 81)]
    both, one, none = plan(web, *some), plan(web, some[0]), plan(web)
    key_ = "10.1.0.77 . tcp . 8080"
    assert key_ in transaction(both, none)
    assert key_ not in transaction(both, one)
    assert key_ in transaction(one, none)
    in_use = without(both, {behind})
    assert all(stale.backend is None for stale in in_use.stale.values())


def test_service_addresses_come_and_go_with_their_last_port() -> None:
    web = pool(A)
    before = plan(web, v192_0_2_9=web)
    assert lines(plan(web), before) == [
        "add element inet vip4 { 192.0.2.9 }",
        "add element inet dead4 { 192.0.2.9 . tcp . 80 : goto p_web }",
        "add element inet ours4 { 192.0.2.9 . tcp . 80 }",
    ]
    more = replace(before, vips=MappingProxyType({**before.vips, where("192.0.2.9", 81): web.id}))
    assert not [line for line in lines(before, more) if "vip4" in line]
    assert not [line for line in lines(more, before) if "vip4" in line]
    assert "delete element inet vip4 { 192.0.2.9 }" in lines(before, plan(web))
    # Without anybody it refuses, whatever the settings say of stale places.
    nobody = replace(plan(pool(), v192_0_2_9=web), refuse=False)
    assert "goto refuse" in transaction(before, nobody)


def test_names_of_bridges_are_in_rules_of_their_own() -> None:
    odd = [replace(BRIDGE, name=name) for name in ("br0", 'x"; flush', "a*")]
    words = transaction(Plan(), plan(bridges=tuple(odd)))
    assert 'iifname . oifname { "br0" . "br0" } masquerade' in words
    assert "flush ruleset" not in words
    assert "a*" not in words
    assert "iifname" not in text.translated([])


@given(st.text(max_size=80), st.text(max_size=80))
def test_names_of_pools_are_legal_short_and_their_own(one: str, other: str) -> None:
    made = {
        named(PoolId(service, port, protocol, version))
        for service, port in ((one, other), (other, one))
        for protocol in ("tcp", "udp")
        for version in (4, 6)
    }
    assert all(re.fullmatch(r"[a-z0-9_]{1,49}", name) for name in made)
    assert len(made) == (4 if one == other else 8)


def test_the_longest_prefix_says_which_bridge() -> None:
    inner = Bridge("br1", b"\2\0\0\0\0\2", ((ip_address("10.1.5.0"), 24),))
    links = Links((BRIDGE, inner))
    assert links.of(ip_address("10.1.5.9")) == "02:00:00:00:00:02"
    assert links.of(ip_address("10.1.6.9")) == "02:00:00:00:00:01"
    assert links.of(ip_address("10.2.0.1")) == ""
    assert links.of(ip_address("::a01:509")) == ""


# A model of nft: sets of elements, and chains by name.

State = dict[str, dict[str, str]]


def run(state: State, words: str) -> None:
    """Do what a transaction's changes say; anything nft would refuse fails."""
    words = re.sub(r"^table bridge .*?^\}\n", "NEW\n", words, flags=re.M | re.S)
    for line in words.splitlines():
        match line.split(" ", 5):
            case ["NEW"]:
                assert "bridge" not in state
                state["bridge"] = {}
            case ["delete", "table", "bridge", _]:
                del state["bridge"]
                for name in [name for name in state if name.startswith("bridge ")]:
                    del state[name]
            case [verb, "element", family, _, name, body]:
                assert family == "inet" or "bridge" in state
                some = state.setdefault(f"{family} {name}", {})
                for one in body.strip("{} ").split(", "):
                    key_, _, data = one.partition(" : ")
                    if verb == "delete":
                        del some[key_]
                        continue
                    assert some.setdefault(key_, data) == data
                    chain = data.removeprefix("goto ")
                    assert not data.startswith("goto p_") or f"chain {chain}" in state
            case ["add", "chain", _, _, name]:
                assert state.setdefault(f"chain {name}", {}) == {}
            case ["flush", "chain", _, _, name]:
                state[f"chain {name}"] = {}
            case ["delete", "chain", _, _, name]:
                assert state.pop(f"chain {name}") == {}
                used = [d for some in state.values() for d in some.values()]
                assert f"goto {name}" not in used
            case ["add", "rule", _, _, name, body]:
                chain_ = state.setdefault(f"chain {name}", {})
                chain_[str(len(chain_))] = body
            case ["add", "map", _, _, name, _]:
                assert f"inet {name}" not in state
                state[f"inet {name}"] = {}
            case ["delete", "map", _, _, name]:
                del state[f"inet {name}"]
            case _:
                raise AssertionError(line)


def wanted(plan_: Plan) -> State:
    """What a plan is to lead to, from nothing."""
    state: State = {"chain translated": {}}
    run(state, transaction(Plan(), plan_))
    return pruned(state)


def pruned(state: State) -> State:
    return {name: some for name, some in state.items() if some or name == "bridge"}


POOLS = st.builds(
    lambda service, protocol, n, targets, affinity: Pool(
        PoolId(service, "http", protocol, 4),
        tuple(targets[i % len(targets)] for i in range(n)) if targets else (),
        affinity,
    ),
    st.sampled_from(("a", "b", "c")), st.sampled_from(("tcp", "udp")), st.sampled_from((2, 4)),
    st.lists(st.sampled_from((A, B)), max_size=2), st.booleans(),
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    pools = {one.id: one for one in draw(st.lists(POOLS, min_size=1, max_size=4))}
    ids = st.sampled_from(sorted(pools))
    stale = {}
    for n in draw(st.lists(st.integers(0, 7), max_size=6)):
        of = draw(ids)
        place = where(f"10.{n % 3}.0.{n}", 80, of.protocol)
        behind = draw(st.sampled_from((None, where("10.1.0.1", 80, of.protocol))))
        one = gone(place, pools[of], cut=draw(st.booleans()), backend=behind)
        stale[place] = replace(one, shared=draw(st.booleans()))
    vips = {}
    for n in draw(st.lists(st.integers(1, 3), max_size=2)):
        of = draw(ids)
        vips[where("192.0.2.9", n, of.protocol)] = of
    return Plan(
        MappingProxyType(stale), MappingProxyType(vips), MappingProxyType(pools),
        draw(st.sampled_from(((), (BRIDGE,)))), draw(st.booleans()),
    )  # fmt: skip


@given(st.lists(plans(), min_size=2, max_size=4))
def test_changes_lead_to_what_the_last_plan_wants(some: list[Plan]) -> None:
    state: State = {"chain translated": {}}
    run(state, transaction(Plan(), some[0]))
    for before, after in pairwise(some):
        kept = {
            element
            for place in before.stale.keys() & after.stale.keys()
            for element in set(elements(before, place, Links(before.bridges)))
            & set(elements(after, place, Links(after.bridges)))
        }
        words = transaction(before, after)
        for verb, family, name, body in re.findall(
            r"(delete) element (\w+) discod_rescue (\w+) \{ (.*) \}", words
        ):
            for element in kept:
                address, port, protocol = element.place
                assert verb
                if (family, name) == (element.family, element.set):
                    assert f"{address} . {protocol} . {port}" not in body.split(", ")
        run(state, words)
        expected = wanted(after)
        expected.setdefault("chain translated", {})
        state_now = pruned(state)
        state_now.pop("chain translated", None)
        expected.pop("chain translated", None)
        assert state_now == expected


# Messages


def test_a_deletion_octet_by_octet() -> None:
    data = deletion([Element("inet", "gone4", where("10.1.0.77", 80))], 7, lenient=False)
    assert (
        data.hex(" ", 4)
        == (
            "14000000 10000100 06000000 00000000 0000000a "  # batch begins: nf_tables
            "50000000 0e0a0500 07000000 00000000 01000000 "  # delete an element, of inet
            "12000100 64697363 6f645f72 65736375 65000000 "  # table
            "0a000200 676f6e65 34000000 "  # set
            "1c000380 18000180 14000180 10000100 0a01004d 06000000 00500000 "  # the key
            "14000000 11000100 08000000 00000000 0000000a"
        ).strip()
    )


def test_keys_are_padded_field_by_field() -> None:
    assert key(where("10.1.0.77", 53, "udp")).hex() == "0a01004d1100000000350000"
    assert len(key(where("2001:db8::1"))) == 24


@given(st.binary(max_size=200))
def test_answers_of_any_octets(data: bytes) -> None:
    for answer in answers(data):
        assert isinstance(answer, Answer)
        stamp(answer.payload)


def test_answers() -> None:
    head = struct.Struct("=IHHII")
    fault = head.pack(36, 2, 0, 9, 0) + struct.pack("=i", -2) + head.pack(20, 0, 0, 9, 0)
    handle = struct.pack("=HHQ", 12, 4, int.from_bytes((5).to_bytes(8, "big"), "little"))
    table = head.pack(32, 0xA00, 0, 10, 0) + b"\1\0\0\0" + handle
    first, second = answers(fault + table)
    assert first == (9, 2, b"")
    assert second.sequence == 10
    assert stamp(second.payload).handle == 5
    assert list(answers((fault + table)[:-1])) == [first]
    assert b"discod_rescue\0" in question("bridge", 1)


# Counts


def listing(name: str, *some: object) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, {"set": {"name": name, "elem": some}}]})


def counted(n: object, *concat: object) -> object:
    return {"elem": {"val": {"concat": concat}, "timeout": 600, "counter": {"packets": n}}}


def test_counts() -> None:
    output = listing(
        "reset6",
        counted(3, "2001:db8::2", "2001:db8::77", "tcp", 80),
        counted(0, "2001:db8::3", "2001:db8::77", "tcp", 80),
        counted(1, "nobody", "2001:db8::77", "tcp", 80),
        counted("1", "2001:db8::2", "2001:db8::77", "tcp", 80),
        counted(1, "2001:db8::2", "2001:db8::77", "sctp", 80),
        counted(2, "2001:db8::2", "2001:db8::77", 17, 53),
        counted(2, "2001:db8::2"),
        7,
    )
    client = ip_address("2001:db8::2")
    assert list(counts(output)) == [
        Usage(client, where("2001:db8::77"), Result.RESET, 3),
        Usage(client, where("2001:db8::77", 53, "udp"), Result.RESET, 2),
    ]
    assert list(counts(listing("busy4"))) == []
    assert list(counts(listing("refused4"))) == []


def test_places_with_and_without_a_timeout() -> None:
    one = {"concat": ["10.1.0.77", "tcp", 80]}
    output = listing(
        "busy4", one, {"elem": {"val": one, "expires": 3}}, {"concat": ["x", "tcp", 1]}
    )
    assert list(places(output)) == [DEAD, DEAD]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("nftables", "set", "elem", "val", "name")), inner)
    ),
)


@given(JSON)
def test_listings_of_any_form_are_no_fault(value: object) -> None:
    for output in (json.dumps(value), json.dumps({"nftables": [{"set": value}]})):
        assert list(counts(output)) == []
        assert list(places(output)) == []


def test_what_is_no_json_is_said() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        list(counts("{"))
